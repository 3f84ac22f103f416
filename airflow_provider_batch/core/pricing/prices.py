"""The price list of a job, and the cost of an answer from the tokens that the provider reported.

The prices are the published ones (`core.pricing.published`; nothing is downloaded) or come from the caller. An unknown
price is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import msgspec

from airflow_provider_batch.core.pricing.price_list import PriceList, is_fine_tuned
from airflow_provider_batch.core.pricing.rate import Rate, Rates, flat_rate
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.exceptions import InputError

_MILLION = Decimal(1_000_000)

#: number of cached costs (about 2 MB); answers with the same numbers of tokens cost the same
_CACHE_SIZE = 4096


class Usage(msgspec.Struct, frozen=True, gc=False):
    """The tokens of an answer, as the provider reported them; None if a number is unknown."""

    #: all input tokens, including those read from and written to the cache
    input_tokens: int | None = 0
    cached_tokens: int | None = 0
    #: reasoning tokens, which are part of the output tokens
    reasoning_tokens: int | None = 0
    output_tokens: int | None = 0
    #: input tokens that the provider wrote to its cache
    cache_write_tokens: int | None = 0

    @property
    def is_zero(self) -> bool:
        """Whether the request used no tokens, so that it costs nothing whatever the price is."""
        return self.input_tokens == 0 and self.output_tokens == 0

    @property
    def is_known(self) -> bool:
        """Whether every number that the cost depends on is known."""
        return None not in (self.input_tokens, self.cached_tokens, self.output_tokens, self.cache_write_tokens)


#: the usage of an answer that does not report it
UNKNOWN_USAGE = Usage(None, None, None, None, None)


class Prices:
    """The price list of a job."""

    def __init__(
        self, overrides: Mapping[str, Any] | None = None, price_list: str = PriceList.OPENAI, *, source: str = "prices"
    ) -> None:
        """Create a price list in which `overrides` take precedence over the published prices.

        `overrides` maps a model to {"input": …, "output": …, "cached": …} or to the name of a model with the same
        price. The numbers are US dollars per million tokens in a batch. "cached" is optional and defaults to "input".
        Raises InputError for anything else.

        :param price_list: name of the published prices.
        :param source: where the overrides come from, as errors name it.
        """
        if overrides is not None and not isinstance(overrides, Mapping):
            raise InputError(
                f'{source}: Prices must be an object such as {{"my-deployment": "gpt-4o-mini"}}, not '
                f"{type(overrides).__name__}."
            )
        self._price_list = PriceList(price_list)
        #: prices by model, as far as they have been looked up
        self._models: dict[str, Rates | None] = {}
        #: prices that the caller gave as numbers
        self._custom_rates: dict[str, Rate] = {}
        aliases: dict[str, str] = {}
        for model, price in (overrides or {}).items():
            if isinstance(price, str):
                aliases[model] = price
            else:
                self._custom_rates[model] = _custom_rate(model, price, source)
        self._overridden_models = frozenset(overrides or {})
        #: by alias, the model at the end of the chain
        self._aliases = {model: _follow(aliases, model) for model in aliases}
        aliased_rates: dict[str, Rates | None] = {}
        for model, same_priced_model in self._aliases.items():
            rates = self._rates(same_priced_model)
            if rates is None:
                raise InputError(
                    f"{source}: {model!r} should cost the same as {same_priced_model!r}, but the price of "
                    f"{same_priced_model!r} is unknown. "
                    f'Give the price of {model!r} as {{"input": …, "output": …}} in US dollars per million tokens.'
                )
            aliased_rates[model] = rates
        self._models |= aliased_rates
        self._cached_cost = lru_cache(_CACHE_SIZE)(self._calculate_cost)

    def served_model(self, model: str) -> str:
        """Return the model that a deployment serves, if its price is the name of that model, or else its own name."""
        return self._aliases.get(model, model)

    def rate(self, model: str, lane: Lane = Lane.BATCH) -> Rate | None:
        """Return the price of a model, or None if it is unknown.

        If no batch price of a model is known, its batches are assumed to cost the standard price.
        """
        rates = self._rates(model)
        return None if rates is None else rates.get(lane)

    def has_flex(self, model: str) -> bool:
        """Return whether a price of the flex tier is published for a model."""
        return self.rate(model, Lane.FLEX) is not None

    def cost(
        self, model: str, usage: Usage, *, answered_by: str | None = None, lane: Lane = Lane.BATCH
    ) -> Decimal | None:
        """Return the cost of an answer in US dollars, or None if its price or its usage is unknown.

        `model` is the requested model, `answered_by` the model that the answer names. The price of the latter applies,
        unless it is unknown or the caller gave a price for `model`. A price that the caller gave also applies outside
        of batches.
        """
        return self._cached_cost(model, usage, answered_by, lane)

    def lowest_cost(
        self, model: str, usage: Usage, *, answered_by: str | None = None, lane: Lane = Lane.BATCH
    ) -> Decimal | None:
        """Return the cost of an answer if cached input has every discount that it may have. None if unknown."""
        cost = self.cost(model, usage, answered_by=answered_by, lane=lane)
        if cost is None or not usage.cached_tokens:
            return cost
        rate = (self._applicable_rates(model, answered_by) or {})[lane].for_size(usage.input_tokens or 0)
        if rate.lowest_cached is None:
            return cost
        cached_tokens = min(usage.cached_tokens, usage.input_tokens or 0)
        return cost - (rate.cached - rate.lowest_cached) * cached_tokens / _MILLION

    def standard_cost(self, model: str, usage: Usage, *, answered_by: str | None = None) -> Decimal | None:
        """Return what the same answer would cost at the published standard price, or None if that is unknown."""
        rates = self._applicable_rates(model, answered_by)
        if rates is None or rates[Lane.STANDARD].lane is not Lane.STANDARD:
            return None
        return self.cost(model, usage, answered_by=answered_by, lane=Lane.STANDARD)

    def _calculate_cost(self, model: str, usage: Usage, answered_by: str | None, lane: Lane) -> Decimal | None:
        rate = (self._applicable_rates(model, answered_by) or {}).get(lane)
        return None if rate is None else _cost(rate, usage)

    def _applicable_rates(self, model: str, answered_by: str | None) -> Rates | None:
        """Return the prices of the model that answered, or those of the requested model if they decide."""
        requested_rates = self._rates(model)
        if not answered_by or model in self._overridden_models:
            return requested_rates
        if requested_rates is not None and is_fine_tuned(model) and not is_fine_tuned(answered_by):
            # some servers name the base model, which costs less
            return requested_rates
        return self._rates(answered_by) or requested_rates

    def _rates(self, model: str) -> Rates | None:
        if model not in self._models:
            published = _published_rates(model, self._price_list)
            custom_rate = self._custom_rates.get(model)
            # the caller's price applies in every lane
            self._models[model] = (
                published
                if custom_rate is None
                else dict.fromkeys(published or (Lane.BATCH, Lane.STANDARD), custom_rate)
            )
        return self._models[model]


def _published_rates(model: str, price_list: PriceList) -> Rates | None:
    # imports genai-prices, which parsing a DAG file need not wait for
    from airflow_provider_batch.core.pricing.published import published_rates

    return published_rates(model, price_list)


def _follow(aliases: Mapping[str, str], model: str) -> str:
    """Return the model at the end of a chain of aliases. A chain that returns to its start ends before it.

    A deployment is often named like its model: {"gpt-4o": "gpt-4o"} is the published price.
    """
    passed = {model}
    while model in aliases and aliases[model] not in passed:
        model = aliases[model]
        passed.add(model)
    return model


def _custom_rate(model: str, price: Any, source: str) -> Rate:
    example = 'Give {"input": 0.1, "output": 0.4} in US dollars per million tokens, or the name of a model'
    if not isinstance(price, Mapping) or not {"input", "output"} <= price.keys() <= {"input", "output", "cached"}:
        raise InputError(f"{source}: {price!r} is not a valid price for {model!r}. {example}.")
    numbers = {}
    for name, value in price.items():
        try:
            numbers[name] = Decimal(str(value))
        except InvalidOperation:
            numbers[name] = Decimal("NaN")
        if not numbers[name].is_finite() or numbers[name] < 0:
            raise InputError(f"{source}: The price {name!r} of {model!r} is {value!r}, which is not valid. {example}.")
    return flat_rate(
        numbers["input"], numbers["output"], cached=numbers.get("cached"), lane=Lane.BATCH, source="prices"
    )


def _cost(rate: Rate, usage: Usage) -> Decimal | None:
    if _needs_unknown_tokens(rate, usage):
        return None
    input_tokens = max(usage.input_tokens or 0, 0)
    cached_tokens = min(max(usage.cached_tokens or 0, 0), input_tokens)
    written_tokens = min(max(usage.cache_write_tokens or 0, 0), input_tokens - cached_tokens)
    output_tokens = max(usage.output_tokens or 0, 0)
    rate = rate.for_size(input_tokens)
    surcharge = (rate.cache_write - rate.input) * written_tokens / _MILLION
    return linear_cost(rate, input_tokens - cached_tokens, cached_tokens, output_tokens) + surcharge


def _needs_unknown_tokens(rate: Rate, usage: Usage) -> bool:
    """Return whether the cost depends on a number of tokens that is unknown. Tokens of a price of 0 do not matter."""
    if usage.output_tokens is None and rate.output:
        return True
    if usage.input_tokens is None:
        return bool(rate.input or rate.cached)
    if usage.cache_write_tokens is None and rate.input != rate.cache_write:
        return True
    return usage.cached_tokens is None and rate.input != rate.cached


def linear_cost(rate: Rate, uncached_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
    """Return the cost of tokens in US dollars, whatever `Rate.max_input_tokens` says."""
    return (rate.input * uncached_tokens + rate.cached * cached_tokens + rate.output * output_tokens) / _MILLION


def format_decimal(amount: Decimal | None) -> str | None:
    """Return an amount of US dollars as text, with all its digits and without an exponent. None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
