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

from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.compare import Scored
from airflow_provider_batch.evals.graders import verdict
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.jobs.outcome import Outcome

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

    case: Case
    #: without its text, which may be long
    answer: Answer
    #: 1 right, 0 wrong or unanswered
    score: int
    reason: str
    answered: bool
    #: US dollars for the verdict; None where the price is unknown
    judge_cost_usd: Decimal | None = Decimal(0)


class Grading(NamedTuple):
    """All grades of a run, and what was left out of them."""

    #: by variant, case and repeat
    graded: Sequence[Graded]
    #: case_ids of answers that no case is there for any more
    gone: Sequence[str]
    #: case_ids whose question is another than the one that was asked in this run
    changed: Sequence[str]


def grade_answers(
    cases: Sequence[Case],
    answers: Iterable[Answer],
    *,
    judgements: Mapping[AnswerKey, Judgement] | None,
    variants: Sequence[str] | None = None,
    asked: Mapping[str, str] | None = None,
) -> Grading:
    """A grade for every answer whose case is there.

    :param judgements: None where no table of judgements was named.
    :param variants: those that were to be asked; every case of one without any answer is unanswered.
    :param asked: where the run was graded before, what its questions were then (case_id -> sha256 of the input): an
        answer to what is no longer the question is left out.
    :raises InputError: if a case needs a judge and there are no judgements; if no answer is left to grade.
    """
    by_id = {case.case_id: case for case in cases}
    if judgements is None and any(case.grader.is_judge for case in cases):
        count = sum(case.grader.is_judge for case in cases)
        raise InputError(
            f"{count:,} cases have the grader 'judge', but no table with verdicts was named. Ask a judge in a second "
            "batch job, and give its results table as judgements=. Nothing was graded."
        )
    asked = asked or {}
    graded: list[Graded] = []
    gone: set[str] = set()
    changed: set[str] = set()
    seen: set[str] = set()
    for answer in answers:
        seen.add(answer.variant)
        case = by_id.get(answer.case_id)
        if case is None:
            gone.add(answer.case_id)
        elif asked.get(answer.case_id, case.input_sha256) != case.input_sha256:
            changed.add(answer.case_id)
        else:
            graded.append(_grade(case, answer, judgements or {}))
    for variant in variants or ():
        if variant not in seen:
            graded.extend(_never_asked(case, variant) for case in cases)
    if not graded:
        raise InputError(
            f"There is nothing to grade: {len(gone):,} answers of the run belong to no case of cases_sql, and the "
            f"question of {len(changed):,} has changed since. Nothing was written."
            if seen
            else "There is nothing to grade: the run has no answers. Look at what it landed, and at the names of the "
            "run and of the table. Nothing was written."
        )
    graded.sort(key=lambda one: (one.answer.variant, one.case.case_id, one.answer.repeat))
    return Grading(graded, sorted(gone), sorted(changed))


def scores(graded: Iterable[Graded]) -> dict[str, list[Scored]]:
    """The grades as they are compared, by variant."""
    found: defaultdict[str, list[Scored]] = defaultdict(list)
    for one in graded:
        case = one.case
        found[one.answer.variant].append(
            Scored(case.case_id, case.case_sha256, one.score, one.answered, ",".join(case.tags))
        )
    return dict(found)


def _grade(case: Case, given: Answer, judgements: Mapping[AnswerKey, Judgement]) -> Graded:
    answer = msgspec.structs.replace(given, output=None)
    if answer.outcome != Outcome.SUCCEEDED:
        return Graded(case, answer, 0, answer.outcome, answer.came)
    if case.grader.is_judge:
        return _judged(case, answer, judgements.get((answer.variant, answer.case_id, answer.repeat)))
    score, reason = case.grader.grade(case.expected, given.output or "")
    return Graded(case, answer, score, reason, answered=True)


def _judged(case: Case, answer: Answer, judgement: Judgement | None) -> Graded:
    if judgement is None:
        return Graded(case, answer, 0, "the judge was not asked", answered=False)
    cost = judgement.cost_usd
    if judgement.outcome != Outcome.SUCCEEDED:
        return Graded(case, answer, 0, f"the judge's answer: {judgement.outcome}", False, cost or Decimal(0))
    right = verdict(judgement.verdict)
    if right is None:
        return Graded(case, answer, 0, "the judge's verdict is neither correct nor incorrect", False, cost)
    return Graded(case, answer, int(right), f"judge: {judgement.reason or 'no reason given'}", True, cost)


def _never_asked(case: Case, variant: str) -> Graded:
    nothing = Answer(variant, case.case_id, 1, Outcome.MISSING.value, None, Decimal(0), 0, 0, None)
    return Graded(case, nothing, 0, "nothing of this model landed", answered=False)
