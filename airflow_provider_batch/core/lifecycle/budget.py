"""What a job has spent, what it may still spend, and which shards are within that.

Nothing is created past the ceiling: what was spent, what is reserved for batches that run, and what the next one is
reserved for must stay within it. Spent is counted from the usage of collected answers. Reserved is an estimate:

    input     the estimated input tokens of the shard
    output    before anything of the model was answered, the high end of the estimate: each request's own cap, or what
              stands in for one; then the measured mean, with a margin that shrinks with the number of answers n: 1/√n.
              Requests whose cap was raised are reserved for up to that cap: what was cut off is longer than the mean

The high end, because a ceiling is a promise: at the low end (a few tokens an answer) a job could pass it many times
over before the first answer tells. So that a job whose ceiling lies between the two ends still begins, a shard that is
not within what is left is divided, and its first part is asked and measured.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from math import ceil, sqrt

from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.pricing.estimate import HIGH_OUTPUT
from airflow_provider_batch.core.pricing.prices import Prices, Usage

#: a shard is divided only if a part of at least this share of it is within the budget
SMALLEST_PART = 0.1


class BudgetTracker:
    """What is left of a job's budget, in US dollars."""

    def __init__(self, state: JobState) -> None:
        self._prices = Prices(state.manifest.prices)
        self._high = state.manifest.output_tokens_high
        self._answered: defaultdict[str, int] = defaultdict(int)
        self._output: defaultdict[str, int] = defaultdict(int)
        for shard, _, settled in state.settled_submissions():
            self._answered[shard.model] += settled.answers
            self._output[shard.model] += settled.output_tokens
        self.spent, self.reserved = Decimal(0), Decimal(0)
        for shard, _, settled in state.settled_submissions():
            unknown = settled.cost_usd is None
            self.spent += self.reservation(shard.spec) if unknown else Decimal(settled.cost_usd or 0)
        for shard in state.shards.values():
            if shard.phase in (Phase.CREATING, Phase.LIVE):
                self.reserved += self.reservation(shard.spec)
        self.ceiling = None if state.ceiling is None else Decimal(str(state.ceiling))

    @property
    def remaining(self) -> Decimal | None:
        """What may still be reserved; None without a ceiling."""
        return None if self.ceiling is None else self.ceiling - self.spent - self.reserved

    def reservation(self, shard: Shard) -> Decimal:
        """What is reserved for a shard; infinite if no price is known."""
        usage = Usage(input_tokens=-(-shard.tokens // max(shard.requests, 1)), output_tokens=self._expected(shard))
        cost = self._prices.cost(shard.model, usage)
        return Decimal("Infinity") if cost is None else cost * shard.requests

    def _expected(self, shard: Shard) -> int:
        """Output tokens that one request is reserved for."""
        high, answered = self._high.get(shard.model, HIGH_OUTPUT) * shard.cap_factor, self._answered[shard.model]
        if not answered or shard.cap_factor > 1:
            return ceil(high)
        mean = self._output[shard.model] / answered
        padded = mean * (1 + 1 / sqrt(answered))
        return ceil(min(high, padded) if mean <= high else padded)

    def split_affordable(self, shards: list[ShardState]) -> tuple[list[ShardState], list[ShardState]]:
        """The shards that are within what is left, in this order, and those that are not."""
        left = self.remaining
        if left is None:
            return shards, []
        within, over = [], []
        for shard in shards:
            cost = self.reservation(shard.spec)
            if cost <= left:
                left -= cost
                within.append(shard)
            else:
                over.append(shard)
        return within, over

    def affordable_requests(self, shard: Shard) -> int:
        """How many requests of a shard that is not within what is left are; 0 if they are not worth dividing it."""
        cost, left = self.reservation(shard), self.remaining
        if left is None or shard.requests < 2 or not cost.is_finite() or left <= 0:
            return 0
        rows = min(int(left / cost * shard.requests), shard.requests - 1)
        return rows if rows >= shard.requests * SMALLEST_PART else 0
