"""Intervals, p-values and their correction, against published figures and by their laws."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.statistics import corrected, interval, p_value


def test_the_interval_is_wilsons() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    assert interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert interval(0 / 20, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert interval(1 / 29, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@given(st.data(), st.integers(1, 500), st.integers(1, 5))
def test_the_interval_holds_the_accuracy_and_more_cases_make_it_narrower(
    data: st.DataObject, cases: int, repeats: int
) -> None:
    accuracy = data.draw(st.integers(0, cases * repeats)) / (cases * repeats)
    low, high = interval(accuracy, cases)
    assert 0 <= low <= accuracy <= high <= 1
    wide = high - low
    low, high = interval(accuracy, cases * 16)
    assert high - low < wide


def test_repeats_alone_make_no_interval_narrower() -> None:
    assert interval(59 / 60, 20) == (interval(19 / 20, 20)[0], 1.0)
    assert interval(sum([1, 2 / 3, 1 / 3] * 10) / 30, 30) == interval(20 / 30, 30)


@pytest.mark.parametrize(
    ("better", "worse", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (0, 5, 0.0625), (5, 5, 1.0), (2, 10, 0.03857), (6, 22, 0.003719)],
)
def test_with_one_answer_each_the_p_value_is_mcnemars_exact_one(better: int, worse: int, expected: float) -> None:
    assert p_value([(1, 0)] * better + [(0, 1)] * worse + [(1, 1), (0, 0)] * 25) == pytest.approx(expected, rel=1e-3)


def test_with_repeats_it_is_that_of_the_sign_flips() -> None:
    # of the 2^3 ways to flip, two are as far from 0
    assert p_value([(1 / 3, 2 / 3), (1 / 3, 1), (0, 1)]) == pytest.approx(0.25)
    # of 2^10, only the two ends
    assert p_value([(2 / 3, 1)] * 5 + [(0, 2 / 3)] * 5) == pytest.approx(2 / 1024)
    assert p_value([(0, 1 / 3)]) == 1


def test_with_several_runs_before_any_of_them_could_have_been_the_one_of_now() -> None:
    # each of the 3 cases was wrong in one of 3 runs: that it was now, thrice, is one way of 27, and nothing is below
    assert p_value([(0, 1, 1)] * 3) == pytest.approx(2 / 27)
    # the same with 20 steady cases, and in any order
    assert p_value([(1, 1, 1), *[(0, 1, 1)] * 3, *[(0, 0, 0)] * 19]) == pytest.approx(2 / 27)
    assert p_value([(1, 1, 0), (1, 0, 1), (0, 1, 1)]) == 1


SCORES = st.sampled_from([0.0, 1 / 3, 2 / 3, 1.0])


@given(st.integers(1, 4).flatmap(lambda runs: st.lists(st.tuples(*[SCORES] * (runs + 1)), max_size=40)), st.randoms())
def test_a_p_value_is_a_share_that_the_order_of_cases_and_of_runs_does_not_change(
    scores: list[tuple[float, ...]], rng: random.Random
) -> None:
    found = p_value(scores)
    assert 0 < found <= 1
    assert p_value([(now, *reversed(before)) for now, *before in rng.sample(scores, len(scores))]) == found


@given(st.lists(st.tuples(SCORES, SCORES), max_size=10))
def test_a_p_value_is_the_same_for_better_and_for_worse(scores: list[tuple[float, float]]) -> None:
    assert p_value([(before, now) for now, before in scores]) == pytest.approx(p_value(scores))


def test_several_models_are_corrected_for_and_those_without_history_do_not_count() -> None:
    # the smallest times 3, the next times 2, the last once, and never less than the one before
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.01, None, 0.5, None]) == [0.02, None, 0.5, None]
    assert corrected([0.9, 0.8]) == [1.0, 1.0]
    assert corrected([None]) == [None]
    assert corrected([]) == []


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=8))
def test_correcting_never_makes_a_p_value_smaller_and_keeps_their_order(p_values: list[float | None]) -> None:
    pairs = [(p, c) for p, c in zip(p_values, corrected(p_values), strict=True) if p is not None and c is not None]
    assert all(p <= c <= 1 for p, c in pairs)
    assert sorted(c for _, c in pairs) == [c for _, c in sorted(pairs)]
