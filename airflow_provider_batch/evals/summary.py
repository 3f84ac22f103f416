"""Sum up the grades of a run per model and tag."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from math import fsum
from typing import TypeVar

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
    pass_any: float
    pass_majority: float
    cost_usd: Decimal | None
    judge_cost_usd: Decimal | None
    #: None if unknown
    input_tokens: int | None
    output_tokens: int | None
    sealed_at: datetime | None


def summaries(graded_answers: Iterable[GradedAnswer]) -> list[Summary]:
    """Return one summary per variant and tag and one per variant over all its cases, sorted by variant and tag."""
    totals: defaultdict[tuple[str, str], _Totals] = defaultdict(_Totals)
    for graded_answer in graded_answers:
        for tag in {ALL_CASES, *graded_answer.tags}:
            totals[graded_answer.answer.variant, tag].add(graded_answer)
    return [group.summary(variant, tag) for (variant, tag), group in sorted(totals.items())]


class _Totals:
    """The totals of a group of answers, which are added one by one."""

    def __init__(self) -> None:
        #: for each case the sum of the scores, the number of answers, and the number of right ones
        self._scores: dict[str, tuple[float, int, int]] = {}
        self._answers = self._graded = self._correct = 0
        self._cost_usd: Decimal | None = Decimal(0)
        self._judge_cost_usd: Decimal | None = Decimal(0)
        self._input_tokens: int | None = 0
        self._output_tokens: int | None = 0
        self._sealed_at: datetime | None = None

    def add(self, graded_answer: GradedAnswer) -> None:
        """Add an answer."""
        answer = graded_answer.answer
        score, count, passed = self._scores.get(graded_answer.case_id, (0.0, 0, 0))
        self._scores[graded_answer.case_id] = (
            score + graded_answer.score,
            count + 1,
            passed + graded_answer.passed,
        )
        self._answers += 1
        self._graded += graded_answer.answered
        self._correct += graded_answer.passed
        self._judge_cost_usd = _sum(self._judge_cost_usd, graded_answer.judge_cost_usd)
        # A row that never got an answer cost nothing. That is not the same as an unknown price.
        if answer.came_from_model or answer.cost_usd:
            self._cost_usd = _sum(self._cost_usd, answer.cost_usd)
        if answer.came_from_model or answer.input_tokens:
            self._input_tokens = _sum(self._input_tokens, answer.input_tokens)
        if answer.came_from_model or answer.output_tokens:
            self._output_tokens = _sum(self._output_tokens, answer.output_tokens)
        if answer.sealed_at is not None:
            self._sealed_at = max(self._sealed_at or answer.sealed_at, answer.sealed_at)

    def summary(self, variant: str, tag: str) -> Summary:
        """Return the summary of the answers so far, of which there is at least one."""
        cases = self._scores.values()
        accuracy = min(fsum(score / count for score, count, _ in cases) / len(cases), 1.0)
        low, high = interval(accuracy, len(self._scores))
        return Summary(
            variant=variant,
            tag=tag,
            cases=len(self._scores),
            answers=self._answers,
            graded=self._graded,
            unanswered=self._answers - self._graded,
            correct=self._correct,
            accuracy=accuracy,
            low=low,
            high=high,
            pass_any=sum(passed > 0 for _, _, passed in cases) / len(cases),
            pass_majority=sum(2 * passed > count for _, count, passed in cases) / len(cases),
            cost_usd=self._cost_usd,
            judge_cost_usd=self._judge_cost_usd,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            sealed_at=self._sealed_at,
        )


_Number = TypeVar("_Number", int, Decimal)


def _sum(left: _Number | None, right: _Number | None) -> _Number | None:
    """Return the sum, or None if one of the two is unknown."""
    return None if left is None or right is None else left + right
