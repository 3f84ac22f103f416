"""`EvalReportOperator`: the graded runs in the warehouse -> one HTML file, linked from the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_batch.evals.page import report_folder, report_name
from airflow_provider_batch.evals.read_report import ReportTables
from airflow_provider_batch.evals.report import render
from airflow_provider_batch.links.batch import REPORT_KEY, EvalReportLink
from airflow_provider_batch.operators.evals.grade import CASES_SQL
from airflow_provider_batch.operators.results import BatchResultsOperator
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.worker.airflow_errors import told_to_airflow

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvalReportOperator(BaseOperator):
    """Write the report of a graded run, and those before it, as one HTML file.

    Returns `report` (its address in staging), `link` (the page in the Airflow UI) and `bytes`.

    The file needs no network and runs no script: it can be mailed, or kept. It lies in the task's folder under
    `[openai_batch] staging`, and the button "Eval report" on the task shows it to everyone who may see the
    task. A report with other content is another file, so clearing the task never writes over one; nothing removes them.

    Before that it notes in the table `costs` what the landings of this DAG run were expected to cost and did.

    :param run: which run to report on.
    :param title: the page's heading.
    :param cases_sql: as given to EvalGradeOperator.
    :param answers: the results table with the answers.
    :param judgements: the results table with the verdicts of a judge, if there is one.
    :param prefix: as given to EvalGradeOperator.
    :param warehouse_conn_id: connection to read from, and to write `costs` to.
    :raises AirflowFailException: if the run has not been graded.
    """

    template_fields: Sequence[str] = (
        "run",
        "title",
        "cases_sql",
        "answers",
        "judgements",
        "prefix",
        "warehouse_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"
    operator_extra_links = (EvalReportLink(),)

    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        title: str = "{{ dag.dag_id }}",
        cases_sql: str = CASES_SQL,
        answers: str = "eval_answers",
        judgements: str | None = None,
        prefix: str = "eval_",
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.title = title
        self.cases_sql = cases_sql
        self.answers = answers
        self.judgements = judgements
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Note the costs, read the tables, write the file."""
        with told_to_airflow():
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, Any]:
        tables = ReportTables(
            sql_hook(self.warehouse_conn_id),
            cases_sql=self.cases_sql,
            answers=self.answers,
            judgements=self.judgements,
            prefix=self.prefix,
        )
        tables.note_costs(self.run, self._accounts(context))
        page = render(tables.read(self.run, self.title)).encode("utf-8", "replace")
        ti = context["ti"]
        folder = report_folder(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)
        name = report_name(page)
        folder.create(name, page)
        ti.xcom_push(key=REPORT_KEY, value=name)
        address = f"{folder.uri.rstrip('/')}/{name}"
        self.log.info("The report of run %s, %s bytes: %s", self.run, f"{len(page):,}", address)
        link = EvalReportLink().get_link(self, ti_key=ti)
        return {"report": address, "link": link, "bytes": len(page)}

    def _accounts(self, context: Context) -> Iterator[Mapping[str, Any]]:
        """What the landings of this DAG run returned; those that failed or were skipped returned nothing."""
        landings = [task.task_id for task in self.dag.tasks if isinstance(task, BatchResultsOperator)]
        if landings:
            for account in context["ti"].xcom_pull(task_ids=landings):
                if isinstance(account, Mapping):
                    yield account
