"""What requests cost: before they are asked as a range, afterwards from the tokens that the provider counted.

Prices are those that the installed genai-prices package ships (nothing is fetched), or the caller's own. A price
that is not known is None and never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

import genai_prices
import msgspec
from genai_prices.types import ModelPrice, TieredPrices

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.jobs.job import Estimate
from airflow_provider_batch.jobs.outline import Outline
from airflow_provider_batch.jobs.tokens import read_ask
from airflow_provider_batch.jobs.vocabulary import TokenCounter

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


#: the fewest output tokens that the low end takes for an answer
LOW_OUTPUT = 10
#: the high end of an answer whose request has no cap: so many output tokens, or as many as the input if that is more
HIGH_OUTPUT = 1_000

_WITHOUT_OUTPUT = ("/v1/embeddings", "/v1/moderations")


class _Sums:
    """What the requests to one model add up to."""

    def __init__(self, rate: Rate | None, counter: TokenCounter) -> None:
        self.rate, self.counter = rate, counter
        self.requests = self.input = self.low = self.high = 0
        self.usd = [Decimal(0), Decimal(0)]


class Estimator:
    """Adds up what the requests of one job will use and cost.

    It is an estimate: the input comes from `jobs.tokens`, corrected by `jobs.vocabulary` where tiktoken is at hand; the
    output is a range from `LOW_OUTPUT` to the request's own cap, or to `HIGH_OUTPUT` without one. Caching is left out.
    """

    def __init__(self, prices: Prices, endpoint: str) -> None:
        self._prices = prices
        self._has_output = endpoint not in _WITHOUT_OUTPUT
        self._models: dict[str, _Sums] = {}

    def add(
        self, model: str, body: bytes, inputs: int, outline: Outline | None = None, given: Sequence[Any] = ()
    ) -> int:
        """Count one request; return its estimated input tokens, at least one per input.

        It is known by its outline and the values of its leaves; else by its body (JSON).
        """
        sums = self._models.get(model)
        if sums is None:
            sums = self._models[model] = _Sums(self._prices.rate(model), TokenCounter(model))
        ask = None if outline is None else outline.ask(given, sums.counter.encoding)
        if ask is None:
            ask = read_ask(body, sums.counter.encoding)
        tokens = max(sums.counter.count(ask), inputs)
        low = high = 0
        if self._has_output:
            high = ask.choices * (max(HIGH_OUTPUT, tokens) if ask.cap is None else max(ask.cap, 0))
            low = min(ask.choices * LOW_OUTPUT, high)
        sums.requests += 1
        sums.input += tokens
        sums.low += low
        sums.high += high
        if sums.rate is not None and sums.rate.up_to is not None and tokens > sums.rate.up_to:
            # what these cost beyond the linear price, which `finish` gives to all tokens
            for end, output in enumerate((low, high)):
                usage = Usage(input_tokens=tokens, output_tokens=output)
                cost = self._prices.cost(model, usage)
                assert cost is not None
                sums.usd[end] += cost - _linear(sums.rate, tokens, 0, output)
        return tokens

    def outputs(self) -> dict[str, float]:
        """By model: the output tokens of a request at the high end, on average."""
        return {model: sums.high / sums.requests for model, sums in self._models.items()}

    def finish(self, earlier: Mapping[str, tuple[int, int]] | None = None) -> Estimate:
        """The sums over all requests. The dollars are None as soon as one model has no known price.

        :param earlier: by model: answers of earlier jobs and their output tokens. Their mean takes the place of a
            guess, with the same spread as that of a canary's, and never above what the requests allow.
        """
        low = high = Decimal(0)
        output, answers = [0, 0], 0
        for model, sums in self._models.items():
            least, most = sums.low, sums.high
            if earlier is not None and model in earlier and self._has_output:
                count, tokens = earlier[model]
                most = min(sums.requests * tokens * SPREAD // count, sums.high)
                least = min(sums.requests * tokens // (count * SPREAD), most)
                answers += count
            output[0] += least
            output[1] += most
            if sums.rate is not None:
                low += sums.usd[0] + _linear(sums.rate, sums.input, 0, least)
                high += sums.usd[1] + _linear(sums.rate, sums.input, 0, most)
        unknown = sorted(model for model, sums in self._models.items() if sums.rate is None)
        return Estimate(
            input_tokens=sum(sums.input for sums in self._models.values()),
            output_tokens_low=output[0],
            output_tokens_high=output[1],
            low_usd=None if unknown else float(low),
            high_usd=None if unknown else float(high),
            unknown_models=unknown,
            counted_requests=sum(sums.counter.counted for sums in self._models.values()),
            standard_price_models=sorted(
                model for model, sums in self._models.items() if sums.rate is not None and not sums.rate.batch
            ),
            earlier_answers=answers,
        )


def at_most(prices: Prices, endpoint: str, model: str, body: bytes, tokens: int) -> Decimal | None:
    """US dollars that one request costs at the standard price, at the high end; None if the price is unknown.

    :param tokens: its estimated input tokens.
    """
    output = 0
    if endpoint not in _WITHOUT_OUTPUT:
        ask = read_ask(body)
        output = ask.choices * (max(HIGH_OUTPUT, tokens) if ask.cap is None else max(ask.cap, 0))
    return prices.cost(model, Usage(input_tokens=tokens, output_tokens=output), batch=False)


class Measured(msgspec.Struct, frozen=True):
    """What the answers to the first requests of a model used."""

    #: answers that report what they used; 0 if there is none
    answers: int
    output_tokens: int
    #: US dollars that they cost; None if the price is unknown
    cost: Decimal | None


class Unasked(msgspec.Struct, frozen=True):
    """The requests to a model that are not asked yet."""

    requests: int
    input_tokens: int


#: the output of the rest is taken to be between the measured mean divided by this, and times this: a few answers tell
#: the size of an answer, and not how far it varies
SPREAD = 2


def measured_estimate(
    before: Estimate, prices: Prices, models: Mapping[str, tuple[Measured, Unasked]], endpoint: str
) -> Estimate:
    """The estimate of a job once the first requests of each model were answered, those answers included.

    The input stays as it was estimated. The output of the rest comes from the mean of the model's answers; where no
    answer tells it, from the share of these requests in the range before.
    """
    asked = sum(rest.requests + measured.answers for measured, rest in models.values())
    output = [0, 0]
    usd = [Decimal(0), Decimal(0)]
    for model, (measured, rest) in models.items():
        of_rest = _output_of_rest(before, measured, rest, asked, endpoint)
        for end in (0, 1):
            output[end] += measured.output_tokens + of_rest[end]
            usd[end] += (measured.cost or 0) + _cost_of_rest(prices, model, rest, of_rest[end])
    known = before.low_usd is not None and all(measured.cost is not None for measured, _ in models.values())
    return msgspec.structs.replace(
        before,
        output_tokens_low=output[0],
        output_tokens_high=output[1],
        low_usd=float(usd[0]) if known else None,
        high_usd=float(usd[1]) if known else None,
        earlier_answers=0,
    )


def _output_of_rest(before: Estimate, measured: Measured, rest: Unasked, asked: int, endpoint: str) -> tuple[int, int]:
    if endpoint in _WITHOUT_OUTPUT or not rest.requests:
        return 0, 0
    if measured.answers:
        tokens = rest.requests * measured.output_tokens
        return tokens // (measured.answers * SPREAD), tokens * SPREAD // measured.answers
    return before.output_tokens_low * rest.requests // asked, before.output_tokens_high * rest.requests // asked


def _cost_of_rest(prices: Prices, model: str, rest: Unasked, output: int) -> Decimal:
    rate = prices.rate(model)
    if rate is None or not rest.requests:
        return Decimal(0)
    if rate.up_to is not None and rest.input_tokens > rate.up_to * rest.requests:
        # the mean request is a large one, and those are dearer
        usage = Usage(input_tokens=rest.input_tokens // rest.requests, output_tokens=output // rest.requests)
        return (prices.cost(model, usage) or Decimal(0)) * rest.requests
    return _linear(rate, rest.input_tokens, 0, output)


def in_full(amount: Decimal | None) -> str | None:
    """US dollars as text, with all their digits and no exponent; None is unknown."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
