"""Read which cases a report shows: what got worse or better, what is wrong every time, and where models differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from airflow_provider_batch.evals.queries import LEAST_LIKELY_CHANCE, EvalQueries, Row, split_tags, text_or_none
from airflow_provider_batch.evals.report import (
    MAX_BETTER,
    MAX_BETTER_TOTAL,
    MAX_CASES,
    MAX_CASES_TOTAL,
    MAX_ROWS,
    AnswerView,
    CaseList,
    CaseResult,
    CaseRow,
    CaseView,
)

#: maximum number of tags in a model's list of cases by tag
_MAX_TAGS = 8

#: variant and case_id
_Key = tuple[str, str]


def worse_cases(queries: EvalQueries, run: str, names: Sequence[str], compared: Collection[str]) -> dict[str, CaseList]:
    """Return the cases that got worse, by model. A model without a baseline has its wrong cases instead.

    :param names: the models of the report.
    :param compared: those of them that have a baseline.
    """
    changed = (row for row in _changed_rows(queries, run, "worse") if row["variant"] in compared)
    wrong = (row for row in _wrong_rows(queries, run) if row["variant"] not in compared)
    lists = _Lists(names, min(MAX_CASES, MAX_CASES_TOTAL // len(names)))
    lists.add(changed)
    lists.add(wrong)
    return lists.read(queries, run, only_wrong=True)


def better_cases(queries: EvalQueries, run: str, names: Sequence[str]) -> dict[str, CaseList]:
    """Return the cases that got better, by model."""
    lists = _Lists(names, min(MAX_BETTER, MAX_BETTER_TOTAL // len(names)))
    lists.add(_changed_rows(queries, run, "better"))
    return lists.read(queries, run, only_wrong=False)


def case_rows(queries: EvalQueries, run: str, names: Sequence[str]) -> list[CaseRow]:
    """Return the result of each model in each case of the run, sorted by case_id. None stands for no answer."""
    results: defaultdict[str, dict[str, CaseResult]] = defaultdict(dict)
    tags: dict[str, str | None] = {}
    rows = queries.rows(
        "SELECT case_id, variant, MAX(tags) AS tags, AVG(score) AS score, AVG(1.0 * passed) AS passed "
        "FROM {prefix}grades WHERE run = ? AND answered = 1 GROUP BY case_id, variant",
        run,
    )
    for row in rows:
        results[row["case_id"]][row["variant"]] = CaseResult(float(row["score"]), row["passed"] > 0.5)
        tags[row["case_id"]] = row["tags"]
    return [
        CaseRow(case_id, split_tags(tags[case_id]), [by_model.get(name) for name in names])
        for case_id, by_model in sorted(results.items())
    ]


def always_wrong(queries: EvalQueries, run: str, runs: Sequence[str], names: Sequence[str]) -> list[CaseRow]:
    """Return the cases that a model answered wrong in each of several runs, with its mean score in them.

    A case that was changed meanwhile is only compared with itself as it is now. The cases that most models get wrong
    come first.

    :param runs: the runs, including `run`. With fewer than two, no case is returned.
    """
    if len(runs) < 2:
        return []
    marks = ", ".join("?" * len(runs))
    results: defaultdict[str, dict[str, CaseResult]] = defaultdict(dict)
    tags: dict[str, str | None] = {}
    rows = queries.rows(
        "SELECT n.case_id, n.variant, MAX(n.tags) AS tags, AVG(e.score) AS score FROM {prefix}grades n "
        "JOIN {prefix}grades e ON e.variant = n.variant AND e.case_id = n.case_id AND e.case_sha256 = n.case_sha256 "
        "AND e.answered = 1 WHERE n.run = ? AND n.answered = 1 AND n.repeat = 1 "
        f"AND e.run IN ({marks}) GROUP BY n.case_id, n.variant "
        "HAVING MAX(e.passed) = 0 AND COUNT(DISTINCT e.run) > 1",
        run,
        *runs,
    )
    for row in rows:
        results[row["case_id"]][row["variant"]] = CaseResult(float(row["score"]), is_right=False)
        tags[row["case_id"]] = row["tags"]
    wrong_cases = [
        CaseRow(case_id, split_tags(tags[case_id]), [by_model.get(name) for name in names])
        for case_id, by_model in results.items()
    ]
    return sorted(wrong_cases, key=lambda row: (-sum(result is not None for result in row.results), row.case_id))


def with_prompts(queries: EvalQueries, rows: Sequence[CaseRow]) -> list[CaseRow]:
    """Return as many rows as a report shows, with the questions of their cases."""
    first_rows = rows[:MAX_ROWS]
    cases = dict(queries.cases({row.case_id for row in first_rows}))
    return [
        CaseRow(row.case_id, row.tags, row.results, text_or_none(cases.get(row.case_id, {}).get("input")))
        for row in first_rows
    ]


class _Lists:
    """One list of cases per model, of limited length."""

    def __init__(self, names: Sequence[str], limit: int) -> None:
        self._limit = limit
        self._rows: dict[str, list[Row]] = {name: [] for name in names}
        self._totals: Counter[str] = Counter()
        self._tags: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, rows: Iterable[Row]) -> None:
        """Add cases. Those of models that the report does not show are skipped."""
        for row in rows:
            name = row["variant"]
            if name not in self._rows:
                continue
            self._totals[name] += 1
            self._tags[name].update(split_tags(row["tags"]))
            if len(self._rows[name]) < self._limit:
                self._rows[name].append(row)

    def read(self, queries: EvalQueries, run: str, *, only_wrong: bool) -> dict[str, CaseList]:
        """Return the lists, with the answers to the cases.

        :param only_wrong: leave out the right ones of several answers to a case.
        """
        keys = {(name, row["case_id"]) for name, rows in self._rows.items() for row in rows}
        answers = _answers(queries, run, keys, only_wrong=only_wrong)
        earlier_answers = _earlier_answers(queries, run, keys)
        cases = dict(queries.cases({case_id for _, case_id in keys}))

        def view(row: Row) -> CaseView:
            key = (row["variant"], row["case_id"])
            return _case(row, answers[key], earlier_answers.get(key), cases.get(row["case_id"], {}))

        return {
            name: CaseList(
                cases=[view(row) for row in rows],
                total=self._totals[name],
                by_tag=dict(self._tags[name].most_common(_MAX_TAGS)),
            )
            for name, rows in self._rows.items()
        }


def _changed_rows(queries: EvalQueries, run: str, change: str) -> Iterator[Row]:
    return queries.rows(
        "SELECT variant, case_id, tags, score_before, score_now, runs_before, right_before "
        f"FROM {{prefix}}changes WHERE run = ? AND change = ? ORDER BY variant, {LEAST_LIKELY_CHANCE}",
        run,
        change,
    )


def _wrong_rows(queries: EvalQueries, run: str) -> Iterator[Row]:
    return queries.rows(
        "SELECT variant, case_id, MAX(tags) AS tags, NULL AS score_before, AVG(score) AS score_now, "
        "0 AS runs_before, 0 AS right_before FROM {prefix}grades "
        "WHERE run = ? AND answered = 1 GROUP BY variant, case_id HAVING MIN(passed) = 0 "
        "ORDER BY variant, AVG(score), case_id",
        run,
    )


def _answers(
    queries: EvalQueries, run: str, keys: Collection[_Key], *, only_wrong: bool
) -> dict[_Key, list[AnswerView]]:
    answers: defaultdict[_Key, list[AnswerView]] = defaultdict(list)
    condition = "AND g.passed = 0 " if only_wrong else ""
    rows = queries.rows(
        "SELECT g.variant, g.case_id, g.grader, g.score, g.reason, a.output FROM {prefix}grades g "
        "LEFT JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
        f"AND a.repeat = g.repeat WHERE g.run = ? {condition}ORDER BY g.variant, g.case_id, g.repeat",
        run,
    )
    for row in rows:
        key = (row["variant"], row["case_id"])
        if key in keys:
            answers[key].append(
                AnswerView(
                    text=text_or_none(row["output"]), score=row["score"], grader=row["grader"], reason=row["reason"]
                )
            )
    return answers


def _earlier_answers(queries: EvalQueries, run: str, keys: Collection[_Key]) -> dict[_Key, str | None]:
    """Return the best answer of the last accepted run to each case that changed, or the worst if it got better."""
    rows = queries.rows(
        "SELECT c.variant, c.case_id, a.output FROM {prefix}changes c "
        "JOIN {prefix}grades g ON g.run = c.baseline_run AND g.variant = c.variant AND g.case_id = c.case_id "
        "JOIN {answers} a ON a.run = g.run AND a.variant = g.variant AND a.case_id = g.case_id "
        "AND a.repeat = g.repeat WHERE c.run = ? "
        "ORDER BY CASE WHEN c.change = 'better' THEN -g.passed ELSE g.passed END, "
        "CASE WHEN c.change = 'better' THEN -g.score ELSE g.score END, g.repeat DESC",
        run,
    )
    # The dict keeps the last row of each key: the most telling grade, and of equal grades the first repeat.
    return {key: text_or_none(row["output"]) for row in rows if (key := (row["variant"], row["case_id"])) in keys}


def _case(row: Row, answers: list[AnswerView], earlier_answer: str | None, case: Row) -> CaseView:
    score_before = row["score_before"]
    return CaseView(
        case_id=row["case_id"],
        tags=split_tags(row["tags"]),
        prompt=text_or_none(case.get("input")),
        expected=text_or_none(case.get("expected")),
        score_before=None if score_before is None else float(score_before),
        score_now=float(row["score_now"]),
        runs_before=row["runs_before"],
        right_before=row["right_before"],
        answers=answers,
        earlier_answer=earlier_answer,
    )
