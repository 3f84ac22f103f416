"""What the collected answers of a job used and cost, and why rows did not succeed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from airflow_provider_batch.core.answers.outcome import STORAGE, Answer, Outcome
from airflow_provider_batch.core.ledger.job import Manifest, Shard
from airflow_provider_batch.core.ledger.records import Reason
from airflow_provider_batch.core.pricing.prices import Prices, Usage

#: what the cost of an answer depends on: its usage, its model, its service tier; and whether the answer is lost
_Kind = tuple[Usage, str | None, str | None, bool]
#: number of kinds held in memory, which are added to the totals together
_MAX_KINDS = 4096


class Totals:
    """The totals of a landing, to which it adds its answers chunk by chunk."""

    def __init__(self, manifest: Manifest) -> None:
        self._prices = Prices(manifest.prices, manifest.price_list)
        #: number of answers of the current shard by kind, and what an answer of each kind cost
        self._counts: Counter[_Kind] = Counter()
        self._costs: dict[_Kind, Decimal | None] = {}
        self._reasons: Counter[tuple[Outcome, str, str]] = Counter()
        #: by error code: the message of the first row that could not be sent
        self._invalid_messages: dict[str, str] = {}
        self.tokens: Counter[str] = Counter()
        #: number of requests whose cost is unknown, because the answer does not report its usage or never arrived
        self.without_usage = 0
        #: number of collected answers that used tokens, by lane
        self.lanes: Counter[str] = Counter()
        #: US dollars for every collected answer, including those replaced by a better one; None if a price or a usage
        #: is unknown
        self.cost: Decimal | None = Decimal(0)
        #: the same if cached input has every discount that it may have
        self.lowest_cost: Decimal | None = Decimal(0)
        #: US dollars that the same answers would cost at standard prices; None if a price or a usage is unknown
        self.standard_cost: Decimal | None = Decimal(0)
        #: number of requests in attempts after the first
        self.retried = 0
        #: US dollars for their answers; None if a price or a usage is unknown
        self.retried_cost: Decimal | None = Decimal(0)

    def add(self, shard: Shard, answers: Sequence[Answer]) -> list[Decimal | None]:
        """Add answers of a shard and return their costs in US dollars, None if a price or a usage is unknown.

        `complete` must be called after the last answers of the shard.
        """
        kinds = [
            (
                answer.usage,
                answer.model,
                answer.service_tier,
                answer.outcome is not Outcome.SUCCEEDED and answer.is_lost,
            )
            for answer in answers
        ]
        self._counts.update(kinds)
        for kind in self._counts.keys() - self._costs.keys():
            self._costs[kind] = self._cost(shard, *kind[:3])
        costs = [self._costs[kind] for kind in kinds]
        if len(self._counts) > _MAX_KINDS:
            self.complete(shard)
        return costs

    def complete(self, shard: Shard) -> None:
        """Complete the totals with the answers of a shard that were added."""
        for (usage, answered_by, tier, is_lost), count in self._counts.items():
            self._add_usage(shard, usage, answered_by, tier, count, is_lost=is_lost)
        self._counts.clear()
        self._costs.clear()

    def _add_usage(
        self, shard: Shard, usage: Usage, answered_by: str | None, tier: str | None, count: int, *, is_lost: bool
    ) -> None:
        """Add `count` answers with this usage."""
        self.tokens["input"] += (usage.input_tokens or 0) * count
        self.tokens["cached"] += (usage.cached_tokens or 0) * count
        self.tokens["reasoning"] += (usage.reasoning_tokens or 0) * count
        self.tokens["output"] += (usage.output_tokens or 0) * count
        cost = self._cost(shard, usage, answered_by, tier)
        if cost is None and not usage.is_known:
            self.without_usage += count
        self.cost = _add_costs(self.cost, cost, count)
        if shard.attempt > 1:
            self.retried_cost = _add_costs(self.retried_cost, cost, count)
        if not usage.is_zero:
            lane = shard.lane.of_answer(tier)
            if not is_lost:
                self.lanes[lane.value] += count
            lowest_cost = self._prices.lowest_cost(shard.model, usage, answered_by=answered_by, lane=lane)
            self.lowest_cost = _add_costs(self.lowest_cost, lowest_cost, count)
            standard_cost = self._prices.standard_cost(shard.model, usage, answered_by=answered_by)
            self.standard_cost = _add_costs(self.standard_cost, standard_cost, count)

    def cost_of(self, shard: Shard, answer: Answer) -> Decimal | None:
        """Return the cost of an answer in US dollars, or None if its price or usage is unknown. Add nothing."""
        return self._cost(shard, answer.usage, answer.model, answer.service_tier)

    def _cost(self, shard: Shard, usage: Usage, answered_by: str | None, tier: str | None) -> Decimal | None:
        if usage.is_zero:
            return Decimal(0)
        lane = shard.lane.of_answer(tier)
        return self._prices.cost(shard.model, usage, answered_by=answered_by, lane=lane)

    def add_reason(self, answer: Answer) -> None:
        """Count why a row did not succeed."""
        if answer.error_code:
            message = _loggable_message(answer)
            if answer.outcome is Outcome.INVALID_INPUT:
                # each message names another file, so that one stands for all of them
                message = self._invalid_messages.setdefault(answer.error_code, message)
            self._reasons[(answer.outcome, answer.error_code, message)] += 1

    def most_common_reasons(self, count: int) -> list[Reason]:
        """Return why rows did not succeed, most frequent first, with the first 200 characters of each message."""
        return [
            Reason(outcome.value, code, message, rows)
            for (outcome, code, message), rows in self._reasons.most_common(count)
        ]


def _add_costs(total: Decimal | None, cost: Decimal | None, count: int) -> Decimal | None:
    """Return the total with `count` equal costs added, or None (unknown) if one of both is unknown."""
    return None if total is None or cost is None else total + cost * count


def _loggable_message(answer: Answer) -> str:
    """Return what logs and job summaries may say about a failed row: the provider's words, never the model's."""
    if answer.outcome in (Outcome.REFUSED, Outcome.INVALID_OUTPUT) and answer.error_code != STORAGE:
        return "the model's words are in the row's error_message and output"
    return (answer.error_message or "")[:200]
