"""Intervals and the correction of p-values agree with published figures and have the properties they should have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.evals.statistics import correct_for_models, interval


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


def test_the_correction_counts_the_models() -> None:
    # the smallest times 3, the next times 2, the largest times 1, and never less than the previous result
    assert correct_for_models([[0.01], [0.04], [0.03]]) == [[0.03], [0.06], [0.06]]
    assert correct_for_models([[0.9], [0.8]]) == [[1.0], [1.0]]
    assert correct_for_models([]) == []


def test_the_smallest_p_value_of_a_model_decides_its_rank_and_all_its_p_values_get_the_same_factor() -> None:
    assert correct_for_models([[0.2, 0.01], [0.03, 0.02]]) == [[0.4, 0.02], [0.03, 0.02]]


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), max_size=8))
def test_the_correction_never_lowers_a_p_value_and_keeps_the_order_within_a_model(p_values: list[list[float]]) -> None:
    for model, corrected in zip(p_values, correct_for_models(p_values), strict=True):
        assert all(p <= c <= 1 for p, c in zip(model, corrected, strict=True))
        assert sorted(corrected) == [c for _, c in sorted(zip(model, corrected, strict=True))]
