"""Write graded nightly runs to a SQLite file as the operators would, for tests of their readers."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_batch.evals.tables import ALL_CASES, CHANGES, COMPARISONS, GRADES, SUMMARIES

CASES_SQL = "SELECT case_id, input, expected, grader, tags FROM eval_cases"
TAGS = ("arithmetic", "dates", "extraction", "negation", "spelling")

#: (number of the night, number of the case, random) -> (answer or None, whether it is right)
Model = Callable[[int, int, Random], tuple[str | None, bool]]


def steady(share: float) -> Model:
    """Return a model that is right in the same cases each night, except for 2 % that vary by chance."""

    def answer(run: int, case: int, random: Random) -> tuple[str | None, bool]:
        is_right = Random(case).random() < share
        if random.random() < 0.02:
            is_right = not is_right
        return ("42" if is_right else "It is 41, I believe."), is_right

    return answer


def regressing(share: float, since: int, loss: float) -> Model:
    """Return a steady model that fails a share of the cases with the first tag from one night on."""
    steady_model = steady(share)

    def answer(run: int, case: int, random: Random) -> tuple[str | None, bool]:
        text, is_right = steady_model(run, case, random)
        if run >= since and case % len(TAGS) == 0 and Random(-case).random() < loss:
            return "I cannot work that out.", False
        return text, is_right

    return answer


def recovering(share: float, since: int, gain: float) -> Model:
    """Return a steady model that fails a share of the cases with the first tag until one night."""
    steady_model = steady(share)

    def answer(run: int, case: int, random: Random) -> tuple[str | None, bool]:
        text, is_right = steady_model(run, case, random)
        if run < since and case % len(TAGS) == 0 and Random(-case).random() < gain:
            return "I cannot work that out.", False
        return text, is_right

    return answer


def write_nights(
    path: Path,
    models: dict[str, Model],
    *,
    nights: int = 2,
    cases: int = 40,
    dollars: Sequence[float] = (0.42, 0.06, 1.9),
    case: Callable[[int], dict[str, Any]] = lambda number: {},
) -> list[str]:
    """Write cases, answers, grades, summaries, comparisons and changes. Return the run ids, the oldest first.

    Each night is compared with the night before.

    :param case: returns the columns in which a case differs from the default.
    """
    runs = [f"scheduled__2026-11-{night + 1:02}T02:00:00+00:00" for night in range(nights)]
    case_rows = [
        {
            "case_id": f"c{number:03}",
            "input": f"Question {number}: what is {number} plus {42 - number}?",
            "expected": "42",
            "grader": "exact",
            "tags": TAGS[number % len(TAGS)] + (",hard" if number % 7 == 0 else ""),
        }
        | case(number)
        for number in range(cases)
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE eval_cases (case_id, input, expected, grader, tags)")
        connection.execute(
            "CREATE TABLE eval_answers (run, variant, custom_id, case_id, repeat, outcome, output, model, job_uid)"
        )
        for table in (GRADES, SUMMARIES, COMPARISONS, CHANGES):
            connection.execute(f"CREATE TABLE eval_{table.name} ({', '.join(table.names)})")
        _insert(connection, "eval_cases", case_rows)
        last_scores: dict[str, dict[str, float]] = {}
        for night, run in enumerate(runs):
            for position, (name, model) in enumerate(models.items()):
                random = Random(f"{night} {name}")
                pairs = [
                    _answer_and_grade(run, name, row, *model(night, number, random))
                    for number, row in enumerate(case_rows)
                ]
                _insert(connection, "eval_answers", [answer for answer, _ in pairs])
                grades = [grade for _, grade in pairs]
                _insert(connection, "eval_grades", grades)
                _insert(connection, "eval_summaries", _summaries(run, name, night, grades, dollars[position]))
                scores = {grade["case_id"]: grade["score"] for grade in grades}
                comparison, changes = _compare(run, name, night, runs, last_scores.get(name), scores, grades)
                _insert(connection, "eval_comparisons", [comparison])
                _insert(connection, "eval_changes", changes)
                last_scores[name] = scores
    return runs


def _answer_and_grade(
    run: str, variant: str, case: dict[str, Any], text: str | None, is_right: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    key = {"run": run, "variant": variant, "case_id": case["case_id"], "repeat": 1}
    outcome = "succeeded" if text is not None else "expired"
    answer = key | {"custom_id": case["case_id"], "outcome": outcome, "output": text, "model": variant}
    answer["job_uid"] = f"job of {variant}"
    grade = key | {
        "grader": case["grader"],
        "score": float(is_right),
        "passed": int(is_right),
        "reason": None if is_right else f"the answer is not {case['expected']!r}",
        "tags": case["tags"],
        "outcome": outcome,
        "answered": int(text is not None),
        "case_sha256": f"hash of {case['case_id']}",
    }
    return answer, grade


def _summaries(
    run: str, variant: str, night: int, grades: list[dict[str, Any]], dollars: float
) -> list[dict[str, Any]]:
    by_tag: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for grade in grades:
        for tag in (ALL_CASES, *grade["tags"].split(",")):
            by_tag[tag].append(grade)
    rows = []
    for tag, group in by_tag.items():
        share = sum(grade["score"] for grade in group) / len(group)
        margin = 1.96 * math.sqrt((share * (1 - share) + 0.01) / len(group))
        rows.append(
            {
                "run": run,
                "variant": variant,
                "tag": tag,
                "cases": len(group),
                "answers": len(group),
                "graded": sum(grade["answered"] for grade in group),
                "unanswered": sum(not grade["answered"] for grade in group),
                "correct": sum(grade["score"] for grade in group),
                "accuracy": share,
                "pass_any": share,
                "pass_majority": share,
                "low": max(share - margin, 0),
                "high": min(share + margin, 1),
                "cost_usd": str(round(dollars * len(group) / len(grades) * (1 + night % 3 / 50), 6)),
                "judge_cost_usd": "0",
                "input_tokens": 61 * len(group),
                "output_tokens": 118 * len(group),
                "sealed_at": f"2026-11-{night + 1:02}T02:00:07+00:00",
                "graded_at": f"2026-11-{night + 1:02}T04:31:00+00:00",
            }
        )
    return rows


def _compare(
    run: str,
    variant: str,
    night: int,
    runs: list[str],
    earlier_scores: dict[str, float] | None,
    scores: dict[str, float],
    grades: list[dict[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row: dict[str, Any] = {
        "run": run,
        "variant": variant,
        "tag": ALL_CASES,
        "baseline_run": None,
        "cases": 0,
        "left_out": len(scores),
    }
    if earlier_scores is None:
        return row | {"better": 0, "worse": 0, "verdict": "no_history"}, []
    tags = {grade["case_id"]: grade["tags"] for grade in grades}
    changes = [
        {
            "run": run,
            "variant": variant,
            "case_id": case_id,
            "baseline_run": runs[night - 1],
            "change": "better" if score > earlier_scores[case_id] else "worse",
            "score_before": earlier_scores[case_id],
            "score_now": score,
            "tags": tags[case_id],
            "runs_before": 1,
            "right_before": int(earlier_scores[case_id]),
        }
        for case_id, score in scores.items()
        if score != earlier_scores[case_id]
    ]
    worse = sum(change["change"] == "worse" for change in changes)
    better = len(changes) - worse
    p = min(1.0, 2 * sum(math.comb(len(changes), n) for n in range(min(worse, better) + 1)) / 2 ** len(changes))
    verdict = "same" if p > 0.02 else "regressed" if worse > better else "improved"
    row |= {"baseline_run": runs[night - 1], "cases": len(scores), "left_out": 0, "better": better, "worse": worse}
    row |= {"difference": (better - worse) / len(scores), "p_worse": p, "p_better": 1.0, "verdict": verdict}
    return row, changes


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
