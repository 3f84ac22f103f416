"""The final pass: rows that still need an answer at the cut-off are sent synchronously, within limits.

`seal_final_pass` decides which rows are sent, and seals them as a retry round with two kinds of shards:

* `f01-0001`, ...: rows to send now. These shards are small (`SHARD_REQUESTS`), so that a slow request holds up few
  others, and a worker that is killed leaves only a few requests whose outcome nobody knows.
* `r01-0001`, ...: the other rows of the same sources. They are not sent.

A source is one submission of a shard that failed for some rows, or a shard that was never sent. If none of its rows is
allowed, it stays as it is. If some are, all its rows that need an answer move to the new shards, including those that
are not sent. Every row is then in exactly one current shard, and a later wait can see which rows were sent and which
were not.

The `Allowance` says how many rows may be sent (`at_deadline_rows`) and what they may cost (what is left of
`max_cost_usd`, at the prices of the lane with the highest price that the author allows). With
`at_deadline="flex"`, rows of a model without the flex tier are left out.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.result_files import read_rows, read_unsuccessful
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import RetryRound
from airflow_provider_batch.core.ledger.sealed_file import open_sealed
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.attempts import final_pass_policy, is_retryable, next_attempt, retryable_rows
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.steps import SHARD_REQUESTS, FinalPass, Policy
from airflow_provider_batch.core.pricing.estimate import highest_cost
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.sealer import Sealer

#: rows that are sent unless the author states a number
DEFAULT_ROWS = 1_000
#: requests that are sent at the same time
FINAL_PASS_CONCURRENCY = 16

#: why rows were left out, for a person
_REASONS = {
    "at_deadline_rows": "at_deadline_rows allows no more",
    "max_cost_usd": "max_cost_usd does not cover more",
    "shared_budget": "a budget that the job shares with others does not cover more",
    "no_flex": "their model has no flex tier",
    "unsettled": "batches that had not ended may still return answers",
}


class Allowance:
    """How many more rows may be sent, and what they may cost. The first row that exceeds it ends the final pass."""

    def __init__(self, rows: int, usd: Decimal | None, limit: str = "max_cost_usd") -> None:
        """`usd`: US dollars that may still be spent, or None if there is no ceiling; `limit`: what limits them."""
        self._rows, self._usd, self._limit = rows, usd, limit
        self._exceeded_limit = ""
        #: number of rows left out, by reason
        self.left_out: Counter[str] = Counter()

    @property
    def closed(self) -> bool:
        """Whether no further row may be sent."""
        return bool(self._exceeded_limit)

    @property
    def has_ceiling(self) -> bool:
        """Whether the cost is limited, so that the price of each row must be known."""
        return self._usd is not None

    def take(self, cost: Decimal | None) -> bool:
        """Return whether a row may be sent, and count it.

        :param cost: US dollars, or None if unknown. Under a ceiling, a row of unknown cost is not sent.
        """
        if not self._exceeded_limit and self._rows < 1:
            self._exceeded_limit = "at_deadline_rows"
        if not self._exceeded_limit and self._usd is not None and (cost is None or cost > self._usd):
            self._exceeded_limit = self._limit
        if self._exceeded_limit:
            self.left_out[self._exceeded_limit] += 1
            return False
        self._rows -= 1
        if self._usd is not None and cost is not None:
            self._usd -= cost
        return True

    def leave_out(self, rows: int) -> None:
        """Count rows that are left out unread, once the allowance is closed."""
        self.left_out[self._exceeded_limit] += rows


class _Source(NamedTuple):
    """One submission of a shard with rows that may be sent."""

    shard: ShardState
    #: number of the submission
    submission: int
    #: lines of the shard's input file, from 0, whose rows need an answer
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
    flex_models: Collection[str] = (),
    shared_usd: Decimal | None = None,
) -> RetryRound | None:
    """Seal the rows of the final pass as a retry round and return it.

    Returns None if another worker sealed a retry round at the same time.

    :param claim: claims a shard that was never sent, so that no other worker sends it; returns False if another worker
        already sends it.
    :param flex_models: the models that have the flex tier.
    :param shared_usd: US dollars that the budgets leave that the job shares with others; None if there are none.
    """
    state = ledger.state()
    if state.next_retry_round != step.number:
        return None
    amounts = {"max_cost_usd": BudgetTracker(state).remaining, "shared_budget": shared_usd}
    limits = [(usd, name) for name, usd in amounts.items() if usd is not None]
    allowance = Allowance(policy.at_deadline_rows, *min(limits, default=(None, "")))
    builder = _FinalPassBuilder(ledger, state, allowance, policy.at_deadline_lane)

    def has_lane(shard: ShardState, rows: int) -> bool:
        if policy.at_deadline_lane is Lane.STANDARD or shard.model in flex_models:
            return True
        allowance.left_out["no_flex"] += rows
        return False

    try:
        for shard, settled in step.settled_sources:
            if not has_lane(shard, retryable_rows(settled, final_pass_policy(policy))):
                continue
            if allowance.closed:
                allowance.leave_out(retryable_rows(settled, final_pass_policy(policy)))
                continue
            rows = read_rows(ledger.folder, shard.spec)
            answers = read_unsuccessful(ledger.folder, shard.spec, settled, rows, state.manifest.endpoint, judge)
            last_policy = final_pass_policy(policy)
            lines = {
                line for line, answer in answers if rows[line].needed and is_retryable(answer, settled, last_policy)
            }
            source = _Source(shard, settled.number, lines, next_attempt(shard, settled), settled=True)
            builder.add(source, rows, claim)
        for shard in step.unsent_shards:
            if not has_lane(shard, shard.requests - shard.spec.unneeded_rows):
                continue
            if allowance.closed:
                allowance.leave_out(shard.requests - shard.spec.unneeded_rows)
                continue
            rows = read_rows(ledger.folder, shard.spec)
            lines = {line for line, row in enumerate(rows) if row.needed}
            builder.add(_Source(shard, shard.next_number, lines, shard.spec.attempt, settled=False), rows, claim)
        retry_round = builder.finish(step.unsettled_rows, now)
    finally:
        builder.abandon()
    return retry_round if ledger.add(retry_round) else None


class _FinalPassBuilder:
    """The retry round of the final pass while its shards are written."""

    def __init__(self, ledger: Ledger, state: JobState, allowance: Allowance, lane: Lane) -> None:
        self.allowance, self._lane = allowance, lane
        self._folder, self._manifest = ledger.folder, state.manifest
        self._prices = Prices(state.manifest.prices, state.manifest.price_list)
        self._correction = InputCorrection(state)
        self._number = state.next_retry_round
        self._sources: list[tuple[str, int]] = []
        limits = self._manifest.limits
        shard_size = min(limits.requests or SHARD_REQUESTS, SHARD_REQUESTS)
        prefix = f"{ledger.prefix}/retry-{self._number}-{secrets.token_hex(4)}"
        names = f"{self._number:02d}-{{:04d}}"
        self._sending_sealer = Sealer(
            self._folder,
            prefix,
            self._manifest.endpoint,
            msgspec.structs.replace(limits, requests=shard_size),
            name_format=f"f{names}",
        )
        self._waiting_sealer = Sealer(self._folder, prefix, self._manifest.endpoint, limits, name_format=f"r{names}")

    def add(self, source: _Source, rows: list[RowIndex], claim: Callable[[ShardState, int], bool]) -> None:
        """Seal the rows of a source: those that are allowed, and the others. Do nothing if no row is allowed."""
        allowed_lines = self._choose_lines(source, rows)
        if not allowed_lines or not (source.settled or claim(source.shard, source.submission)):
            return
        shard = source.shard.spec
        self._sources.append((shard.name, source.submission))
        with open_sealed(self._folder, shard.file, shard.sha256) as stream:
            for number, line in enumerate(stream):
                if number in source.lines:
                    row = rows[number]
                    origin = row if row.origin else msgspec.structs.replace(row, origin=shard.name, line=number)
                    sealer = self._sending_sealer if number in allowed_lines else self._waiting_sealer
                    sealer.add_line(shard.model, line, origin, attempt=source.attempt)

    def _choose_lines(self, source: _Source, rows: list[RowIndex]) -> set[int]:
        if not self.allowance.has_ceiling:
            return {number for number in sorted(source.lines) if self.allowance.take(None)}
        allowed_lines, model = set(), source.shard.model
        with open_sealed(self._folder, source.shard.spec.file, source.shard.spec.sha256) as stream:
            for number, line in enumerate(stream):
                if number in source.lines:
                    body = bytes(msgspec.json.decode(line, type=_Request).body)
                    tokens = self._correction.correct(model, rows[number].tokens)
                    cost = highest_cost(self._prices, self._manifest.endpoint, model, body, tokens, self._lane)
                    if self.allowance.take(cost):
                        allowed_lines.add(number)
        return allowed_lines

    def finish(self, unsettled_rows: int, now: datetime) -> RetryRound:
        """Close the files and return the retry round."""
        sent_shards = [msgspec.structs.replace(shard, lane=self._lane) for shard in self._sending_sealer.finish()]
        if unsettled_rows:
            self.allowance.left_out["unsettled"] = unsettled_rows
        shards = sent_shards + self._waiting_sealer.finish()
        left_out = dict(self.allowance.left_out)
        return RetryRound(self._number, self._sources, shards, now, is_final_pass=True, left_out=left_out)

    def abandon(self) -> None:
        """Close the files of a retry round that will not be recorded. Does nothing after `finish`."""
        self._sending_sealer.abandon()
        self._waiting_sealer.abandon()


def describe_left_out(left_out: Mapping[str, int]) -> str:
    """Return how many rows the final pass left out and why, as a clause without a full stop."""
    return "; ".join(
        f"{format_count(rows, 'row')} {'was' if rows == 1 else 'were'} not sent because {_REASONS[reason]}"
        for reason, rows in left_out.items()
    )
