"""Read the tables of evals in a warehouse, and write the results of grading."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.evals import tables
from airflow_provider_batch.evals.cases import Case, read_cases
from airflow_provider_batch.evals.compare import AnswerScore, Baseline, Change, Comparison, Verdict
from airflow_provider_batch.evals.grading import Answer, AnswerKey, EarlierGrade, GradedAnswer
from airflow_provider_batch.evals.judging import Judgement
from airflow_provider_batch.evals.summary import Summary
from airflow_provider_batch.evals.tables import EvalTable
from airflow_provider_batch.exceptions import AbsentTableError, InputError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.naming import split_table
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook


def load_cases(hook: DbApiHook, sql: str, grader_modules: Sequence[str]) -> list[Case]:
    """Return the cases that a query selects, sorted by case_id.

    :param grader_modules: modules whose functions the grader `python` may call.
    :raises InputError: if a case cannot be graded.
    :raises WarehouseError: if the database rejects the query.
    """
    with read_rows(hook, sql) as rows:
        return read_cases(rows.columns, rows, grader_modules)


class EvalStore:
    """The eval tables whose names start with one prefix. Call `prepare` before writing.

    :param prefix: start of each table's name, such as `eval_` or `analytics.eval_`.
    :raises InputError: if the tables cannot have this prefix.
    """

    def __init__(self, hook: DbApiHook, prefix: str) -> None:
        self._hook, self._prefix, self._dialect = hook, prefix, dialect_of(hook)
        written_tables = (*tables.GRADING_TABLES, tables.ACCEPTED, tables.LABELS)
        self._tables = ReplacedTables(hook, {self._full_name(table): table.columns for table in written_tables})

    def prepare(self) -> None:
        """Create the tables that do not exist. See `ReplacedTables.prepare`."""
        self._tables.prepare()

    def answers(self, table: str, run: str) -> Iterator[Answer]:
        """Yield the answers of a run.

        :raises InputError: if the table does not exist.
        """
        with _require_table(table, "answers"):
            for row in self._rows(table, tables.ANSWER_COLUMNS, {"run": run}):
                variant, case_id, repeat, outcome, output, cost, input_tokens, output_tokens, sealed_at = row
                yield Answer(
                    variant=str(variant),
                    case_id=str(case_id),
                    repeat=1 if repeat is None else int(repeat),
                    outcome=str(outcome),
                    output=None if output is None else str(output),
                    cost_usd=_decimal(cost),
                    input_tokens=None if input_tokens is None else int(input_tokens),
                    output_tokens=None if output_tokens is None else int(output_tokens),
                    sealed_at=_timestamp(sealed_at),
                )

    def judgements(self, table: str, run: str) -> dict[AnswerKey, list[Judgement]]:
        """Return the verdicts of a run: for each answer those of all judges.

        :raises InputError: if the table does not exist.
        """
        judgements: defaultdict[AnswerKey, list[Judgement]] = defaultdict(list)
        with _require_table(table, "verdicts"):
            rows = self._rows(table, tables.JUDGEMENT_COLUMNS, {"run": run})
            for variant, case_id, repeat, outcome, verdict, score, reason, cost in rows:
                judgements[str(variant), str(case_id), 1 if repeat is None else int(repeat)].append(
                    Judgement(
                        outcome=str(outcome),
                        verdict=None if verdict is None else str(verdict),
                        score=None if score is None else float(score),
                        reason=None if reason is None else str(reason),
                        cost_usd=_decimal(cost),
                    )
                )
        return judgements

    def vectors(self, table: str, run: str) -> dict[str, array[float]]:
        """Return the embeddings of a run by the ids of their texts, as 32-bit floats.

        :raises InputError: if the table does not exist.
        """
        vectors = {}
        with _require_table(table, "embeddings"):
            for text_id, output in self._rows(table, ("custom_id", "output"), {"run": run, "outcome": "succeeded"}):
                values = json.loads(output) if isinstance(output, str) else output
                vectors[str(text_id)] = array("f", values)
        return vectors

    def earlier_grades(self, run: str, cases: Iterable[Case]) -> dict[AnswerKey, EarlierGrade]:
        """Return the grades that a run already has for questions other than those of the cases.

        The other answers are graded again, so their earlier grades do not matter.
        """
        questions = {case.case_id: case.input_sha256 for case in cases}
        columns = ("variant", "case_id", "repeat", *_EARLIER_GRADE_COLUMNS)
        rows = self._rows(self._full_name(tables.GRADES), columns, {"run": run})
        grades = ((variant, case_id, repeat, _earlier_grade(*row)) for variant, case_id, repeat, *row in rows)
        return {
            (variant, case_id, int(repeat)): grade
            for variant, case_id, repeat, grade in grades
            if questions.get(case_id) != grade.input_sha256
        }

    def named_cases(self, run: str) -> dict[str, set[str]]:
        """Return the case_ids that got worse or were edited when the run was last graded, by variant."""
        cases: defaultdict[str, set[str]] = defaultdict(set)
        rows = self._rows(self._full_name(tables.CHANGES), ("variant", "case_id", "change"), {"run": run})
        for variant, case_id, change in rows:
            if change != "better":
                cases[variant].add(case_id)
        return cases

    def baselines(self, sealed_at: Mapping[str, datetime | None], max_runs: int) -> dict[str, Baseline]:
        """Return the baseline of each variant that has one: accepted runs with their scores.

        :param sealed_at: for each variant, when the run to compare was sealed. Only runs sealed earlier are used.
        :param max_runs: maximum number of runs in a baseline, including those before an accepted change.
        """
        baselines: dict[str, Baseline] = {}
        for variant, limit in sealed_at.items():
            accepted_runs = self._accepted_runs(variant, limit)[:max_runs]
            if accepted_runs:
                same_runs = self._same_runs(variant, accepted_runs)
                older_runs = accepted_runs[len(same_runs) :]
                baselines[variant] = Baseline(
                    run=same_runs[0],
                    runs=[self._scores(run, variant) for run in same_runs],
                    older_runs=[self._scores(run, variant) for run in older_runs],
                )
        return baselines

    def write(
        self,
        run: str,
        graded_answers: Iterable[GradedAnswer],
        summaries: Sequence[Summary],
        comparisons: Sequence[Comparison],
        *,
        alpha: float,
        graded_at: datetime,
    ) -> None:
        """Replace all rows of a run in the grading tables, in one transaction."""
        rows: dict[EvalTable, Iterable[tuple[Any, ...]]] = {
            tables.GRADES: (_grade_row(run, graded_answer, graded_at) for graded_answer in graded_answers),
            tables.SUMMARIES: [_summary_row(run, summary, graded_at) for summary in summaries],
            tables.COMPARISONS: [_comparison_row(run, comparison, alpha, graded_at) for comparison in comparisons],
            tables.CHANGES: [
                _change_row(run, comparison, change)
                for comparison in comparisons
                if comparison.tag == tables.ALL_CASES
                for change in (*comparison.changes, *comparison.edited)
            ],
        }
        self._tables.apply(
            Replacement(self._full_name(table), {"run": run}, rows[table]) for table in tables.GRADING_TABLES
        )

    def accept(self, run: str, variants: Sequence[str] | None, note: str, now: datetime) -> list[str]:
        """Accept these variants of a run, or all of them, and return their names.

        Variants that are already accepted keep their row.

        :raises InputError: if the run, or one of these variants, was not graded.
        """
        summaries = self._full_name(tables.SUMMARIES)
        graded_variants = {variant for (variant,) in self._rows(summaries, ("variant",), {"run": run})}
        requested_variants = sorted(graded_variants if variants is None else set(variants))
        missing = [variant for variant in requested_variants if variant not in graded_variants]
        if missing or not requested_variants:
            subject = f"{', '.join(missing)} of run {run!r}" if missing else f"Run {run!r}"
            raise InputError(
                f"{subject} cannot be accepted: the table {summaries!r} has no grades for it. Grade it first "
                "(EvalGradeOperator), then clear this task. Nothing was accepted."
            )
        table = self._full_name(tables.ACCEPTED)
        accepted_variants = {variant for (variant,) in self._rows(table, ("variant",), {"run": run})}
        self._tables.apply(
            Replacement(table, {"run": run, "variant": variant}, [(run, variant, now, note or None)])
            for variant in requested_variants
            if variant not in accepted_variants
        )
        return requested_variants

    def _accepted_runs(self, variant: str, before: datetime | None) -> list[str]:
        """Return the accepted runs that were sealed before this time, the latest first."""
        accepted_runs = {run for (run,) in self._rows(self._full_name(tables.ACCEPTED), ("run",), {"variant": variant})}
        key = {"variant": variant, "tag": tables.ALL_CASES}
        times = [
            (sealed_at, run)
            for run, value in self._rows(self._full_name(tables.SUMMARIES), ("run", "sealed_at"), key)
            if run in accepted_runs and (sealed_at := _timestamp(value)) is not None
        ]
        return [run for sealed_at, run in sorted(times, reverse=True) if before is None or sealed_at < before]

    def _same_runs(self, variant: str, runs: Sequence[str]) -> list[str]:
        """Return the runs of a baseline: these runs, up to and including the first whose verdict is not `same`."""
        columns = ("run", "verdict")
        key = {"variant": variant, "tag": tables.ALL_CASES}
        verdicts = dict(self._rows(self._full_name(tables.COMPARISONS), columns, key))
        same_runs = []
        for run in runs:
            same_runs.append(run)
            if verdicts.get(run) != Verdict.SAME:
                break
        return same_runs

    def _scores(self, run: str, variant: str) -> list[AnswerScore]:
        columns = ("case_id", "case_sha256", "score", "passed", "answered", "tags")
        rows = self._rows(self._full_name(tables.GRADES), columns, {"run": run, "variant": variant})
        return [
            AnswerScore(case_id, sha256, float(score), float(passed), bool(answered), tags)
            for case_id, sha256, score, passed, answered, tags in rows
        ]

    def _full_name(self, table: EvalTable) -> str:
        return self._prefix + table.name

    def _rows(self, table: str, columns: Sequence[str], key: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        sql = self._dialect.select(table, columns, list(key))
        with read_rows(self._hook, sql, list(key.values())) as rows:
            yield from rows


@contextmanager
def _require_table(table: str, content: str) -> Iterator[None]:
    try:
        yield
    except AbsentTableError as error:
        name = split_table(table)[-1]
        if name.casefold() not in str(error).casefold():
            raise
        raise InputError(
            f"The table {table!r} with the {content} does not exist. BatchResultsOperator creates it when it lands the "
            f"first {content}. Check that it ran, and that this is the table it writes to. Nothing was graded."
        ) from None


def _grade_row(run: str, graded_answer: GradedAnswer, graded_at: datetime) -> tuple[Any, ...]:
    return (
        run,
        graded_answer.answer.variant,
        graded_answer.case_id,
        graded_answer.answer.repeat,
        graded_answer.grader,
        graded_answer.score,
        int(graded_answer.passed),
        graded_answer.reason,
        ",".join(graded_answer.tags),
        graded_answer.answer.outcome,
        int(graded_answer.answered),
        graded_answer.input_sha256,
        graded_answer.case_sha256,
        graded_at,
    )


def _summary_row(run: str, summary: Summary, graded_at: datetime) -> tuple[Any, ...]:
    values = (getattr(summary, name) for name in tables.SUMMARIES.names[1:-1])
    return (run, *values, graded_at)


def _comparison_row(run: str, comparison: Comparison, alpha: float, graded_at: datetime) -> tuple[Any, ...]:
    return (
        run,
        comparison.variant,
        comparison.tag,
        comparison.baseline_run,
        comparison.baseline_runs,
        comparison.older_runs,
        comparison.cases,
        comparison.left_out,
        comparison.better,
        comparison.worse,
        comparison.difference,
        comparison.p_worse,
        comparison.p_better,
        alpha,
        comparison.smallest_drop,
        comparison.verdict.value,
        graded_at,
    )


def _change_row(run: str, comparison: Comparison, change: Change) -> tuple[Any, ...]:
    return (
        run,
        comparison.variant,
        change.case_id,
        comparison.baseline_run,
        change.direction,
        change.score_before,
        change.score_now,
        change.tags,
        change.runs_before,
        change.right_before,
    )


#: in the order of the arguments of `_earlier_grade`
_EARLIER_GRADE_COLUMNS = (
    "grader",
    "tags",
    "input_sha256",
    "case_sha256",
    "score",
    "passed",
    "reason",
    "answered",
    "graded_at",
)


def _earlier_grade(
    grader: str,
    tags: str,
    input_sha256: str,
    case_sha256: str,
    score: Any,
    passed: Any,
    reason: str,
    answered: Any,
    graded_at: Any,
) -> EarlierGrade:
    return EarlierGrade(
        grader=grader,
        tags=tuple(tags.split(",")) if tags else (),
        input_sha256=input_sha256,
        case_sha256=case_sha256,
        score=float(score),
        passed=bool(passed),
        reason=reason,
        answered=bool(answered),
        graded_at=_timestamp(graded_at) or datetime.now(UTC),
    )


def _decimal(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def _timestamp(value: Any) -> datetime | None:
    """Return the UTC time of a timestamp column, which a driver returns as a datetime or as ISO text."""
    if value is None:
        return None
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
