"""What is known of a job, as a person or a machine is told it: no row data, no keys, from the ledger alone."""

from __future__ import annotations

from datetime import datetime

import msgspec

from airflow_provider_batch.core.ledger.ledger import Ledger, earlier_lines
from airflow_provider_batch.core.ledger.records import Failure, Landed
from airflow_provider_batch.core.ledger.state import JobState, Phase, ShardState, Try
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far


class TryAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One go at having a shard executed."""

    n: int
    #: sealed, uploaded, creating, live, cancelling, refused, failed, or the provider's word for the end
    status: str
    batch_id: str | None = None
    #: of the newest thing recorded of it
    at: datetime | None = None
    #: the provider's words, if it was refused or failed
    message: str | None = None
    outcomes: dict[str, int] = {}


class ShardAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One input file and the tries at it."""

    name: str
    model: str
    requests: int
    #: how often the provider is asked for these rows, this time included
    attempt: int
    phase: str
    #: absolute address of the input file
    file: str
    tries: list[TryAccount] = []


class WaveAccount(msgspec.Struct, frozen=True, kw_only=True):
    """Rows that were asked again together."""

    number: int
    at: datetime
    requests: int
    shards: list[str]


class JobAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A job."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    job_uid: str
    generation: int
    #: absolute address of the job's folder
    folder: str
    #: in words
    state: str
    #: what a person may do now
    next: str
    endpoint: str
    connection: str
    sealed_at: datetime
    #: of the newest thing that was recorded
    last_at: datetime
    deadline: datetime | None
    #: that staging keeps it after its last event, if the job says so itself
    retention_days: float | None
    #: rows; of these asked, same as another row, known from an earlier job
    requests: int
    asked: int
    same: int
    known: int
    #: that exist or existed, and of these with the provider as far as is recorded
    batches: int
    live: int
    outcomes: dict[str, int]
    estimate_low_usd: float | None
    estimate_high_usd: float | None
    #: US dollars, None until landed or where a price is unknown
    cost_usd: str | None
    landed: Landed | None
    shards: list[ShardAccount]
    waves: list[WaveAccount]


def account_of(ledger: Ledger) -> JobAccount:
    """The account of a job's newest generation.

    :raises LedgerError: if its record cannot be read.
    """
    state, manifest = ledger.state(), ledger.manifest
    said, next_thing = in_words(state)
    if state.again_asked:
        next_thing = (
            f"clear {manifest.key.task_id!r} and all after it: everything is asked anew then, as was asked for."
        )
    tries = [tried for shard in state.shards.values() for tried in shard.tries]
    moments = [moment for tried in tries for moment in _moments(tried)]
    return JobAccount(
        dag_id=manifest.key.dag_id,
        task_id=manifest.key.task_id,
        run_id=manifest.key.run_id,
        map_index=manifest.key.map_index,
        job_uid=manifest.job_uid,
        generation=manifest.generation,
        folder=ledger.folder.uri,
        state=said,
        next=next_thing,
        endpoint=manifest.endpoint,
        connection=manifest.openai_conn_id,
        sealed_at=manifest.sealed_at,
        last_at=max([manifest.sealed_at, *moments, *([state.landed.at] if state.landed else [])]),
        deadline=state.deadline,
        retention_days=manifest.retention_days,
        requests=manifest.requests,
        asked=manifest.asked,
        same=manifest.same,
        known=manifest.known,
        batches=sum(1 for tried in tries if tried.batch_id),
        live=len(state.live()) + _left_behind(ledger),
        outcomes=state.landed.outcomes if state.landed else outcomes_so_far(state),
        estimate_low_usd=manifest.estimate.low_usd,
        estimate_high_usd=manifest.estimate.high_usd,
        cost_usd=state.landed.cost_usd if state.landed else None,
        landed=state.landed,
        shards=[_shard(ledger, shard) for shard in state.shards.values()],
        waves=[
            WaveAccount(
                number=wave.number,
                at=wave.at,
                requests=sum(shard.requests for shard in wave.shards),
                shards=[shard.name for shard in wave.shards],
            )
            for wave in state.waves
        ],
    )


def in_words(state: JobState) -> tuple[str, str]:
    """Where a job is, and what a person may do now."""
    phases = [shard.phase for shard in state.shards.values()]
    live, creating = phases.count(Phase.LIVE), phases.count(Phase.CREATING)
    waiting = [shard for shard in state.shards.values() if shard.phase in (Phase.SEALED, Phase.UPLOADED)]
    held = [
        blocked.message
        for shard in waiting
        if shard.last and (blocked := shard.last.blocked) and blocked.failure is Failure.ACCOUNT
    ]
    if state.stopped and not (state.landed and state.stopped_at and state.landed.at > state.stopped_at):
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
    if waiting and state.uploads_held:
        return (
            f"{len(waiting)} shard(s) wait to be sent: {state.uploads_held[-1].message}",
            "nothing, if the wait runs: it goes on by itself. Else clear it: it goes on from here.",
        )
    if waiting and len(waiting) == len(phases) and not any(shard.tries for shard in waiting):
        return "sealed, nothing sent yet", "look at the submit task; clear it if it failed: it goes on from here."
    if waiting:
        return (
            f"{len(waiting)} shard(s) wait to be sent",
            "look at the wait task; clear it if it failed: it goes on from here.",
        )
    if state.landed and "pending" not in state.landed.outcomes:
        return (
            f"landed in {state.landed.table}",
            "nothing. To ask rows that did not succeed once more, clear the wait; to write the table again, clear the "
            "landing, which asks nothing.",
        )
    if not phases:
        return "nothing to ask, not landed yet", "look at the landing task; clear it if it failed."
    return (
        "answered, not landed yet",
        "look at the wait and the landing; clear the one that failed: nothing that was answered is asked again.",
    )


def _left_behind(ledger: Ledger) -> int:
    """Batches of rows that were asked anew since, which nobody cancelled."""
    return sum(
        tried.cancel is None
        for earlier in earlier_lines(ledger.folder, ledger.manifest)
        for _, tried in earlier.state().live()
    )


def _moments(tried: Try) -> list[datetime]:
    records = (tried.intent, tried.refused, tried.cancel, tried.settled)
    found = [record.at for record in records if record is not None]
    return [*found, tried.created_at] if tried.created_at else found


def _shard(ledger: Ledger, state: ShardState) -> ShardAccount:
    shard = state.shard
    return ShardAccount(
        name=shard.name,
        model=shard.model,
        requests=shard.requests,
        attempt=shard.attempt,
        phase=state.phase.value,
        file=f"{ledger.folder.uri}/{shard.file}",
        tries=[_try(tried) for tried in state.tries],
    )


def _try(tried: Try) -> TryAccount:
    blocked, settled = tried.blocked, tried.settled
    if settled:
        status = settled.status
    elif blocked:
        status = "refused"
    elif tried.batch_id:
        status = "cancelling" if tried.cancel else "live"
    elif tried.intent:
        status = "creating"
    else:
        status = "uploaded"
    message = (blocked.message if blocked else "") or (settled.message if settled else "")
    return TryAccount(
        n=tried.n,
        status=status,
        batch_id=tried.batch_id or None,
        at=max(_moments(tried), default=None),
        message=message or None,
        outcomes=settled.outcomes if settled else {},
    )
