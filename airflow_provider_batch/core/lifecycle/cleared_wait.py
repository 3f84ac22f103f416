"""What clearing the wait sends, which rows stay as they are, and what a person can do about those.

Clearing a wait that has ended gives rows a fresh allowance of attempts (`deadline.py`). Then it does what every wait
does: it sends shards that were never sent, collects batches, and retries rows that failed for a transient reason. An
answer that was paid for is kept, even if it is a refusal, cut off or empty, and the provider would reject the same
invalid request once more. So these rows stay. A comparison after a clear of submit keeps them too, unless their
request has changed.

    rows without a success
        ├─ in batches, or never sent                    the wait collects or sends them
        ├─ retryable (`attempts.retryable_rows`)        the wait retries them
        └─ all others                                   they stay; `Stay` says why, and what a person can do

The ledger has the number of rows by outcome, not the rows. So the numbers count requests, without their duplicates, and
rows whose request states no output cap count as retried although they cannot be.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import STORAGE, Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.records import Failure, RetryArguments, Settled
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle.attempts import is_unwanted
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.steps import RETRYABLE, Policy


class Stay(StrEnum):
    """Why a row without a success is not sent when the wait is cleared, as a phrase after their number."""

    REFUSED = "refused"
    CUT_OFF = "cut off at the output cap"
    LEFT_BEHIND = "left out when other rows of their batch were retried"
    INCOMPLETE = "empty or incomplete"
    REJECTED = "failed for good, because the provider would reject the same request"
    EXCLUDED = "with an outcome that retry_on leaves out"
    STORAGE = "with a value that the results table does not take"
    INVALID_INPUT = "with a file that is missing or cannot be used"
    WITHHELD = "withheld by the budget"


_OTHER_REQUEST = (
    "To send such rows with another request, change the rows or the prompt, then clear submit and all tasks after it: "
    "every row whose request has changed is sent and paid for. To send the same requests once more, start a new run "
    "whose submit has reuse_from set to the results table: it sends only the rows that did not succeed."
)

#: what a person can do about rows that stay, in full sentences
REMEDIES = {
    Stay.CUT_OFF: 'To retry answers that were cut off, set on_incomplete="raise_cap" on the sensor and clear the wait. '
    "This works for requests that state an output cap.",
    Stay.EXCLUDED: "To retry outcomes that retry_on leaves out, add them to it and clear the wait.",
    Stay.STORAGE: "If the results table does not take a value, change the table and clear the landing, which sends "
    "nothing.",
    Stay.INVALID_INPUT: "Fix the files, then clear submit and all tasks after it to send their rows.",
    Stay.WITHHELD: "To send rows that the budget withheld, raise max_cost_usd, or wait until the shared budget has "
    "more, then clear submit and all tasks after it.",
    Stay.REFUSED: _OTHER_REQUEST,
    Stay.INCOMPLETE: _OTHER_REQUEST,
    Stay.REJECTED: _OTHER_REQUEST,
    Stay.LEFT_BEHIND: _OTHER_REQUEST,
}


class ClearedWait(NamedTuple):
    """What clearing the wait does with the rows of a job that have not succeeded."""

    #: number of rows that are retried, by outcome
    retried: dict[Outcome, int]
    #: number of rows that were never sent, and will be
    unsent: int
    #: number of rows in batches that are not recorded as ended; their answers are collected
    unsettled: int
    #: number of rows that stay as they are, by reason
    stays: dict[Stay, int]

    @property
    def sent(self) -> int:
        """Number of rows that are sent."""
        return sum(self.retried.values()) + self.unsent

    def __str__(self) -> str:
        """Return what happens and what a person can do, in full sentences; empty if every row succeeded."""
        return " ".join([*self._sentences(), *dict.fromkeys(REMEDIES[stay] for stay in self.stays)])

    def _sentences(self) -> list[str]:
        sentences = []
        if self.retried:
            outcomes = ", ".join(f"{rows:,} {outcome}" for outcome, rows in self.retried.items())
            rows = format_count(sum(self.retried.values()), "row")
            sentences.append(f"Clearing the wait and all tasks after it retries {rows} ({outcomes}).")
        if self.unsent:
            sentences.append(f"Clearing the wait sends {format_count(self.unsent, 'row')} for the first time.")
        if self.unsettled:
            sentences.append(
                f"Clearing the wait collects the answers to {format_count(self.unsettled, 'row')} of batches that may "
                "still be running."
            )
        if self.stays:
            reasons = ", ".join(f"{rows:,} {stay}" for stay, rows in self.stays.items())
            rows = format_count(sum(self.stays.values()), "row")
            stay = "stays as it is" if sum(self.stays.values()) == 1 else "stay as they are"
            nothing = "" if sentences else "Clearing the wait sends nothing. "
            sentences.append(f"{nothing}{rows} {stay}: {reasons}.")
        return sentences


def policy_of(state: JobState, time: datetime | None = None) -> Policy:
    """Return the policy of the wait, as far as it decides which rows are retried.

    :param time: as of this time, instead of the newest start of the wait. Before its first start, it is the default
        policy.
    """
    arguments = state.retry_arguments(time) or RetryArguments(Policy().max_attempts, sorted(RETRYABLE))
    retry_on = frozenset(map(Outcome, arguments.retry_on))
    return Policy(max_attempts=arguments.max_attempts, retry_on=retry_on, raise_cap=arguments.raise_cap)


def clear_wait(state: JobState) -> ClearedWait:
    """Return what clearing the wait would do, once it has ended, with the arguments that it had last."""
    policy, withheld_names = policy_of(state), {shard.name for shard in state.withheld_shards}
    sources = state.retried_submissions
    retried: Counter[Outcome] = Counter()
    stays: Counter[Stay] = Counter()
    for shard, submission, settled in state.settled_submissions():
        if is_unwanted(shard):
            continue
        is_retried_before = (shard.name, submission.number) in sources
        if not is_retried_before:
            retried.update(retried_rows(settled, policy))
        stays.update(_staying_rows(settled, policy, is_retried_before=is_retried_before))
    landed = state.landed.reasons if state.landed else []
    stays[Stay.STORAGE] += sum(reason.rows for reason in landed if reason.code == STORAGE)
    stays[Stay.INVALID_INPUT] += state.manifest.invalid
    unsent, unsettled = 0, 0
    for shard in state.shards.values():
        if is_unwanted(shard):
            continue
        if shard.name in withheld_names:
            stays[Stay.WITHHELD] += shard.requests
        elif shard.phase in (Phase.SEALED, Phase.UPLOADED):
            unsent += shard.requests
        elif shard.phase in (Phase.CREATING, Phase.LIVE):
            unsettled += shard.requests
    return ClearedWait(
        {outcome: retried[outcome] for outcome in Outcome if retried[outcome] > 0},
        unsent,
        unsettled,
        {stay: stays[stay] for stay in Stay if stays[stay] > 0},
    )


def expected_cost(state: JobState) -> Decimal | None:
    """Return the US dollars that the rows which clearing the wait sends are expected to cost, or None if unknown."""
    budget, policy, withheld = BudgetTracker(state), policy_of(state), {shard.name for shard in state.withheld_shards}
    cost, sources = Decimal(0), state.retried_submissions
    for shard, submission, settled in state.settled_submissions():
        if not is_unwanted(shard) and (shard.name, submission.number) not in sources:
            share = Decimal(sum(retried_rows(settled, policy).values())) / max(shard.requests, 1)
            cost += share * budget.expected_cost(shard.spec) if share else 0
    for shard in state.shards.values():
        if shard.phase in (Phase.SEALED, Phase.UPLOADED) and not is_unwanted(shard) and shard.name not in withheld:
            cost += budget.expected_cost(shard.spec)
    return cost if cost.is_finite() else None


def retried_rows(settled: Settled, policy: Policy) -> Counter[Outcome]:
    """Return the number of rows of a settled submission that the policy retries, by outcome.

    `attempts.retryable_rows` counts the same rows.
    """
    if settled.failure is Failure.LINES:
        return Counter({Outcome.FAILED: settled.transient})
    rows = Counter({outcome: settled.outcomes.get(outcome, 0) for outcome in policy.retry_on})
    if Outcome.FAILED in policy.retry_on:
        rows[Outcome.FAILED] = settled.transient
    if Outcome.EXPIRED not in policy.retry_on:
        rows[Outcome.EXPIRED] = settled.flex_refused
    if policy.raise_cap:
        rows[Outcome.INCOMPLETE] = settled.cut_off
    return rows


def _staying_rows(settled: Settled, policy: Policy, *, is_retried_before: bool) -> Counter[Stay]:
    outcomes, retried = settled.outcomes, retried_rows(settled, policy)
    rejected = outcomes.get(Outcome.FAILED, 0) - settled.transient
    excluded = sum(outcomes.get(outcome, 0) - retried[outcome] for outcome in RETRYABLE) - rejected
    stays = Counter(
        {
            Stay.REFUSED: outcomes.get(Outcome.REFUSED, 0),
            Stay.INCOMPLETE: outcomes.get(Outcome.INCOMPLETE, 0) - settled.cut_off,
            Stay.REJECTED: rejected,
        }
    )
    stays[Stay.LEFT_BEHIND if is_retried_before else Stay.CUT_OFF] += settled.cut_off - retried[Outcome.INCOMPLETE]
    stays[Stay.LEFT_BEHIND if is_retried_before else Stay.EXCLUDED] += excluded
    return stays
