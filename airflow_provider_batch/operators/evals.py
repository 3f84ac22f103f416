"""`EvalCasesOperator`, `EvalGradeOperator`, `EvalAcceptOperator`: evals over answers that have landed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

CASES_SQL = "SELECT case_id, input, expected, grader, tags FROM eval_cases"


class EvalCasesOperator(BaseOperator):
    """Check the cases of an eval before anything is asked. Returns `cases`, `judged` (those with the grader `judge`)
    and `tags` (cases per tag).

    :param cases_sql: a SELECT of `case_id, input, expected, grader, tags`, or the name of a .sql file.
    :param warehouse_conn_id: connection to read from.
    :raises AirflowFailException: for cases that cannot be graded; the message names up to ten of them.
    """

    template_fields: Sequence[str] = ("cases_sql", "warehouse_conn_id")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"

    def __init__(self, *, cases_sql: str = CASES_SQL, warehouse_conn_id: str = "warehouse", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.cases_sql = cases_sql
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        raise NotImplementedError


class EvalGradeOperator(BaseOperator):
    """Grade the answers of a run, sum them up, and hold them against the last accepted run.

    Reads tables and writes tables: nothing is asked of a model, so any earlier run can be graded again, for example
    with a corrected `expected`. The rows of the run are replaced in one transaction.

    Returns an account: `run`, `cases`, and `variants`, by name: `cases`, `answers`, `graded`, `unanswered`,
    `accuracy`, `low`, `high`, `cost_usd` (text or None), `baseline_run`, `difference`, `better`, `worse`,
    `p_corrected`, `verdict`, `regressions` (case_ids, up to 20; all of them are in the table `eval_changes`).

    :param cases_sql: a SELECT of `case_id, input, expected, grader, tags`, or the name of a .sql file.
    :param answers: the results table with the answers; key columns `run` and `variant`, carried `case_id` and `repeat`.
    :param judgements: the results table with the verdicts of a judge, keyed and carried the same way, with the
        columns `verdict` and `reason`. Needed if a case has the grader `judge`.
    :param run: which run to grade.
    :param variants: the models that were to be asked. One of which nothing landed then counts as unanswered; without
        this it would not be seen.
    :param prefix: before the names of the tables that are written, such as `analytics.eval_`. Created if absent.
    :param alpha: a difference is `regressed` or `improved` if chance alone would make one as large, in either
        direction, on at most this share of nights; so 0.02 means one false alarm in a hundred quiet nights at most.
    :param warehouse_conn_id: connection to read from and write to.
    :raises AirflowFailException: for cases that cannot be graded, and a run without answers.
    """

    template_fields: Sequence[str] = (
        "cases_sql",
        "answers",
        "judgements",
        "run",
        "variants",
        "prefix",
        "warehouse_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"

    def __init__(
        self,
        *,
        cases_sql: str = CASES_SQL,
        answers: str = "eval_answers",
        judgements: str | None = None,
        run: str = "{{ run_id }}",
        variants: Sequence[str] | None = None,
        prefix: str = "eval_",
        alpha: float = 0.02,
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cases_sql = cases_sql
        self.answers = answers
        self.judgements = judgements
        self.run = run
        self.variants = variants
        self.prefix = prefix
        self.alpha = alpha
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        raise NotImplementedError


class EvalAcceptOperator(BaseOperator):
    """Accept a graded run: later ones are held against it. Put it behind the gate; returns the variants accepted.

    By hand: `INSERT INTO eval_accepted (run, variant, accepted_at, note) VALUES (…)`; a DELETE there takes it back.

    :param run: which run to accept. Accepting it again changes nothing.
    :param variants: only these models of it. Default: all.
    :param note: why, for whoever reads the table.
    :param prefix: as given to EvalGradeOperator.
    :param warehouse_conn_id: connection to write to.
    :raises AirflowFailException: if the run has not been graded.
    """

    template_fields: Sequence[str] = ("run", "variants", "note", "prefix", "warehouse_conn_id")
    ui_color = "#e8e4f3"

    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        variants: Sequence[str] | None = None,
        note: str = "",
        prefix: str = "eval_",
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.variants = variants
        self.note = note
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> list[str]:
        raise NotImplementedError
