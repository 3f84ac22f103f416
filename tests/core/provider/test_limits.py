"""Limits of one input file."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.limits import Limits, Size, describe_limits, read_limits
from airflow_provider_batch.exceptions import InputError


@pytest.mark.parametrize("overrides", [None, {}])
def test_openais_limits_are_the_default(overrides: dict[str, Any] | None) -> None:
    assert read_limits(overrides) == Limits(
        requests=50_000, bytes=200_000_000, inputs=50_000, tokens=None, output_bytes=512_000_000
    )


def test_an_authors_limit_overrides_openais() -> None:
    assert read_limits({"bytes": 100_000_000}) == Limits(bytes=100_000_000)


def test_an_authors_limit_overrides_the_providers_and_keeps_its_other_limits() -> None:
    base = Limits(requests=100_000, bytes=500_000_000, tokens=2_000_000)
    assert read_limits({"bytes": 7}, base=base) == Limits(requests=100_000, bytes=7, tokens=2_000_000)


def test_none_removes_the_token_limit() -> None:
    assert read_limits({"tokens": None}, base=Limits(tokens=5)).tokens is None


def test_an_unknown_limit_is_refused_with_a_list_of_the_known_ones() -> None:
    names = "requests, bytes, inputs, tokens, output_bytes"
    with pytest.raises(InputError, match=f"limits: Unknown limit 'rows'. Known limits: {names}"):
        read_limits({"rows": 5})


@pytest.mark.parametrize("value", [0, -1, 1.5, "50000", None, True])
def test_a_limit_is_a_whole_number_of_at_least_one(value: float | str | None) -> None:
    with pytest.raises(InputError, match="limits: Expected a whole number of at least 1 for requests"):
        read_limits({"requests": value})


@pytest.mark.parametrize("overrides", [["requests"], "requests", 5])
def test_limits_must_be_an_object(overrides: list[str] | str | int) -> None:
    with pytest.raises(InputError, match="limits: Expected an object"):
        read_limits(overrides)


def test_an_error_names_the_source_of_the_limit() -> None:
    with pytest.raises(InputError, match="the connection: Unknown limit 'rows'"):
        read_limits({"rows": 5}, source="the connection")


def test_the_text_of_limits_names_the_unit_of_each() -> None:
    assert describe_limits(Limits(requests=100_000, tokens=2_000_000)) == (
        "100,000 requests, 200,000,000 bytes, 50,000 embedding inputs, about 2,000,000 input tokens, "
        "about 512,000,000 bytes of answers"
    )


SIZES = st.builds(Size, *[st.integers(0, 9)] * 5)


@given(SIZES, st.builds(Limits, *[st.integers(1, 9)] * 5))
def test_a_size_exceeds_the_limits_exactly_if_one_of_its_figures_does(size: Size, limits: Limits) -> None:
    exceeded_limits = [name for name in Limits.__struct_fields__ if getattr(size, name) > getattr(limits, name)]
    assert size.exceeded_limit(limits) == (exceeded_limits[0] if exceeded_limits else None)


@given(SIZES, SIZES)
def test_sizes_add_up_figure_by_figure(first: Size, second: Size) -> None:
    for name in Size.__struct_fields__:
        assert getattr(first + second, name) == getattr(first, name) + getattr(second, name)


def test_without_a_token_limit_any_number_of_tokens_fits() -> None:
    assert Size(tokens=10**12).exceeded_limit(Limits()) is None
