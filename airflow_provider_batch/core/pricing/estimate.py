"""What a job will cost, as a range: estimated before it is sealed, measured once its canary has answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.pricing.prices import Prices, Rate, Usage, _linear
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.tokens.estimate import read_ask
from airflow_provider_batch.core.tokens.tiktoken_counter import TokenCounter

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

    It is an estimate: the input comes from `core.tokens`, corrected by `tiktoken_counter` where tiktoken is at
    hand; the output is a range from `LOW_OUTPUT` to the request's own cap, or to `HIGH_OUTPUT` without one. Caching is
    left out.
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


def highest_cost(prices: Prices, endpoint: str, model: str, body: bytes, tokens: int) -> Decimal | None:
    """US dollars that one request costs at the standard price, at the high end; None if the price is unknown.

    :param tokens: its estimated input tokens.
    """
    output = 0
    if endpoint not in _WITHOUT_OUTPUT:
        ask = read_ask(body)
        output = ask.choices * (max(HIGH_OUTPUT, tokens) if ask.cap is None else max(ask.cap, 0))
    return prices.cost(model, Usage(input_tokens=tokens, output_tokens=output), batch=False)


class CanaryUsage(msgspec.Struct, frozen=True):
    """What the answers to the first requests of a model used."""

    #: answers that report what they used; 0 if there is none
    answers: int
    output_tokens: int
    #: US dollars that they cost; None if the price is unknown
    cost: Decimal | None


class RemainingRequests(msgspec.Struct, frozen=True):
    """The requests to a model that are not asked yet."""

    requests: int
    input_tokens: int


#: the output of the rest is taken to be between the measured mean divided by this, and times this: a few answers tell
#: the size of an answer, and not how far it varies
SPREAD = 2


def estimate_after_canary(
    before: Estimate, prices: Prices, models: Mapping[str, tuple[CanaryUsage, RemainingRequests]], endpoint: str
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


def _output_of_rest(
    before: Estimate, measured: CanaryUsage, rest: RemainingRequests, asked: int, endpoint: str
) -> tuple[int, int]:
    if endpoint in _WITHOUT_OUTPUT or not rest.requests:
        return 0, 0
    if measured.answers:
        tokens = rest.requests * measured.output_tokens
        return tokens // (measured.answers * SPREAD), tokens * SPREAD // measured.answers
    return before.output_tokens_low * rest.requests // asked, before.output_tokens_high * rest.requests // asked


def _cost_of_rest(prices: Prices, model: str, rest: RemainingRequests, output: int) -> Decimal:
    rate = prices.rate(model)
    if rate is None or not rest.requests:
        return Decimal(0)
    if rate.up_to is not None and rest.input_tokens > rate.up_to * rest.requests:
        # the mean request is a large one, and those are dearer
        usage = Usage(input_tokens=rest.input_tokens // rest.requests, output_tokens=output // rest.requests)
        return (prices.cost(model, usage) or Decimal(0)) * rest.requests
    return _linear(rate, rest.input_tokens, 0, output)
