"""The lane in which a request was answered decides what it costs."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_batch.core.provider.catalogue import is_openai
from airflow_provider_batch.core.provider.lane import Lane, asks_for_a_tier


@pytest.mark.parametrize(
    ("requested", "tier", "lane"),
    [
        (Lane.FLEX, "flex", Lane.FLEX),
        (Lane.STANDARD, "flex", Lane.FLEX),
        (Lane.STANDARD, "default", Lane.STANDARD),
        (Lane.FLEX, "default", Lane.STANDARD),
        (Lane.FLEX, None, Lane.STANDARD),
        (Lane.FLEX, "on_demand", Lane.STANDARD),
        (Lane.BATCH, "default", Lane.BATCH),
        (Lane.BATCH, None, Lane.BATCH),
    ],
)
def test_an_answer_costs_the_price_of_the_tier_that_it_names(requested: Lane, tier: str | None, lane: Lane) -> None:
    assert requested.of_answer(tier) is lane


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, False),
        ({"service_tier": None}, False),
        ({"service_tier": "auto"}, False),
        ({"service_tier": "default"}, True),
    ],
)
def test_auto_and_no_tier_leave_the_choice_open(body: dict[str, Any], expected: bool) -> None:
    assert asks_for_a_tier(body) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("api.openai.com", True),
        ("eu.api.openai.com", True),
        ("api.openai.com.", True),
        ("api.openai.com.example.org", False),
        ("openai.azure.com", False),
        ("127.0.0.1", False),
        ("api.groq.com", False),
    ],
)
def test_only_openai_itself_has_the_flex_tier_unless_the_connection_says_so(host: str, expected: bool) -> None:
    assert is_openai(host) is expected
