"""What one input file may hold."""

from __future__ import annotations

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.jobs.limits import Limits, read_limits


@pytest.mark.parametrize("overrides", [None, {}])
def test_openais_limits_hold_unless_others_are_given(overrides):
    assert read_limits(overrides) == Limits(requests=50_000, bytes=200_000_000, inputs=50_000)


def test_a_limit_of_the_authors_own_takes_the_place_of_openais():
    assert read_limits({"bytes": 100_000_000}) == Limits(requests=50_000, bytes=100_000_000, inputs=50_000)


def test_an_unknown_limit_is_refused_with_the_ones_there_are():
    with pytest.raises(InputError, match="unknown limit 'tokens'; there are requests, bytes, inputs"):
        read_limits({"tokens": 5})


@pytest.mark.parametrize("value", [0, -1, 1.5, "50000", None, True])
def test_a_limit_is_a_whole_number_of_at_least_one(value):
    with pytest.raises(InputError, match="requests must be a whole number of at least 1"):
        read_limits({"requests": value})
