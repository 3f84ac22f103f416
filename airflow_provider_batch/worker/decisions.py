"""The decisions about a job that only a person may take: cancel it, retry rows, land what is there.

The command line and the page offer the same decisions, with the same words. A `Decision` says beforehand what will
happen, what it costs, and which rows stay as they are. Cancelling writes to the ledger and calls the provider, so it is
done here. The other two clear tasks of the job, which Airflow does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_batch.core.formatting import format_count, format_usd
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import BY_PERSON, JobCancelled
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle.cleared_wait import clear_wait, expected_cost
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
from airflow_provider_batch.worker.cancel import cancel_job

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook

#: cancel requests sent at the same time
MAX_CONCURRENT_CANCELS = 16


class Decision(NamedTuple):
    """Something that a person can decide about a job."""

    name: str
    #: what the button says
    label: str
    #: whether the ledger allows it; the states of the tasks may still forbid it
    possible: bool
    #: what happens, what it costs, and which rows stay as they are; or why it is not possible. Full sentences
    explanation: str


def cancel_decision(state: JobState) -> Decision:
    """Return what cancelling the job does."""
    live = [shard for shard, _ in state.live_submissions()]
    unsent = sum(shard.requests for shard in state.shards.values() if shard.phase in (Phase.SEALED, Phase.UPLOADED))
    creating = sum(shard.phase is Phase.CREATING for shard in state.shards.values())
    possible = bool(live or unsent or creating)
    rows = format_count(sum(shard.requests for shard in live), "request")
    sentences = [
        f"{format_count(len(live), 'batch', 'batches')} with {rows} may still be running."
        if possible
        else "No batch of this job is running, and no row waits to be sent.",
        *([f"{format_count(unsent, 'row')} will not be sent."] if unsent else []),
        "Answers so far are paid for and kept.",
    ]
    return Decision("cancel", "Cancel (keep what is answered)", possible, " ".join(sentences))


#: what follows once a job is cancelled
CANCELLED = (
    "No more requests of this job are sent or retried. A running wait collects the answers so far (cancelling may take "
    "10 minutes) and succeeds. The landing then writes them and judges the missing rows. If no wait is running, clear "
    "the landing to write the answers that are collected. Clearing the wait or submit collects the other answers, and "
    "sends the remaining rows; existing answers are kept."
)


def cancel(ledger: Ledger, hook: BatchHook, report: Callable[[str], object]) -> int:
    """Cancel the job and its batches, and record it.

    :param report: receives a sentence about each batch.
    :return: number of batches that the provider did not cancel.
    """
    ledger.append(JobCancelled(1, datetime.now(UTC)))
    return cancel_job(ledger, hook, BY_PERSON, report, concurrency=MAX_CONCURRENT_CANCELS)


def retry_decision(state: JobState) -> Decision:
    """Return what clearing the wait and all tasks after it does, once the wait has ended."""
    cleared = clear_wait(state)
    sentences = [str(cleared)]
    if cleared.sent:
        cost = expected_cost(state)
        expectation = "at an unknown cost" if cost is None else f"for about {format_usd(cost)}"
        sentences.insert(0, f"{format_count(cleared.sent, 'row')} will be sent {expectation}.")
    if not state.is_wait_over and not cleared.sent:
        sentences.append("The wait has not ended. It retries rows without your help.")
    text = " ".join(filter(None, sentences)) or "Every row has succeeded."
    return Decision("retry", "Retry failed rows", bool(cleared.sent or cleared.unsettled), text)


def land_decision(state: JobState, *, is_wait_over: bool) -> Decision:
    """Return what landing the answers that are in staging does. It sends nothing and costs nothing.

    :param is_wait_over: whether the wait task has succeeded. If not, it is marked as successful, because the landing
        would otherwise not start.
    """
    outcomes = outcomes_so_far(state)
    pending = outcomes.pop("pending", 0)
    collected = sum(outcomes.values())
    sentences = [f"The landing writes {format_count(collected, 'row')} with an outcome. Nothing is sent."]
    if pending:
        sentences.append(
            f"{format_count(pending, 'row')} land as pending. If that exceeds max_failure_rate, the landing fails "
            "after it has written all rows."
        )
    if not is_wait_over:
        sentences.append(
            "The wait is marked as successful, so it stops retrying rows and collecting answers. Batches that are "
            "running keep running and are paid for. To collect their answers later, clear the wait."
        )
    return Decision("land", "Land what is there", collected > 0, " ".join(sentences))
