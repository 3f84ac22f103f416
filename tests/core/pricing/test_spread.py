"""How wide the range around the mean of a few answers is."""

from __future__ import annotations

from math import exp, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.pricing.spread import (
    MAX_EARLIER_ANSWERS,
    input_range,
    output_range,
    with_earlier_answers,
)

TOKENS = st.lists(st.integers(0, 100_000), min_size=1, max_size=50)
REQUESTS = st.integers(1, 1_000_000)


def width(sample: OutputSample, requests: int = 1_000) -> float:
    low, high = output_range(sample, requests)
    return high / low


@given(TOKENS, REQUESTS)
def test_the_mean_of_the_answers_lies_within_the_range(tokens: list[int], requests: int) -> None:
    sample = OutputSample.of(tokens)
    low, high = output_range(sample, requests)
    assert 0 <= low <= sample.mean <= high


@given(TOKENS, TOKENS)
def test_samples_add_up_like_their_answers(first: list[int], second: list[int]) -> None:
    total, expected = OutputSample.of(first) + OutputSample.of(second), OutputSample.of(first + second)
    assert (total.answers, total.tokens, total.squares) == (expected.answers, expected.tokens, expected.squares)
    assert total.logs == pytest.approx(expected.logs)


def test_the_range_follows_the_documented_formula() -> None:
    # a variance of 0.5 of the squared mean; 3 pseudo answers with the variance 1
    sample = OutputSample.of([50, 150])
    variance = (3 * 1 + 0.5) / 4
    error = 2.9367 * sqrt(variance * (1 / 2 + 1 / 1_000))
    share = 1 - 0.1 ** (1 / 6)
    share += sqrt(share * (1 - share) / 1_000)
    low, high = output_range(sample, 1_000)
    assert low == pytest.approx(100 * exp(-error), rel=1e-3)
    assert high == pytest.approx((1 - share) * 100 + share * 40 * sqrt(50 * 150), rel=1e-3)


def test_more_answers_and_more_similar_ones_make_the_range_narrower() -> None:
    widths = [width(OutputSample.of([90, 110] * pairs)) for pairs in (1, 2, 5, 10, 50, 500)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1.3
    similar, different = OutputSample.of([90, 110] * 500), OutputSample.of([10, 190] * 500)
    assert width(similar) < width(different)


def test_a_few_requests_vary_more_than_many() -> None:
    sample = OutputSample.of([50, 150] * 20)
    assert width(sample, 5) > width(sample, 50) > width(sample, 5_000)


def test_long_answers_that_two_short_ones_do_not_show_are_within_the_range() -> None:
    low, high = output_range(OutputSample.of([100, 100]), 1_000)
    assert low < 100 < 0.9 * 100 + 0.1 * 3_000 < high


@given(TOKENS, st.floats(0.5, 1_000))
def test_a_sample_of_limited_weight_keeps_its_mean(tokens: list[int], weight: float) -> None:
    sample = OutputSample.of(tokens)
    limited = sample.limited(weight)
    assert limited.answers == pytest.approx(min(weight, sample.answers))
    assert limited.mean == pytest.approx(sample.mean)


def test_earlier_answers_count_for_no_more_than_their_maximum_weight() -> None:
    earlier = OutputSample.of([90, 110] * 5_000)
    assert with_earlier_answers(OutputSample(), earlier).answers == MAX_EARLIER_ANSWERS
    assert with_earlier_answers(OutputSample.of([95, 105]), earlier).answers == MAX_EARLIER_ANSWERS + 2


@pytest.mark.parametrize("tokens", [[10, 12], [1_000, 900]])
def test_earlier_answers_of_another_length_do_not_count(tokens: list[int]) -> None:
    sample = OutputSample.of(tokens)
    assert with_earlier_answers(sample, OutputSample.of([90, 110] * 50)) == sample


def test_an_input_that_varies_makes_its_range_wider_and_answers_make_it_narrower() -> None:
    def sample(*factors: float) -> InputSample:
        return InputSample(len(factors), 100 * sum(factors), 100 * len(factors), 100 * sum(f * f for f in factors))

    widths = [
        input_range(answers, 1_000)[1] for answers in (sample(1, 25), InputSample(), sample(2, 2), sample(*[25.0] * 20))
    ]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 1.05
