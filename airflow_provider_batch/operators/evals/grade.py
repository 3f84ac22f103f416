"""`EvalCasesOperator`, `EvalGradeOperator`, `EvalAcceptOperator`: evals over answers that have landed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_batch.core.pricing.prices import format_decimal
from airflow_provider_batch.evals.cases import tags_of
from airflow_provider_batch.evals.compare import Comparison, Verdict, compare
from airflow_provider_batch.evals.grading import Grading, grade_answers, scores
from airflow_provider_batch.evals.store import EvalStore, load_cases
from airflow_provider_batch.evals.summary import Summary, summaries
from airflow_provider_batch.evals.tables import ALL
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.worker.airflow_errors import told_to_airflow

if TYPE_CHECKING:
    from airflow.sdk import Context

#: the cases where the DAG names none
CASES_SQL = "SELECT case_id, input, expected, grader, tags FROM eval_cases"

#: case_ids that an account and a log name at most
NAMED = 20


class EvalCasesOperator(BaseOperator):
    """Check the cases of an eval before anything is sent.

    Returns `cases`, `judged` (those with the grader `judge`) and `tags` (cases per tag).

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
        """Check the cases and return their counts."""
        with told_to_airflow():
            cases = load_cases(sql_hook(self.warehouse_conn_id), self.cases_sql)
        judged = sum(case.grader.is_judge for case in cases)
        self.log.info("%s cases can be graded, %s of them by a judge", f"{len(cases):,}", f"{judged:,}")
        return {"cases": len(cases), "judged": judged, "tags": tags_of(cases)}


class EvalGradeOperator(BaseOperator):
    """Grade the answers of a run, sum them up, and hold them against the last accepted run.

    Reads tables and writes tables: nothing is asked of a model, so any earlier run can be graded again, for example
    with a corrected `expected`. An answer to what is no longer the question keeps the grade it had. The rows of the run
    are replaced in one transaction.

    Returns an account: `run`, `cases`, `gone` and `kept` (cases that were left out, and that kept an older grade, since
    they are gone or their question has changed), and `variants`, by name: `cases`, `answers`, `graded`, `unanswered`,
    `accuracy`, `low`, `high`, `cost_usd` (text or None), `baseline_run`, `baseline_runs`, `difference`, `better`,
    `worse`, `p_corrected`, `verdict`, `regressions` (case_ids that were right and are wrong now, up to 20, the least
    likely to be chance first; all of them are in the table `eval_changes`).

    :param cases_sql: a SELECT of `case_id, input, expected, grader, tags`, or the name of a .sql file.
    :param answers: the results table with the answers; key columns `run` and `variant`, carried `case_id` and `repeat`.
    :param judgements: the results table with the verdicts of a judge, keyed and carried the same way, with the
        columns `verdict` and `reason`. Needed if a case has the grader `judge`.
    :param run: which run to grade.
    :param variants: the models that were to be asked. One of which nothing landed then counts as unanswered; without
        this it would not be seen.
    :param prefix: before the names of the tables that are written, such as `analytics.eval_`. Created if absent.
    :param alpha: a difference is `regressed` or `improved` if chance alone would make one as large, in either
        direction, on at most this share of nights; so 0.02 means about one false alarm in a hundred quiet nights.
    :param baseline_runs: how many accepted runs this one is held against at most: the last one, and those before it
        that it was the `same` as. More of them find smaller regressions; 1 is the last accepted run alone.
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
        baseline_runs: int = 10,
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not 0 < alpha < 1:
            raise InputError(f"alpha is a share between 0 and 1, such as 0.02, not {alpha!r}.")
        if baseline_runs < 1:
            raise InputError(f"baseline_runs is at least 1, not {baseline_runs!r}.")
        self.cases_sql = cases_sql
        self.answers = answers
        self.judgements = judgements
        self.run = run
        self.variants = variants
        self.prefix = prefix
        self.alpha = alpha
        self.baseline_runs = baseline_runs
        self.warehouse_conn_id = warehouse_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Grade the answers and return the scores."""
        with told_to_airflow():
            return self._execute()

    def _execute(self) -> dict[str, Any]:
        variants = _names(self.variants)
        hook = sql_hook(self.warehouse_conn_id)
        store = EvalStore(hook, self.prefix)
        cases = load_cases(hook, self.cases_sql)
        store.prepare()
        judgements = None
        if self.judgements and any(case.grader.is_judge for case in cases):
            judgements = store.judgements(self.judgements, self.run)
        grading = grade_answers(
            cases,
            store.answers(self.answers, self.run),
            judgements=judgements,
            variants=variants,
            earlier=store.earlier(self.run),
        )
        found = summaries(grading.graded)
        overall = {summary.variant: summary for summary in found if summary.tag == ALL}
        asked_at = {name: summary.asked_at for name, summary in overall.items()}
        baselines = store.baselines(asked_at, self.baseline_runs)
        comparisons = compare(scores(grading.graded), baselines, alpha=self.alpha)
        store.write(self.run, grading.graded, found, comparisons, alpha=self.alpha, graded_at=datetime.now(UTC))
        self._tell_left_out(grading)
        for comparison in comparisons:
            self._tell(overall[comparison.variant], comparison)
        return {
            "run": self.run,
            "cases": len(cases),
            "gone": len(grading.gone),
            "kept": len(grading.kept),
            "variants": {one.variant: _account(overall[one.variant], one) for one in comparisons},
        }

    def _tell_left_out(self, grading: Grading) -> None:
        if grading.gone:
            self.log.warning("Left out: %s cases that were asked and are gone", f"{len(grading.gone):,}")
        if grading.kept:
            self.log.warning(
                "%s cases keep the grade they had: their question has changed since it was asked, or they are gone",
                f"{len(grading.kept):,}",
            )

    def _tell(self, summary: Summary, comparison: Comparison) -> None:
        self.log.info(
            "%s: accuracy %.1f %% (%.1f to %.1f) over %s cases, %s US dollars",
            summary.variant,
            100 * summary.accuracy,
            100 * summary.low,
            100 * summary.high,
            f"{summary.cases:,}",
            "unknown" if summary.cost_usd is None else format_decimal(summary.cost_usd),
        )
        if summary.unanswered:
            self.log.warning(
                "%s: %s of %s answers never came. They count as wrong, and are not compared with other runs",
                summary.variant,
                f"{summary.unanswered:,}",
                f"{summary.answers:,}",
            )
        if comparison.verdict is Verdict.NO_HISTORY:
            self.log.warning(
                "%s: there is no accepted run before this one, so there is nothing to compare it with. A gate lets it "
                "pass; accept it (EvalAcceptOperator), and later runs are held against it",
                summary.variant,
            )
            return
        self.log.log(
            logging.WARNING if comparison.verdict is Verdict.REGRESSED else logging.INFO,
            "%s: %s against run %s and %d before: %d better, %d worse of %d, %+.1f points, p = %.3g. Wrong now: %s",
            summary.variant,
            comparison.verdict.value,
            comparison.baseline_run,
            comparison.baseline_runs - 1,
            comparison.better,
            comparison.worse,
            comparison.cases,
            100 * (comparison.difference or 0.0),
            comparison.p_corrected,
            ", ".join(comparison.regressions[:NAMED]) or "none",
        )


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
        """Accept the run and return the accepted variants."""
        with told_to_airflow():
            store = EvalStore(sql_hook(self.warehouse_conn_id), self.prefix)
            store.prepare()
            accepted = store.accept(self.run, _names(self.variants), self.note, datetime.now(UTC))
        self.log.info("Accepted run %s of %s", self.run, ", ".join(accepted))
        return accepted


def _names(variants: Any) -> list[str] | None:
    if variants is None:
        return None
    if isinstance(variants, str) or not all(isinstance(name, str) for name in variants):
        raise InputError(f"variants is a list of names such as ['gpt-5-mini'], not {variants!r}. Nothing was written.")
    return list(dict.fromkeys(variants))


def _account(summary: Summary, comparison: Comparison) -> dict[str, Any]:
    return {
        "cases": summary.cases,
        "answers": summary.answers,
        "graded": summary.graded,
        "unanswered": summary.unanswered,
        "accuracy": summary.accuracy,
        "low": summary.low,
        "high": summary.high,
        "cost_usd": format_decimal(summary.cost_usd),
        "baseline_run": comparison.baseline_run,
        "baseline_runs": comparison.baseline_runs,
        "difference": comparison.difference,
        "better": comparison.better,
        "worse": comparison.worse,
        "p_corrected": comparison.p_corrected,
        "verdict": comparison.verdict.value,
        "regressions": comparison.regressions[:NAMED],
    }
