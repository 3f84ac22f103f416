"""Read the content of a report from the tables of evals.

Databases return some values as different types: a timestamp as text or datetime, money as decimal or float. This
module converts each of them to one type.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_batch.core.answers.stub import STUB_PREFIX
from airflow_provider_batch.evals import plots
from airflow_provider_batch.evals.costs import COSTS, cost_rows
from airflow_provider_batch.evals.report import (
    MAX_CASES,
    MAX_CASES_TOTAL,
    MAX_VARIANTS,
    Accuracy,
    AnswerView,
    CaseView,
    Comparison,
    Report,
    RunView,
    TagView,
    VariantView,
)
from airflow_provider_batch.evals.tables import ALL_CASES
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

#: maximum number of tags in a model's list of worse cases by tag
_MAX_TAGS = 8

#: ORDER BY for `changes`: first the cases whose change is least likely to be chance, because they were right most often
LEAST_LIKELY_CHANCE = (
    "CASE WHEN runs_before > 0 THEN -1.0 * right_before / runs_before ELSE 0 END, score_now - score_before, "
    "runs_before DESC, case_id"
)

_Row = Mapping[str, Any]


class _WorseCases(NamedTuple):
    views: list[CaseView]
    total: int
    by_tag: dict[str, int]


class ReportTables:
    """The tables with the content of a report.

    :param cases_sql: as passed to the operators.
    :param answers: results table with the answers.
    :param judgements: results table with the verdicts, if there is one.
    :param prefix: start of the names of the tables that grading writes.
    """

    def __init__(self, hook: DbApiHook, *, cases_sql: str, answers: str, judgements: str | None, prefix: str) -> None:
        self._hook = hook
        self._cases_sql = cases_sql
        self._answers = answers
        self._judgements = judgements
        self._prefix = prefix

    def record_costs(self, run: str, landings: Iterable[Mapping[str, Any]]) -> None:
        """Write the estimated and actual costs of a run to the table `costs`. Rows without a new landing stay.

        :param landings: what the landing tasks of the run returned.
        """
        costs = self._prefix + COSTS.name
        tables = ReplacedTables(self._hook, {costs: COSTS.columns})
        tables.prepare()
        jobs = {}
        for part, table in (("answers", self._answers), ("judgements", self._judgements)):
            if table is not None:
                for row in self.rows(f"SELECT DISTINCT variant, job_uid FROM {table} WHERE run = ?", run):
                    jobs[row["job_uid"]] = (row["variant"], part)
        rows = cost_rows(run, landings, jobs)
        tables.apply(Replacement(costs, {"run": run, "variant": row[1], "part": row[2]}, [row]) for row in rows)

    def read(self, run: str, title: str) -> Report:
        """Return the report of a run.

        :raises InputError: if the run has not been graded.
        """
        summaries = list(self.rows("SELECT * FROM {prefix}summaries WHERE run = ?", run))
        totals = {row["variant"]: row for row in summaries if row["tag"] == ALL_CASES}
        if not totals:
            raise InputError(
                f"There is nothing to report: run {run!r} has not been graded, and {self._prefix}summaries has no rows "
                "for it. Grade it first (EvalGradeOperator), then clear this task."
            )
        names = sorted(totals)[:MAX_VARIANTS]
        comparisons = {row["variant"]: row for row in self.rows("SELECT * FROM {prefix}comparisons WHERE run = ?", run)}
        worse_cases = self._worse_cases(run, names, comparisons)
        unanswered_counts = self._unanswered_counts(run)
        return Report(
            title=title,
            run=run,
            sealed_at=_latest(totals.values()),
            variants=[
                _variant(number, totals[name], comparisons.get(name), unanswered_counts[name], worse_cases[name])
                for number, name in enumerate(names)
            ],
            tags=_tags(summaries, names),
            runs=self._runs(run, totals, names),
            stub_answers=self._stub_answers(run),
        )

    def _worse_cases(self, run: str, names: list[str], comparisons: Mapping[str, _Row]) -> dict[str, _WorseCases]:
        """Return the cases to show, by model."""
        rows_by_model: dict[str, list[_Row]] = defaultdict(list)
        totals: dict[str, int] = defaultdict(int)
        tag_counts: dict[str, Counter[str]] = defaultdict(Counter)
        max_per_model = min(MAX_CASES, MAX_CASES_TOTAL // len(names))
        for row in self._worse_rows(run):
            name = row["variant"]
            # A model without a baseline shows its wrong cases instead of those that got worse.
            if (row["baseline_run"] is None) != (_baseline(comparisons.get(name)) is None):
                continue
            totals[name] += 1
            tag_counts[name].update(split_tags(row["tags"]))
            if len(rows_by_model[name]) < max_per_model:
                rows_by_model[name].append(row)
        keys = {(name, row["case_id"]) for name, rows in rows_by_model.items() for row in rows}
        answers = self._wrong_answers(run, keys)
        earlier_answers = self._earlier_answers(run, keys)
        cases = dict(self.cases({case_id for _, case_id in keys}))

        def view(row: _Row) -> CaseView:
            key = (row["variant"], row["case_id"])
            return _case(row, answers[key], earlier_answers.get(key), cases.get(row["case_id"], {}))

        return {
            name: _WorseCases(
                [view(row) for row in rows_by_model[name]],
                totals[name],
                dict(tag_counts[name].most_common(_MAX_TAGS)),
            )
            for name in names
        }

    def _worse_rows(self, run: str) -> Iterator[_Row]:
        """Yield the cases that got worse, then the wrong cases with NULL as `baseline_run`."""
        yield from self.rows(
            "SELECT variant, case_id, tags, baseline_run, score_before, score_now, runs_before, right_before "
            f"FROM {{prefix}}changes WHERE run = ? AND change = 'worse' ORDER BY variant, {LEAST_LIKELY_CHANCE}",
            run,
        )
        yield from self.rows(
            "SELECT variant, case_id, MAX(tags) AS tags, NULL AS baseline_run, NULL AS score_before, "
            "AVG(score) AS score_now, 0 AS runs_before, 0 AS right_before FROM {prefix}grades "
            "WHERE run = ? AND answered = 1 GROUP BY variant, case_id HAVING AVG(score) < 1 "
            "ORDER BY variant, AVG(score), case_id",
            run,
        )

    def _wrong_answers(self, run: str, keys: set[tuple[str, str]]) -> dict[tuple[str, str], list[AnswerView]]:
        """Return the wrong answers to these cases, by variant and case_id."""
        answers: dict[tuple[str, str], list[AnswerView]] = defaultdict(list)
        rows = self.rows(
            "SELECT g.variant, g.case_id, g.grader, g.score, g.reason, a.output FROM {prefix}grades g "
            "LEFT JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
            "AND a.repeat = g.repeat WHERE g.run = ? AND g.score < 1 ORDER BY g.variant, g.case_id, g.repeat",
            run,
        )
        for row in rows:
            key = (row["variant"], row["case_id"])
            if key in keys:
                answers[key].append(
                    AnswerView(
                        text=_text(row["output"]), score=row["score"], grader=row["grader"], reason=row["reason"]
                    )
                )
        return answers

    def _earlier_answers(self, run: str, keys: set[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
        """Return the best answer of the baseline run to each of these cases, by variant and case_id."""
        rows = self.rows(
            "SELECT c.variant, c.case_id, a.output FROM {prefix}changes c "
            "JOIN {prefix}grades g ON g.run = c.baseline_run AND g.variant = c.variant AND g.case_id = c.case_id "
            "JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
            "AND a.repeat = g.repeat WHERE c.run = ? AND c.change = 'worse' ORDER BY g.score, g.repeat DESC",
            run,
        )
        # The dict keeps the last row of each key: the best score, and of equal scores the first repeat.
        return {key: _text(row["output"]) for row in rows if (key := (row["variant"], row["case_id"])) in keys}

    def cases(self, case_ids: Collection[str]) -> Iterator[tuple[str, _Row]]:
        """Yield the cases with these ids that `cases_sql` returns."""
        for row in self.rows(self._cases_sql):
            case_id = str(row["case_id"])
            if case_id in case_ids:
                yield case_id, row

    def _unanswered_counts(self, run: str) -> dict[str, dict[str, int]]:
        """Return the number of unanswered requests, by variant and outcome."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        rows = self.rows(
            "SELECT variant, outcome, COUNT(*) AS answers FROM {prefix}grades WHERE run = ? AND answered = 0 "
            "GROUP BY variant, outcome ORDER BY variant, outcome",
            run,
        )
        for row in rows:
            # An answer that succeeded is unanswered if the judge's verdict on it is missing.
            label = "not judged" if row["outcome"] == "succeeded" else row["outcome"] or "never sent"
            counts[row["variant"]][label] = row["answers"]
        return counts

    def _stub_answers(self, run: str) -> int:
        """Return the number of answers that no model wrote."""
        (row,) = self.rows(
            "SELECT COUNT(*) AS answers FROM {answers} WHERE run = ? AND model LIKE ?", run, f"{STUB_PREFIX}%"
        )
        return int(row["answers"])

    def _runs(self, run: str, totals: Mapping[str, _Row], names: list[str]) -> list[RunView]:
        """Return the run and the runs before it, the newest first."""
        until = _latest(totals.values())
        rows = self.rows(
            "SELECT s.*, c.verdict, c.baseline_run FROM {prefix}summaries s LEFT JOIN {prefix}comparisons c "
            "ON c.run = s.run AND c.variant = s.variant WHERE s.tag = '' ORDER BY s.sealed_at, s.run, s.variant"
        )
        timed_rows = []
        for row in rows:
            sealed_at = _timestamp(row["sealed_at"])
            if row["run"] == run or (sealed_at is not None and until is not None and sealed_at <= until):
                timed_rows.append((sealed_at or until or datetime.min.replace(tzinfo=UTC), row))
        times: dict[str, datetime] = {}
        for sealed_at, row in timed_rows:
            times[row["run"]] = max(sealed_at, times.get(row["run"], sealed_at))
        newest = set(sorted(times, key=lambda name: (name == run, times[name], name))[-plots.MAX_RUNS :])
        ordered_rows = sorted(
            (row for _, row in timed_rows if row["run"] in newest),
            key=lambda row: (row["run"] == run, times[row["run"]], row["run"]),
            reverse=True,
        )
        estimates = self._estimates()
        return [_run(row, names, estimates.get((row["run"], row["variant"]))) for row in ordered_rows]

    def _estimates(self) -> dict[tuple[str, str], tuple[float, float] | None]:
        """Return the estimated cost, low and high, by run and model. None if the estimate of a part is unknown."""
        rows = self.rows(
            "SELECT run, variant, COUNT(*) AS parts, COUNT(estimate_high_usd) AS estimated_parts, "
            "SUM(estimate_low_usd) AS low, SUM(estimate_high_usd) AS high FROM {prefix}costs GROUP BY run, variant"
        )
        return {
            (row["run"], row["variant"]): (row["low"] or 0.0, row["high"])
            if row["parts"] == row["estimated_parts"]
            else None
            for row in rows
        }

    def rows(self, sql: str, *parameters: Any) -> Iterator[_Row]:
        """Yield the rows of a query by column. It may use `{prefix}`, `{answers}` and, for each parameter, a `?`."""
        if parameters:
            sql = sql.format(prefix=self._prefix, answers=self._answers).replace("?", self._hook.placeholder)
        elif "{prefix}" in sql:
            sql = sql.format(prefix=self._prefix)
        with read_rows(self._hook, sql, parameters or None) as rows:
            names = [name.lower() for name in rows.columns]
            for row in rows:
                yield dict(zip(names, row, strict=True))


def _variant(
    number: int,
    row: _Row,
    comparison_row: _Row | None,
    unanswered_counts: dict[str, int],
    worse_cases: _WorseCases,
) -> VariantView:
    comparison = None
    if comparison_row is not None and (baseline := _baseline(comparison_row)) is not None:
        p = comparison_row["p_corrected"]
        comparison = Comparison(
            baseline_run=baseline,
            cases=comparison_row["cases"],
            left_out=comparison_row["left_out"],
            better=comparison_row["better"],
            worse=comparison_row["worse"],
            difference=float(comparison_row["difference"] or 0),
            p_value=None if p is None else float(p),
        )
    return VariantView(
        name=row["variant"],
        number=number,
        verdict=comparison_row["verdict"] if comparison_row else "no_history",
        accuracy=_accuracy(row),
        answers=row["answers"],
        graded=row["graded"],
        unanswered=unanswered_counts,
        cost_usd=_cost(row),
        comparison=comparison,
        cases=worse_cases.views,
        cases_total=worse_cases.total,
        cases_by_tag=worse_cases.by_tag,
    )


def _case(row: _Row, answers: list[AnswerView], earlier_answer: str | None, case: _Row) -> CaseView:
    score_before = row["score_before"]
    return CaseView(
        case_id=row["case_id"],
        tags=split_tags(row["tags"]),
        prompt=_text(case.get("input")),
        expected=_text(case.get("expected")),
        score_before=None if score_before is None else float(score_before),
        score_now=float(row["score_now"]),
        runs_before=row["runs_before"],
        right_before=row["right_before"],
        answers=answers,
        earlier_answer=earlier_answer,
    )


def _tags(summaries: list[_Row], names: list[str]) -> list[TagView]:
    rows_by_tag: dict[str, dict[str, _Row]] = defaultdict(dict)
    for row in summaries:
        if row["tag"] != ALL_CASES:
            rows_by_tag[row["tag"]][row["variant"]] = row
    return [
        TagView(
            tag,
            max(row["cases"] for row in rows.values()),
            [_accuracy(rows[name]) if name in rows else None for name in names],
        )
        for tag, rows in sorted(rows_by_tag.items())
    ]


def _run(row: _Row, names: list[str], estimate_usd: tuple[float, float] | None) -> RunView:
    name = row["variant"]
    return RunView(
        run=row["run"],
        sealed_at=_timestamp(row["sealed_at"]),
        name=name,
        number=names.index(name) if name in names else None,
        accuracy=_accuracy(row),
        verdict=row["verdict"] or "no_history",
        baseline_run=row["baseline_run"],
        cost_usd=_cost(row),
        estimate_usd=estimate_usd,
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        unanswered=row["unanswered"],
    )


def split_tags(tags: str | None) -> list[str]:
    """Return the tags in a column."""
    return [tag.strip() for tag in (tags or "").split(",") if tag.strip()]


def _baseline(row: _Row | None) -> str | None:
    return row["baseline_run"] if row else None


def _accuracy(row: _Row) -> Accuracy | None:
    if row["accuracy"] is None:
        return None
    return Accuracy(*(min(max(float(row[name]), 0.0), 1.0) for name in ("accuracy", "low", "high")))


def _cost(row: _Row) -> float | None:
    parts = (row["cost_usd"], row["judge_cost_usd"])
    return None if None in parts else sum(map(float, parts))


def _latest(rows: Iterable[_Row]) -> datetime | None:
    return max((sealed_at for row in rows if (sealed_at := _timestamp(row["sealed_at"]))), default=None)


def _timestamp(value: Any) -> datetime | None:
    """Return the UTC time of a datetime or an ISO text. A value without a time zone is taken as UTC."""
    if value is None:
        return None
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
