"""Prices of models, and the cost of an answer from the tokens that the provider reported.

The prices come from the installed genai-prices package (nothing is downloaded) or from the caller. An unknown price is
None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import genai_prices
import msgspec
from genai_prices.types import ModelInfo, ModelPrice, PriceCalculation, TieredPrices

from airflow_provider_batch.core.pricing.lane import Lane
from airflow_provider_batch.exceptions import InputError

_PROVIDER = "openai"

#: what selects the price of a lane in genai-prices
_CONTEXTS: dict[Lane, dict[str, str] | None] = {
    Lane.BATCH: {"processing": "batch"},
    Lane.FLEX: {"service_tier": "flex"},
    Lane.STANDARD: None,
}

#: Models that genai-prices lists without a batch price. OpenAI halves their price in batches, as it does for all models
#: that the Batch API accepts (https://platform.openai.com/docs/guides/batch).
_HALF_PRICE_IN_BATCHES = frozenset({"text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"})

_MILLION = Decimal(1_000_000)

#: number of cached costs (about 2 MB); answers with the same numbers of tokens cost the same
_CACHE_SIZE = 4096


class Usage(msgspec.Struct, frozen=True, gc=False):
    """The tokens of an answer, as the provider reported them; None if a number is unknown."""

    #: all input tokens, including the cached ones
    input_tokens: int | None = 0
    cached_tokens: int | None = 0
    #: reasoning tokens, which are part of the output tokens
    reasoning_tokens: int | None = 0
    output_tokens: int | None = 0

    @property
    def is_zero(self) -> bool:
        """Whether the request used no tokens, so that it costs nothing whatever the price is."""
        return self.input_tokens == 0 and self.output_tokens == 0

    @property
    def is_known(self) -> bool:
        """Whether every number that the cost depends on is known."""
        return None not in (self.input_tokens, self.cached_tokens, self.output_tokens)


#: the usage of an answer that does not report it
UNKNOWN_USAGE = Usage(None, None, None, None)


class Rate(msgspec.Struct, frozen=True):
    """The price of a model in US dollars per million tokens."""

    input: Decimal
    #: price of input tokens that the provider had in its cache
    cached: Decimal
    output: Decimal
    #: the lane with this price: STANDARD for a batch if no batch price is known
    lane: Lane
    #: origin of the price, as shown to people
    source: str
    #: requests with more input tokens than this cost more; None if the price does not depend on the size
    max_input_tokens: int | None = None
    #: price of all tokens of such a request
    large: Rate | None = None

    def for_size(self, input_tokens: int) -> Rate:
        """Return the price of a request with this many input tokens."""
        if self.large is None or self.max_input_tokens is None or input_tokens <= self.max_input_tokens:
            return self
        return self.large.for_size(input_tokens)


#: the prices of a model by lane. A lane without a known price is missing
_ModelRates = dict[Lane, Rate]


class Prices:
    """The price list of a job."""

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Create a price list in which `overrides` take precedence over the published prices.

        `overrides` maps a model to {"input": …, "output": …, "cached": …} or to the name of a model with the same
        price. The numbers are US dollars per million tokens in a batch. "cached" is optional and defaults to "input".
        Raises InputError for anything else.
        """
        self._models: dict[str, _ModelRates | None] = {}
        aliases: dict[str, str] = {}
        for model, price in (overrides or {}).items():
            if isinstance(price, str):
                aliases[model] = price
            else:
                self._models[model] = _custom_rates(model, price)
        self._overridden_models = frozenset(overrides or {})
        for model, same_priced_model in aliases.items():
            rates = None if same_priced_model in aliases else self._rates(same_priced_model)
            if rates is None:
                raise InputError(
                    f"prices: {model!r} should cost the same as {same_priced_model!r}, but the price of "
                    f"{same_priced_model!r} is unknown. "
                    f'Give the price of {model!r} as {{"input": …, "output": …}} in US dollars per million tokens.'
                )
            self._models[model] = rates
        self._cached_cost = lru_cache(_CACHE_SIZE)(self._calculate_cost)

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
        unless it is unknown or the caller gave a price for `model`. Cache writes are not included, because answers do
        not report them. A price that the caller gave also applies outside of batches.
        """
        return self._cached_cost(model, usage, answered_by, lane)

    def standard_cost(self, model: str, usage: Usage, *, answered_by: str | None = None) -> Decimal | None:
        """Return what the same answer would cost at the published standard price, or None if that is unknown."""
        rates = self._applicable_rates(model, answered_by)
        if rates is None or rates[Lane.STANDARD].lane is not Lane.STANDARD:
            return None
        return self.cost(model, usage, answered_by=answered_by, lane=Lane.STANDARD)

    def _calculate_cost(self, model: str, usage: Usage, answered_by: str | None, lane: Lane) -> Decimal | None:
        rate = (self._applicable_rates(model, answered_by) or {}).get(lane)
        return None if rate is None else _cost(rate, usage)

    def _applicable_rates(self, model: str, answered_by: str | None) -> _ModelRates | None:
        if answered_by and model not in self._overridden_models:
            rates = self._rates(answered_by)
            if rates is not None:
                return rates
        return self._rates(model)

    def _rates(self, model: str) -> _ModelRates | None:
        if model not in self._models:
            self._models[model] = _published_rates(model)
        return self._models[model]


def _custom_rates(model: str, price: Any) -> _ModelRates:
    example = 'Give {"input": 0.1, "output": 0.4} in US dollars per million tokens, or the name of a model'
    if not isinstance(price, Mapping) or not {"input", "output"} <= price.keys() <= {"input", "output", "cached"}:
        raise InputError(f"prices: {price!r} is not a valid price for {model!r}. {example}.")
    numbers = {}
    for name, value in price.items():
        try:
            numbers[name] = Decimal(str(value))
        except InvalidOperation:
            numbers[name] = Decimal("NaN")
        if not numbers[name].is_finite() or numbers[name] < 0:
            raise InputError(f"prices: The price {name!r} of {model!r} is {value!r}, which is not valid. {example}.")
    rate = Rate(
        input=numbers["input"],
        cached=numbers.get("cached", numbers["input"]),
        output=numbers["output"],
        lane=Lane.BATCH,
        source="prices",
    )
    published_lanes = _published_rates(model) or {Lane.BATCH: rate, Lane.STANDARD: rate}
    return dict.fromkeys(published_lanes, rate)


def _published_rates(model: str) -> _ModelRates | None:
    try:
        model_info = _look_up(model, None).model
    except LookupError:
        return None
    rates = {lane: _published_rate(model, model_info, lane) for lane in Lane if _has_price(model_info, lane)}
    standard = rates[Lane.STANDARD]
    if standard is None:
        return None
    if not rates.get(Lane.BATCH):
        # half of nothing is nothing
        is_half = model_info.id in _HALF_PRICE_IN_BATCHES or not (standard.input or standard.output)
        rates[Lane.BATCH] = _halve(standard) if is_half else standard
    return {lane: rate for lane, rate in rates.items() if rate is not None}


def _has_price(model: ModelInfo, lane: Lane) -> bool:
    """Return whether genai-prices lists a price of its own for a lane, and it is in force."""
    context = _CONTEXTS[lane]
    now = datetime.now(UTC)
    return context is None or any(
        variant.when == context and (variant.constraint is None or variant.constraint.active(now))
        for variant in model.price_variants or ()
    )


def _published_rate(model: str, model_info: ModelInfo, lane: Lane) -> Rate | None:
    price = _look_up(model, _CONTEXTS[lane]).model_price
    return _rate(price, lane, f"genai-prices {genai_prices.__version__}: {model_info.id}")


def _halve(rate: Rate) -> Rate:
    return Rate(
        input=rate.input / 2,
        cached=rate.cached / 2,
        output=rate.output / 2,
        lane=Lane.BATCH,
        source=f"half of the standard price of {rate.source}",
        max_input_tokens=rate.max_input_tokens,
        large=None if rate.large is None else _halve(rate.large),
    )


def _look_up(model: str, context: dict[str, str] | None) -> PriceCalculation:
    return genai_prices.calc_price(genai_prices.Usage(), model, provider_id=_PROVIDER, price_context=context)


def _rate(price: ModelPrice, lane: Lane, source: str) -> Rate | None:
    if all(value is None for value in vars(price).values()):
        # a model that is listed without any price is free, such as OpenAI's moderation models
        return Rate(input=Decimal(0), cached=Decimal(0), output=Decimal(0), lane=lane, source=source)
    if price.input_mtok is None:
        return None
    prices = (price.input_mtok, price.cache_read_mtok, price.output_mtok)
    starts = sorted({tier.start for entry in prices if isinstance(entry, TieredPrices) for tier in entry.tiers})
    rate: Rate | None = None
    for start, next_start in reversed(list(zip([-1, *starts], [*starts, None], strict=True))):
        input_price, cached_price, output_price = (_price_above(entry, start) for entry in prices)
        rate = Rate(
            input=input_price or Decimal(0),
            cached=(input_price or Decimal(0)) if cached_price is None else cached_price,
            # embedding models have no output and therefore no price for it
            output=output_price or Decimal(0),
            lane=lane,
            source=source,
            max_input_tokens=next_start,
            large=rate,
        )
    return rate


def _price_above(price: Decimal | TieredPrices | None, input_tokens: int) -> Decimal | None:
    """Return the price for requests with more than this many input tokens."""
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= input_tokens), price.base)


def _cost(rate: Rate, usage: Usage) -> Decimal | None:
    if _needs_unknown_tokens(rate, usage):
        return None
    input_tokens = max(usage.input_tokens or 0, 0)
    cached_tokens = min(max(usage.cached_tokens or 0, 0), input_tokens)
    output_tokens = max(usage.output_tokens or 0, 0)
    return linear_cost(rate.for_size(input_tokens), input_tokens - cached_tokens, cached_tokens, output_tokens)


def _needs_unknown_tokens(rate: Rate, usage: Usage) -> bool:
    """Return whether the cost depends on a number of tokens that is unknown. Tokens of a price of 0 do not matter."""
    if usage.output_tokens is None and rate.output:
        return True
    if usage.input_tokens is None:
        return bool(rate.input or rate.cached)
    return usage.cached_tokens is None and rate.input != rate.cached


def linear_cost(rate: Rate, uncached_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
    """Return the cost of tokens in US dollars, whatever `Rate.max_input_tokens` says."""
    return (rate.input * uncached_tokens + rate.cached * cached_tokens + rate.output * output_tokens) / _MILLION


def format_decimal(amount: Decimal | None) -> str | None:
    """Return an amount of US dollars as text, with all its digits and without an exponent. None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
