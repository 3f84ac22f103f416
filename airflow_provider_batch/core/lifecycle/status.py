"""Where a job is, and what a person can do about it, in words."""

from __future__ import annotations

from airflow_provider_batch.core.ledger.records import Failure
from airflow_provider_batch.core.ledger.state import JobState, Phase


def status_of(state: JobState) -> tuple[str, str]:
    """Return where a job is, and what a person can do now, in words."""
    status, advice = _status_of(state)
    if state.resubmit_requested:
        task = state.manifest.key.task_id
        advice = f"clear {task!r} and all after it: everything is asked anew then, as was asked for."
    return status, advice


def _status_of(state: JobState) -> tuple[str, str]:
    phases = [shard.phase for shard in state.shards.values()]
    live, creating = phases.count(Phase.LIVE), phases.count(Phase.CREATING)
    waiting = [shard for shard in state.shards.values() if shard.phase in (Phase.SEALED, Phase.UPLOADED)]
    held = [
        rejection.message
        for shard in waiting
        if shard.latest and (rejection := shard.latest.rejection) and rejection.failure is Failure.ACCOUNT
    ]
    if state.is_cancelled and not (state.landed and state.cancelled_at and state.landed.time > state.cancelled_at):
        ends = f"{live + creating} batch(es) end" if live or creating else "what was answered lies in staging"
        return (
            f"cancelled by a person; {ends}",
            "nothing, if the wait runs: it ends by itself. Else clear the landing to land the answers there are; clear "
            "the wait or submit, with all after it, to ask the rest.",
        )
    if held:
        also = f"; {live} batch(es) go on" if live else ""
        return (
            f"held: {held[0]}{also}",
            "mend the account or the connection, then clear the task that failed: nothing is asked twice.",
        )
    if live or creating:
        parts = [f"{live} batch(es) with the provider"] if live else []
        parts += [f"{creating} creation(s) not answered yet"] if creating else []
        parts += [f"{len(waiting)} shard(s) wait for room"] if waiting else []
        return f"running: {', '.join(parts)}", "nothing: the wait goes on by itself. `jobs cancel` stops its batches."
    if waiting and state.recent_upload_refusals:
        return (
            f"{len(waiting)} shard(s) wait to be sent: {state.recent_upload_refusals[-1].message}",
            "nothing, if the wait runs: it goes on by itself. Else clear it: it goes on from here.",
        )
    if waiting and len(waiting) == len(phases) and not any(shard.submissions for shard in waiting):
        return "sealed, nothing sent yet", "look at the submit task; clear it if it failed: it goes on from here."
    if waiting:
        return (
            f"{len(waiting)} shard(s) wait to be sent",
            "look at the wait task; clear it if it failed: it goes on from here.",
        )
    if state.landed and "pending" not in state.landed.outcomes:
        return (
            f"landed in {state.landed.location}",
            "nothing. To ask rows that did not succeed once more, clear the wait; to write the table again, clear the "
            "landing, which asks nothing.",
        )
    if not phases:
        return "nothing to ask, not landed yet", "look at the landing task; clear it if it failed."
    return (
        "answered, not landed yet",
        "look at the wait and the landing; clear the one that failed: nothing that was answered is asked again.",
    )
