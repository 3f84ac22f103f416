"""`EvalReportOperator` writes the report of a graded run as an HTML file that the task links to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_batch.evals.matrix import encode
from airflow_provider_batch.evals.page import matrix_name, report_folder, report_name
from airflow_provider_batch.evals.read_matrix import read_matrix
from airflow_provider_batch.evals.read_report import ReportTables
from airflow_provider_batch.evals.report import render
from airflow_provider_batch.links.batch import REPORT_KEY, EvalReportLink, answers_page
from airflow_provider_batch.operators.evals.arguments import check_fields, parse_fields
from airflow_provider_batch.operators.evals.grade import CASES_SQL
from airflow_provider_batch.operators.results import BatchResultsOperator
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context


class EvalReportOperator(CheckedMapping, BaseOperator):
    """Write a report about a graded run and its history as one HTML file.

    Returns a dict with `report` (the address of the file in staging), `link` (the page in the Airflow UI) and `bytes`
    (its size).

    The file needs no network and runs no script, so you can mail or archive it. It is in the task's folder under
    `[openai_batch] staging`. The button "Eval report" on the task shows it to everyone who may see the task. The file
    name depends on the content, so clearing the task never overwrites a different report. The provider never deletes a
    report.

    The operator also records the estimated and actual costs of this DAG run's landings in the table `costs`.

    :param run: id of the run to report.
    :param title: heading of the page.
    :param cases_sql: as passed to EvalGradeOperator.
    :param answers: results table with the answers.
    :param judgements: results table with the verdicts of the judges, if there are any.
    :param embeddings: results table with the embeddings of texts, if there is one, for the costs.
    :param preferences: results table with the comparisons of pairs of answers by a judge, if there is one. Its key
        columns are `run` and the custom_id; it carries `case_id`, `first_variant` and `second_variant`, and
        `preference` is `first`, `second` or `tie`. Every pair is there in both orders.
    :param prefix: as passed to EvalGradeOperator.
    :param warehouse_conn_id: connection to read from, and to write `costs` to.
    :raises AirflowFailException: if the run has not been graded.
    """

    template_fields: Sequence[str] = (
        "run",
        "title",
        "cases_sql",
        "answers",
        "judgements",
        "embeddings",
        "preferences",
        "prefix",
        "warehouse_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"
    operator_extra_links = (EvalReportLink(),)

    @check_arguments
    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        title: str = "{{ dag.dag_id }}",
        cases_sql: str = CASES_SQL,
        answers: str = "eval_answers",
        judgements: str | None = None,
        embeddings: str | None = None,
        preferences: str | None = None,
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
        self.embeddings = embeddings
        self.preferences = preferences
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> dict[str, Any]:
        """Record the costs, read the tables and write the file."""
        with airflow_failures(self.log):
            parse_fields(self)
            return self._execute(context)

    def _execute(self, context: Context) -> dict[str, Any]:
        tables = ReportTables(
            sql_hook(self.warehouse_conn_id),
            cases_sql=self.cases_sql,
            answers=self.answers,
            judgements=self.judgements,
            embeddings=self.embeddings,
            preferences=self.preferences,
            prefix=self.prefix,
        )
        tables.record_costs(self.run, self._landings(context))
        report = tables.read(self.run, self.title)
        ti = context["ti"]
        page = render(report, answers_page(ti.dag_id, ti.run_id)).encode("utf-8", "replace")
        matrix = encode(read_matrix(tables, report))
        folder = report_folder(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)
        name = report_name(page, matrix)
        folder.create(matrix_name(name), matrix)
        folder.create(name, page)
        ti.xcom_push(key=REPORT_KEY, value=name)
        address = f"{folder.uri.rstrip('/')}/{name}"
        self.log.info("Wrote the report of run %s (%s bytes) to %s.", self.run, f"{len(page):,}", address)
        link = EvalReportLink().get_link(self, ti_key=ti)
        return {"report": address, "link": link, "bytes": len(page)}

    def _landings(self, context: Context) -> Iterator[Mapping[str, Any]]:
        """Yield what the landing tasks of this DAG run returned. A failed or skipped task returned nothing."""
        task_ids = [task.task_id for task in self.dag.tasks if isinstance(task, BatchResultsOperator)]
        if task_ids:
            for landing in context["ti"].xcom_pull(task_ids=task_ids):
                if isinstance(landing, Mapping):
                    yield landing
