"""What the page shows of evals, as plain values: unknown is None, and money is in US dollars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import msgspec

from airflow_provider_batch.evals.matrix import Case, CaseAnswer, CaseChange, Difference, Matrix, differences
from airflow_provider_batch.evals.report import RunView
from airflow_provider_batch.plugins.evals.reports import ReportFile

#: maximum number of regressions, and of improvements below the history
MAX_CHANGES = 50


def describe_report(report: ReportFile) -> dict[str, Any]:
    """Return the identity of a report, and when it was written."""
    key = report.key
    return {
        "dag_id": key.dag_id,
        "run_id": key.run_id,
        "task_id": key.task_id,
        "map_index": key.map_index,
        "written_at": report.written_at.isoformat(),
    }


def describe_eval(matrix: Matrix) -> dict[str, Any]:
    """Return a run with its history and its changes."""
    return {
        "title": matrix.title,
        "run": matrix.run,
        "sealed_at": matrix.sealed_at,
        "stub_answers": matrix.stub_answers,
        "models": matrix.models,
        "runs": [_run(run) for run in matrix.runs],
        "cases_total": matrix.cases_total,
        "worse": _changes(matrix, "worse", first=("regressed", "mixed")),
        "better": _changes(matrix, "better", first=("improved", "mixed")),
    }


def describe_cases(matrix: Matrix, *, text: str, model: str, only: str, offset: int, limit: int) -> dict[str, Any]:
    """Return some cases with their answers.

    :param text: part of a case or of an answer; empty for all.
    :param model: a model that `only` is about; empty for any of them.
    :param only: "wrong", "worse", "better", "unanswered", or empty for all.
    """
    changes = {(change.case_id, change.model): change.change for change in matrix.changes}
    models = [model] if model else matrix.models
    matches = [
        case
        for case in matrix.cases
        if (not only or any(only in _marks(case, name, changes) for name in models))
        and (not text or case.contains(text.casefold()))
    ]
    return {
        "models": matrix.models,
        "total": len(matches),
        "cases_total": matrix.cases_total,
        "kept": len(matrix.cases),
        "cases": [
            {
                "case_id": case.case_id,
                "tags": case.tags,
                "prompt": case.prompt,
                "expected": case.expected,
                "models": {
                    name: {
                        "score": case.score(name),
                        "change": changes.get((case.case_id, name)),
                        "answers": _answers(answer for answer in case.answers if answer.model == name),
                    }
                    for name in matrix.models
                },
            }
            for case in matches[offset : offset + limit]
        ],
    }


def describe_comparison(
    before: Matrix, now: Matrix, *, text: str, model: str, only: str, offset: int, limit: int
) -> dict[str, Any]:
    """Return two runs side by side: their figures, and the cases.

    :param only: "changed" for cases that got better or worse, one of the values of `Difference.change`, or empty.
    """
    counts: dict[str, dict[str, int]] = {}
    matches: list[Difference] = []
    for difference in differences(before, now):
        by_change = counts.setdefault(difference.model, dict.fromkeys(("better", "worse", "same", "unanswered"), 0))
        by_change[difference.change] += 1
        if _is_shown(difference, only, model) and (not text or _contains(difference, text.casefold())):
            matches.append(difference)
    return {
        "before": _figures(before),
        "now": _figures(now),
        "models": sorted(counts),
        "counts": counts,
        "total": len(matches),
        "cases": [
            {
                "case_id": difference.case_id,
                "model": difference.model,
                "prompt": difference.prompt,
                "expected": difference.expected,
                "change": difference.change,
                "score_before": difference.score_before,
                "score_now": difference.score_now,
                "before": _answers(difference.before),
                "now": _answers(difference.now),
            }
            for difference in matches[offset : offset + limit]
        ],
    }


def _marks(case: Case, model: str, changes: dict[tuple[str, str], str]) -> set[str]:
    """Return by which values of `only` a case matches."""
    marks = {"unanswered"} if case.score(model) is None else {"wrong"} if case.is_wrong(model) else set()
    return marks | {changes.get((case.case_id, model), "")}


def _is_shown(difference: Difference, only: str, model: str) -> bool:
    is_kind = not only or difference.change == only or (only == "changed" and difference.change in ("better", "worse"))
    return is_kind and model in ("", difference.model)


def _contains(difference: Difference, text: str) -> bool:
    answers = (answer.text for answer in (*difference.before, *difference.now))
    parts: Sequence[str | None] = (difference.case_id, difference.prompt, difference.expected, *answers)
    return any(text in part.casefold() for part in parts if part)


def _figures(matrix: Matrix) -> dict[str, Any]:
    runs = {run.name: _run(run) for run in matrix.runs if run.run == matrix.run}
    return {"run": matrix.run, "sealed_at": matrix.sealed_at, "stub_answers": matrix.stub_answers, "models": runs}


def _run(run: RunView) -> dict[str, Any]:
    accuracy = run.accuracy
    return {
        "run": run.run,
        "sealed_at": run.sealed_at,
        "model": run.name,
        "accuracy": accuracy.share if accuracy else None,
        "low": accuracy.low if accuracy else None,
        "high": accuracy.high if accuracy else None,
        "verdict": run.verdict,
        "baseline_run": run.baseline_run,
        "cost_usd": run.cost_usd,
        "cost_per_right_usd": run.cost_per_right_usd,
        "estimate_usd": run.estimate_usd,
        "unanswered": run.unanswered,
    }


def _changes(matrix: Matrix, kind: str, first: Sequence[str]) -> dict[str, Any]:
    """Return the cases that changed in one direction. Those of models with one of the verdicts `first` come first."""
    notable = {run.name for run in matrix.runs if run.run == matrix.run and run.verdict in first}
    changes: list[CaseChange] = [change for change in matrix.changes if change.change == kind]
    changes.sort(key=lambda change: change.model not in notable)
    prompts = {case.case_id: case.prompt for case in matrix.cases}
    return {
        "total": len(changes),
        "cases": [
            {**msgspec.structs.asdict(change), "prompt": prompts.get(change.case_id)}
            for change in islice(changes, MAX_CHANGES)
        ],
    }


def _answers(answers: Iterable[CaseAnswer]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(answer) for answer in answers]
