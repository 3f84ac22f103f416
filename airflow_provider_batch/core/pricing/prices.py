"""What requests cost: before they are asked as a range, afterwards from the tokens that the provider counted.

Prices are those that the installed genai-prices package ships (nothing is fetched), or the caller's own. A price
that is not known is None and never 0.
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

_MILLION = Decimal(1_000_000)

#: costs that are kept, because answers with the same numbers of tokens cost the same: about 2 MB
_KEPT = 4096


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer, as the provider counted them."""

    #: cached ones included
    input_tokens: int = 0
    cached_tokens: int = 0
    #: part of the output tokens
    reasoning_tokens: int = 0
    output_tokens: int = 0


class Rate(msgspec.Struct, frozen=True):
    """The price of a model in US dollars per million tokens."""

    input: Decimal
    #: input tokens that the provider had in its cache
    cached: Decimal
    output: Decimal
    #: False when no batch price is known and the standard price stands in for it
    batch: bool
    #: where the price is from
    source: str
    #: requests with more input tokens than this are dearer than the above; None when all cost the same
    up_to: int | None = None


class _Card(msgspec.Struct, frozen=True):
    batch: Rate
    #: None when the caller stated the price: what it would be without batch is then not known
    standard: Rate | None
    #: how genai-prices knows the model
    reference: str


class Prices:
    """The price list of a job."""

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        """`overrides`: model -> {"input": …, "output": …, "cached": …} or the name of a model of the same price.

        The numbers are US dollars per million tokens in a batch; "cached" may be left out and is then as "input".
        Raises InputError for anything else.
        """
        self._cards: dict[str, _Card | None] = {}
        aliases: dict[str, str] = {}
        for model, price in (overrides or {}).items():
            if isinstance(price, str):
                aliases[model] = price
            else:
                self._cards[model] = _stated(model, price)
        self._stated = frozenset(overrides or {})
        for model, other in aliases.items():
            card = None if other in aliases else self._card(other)
            if card is None:
                raise InputError(
                    f"prices: {model!r} is to cost as much as {other!r}, but no price is known for that: "
                    'state it as {"input": …, "output": …} in US dollars per million tokens'
                )
            self._cards[model] = card
        self._costs = lru_cache(_KEPT)(self._reckoned)

    def rate(self, model: str) -> Rate | None:
        """The batch price of a model, None when none is known."""
        card = self._card(model)
        return None if card is None else card.batch

    def cost(self, model: str, usage: Usage, *, answered_by: str | None = None, batch: bool = True) -> Decimal | None:
        """US dollars for one answer, None when unknown.

        `model` is the one that was asked for, `answered_by` the one that the answer names: its price counts, unless
        it is not known or the caller stated a price for `model`. Writing to the cache, which answers do not report,
        is not counted. Without `batch` it is the standard price; of a price that the caller stated, that one.
        """
        in_batch, standard = self._costs(model, usage, answered_by)
        return in_batch if batch or standard is None else standard

    def standard_cost(self, model: str, usage: Usage, *, answered_by: str | None = None) -> Decimal | None:
        """US dollars for the same answer without batch, None when unknown."""
        return self._costs(model, usage, answered_by)[1]

    def _reckoned(self, model: str, usage: Usage, answered_by: str | None) -> tuple[Decimal | None, Decimal | None]:
        """What an answer costs in a batch and without one."""
        card = self._answering(model, answered_by)
        if card is None:
            return None, None
        standard = None if card.standard is None else _price(card.standard, usage, card.reference, None)
        return _price(card.batch, usage, card.reference, _BATCH), standard

    def _answering(self, model: str, answered_by: str | None) -> _Card | None:
        if answered_by and model not in self._stated:
            card = self._card(answered_by)
            if card is not None:
                return card
        return self._card(model)

    def _card(self, model: str) -> _Card | None:
        if model not in self._cards:
            self._cards[model] = _published(model)
        return self._cards[model]


def _stated(model: str, price: Any) -> _Card:
    example = 'give {"input": 0.1, "output": 0.4}, in US dollars per million tokens, or the name of a model'
    if not isinstance(price, Mapping) or not {"input", "output"} <= price.keys() <= {"input", "output", "cached"}:
        raise InputError(f"prices: {price!r} is no price of {model!r}: {example}")
    numbers = {}
    for name, value in price.items():
        try:
            numbers[name] = Decimal(str(value))
        except InvalidOperation:
            numbers[name] = Decimal("NaN")
        if not numbers[name].is_finite() or numbers[name] < 0:
            raise InputError(f"prices: {name} of {model!r} is {value!r}, which is no price: {example}")
    rate = Rate(
        input=numbers["input"],
        cached=numbers.get("cached", numbers["input"]),
        output=numbers["output"],
        batch=True,
        source="prices",
    )
    return _Card(batch=rate, standard=None, reference=model)


def _published(model: str) -> _Card | None:
    try:
        batch = _look_up(genai_prices.Usage(), model, _BATCH)
        standard = _look_up(genai_prices.Usage(), model, None)
    except LookupError:
        return None
    now = datetime.now(UTC)
    known = any(
        variant.when == _BATCH and (variant.constraint is None or variant.constraint.active(now))
        for variant in batch.model.price_variants or ()
    )
    source = f"genai-prices {genai_prices.__version__}: {batch.model.id}"
    rate = _rate(batch.model_price, known, source)
    if rate is None:
        return None
    return _Card(batch=rate, standard=_rate(standard.model_price, False, source), reference=model)


def _look_up(usage: genai_prices.Usage, model: str, context: Any) -> genai_prices.types.PriceCalculation:
    return genai_prices.calc_price(usage, model, provider_id=_PROVIDER, price_context=context)


def _rate(price: ModelPrice, batch: bool, source: str) -> Rate | None:
    if all(value is None for value in vars(price).values()):
        # a model on record without any price is free: OpenAI's moderation models
        return Rate(input=Decimal(0), cached=Decimal(0), output=Decimal(0), batch=True, source=source)
    listed = (price.input_mtok, price.cache_read_mtok, price.output_mtok)
    starts = [tier.start for entry in listed if isinstance(entry, TieredPrices) for tier in entry.tiers]
    base = [entry.base if isinstance(entry, TieredPrices) else entry for entry in listed]
    if base[0] is None:
        return None
    return Rate(
        input=base[0],
        cached=base[0] if base[1] is None else base[1],
        # embeddings have no output, and no price for it
        output=Decimal(0) if base[2] is None else base[2],
        batch=batch,
        source=source,
        up_to=min(starts, default=None),
    )


def _price(rate: Rate, usage: Usage, reference: str, context: dict[str, str] | None) -> Decimal:
    read = max(usage.input_tokens, 0)
    cached = min(max(usage.cached_tokens, 0), read)
    written = max(usage.output_tokens, 0)
    if rate.up_to is not None and read > rate.up_to:
        large = genai_prices.Usage(input_tokens=read, cache_read_tokens=cached, output_tokens=written)
        return _look_up(large, reference, context).total_price
    return _linear(rate, read - cached, cached, written)


def _linear(rate: Rate, read: int, cached: int, written: int) -> Decimal:
    return (rate.input * read + rate.cached * cached + rate.output * written) / _MILLION


def format_decimal(amount: Decimal | None) -> str | None:
    """US dollars as text, with all their digits and no exponent; None is unknown."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
