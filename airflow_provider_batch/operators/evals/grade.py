"""`EvalCasesOperator`, `EvalGradeOperator` and `EvalAcceptOperator`: check cases, grade landed answers, accept runs."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_batch.core.arguments import parse_names, require_count
from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.pricing.prices import format_decimal
from airflow_provider_batch.evals.cases import count_tags
from airflow_provider_batch.evals.compare import DEFAULT_ALPHA, STOPPING_VERDICTS, Comparison, Verdict, compare
from airflow_provider_batch.evals.grading import GradedAnswer, Grading, grade_answers, scores
from airflow_provider_batch.evals.sentences import format_edited, format_smallest_drop
from airflow_provider_batch.evals.spool import Spool
from airflow_provider_batch.evals.store import EvalStore, load_cases
from airflow_provider_batch.evals.summary import Summary, summaries
from airflow_provider_batch.evals.tables import ALL_CASES
from airflow_provider_batch.operators.evals.arguments import check_fields, parse_fields
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.worker.airflow_errors import airflow_failures
from airflow_provider_batch.worker.checked_arguments import CheckedMapping, check_arguments

if TYPE_CHECKING:
    from airflow.sdk import Context

#: the default query for the cases
CASES_SQL = "SELECT case_id, input, expected, grader, tags FROM eval_cases"

#: maximum number of case_ids to name in a result or a log line
MAX_NAMES = 20


class EvalCasesOperator(CheckedMapping, BaseOperator):
    """Check the cases of an eval before anything is sent.

    Returns a dict with `cases` (number of cases), `judged` (number of cases with a grader by a judge) and `tags`
    (number of cases per tag).

    :param cases_sql: a SELECT of `case_id, input, expected, grader, tags`, or the name of a .sql file.
    :param grader_modules: modules or packages whose functions the grader `python:module:function` may call. Without
        this argument it cannot call any, because cases are data.
    :param warehouse_conn_id: connection to read from.
    :raises AirflowFailException: if a case cannot be graded. The message lists up to ten problems.
    """

    template_fields: Sequence[str] = ("cases_sql", "warehouse_conn_id")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"

    @check_arguments
    def __init__(
        self,
        *,
        cases_sql: str = CASES_SQL,
        grader_modules: Sequence[str] | str | None = None,
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cases_sql = cases_sql
        self.grader_modules = parse_names("grader_modules", grader_modules)
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> dict[str, Any]:
        """Check the cases and return how many there are."""
        with airflow_failures(self.log):
            parse_fields(self)
            cases = load_cases(sql_hook(self.warehouse_conn_id), self.cases_sql, self.grader_modules)
        judge_count = sum(case.grader.judged is not None for case in cases)
        self.log.info(
            "%s can be graded, %s of them by a judge model.", format_count(len(cases), "case"), f"{judge_count:,}"
        )
        return {"cases": len(cases), "judged": judge_count, "tags": count_tags(cases)}


class EvalGradeOperator(CheckedMapping, BaseOperator):
    """Grade the answers of a run, sum up the grades, and compare them with the accepted runs before it.

    The operator only reads and writes tables, and it sends nothing to a model. You can therefore grade any earlier run
    again, for example after you corrected `expected`. An answer keeps its grade if its question has changed since it
    was sent. The rows of the run are replaced in one transaction.

    Returns a dict with:

    - `run`;
    - `cases`: number of cases;
    - `left_out_cases`: number of cases that have answers, but were removed before these were ever graded;
    - `kept_cases`: number of cases that keep an earlier grade because they were removed or their question has changed;
    - `variants`: for each model a dict with `cases`, `answers`, `graded`, `unanswered`, `accuracy`, `low`, `high`,
      `pass_any`, `pass_majority`, `cost_usd` (text or None), `baseline_run`, `baseline_runs`, `older_runs`,
      `difference`, `better`, `worse`, `p_worse`, `p_better`, `smallest_drop`, `verdict`, `regressed_tags` and
      `improved_tags`, and up to 20 case_ids each in `regressions` and `improvements` (cases that were right and are
      wrong now, and the reverse, starting with those that are least likely to be chance) and `edited` (cases that are
      not compared because they were edited, and that were wrong before or are wrong now). The table `eval_changes` has
      all of them.

    :param cases_sql: a SELECT of `case_id, input, expected, grader, tags`, or the name of a .sql file.
    :param answers: results table with the answers. Its key columns are `run` and `variant`; it carries `case_id` and
        `repeat`.
    :param judgements: results table with the verdicts of one judge or several, whose majority decides. It has the same
        key and carried columns, plus `verdict`, `score` and `reason`. Needed if a case has the grader `judge`,
        `llm-rubric` or `factuality`.
    :param embeddings: results table with the embeddings of the texts of `texts_to_embed`. Its key columns are `run` and
        the custom_id. Needed if a case has the grader `similar`.
    :param run: id of the run to grade.
    :param variants: the expected models. If nothing landed for one of them, all its cases count as unanswered. Without
        this argument, such a model would go unnoticed.
    :param grader_modules: as passed to EvalCasesOperator.
    :param prefix: start of the names of the tables to write, such as `analytics.eval_`. Missing tables are created.
    :param alpha: significance level, between 0 and 1: the share of unchanged runs that may be reported as a regression,
        over all models and tags, and the share that may be reported as an improvement.
    :param baseline_runs: maximum number of accepted runs to compare with: the last one, and those before it as long as
        nothing changed between them. The runs before that only say how steady each case is. More runs reveal smaller
        regressions; 1 compares with the last accepted run only.
    :param warehouse_conn_id: connection to read from and write to.
    :raises AirflowFailException: if a case cannot be graded, or the run has no answers.
    """

    template_fields: Sequence[str] = (
        "cases_sql",
        "answers",
        "judgements",
        "embeddings",
        "run",
        "variants",
        "alpha",
        "prefix",
        "warehouse_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"cases_sql": "sql"}  # noqa: RUF012 - Airflow's own declaration is the same
    ui_color = "#e8e4f3"

    @check_arguments
    def __init__(
        self,
        *,
        cases_sql: str = CASES_SQL,
        answers: str = "eval_answers",
        judgements: str | None = None,
        embeddings: str | None = None,
        run: str = "{{ run_id }}",
        variants: Sequence[str] | str | None = None,
        grader_modules: Sequence[str] | str | None = None,
        prefix: str = "eval_",
        alpha: float | str = DEFAULT_ALPHA,
        baseline_runs: int | str = 10,
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cases_sql = cases_sql
        self.answers = answers
        self.judgements = judgements
        self.embeddings = embeddings
        self.run = run
        self.variants: Any = variants
        self.grader_modules = parse_names("grader_modules", grader_modules)
        self.prefix = prefix
        self.alpha: Any = alpha
        self.baseline_runs = require_count("baseline_runs", baseline_runs, minimum=1)
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> dict[str, Any]:
        """Grade the run, write the tables and return the scores."""
        with airflow_failures(self.log):
            parse_fields(self)
            with Spool(GradedAnswer) as graded_answers:
                return self._execute(graded_answers)

    def _execute(self, graded_answers: Spool[GradedAnswer]) -> dict[str, Any]:
        hook = sql_hook(self.warehouse_conn_id)
        store = EvalStore(hook, self.prefix)
        cases = load_cases(hook, self.cases_sql, self.grader_modules)
        store.prepare()
        judgements = None
        if self.judgements and any(case.grader.judged for case in cases):
            judgements = store.judgements(self.judgements, self.run)
        vectors = None
        if self.embeddings and any(case.grader.needs_embeddings for case in cases):
            vectors = store.vectors(self.embeddings, self.run)
        grading = grade_answers(
            cases,
            store.answers(self.answers, self.run),
            judgements=judgements,
            vectors=vectors,
            variants=self.variants,
            earlier_grades=store.earlier_grades(self.run, cases),
            into=graded_answers,
        )
        run_summaries = summaries(grading.answers)
        totals = {summary.variant: summary for summary in run_summaries if summary.tag == ALL_CASES}
        sealed_at = {variant: summary.sealed_at for variant, summary in totals.items()}
        baselines = store.baselines(sealed_at, self.baseline_runs)
        comparisons = compare(
            scores(grading.answers), baselines, alpha=self.alpha, named_before=store.named_cases(self.run)
        )
        store.write(
            self.run, grading.answers, run_summaries, comparisons, alpha=self.alpha, graded_at=datetime.now(UTC)
        )
        self._log_cases_not_graded(grading)
        by_variant: defaultdict[str, list[Comparison]] = defaultdict(list)
        for comparison in comparisons:
            by_variant[comparison.variant].append(comparison)
        for variant, (comparison, *by_tag) in by_variant.items():
            self._log_accuracy(totals[variant])
            self._log_comparison(comparison, by_tag)
        return {
            "run": self.run,
            "cases": len(cases),
            "left_out_cases": len(grading.left_out_cases),
            "kept_cases": len(grading.kept_cases),
            "variants": {
                variant: _variant_result(totals[variant], comparison, by_tag)
                for variant, (comparison, *by_tag) in by_variant.items()
            },
        }

    def _log_cases_not_graded(self, grading: Grading) -> None:
        if grading.left_out_cases:
            self.log.warning(
                "Left out the answers to %s that cases_sql no longer returns. These answers were never graded.",
                format_count(len(grading.left_out_cases), "case"),
            )
        if grading.kept_cases:
            self.log.warning(
                "Kept the earlier grades of %s whose question was changed or removed after it was sent.",
                format_count(len(grading.kept_cases), "case"),
            )

    def _log_accuracy(self, summary: Summary) -> None:
        self.log.info(
            "%s: accuracy %.1f %% (95 %% interval %.1f to %.1f) over %s, cost %s.",
            summary.variant,
            100 * summary.accuracy,
            100 * summary.low,
            100 * summary.high,
            format_count(summary.cases, "case"),
            format_usd(summary.cost_usd),
        )
        if summary.unanswered:
            self.log.warning(
                "%s: %s of %s answers are missing. They count as wrong, and are not compared with other runs.",
                summary.variant,
                f"{summary.unanswered:,}",
                f"{summary.answers:,}",
            )

    def _log_comparison(self, comparison: Comparison, by_tag: Sequence[Comparison]) -> None:
        if comparison.verdict is Verdict.NO_HISTORY:
            self.log.warning(
                "%s: there is no earlier accepted run to compare with, so a gate lets this run pass. Once it is "
                "accepted (EvalAcceptOperator), later runs are compared with it.",
                comparison.variant,
            )
            return
        self.log.log(
            logging.WARNING if comparison.verdict in STOPPING_VERDICTS else logging.INFO,
            "%s: %s, compared with %s up to %s. Of %s, %d got better and %d got worse: %+.1f points, p = %.3g for "
            "worse and %.3g for better. Worse: %s. Better: %s.",
            comparison.variant,
            comparison.verdict.value,
            format_count(comparison.baseline_runs, "accepted run"),
            comparison.baseline_run,
            format_count(comparison.cases, "case"),
            comparison.better,
            comparison.worse,
            100 * (comparison.difference or 0.0),
            comparison.p_worse,
            comparison.p_better,
            ", ".join(comparison.regressions[:MAX_NAMES]) or "none",
            ", ".join(comparison.improvements[:MAX_NAMES]) or "none",
        )
        if comparison.older_runs:
            self.log.info(
                "%s: %s from before an accepted change only tell steady cases from unsteady ones.",
                comparison.variant,
                format_count(comparison.older_runs, "accepted run"),
            )
        for tag in by_tag:
            if tag.verdict is not Verdict.SAME:
                self.log.log(
                    logging.WARNING if tag.verdict in STOPPING_VERDICTS else logging.INFO,
                    "%s: the tag %s is %s. Of %s, %d got better and %d got worse.",
                    tag.variant,
                    tag.tag,
                    tag.verdict.value,
                    format_count(tag.cases, "case"),
                    tag.better,
                    tag.worse,
                )
        if comparison.edited:
            self.log.warning(
                "%s: %s edited since, so %s not compared: %s.",
                comparison.variant,
                format_edited(len(comparison.edited)),
                "it is" if len(comparison.edited) == 1 else "they are",
                ", ".join(change.case_id for change in comparison.edited[:MAX_NAMES]),
            )
        self.log.info("%s: %s", comparison.variant, format_smallest_drop(comparison.smallest_drop))


class EvalAcceptOperator(CheckedMapping, BaseOperator):
    """Accept a graded run, so that later runs are compared with it. Returns the names of the accepted models.

    Put it downstream of the gate. To accept a run by hand, use
    `INSERT INTO eval_accepted (run, variant, accepted_at, note) VALUES (…)`; to withdraw it, DELETE the row.

    :param run: id of the run to accept. Accepting it twice changes nothing.
    :param variants: the models to accept. Default: all models of the run.
    :param note: the reason, for readers of the table.
    :param prefix: as passed to EvalGradeOperator.
    :param warehouse_conn_id: connection to write to.
    :raises AirflowFailException: if the run has not been graded.
    """

    template_fields: Sequence[str] = ("run", "variants", "note", "prefix", "warehouse_conn_id")
    ui_color = "#e8e4f3"

    @check_arguments
    def __init__(
        self,
        *,
        run: str = "{{ run_id }}",
        variants: Sequence[str] | str | None = None,
        note: str = "",
        prefix: str = "eval_",
        warehouse_conn_id: str = "warehouse",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.run = run
        self.variants: Any = variants
        self.note = note
        self.prefix = prefix
        self.warehouse_conn_id = warehouse_conn_id
        check_fields(self)

    def execute(self, context: Context) -> list[str]:
        """Accept the run and return the names of the accepted models."""
        with airflow_failures(self.log):
            parse_fields(self)
            store = EvalStore(sql_hook(self.warehouse_conn_id), self.prefix)
            store.prepare()
            variants = store.accept(self.run, self.variants, self.note, datetime.now(UTC))
        self.log.info("Accepted run %s of %s.", self.run, ", ".join(variants))
        return variants


def _variant_result(summary: Summary, comparison: Comparison, by_tag: Sequence[Comparison]) -> dict[str, Any]:
    return {
        "cases": summary.cases,
        "answers": summary.answers,
        "graded": summary.graded,
        "unanswered": summary.unanswered,
        "accuracy": summary.accuracy,
        "low": summary.low,
        "high": summary.high,
        "pass_any": summary.pass_any,
        "pass_majority": summary.pass_majority,
        "cost_usd": format_decimal(summary.cost_usd),
        "baseline_run": comparison.baseline_run,
        "baseline_runs": comparison.baseline_runs,
        "older_runs": comparison.older_runs,
        "difference": comparison.difference,
        "better": comparison.better,
        "worse": comparison.worse,
        "p_worse": comparison.p_worse,
        "p_better": comparison.p_better,
        "smallest_drop": comparison.smallest_drop,
        "verdict": comparison.verdict.value,
        "regressed_tags": [tag.tag for tag in by_tag if tag.verdict in STOPPING_VERDICTS],
        "improved_tags": [tag.tag for tag in by_tag if tag.verdict in (Verdict.IMPROVED, Verdict.MIXED)],
        "regressions": comparison.regressions[:MAX_NAMES],
        "improvements": comparison.improvements[:MAX_NAMES],
        "edited": [change.case_id for change in comparison.edited[:MAX_NAMES]],
    }
