"""The budget of a job: what it has spent, what is reserved, and which shards the rest can pay for.

No batch is created that could take the job past its ceiling:

    |◄──────────────────────── max_cost_usd ────────────────────────►|
    |  spent              |  reserved                |  remaining    |
    |  answers collected  |  batches that run        |  ◄ next shard |

*Spent* is computed from the usage that the provider reported for collected answers. *Reserved* is an estimate, because
a batch reports nothing while it runs. When it settles, its real cost replaces the reservation. If that cost is unknown,
the reservation counts as spent. A shard reserves, for each of its requests:

    input     the estimated input tokens of the shard, on average, corrected by what the answers so far report
              (`core.pricing.input_correction`)
    output    as long as no answer of the model is collected: the high end of the estimate, which is the request's own
              output cap, or a default if it has none;
              after that: the mean of the answers so far, plus a margin of 1/√n of it for n answers, but at most the
              high end, unless the mean itself is higher. Requests whose output cap was raised reserve the high end,
              raised by the same factor, because an answer that was cut off is longer than the mean

The high end is reserved because the ceiling must hold. With the low end, a few tokens per answer, a job could exceed
its ceiling many times over before the first answer shows it.

A job whose ceiling lies between the two ends of its estimate must still be able to start. If nothing is running and the
budget covers only a part of a shard, but at least a tenth of it, the shard is divided. The first part is sent, and its
answers replace the estimate for the rest.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from math import ceil, sqrt

from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.pricing.estimate import HIGH_OUTPUT
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices, Usage

#: smallest share of a shard for which it is worth dividing the shard
SMALLEST_PART = 0.1


class BudgetTracker:
    """The budget of a job in US dollars: its ceiling, and what is spent and reserved."""

    def __init__(self, state: JobState) -> None:
        self._prices = Prices(state.manifest.prices, state.manifest.price_list)
        self._correction = InputCorrection(state)
        self._output_tokens_high = state.manifest.output_tokens_high
        self._answers: defaultdict[str, int] = defaultdict(int)
        self._output_tokens: defaultdict[str, int] = defaultdict(int)
        for shard, _, settled in state.settled_submissions():
            self._answers[shard.model] += settled.answers
            self._output_tokens[shard.model] += settled.output_tokens
        self.spent, self.reserved = Decimal(0), Decimal(0)
        for shard, _, settled in state.settled_submissions():
            is_unknown = settled.cost_usd is None
            self.spent += self.reservation(shard.spec) if is_unknown else Decimal(settled.cost_usd or 0)
        for shard in state.shards.values():
            if shard.phase in (Phase.CREATING, Phase.LIVE):
                self.reserved += self.reservation(shard.spec)
        self.ceiling = None if state.ceiling is None else Decimal(str(state.ceiling))

    @property
    def remaining(self) -> Decimal | None:
        """US dollars that can still be reserved, or None if there is no ceiling."""
        return None if self.ceiling is None else self.ceiling - self.spent - self.reserved

    def reservation(self, shard: Shard) -> Decimal:
        """Return the US dollars to reserve for a shard; infinite if the price of its model is unknown."""
        mean_input_tokens = -(-shard.tokens // max(shard.requests, 1))
        input_tokens = self._correction.correct(shard.model, mean_input_tokens)
        usage = Usage(input_tokens=input_tokens, output_tokens=self._expected_output_tokens(shard))
        cost = self._prices.cost(shard.model, usage, lane=shard.lane)
        return Decimal("Infinity") if cost is None else cost * shard.requests

    def _expected_output_tokens(self, shard: Shard) -> int:
        """Return the output tokens to reserve for one request of a shard."""
        high = self._output_tokens_high.get(shard.model, HIGH_OUTPUT) * shard.cap_factor
        answers = self._answers[shard.model]
        if not answers or shard.cap_factor > 1:
            return ceil(high)
        mean = self._output_tokens[shard.model] / answers
        with_margin = mean * (1 + 1 / sqrt(answers))
        return ceil(min(high, with_margin) if mean <= high else with_margin)

    def split_affordable(self, shards: list[ShardState]) -> tuple[list[ShardState], list[ShardState]]:
        """Return the shards that the budget covers, taken in this order, and the others."""
        remaining = self.remaining
        if remaining is None:
            return shards, []
        affordable, unaffordable = [], []
        for shard in shards:
            cost = self.reservation(shard.spec)
            if cost <= remaining:
                remaining -= cost
                affordable.append(shard)
            else:
                unaffordable.append(shard)
        return affordable, unaffordable

    def affordable_requests(self, shard: Shard) -> int:
        """Return how many requests of an unaffordable shard the budget covers; 0 if too few to divide the shard."""
        cost, remaining = self.reservation(shard), self.remaining
        if remaining is None or shard.requests < 2 or not cost.is_finite() or remaining <= 0:
            return 0
        requests = min(int(remaining / cost * shard.requests), shard.requests - 1)
        return requests if requests >= shard.requests * SMALLEST_PART else 0
