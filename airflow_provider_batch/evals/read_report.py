"""The tables of evals -> what a report shows.

Values that databases give differently (a moment as text, money as decimal or float) are made the same here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.evals import plots
from airflow_provider_batch.evals.costs import COSTS, cost_rows
from airflow_provider_batch.evals.report import (
    MAX_CASES,
    MAX_CASES_IN_ALL,
    MAX_VARIANTS,
    Accuracy,
    Answered,
    CaseView,
    Comparison,
    Report,
    RunView,
    TagView,
    VariantView,
)
from airflow_provider_batch.evals.tables import ALL
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement

#: tags that are counted of the cases of a model
_TAGS = 8

#: puts those rows of `changes` first that are the least likely to be chance: what was right the more often before
LEAST_BY_CHANCE = (
    "CASE WHEN runs_before > 0 THEN -1.0 * right_before / runs_before ELSE 0 END, score_now - score_before, "
    "runs_before DESC, case_id"
)

_Row = Mapping[str, Any]


class _Worse(NamedTuple):
    cases: list[CaseView]
    in_all: int
    by_tag: dict[str, int]


class ReportTables:
    """The tables that a report is read from.

    :param cases_sql: as given to the operators.
    :param answers: the results table with the answers; `judgements` that with the verdicts, if there is one.
    :param prefix: of the tables that grading writes.
    """

    def __init__(self, hook: DbApiHook, *, cases_sql: str, answers: str, judgements: str | None, prefix: str) -> None:
        self._hook = hook
        self._cases_sql = cases_sql
        self._answers = answers
        self._judgements = judgements
        self._prefix = prefix

    def note_costs(self, run: str, accounts: Iterable[Mapping[str, Any]]) -> None:
        """Note what the landings of a run were expected to cost, and did. Without accounts what is there stays."""
        costs = self._prefix + COSTS.name
        tables = ReplacedTables(self._hook, {costs: COSTS.columns})
        tables.prepare()
        jobs = {}
        for part, table in (("answers", self._answers), ("judgements", self._judgements)):
            if table is not None:
                for row in self._rows(f"SELECT DISTINCT variant, job_uid FROM {table} WHERE run = ?", run):
                    jobs[row["job_uid"]] = (row["variant"], part)
        rows = cost_rows(run, accounts, jobs)
        tables.apply(Replacement(costs, {"run": run, "variant": row[1], "part": row[2]}, [row]) for row in rows)

    def read(self, run: str, title: str) -> Report:
        """What there is to show of a run.

        :raises InputError: if it has not been graded.
        """
        summaries = list(self._rows("SELECT * FROM {prefix}summaries WHERE run = ?", run))
        in_all = {row["variant"]: row for row in summaries if row["tag"] == ALL}
        if not in_all:
            raise InputError(
                f"There is nothing to report on: run {run!r} has not been graded, {self._prefix}summaries has nothing "
                "of it. Grade it first."
            )
        names = sorted(in_all)[:MAX_VARIANTS]
        compared = {row["variant"]: row for row in self._rows("SELECT * FROM {prefix}comparisons WHERE run = ?", run)}
        cases = self._cases(run, names, compared)
        unanswered = self._unanswered(run)
        return Report(
            title=title,
            run=run,
            at=max((at for row in in_all.values() if (at := _moment(row["asked_at"]))), default=None),
            variants=[
                _variant(number, in_all[name], compared.get(name), unanswered[name], cases[name])
                for number, name in enumerate(names)
            ],
            tags=_tags(summaries, names),
            runs=self._runs(run, in_all, names),
        )

    def _cases(self, run: str, names: list[str], compared: Mapping[str, _Row]) -> dict[str, _Worse]:
        """Of each model the cases to show."""
        shown: dict[str, list[_Row]] = defaultdict(list)
        counted: dict[str, int] = defaultdict(int)
        tagged: dict[str, Counter[str]] = defaultdict(Counter)
        each = min(MAX_CASES, MAX_CASES_IN_ALL // len(names))
        for row in self._worse(run):
            name = row["variant"]
            # without a run to compare with, what is wrong stands in its place
            if (row["baseline_run"] is None) != (_baseline(compared.get(name)) is None):
                continue
            counted[name] += 1
            tagged[name].update(_split(row["tags"]))
            if len(shown[name]) < each:
                shown[name].append(row)
        wanted = {(name, row["case_id"]) for name, rows in shown.items() for row in rows}
        answers = self._answers_to(run, wanted)
        before = self._answers_before(run, wanted)
        asked = dict(self._asked({case_id for _, case_id in wanted}))

        def view(row: _Row) -> CaseView:
            key = (row["variant"], row["case_id"])
            return _case(row, answers[key], before.get(key), asked.get(row["case_id"], {}))

        return {
            name: _Worse([view(row) for row in shown[name]], counted[name], dict(tagged[name].most_common(_TAGS)))
            for name in names
        }

    def _worse(self, run: str) -> Iterator[_Row]:
        yield from self._rows(
            "SELECT variant, case_id, tags, baseline_run, score_before, score_now, runs_before, right_before "
            f"FROM {{prefix}}changes WHERE run = ? AND change = 'worse' ORDER BY variant, {LEAST_BY_CHANCE}",
            run,
        )
        yield from self._rows(
            "SELECT variant, case_id, MAX(tags) AS tags, NULL AS baseline_run, NULL AS score_before, "
            "AVG(score) AS score_now, 0 AS runs_before, 0 AS right_before FROM {prefix}grades "
            "WHERE run = ? AND answered = 1 GROUP BY variant, case_id HAVING AVG(score) < 1 "
            "ORDER BY variant, AVG(score), case_id",
            run,
        )

    def _answers_to(self, run: str, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], list[Answered]]:
        found: dict[tuple[str, str], list[Answered]] = defaultdict(list)
        rows = self._rows(
            "SELECT g.variant, g.case_id, g.grader, g.score, g.reason, a.output FROM {prefix}grades g "
            "LEFT JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
            "AND a.repeat = g.repeat WHERE g.run = ? AND g.score < 1 ORDER BY g.variant, g.case_id, g.repeat",
            run,
        )
        for row in rows:
            key = (row["variant"], row["case_id"])
            if key in wanted:
                found[key].append(
                    Answered(text=_text(row["output"]), score=row["score"], grader=row["grader"], reason=row["reason"])
                )
        return found

    def _answers_before(self, run: str, wanted: set[tuple[str, str]]) -> dict[tuple[str, str], str | None]:
        """A right answer in the run that is compared with."""
        rows = self._rows(
            "SELECT c.variant, c.case_id, a.output FROM {prefix}changes c "
            "JOIN {prefix}grades g ON g.run = c.baseline_run AND g.variant = c.variant AND g.case_id = c.case_id "
            "JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
            "AND a.repeat = g.repeat WHERE c.run = ? AND c.change = 'worse' ORDER BY g.score, g.repeat DESC",
            run,
        )
        # the last one of each stays: the best, and of those the first
        return {key: _text(row["output"]) for row in rows if (key := (row["variant"], row["case_id"])) in wanted}

    def _asked(self, wanted: set[str]) -> Iterator[tuple[str, _Row]]:
        for row in self._rows(self._cases_sql):
            case_id = str(row["case_id"])
            if case_id in wanted:
                yield case_id, row

    def _unanswered(self, run: str) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = defaultdict(dict)
        rows = self._rows(
            "SELECT variant, outcome, COUNT(*) AS answers FROM {prefix}grades WHERE run = ? AND answered = 0 "
            "GROUP BY variant, outcome ORDER BY variant, outcome",
            run,
        )
        for row in rows:
            # an answer without a verdict on it
            said = "not judged" if row["outcome"] == "succeeded" else row["outcome"] or "never asked"
            found[row["variant"]][said] = row["answers"]
        return found

    def _runs(self, run: str, in_all: Mapping[str, _Row], names: list[str]) -> list[RunView]:
        """Return the run and the runs before it, the newest first."""
        until = max((at for row in in_all.values() if (at := _moment(row["asked_at"]))), default=None)
        rows = self._rows(
            "SELECT s.*, c.verdict, c.baseline_run FROM {prefix}summaries s LEFT JOIN {prefix}comparisons c "
            "ON c.run = s.run AND c.variant = s.variant WHERE s.tag = '' ORDER BY s.asked_at, s.run, s.variant"
        )
        found = []
        for row in rows:
            at = _moment(row["asked_at"])
            if row["run"] == run or (at is not None and until is not None and at <= until):
                found.append((at or until or datetime.min.replace(tzinfo=UTC), row))
        latest: dict[str, datetime] = {}
        for at, row in found:
            latest[row["run"]] = max(at, latest.get(row["run"], at))
        kept = set(sorted(latest, key=lambda one: (one == run, latest[one], one))[-plots.MAX_RUNS :])
        ordered = sorted(
            (row for _, row in found if row["run"] in kept),
            key=lambda row: (row["run"] == run, latest[row["run"]], row["run"]),
            reverse=True,
        )
        expected = self._expected()
        return [_run(row, names, expected.get((row["run"], row["variant"]))) for row in ordered]

    def _expected(self) -> dict[tuple[str, str], tuple[float, float] | None]:
        """What each run was expected to cost, low and high, by run and model; None if a part of it is unknown."""
        rows = self._rows(
            "SELECT run, variant, COUNT(*) AS parts, COUNT(estimate_high_usd) AS known, "
            "SUM(estimate_low_usd) AS low, SUM(estimate_high_usd) AS high FROM {prefix}costs GROUP BY run, variant"
        )
        return {
            (row["run"], row["variant"]): (row["low"] or 0.0, row["high"]) if row["parts"] == row["known"] else None
            for row in rows
        }

    def _rows(self, sql: str, *parameters: Any) -> Iterator[_Row]:
        if parameters:
            sql = sql.format(prefix=self._prefix, answers=self._answers).replace("?", self._hook.placeholder)
        elif "{prefix}" in sql:
            sql = sql.format(prefix=self._prefix)
        with read_rows(self._hook, sql, parameters or None) as rows:
            names = [name.lower() for name in rows.columns]
            for row in rows:
                yield dict(zip(names, row, strict=True))


def _variant(number: int, row: _Row, compared: _Row | None, unanswered: dict[str, int], worse: _Worse) -> VariantView:
    comparison = None
    if compared is not None and (baseline := _baseline(compared)) is not None:
        p = compared["p_corrected"]
        comparison = Comparison(
            baseline_run=baseline,
            cases=compared["cases"],
            left_out=compared["left_out"],
            better=compared["better"],
            worse=compared["worse"],
            difference=float(compared["difference"] or 0),
            p_value=None if p is None else float(p),
        )
    return VariantView(
        name=row["variant"],
        number=number,
        verdict=compared["verdict"] if compared else "no_history",
        accuracy=_accuracy(row),
        answers=row["answers"],
        graded=row["graded"],
        unanswered=unanswered,
        cost_usd=_cost(row),
        comparison=comparison,
        cases=worse.cases,
        cases_in_all=worse.in_all,
        cases_by_tag=worse.by_tag,
    )


def _case(row: _Row, answers: list[Answered], before: str | None, case: _Row) -> CaseView:
    score = row["score_before"]
    return CaseView(
        case_id=row["case_id"],
        tags=_split(row["tags"]),
        prompt=_text(case.get("input")),
        expected=_text(case.get("expected")),
        before=None if score is None else float(score),
        now=float(row["score_now"]),
        runs_before=row["runs_before"],
        right_before=row["right_before"],
        answers=answers,
        before_answer=before,
    )


def _tags(summaries: list[_Row], names: list[str]) -> list[TagView]:
    found: dict[str, dict[str, _Row]] = defaultdict(dict)
    for row in summaries:
        if row["tag"] != ALL:
            found[row["tag"]][row["variant"]] = row
    return [
        TagView(
            tag,
            max(row["cases"] for row in of_tag.values()),
            [_accuracy(of_tag[name]) if name in of_tag else None for name in names],
        )
        for tag, of_tag in sorted(found.items())
    ]


def _run(row: _Row, names: list[str], expected: tuple[float, float] | None) -> RunView:
    name = row["variant"]
    return RunView(
        run=row["run"],
        at=_moment(row["asked_at"]),
        name=name,
        number=names.index(name) if name in names else None,
        accuracy=_accuracy(row),
        verdict=row["verdict"] or "no_history",
        baseline_run=row["baseline_run"],
        cost_usd=_cost(row),
        estimate=expected,
        input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
        unanswered=row["unanswered"],
    )


def _split(tags: str | None) -> list[str]:
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


def _moment(value: Any) -> datetime | None:
    """In UTC, of a datetime or of ISO text; one without a time zone is UTC."""
    if value is None:
        return None
    at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
