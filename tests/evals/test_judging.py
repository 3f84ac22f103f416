"""Several judges decide by majority, and are compared with what people say of the same answers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.graders import SingleGrader, check_grader
from airflow_provider_batch.evals.judging import (
    MAJORITY,
    Judgement,
    LabelledVerdict,
    agreements,
    decide,
    total_cost,
)


def judgement(
    verdict: str | None, reason: str = "because", outcome: str = "succeeded", score: float | None = None
) -> Judgement:
    return Judgement(outcome=outcome, verdict=verdict, score=score, reason=reason, cost_usd=Decimal("0.001"))


RIGHT, WRONG = judgement("correct", "says sorry"), judgement("incorrect", "is rude")
JUDGE = SingleGrader("judge")
MISSING = judgement(None, outcome="expired")


def test_the_verdict_of_one_judge_decides_with_its_reason() -> None:
    grade, _ = decide([RIGHT], JUDGE)
    assert grade is not None
    assert (grade.score, grade.passed, grade.reason) == (1, True, "judge: says sorry")


@pytest.mark.parametrize(
    ("judgements", "passed", "reason"),
    [
        ([RIGHT, WRONG, RIGHT], True, "2 of 3 verdicts call it right: says sorry"),
        ([WRONG, RIGHT, WRONG], False, "1 of 3 verdicts call it right: is rude"),
        ([RIGHT, WRONG], False, "1 of 2 verdicts call it right: is rude"),  # a tie
        ([MISSING, RIGHT, judgement("well...")], True, "judge: says sorry"),
    ],
)
def test_the_majority_of_the_verdicts_decides(judgements: list[Judgement], passed: bool, reason: str) -> None:
    grade, _ = decide(judgements, JUDGE)
    assert grade is not None
    assert (grade.passed, grade.score, grade.reason) == (passed, float(passed), reason)


@pytest.mark.parametrize(
    ("judgements", "problem"),
    [
        ([], "there is no verdict on this answer"),
        ([MISSING], "the judge's answer: expired"),
        ([judgement("well...")], "the judge's verdict has no meaning for its grader: well..."),
    ],
)
def test_without_a_verdict_there_is_no_grade(judgements: list[Judgement], problem: str) -> None:
    assert decide(judgements, JUDGE) == (None, problem)


def grader(text: str) -> SingleGrader:
    judged = check_grader(text, "Is it polite?").judged
    assert judged is not None
    return judged


@pytest.mark.parametrize(
    ("text", "verdict", "score", "result"),
    [
        ("llm-rubric", "correct", 0.4, (0.4, True, "llm-rubric: score 0.4: because")),
        ("llm-rubric", "incorrect", None, (0, False, "llm-rubric: because")),
        ("llm-rubric:0.7", "incorrect", 0.7, (0.7, True, "llm-rubric: score 0.7, at least 0.7 needed: because")),
        ("llm-rubric:0.7", "correct", 0.6, (0.6, False, "llm-rubric: score 0.6, at least 0.7 needed: because")),
        ("factuality", "subset", None, (1, True, "factuality: a subset of the expected answer: because")),
        ("factuality", "D", None, (0, False, "factuality: disagrees with the expected answer: because")),
        ("factuality:same, superset", "same", 0, (1, True, "factuality: the same as the expected answer: because")),
        ("factuality:same,superset", "subset", 1, (0, False, "factuality: a subset of the expected answer: because")),
    ],
)
def test_each_grader_reads_a_verdict_in_its_own_way(
    text: str, verdict: str, score: float | None, result: tuple[float, bool, str]
) -> None:
    assert decide([judgement(verdict, score=score)], grader(text)).grade == result


@pytest.mark.parametrize(
    ("text", "verdict", "score"),
    [("llm-rubric:0.7", "correct", None), ("llm-rubric:0.7", "correct", 5), ("factuality", "correct", 1)],
)
def test_a_verdict_for_another_grader_has_no_meaning(text: str, verdict: str, score: float | None) -> None:
    assert decide([judgement(verdict, score=score)], grader(text)).grade is None


def test_several_scores_give_their_median_and_the_majority_decides() -> None:
    judgements = [judgement("correct", reason, score=score) for reason, score in (("a", 0.2), ("b", 0.8), ("c", 0.9))]
    grade, _ = decide(judgements, grader("llm-rubric:0.7"))
    assert grade == (0.8, True, "2 of 3 verdicts call it right: score 0.8, at least 0.7 needed: b")


@given(st.lists(st.sampled_from([RIGHT, WRONG, MISSING]), min_size=1))
def test_the_order_of_the_judges_does_not_matter(judgements: list[Judgement]) -> None:
    first, second = decide(judgements, JUDGE).grade, decide(judgements[::-1], JUDGE).grade
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert (first.passed, first.score) == (second.passed, second.score)


def test_the_cost_of_the_verdicts_is_unknown_if_one_price_is() -> None:
    unpriced = Judgement("succeeded", "correct", None, None, None)
    never_came = Judgement("expired", None, None, None, None)
    assert total_cost([RIGHT, WRONG, never_came]) == Decimal("0.002")
    assert total_cost([RIGHT, unpriced]) is None
    assert total_cost([]) == 0


def labelled(judge: str, number: int, verdict: bool, label: bool) -> LabelledVerdict:
    return LabelledVerdict(("monday", "mini", f"c{number}", 1), judge, verdict, label)


def test_the_agreement_of_a_judge_with_people_counts_both_kinds_of_mistakes() -> None:
    # The table of Cohen's example for kappa: 20 and 15 agreed, 5 and 10 not.
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    (agreement,) = agreements(labelled("a", number, *pair) for number, pair in enumerate(pairs))
    assert (agreement.judge, agreement.answers, agreement.share) == ("a", 50, 0.7)
    assert (agreement.too_kind, agreement.too_strict) == (5, 10)
    assert agreement.kappa == pytest.approx(0.4)
    assert 0.55 < agreement.low < 0.7 < agreement.high < 0.82


def test_the_majority_of_several_judges_is_compared_with_people_as_well() -> None:
    verdicts = [
        labelled(judge, number, verdict=judge != wrong_judge, label=True)
        for number, wrong_judge in enumerate(("a", "b", "c"))
        for judge in ("a", "b", "c")
    ]
    assert [(row.judge, round(row.share, 2)) for row in agreements(verdicts)] == [
        ("a", 0.67),
        ("b", 0.67),
        ("c", 0.67),
        (MAJORITY, 1),
    ]


def test_kappa_is_unknown_if_judge_and_people_always_give_the_same_verdict() -> None:
    (agreement,) = agreements(labelled("a", number, verdict=True, label=True) for number in range(3))
    assert (agreement.share, agreement.kappa) == (1, None)
    assert agreements([]) == []


def test_a_judge_that_judged_an_answer_several_times_counts_once_by_its_majority() -> None:
    verdicts = [labelled("a", 1, verdict=verdict, label=True) for verdict in (True, False, True)]
    (agreement,) = agreements(verdicts)
    assert (agreement.judge, agreement.answers, agreement.share) == ("a", 1, 1)
