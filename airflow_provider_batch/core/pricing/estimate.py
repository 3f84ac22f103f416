"""The expected cost of a job, as a range.

The first estimate is made before the job is sealed. Its input tokens come from `core.tokens`. Its output tokens are a
range per request, since the length of an answer is unknown: from `LOW_OUTPUT` to the cap of the request, or to
`HIGH_OUTPUT` if the request has none. If earlier runs have answers from the model, their mean narrows this range.

Once the requests of the canary have been answered, `estimate_after_canary` replaces the guess by their mean output,
divided and multiplied by `SPREAD`, and corrects the input tokens by what they report. Discounts for cached input are
left out of all estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.pricing.lane import Lane
from airflow_provider_batch.core.pricing.prices import Prices, Rate, Usage, linear_cost
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.tokens.counter import TokenCounter
from airflow_provider_batch.core.tokens.request import RequestTokens, estimate_request

#: output tokens of an answer at the low end of an estimate
LOW_OUTPUT = 10

#: high end of the output tokens of an answer without a cap, or the tokens of the prompt's texts if that is higher
HIGH_OUTPUT = 1_000

#: If the mean output of a model is known, an estimate ranges from the mean divided by this factor to the mean times
#: this factor. A few answers show the size of an answer, but not how much the size varies.
SPREAD = 2

_WITHOUT_OUTPUT = ("/v1/embeddings", "/v1/moderations")


class _ModelTotals:
    """The totals of the requests to a model."""

    def __init__(self, rate: Rate | None, counter: TokenCounter) -> None:
        self.rate, self.counter = rate, counter
        self.requests = self.input_tokens = self.low_output = self.high_output = 0
        #: surcharges for large requests on top of the linear price, in US dollars, at the low and at the high end
        self.surcharges = [Decimal(0), Decimal(0)]


class Estimator:
    """Adds up the estimated tokens and the estimated cost of the requests of a job."""

    def __init__(self, prices: Prices, endpoint: str) -> None:
        self._prices = prices
        self._has_output = endpoint not in _WITHOUT_OUTPUT
        self._totals: dict[str, _ModelTotals] = {}

    def add(
        self, model: str, body: bytes, inputs: int, outline: Outline | None = None, leaf_values: Sequence[Any] = ()
    ) -> int:
        """Add a request. Return its estimated input tokens, at least one per input.

        The tokens come from the outline and its leaf values if possible, otherwise from the body (JSON).
        """
        totals = self._totals.get(model)
        if totals is None:
            totals = self._totals[model] = _ModelTotals(self._prices.rate(model), TokenCounter(model))
        request = None if outline is None else outline.estimate(leaf_values, model)
        if request is None:
            request = estimate_request(body, model)
        tokens = max(totals.counter.count(request), inputs)
        low = high = 0
        if self._has_output:
            high = _high_output(request)
            low = min(request.choices * LOW_OUTPUT, high)
        totals.requests += 1
        totals.input_tokens += tokens
        totals.low_output += low
        totals.high_output += high
        rate = totals.rate
        if rate is not None and rate.max_input_tokens is not None and tokens > rate.max_input_tokens:
            # `finish` applies the linear price to all tokens. Record what this request costs beyond that.
            for end, output in enumerate((low, high)):
                usage = Usage(input_tokens=tokens, output_tokens=output)
                cost = self._prices.cost(model, usage)
                assert cost is not None
                totals.surcharges[end] += cost - linear_cost(rate, tokens, 0, output)
        return tokens

    def outputs(self) -> dict[str, float]:
        """Return, by model, the mean output tokens of a request at the high end."""
        return {model: totals.high_output / totals.requests for model, totals in self._totals.items()}

    def finish(self, earlier: Mapping[str, tuple[int, int]] | None = None) -> Estimate:
        """Return the estimate of all requests. Its cost is None if the price of any model is unknown.

        :param earlier: by model, the number of answers in earlier runs and their total output tokens. Their mean
            replaces the guess, with the same spread as after a canary, and limited to what the requests allow.
        """
        low = high = Decimal(0)
        output, answers = [0, 0], 0
        for model, totals in self._totals.items():
            low_output, high_output = totals.low_output, totals.high_output
            if earlier is not None and model in earlier and self._has_output:
                count, tokens = earlier[model]
                high_output = min(totals.requests * tokens * SPREAD // count, totals.high_output)
                low_output = min(totals.requests * tokens // (count * SPREAD), high_output)
                answers += count
            output[0] += low_output
            output[1] += high_output
            if totals.rate is not None:
                low += totals.surcharges[0] + linear_cost(totals.rate, totals.input_tokens, 0, low_output)
                high += totals.surcharges[1] + linear_cost(totals.rate, totals.input_tokens, 0, high_output)
        unknown_models = sorted(model for model, totals in self._totals.items() if totals.rate is None)
        return Estimate(
            input_tokens=sum(totals.input_tokens for totals in self._totals.values()),
            output_tokens_low=output[0],
            output_tokens_high=output[1],
            low_usd=None if unknown_models else float(low),
            high_usd=None if unknown_models else float(high),
            unknown_models=unknown_models,
            counted_requests=sum(totals.counter.counted_requests for totals in self._totals.values()),
            standard_price_models=sorted(
                model
                for model, totals in self._totals.items()
                if totals.rate is not None and totals.rate.lane is not Lane.BATCH
            ),
            earlier_answers=answers,
        )


def _high_output(request: RequestTokens) -> int:
    per_choice = max(HIGH_OUTPUT, request.text_tokens) if request.cap is None else max(request.cap, 0)
    return request.choices * per_choice


def highest_cost(prices: Prices, endpoint: str, model: str, body: bytes, tokens: int) -> Decimal | None:
    """Return the cost of a request at the standard price and the high end, in US dollars; None if unknown.

    :param tokens: the estimated input tokens of the request.
    """
    output = 0 if endpoint in _WITHOUT_OUTPUT else _high_output(estimate_request(body, model))
    return prices.cost(model, Usage(input_tokens=tokens, output_tokens=output), lane=Lane.STANDARD)


class CanaryUsage(msgspec.Struct, frozen=True):
    """The usage that a model's canary answers report."""

    #: number of answers that report their usage
    answers: int
    input_tokens: int
    output_tokens: int
    #: cost of the answers in US dollars; None if the price is unknown
    cost: Decimal | None


class RemainingRequests(msgspec.Struct, frozen=True):
    """The requests to a model that are still estimated: not sent yet, or sent and answered without a usage."""

    requests: int
    #: estimated, and corrected by what the canary answers of the model report
    input_tokens: int


def estimate_after_canary(
    initial: Estimate, prices: Prices, models: Mapping[str, tuple[CanaryUsage, RemainingRequests]], endpoint: str
) -> Estimate:
    """Return the estimate of a job after its canary, including the cost of the canary.

    The output of the remaining requests is extrapolated from the mean of the model's answers. If no answer reports its
    usage, these requests get their share of the range in `initial`.
    """
    requests = sum(remaining.requests + usage.answers for usage, remaining in models.values())
    output = [0, 0]
    usd = [Decimal(0), Decimal(0)]
    for model, (usage, remaining) in models.items():
        remaining_output = _remaining_output(initial, usage, remaining, requests, endpoint)
        for end in (0, 1):
            output[end] += usage.output_tokens + remaining_output[end]
            usd[end] += (usage.cost or 0) + _remaining_cost(prices, model, remaining, remaining_output[end])
    has_prices = initial.low_usd is not None and all(usage.cost is not None for usage, _ in models.values())
    return msgspec.structs.replace(
        initial,
        input_tokens=sum(usage.input_tokens + remaining.input_tokens for usage, remaining in models.values()),
        output_tokens_low=output[0],
        output_tokens_high=output[1],
        low_usd=float(usd[0]) if has_prices else None,
        high_usd=float(usd[1]) if has_prices else None,
        earlier_answers=0,
    )


def _remaining_output(
    initial: Estimate, usage: CanaryUsage, remaining: RemainingRequests, requests: int, endpoint: str
) -> tuple[int, int]:
    """Return the output tokens of the remaining requests to a model, at the low and at the high end."""
    if endpoint in _WITHOUT_OUTPUT or not remaining.requests:
        return 0, 0
    if usage.answers:
        tokens = remaining.requests * usage.output_tokens
        return tokens // (usage.answers * SPREAD), tokens * SPREAD // usage.answers
    return (
        initial.output_tokens_low * remaining.requests // requests,
        initial.output_tokens_high * remaining.requests // requests,
    )


def _remaining_cost(prices: Prices, model: str, remaining: RemainingRequests, output: int) -> Decimal:
    rate = prices.rate(model)
    if rate is None or not remaining.requests:
        return Decimal(0)
    if rate.max_input_tokens is not None and remaining.input_tokens > rate.max_input_tokens * remaining.requests:
        # the average request is a large one, and large requests cost more
        usage = Usage(
            input_tokens=remaining.input_tokens // remaining.requests, output_tokens=output // remaining.requests
        )
        return (prices.cost(model, usage) or Decimal(0)) * remaining.requests
    return linear_cost(rate, remaining.input_tokens, 0, output)
