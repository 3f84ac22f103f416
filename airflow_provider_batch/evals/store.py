"""The tables of evals in a warehouse: what is read for grading, and how its end is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.evals import tables
from airflow_provider_batch.evals.cases import Case, read_cases
from airflow_provider_batch.evals.compare import Baseline, Change, Comparison, Scored, Verdict
from airflow_provider_batch.evals.grading import Answer, AnswerKey, Earlier, Graded, Judgement
from airflow_provider_batch.evals.summary import Summary
from airflow_provider_batch.evals.tables import EvalTable
from airflow_provider_batch.exceptions import AbsentTableError, InputError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.naming import split_table
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement


def load_cases(hook: DbApiHook, sql: str) -> list[Case]:
    """The cases of a query. Raises InputError for cases that cannot be graded, WarehouseError for the database's."""
    with read_rows(hook, sql) as rows:
        return read_cases(rows.columns, rows)


class EvalStore:
    """The tables of one prefix. Those that are written are created by `prepare`."""

    def __init__(self, hook: DbApiHook, prefix: str) -> None:
        """:param prefix: before each table's name, such as `eval_` or `analytics.eval_`. Raises InputError."""
        self._hook, self._prefix, self._dialect = hook, prefix, dialect_of(hook)
        every = (*tables.WRITTEN, tables.ACCEPTED)
        self._tables = ReplacedTables(hook, {self._named(table): table.columns for table in every})

    def prepare(self) -> None:
        """See `ReplacedTables.prepare`."""
        self._tables.prepare()

    def answers(self, table: str, run: str) -> Iterator[Answer]:
        """The answers of a run, streamed. Raises InputError if there is no such table."""
        with _must_be_there(table, "answers"):
            for row in self._rows(table, tables.ANSWER_COLUMNS, {"run": run}):
                variant, case_id, repeat, outcome, output, cost, input_tokens, output_tokens, sealed_at = row
                yield Answer(
                    variant=str(variant),
                    case_id=str(case_id),
                    repeat=1 if repeat is None else int(repeat),
                    outcome=str(outcome),
                    output=None if output is None else str(output),
                    cost_usd=_decimal(cost),
                    input_tokens=int(input_tokens or 0),
                    output_tokens=int(output_tokens or 0),
                    sealed_at=_moment(sealed_at),
                )

    def judgements(self, table: str, run: str) -> dict[AnswerKey, Judgement]:
        """The verdicts of a run, by variant, case and repeat. Raises InputError if there is no such table."""
        with _must_be_there(table, "verdicts"):
            return {
                (str(variant), str(case_id), 1 if repeat is None else int(repeat)): Judgement(
                    outcome=str(outcome),
                    verdict=None if verdict is None else str(verdict),
                    reason=None if reason is None else str(reason),
                    cost_usd=_decimal(cost),
                )
                for variant, case_id, repeat, outcome, verdict, reason, cost in self._rows(
                    table, tables.JUDGEMENT_COLUMNS, {"run": run}
                )
            }

    def earlier(self, run: str) -> dict[AnswerKey, Earlier]:
        """The grades that a run has already, by variant, case and repeat. Empty if it was never graded."""
        columns = ("variant", "case_id", "repeat", *_EARLIER)
        rows = self._rows(self._named(tables.GRADES), columns, {"run": run})
        return {(variant, case_id, int(repeat)): _earlier(*row) for variant, case_id, repeat, *row in rows}

    def baselines(self, asked_at: Mapping[str, datetime | None], most: int) -> dict[str, Baseline]:
        """For each variant of `asked_at`, the accepted runs before that time that it is held against, and their grades.

        :param most: how many runs at most.
        """
        found: dict[str, Baseline] = {}
        for variant, moment in asked_at.items():
            runs = self._alike(variant, self._accepted_before(variant, moment))[:most]
            if runs:
                found[variant] = Baseline(runs[0], [self._scores(name, variant) for name in runs])
        return found

    def write(
        self,
        run: str,
        graded: Sequence[Graded],
        summaries: Sequence[Summary],
        comparisons: Sequence[Comparison],
        *,
        alpha: float,
        graded_at: datetime,
    ) -> None:
        """Replace everything about a run, in one transaction."""
        rows: dict[EvalTable, list[tuple[Any, ...]]] = {
            tables.GRADES: [_grade_row(run, one, graded_at) for one in graded],
            tables.SUMMARIES: [_summary_row(run, summary, graded_at) for summary in summaries],
            tables.COMPARISONS: [_comparison_row(run, one, alpha, graded_at) for one in comparisons],
            tables.CHANGES: [_change_row(run, one, change) for one in comparisons for change in one.changes],
        }
        self._tables.apply(Replacement(self._named(table), {"run": run}, rows[table]) for table in tables.WRITTEN)

    def accept(self, run: str, variants: Sequence[str] | None, note: str, now: datetime) -> list[str]:
        """Accept these variants of a run, or all; those that are accepted already stay as they are. Returns them.

        Raises InputError if the run, or one of the variants in it, was not graded.
        """
        graded = {variant for (variant,) in self._rows(self._named(tables.SUMMARIES), ("variant",), {"run": run})}
        wanted = sorted(graded if variants is None else set(variants))
        missing = [variant for variant in wanted if variant not in graded]
        if missing or not wanted:
            what = f"the variant {', '.join(missing)} of the run {run!r}" if missing else f"the run {run!r}"
            raise InputError(
                f"{what} cannot be accepted: the table {self._named(tables.SUMMARIES)!r} has no grades of it. Grade it "
                "first (EvalGradeOperator). Nothing was accepted."
            )
        table = self._named(tables.ACCEPTED)
        there = {variant for (variant,) in self._rows(table, ("variant",), {"run": run})}
        self._tables.apply(
            Replacement(table, {"run": run, "variant": variant}, [(run, variant, now, note or None)])
            for variant in wanted
            if variant not in there
        )
        return wanted

    def _accepted_before(self, variant: str, moment: datetime | None) -> list[str]:
        """The accepted runs that were asked before this moment, the latest first."""
        accepted = {name for (name,) in self._rows(self._named(tables.ACCEPTED), ("run",), {"variant": variant})}
        where = {"variant": variant, "tag": tables.ALL}
        asked = [
            (then, name)
            for name, asked_at in self._rows(self._named(tables.SUMMARIES), ("run", "asked_at"), where)
            if name in accepted and (then := _moment(asked_at)) is not None
        ]
        return [name for then, name in sorted(asked, reverse=True) if moment is None or then < moment]

    def _alike(self, variant: str, runs: Sequence[str]) -> list[str]:
        """The first of these runs, and those after it up to one that was not the `same` as what came before it."""
        columns = ("run", "verdict")
        verdicts = dict(self._rows(self._named(tables.COMPARISONS), columns, {"variant": variant}))
        found = []
        for run in runs:
            found.append(run)
            if verdicts.get(run) != Verdict.SAME:
                break
        return found

    def _scores(self, run: str, variant: str) -> list[Scored]:
        columns = ("case_id", "case_sha256", "score", "answered", "tags")
        rows = self._rows(self._named(tables.GRADES), columns, {"run": run, "variant": variant})
        return [
            Scored(case_id, sha256, float(score), bool(there), tags) for case_id, sha256, score, there, tags in rows
        ]

    def _named(self, table: EvalTable) -> str:
        return self._prefix + table.name

    def _rows(self, table: str, columns: Sequence[str], where: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
        sql = self._dialect.select(table, columns, list(where))
        with read_rows(self._hook, sql, list(where.values())) as rows:
            yield from rows


@contextmanager
def _must_be_there(table: str, what: str) -> Iterator[None]:
    try:
        yield
    except AbsentTableError as error:
        name = split_table(table)[-1]
        if name.casefold() not in str(error).casefold():
            raise
        raise InputError(
            f"There is no table {table!r} with {what}: BatchResultsOperator makes it when the first of them land. Name "
            "the table that they landed in. Nothing was graded."
        ) from None


def _grade_row(run: str, one: Graded, graded_at: datetime) -> tuple[Any, ...]:
    return (
        run,
        one.answer.variant,
        one.case_id,
        one.answer.repeat,
        one.grader,
        float(one.score),
        one.reason,
        ",".join(one.tags),
        one.answer.outcome,
        int(one.answered),
        one.input_sha256,
        one.case_sha256,
        graded_at,
    )


def _summary_row(run: str, one: Summary, graded_at: datetime) -> tuple[Any, ...]:
    values = (getattr(one, name) for name in tables.SUMMARIES.names[1:-1])
    return (run, *values, graded_at)


def _comparison_row(run: str, one: Comparison, alpha: float, graded_at: datetime) -> tuple[Any, ...]:
    return (
        run,
        one.variant,
        one.baseline_run,
        one.baseline_runs,
        one.cases,
        one.left_out,
        one.better,
        one.worse,
        one.difference,
        one.p_value,
        one.p_corrected,
        alpha,
        one.verdict.value,
        graded_at,
    )


def _change_row(run: str, one: Comparison, change: Change) -> tuple[Any, ...]:
    return (
        run,
        one.variant,
        change.case_id,
        one.baseline_run,
        change.word,
        change.score_before,
        change.score_now,
        change.tags,
        change.runs_before,
        change.right_before,
    )


#: the columns of a grade from before, in the order of `_earlier`
_EARLIER = ("grader", "tags", "input_sha256", "case_sha256", "score", "reason", "answered", "graded_at")


def _earlier(
    grader: str, tags: str, input_sha256: str, case_sha256: str, score: Any, reason: str, answered: Any, graded_at: Any
) -> Earlier:
    return Earlier(
        grader=grader,
        tags=tuple(tags.split(",")) if tags else (),
        input_sha256=input_sha256,
        case_sha256=case_sha256,
        score=int(score),
        reason=reason,
        answered=bool(answered),
        graded_at=_moment(graded_at) or datetime.now(UTC),
    )


def _decimal(value: Any) -> Decimal | None:
    return None if value is None else Decimal(str(value))


def _moment(value: Any) -> datetime | None:
    """A moment in UTC, from whatever a driver gives for one."""
    if value is None:
        return None
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
