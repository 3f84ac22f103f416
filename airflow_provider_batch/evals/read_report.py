"""Read the content of a report from the tables of evals.

Databases return some values as different types: a timestamp as text or datetime, money as decimal or float. This
module converts each of them to one type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.core.answers.stub import STUB_PREFIX
from airflow_provider_batch.evals import plots
from airflow_provider_batch.evals.compare import STOPPING_VERDICTS, Verdict
from airflow_provider_batch.evals.costs import COSTS, cost_rows
from airflow_provider_batch.evals.graders import SingleGrader, parse_grader, parse_verdict
from airflow_provider_batch.evals.judging import Agreement, LabelledVerdict, agreements
from airflow_provider_batch.evals.preferences import PairVerdict, Preference, preferences
from airflow_provider_batch.evals.queries import EvalQueries, Row
from airflow_provider_batch.evals.read_cases import always_wrong, better_cases, case_rows, with_prompts, worse_cases
from airflow_provider_batch.evals.report import (
    MAX_VARIANTS,
    RECENT_RUNS,
    Accuracy,
    CaseList,
    CaseTable,
    Comparison,
    Report,
    RunView,
    TagView,
    VariantView,
)
from airflow_provider_batch.evals.tables import ALL_CASES, LABELS
from airflow_provider_batch.exceptions import AbsentTableError, InputError
from airflow_provider_batch.warehouse.naming import split_table
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook


class ReportTables(EvalQueries):
    """The tables with the content of a report.

    :param cases_sql: as passed to the operators.
    :param answers: results table with the answers.
    :param judgements: results table with the verdicts, if there is one.
    :param embeddings: results table with the embeddings of texts, if there is one.
    :param preferences: results table with the comparisons of pairs of answers, if there is one.
    :param prefix: start of the names of the tables that grading writes.
    """

    def __init__(
        self,
        hook: DbApiHook,
        *,
        cases_sql: str,
        answers: str,
        judgements: str | None,
        prefix: str,
        embeddings: str | None = None,
        preferences: str | None = None,
    ) -> None:
        super().__init__(hook, cases_sql=cases_sql, answers=answers, prefix=prefix)
        self._judgements = judgements
        self._embeddings = embeddings
        self._preferences = preferences

    def record_costs(self, run: str, landings: Iterable[Mapping[str, Any]]) -> None:
        """Write the estimated and actual costs of a run to the table `costs`. Rows without a new landing stay.

        :param landings: what the landing tasks of the run returned.
        """
        costs = self._prefix + COSTS.name
        tables = ReplacedTables(self.hook, {costs: COSTS.columns})
        tables.prepare()
        jobs = {}
        parts = (("answers", self._answers), ("judgements", self._judgements), ("embeddings", self._embeddings))
        for part, table in parts:
            if table is None:
                continue
            try:
                for row in self.rows(f"SELECT DISTINCT variant, job_uid FROM {table} WHERE run = ?", run):
                    jobs[row["job_uid"]] = (row["variant"], part)
            except AbsentTableError:
                continue  # no job has written to it yet, because no case needed one
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
        comparison_rows = list(self.rows("SELECT * FROM {prefix}comparisons WHERE run = ? ORDER BY tag", run))
        comparisons = {row["variant"]: row for row in comparison_rows if row["tag"] == ALL_CASES}
        edited_cases = self._edited_cases(run)
        compared = {name for name in names if _baseline(comparisons.get(name)) is not None}
        worse, better = worse_cases(self, run, names, compared), better_cases(self, run, names)
        unanswered_counts = self._unanswered_counts(run)
        runs = self._runs(run, totals, names)
        recent_runs = list(dict.fromkeys(row.run for row in runs))[:RECENT_RUNS]
        always_wrong_cases = always_wrong(self, run, recent_runs, names)
        cases = case_rows(self, run, names)
        differing_cases = [row for row in cases if row.differs]
        agreements_of_judges = self._agreements()
        return Report(
            title=title,
            run=run,
            sealed_at=_latest(totals.values()),
            variants=[
                _variant(
                    number,
                    totals[name],
                    [row for row in comparison_rows if row["variant"] == name],
                    edited_cases[name],
                    unanswered_counts[name],
                    worse[name],
                    better[name],
                )
                for number, name in enumerate(names)
            ],
            tags=_tags(summaries, names),
            runs=runs,
            recent_runs=len(recent_runs),
            always_wrong=CaseTable(with_prompts(self, always_wrong_cases), len(always_wrong_cases)),
            differing=CaseTable(with_prompts(self, differing_cases), len(differing_cases)),
            agreed_right=sum(row.all_right for row in cases),
            agreed_wrong=sum(row.all_wrong for row in cases),
            has_judge=agreements_of_judges is not None,
            agreements=agreements_of_judges or [],
            labels_table=self._prefix + LABELS.name,
            compares_variants=self._preferences is not None,
            preferences=self._read_preferences(run),
            stub_answers=self._stub_answers(run),
        )

    def _edited_cases(self, run: str) -> dict[str, list[str]]:
        """Return the wrong cases that are not compared because they were edited, by variant."""
        edited_cases: dict[str, list[str]] = defaultdict(list)
        for row in self.rows(
            "SELECT variant, case_id FROM {prefix}changes WHERE run = ? AND change = 'edited' ORDER BY case_id", run
        ):
            edited_cases[row["variant"]].append(row["case_id"])
        return edited_cases

    def _unanswered_counts(self, run: str) -> dict[str, dict[str, int]]:
        """Return the number of unanswered requests, by variant and outcome."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        rows = self.rows(
            "SELECT variant, outcome, COUNT(*) AS answers FROM {prefix}grades WHERE run = ? AND answered = 0 "
            "GROUP BY variant, outcome ORDER BY variant, outcome",
            run,
        )
        for row in rows:
            # An answer that succeeded is unanswered if no judge gave a verdict on it.
            label = "not judged" if row["outcome"] == "succeeded" else row["outcome"] or "never sent"
            counts[row["variant"]][label] = row["answers"]
        return counts

    def _agreements(self) -> list[Agreement] | None:
        """Return how far the judges agree with people, over all answers of all runs that both have judged.

        None if no judge has ever judged, because no case needs one.
        """
        if self._judgements is None:
            return None
        try:
            return self._read_agreements()
        except AbsentTableError as error:
            if split_table(self._judgements)[-1].casefold() not in str(error).casefold():
                raise
            return None

    def _read_agreements(self) -> list[Agreement]:
        rows = self.rows(
            "SELECT j.run, j.variant, j.case_id, j.repeat, j.model, j.verdict, j.score, l.label, g.grader "
            "FROM {prefix}labels l "
            f"JOIN {self._judgements} j ON j.run = l.run AND j.variant = l.variant AND j.case_id = l.case_id "
            "AND j.repeat = l.repeat JOIN {prefix}grades g ON g.run = l.run AND g.variant = l.variant "
            "AND g.case_id = l.case_id AND g.repeat = l.repeat WHERE j.outcome = ?",
            "succeeded",
        )
        verdicts = []
        for row in rows:
            grader, label = _judged_grader(row["grader"]), parse_verdict(row["label"])
            score = None if row["score"] is None else float(row["score"])
            opinion = None if grader is None else grader.read_verdict(row["verdict"], score)
            if opinion is not None and label is not None:
                answer = (row["run"], row["variant"], row["case_id"], int(row["repeat"]))
                verdicts.append(LabelledVerdict(answer, str(row["model"]), opinion.passed, label))
        return agreements(verdicts)

    def _read_preferences(self, run: str) -> list[Preference]:
        """Return which variants a judge prefers in this run."""
        if self._preferences is None:
            return []
        rows = self.rows(
            f"SELECT case_id, first_variant, second_variant, preference FROM {self._preferences} "
            "WHERE run = ? AND outcome = ?",
            run,
            "succeeded",
        )
        return preferences(
            PairVerdict(row["case_id"], row["first_variant"], row["second_variant"], str(row["preference"]))
            for row in rows
        )

    def _stub_answers(self, run: str) -> int:
        """Return the number of answers that no model wrote."""
        (row,) = self.rows(
            "SELECT COUNT(*) AS answers FROM {answers} WHERE run = ? AND model LIKE ?", run, f"{STUB_PREFIX}%"
        )
        return int(row["answers"])

    def _runs(self, run: str, totals: Mapping[str, Row], names: list[str]) -> list[RunView]:
        """Return the run and the runs before it, the newest first."""
        until = _latest(totals.values())
        rows = self.rows(
            "SELECT s.*, c.verdict, c.baseline_run FROM {prefix}summaries s LEFT JOIN {prefix}comparisons c "
            "ON c.run = s.run AND c.variant = s.variant AND c.tag = s.tag "
            "WHERE s.tag = '' ORDER BY s.sealed_at, s.run, s.variant"
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


@lru_cache(maxsize=1_000)
def _judged_grader(text: str) -> SingleGrader | None:
    """Return which grader of a case is one by a judge."""
    return parse_grader(text).judged


def _comparison(total: Row, tags: Iterable[Row], edited_cases: list[str]) -> Comparison | None:
    if (baseline := _baseline(total)) is None:
        return None
    p_values = [float(p) for name in ("p_worse", "p_better") if (p := total[name]) is not None]
    smallest_drop = total["smallest_drop"]
    return Comparison(
        baseline_run=baseline,
        cases=total["cases"],
        left_out=total["left_out"],
        better=total["better"],
        worse=total["worse"],
        difference=float(total["difference"] or 0),
        p_value=min(p_values, default=None),
        smallest_drop=None if smallest_drop is None else float(smallest_drop),
        regressed_tags=[tag["tag"] for tag in tags if tag["verdict"] in STOPPING_VERDICTS],
        improved_tags=[tag["tag"] for tag in tags if tag["verdict"] in (Verdict.IMPROVED, Verdict.MIXED)],
        edited_cases=edited_cases,
    )


def _variant(
    number: int,
    row: Row,
    comparison_rows: list[Row],
    edited_cases: list[str],
    unanswered_counts: dict[str, int],
    worse: CaseList,
    better: CaseList,
) -> VariantView:
    """Return the view of a model.

    :param comparison_rows: the comparison over all cases, then those of the tags; empty if there are none.
    """
    return VariantView(
        name=row["variant"],
        number=number,
        verdict=comparison_rows[0]["verdict"] if comparison_rows else "no_history",
        accuracy=_accuracy(row),
        repeated=(float(row["pass_any"]), float(row["pass_majority"])) if row["answers"] > row["cases"] else None,
        answers=row["answers"],
        graded=row["graded"],
        unanswered=unanswered_counts,
        cost_usd=_cost(row),
        cost_per_right_usd=_cost_per_right(row),
        comparison=_comparison(comparison_rows[0], comparison_rows[1:], edited_cases) if comparison_rows else None,
        worse=worse,
        better=better,
    )


def _tags(summaries: list[Row], names: list[str]) -> list[TagView]:
    rows_by_tag: dict[str, dict[str, Row]] = defaultdict(dict)
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


def _run(row: Row, names: list[str], estimate_usd: tuple[float, float] | None) -> RunView:
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
        cost_per_right_usd=_cost_per_right(row),
        estimate_usd=estimate_usd,
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        unanswered=row["unanswered"],
    )


def _baseline(row: Row | None) -> str | None:
    return row["baseline_run"] if row else None


def _accuracy(row: Row) -> Accuracy | None:
    if row["accuracy"] is None:
        return None
    return Accuracy(*(min(max(float(row[name]), 0.0), 1.0) for name in ("accuracy", "low", "high")))


def _cost(row: Row) -> float | None:
    parts = (row["cost_usd"], row["judge_cost_usd"])
    return None if None in parts else sum(map(float, parts))


def _cost_per_right(row: Row) -> float | None:
    cost = _cost(row)
    return None if cost is None or not row["correct"] else cost / float(row["correct"])


def _latest(rows: Iterable[Row]) -> datetime | None:
    return max((sealed_at for row in rows if (sealed_at := _timestamp(row["sealed_at"]))), default=None)


def _timestamp(value: Any) -> datetime | None:
    """Return the UTC time of a datetime or an ISO text. A value without a time zone is taken as UTC."""
    if value is None:
        return None
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
