"""The prices of a job: those of the argument, of the connection, and of its provider."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import run_job

AZURE = "https://res.openai.azure.com/openai/v1/"


@pytest.fixture
def prices_at(connect: Callable[..., None]) -> Callable[..., Prices]:
    """Return a function for the prices at a base URL: `prices_at("https://…", extra={…}, overrides={…})`."""

    def prices(base_url: str | None, *, extra: dict[str, Any] | None = None, overrides: Any = None) -> Prices:
        connect("llm", conn_type="openai", password="k", host=base_url, extra=extra or {})
        hook = BatchHook(conn_id="llm")
        hook.check()
        return Prices(hook.prices(overrides), hook.price_list)

    return prices


def _price(prices: Prices, model: str) -> Decimal | None:
    rate = prices.rate(model)
    return None if rate is None else rate.input


def test_a_deployment_costs_what_the_connection_says(prices_at: Callable[..., Prices]) -> None:
    assert _price(prices_at(AZURE), "my-deployment") is None
    extra = {"batch_prices": {"my-deployment": "gpt-4o-mini", "own": {"input": 3, "output": 4}}}
    prices = prices_at(AZURE, extra=extra)
    assert (_price(prices, "my-deployment"), _price(prices, "own")) == (Decimal("0.075"), Decimal(3))
    prices = prices_at(AZURE, extra=extra, overrides={"own": "gpt-4o"})
    assert (_price(prices, "my-deployment"), _price(prices, "own")) == (Decimal("0.075"), Decimal("1.25"))


@pytest.mark.parametrize(
    ("base_url", "model", "price"),
    [
        (None, "gpt-4o-mini", "0.075"),
        (AZURE, "gpt-4o-mini", "0.075"),
        ("http://127.0.0.1:8000/v1", "gpt-4o-mini", "0.075"),
        ("https://api.groq.com/openai/v1", "openai/gpt-oss-120b", "0.075"),
        ("https://api.groq.com/openai/v1", "gpt-4o-mini", None),
        ("https://api.tokenfactory.nebius.com/v1/", "openai/gpt-oss-120b", None),
        ("https://api.doubleword.ai/v1", "openai/gpt-oss-20b", None),
    ],
)
def test_the_host_of_the_connection_decides_whose_prices_apply(
    prices_at: Callable[..., Prices], base_url: str | None, model: str, price: str | None
) -> None:
    assert _price(prices_at(base_url), model) == (None if price is None else Decimal(price))


@pytest.mark.parametrize(
    ("batch_prices", "problem"),
    [
        ({"my-deployment": "gpt-4o-mimi"}, "'my-deployment' should cost the same as 'gpt-4o-mimi'"),
        ({"my-deployment": {"input": 1}}, "is not a valid price for 'my-deployment'"),
        ({"my-deployment": 3}, "3 is not a valid price for 'my-deployment'"),
        (["my-deployment"], "Prices must be an object such as"),
        ("gpt-4o-mini", "Prices must be an object such as"),
    ],
)
def test_the_error_for_an_invalid_price_in_a_connection_names_the_connection(
    prices_at: Callable[..., Prices], batch_prices: object, problem: str
) -> None:
    with pytest.raises(InputError) as error:
        prices_at(AZURE, extra={"batch_prices": batch_prices})
    assert str(error.value).startswith("openai_conn_id: batch_prices in the extra of connection 'llm': ")
    assert problem in str(error.value)


@pytest.mark.usefixtures("warehouse")
def test_a_job_is_estimated_and_lands_with_the_price_of_its_connection(
    connect: Callable[..., None], batch_server: LocalServer
) -> None:
    def connect_with(extra: dict[str, Any]) -> None:
        connect("openai_default", conn_type="openai", password="k", host=batch_server.base_url, extra=extra)

    connect_with({})
    error = run_job(model="my-deployment", max_cost_usd=1000).error()
    assert "no price is known for my-deployment" in error
    assert "batch_prices" in error
    connect_with({"batch_prices": {"my-deployment": {"input": 1000, "output": 0}}})
    result = run_job(model="my-deployment", max_cost_usd=1000)
    landing = result.return_values["land"]
    assert Decimal(landing["cost_usd"]) == Decimal(landing["tokens"]["input"]) / 1000 > 0
    estimate = result.return_values["submit"]["estimate"]
    assert estimate["low_usd"] <= estimate["input_tokens"] / 1000 <= estimate["high_usd"]
