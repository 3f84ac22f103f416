"""The laws of grading and comparing, and what a comparison leaves out."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.compare import Baseline, Scored, Verdict, compare
from airflow_provider_batch.evals.graders import parse_grader
from airflow_provider_batch.evals.grading import Answer, grade_answers, scores
from airflow_provider_batch.evals.summary import summaries

TAGS = ("", "a", "b")
CASES = [
    Case(f"c{number}", f"Question {number}?", "1", parse_grader("numeric"), tuple({TAGS[number % 3]} - {""}))
    for number in range(12)
]

answers = st.builds(
    Answer,
    variant=st.sampled_from(["mini", "large"]),
    case_id=st.sampled_from([case.case_id for case in CASES]),
    repeat=st.integers(1, 3),
    outcome=st.sampled_from([outcome.value for outcome in Outcome]) | st.just("succeeded"),
    output=st.sampled_from(["1", "2", None]),
    cost_usd=st.sampled_from([None, Decimal("0.5"), Decimal(0)]),
    input_tokens=st.integers(0, 9),
    output_tokens=st.integers(0, 9),
    sealed_at=st.none(),
)
runs = st.lists(answers, min_size=1, unique_by=lambda one: (one.variant, one.case_id, one.repeat))


def scored(given: list[Answer]) -> dict[str, list[Scored]]:
    return scores(grade_answers(CASES, given, judgements=None).graded)


@given(runs, st.randoms())
def test_the_order_of_answers_and_cases_does_not_matter(given: list[Answer], rng: random.Random) -> None:
    one = grade_answers(CASES, given, judgements=None)
    other = grade_answers(rng.sample(CASES, len(CASES)), rng.sample(given, len(given)), judgements=None)
    assert one == other
    assert summaries(one.graded) == summaries(rng.sample(one.graded, len(one.graded)))


@given(runs)
def test_a_summary_adds_up_and_its_interval_holds_the_accuracy(given: list[Answer]) -> None:
    found = summaries(grade_answers(CASES, given, judgements=None).graded)
    for one in found:
        assert one.graded + one.unanswered == one.answers
        assert one.correct <= one.graded
        assert 0 <= one.low <= one.accuracy <= one.high <= 1
    overall = [one for one in found if one.tag == ""]
    assert sum(one.answers for one in overall) == len(given)
    assert sum(one.input_tokens for one in overall) == sum(answer.input_tokens for answer in given)


@given(runs)
def test_unanswered_rows_never_make_an_eval_look_better(given: list[Answer]) -> None:
    lost = [msgspec.structs.replace(answer, outcome="expired", output=None) for answer in given[: len(given) // 2]]
    before = {one.variant: one for one in summaries(grade_answers(CASES, given, judgements=None).graded) if not one.tag}
    after = summaries(grade_answers(CASES, lost + given[len(lost) :], judgements=None).graded)
    for one in after:
        if not one.tag:
            assert one.accuracy <= before[one.variant].accuracy
            assert one.unanswered >= before[one.variant].unanswered


@pytest.mark.parametrize(
    ("outcome", "price", "cost"),
    [
        ("succeeded", Decimal("0.5"), Decimal("1.5")),
        ("succeeded", None, None),
        ("refused", None, None),
        ("expired", None, Decimal(1)),
    ],
)
def test_a_cost_is_unknown_if_that_of_an_answer_is_and_not_for_one_that_never_came(
    outcome: str, price: Decimal | None, cost: Decimal | None
) -> None:
    first = Answer("mini", "c0", 1, "succeeded", "1", Decimal(1), 3, 4, None)
    other = Answer("mini", "c1", 1, outcome, None, price, 3, 4, None)
    graded = grade_answers(CASES, [first, other], judgements=None).graded
    assert [one.cost_usd for one in summaries(graded) if not one.tag] == [cost]


@given(runs, st.integers(1, 3))
def test_a_run_compared_with_itself_is_the_same(given: list[Answer], times: int) -> None:
    now = scored(given)
    for one in compare(now, {name: Baseline("itself", [each] * times) for name, each in now.items()}, alpha=0.99):
        assert one.verdict is Verdict.SAME
        assert (one.difference, one.p_value, one.changes) == (0, 1, ())


@settings(max_examples=50)
@given(runs, st.lists(runs, min_size=1, max_size=3), st.randoms())
def test_the_order_of_grades_and_of_the_runs_before_the_last_does_not_matter(
    given: list[Answer], before: list[list[Answer]], rng: random.Random
) -> None:
    now, then = scored(given), [scored(run) for run in before]

    def compared(turned: bool) -> list[object]:
        def order(each: list[Scored]) -> list[Scored]:
            return rng.sample(each, len(each)) if turned else each

        baselines = {
            name: Baseline("last", [order(run.get(name, [])) for run in (reversed(then) if turned else then)])
            for name in now
        }
        return list(compare({name: order(each) for name, each in now.items()}, baselines, alpha=0.02))

    assert compared(turned=True) == compared(turned=False)


def grade(case_id: str, score: float, *, answered: bool = True, sha256: str = "same") -> Scored:
    return Scored(case_id, sha256, score, answered)


def test_only_cases_that_are_alike_and_answered_in_both_are_compared() -> None:
    now = [grade("a", 0), grade("b", 0), grade("c", 0, answered=False), grade("d", 0), grade("e", 0, sha256="new")]
    then = [grade("a", 1), grade("b", 1, answered=False), grade("c", 1), grade("e", 1), grade("gone", 1)]
    (one,) = compare({"mini": now}, {"mini": Baseline("then", [then])}, alpha=0.02)
    assert (one.cases, one.left_out, one.regressions, one.difference) == (1, 4, ["a"], -1)


def test_a_case_that_one_of_the_runs_before_lacks_is_compared_with_the_others() -> None:
    now = [grade("a", 0), grade("b", 1)]
    runs = [[grade("b", 1)], [grade("a", 1), grade("b", 1)], [grade("a", 1, answered=False), grade("b", 1)]]
    (one,) = compare({"mini": now}, {"mini": Baseline("last", runs)}, alpha=0.02)
    assert (one.cases, one.baseline_runs) == (2, 3)
    assert [(change.runs_before, change.right_before) for change in one.changes] == [(1, 1)]


@pytest.mark.parametrize(("worse", "verdict"), [(6, Verdict.SAME), (7, Verdict.REGRESSED)])
def test_chance_alone_regresses_on_one_night_in_a_hundred_at_most(worse: int, verdict: Verdict) -> None:
    # 2^-6 is more than one in a hundred, 2^-7 is less
    now = [grade(f"c{number}", 0) for number in range(worse)] + [grade(f"d{number}", 1) for number in range(93)]
    then = [grade(one.case_id, 1) for one in now]
    (one,) = compare({"mini": now}, {"mini": Baseline("then", [then])}, alpha=0.02)
    assert one.verdict is verdict
    (turned,) = compare({"mini": then}, {"mini": Baseline("now", [now])}, alpha=0.02)
    assert turned.verdict is (Verdict.SAME if verdict is Verdict.SAME else Verdict.IMPROVED)


def test_what_got_better_is_not_named_among_what_got_worse() -> None:
    now = [grade("a", 0), grade("b", 1), grade("c", 1), grade("d", 0.4)]
    then = [grade("a", 1), grade("b", 0), grade("c", 1), grade("d", 1)]
    (one,) = compare({"mini": now}, {"mini": Baseline("then", [then])}, alpha=0.02)
    assert (one.better, one.worse, one.regressions) == (1, 2, ["a", "d"])
    assert {change.case_id: change.word for change in one.changes} == {"a": "worse", "b": "better", "d": "worse"}


def test_nothing_to_compare_is_the_same() -> None:
    (one,) = compare({"mini": [grade("a", 0)]}, {"mini": Baseline("then", [[grade("b", 1)]])}, alpha=0.02)
    assert (one.verdict, one.cases, one.left_out, one.difference, one.p_value) == (Verdict.SAME, 0, 1, 0, 1)
