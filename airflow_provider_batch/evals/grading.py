"""Grade the answers of a run.

An unusable answer (refused, cut off, not valid against the schema) is wrong for every grader that reads its text. A
request without any answer (failed, expired, cancelled, missing, withheld, pending) is *unanswered*, and so is an answer
on which no judge gave a verdict. Unanswered requests score 0 as well, because otherwise an eval would look better with
every hard case that times out. But they are counted separately and never compared with another run, because otherwise a
bad night of the provider would look like a worse model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from math import fsum
from typing import NamedTuple, Protocol

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.compare import AnswerScore
from airflow_provider_batch.evals.graders import JUDGED, Grade, wrong
from airflow_provider_batch.evals.graders.embeddings import Vectors, text_id
from airflow_provider_batch.evals.judging import Judgement, decide, total_cost
from airflow_provider_batch.exceptions import InputError

#: outcomes where the model itself gave an unusable answer
_UNUSABLE_OUTCOMES = frozenset({Outcome.REFUSED, Outcome.INCOMPLETE, Outcome.INVALID_OUTPUT})


class Answer(msgspec.Struct, frozen=True):
    """One row of `eval_answers`."""

    variant: str
    case_id: str
    #: counted from 1
    repeat: int
    outcome: str
    output: str | None
    #: US dollars; None if the price or the usage is unknown
    cost_usd: Decimal | None
    #: None if unknown
    input_tokens: int | None
    output_tokens: int | None
    #: when the job with this request was sealed
    sealed_at: datetime | None

    @property
    def came_from_model(self) -> bool:
        """Whether the model answered at all, with a usable answer or an unusable one."""
        return self.outcome == Outcome.SUCCEEDED or self.outcome in _UNUSABLE_OUTCOMES


#: variant, case_id and repeat: the key of an answer, its judgements and its grade
AnswerKey = tuple[str, str, int]


class GradedAnswer(msgspec.Struct, frozen=True):
    """One answer with its grade."""

    case_id: str
    #: the grader as the case states it
    grader: str
    tags: tuple[str, ...]
    input_sha256: str
    case_sha256: str
    #: without `output`, which may be long
    answer: Answer
    #: from 0 to 1; 0 if unanswered
    score: float
    #: whether the answer is right
    passed: bool
    reason: str
    answered: bool
    #: cost of the verdicts in US dollars; None if a price is unknown
    judge_cost_usd: Decimal | None = Decimal(0)


class EarlierGrade(msgspec.Struct, frozen=True):
    """A grade that an answer got when the run was graded before."""

    grader: str
    tags: tuple[str, ...]
    input_sha256: str
    case_sha256: str
    score: float
    passed: bool
    reason: str
    answered: bool
    graded_at: datetime

    def stays(self, case: Case | None, answer: Answer) -> bool:
        """Return whether the answer keeps this grade.

        It does if its question has changed or was removed since, so that the answer can no longer be graded. The grade
        of a different answer is not kept: after a clear, the run is sealed and sent again with the current cases.
        """
        same_answer = answer.sealed_at is None or answer.sealed_at <= self.graded_at
        return same_answer and (case is None or case.input_sha256 != self.input_sha256)


class GradedAnswers(Protocol):
    """Where graded answers are kept: a list, or a `Spool` if there may be many."""

    def append(self, item: GradedAnswer, /) -> None:
        """Add a graded answer."""

    def __iter__(self) -> Iterator[GradedAnswer]: ...

    def __len__(self) -> int: ...


class Grading(NamedTuple):
    """All grades of a run, and the cases that could not be graded as they are now."""

    #: in the order of the answers
    answers: GradedAnswers
    #: case_ids of answers without a case that were never graded before; these answers are left out
    left_out_cases: Sequence[str]
    #: case_ids whose question has changed or was removed since it was sent; their answers keep the earlier grade
    kept_cases: Sequence[str]


def grade_answers(
    cases: Sequence[Case],
    answers: Iterable[Answer],
    *,
    judgements: Mapping[AnswerKey, Sequence[Judgement]] | None,
    vectors: Vectors | None = None,
    variants: Sequence[str] | None = None,
    earlier_grades: Mapping[AnswerKey, EarlierGrade] | None = None,
    into: GradedAnswers | None = None,
) -> Grading:
    """Grade every answer that has a case, one by one.

    :param judgements: the verdicts on each answer; None if there is no table of judgements.
    :param vectors: the embeddings of texts; None if there is no table of embeddings.
    :param variants: the expected models. If one of them has no answers at all, every case counts as unanswered.
    :param earlier_grades: the grades that the run already has. An answer whose question has changed keeps its grade.
    :param into: where the graded answers are kept. Default: a new list.
    :raises InputError: if a case needs a judge and there are no judgements, or if no answer can be graded.
    """
    by_id = {case.case_id: case for case in cases}
    judged_cases = sum(case.grader.judged is not None for case in cases)
    if judgements is None and judged_cases:
        raise InputError(
            f"{judged_cases:,} {'case has' if judged_cases == 1 else 'cases have'} a grader by a judge "
            f"({', '.join(JUDGED)}), but no table with verdicts was given. Let a judge model grade the answers in a "
            "second batch job, and pass its results table as judgements=. Nothing was graded."
        )
    embedded_cases = sum(case.grader.needs_embeddings for case in cases)
    if vectors is None and embedded_cases:
        raise InputError(
            f"{embedded_cases:,} {'case has' if embedded_cases == 1 else 'cases have'} the grader 'similar', but no "
            "table with embeddings was given. Embed the texts of `texts_to_embed` in a batch job, and pass its results "
            "table as embeddings=. Nothing was graded."
        )
    graded_answers: GradedAnswers = [] if into is None else into
    left_out_cases: set[str] = set()
    kept_cases: set[str] = set()
    answered_variants: set[str] = set()
    for answer in answers:
        answered_variants.add(answer.variant)
        key = (answer.variant, answer.case_id, answer.repeat)
        case, earlier_grade = by_id.get(answer.case_id), (earlier_grades or {}).get(key)
        verdicts = (judgements or {}).get(key, ())
        if earlier_grade is not None and earlier_grade.stays(case, answer):
            kept_cases.add(answer.case_id)
            graded_answers.append(_keep_grade(answer, earlier_grade, verdicts))
        elif case is None:
            left_out_cases.add(answer.case_id)
        else:
            graded_answers.append(_graded_answer(case, answer, *_grade(case, answer, verdicts, vectors)))
    for variant in variants or ():
        if variant not in answered_variants:
            grade = (wrong("no answer of this model landed"), False)
            for case in cases:
                graded_answers.append(_graded_answer(case, _missing_answer(case, variant), *grade))
    if not len(graded_answers):
        raise InputError(
            f"There is nothing to grade: the run has answers to {format_count(len(left_out_cases), 'case')}, but "
            "cases_sql returns none of these cases. Nothing was written."
            if answered_variants
            else "There is nothing to grade: the run has no answers. Check that its answers landed, and that the names "
            "of the run and of the answers table are right. Nothing was written."
        )
    return Grading(graded_answers, sorted(left_out_cases), sorted(kept_cases))


def scores(graded_answers: Iterable[GradedAnswer]) -> dict[str, list[AnswerScore]]:
    """Return the scores to compare, by variant: one for each case, the mean over its answers.

    A case with answered and unanswered repeats has one of each.
    """
    by_case: defaultdict[tuple[str, str, str, bool, tuple[str, ...]], list[tuple[float, bool]]] = defaultdict(list)
    for graded in graded_answers:
        key = (graded.answer.variant, graded.case_id, graded.case_sha256, graded.answered, graded.tags)
        by_case[key].append((graded.score, graded.passed))
    by_variant: defaultdict[str, list[AnswerScore]] = defaultdict(list)
    for (variant, case_id, sha256, answered, tags), values in sorted(by_case.items()):
        score = fsum(score for score, _ in values) / len(values)
        passed = sum(passed for _, passed in values) / len(values)
        by_variant[variant].append(AnswerScore(case_id, sha256, score, passed, answered, ",".join(tags)))
    return dict(by_variant)


#: grade, whether the answer was answered, cost of the verdicts
_Result = tuple[Grade, bool, Decimal | None]


def _grade(case: Case, answer: Answer, judgements: Sequence[Judgement], vectors: Vectors | None) -> _Result:
    no_cost = Decimal(0)
    if not answer.came_from_model:
        return wrong(answer.outcome), False, no_cost
    if answer.outcome != Outcome.SUCCEEDED:
        return case.grader.grade(case, answer), True, no_cost
    if any(text_id(text) not in (vectors or {}) for text in case.grader.texts_to_embed(case, answer)):
        return wrong("there is no embedding of the answer or of an expected text"), False, total_cost(judgements)
    if case.grader.judged is None:
        return case.grader.grade(case, answer, vectors=vectors), True, no_cost
    verdict, problem = decide(judgements, case.grader.judged)
    if verdict is None:
        return wrong(problem), False, total_cost(judgements)
    return case.grader.grade(case, answer, verdict, vectors), True, total_cost(judgements)


def _graded_answer(
    case: Case, answer: Answer, grade: Grade, answered: bool, judge_cost_usd: Decimal | None = Decimal(0)
) -> GradedAnswer:
    return GradedAnswer(
        case_id=case.case_id,
        grader=case.grader.text,
        tags=case.tags,
        input_sha256=case.input_sha256,
        case_sha256=case.case_sha256,
        answer=msgspec.structs.replace(answer, output=None),
        score=grade.score,
        passed=grade.passed,
        reason=grade.reason,
        answered=answered,
        judge_cost_usd=judge_cost_usd,
    )


def _keep_grade(answer: Answer, earlier_grade: EarlierGrade, judgements: Sequence[Judgement]) -> GradedAnswer:
    return GradedAnswer(
        case_id=answer.case_id,
        grader=earlier_grade.grader,
        tags=earlier_grade.tags,
        input_sha256=earlier_grade.input_sha256,
        case_sha256=earlier_grade.case_sha256,
        answer=msgspec.structs.replace(answer, output=None),
        score=earlier_grade.score,
        passed=earlier_grade.passed,
        reason=earlier_grade.reason,
        answered=earlier_grade.answered,
        judge_cost_usd=total_cost(judgements),
    )


def _missing_answer(case: Case, variant: str) -> Answer:
    return Answer(variant, case.case_id, 1, Outcome.MISSING.value, None, Decimal(0), 0, 0, None)
