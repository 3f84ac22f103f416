"""The fold: from the records of a job to its state. The order of the records does not matter.

Two workers may read the ledger while a third one writes it, so each sees the records in an order of its own. All of
them must come to the same state. So there is one function for each type of record, and none depends on the order: where
records replace each other, the one with the highest number counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.ledger.records import (
    AgainAsked,
    Begun,
    Budget,
    CancelAsked,
    Created,
    Deadline,
    Deleted,
    Finished,
    Intent,
    Judged,
    Landed,
    Record,
    Refused,
    Settled,
    Stopped,
    Submitted,
    TryRecord,
    Twin,
    Uploaded,
    UploadsHeld,
    Wave,
)
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Try
from airflow_provider_batch.exceptions import LedgerError

#: submissions by shard and number, while the records are read
_Tries = dict[tuple[str, int], Try]


def fold(manifest: Manifest, records: Iterable[Record]) -> JobState:
    """Return the state that a manifest and its records amount to. The order of the records does not matter."""
    state = JobState(manifest, {shard.name: ShardState(shard) for shard in manifest.shards})
    tries: _Tries = {}
    for record in records:
        HANDLERS[type(record)](state, tries, record)
    state.uploads_refused.sort(key=lambda refusal: refusal.number)
    void = _add_shards_of_waves(state)
    _add_tries(state, tries, void)
    _mark_resealed(state)
    return state


def _add_wave(state: JobState, tries: _Tries, record: Wave) -> None:
    state.waves.append(record)


def _add_landed(state: JobState, tries: _Tries, record: Landed) -> None:
    if state.landed is None or record.number > state.landed.number:
        state.landed = record


def _add_finished(state: JobState, tries: _Tries, record: Finished) -> None:
    if state.finished is None or record.number > state.finished.number:
        state.finished = record


def _add_budget(state: JobState, tries: _Tries, record: Budget) -> None:
    if state.budget is None or record.number > state.budget.number:
        state.budget = record


def _add_deadline(state: JobState, tries: _Tries, record: Deadline) -> None:
    state.clears.add(record.clear)
    if state.set_deadline is None or record.clear > state.set_deadline.clear:
        state.set_deadline = record
    if record.fresh and (state.fresh is None or record.clear > state.fresh.clear):
        state.fresh = record


def _add_twin(state: JobState, tries: _Tries, record: Twin) -> None:
    if record.batch_id not in state.twins or record.ended:
        state.twins[record.batch_id] = record


def _add_uploads_held(state: JobState, tries: _Tries, record: UploadsHeld) -> None:
    state.uploads_refused.append(record)


def _add_judged(state: JobState, tries: _Tries, record: Judged) -> None:
    state.judged = record


def _add_begun(state: JobState, tries: _Tries, record: Begun) -> None:
    state.begun.append(record)


def _add_submitted(state: JobState, tries: _Tries, record: Submitted) -> None:
    state.submitted = True


def _add_stopped(state: JobState, tries: _Tries, record: Stopped) -> None:
    state.stopped_at = max(state.stopped_at or record.at, record.at)


def _add_again_asked(state: JobState, tries: _Tries, record: AgainAsked) -> None:
    state.again_asked = True


def _add_deleted(state: JobState, tries: _Tries, record: Deleted) -> None:
    state.deleted.add((record.shard, record.n))


def _try_of(tries: _Tries, record: TryRecord) -> Try:
    key = (record.shard, record.n)
    submission = tries.get(key)
    if submission is None:
        submission = tries[key] = Try(record.n)
    return submission


def _add_uploaded(state: JobState, tries: _Tries, record: Uploaded) -> None:
    _try_of(tries, record).file_id = record.file_id
    if state.uploaded_at is None or record.at > state.uploaded_at:
        state.uploaded_at = record.at


def _add_intent(state: JobState, tries: _Tries, record: Intent) -> None:
    submission = _try_of(tries, record)
    submission.intent = record
    submission.file_id = submission.file_id or record.file_id


def _add_created(state: JobState, tries: _Tries, record: Created) -> None:
    submission = _try_of(tries, record)
    submission.batch_id, submission.created_at = record.batch_id, record.at


def _add_refused(state: JobState, tries: _Tries, record: Refused) -> None:
    _try_of(tries, record).refused = record


def _add_cancel_asked(state: JobState, tries: _Tries, record: CancelAsked) -> None:
    _try_of(tries, record).cancel = record


def _add_settled(state: JobState, tries: _Tries, record: Settled) -> None:
    submission = _try_of(tries, record)
    submission.settled = record
    submission.batch_id = submission.batch_id or record.batch_id


#: what adds a record of each type to the state
HANDLERS: dict[type[Record], Callable[[JobState, _Tries, Any], None]] = {
    AgainAsked: _add_again_asked,
    Begun: _add_begun,
    Budget: _add_budget,
    CancelAsked: _add_cancel_asked,
    Created: _add_created,
    Deadline: _add_deadline,
    Deleted: _add_deleted,
    Finished: _add_finished,
    Intent: _add_intent,
    Judged: _add_judged,
    Landed: _add_landed,
    Refused: _add_refused,
    Settled: _add_settled,
    Stopped: _add_stopped,
    Submitted: _add_submitted,
    Twin: _add_twin,
    Uploaded: _add_uploaded,
    UploadsHeld: _add_uploads_held,
    Wave: _add_wave,
}


def _add_shards_of_waves(state: JobState) -> set[str]:
    """Add the shards of the waves that are in force, oldest wave first. Return the names of those that are void."""
    manifest = state.manifest
    void = {shard.name for wave in state.waves if wave.number in manifest.void_waves for shard in wave.shards}
    state.waves = [wave for wave in state.waves if wave.number not in manifest.void_waves]
    state.waves.sort(key=lambda wave: wave.number)
    reindexed = {shard.name: shard for shard in manifest.reindexed}
    for wave in state.waves:
        for shard in wave.shards:
            spec = reindexed.get(shard.name, shard)
            state.shards[shard.name] = ShardState(spec, sealed_at=wave.at, base=wave.base)
    return void


def _add_tries(state: JobState, tries: _Tries, void: set[str]) -> None:
    """Give each shard its submissions, oldest first. Those of another generation or of a void wave are left out.

    :raises LedgerError: if nothing names the shard of a record.
    """
    for (name, _), submission in sorted(tries.items()):
        shard = state.shards.get(name)
        if shard is not None:
            shard.tries.append(submission)
        elif name not in void and not _of_another(name, state.manifest):
            raise LedgerError(f"The ledger holds a record of shard {name!r}, which neither the seal nor a wave names.")


def _mark_resealed(state: JobState) -> None:
    """Mark the shards whose rows went on in a wave although no batch of theirs ran."""
    drained = state.drained
    for shard in state.shards.values():
        if (last := shard.last) and (shard.shard.name, last.n) in drained:
            shard.resealed = not (last.settled or last.batch_id)


def _of_another(name: str, manifest: Manifest) -> bool:
    """A shard of an earlier generation that this one does not keep, or of a later one."""
    first = line_of(manifest)
    generation = int(name[1:4]) if name.startswith("g") and name[1:4].isdigit() else 1
    return generation != manifest.generation and (generation > manifest.generation or generation >= first)


def line_of(manifest: Manifest) -> int:
    """The first generation of those that keep what the one before asked."""
    return manifest.root or manifest.generation
