"""Properties of grading and comparing, and what a comparison leaves out."""

from __future__ import annotations

import random
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.cases import Case
from airflow_provider_batch.evals.compare import AnswerScore, Baseline, Comparison, Verdict, compare
from airflow_provider_batch.evals.graders import parse_grader
from airflow_provider_batch.evals.grading import Answer, grade_answers, scores
from airflow_provider_batch.evals.summary import Summary, summaries

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
runs = st.lists(answers, min_size=1, unique_by=lambda answer: (answer.variant, answer.case_id, answer.repeat))


def grade_and_score(answers: list[Answer]) -> dict[str, list[AnswerScore]]:
    return scores(grade_answers(CASES, answers, judgements=None).answers)


@given(runs, st.randoms())
def test_the_order_of_answers_and_cases_does_not_matter(run: list[Answer], rng: random.Random) -> None:
    grading = grade_answers(CASES, run, judgements=None)
    shuffled = grade_answers(rng.sample(CASES, len(CASES)), rng.sample(run, len(run)), judgements=None)
    assert summaries(grading.answers) == summaries(shuffled.answers)
    assert scores(grading.answers) == scores(shuffled.answers)
    assert sorted(map(repr, grading.answers)) == sorted(map(repr, shuffled.answers))


@given(runs)
def test_a_summary_adds_up_and_its_interval_contains_the_accuracy(run: list[Answer]) -> None:
    run_summaries = summaries(grade_answers(CASES, run, judgements=None).answers)
    for summary in run_summaries:
        assert summary.graded + summary.unanswered == summary.answers
        assert summary.correct <= summary.graded
        assert 0 <= summary.low <= summary.accuracy <= summary.high <= 1
    totals = [summary for summary in run_summaries if summary.tag == ""]
    assert sum(summary.answers for summary in totals) == len(run)
    assert sum(summary.input_tokens or 0 for summary in totals) == sum(answer.input_tokens or 0 for answer in run)


@given(runs)
def test_unanswered_rows_never_make_an_eval_look_better(run: list[Answer]) -> None:
    def totals(answers: list[Answer]) -> dict[str, Summary]:
        run_summaries = summaries(grade_answers(CASES, answers, judgements=None).answers)
        return {summary.variant: summary for summary in run_summaries if not summary.tag}

    expired = [msgspec.structs.replace(answer, outcome="expired", output=None) for answer in run[: len(run) // 2]]
    totals_before = totals(run)
    for variant, summary in totals(expired + run[len(expired) :]).items():
        assert summary.accuracy <= totals_before[variant].accuracy
        assert summary.unanswered >= totals_before[variant].unanswered


@pytest.mark.parametrize(
    ("outcome", "price", "cost"),
    [
        ("succeeded", Decimal("0.5"), Decimal("1.5")),
        ("succeeded", None, None),
        ("refused", None, None),
        ("expired", None, Decimal(1)),
    ],
)
def test_the_total_is_unknown_if_the_price_of_an_answer_is_but_a_missing_answer_costs_nothing(
    outcome: str, price: Decimal | None, cost: Decimal | None
) -> None:
    first = Answer("mini", "c0", 1, "succeeded", "1", Decimal(1), 3, 4, None)
    second = Answer("mini", "c1", 1, outcome, None, price, 3, 4, None)
    graded_answers = grade_answers(CASES, [first, second], judgements=None).answers
    assert [summary.cost_usd for summary in summaries(graded_answers) if not summary.tag] == [cost]


@given(runs, st.integers(1, 3))
def test_a_run_compared_with_itself_is_the_same(run: list[Answer], times: int) -> None:
    run_scores = grade_and_score(run)
    baselines = {variant: Baseline("itself", [scores] * times) for variant, scores in run_scores.items()}
    for comparison in compare(run_scores, baselines, alpha=0.99):
        assert comparison.verdict is Verdict.SAME
        assert (comparison.difference, comparison.p_worse, comparison.p_better, comparison.changes) == (0, 1, 1, ())


@settings(max_examples=20)
@given(runs, st.lists(runs, min_size=1, max_size=3), st.randoms())
def test_the_order_of_grades_and_of_earlier_baseline_runs_does_not_matter(
    run: list[Answer], earlier_runs: list[list[Answer]], rng: random.Random
) -> None:
    run_scores, baseline_scores = grade_and_score(run), [grade_and_score(earlier) for earlier in earlier_runs]

    def compare_in_order(*, shuffle: bool) -> list[Comparison]:
        def order(scores: list[AnswerScore]) -> list[AnswerScore]:
            return rng.sample(scores, len(scores)) if shuffle else scores

        ordered_runs = list(reversed(baseline_scores)) if shuffle else baseline_scores
        baselines = {
            variant: Baseline("last", [order(scores.get(variant, [])) for scores in ordered_runs])
            for variant in run_scores
        }
        return compare({variant: order(scores) for variant, scores in run_scores.items()}, baselines, alpha=0.02)

    assert compare_in_order(shuffle=True) == compare_in_order(shuffle=False)


def score(
    case_id: str, value: float, *, passed: float | None = None, answered: bool = True, sha256: str = "same"
) -> AnswerScore:
    return AnswerScore(case_id, sha256, value, value if passed is None else passed, answered)


def test_only_unchanged_cases_that_were_answered_in_both_runs_are_compared() -> None:
    now = [score("a", 0), score("b", 0), score("c", 0, answered=False), score("d", 0), score("e", 0, sha256="new")]
    earlier = [score("a", 1), score("b", 1, answered=False), score("c", 1), score("e", 1), score("removed", 1)]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.02)
    assert (comparison.cases, comparison.left_out, comparison.regressions, comparison.difference) == (1, 4, ["a"], -1)


def test_a_case_missing_from_one_baseline_run_is_compared_with_the_other_runs() -> None:
    now = [score("a", 0), score("b", 1)]
    runs = [[score("b", 1)], [score("a", 1), score("b", 1)], [score("a", 1, answered=False), score("b", 1)]]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("last", runs)}, alpha=0.02)
    assert (comparison.cases, comparison.baseline_runs) == (2, 3)
    assert [(change.runs_before, change.right_before) for change in comparison.changes] == [(1, 1)]


@pytest.mark.parametrize(("worse", "verdict"), [(5, Verdict.SAME), (6, Verdict.REGRESSED)])
def test_chance_alone_causes_a_regression_in_at_most_the_share_alpha_of_runs(worse: int, verdict: Verdict) -> None:
    # 2^-5 is more than one in fifty, 2^-6 is less
    now = [score(f"c{number}", 0) for number in range(worse)] + [score(f"d{number}", 1) for number in range(93)]
    earlier = [score(answer.case_id, 1) for answer in now]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.02)
    assert comparison.verdict is verdict
    (reverse,) = compare({"mini": earlier}, {"mini": Baseline("now", [now])}, alpha=0.02)
    assert reverse.verdict is (Verdict.SAME if verdict is Verdict.SAME else Verdict.IMPROVED)


def test_regressions_do_not_include_cases_that_got_better() -> None:
    now = [score("a", 0), score("b", 1), score("c", 1), score("d", 0.4)]
    earlier = [score("a", 1), score("b", 0), score("c", 1), score("d", 1)]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.02)
    assert (comparison.better, comparison.worse, comparison.regressions) == (1, 2, ["a", "d"])
    directions = {change.case_id: change.direction for change in comparison.changes}
    assert directions == {"a": "worse", "b": "better", "d": "worse"}


def test_a_case_is_right_if_its_answer_passed_whatever_its_score_is() -> None:
    earlier = [score("strict", 0.8, passed=1), score("lenient", 0.3, passed=0), score("steady", 0.6, passed=0)]
    now = [score("strict", 0.7, passed=0), score("lenient", 0.4, passed=1), score("steady", 0.4, passed=0)]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.02)
    assert (comparison.regressions, comparison.improvements) == (["strict"], ["lenient"])
    assert [(change.score_before, change.right_before) for change in comparison.changes] == [(0.3, 0), (0.8, 1)]
    assert comparison.difference == pytest.approx((-0.1 + 0.1 - 0.2) / 3)


def test_a_case_with_several_answers_is_right_if_more_than_half_of_them_are() -> None:
    earlier = [score("a", 1)] * 3 + [score("b", 1)] * 2
    now = [score("a", 0.6, passed=0)] * 2 + [score("a", 1)] + [score("b", 0.6, passed=0), score("b", 1)]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.02)
    assert comparison.regressions == ["a"]


def test_a_run_without_comparable_cases_is_the_same() -> None:
    baselines = {"mini": Baseline("earlier", [[score("b", 1)]])}
    (comparison,) = compare({"mini": [score("a", 0)]}, baselines, alpha=0.02)
    assert (comparison.verdict, comparison.cases, comparison.left_out) == (Verdict.SAME, 0, 1)
    assert (comparison.difference, comparison.p_worse, comparison.p_better) == (0, 1, 1)


TAGGED_NOW = [AnswerScore(f"a{number}", "", 0, 0, True, "a,all") for number in range(10)] + [
    AnswerScore(f"b{number}", "", 1, 1, True, "b,all") for number in range(60)
]
TAGGED_EARLIER = [AnswerScore(answer.case_id, "", 1, 1, True) for answer in TAGGED_NOW]


class TestTags:
    """Each tag gets its own comparison."""

    def test_a_regressed_tag_has_a_row_and_makes_the_model_regressed(self) -> None:
        total, a, all_, b = compare({"mini": TAGGED_NOW}, {"mini": Baseline("earlier", [TAGGED_EARLIER])}, alpha=0.04)
        assert [row.tag for row in (total, a, all_, b)] == ["", "a", "all", "b"]
        assert (a.cases, a.worse, a.difference, a.verdict) == (10, 10, -1, Verdict.REGRESSED)
        assert (b.cases, b.worse, b.difference, b.verdict) == (60, 0, 0, Verdict.SAME)
        assert (total.cases, total.worse, total.verdict) == (70, 10, Verdict.REGRESSED)

    def test_a_model_of_which_one_tag_regressed_and_another_improved_is_mixed(self) -> None:
        now = [*TAGGED_NOW, *(AnswerScore(f"c{number}", "", 1, 1, True, "c") for number in range(10))]
        earlier = [*TAGGED_EARLIER, *(AnswerScore(f"c{number}", "", 0, 0, True) for number in range(10))]
        rows = {row.tag: row for row in compare({"mini": now}, {"mini": Baseline("earlier", [earlier])}, alpha=0.04)}
        assert {tag: row.verdict for tag, row in rows.items() if tag in ("", "a", "c")} == {
            "": Verdict.MIXED,
            "a": Verdict.REGRESSED,
            "c": Verdict.IMPROVED,
        }
        assert rows[""].difference == 0

    def test_a_model_without_history_has_one_row(self) -> None:
        (comparison,) = compare({"mini": TAGGED_NOW}, {}, alpha=0.04)
        assert (comparison.tag, comparison.verdict, comparison.left_out) == ("", Verdict.NO_HISTORY, 70)


def test_edited_cases_that_were_wrong_before_or_are_wrong_now_are_listed() -> None:
    now = [score("was-wrong", 1, sha256="new"), score("is-wrong", 0, sha256="new"), score("right", 1, sha256="new")]
    now += [score("unedited", 0), score("added", 0), score("fixed", 1, sha256="new")]
    earlier = [score("was-wrong", 0), score("is-wrong", 1), score("right", 1), score("unedited", 1), score("fixed", 1)]
    baselines = {"mini": Baseline("earlier", [earlier])}
    (comparison,) = compare({"mini": now}, baselines, alpha=0.04)
    assert [change.case_id for change in comparison.edited] == ["is-wrong", "was-wrong"]
    # a case that was fixed after the run was graded, and graded again
    (comparison,) = compare({"mini": now}, baselines, alpha=0.04, named_before={"mini": {"fixed", "unedited"}})
    assert [change.case_id for change in comparison.edited] == ["fixed", "is-wrong", "was-wrong"]


def test_improvements_start_with_cases_that_were_always_wrong() -> None:
    now = [score("a", 1), score("b", 1)]
    runs = [[score("a", 1), score("b", 0)], [score("a", 0), score("b", 0)], [score("a", 0), score("b", 0)]]
    (comparison,) = compare({"mini": now}, {"mini": Baseline("last", runs)}, alpha=0.04)
    assert comparison.improvements == ["b", "a"]
