"""The budget of a job: what it has spent, what is reserved, and which shards the rest can pay for.

No batch is created that could take the job past its ceiling:

    |◄──────────────────────── max_cost_usd ────────────────────────►|
    |  spent              |  reserved                |  remaining    |
    |  answers collected  |  batches that run        |  ◄ next shard |

*Spent* is computed from the usage that the provider reported for collected answers. *Reserved* is an estimate, because
a batch reports nothing while it runs. When it settles, its real cost replaces the reservation. If that cost is unknown,
the expected cost counts as spent. A shard is expected to cost, for each of its requests:

    input     the estimated input tokens of the shard, on average, corrected by what the answers so far report, or by
              what earlier jobs of the task learned (`core.pricing.input_correction`)
    output    as long as no answer of the model is collected: the high end of the estimate, which is the request's own
              output cap, or a default if it has none; after that, the mean of the answers so far. Requests whose
              output cap was raised count with the high end, raised by the same factor, because an answer that was cut
              off is longer than the mean

The high end counts because the ceiling must hold. With the low end, a few tokens per answer, a job could exceed its
ceiling many times over before the first answer shows it.

A reservation is larger than that. Its margin on top of what is expected, after n answers of the model, is the larger
of two:

    requests like those answered so far      2/√n times: two standard errors of sizes that vary as much as their mean
    requests unlike them                     (15 / (n + 1))² times: rows with images after rows of text, or long
                                             answers after short ones, which nothing shows before they are answered

    n                       0      1      2      5      10     30     100    1,000
    reserved: like          –      3×     2.4×   1.9×   1.6×   1.4×   1.2×   1.06×   what is expected
    reserved: unlike        226×   57×    26×    7.3×   2.9×   1.4×   1.2×   1.06×   what is expected

The second applies to the output, up to its cap. It applies to the input as long as there are no answers, and to a model
whose requests have images, sounds or files, and then to at least 1,000 tokens. The tokens of mere text are known well
enough: once a few answers correct their estimate, others are off by little. If earlier jobs of the task had a factor
for the input, it counts like two answers, and like a hundred more once this job's own answers confirm it within a
factor of two.

Shards whose reservations fit are sent at once. For a job whose ceiling is far above its estimate, these are all. If
nothing is running and the reservation of a shard does not fit, the shard is divided: a first part is sent, with rows
from all over the shard, and its answers replace the estimate for the rest. The part is as large as the reservation
allows, and one request if it allows none. A shard is no longer divided when less than a tenth of it could be paid for.

The guarantee that follows: as long as the mean cost of the requests that run is at most as many times what was expected
of them as the table says, the job never costs more than its ceiling. If it is k times what the table says, the batches
that run at that time cost k times what was left of the ceiling, and nothing is sent after them. The only shard that may
be sent without its full reservation is a single request, alone, if no smaller one is possible, and in the final pass
one shard of few requests at a time (`SHARD_REQUESTS`).

A job can also be under budgets that it shares with other jobs (`shared_budget.py`). It reserves less from these, since
it would otherwise keep the others waiting: at most twice what is expected, once there are answers. As long as there are
none, and the reservation does not fit, a first part is sent that reserves at most a tenth of what is left.
"""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal
from math import ceil, sqrt
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.formatting import format_usd
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState
from airflow_provider_batch.core.lifecycle.shared_budget import SharedBudget
from airflow_provider_batch.core.pricing.estimate import HIGH_OUTPUT
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices, Usage

#: smallest share of a shard for which it is worth dividing the shard
SMALLEST_PART = 0.1
#: A model with this many answers less one has a margin of 1: it reserves twice what is expected.
DOUBLING_ANSWERS = 15
#: number of answers that a factor of earlier jobs counts for: on its own, and once answers of this job confirm it
EARLIER_ANSWERS, CONFIRMED_ANSWERS = 2, 100
#: input tokens of a request that is unlike those answered so far, if it is short itself
UNLIKE_TOKENS = 1_000
#: how many times longer than the high estimate an answer without an output cap may be
UNCAPPED_FACTOR = 25

#: how many times its expected cost a batch reserves from shared budgets at most, once there are answers
MAX_SHARED_MARGIN = 2
#: share of what shared budgets leave that the first part of a job reserves at most, as long as there are no answers
FIRST_PART = Decimal("0.1")

#: outcomes of rows that no model answered
_UNANSWERED = frozenset({Outcome.FAILED, Outcome.EXPIRED, Outcome.CANCELLED, Outcome.MISSING})


class Ceiling(NamedTuple):
    """A maximum cost, in US dollars, and how it is named in a message."""

    name: str
    usd: float

    def __str__(self) -> str:
        return f"{self.name} is {format_usd(self.usd)}"


def ceilings_of(
    max_cost_usd: float | None, max_run_cost_usd: float | None, connection_budget: SharedBudget | None
) -> list[Ceiling]:
    """Return the ceilings that a job is under, as far as they are set."""
    ceilings = [
        *([] if max_cost_usd is None else [Ceiling("max_cost_usd", max_cost_usd)]),
        *([] if max_run_cost_usd is None else [Ceiling("max_run_cost_usd", max_run_cost_usd)]),
    ]
    if connection_budget is not None:
        name = f"the budget per {connection_budget.per} of {connection_budget.owner}"
        ceilings.append(Ceiling(name, float(connection_budget.usd)))
    return ceilings


class BudgetTracker:
    """The budget of a job in US dollars: its ceiling, and what is spent and reserved."""

    def __init__(self, state: JobState) -> None:
        self._prices = Prices(state.manifest.prices, state.manifest.price_list)
        self._correction = InputCorrection(state)
        self._earlier_factors = state.manifest.input_factors
        self._output_tokens_high = state.manifest.output_tokens_high
        self._capped_models = frozenset(state.manifest.output_caps)
        self._media_models = frozenset(state.manifest.media_models)
        #: by model: answers, those that report their output tokens, and these tokens
        self._answers: defaultdict[str, int] = defaultdict(int)
        self._measured_answers: defaultdict[str, int] = defaultdict(int)
        self._output_tokens: defaultdict[str, int] = defaultdict(int)
        for shard, _, settled in state.settled_submissions():
            self._answers[shard.model] += _answers_of(settled)
            self._measured_answers[shard.model] += settled.answers
            self._output_tokens[shard.model] += settled.output_tokens
        self.spent, self.reserved = Decimal(0), Decimal(0)
        for shard, _, settled in state.settled_submissions():
            is_unknown = settled.cost_usd is None
            self.spent += self.expected_cost(shard.spec) if is_unknown else Decimal(settled.cost_usd or 0)
        for shard in state.shards.values():
            for _ in shard.lost_sendings:
                self.spent += self.expected_cost(shard.spec)
            if shard.phase in (Phase.CREATING, Phase.LIVE):
                self.reserved += self.reservation(shard.spec)
        self.ceiling = None if state.ceiling is None else Decimal(str(state.ceiling))

    @property
    def remaining(self) -> Decimal | None:
        """US dollars that can still be reserved, or None if there is no ceiling."""
        return None if self.ceiling is None else self.ceiling - self.spent - self.reserved

    def margins(self, model: str) -> tuple[float, float]:
        """Return by how much the tokens of requests may exceed what is expected, as multiples of it.

        The first multiple is for requests that are unlike those answered so far, the second for requests like them.
        """
        answers = self._answers[model]
        earlier_factor = self._earlier_factors.get(model)
        if earlier_factor is not None:
            is_confirmed = 0.5 <= self._correction.factor(model) / earlier_factor <= 2
            answers = answers + CONFIRMED_ANSWERS if answers and is_confirmed else max(answers, EARLIER_ANSWERS)
        return (DOUBLING_ANSWERS / (answers + 1)) ** 2, 2 / sqrt(answers) if answers else 0.0

    def expected_cost(self, shard: Shard) -> Decimal:
        """Return the US dollars that a shard is expected to cost; infinite if the price of its model is unknown."""
        return self._cost(shard, self._mean_input_tokens(shard), self._expected_output_tokens(shard))

    def reservation(self, shard: Shard) -> Decimal:
        """Return the US dollars to reserve for a shard; infinite if the price of its model is unknown."""
        return self._cost(shard, self._reserved_input_tokens(shard), self._reserved_output_tokens(shard))

    def _cost(self, shard: Shard, input_tokens: int, output_tokens: int) -> Decimal:
        """Return the cost of a shard whose requests have this many tokens on average."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        cost = self._prices.cost(shard.model, usage, lane=shard.lane)
        return Decimal("Infinity") if cost is None else cost * shard.requests

    def _mean_input_tokens(self, shard: Shard) -> int:
        return self._correction.correct(shard.model, -(-shard.tokens // max(shard.requests, 1)))

    def _reserved_input_tokens(self, shard: Shard) -> int:
        """Return the input tokens to reserve for one request of a shard."""
        mean, (unlike, like) = self._mean_input_tokens(shard), self.margins(shard.model)
        if self._answers[shard.model] and shard.model not in self._media_models:
            return ceil(mean * (1 + like))
        return ceil(mean + max(unlike * max(mean, UNLIKE_TOKENS), like * mean))

    def _high_output_tokens(self, shard: Shard) -> float:
        return self._output_tokens_high.get(shard.model, HIGH_OUTPUT) * shard.cap_factor

    def _is_output_measured(self, shard: Shard) -> bool:
        """Return whether the answers so far show how long those of a shard will be."""
        return self._measured_answers[shard.model] > 0 and shard.cap_factor == 1

    def _expected_output_tokens(self, shard: Shard) -> int:
        if not self._is_output_measured(shard):
            return ceil(self._high_output_tokens(shard))
        return ceil(self._output_tokens[shard.model] / self._measured_answers[shard.model])

    def _reserved_output_tokens(self, shard: Shard) -> int:
        """Return the output tokens to reserve for one request of a shard."""
        high = self._high_output_tokens(shard)
        is_uncapped = shard.model not in self._capped_models
        if not self._is_output_measured(shard):
            return ceil(high * UNCAPPED_FACTOR if is_uncapped and not self._answers[shard.model] else high)
        mean = self._output_tokens[shard.model] / self._measured_answers[shard.model]
        with_margin = mean * (1 + max(self.margins(shard.model)))
        return ceil(with_margin if is_uncapped or mean > high else min(high, with_margin))

    def split_affordable(self, shards: list[ShardState]) -> tuple[list[ShardState], list[ShardState]]:
        """Return the shards that the budget covers, taken in this order, and the others."""
        remaining = self.remaining
        if remaining is None:
            return shards, []
        affordable: list[ShardState] = []
        unaffordable: list[ShardState] = []
        for shard in shards:
            cost = self.reservation(shard.spec)
            is_alone = not self.reserved and not affordable
            if cost <= remaining or (is_alone and shard.requests == 1 and self._is_worth_a_request(shard.spec)):
                remaining -= cost
                affordable.append(shard)
            else:
                unaffordable.append(shard)
        return affordable, unaffordable

    def shared_reservation(self, shard: Shard) -> Decimal:
        """Return the US dollars to reserve for a shard from budgets that the job shares with others."""
        expected = self.expected_cost(shard)
        if shard.synchronous or shard.requests == 1:
            # a few requests whose cost is known at once, or a batch that cannot be smaller
            return expected
        reservation = self.reservation(shard)
        return min(reservation, expected * MAX_SHARED_MARGIN) if self._answers[shard.model] else reservation

    def split_by_amount(self, shards: list[ShardState], usd: Decimal) -> tuple[list[ShardState], list[ShardState]]:
        """Return the shards that an amount of shared budgets covers, taken in this order, and the others."""
        affordable: list[ShardState] = []
        unaffordable: list[ShardState] = []
        for shard in shards:
            cost = self.shared_reservation(shard.spec)
            if cost <= usd:
                usd -= cost
                affordable.append(shard)
            else:
                unaffordable.append(shard)
        return affordable, unaffordable

    def requests_within(self, shard: Shard, usd: Decimal) -> int:
        """Return how many requests of a shard to send first, within an amount of shared budgets; 0 if too few fit."""
        cost = self.shared_reservation(shard)
        if shard.requests < 2 or not cost.is_finite() or usd <= 0:
            return 0
        if self._answers[shard.model]:
            requests = min(int(usd / cost * shard.requests), shard.requests - 1)
            return requests if requests >= shard.requests * SMALLEST_PART else 0
        requests = min(int(usd * FIRST_PART / cost * shard.requests), shard.requests - 1)
        return max(requests, 1) if self.expected_cost(shard) / shard.requests <= usd else 0

    def next_synchronous(self, shards: list[ShardState]) -> list[ShardState]:
        """Return the shards of the final pass to send now: those that the budget covers, or else the first to fit.

        A shard has few requests, and its answers show what those of the next one cost.
        """
        affordable, unaffordable = self.split_affordable(shards)
        remaining = self.remaining
        if affordable or remaining is None:
            return affordable
        return [shard for shard in unaffordable if self.expected_cost(shard.spec) <= remaining][:1]

    def affordable_parts(self, shards: list[ShardState]) -> list[tuple[ShardState, int]]:
        """Return the unaffordable shards to divide, at most one per model, with the number of requests to send first.

        What is left of the budget is divided equally among the models.
        """
        by_model: dict[str, ShardState] = {}
        for shard in shards:
            if shard.requests > 1 and self._is_worth_a_request(shard.spec):
                by_model.setdefault(shard.model, shard)
        return [(shard, self._affordable_requests(shard.spec, len(by_model))) for shard in by_model.values()]

    def _affordable_requests(self, shard: Shard, models: int) -> int:
        cost, remaining = self.reservation(shard), self.remaining
        assert remaining is not None
        return min(max(int(remaining / models / cost * shard.requests), 1), shard.requests - 1)

    def _is_worth_a_request(self, shard: Shard) -> bool:
        """Return whether the expected costs of a part of a shard that is worth sending are left of the budget.

        As long as there is no answer, the costs are a guess. Then it is worth finding out with one request, unless the
        input of this request alone costs too much according to an estimate that no earlier job has corrected.
        """
        remaining = self.remaining
        assert remaining is not None
        if self._answers[shard.model]:
            cost = self.expected_cost(shard) * Decimal(max(SMALLEST_PART, 1 / shard.requests))
        else:
            cost = self._cost(shard, -(-shard.tokens // shard.requests), 0) / shard.requests
        return cost <= remaining and remaining > 0 and self.expected_cost(shard).is_finite()


def _answers_of(settled: Settled) -> int:
    """Return the number of answers that a model gave."""
    return settled.answers or sum(
        count for outcome, count in settled.outcomes.items() if Outcome(outcome) not in _UNANSWERED
    )
