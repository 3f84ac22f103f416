"""What one input file may hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.limits import Limits, Size, describe_limits, read_limits
from airflow_provider_batch.exceptions import InputError


@pytest.mark.parametrize("overrides", [None, {}])
def test_openais_limits_hold_unless_others_are_given(overrides: dict[str, Any] | None) -> None:
    assert read_limits(overrides) == Limits(
        requests=50_000, bytes=200_000_000, inputs=50_000, tokens=None, output_bytes=512_000_000
    )


def test_a_limit_of_the_authors_own_takes_the_place_of_openais() -> None:
    assert read_limits({"bytes": 100_000_000}) == Limits(bytes=100_000_000)


def test_a_limit_of_the_authors_own_takes_the_place_of_the_providers_and_leaves_the_others() -> None:
    base = Limits(requests=100_000, bytes=500_000_000, tokens=2_000_000)
    assert read_limits({"bytes": 7}, base=base) == Limits(requests=100_000, bytes=7, tokens=2_000_000)


def test_the_limit_of_tokens_may_be_lifted_again() -> None:
    assert read_limits({"tokens": None}, base=Limits(tokens=5)).tokens is None


def test_an_unknown_limit_is_refused_with_the_ones_there_are() -> None:
    known = "requests, bytes, inputs, tokens, output_bytes"
    with pytest.raises(InputError, match=f"limits: unknown limit 'rows'; there are {known}"):
        read_limits({"rows": 5})


@pytest.mark.parametrize("value", [0, -1, 1.5, "50000", None, True])
def test_a_limit_is_a_whole_number_of_at_least_one(value: float | str | None) -> None:
    with pytest.raises(InputError, match="limits: requests must be a whole number of at least 1"):
        read_limits({"requests": value})


@pytest.mark.parametrize("overrides", [["requests"], "requests", 5])
def test_limits_are_given_by_name(overrides: list[str] | str | int) -> None:
    with pytest.raises(InputError, match="limits: must be an object"):
        read_limits(overrides)


def test_an_error_names_the_place_that_the_limit_comes_from() -> None:
    with pytest.raises(InputError, match="the connection: unknown limit 'rows'"):
        read_limits({"rows": 5}, source="the connection")


def test_the_limits_are_told_with_the_words_of_each() -> None:
    assert describe_limits(Limits(requests=100_000, tokens=2_000_000)) == (
        "100,000 requests, 200,000,000 bytes, 50,000 embedding inputs, about 2,000,000 input tokens, "
        "about 512,000,000 bytes of answers"
    )


SIZES = st.builds(Size, *[st.integers(0, 9)] * 5)


@given(SIZES, st.builds(Limits, *[st.integers(1, 9)] * 5))
def test_a_size_is_over_exactly_if_one_of_its_figures_is(size: Size, limits: Limits) -> None:
    over = [name for name in Limits.__struct_fields__ if getattr(size, name) > getattr(limits, name)]
    assert size.exceeded_limit(limits) == (over[0] if over else None)


@given(SIZES, SIZES)
def test_sizes_add_up_figure_by_figure(one: Size, other: Size) -> None:
    for name in Size.__struct_fields__:
        assert getattr(one + other, name) == getattr(one, name) + getattr(other, name)


def test_without_a_limit_of_tokens_none_are_too_many() -> None:
    assert Size(tokens=10**12).exceeded_limit(Limits()) is None
