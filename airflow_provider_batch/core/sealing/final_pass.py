"""The finish line: which rows are asked synchronously once the deadline is over, and what they may cost.

They are sealed as a wave. Its shards are small, so that a worker which is killed leaves few requests of which nobody
knows what came; a row that is not allowed is left where it is. If a source is allowed in part, its rest is sealed into
a shard that is not sent: so every row of it has one place, and a later wait can tell what was asked and what was not.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import RetryRound
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.attempts import final_pass_policy, is_retryable, next_attempt, retryable_rows
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.steps import FinalPass, Policy
from airflow_provider_batch.core.pricing.estimate import highest_cost
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.sealer import Sealer

#: rows that are asked unless the author says otherwise
DEFAULT_ROWS = 1_000
#: requests on their way at the same time; a shard holds no more
FINAL_PASS_CONCURRENCY = 16

#: what left a row, for a person
_WHY = {
    "at_deadline_rows": "more than at_deadline_rows allows",
    "max_cost_usd": "past max_cost_usd at the standard price",
    "unsettled": "in batches that had not ended, so that their answers may yet come",
}


class Allowance:
    """How many rows may still be asked, and what they may cost. The first that is over it is the last one looked at."""

    def __init__(self, rows: int, usd: Decimal | None) -> None:
        """`usd`: US dollars that are left; None: no ceiling."""
        self._rows, self._usd = rows, usd
        self._over = ""
        #: rows that were left, by why
        self.left_out: Counter[str] = Counter()

    @property
    def closed(self) -> bool:
        """Whether no further row is taken."""
        return bool(self._over)

    @property
    def has_ceiling(self) -> bool:
        """Whether the price of a row matters."""
        return self._usd is not None

    def take(self, cost: Decimal | None) -> bool:
        """Whether a row of this price may be asked; None is unknown, which no ceiling allows."""
        if not self._over and self._rows < 1:
            self._over = "at_deadline_rows"
        if not self._over and self._usd is not None and (cost is None or cost > self._usd):
            self._over = "max_cost_usd"
        if self._over:
            self.left_out[self._over] += 1
            return False
        self._rows -= 1
        if self._usd is not None and cost is not None:
            self._usd -= cost
        return True

    def leave(self, rows: int) -> None:
        """Leave rows without looking at them, as nothing is taken any more."""
        self.left_out[self._over] += rows


class _Source(NamedTuple):
    """Rows that may be asked."""

    shard: ShardState
    n: int
    #: lines of the shard's input file
    lines: Collection[int]
    attempt: int
    settled: bool


class _Request(msgspec.Struct):
    body: msgspec.Raw


def seal_final_pass(
    ledger: Ledger,
    step: FinalPass,
    policy: Policy,
    judge: SchemaJudge | None,
    claim: Callable[[ShardState, int], bool],
    now: datetime,
) -> RetryRound | None:
    """Seal the rows of the finish line as a wave; None if another worker sealed one meanwhile.

    :param claim: takes a shard that was never sent, so that no other worker sends it; False if one does.
    """
    state = ledger.state()
    if state.next_retry_round != step.number:
        return None
    line = _Line(ledger, state, Allowance(policy.at_deadline_rows, BudgetTracker(state).remaining))
    try:
        for shard, settled in step.settled_sources:
            if line.allowance.closed:
                line.allowance.leave(retryable_rows(settled, final_pass_policy(policy)))
                continue
            rows = read_rows(ledger.folder, shard.spec)
            answers = read_answers(ledger.folder, shard.spec, settled, rows, state.manifest.endpoint, judge)
            last = final_pass_policy(policy)
            lines = {at for at, answer in answers if rows[at].needed and is_retryable(answer, settled, last)}
            line.add(_Source(shard, settled.number, lines, next_attempt(shard, settled), settled=True), rows, claim)
        for shard in step.unsent_shards:
            if line.allowance.closed:
                line.allowance.leave(shard.requests - shard.spec.unneeded_rows)
                continue
            rows = read_rows(ledger.folder, shard.spec)
            lines = {at for at, row in enumerate(rows) if row.needed}
            line.add(_Source(shard, shard.next_number, lines, shard.spec.attempt, settled=False), rows, claim)
        retry_round = line.finish(step.unsettled_rows, now)
    finally:
        line.abandon()
    return retry_round if ledger.add(retry_round) else None


class _Line:
    """The wave while it is sealed."""

    def __init__(self, ledger: Ledger, state: JobState, allowance: Allowance) -> None:
        self.allowance = allowance
        self._folder, self._manifest = ledger.folder, state.manifest
        self._prices = Prices(state.manifest.prices)
        self._number = state.next_retry_round
        self._sources: list[tuple[str, int]] = []
        limits = self._manifest.limits
        small = min(limits.requests or FINAL_PASS_CONCURRENCY, FINAL_PASS_CONCURRENCY)
        prefix = f"{ledger.prefix}/retry-{self._number}-{secrets.token_hex(4)}"
        names = f"{self._number:02d}-{{:04d}}"
        self._asked = Sealer(
            self._folder,
            prefix,
            self._manifest.endpoint,
            msgspec.structs.replace(limits, requests=small),
            names=f"f{names}",
        )
        self._rest = Sealer(self._folder, prefix, self._manifest.endpoint, limits, names=f"r{names}")

    def add(self, source: _Source, rows: list[RowIndex], claim: Callable[[ShardState, int], bool]) -> None:
        """Seal what is allowed of a source, and its rest; nothing if nothing of it is."""
        taken = self._choose(source, rows)
        if not taken or not (source.settled or claim(source.shard, source.n)):
            return
        one = source.shard.spec
        self._sources.append((one.name, source.n))
        with self._folder.reader(one.file) as stream:
            for at, line in enumerate(stream):
                if at in source.lines:
                    row = rows[at]
                    origin = row if row.origin else msgspec.structs.replace(row, origin=one.name, line=at)
                    sealer = self._asked if at in taken else self._rest
                    sealer.add_line(
                        one.model, line, origin, inputs=row.inputs, tokens=row.tokens, attempt=source.attempt
                    )

    def _choose(self, source: _Source, rows: list[RowIndex]) -> set[int]:
        if not self.allowance.has_ceiling:
            return {at for at in sorted(source.lines) if self.allowance.take(None)}
        taken, model = set(), source.shard.model
        with self._folder.reader(source.shard.spec.file) as stream:
            for at, line in enumerate(stream):
                if at in source.lines:
                    body = bytes(msgspec.json.decode(line, type=_Request).body)
                    cost = highest_cost(self._prices, self._manifest.endpoint, model, body, rows[at].tokens)
                    if self.allowance.take(cost):
                        taken.add(at)
        return taken

    def finish(self, unsettled: int, now: datetime) -> RetryRound:
        """The wave, its files complete."""
        asked = [msgspec.structs.replace(shard, synchronous=True) for shard in self._asked.finish()]
        if unsettled:
            self.allowance.left_out["unsettled"] = unsettled
        left = dict(self.allowance.left_out)
        return RetryRound(
            self._number, self._sources, asked + self._rest.finish(), now, is_final_pass=True, left_out=left
        )

    def abandon(self) -> None:
        """Close the files if the wave is not complete."""
        self._asked.abandon()
        self._rest.abandon()


def describe_left_out(left: dict[str, int]) -> str:
    """Rows that the finish line left, and why."""
    return "; ".join(f"{rows:,} rows are left: {_WHY[why]}" for why, rows in left.items())
