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
from genai_prices.types import ModelPrice, TieredPrices

from airflow_provider_batch.exceptions import InputError

_PROVIDER = "openai"

_BATCH = {"processing": "batch"}

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
    #: False if no batch price is known, so that this is the standard price
    batch: bool
    #: origin of the price, as shown to people
    source: str
    #: requests with more input tokens than this cost more; None if the price does not depend on the size
    max_input_tokens: int | None = None


class _ModelPrices(msgspec.Struct, frozen=True):
    batch: Rate
    #: None if the caller gave the price, because the standard price of the model is then unknown
    standard: Rate | None
    #: name of the model in genai-prices
    reference: str


class Prices:
    """The price list of a job."""

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        """Create a price list in which `overrides` take precedence over the published prices.

        `overrides` maps a model to {"input": …, "output": …, "cached": …} or to the name of a model with the same
        price. The numbers are US dollars per million tokens in a batch. "cached" is optional and defaults to "input".
        Raises InputError for anything else.
        """
        self._models: dict[str, _ModelPrices | None] = {}
        aliases: dict[str, str] = {}
        for model, price in (overrides or {}).items():
            if isinstance(price, str):
                aliases[model] = price
            else:
                self._models[model] = _custom_prices(model, price)
        self._overridden_models = frozenset(overrides or {})
        for model, same_priced_model in aliases.items():
            prices = None if same_priced_model in aliases else self._model_prices(same_priced_model)
            if prices is None:
                raise InputError(
                    f"prices: {model!r} should cost the same as {same_priced_model!r}, but the price of "
                    f"{same_priced_model!r} is unknown. "
                    f'Give the price of {model!r} as {{"input": …, "output": …}} in US dollars per million tokens.'
                )
            self._models[model] = prices
        self._cached_costs = lru_cache(_CACHE_SIZE)(self._calculate_costs)

    def rate(self, model: str) -> Rate | None:
        """Return the batch price of a model, or None if it is unknown."""
        prices = self._model_prices(model)
        return None if prices is None else prices.batch

    def cost(self, model: str, usage: Usage, *, answered_by: str | None = None, batch: bool = True) -> Decimal | None:
        """Return the cost of an answer in US dollars, or None if its price or its usage is unknown.

        `model` is the requested model, `answered_by` the model that the answer names. The price of the latter applies,
        unless it is unknown or the caller gave a price for `model`. Cache writes are not included, because answers do
        not report them. Without `batch`, the cost is at the standard price, or at the caller's price if there is one.
        """
        batch_cost, standard_cost = self._cached_costs(model, usage, answered_by)
        return batch_cost if batch or standard_cost is None else standard_cost

    def standard_cost(self, model: str, usage: Usage, *, answered_by: str | None = None) -> Decimal | None:
        """Return what the same answer would cost outside a batch, in US dollars, or None if that is unknown."""
        return self._cached_costs(model, usage, answered_by)[1]

    def _calculate_costs(
        self, model: str, usage: Usage, answered_by: str | None
    ) -> tuple[Decimal | None, Decimal | None]:
        """Return the cost of an answer in a batch, and its cost outside a batch."""
        prices = self._applicable_prices(model, answered_by)
        if prices is None:
            return None, None
        standard = None if prices.standard is None else _cost(prices.standard, usage, prices.reference, None)
        return _cost(prices.batch, usage, prices.reference, _BATCH), standard

    def _applicable_prices(self, model: str, answered_by: str | None) -> _ModelPrices | None:
        if answered_by and model not in self._overridden_models:
            prices = self._model_prices(answered_by)
            if prices is not None:
                return prices
        return self._model_prices(model)

    def _model_prices(self, model: str) -> _ModelPrices | None:
        if model not in self._models:
            self._models[model] = _published_prices(model)
        return self._models[model]


def _custom_prices(model: str, price: Any) -> _ModelPrices:
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
        batch=True,
        source="prices",
    )
    return _ModelPrices(batch=rate, standard=None, reference=model)


def _published_prices(model: str) -> _ModelPrices | None:
    try:
        batch = _look_up(genai_prices.Usage(), model, _BATCH)
        standard = _look_up(genai_prices.Usage(), model, None)
    except LookupError:
        return None
    now = datetime.now(UTC)
    has_batch_price = any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(now))
        for variant in batch.model.price_variants or ()
    )
    source = f"genai-prices {genai_prices.__version__}: {batch.model.id}"
    rate = _rate(batch.model_price, has_batch_price, source)
    if rate is None:
        return None
    if not has_batch_price and batch.model.id in _HALF_PRICE_IN_BATCHES:
        rate = _halve(rate)
    return _ModelPrices(batch=rate, standard=_rate(standard.model_price, False, source), reference=model)


def _halve(rate: Rate) -> Rate:
    return Rate(
        input=rate.input / 2,
        cached=rate.cached / 2,
        output=rate.output / 2,
        batch=True,
        source=f"half of the standard price of {rate.source}",
    )


def _look_up(usage: genai_prices.Usage, model: str, context: Any) -> genai_prices.types.PriceCalculation:
    return genai_prices.calc_price(usage, model, provider_id=_PROVIDER, price_context=context)


def _rate(price: ModelPrice, batch: bool, source: str) -> Rate | None:
    if all(value is None for value in vars(price).values()):
        # a model that is listed without any price is free, such as OpenAI's moderation models
        return Rate(input=Decimal(0), cached=Decimal(0), output=Decimal(0), batch=True, source=source)
    entries = (price.input_mtok, price.cache_read_mtok, price.output_mtok)
    tier_starts = [tier.start for entry in entries if isinstance(entry, TieredPrices) for tier in entry.tiers]
    base = [entry.base if isinstance(entry, TieredPrices) else entry for entry in entries]
    if base[0] is None:
        return None
    return Rate(
        input=base[0],
        cached=base[0] if base[1] is None else base[1],
        # embedding models have no output and therefore no price for it
        output=Decimal(0) if base[2] is None else base[2],
        batch=batch,
        source=source,
        max_input_tokens=min(tier_starts, default=None),
    )


def _cost(rate: Rate, usage: Usage, reference: str, context: dict[str, str] | None) -> Decimal | None:
    if _needs_unknown_tokens(rate, usage):
        return None
    input_tokens = max(usage.input_tokens or 0, 0)
    cached_tokens = min(max(usage.cached_tokens or 0, 0), input_tokens)
    output_tokens = max(usage.output_tokens or 0, 0)
    if rate.max_input_tokens is not None and input_tokens > rate.max_input_tokens:
        large_usage = genai_prices.Usage(
            input_tokens=input_tokens, cache_read_tokens=cached_tokens, output_tokens=output_tokens
        )
        return _look_up(large_usage, reference, context).total_price
    return linear_cost(rate, input_tokens - cached_tokens, cached_tokens, output_tokens)


def _needs_unknown_tokens(rate: Rate, usage: Usage) -> bool:
    """Return whether the cost depends on a number of tokens that is unknown. Tokens of a price of 0 do not matter."""
    if usage.output_tokens is None and rate.output:
        return True
    if usage.input_tokens is None:
        return bool(rate.input or rate.cached)
    return usage.cached_tokens is None and rate.input != rate.cached


def linear_cost(rate: Rate, uncached_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
    """Return the cost of tokens in US dollars, at the prices for requests within `Rate.max_input_tokens`."""
    return (rate.input * uncached_tokens + rate.cached * cached_tokens + rate.output * output_tokens) / _MILLION


def format_decimal(amount: Decimal | None) -> str | None:
    """Return an amount of US dollars as text, with all its digits and without an exponent. None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
