"""Intervals, p-values and their correction agree with published figures and have the properties they should have."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.statistics import correct_p_values, interval, p_value


def test_the_interval_matches_published_wilson_intervals() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.data(), st.integers(1, 500), st.integers(1, 5))
def test_the_interval_contains_the_accuracy_and_gets_narrower_with_more_cases(
    data: st.DataObject, cases: int, repeats: int
) -> None:
    accuracy = data.draw(st.integers(0, cases * repeats)) / (cases * repeats)
    low, high = interval(accuracy, cases)
    assert 0 <= low <= accuracy <= high <= 1
    wide = high - low
    low, high = interval(accuracy, cases * 16)
    assert high - low < wide


def test_repeats_alone_do_not_make_an_interval_narrower() -> None:
    assert interval(59 / 60, 20) == (interval(19 / 20, 20)[0], 1.0)
    assert interval(sum([1, 2 / 3, 1 / 3] * 10) / 30, 30) == interval(20 / 30, 30)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 0.0625), (5, 5, 1.0), (2, 10, 0.03857), (6, 22, 0.003719)],
)
def test_with_one_answer_per_case_the_p_value_is_that_of_mcnemars_exact_test(
    better: int, worse: int, expected: float
) -> None:
    assert p_value([(1, 0)] * better + [(0, 1)] * worse + [(1, 1), (0, 0)] * 25) == pytest.approx(expected, rel=1e-3)


def test_with_repeats_the_p_value_counts_the_sign_flips_that_are_as_extreme() -> None:
    # of the 2^3 combinations of signs, two are as far from 0
    assert p_value([(1 / 3, 2 / 3), (1 / 3, 1), (0, 1)]) == pytest.approx(0.25)
    # of 2^10, only the two extremes
    assert p_value([(2 / 3, 1)] * 5 + [(0, 2 / 3)] * 5) == pytest.approx(2 / 1024)
    assert p_value([(0, 1 / 3)]) == 1


def test_with_several_earlier_runs_the_p_value_counts_swaps_between_all_runs() -> None:
    # Each of 3 cases was wrong in one of 3 runs. That it was the current run all 3 times is 1 of 27 permutations, and
    # none is more extreme.
    assert p_value([(0, 1, 1)] * 3) == pytest.approx(2 / 27)
    # 20 unchanged cases and another order make no difference
    assert p_value([(1, 1, 1), *[(0, 1, 1)] * 3, *[(0, 0, 0)] * 19]) == pytest.approx(2 / 27)
    assert p_value([(1, 1, 0), (1, 0, 1), (0, 1, 1)]) == 1


SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])


@given(st.integers(1, 4).flatmap(lambda runs: st.lists(st.tuples(*[SCORES] * (runs + 1)), max_size=40)), st.randoms())
def test_a_p_value_is_a_share_and_does_not_depend_on_the_order_of_cases_and_runs(
    scores: list[tuple[float, ...]], rng: random.Random
) -> None:
    p = p_value(scores)
    assert 0 < p <= 1
    assert p_value([(current, *reversed(earlier)) for current, *earlier in rng.sample(scores, len(scores))]) == p


@given(st.lists(st.tuples(SCORES, SCORES), max_size=10))
def test_a_p_value_is_the_same_for_better_and_for_worse(scores: list[tuple[float, float]]) -> None:
    assert p_value([(earlier, current) for current, earlier in scores]) == pytest.approx(p_value(scores))


def test_the_correction_counts_only_models_with_history() -> None:
    # the smallest times 3, the next times 2, the largest times 1, and never less than the previous result
    assert correct_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert correct_p_values([0.01, None, 0.5, None]) == [0.02, None, 0.5, None]
    assert correct_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert correct_p_values([None]) == [None]
    assert correct_p_values([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_the_correction_never_lowers_a_p_value_and_keeps_the_order(p_values: list[float | None]) -> None:
    pairs = [
        (p, c) for p, c in zip(p_values, correct_p_values(p_values), strict=True) if p is not None and c is not None
    ]
    assert all(p <= c <= 1 for p, c in pairs)
    assert sorted(c for _, c in pairs) == [c for _, c in sorted(pairs)]
