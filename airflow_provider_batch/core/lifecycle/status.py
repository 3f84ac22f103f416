"""Describes in words where a job is, and what a person can do now."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle.cleared_wait import clear_wait
from airflow_provider_batch.core.lifecycle.collection import held_batches


class JobPhase(StrEnum):
    """Where a job is, in one word."""

    SEALED = "sealed"  # nothing was sent yet
    CANARY = "canary"  # the canary is answered, and the rest waits for an approval or for the next task
    WAITING = "waiting"  # some requests wait to be sent: for queue capacity, for the budget, or for the wait
    RUNNING = "running"  # batches are at the provider
    HELD = "held"  # a person must act: on the account, the connection, or the files of a batch
    CANCELLED = "cancelled"  # a person cancelled it, and it has not landed since
    ANSWERED = "answered"  # everything is collected, and the landing is missing
    LANDED = "landed"  # every row has landed


class Status(NamedTuple):
    """Where a job is, and what a person can do now."""

    phase: JobPhase
    #: the same as a phrase, with numbers and reasons
    text: str
    #: full sentences
    advice: str


def status_of(state: JobState) -> Status:
    """Return where a job is, and what a person can do now."""
    status = _status_of(state)
    if state.resubmit_requested:
        task = state.manifest.key.task_id
        advice = f"Clear {task!r} and all tasks after it. All rows will then be resubmitted, as requested."
        return status._replace(advice=advice)
    return status


def _status_of(state: JobState) -> Status:
    phases = [shard.phase for shard in state.shards.values()]
    live, creating = phases.count(Phase.LIVE), phases.count(Phase.CREATING)
    waiting = [shard for shard in state.shards.values() if shard.phase in (Phase.SEALED, Phase.UPLOADED)]
    hold_messages = [
        rejection.message
        for shard in waiting
        if shard.latest and (rejection := shard.latest.rejection) and rejection.failure is Failure.ACCOUNT
    ]
    if state.is_cancelled and not (state.landed and state.cancelled_at and state.landed.time > state.cancelled_at):
        progress = (
            f"{format_count(live + creating, 'batch', 'batches')} still ending"
            if live or creating
            else "the answers so far are in staging"
        )
        return Status(
            JobPhase.CANCELLED,
            f"cancelled by a person; {progress}",
            "If the wait is running, do nothing: it ends without your help. Otherwise, clear the landing to land "
            "the answers so far. To send the remaining rows, clear the wait or submit, and all tasks after it.",
        )
    if hold_messages:
        progress = f"; {format_count(live, 'batch', 'batches')} still running" if live else ""
        return Status(
            JobPhase.HELD,
            f"held: {hold_messages[0]}{progress}",
            "Fix the account or the connection, then clear the task that failed. Rows that have an answer are not "
            "sent again.",
        )
    held = held_batches(state)
    if held and len(held) == live and not creating:
        return Status(
            JobPhase.HELD,
            f"{format_count(live, 'batch', 'batches')} held: {held[0][1].message}",
            "Look at the batch and its files at the provider, then clear the wait and all tasks after it to download "
            "the files again. Until then, its rows land as pending and are not sent again.",
        )
    if live or creating:
        parts = [f"{format_count(live - len(held), 'batch', 'batches')} at the provider"] if live > len(held) else []
        parts += (
            [f"{format_count(len(held), 'batch', 'batches')} held, because the result files are not believed"]
            if held
            else []
        )
        parts += [f"{format_count(creating, 'creation')} without a response"] if creating else []
        parts += [f"{format_count(len(waiting), 'shard')} waiting for queue capacity or budget"] if waiting else []
        return Status(
            JobPhase.RUNNING,
            f"running, as last recorded: {', '.join(parts)}",
            "If the wait is running, do nothing: it continues without your help. Otherwise, clear it: it collects the "
            "answers of its batches. `airflow-batch jobs cancel` cancels them.",
        )
    waiting_shards = f"{format_count(len(waiting), 'shard')} waiting to be sent"
    if waiting and state.recent_upload_refusals:
        return Status(
            JobPhase.WAITING,
            f"{waiting_shards}: {state.recent_upload_refusals[-1].message}",
            "If the wait is running, do nothing: it continues without your help. Otherwise, clear it: it continues "
            "where it stopped.",
        )
    if waiting and len(waiting) == len(phases) and not any(shard.submissions for shard in waiting):
        return Status(
            JobPhase.SEALED,
            "sealed, nothing sent yet",
            "Look at the submit task. If it failed, clear it: it continues where it stopped.",
        )
    if waiting and state.canary_verdict and state.deadline is None and not any(shard.submissions for shard in waiting):
        return Status(
            JobPhase.CANARY,
            "the canary is answered, nothing else was sent yet",
            "If a task asks for an approval, respond to it under Required Actions in Airflow. Otherwise look at the "
            "submit task and the wait task, and clear the one that failed.",
        )
    if waiting:
        return Status(
            JobPhase.WAITING,
            waiting_shards,
            "Look at the wait task. If it failed, clear it: it continues where it stopped.",
        )
    if state.landed and "pending" not in state.landed.outcomes:
        return Status(
            JobPhase.LANDED,
            f"landed in {state.landed.location}",
            " ".join(
                [
                    "Nothing to do.",
                    *filter(None, [str(clear_wait(state))]),
                    "To write the rows again, clear the landing, which sends no requests.",
                ]
            ),
        )
    if not phases:
        return Status(
            JobPhase.ANSWERED, "nothing to send, not landed yet", "Look at the landing task. If it failed, clear it."
        )
    return Status(
        JobPhase.ANSWERED,
        "answered, not landed yet",
        "Look at the wait task and the landing task, and clear the one that failed. Rows that have an answer are not "
        "sent again.",
    )
