"""Sum up the grades of a run per model and tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from airflow_provider_batch.evals.grading import GradedAnswer
from airflow_provider_batch.evals.statistics import interval
from airflow_provider_batch.evals.tables import ALL_CASES


class Summary(msgspec.Struct, frozen=True):
    """One row of `eval_summaries`, without run and grading time. `tables.SUMMARIES` documents the columns."""

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
    #: None if unknown
    input_tokens: int | None
    output_tokens: int | None
    sealed_at: datetime | None


def summaries(graded_answers: Iterable[GradedAnswer]) -> list[Summary]:
    """Return one summary per variant and tag and one per variant over all its cases, sorted by variant and tag."""
    groups: defaultdict[tuple[str, str], list[GradedAnswer]] = defaultdict(list)
    for graded_answer in graded_answers:
        for tag in {ALL_CASES, *graded_answer.tags}:
            groups[graded_answer.answer.variant, tag].append(graded_answer)
    return [_summary(variant, tag, group) for (variant, tag), group in sorted(groups.items())]


def case_scores(graded_answers: Iterable[GradedAnswer]) -> dict[str, float]:
    """Return the mean score of each case, by case_id."""
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for graded_answer in graded_answers:
        scores[graded_answer.case_id].append(graded_answer.score)
    return {case_id: sum(values) / len(values) for case_id, values in sorted(scores.items())}


def _summary(variant: str, tag: str, group: Sequence[GradedAnswer]) -> Summary:
    scores = case_scores(group)
    accuracy = sum(scores.values()) / len(scores)
    low, high = interval(accuracy, len(scores))
    answered_count = sum(graded_answer.answered for graded_answer in group)
    answers = [graded_answer.answer for graded_answer in group]
    return Summary(
        variant=variant,
        tag=tag,
        cases=len(scores),
        answers=len(group),
        graded=answered_count,
        unanswered=len(group) - answered_count,
        correct=sum(graded_answer.passed for graded_answer in group),
        accuracy=accuracy,
        low=low,
        high=high,
        # A row that never got an answer cost nothing. That is not the same as an unknown price.
        cost_usd=_total(answer.cost_usd for answer in answers if answer.came_from_model or answer.cost_usd),
        judge_cost_usd=_total(graded_answer.judge_cost_usd for graded_answer in group),
        input_tokens=_tokens(
            answer.input_tokens for answer in answers if answer.came_from_model or answer.input_tokens
        ),
        output_tokens=_tokens(
            answer.output_tokens for answer in answers if answer.came_from_model or answer.output_tokens
        ),
        sealed_at=max((answer.sealed_at for answer in answers if answer.sealed_at is not None), default=None),
    )


def _tokens(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _total(costs: Iterable[Decimal | None]) -> Decimal | None:
    total = Decimal(0)
    for cost in costs:
        if cost is None:
            return None
        total += cost
    return total
