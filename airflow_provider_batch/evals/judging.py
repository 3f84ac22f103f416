"""The verdicts of judges, which are models that call an answer right or wrong.

A judge is wrong now and then, and not always in the same way. So several may judge the same answer, and the majority
decides. How far to trust them shows where people have judged the same answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from statistics import median
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.graders import Grade, SingleGrader
from airflow_provider_batch.evals.graders.verdicts import Opinion
from airflow_provider_batch.evals.statistics import interval


class Judgement(msgspec.Struct, frozen=True):
    """One row of `eval_judgements`: the verdict of one judge on one answer."""

    outcome: str
    verdict: str | None
    #: from 0 to 1, for a rubric
    score: float | None
    reason: str | None
    #: US dollars; None if unknown
    cost_usd: Decimal | None

    def opinion(self, grader: SingleGrader) -> Opinion | None:
        """Return what the verdict means for a grader, or None if there is no usable verdict."""
        return grader.read_verdict(self.verdict, self.score) if self.outcome == Outcome.SUCCEEDED else None


class Ruling(NamedTuple):
    """What the judges say of an answer together."""

    #: None if no judge gave a verdict
    grade: Grade | None
    #: why there is no grade
    problem: str = ""


def decide(judgements: Sequence[Judgement], grader: SingleGrader) -> Ruling:
    """Return what the majority of the verdicts says, with the reason of one that says so. A tie counts as wrong.

    Verdicts that are missing do not count. The score is the median of the scores if the judges give scores.
    """
    opinions = [
        (opinion, judgement.reason) for judgement in judgements if (opinion := judgement.opinion(grader)) is not None
    ]
    if not opinions:
        return Ruling(None, _problem(judgements[0]) if judgements else "there is no verdict on this answer")
    count, right_count = len(opinions), sum(opinion.passed for opinion, _ in opinions)
    is_right = 2 * right_count > count
    opinion, reason = next((opinion, reason) for opinion, reason in opinions if opinion.passed is is_right)
    subject = grader.kind if count == 1 else f"{right_count} of {count} verdicts call it right"
    words = [subject, *([opinion.detail] if opinion.detail else []), reason or "no reason given"]
    has_scores = any(opinion.score not in (0, 1) for opinion, _ in opinions)
    score = median(opinion.score for opinion, _ in opinions) if has_scores else float(is_right)
    return Ruling(Grade(score, is_right, ": ".join(words)))


def total_cost(judgements: Iterable[Judgement]) -> Decimal | None:
    """Return what the verdicts cost in US dollars, or None if a price is unknown."""
    total = Decimal(0)
    for judgement in judgements:
        # A verdict that never came cost nothing. That is not the same as an unknown price.
        if judgement.cost_usd is None and judgement.outcome == Outcome.SUCCEEDED:
            return None
        total += judgement.cost_usd or 0
    return total


#: the run, the model that answered, the case, and the number of the answer
_AnswerId = tuple[str, str, str, int]


class LabelledVerdict(NamedTuple):
    """The verdict of a judge on an answer that a person has judged, too."""

    answer: _AnswerId
    judge: str
    verdict: bool
    #: whether the person called the answer right
    label: bool


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far a judge agrees with people."""

    #: name of the model, or "majority" for the decision of all
    judge: str
    #: number of answers that the judge and a person have judged
    answers: int
    #: share of them on which both agree, and its 95 % interval
    share: float
    low: float
    high: float
    #: number of answers that only the judge called right, and that only the person did
    too_kind: int
    too_strict: int
    #: Cohen's kappa: 0 if they agree as often as by chance, 1 if always; None if both always gave the same verdict
    kappa: float | None


#: name of the decision of several judges in a list of agreements
MAJORITY = "majority"


def agreements(verdicts: Iterable[LabelledVerdict]) -> list[Agreement]:
    """Return the agreement of each judge with people, sorted by name, and last that of the majority of several.

    If a judge was asked several times for an answer, the majority of its verdicts counts, once.
    """
    by_judge: defaultdict[str, defaultdict[_AnswerId, list[LabelledVerdict]]] = defaultdict(lambda: defaultdict(list))
    by_answer: defaultdict[_AnswerId, list[LabelledVerdict]] = defaultdict(list)
    for verdict in verdicts:
        by_judge[verdict.judge][verdict.answer].append(verdict)
        by_answer[verdict.answer].append(verdict)
    results = [_agreement(judge, _decisions(answers)) for judge, answers in sorted(by_judge.items())]
    return [*results, _agreement(MAJORITY, _decisions(by_answer))] if len(by_judge) > 1 else results


def _decisions(answers: Mapping[_AnswerId, Sequence[LabelledVerdict]]) -> list[tuple[bool, bool]]:
    """Return for each answer the decision of the majority, and the label."""
    return [(2 * sum(verdict.verdict for verdict in group) > len(group), group[0].label) for group in answers.values()]


def _agreement(judge: str, pairs: Sequence[tuple[bool, bool]]) -> Agreement:
    counts, total = Counter(pairs), len(pairs)
    share = (counts[True, True] + counts[False, False]) / total
    low, high = interval(share, total)
    judged_right = (counts[True, True] + counts[True, False]) / total
    labelled_right = (counts[True, True] + counts[False, True]) / total
    chance = judged_right * labelled_right + (1 - judged_right) * (1 - labelled_right)
    return Agreement(
        judge=judge,
        answers=total,
        share=share,
        low=low,
        high=high,
        too_kind=counts[True, False],
        too_strict=counts[False, True],
        kappa=None if chance == 1 else (share - chance) / (1 - chance),
    )


def _problem(judgement: Judgement) -> str:
    if judgement.outcome != Outcome.SUCCEEDED:
        return f"the judge's answer: {judgement.outcome}"
    return f"the judge's verdict has no meaning for its grader: {judgement.verdict}"
