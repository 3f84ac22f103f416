"""What each row of a job used over all its attempts, so that sums over the results table are what was paid.

Only rows that were paid for more than once are held in memory. The answers of earlier attempts are read before the
landing begins, because the newest attempt lands first. Only submissions that were paid for an answer without a success
are read; other failures cost nothing.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.pricing.prices import Usage


class Spending(NamedTuple):
    """Tokens, and their cost in US dollars; None if unknown."""

    usage: Usage
    cost: Decimal | None


def add_spending(first: Spending, second: Spending) -> Spending:
    """Return the sum. What is unknown in one of them is unknown in the sum."""
    numbers = zip(msgspec.structs.astuple(first.usage), msgspec.structs.astuple(second.usage), strict=True)
    usage = Usage(*(None if None in pair else sum(pair) for pair in numbers))
    cost = None if first.cost is None or second.cost is None else first.cost + second.cost
    return Spending(usage, cost)


class RowSpending:
    """The spending of rows that were paid for in several attempts."""

    def __init__(self) -> None:
        #: by the shard in which a row was sealed, and its line there
        self._totals: dict[tuple[str, int], Spending] = {}

    def __bool__(self) -> bool:
        return bool(self._totals)

    def add(self, shard: Shard, row: RowIndex, line: int, spending: Spending) -> None:
        """Add what one attempt of a row used."""
        key = _key(shard, row, line)
        earlier = self._totals.get(key)
        self._totals[key] = spending if earlier is None else add_spending(earlier, spending)

    def total(self, shard: Shard, row: RowIndex, line: int, spending: Spending, *, is_added: bool) -> Spending:
        """Return what a row used in all attempts.

        :param spending: what the attempt used whose answer lands.
        :param is_added: whether that is already part of the sum.
        """
        total = self._totals.get(_key(shard, row, line))
        if total is None:
            return spending
        return total if is_added else add_spending(total, spending)


def _key(shard: Shard, row: RowIndex, line: int) -> tuple[str, int]:
    return (row.origin, row.line) if row.origin else (shard.name, line)


def superseded_submissions(state: JobState) -> set[tuple[str, int]]:
    """Return the (shard name, submission number) of the submissions after which some of their rows were sent again."""
    newest = {shard.name: settled.number for shard, _, settled in state.settled_submissions()}
    return {
        (shard.name, settled.number)
        for shard, _, settled in state.settled_submissions()
        if settled.number < newest[shard.name] or (shard.name, settled.number) in state.retried_submissions
    }


def has_unusable_paid_answers(settled: Settled) -> bool:
    """Return whether some answers of a submission may have been paid for without being a success."""
    return settled.cost_usd is None or settled.answers > settled.outcomes.get(Outcome.SUCCEEDED, 0)
