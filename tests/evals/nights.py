"""Graded nights in a SQLite file, written as the operators write them, for tests of what reads them."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from airflow_provider_batch.evals.tables import ALL, CHANGES, COMPARISONS, GRADES, SUMMARIES

CASES_SQL = "SELECT case_id, input, expected, grader, tags FROM eval_cases"
TAGS = ("arithmetic", "dates", "extraction", "negation", "spelling")

#: what a model answers: (run, case number, random) -> (answer or None, whether it is right)
Model = Callable[[int, int, Random], tuple[str | None, bool]]


def steady(share: float) -> Model:
    """A model that knows the same share of the cases each night, but for a few that waver."""

    def answer(run: int, case: int, random: Random) -> tuple[str | None, bool]:
        right = Random(case).random() < share
        if random.random() < 0.02:
            right = not right
        return ("42" if right else "It is 41, I believe."), right

    return answer


def regressing(share: float, since: int, lost: float) -> Model:
    """A steady model that from one night on fails some cases with the first tag."""
    before = steady(share)

    def answer(run: int, case: int, random: Random) -> tuple[str | None, bool]:
        text, right = before(run, case, random)
        if run >= since and case % len(TAGS) == 0 and Random(-case).random() < lost:
            return "I cannot work that out.", False
        return text, right

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
    """Write cases, answers, grades, summaries, comparisons and changes. Returns the runs, the oldest first.

    Each night is compared with the one before. `case` gives what differs of a case from a plain one.
    """
    runs = [f"scheduled__2026-11-{night + 1:02}T02:00:00+00:00" for night in range(nights)]
    asked = [
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
            "CREATE TABLE eval_answers (run, variant, custom_id, case_id, repeat, outcome, output, job_uid)"
        )
        for table in (GRADES, SUMMARIES, COMPARISONS, CHANGES):
            connection.execute(f"CREATE TABLE eval_{table.name} ({', '.join(table.names)})")
        _insert(connection, "eval_cases", asked)
        before: dict[str, dict[str, float]] = {}
        for night, run in enumerate(runs):
            for place, (name, model) in enumerate(models.items()):
                random = Random(f"{night} {name}")
                graded = [_graded(run, name, one, *model(night, number, random)) for number, one in enumerate(asked)]
                _insert(connection, "eval_answers", [answer for answer, _ in graded])
                grades = [grade for _, grade in graded]
                _insert(connection, "eval_grades", grades)
                _insert(connection, "eval_summaries", _summaries(run, name, night, grades, dollars[place]))
                scores = {grade["case_id"]: grade["score"] for grade in grades}
                compared, changes = _compared(run, name, night, runs, before.get(name), scores, grades)
                _insert(connection, "eval_comparisons", [compared])
                _insert(connection, "eval_changes", changes)
                before[name] = scores
    return runs


def _graded(
    run: str, variant: str, case: dict[str, Any], text: str | None, right: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    key = {"run": run, "variant": variant, "case_id": case["case_id"], "repeat": 1}
    outcome = "succeeded" if text is not None else "expired"
    answer = key | {"custom_id": case["case_id"], "outcome": outcome, "output": text, "job_uid": f"job of {variant}"}
    grade = key | {
        "grader": case["grader"],
        "score": float(right),
        "reason": None if right else f"the answer is not {case['expected']!r}",
        "tags": case["tags"],
        "outcome": outcome,
        "answered": int(text is not None),
    }
    return answer, grade


def _summaries(
    run: str, variant: str, night: int, grades: list[dict[str, Any]], dollars: float
) -> list[dict[str, Any]]:
    by_tag: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for grade in grades:
        for tag in (ALL, *grade["tags"].split(",")):
            by_tag[tag].append(grade)
    rows = []
    for tag, some in by_tag.items():
        share = sum(grade["score"] for grade in some) / len(some)
        half = 1.96 * math.sqrt((share * (1 - share) + 0.01) / len(some))
        rows.append(
            {
                "run": run,
                "variant": variant,
                "tag": tag,
                "cases": len(some),
                "answers": len(some),
                "graded": sum(grade["answered"] for grade in some),
                "unanswered": sum(not grade["answered"] for grade in some),
                "correct": sum(grade["score"] for grade in some),
                "accuracy": share,
                "low": max(share - half, 0),
                "high": min(share + half, 1),
                "cost_usd": str(round(dollars * len(some) / len(grades) * (1 + night % 3 / 50), 6)),
                "judge_cost_usd": "0",
                "input_tokens": 61 * len(some),
                "output_tokens": 118 * len(some),
                "asked_at": f"2026-11-{night + 1:02}T02:00:07+00:00",
                "graded_at": f"2026-11-{night + 1:02}T04:31:00+00:00",
            }
        )
    return rows


def _compared(
    run: str,
    variant: str,
    night: int,
    runs: list[str],
    before: dict[str, float] | None,
    now: dict[str, float],
    grades: list[dict[str, Any]],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    row: dict[str, Any] = {"run": run, "variant": variant, "baseline_run": None, "cases": 0, "left_out": len(now)}
    if before is None:
        return row | {"better": 0, "worse": 0, "verdict": "no_history"}, []
    tags = {grade["case_id"]: grade["tags"] for grade in grades}
    changes = [
        {
            "run": run,
            "variant": variant,
            "case_id": case_id,
            "baseline_run": runs[night - 1],
            "change": "better" if score > before[case_id] else "worse",
            "score_before": before[case_id],
            "score_now": score,
            "tags": tags[case_id],
            "runs_before": 1,
            "right_before": int(before[case_id]),
        }
        for case_id, score in now.items()
        if score != before[case_id]
    ]
    worse = sum(change["change"] == "worse" for change in changes)
    better = len(changes) - worse
    p = min(1.0, 2 * sum(math.comb(len(changes), n) for n in range(min(worse, better) + 1)) / 2 ** len(changes))
    verdict = "same" if p > 0.02 else "regressed" if worse > better else "improved"
    row |= {"baseline_run": runs[night - 1], "cases": len(now), "left_out": 0, "better": better, "worse": worse}
    row |= {"difference": (better - worse) / len(now), "p_value": p, "p_corrected": p, "verdict": verdict}
    return row, changes


def _insert(connection: sqlite3.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", list(row.values()))
