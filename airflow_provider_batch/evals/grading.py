"""The answers of a run -> a grade for each.

An answer that the model gave and that is of no use (refused, cut off, not valid against the schema) is wrong. One that
never came (failed, expired, cancelled, missing, held back; with a judge also a verdict that never came) is
`unanswered`. It scores 0 too, or an eval would look better for each hard case that times out; but it is counted apart,
and it is never compared with another run, or a provider's bad night would pass for a worse model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.compare import Scored
from airflow_provider_batch.evals.graders import verdict
from airflow_provider_batch.exceptions import InputError

#: what the model itself did: an answer, if a useless one
_MODELS_OWN = frozenset({Outcome.REFUSED, Outcome.INCOMPLETE, Outcome.INVALID_OUTPUT})


class Answer(msgspec.Struct, frozen=True):
    """One row of `eval_answers`."""

    variant: str
    case_id: str
    #: 1, 2, ...
    repeat: int
    outcome: str
    output: str | None
    #: None where the price is unknown
    cost_usd: Decimal | None
    input_tokens: int
    output_tokens: int
    #: when the job was sealed that asked
    sealed_at: datetime | None

    @property
    def came(self) -> bool:
        """Whether the model answered at all, of use or not."""
        return self.outcome == Outcome.SUCCEEDED or self.outcome in _MODELS_OWN


class Judgement(msgspec.Struct, frozen=True):
    """One row of `eval_judgements`."""

    outcome: str
    verdict: str | None
    reason: str | None
    cost_usd: Decimal | None


#: what a judgement is found by: variant, case_id, repeat
AnswerKey = tuple[str, str, int]


class Graded(msgspec.Struct, frozen=True):
    """One answer and what it is worth."""

    case_id: str
    #: as the case named it
    grader: str
    tags: tuple[str, ...]
    input_sha256: str
    case_sha256: str
    #: without its text, which may be long
    answer: Answer
    #: 1 right, 0 wrong or unanswered
    score: int
    reason: str
    answered: bool
    #: US dollars for the verdict; None where the price is unknown
    judge_cost_usd: Decimal | None = Decimal(0)


class Earlier(msgspec.Struct, frozen=True):
    """A grade from when the run was graded before."""

    grader: str
    tags: tuple[str, ...]
    input_sha256: str
    case_sha256: str
    score: int
    reason: str
    answered: bool
    graded_at: datetime

    def holds(self, case: Case | None, answer: Answer) -> bool:
        """Whether it stays: the answer is still the one that was graded, and its question is no longer asked.

        A run that is cleared and asks anew seals its job anew, with the cases as they are then.
        """
        same_answer = answer.sealed_at is None or answer.sealed_at <= self.graded_at
        return same_answer and (case is None or case.input_sha256 != self.input_sha256)


class Grading(NamedTuple):
    """All grades of a run, and what could not be graded."""

    #: by variant, case and repeat
    graded: Sequence[Graded]
    #: case_ids of answers that no case is there for, and that were not graded before either: they are left out
    gone: Sequence[str]
    #: case_ids whose question has changed since it was asked, or which are gone: they keep the grade they had
    kept: Sequence[str]


def grade_answers(
    cases: Sequence[Case],
    answers: Iterable[Answer],
    *,
    judgements: Mapping[AnswerKey, Judgement] | None,
    variants: Sequence[str] | None = None,
    earlier: Mapping[AnswerKey, Earlier] | None = None,
) -> Grading:
    """A grade for every answer whose case is there.

    :param judgements: None where no table of judgements was named.
    :param variants: those that were to be asked; every case of one without any answer is unanswered.
    :param earlier: the grades of the run from before. An answer to what is no longer the question keeps its grade.
    :raises InputError: if a case needs a judge and there are no judgements; if no answer is left to grade.
    """
    by_id = {case.case_id: case for case in cases}
    if judgements is None and any(case.grader.is_judge for case in cases):
        count = sum(case.grader.is_judge for case in cases)
        raise InputError(
            f"{count:,} cases have the grader 'judge', but no table with verdicts was named. Ask a judge in a second "
            "batch job, and give its results table as judgements=. Nothing was graded."
        )
    graded: list[Graded] = []
    gone: set[str] = set()
    kept: set[str] = set()
    seen: set[str] = set()
    for answer in answers:
        seen.add(answer.variant)
        key = (answer.variant, answer.case_id, answer.repeat)
        case, before = by_id.get(answer.case_id), (earlier or {}).get(key)
        judgement = (judgements or {}).get(key)
        if before is not None and before.holds(case, answer):
            kept.add(answer.case_id)
            graded.append(_as_before(answer, before, judgement))
        elif case is None:
            gone.add(answer.case_id)
        else:
            graded.append(_graded(case, answer, *_grade(case, answer, judgement)))
    for variant in variants or ():
        if variant not in seen:
            nothing = (0, "nothing of this model landed", False)
            graded.extend(_graded(case, _no_answer(case, variant), *nothing) for case in cases)
    if not graded:
        raise InputError(
            f"There is nothing to grade: {len(gone):,} answers of the run belong to no case of cases_sql. Nothing was "
            "written."
            if seen
            else "There is nothing to grade: the run has no answers. Look at what it landed, and at the names of the "
            "run and of the table. Nothing was written."
        )
    graded.sort(key=lambda one: (one.answer.variant, one.case_id, one.answer.repeat))
    return Grading(graded, sorted(gone), sorted(kept))


def scores(graded: Iterable[Graded]) -> dict[str, list[Scored]]:
    """The grades as they are compared, by variant."""
    found: defaultdict[str, list[Scored]] = defaultdict(list)
    for one in graded:
        found[one.answer.variant].append(
            Scored(one.case_id, one.case_sha256, one.score, one.answered, ",".join(one.tags))
        )
    return dict(found)


#: score, reason, answered and what the verdict cost
_Grade = tuple[int, str, bool, Decimal | None]


def _grade(case: Case, answer: Answer, judgement: Judgement | None) -> _Grade:
    nothing = Decimal(0)
    if answer.outcome != Outcome.SUCCEEDED:
        return 0, answer.outcome, answer.came, nothing
    if not case.grader.is_judge:
        return *case.grader.grade(case.expected, answer.output or ""), True, nothing
    if judgement is None:
        return 0, "the judge was not asked", False, nothing
    cost = _verdict_cost(judgement)
    if judgement.outcome != Outcome.SUCCEEDED:
        return 0, f"the judge's answer: {judgement.outcome}", False, cost
    right = verdict(judgement.verdict)
    if right is None:
        return 0, "the judge's verdict is neither correct nor incorrect", False, cost
    return int(right), f"judge: {judgement.reason or 'no reason given'}", True, cost


def _graded(
    case: Case, answer: Answer, score: int, reason: str, answered: bool, judge_cost_usd: Decimal | None = Decimal(0)
) -> Graded:
    return Graded(
        case_id=case.case_id,
        grader=case.grader.text,
        tags=case.tags,
        input_sha256=case.input_sha256,
        case_sha256=case.case_sha256,
        answer=msgspec.structs.replace(answer, output=None),
        score=score,
        reason=reason,
        answered=answered,
        judge_cost_usd=judge_cost_usd,
    )


def _as_before(answer: Answer, before: Earlier, judgement: Judgement | None) -> Graded:
    return Graded(
        case_id=answer.case_id,
        grader=before.grader,
        tags=before.tags,
        input_sha256=before.input_sha256,
        case_sha256=before.case_sha256,
        answer=msgspec.structs.replace(answer, output=None),
        score=before.score,
        reason=before.reason,
        answered=before.answered,
        judge_cost_usd=Decimal(0) if judgement is None else _verdict_cost(judgement),
    )


def _verdict_cost(judgement: Judgement) -> Decimal | None:
    # A verdict that never came cost nothing, which is not an unknown price.
    return judgement.cost_usd if judgement.outcome == Outcome.SUCCEEDED else judgement.cost_usd or Decimal(0)


def _no_answer(case: Case, variant: str) -> Answer:
    return Answer(variant, case.case_id, 1, Outcome.MISSING.value, None, Decimal(0), 0, 0, None)
