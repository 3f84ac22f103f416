"""Grades -> a summary per model and tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from airflow_provider_batch.evals.grading import Graded
from airflow_provider_batch.evals.statistics import interval
from airflow_provider_batch.evals.tables import ALL


class Summary(msgspec.Struct, frozen=True):
    """One row of `eval_summaries`, but for the run and the time of grading; see `tables.SUMMARIES`."""

    variant: str
    tag: str
    cases: int
    answers: int
    graded: int
    unanswered: int
    correct: int
    accuracy: float
    low: float
    high: float
    cost_usd: Decimal | None
    judge_cost_usd: Decimal | None
    input_tokens: int
    output_tokens: int
    asked_at: datetime | None


def summaries(graded: Iterable[Graded]) -> list[Summary]:
    """One per variant and tag, and one per variant over all its cases, by variant and tag."""
    groups: defaultdict[tuple[str, str], list[Graded]] = defaultdict(list)
    for one in graded:
        for tag in {ALL, *one.tags}:
            groups[one.answer.variant, tag].append(one)
    return [_summary(variant, tag, group) for (variant, tag), group in sorted(groups.items())]


def case_scores(graded: Iterable[Graded]) -> dict[str, float]:
    """The mean score of each case, by case_id."""
    scores: defaultdict[str, list[int]] = defaultdict(list)
    for one in graded:
        scores[one.case_id].append(one.score)
    return {case_id: sum(each) / len(each) for case_id, each in sorted(scores.items())}


def _summary(variant: str, tag: str, group: Sequence[Graded]) -> Summary:
    scores = case_scores(group)
    accuracy = sum(scores.values()) / len(scores)
    low, high = interval(accuracy, len(scores))
    answered = sum(one.answered for one in group)
    return Summary(
        variant=variant,
        tag=tag,
        cases=len(scores),
        answers=len(group),
        graded=answered,
        unanswered=len(group) - answered,
        correct=sum(one.score for one in group),
        accuracy=accuracy,
        low=low,
        high=high,
        # A row that never got an answer has no cost, which is not an unknown one.
        cost_usd=_total(one.answer.cost_usd for one in group if one.answer.came or one.answer.cost_usd),
        judge_cost_usd=_total(one.judge_cost_usd for one in group),
        input_tokens=sum(one.answer.input_tokens for one in group),
        output_tokens=sum(one.answer.output_tokens for one in group),
        asked_at=max((one.answer.sealed_at for one in group if one.answer.sealed_at is not None), default=None),
    )


def _total(costs: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
