"""The expected cost of a job, as a range.

The first estimate is made before the job is sealed. Its input tokens come from `core.tokens`. Its output tokens are a
range per request, since the length of an answer is unknown: from `LOW_OUTPUT` to the cap of the request, or to
`HIGH_OUTPUT` if the request has none. If earlier jobs of the task have answers from the model, these replace the guess.

Once the requests of the canary have been answered, `estimate_after_canary` estimates the others by these answers, and
corrects the input tokens by what they report. How far the bill may lie from the mean of the answers follows from their
number and from how much they differ (`core.pricing.spread`). Discounts for cached input are left out of all estimates.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import groupby

import msgspec

from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.pricing.input_correction import correct
from airflow_provider_batch.core.pricing.prices import Prices, Usage, linear_cost
from airflow_provider_batch.core.pricing.rate import Rate
from airflow_provider_batch.core.pricing.sampling import RequestWeigher
from airflow_provider_batch.core.pricing.spread import input_range, output_range, with_earlier_answers
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens.request import RequestTokens, estimate_request

#: output tokens of an answer at the low end of an estimate
LOW_OUTPUT = 10

#: high end of the output tokens of an answer without a cap, or the tokens of the prompt's texts if that is higher
HIGH_OUTPUT = 1_000

#: maximum mean output tokens of requests without a cap: few models write more than this in one answer
MAX_OUTPUT = 128_000

_WITHOUT_OUTPUT = ("/v1/embeddings", "/v1/moderations")


class _ModelTotals:
    """The totals of the requests to a model."""

    def __init__(self, rate: Rate | None, weigher: RequestWeigher) -> None:
        self.rate, self.weigher = rate, weigher
        self.requests = self.input_tokens = self.low_output = self.high_output = 0
        #: whether every request has an output cap, and whether any has an image, a sound or a file
        self.is_capped, self.has_media = True, False
        #: surcharges for large requests on top of the linear price, in US dollars, at the low and at the high end
        self.surcharges = [Decimal(0), Decimal(0)]

    def cost(self, end: int, output_tokens: int, input_factor: float) -> Decimal:
        """Return the cost in US dollars with the surcharges of one end, for this many times the input tokens."""
        if self.rate is None:
            return Decimal(0)
        factor = Decimal(str(input_factor))
        return self.surcharges[end] * factor + linear_cost(
            self.rate, round(self.input_tokens * factor), 0, output_tokens
        )


class Estimator:
    """Adds up the estimated tokens and the estimated cost of the requests of a job."""

    def __init__(self, prices: Prices, endpoint: str, max_tokens: int | None = None) -> None:
        """`max_tokens` is the maximum number of input tokens in a request; None if there is none."""
        self._prices, self._max_tokens = prices, max_tokens
        self._has_output = endpoint not in _WITHOUT_OUTPUT
        self._totals: dict[str, _ModelTotals] = {}

    def add(self, requests: Sequence[Request], lots: Sequence[int]) -> list[int]:
        """Add requests. Return the estimated input tokens of each, at least one per input.

        :param lots: a number below 2**32 for each request, drawn by its content (see `core.pricing.sampling`).
        """
        tokens: list[int] = []
        for model, pairs in groupby(zip(requests, lots, strict=True), lambda pair: pair[0].model):
            totals = self._totals.get(model) or self._start_totals(model)
            model_requests, model_lots = zip(*pairs, strict=True)
            tokens += self._add(totals, model_requests, model_lots)
        return tokens

    def _start_totals(self, model: str) -> _ModelTotals:
        rate = self._prices.rate(model)
        limits = [self._max_tokens, None if rate is None else rate.max_input_tokens]
        max_tokens = min((limit for limit in limits if limit is not None), default=None)
        weigher = RequestWeigher(self._prices.served_model(model), max_tokens)
        totals = self._totals[model] = _ModelTotals(rate, weigher)
        return totals

    def _add(self, totals: _ModelTotals, requests: Sequence[Request], lots: Sequence[int]) -> list[int]:
        """Add requests to one model. Return the estimated input tokens of each."""
        all_tokens: list[int] = []
        max_tokens = sys.maxsize if totals.rate is None else totals.rate.max_input_tokens or sys.maxsize
        has_output, low, high = self._has_output, 0, 0
        for request, estimate in zip(requests, totals.weigher.weigh(requests, lots), strict=True):
            tokens = max(estimate.input_tokens, request.inputs)
            all_tokens.append(tokens)
            if estimate.media:
                totals.has_media = True
            if has_output:
                high = _high_output(estimate)
                low = min(estimate.choices * LOW_OUTPUT, high)
                totals.low_output += low
                totals.high_output += high
                if estimate.cap is None:
                    totals.is_capped = False
            if tokens > max_tokens:
                self._add_surcharges(totals, request.model, tokens, (low, high))
        totals.requests += len(requests)
        totals.input_tokens += sum(all_tokens)
        return all_tokens

    def _add_surcharges(self, totals: _ModelTotals, model: str, tokens: int, outputs: tuple[int, int]) -> None:
        """Record what a large request costs beyond the linear price, which `finish` applies to all tokens."""
        assert totals.rate is not None
        for end, output in enumerate(outputs):
            cost = self._prices.cost(model, Usage(input_tokens=tokens, output_tokens=output))
            assert cost is not None
            totals.surcharges[end] += cost - linear_cost(totals.rate, tokens, 0, output)

    def outputs(self) -> dict[str, float]:
        """Return, by model, the mean output tokens of a request at the high end."""
        return {model: totals.high_output / totals.requests for model, totals in self._totals.items()}

    def caps(self) -> dict[str, float]:
        """Return, by model, the mean output cap of a request, for models of which every request has a cap."""
        return {
            model: totals.high_output / totals.requests for model, totals in self._totals.items() if totals.is_capped
        }

    def media_models(self) -> list[str]:
        """Return the models to which any request has an image, a sound or a file."""
        return sorted(model for model, totals in self._totals.items() if totals.has_media)

    def finish(
        self, earlier: Mapping[str, OutputSample] | None = None, input_factors: Mapping[str, float] | None = None
    ) -> Estimate:
        """Return the estimate of all requests. Its cost is None if the price of any model is unknown.

        :param earlier: by model, the output of answers in earlier jobs. It replaces the guess.
        :param input_factors: by model, reported divided by estimated input tokens in earlier jobs.
        """
        earlier, input_factors = earlier or {}, input_factors or {}
        caps = self.caps()
        low = likely = high = Decimal(0)
        input_tokens, output, answers, is_likely = 0, [0, 0], 0, True
        for model, totals in self._totals.items():
            low_output, high_output = totals.low_output, totals.high_output
            likely_output = 0
            if self._has_output and model in earlier:
                sample = with_earlier_answers(OutputSample(), earlier[model])
                low_output, likely_output, high_output = _output_tokens(
                    RemainingRequests(totals.requests, 0, outputs=sample, output_cap=caps.get(model))
                )
                answers += round(earlier[model].answers)
            elif self._has_output:
                is_likely = False
            factor = input_factors.get(model, 1.0)
            input_tokens += correct(totals.input_tokens, factor)
            output[0] += low_output
            output[1] += high_output
            if totals.rate is not None:
                low_factor, high_factor = input_range(InputSample(), totals.requests)
                low += totals.cost(0, low_output, factor * low_factor)
                likely += totals.cost(0, likely_output, factor)
                high += totals.cost(1, high_output, factor * high_factor)
        unknown_models = sorted(model for model, totals in self._totals.items() if totals.rate is None)
        return Estimate(
            input_tokens=input_tokens,
            output_tokens_low=output[0],
            output_tokens_high=output[1],
            low_usd=None if unknown_models else float(low),
            high_usd=None if unknown_models else float(high),
            likely_usd=float(likely) if is_likely and not unknown_models else None,
            unknown_models=unknown_models,
            counted_requests=sum(totals.weigher.counter.counted_requests for totals in self._totals.values()),
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


def highest_cost(
    prices: Prices, endpoint: str, model: str, body: bytes, tokens: int, lane: Lane = Lane.STANDARD
) -> Decimal | None:
    """Return the cost of a request in a lane and at the high end, in US dollars; None if unknown.

    :param tokens: the estimated input tokens of the request.
    """
    output = 0 if endpoint in _WITHOUT_OUTPUT else _high_output(estimate_request(body, prices.served_model(model)))
    return prices.cost(model, Usage(input_tokens=tokens, output_tokens=output), lane=lane)


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
    #: the answers by which these requests are estimated
    outputs: OutputSample = OutputSample()
    inputs: InputSample = InputSample()
    #: mean output cap of the requests; None if not every request has one
    output_cap: float | None = None


def estimate_after_canary(
    initial: Estimate, prices: Prices, models: Mapping[str, tuple[CanaryUsage, RemainingRequests]], endpoint: str
) -> Estimate:
    """Return the estimate of a job after its canary, including the cost of the canary.

    The remaining requests of a model are estimated by its answers. If there are none, these requests get their share of
    the range in `initial`.
    """
    requests = sum(remaining.requests + usage.answers for usage, remaining in models.values())
    has_output = endpoint not in _WITHOUT_OUTPUT
    #: at the low end, most likely, and at the high end
    output = [0, 0, 0]
    usd = [Decimal(0), Decimal(0), Decimal(0)]
    is_likely = True
    for model, (usage, remaining) in models.items():
        if not has_output or not remaining.requests:
            outputs = (0, 0, 0)
        elif remaining.outputs.answers:
            outputs = _output_tokens(remaining)
        else:
            share, is_likely = remaining.requests / requests, False
            outputs = (round(initial.output_tokens_low * share), 0, round(initial.output_tokens_high * share))
        low, high = input_range(remaining.inputs, max(remaining.requests, 1))
        for end, factor in enumerate((low, 1.0, high)):
            output[end] += usage.output_tokens + outputs[end]
            input_tokens = round(remaining.input_tokens * factor)
            usd[end] += (usage.cost or 0) + _remaining_cost(
                prices, model, remaining.requests, input_tokens, outputs[end]
            )
    has_prices = initial.low_usd is not None and all(usage.cost is not None for usage, _ in models.values())
    return msgspec.structs.replace(
        initial,
        input_tokens=sum(usage.input_tokens + remaining.input_tokens for usage, remaining in models.values()),
        output_tokens_low=output[0],
        output_tokens_high=output[2],
        low_usd=float(usd[0]) if has_prices else None,
        high_usd=float(usd[2]) if has_prices else None,
        likely_usd=float(usd[1]) if has_prices and is_likely else None,
        earlier_answers=0,
    )


def _output_tokens(remaining: RemainingRequests) -> tuple[int, int, int]:
    """Return the output tokens of requests at the low end, most likely, and at the high end."""
    low, high = output_range(remaining.outputs, remaining.requests)
    cap = max(MAX_OUTPUT, remaining.outputs.mean) if remaining.output_cap is None else remaining.output_cap
    low, likely, high = (round(remaining.requests * min(mean, cap)) for mean in (low, remaining.outputs.mean, high))
    return low, likely, high


def _remaining_cost(prices: Prices, model: str, requests: int, input_tokens: int, output_tokens: int) -> Decimal:
    rate = prices.rate(model)
    if rate is None or not requests:
        return Decimal(0)
    if rate.max_input_tokens is not None and input_tokens > rate.max_input_tokens * requests:
        # the average request is a large one, and large requests cost more
        usage = Usage(input_tokens=input_tokens // requests, output_tokens=output_tokens // requests)
        return (prices.cost(model, usage) or Decimal(0)) * requests
    return linear_cost(rate, input_tokens, 0, output_tokens)
