"""A job's record: a folder of small files, each created exclusively and never rewritten; the state is their fold.

gNNN/seal.json                          the manifest: the seal of generation NNN
gNNN/records/uploaded.s0001.1.json      shard s0001, first try: its input file is with the provider
gNNN/records/intent.s0001.1.json        about to be created, with a nonce (who loses this create, stops)
gNNN/records/created.s0001.1.json       the provider's batch id
gNNN/records/refused.s0001.1.json       surely not created, and why
gNNN/records/cancel.s0001.1.json        we asked the provider to cancel it
gNNN/records/settled.s0001.1.json       it ended; its answers lie in gNNN/collected/s0001.1/
gNNN/records/canary.json                what the canary's answers say of the rest, and what it will cost
gNNN/records/wave.1.json                rows asked again, sealed into shards of their own
gNNN/records/deadline.0.json            the absolute end of the wait, once for each clear of it by a person
gNNN/records/budget.1.json              another ceiling than that of the seal
gNNN/records/uploads.1.json             the provider took no more input files for now
gNNN/records/finished.1.json            the wait came to its end
gNNN/records/twin.DIGEST.1.json         a batch of the job beside those it keeps, found late; .2 once it has ended
gNNN/records/landed.1.json              the answers were written to a table
gNNN/records/deleted.s0001.1.json       its files with the provider are deleted; staging has them
gNNN/records/begun.wait.2.json          a task of the job began its life, after a clear a new one
gNNN/records/submitted.json             submit returned
gNNN/records/stopped.1.json             a person cancelled the job
gNNN/records/again.json                 a person wants everything asked anew
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import LedgerError, StoppedError
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import FORMAT, Estimate, Manifest, Shard

#: why a batch was cancelled
BY_PERSON = "person"


class Failure(StrEnum):
    """Why a whole batch, or its creation, failed although no request ran."""

    CAPACITY = "capacity"  # queue or rate limit: hold back, ask later
    FILE = "file"  # the provider does not find the input file: upload again
    ACCOUNT = "account"  # billing, quota, access, a call refused as wrong: a person must act
    LINES = "lines"  # named lines are invalid: those rows fail, the rest is asked again
    LOST = "lost"  # the creation was never answered and no such batch exists


class Uploaded(msgspec.Struct, frozen=True, tag="uploaded"):
    """The input file of a try is with the provider."""

    shard: str
    n: int
    file_id: str
    at: datetime


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """This worker is about to create the batch of a try."""

    shard: str
    n: int
    nonce: str
    file_id: str
    at: datetime


class Created(msgspec.Struct, frozen=True, tag="created"):
    """The batch exists."""

    shard: str
    n: int
    batch_id: str
    at: datetime


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The batch surely does not exist."""

    shard: str
    n: int
    failure: Failure
    message: str
    at: datetime
    #: seconds after which the provider asked to be called again
    retry_after: float | None = None


class UploadsHeld(msgspec.Struct, frozen=True, tag="uploads"):
    """The provider took no more input files for now (HTTP 429): no upload is begun until a while after.

    It is of no shard's try: whoever uploads the same file meanwhile goes on with that try, and no other may begin.
    """

    number: int
    message: str
    #: once every upload that was under way then had come to its end
    at: datetime
    #: seconds after which the provider asked to be called again
    retry_after: float | None = None


class CancelAsked(msgspec.Struct, frozen=True, tag="cancel"):
    """We asked the provider to cancel the batch."""

    shard: str
    n: int
    reason: str
    at: datetime


class Collected(msgspec.Struct, frozen=True):
    """One result file in staging."""

    name: str
    bytes: int
    sha256: str
    #: the provider's id of it
    file_id: str = ""


class Settled(msgspec.Struct, frozen=True, tag="settled"):
    """The batch ended, and everything it gave lies in staging."""

    shard: str
    n: int
    batch_id: str
    #: the provider's word for the end
    status: str
    at: datetime
    files: list[Collected] = []
    #: rows of the shard by outcome
    outcomes: dict[str, int] = {}
    #: of the failed rows: how many asking again may help
    transient: int = 0
    #: answers with a usage, their output tokens, and what they cost in US dollars; None if a price is unknown
    answered: int = 0
    output_tokens: int = 0
    cost_usd: str | None = "0"
    #: set if the batch failed validation: nothing of it ran
    failure: Failure | None = None
    message: str = ""
    #: for Failure.LINES: message by line of the input file, from 0; empty if no line is to blame
    lines: dict[int, str] = {}


class Judged(msgspec.Struct, frozen=True, tag="canary"):
    """What the answers to the canary say of the requests that are not asked yet."""

    #: the estimate, with the output of the answers in place of a guess
    estimate: Estimate
    at: datetime
    #: why this generation must never be uploaded, for a person; empty if it may
    void: str = ""
    #: True if the price is why
    over_budget: bool = False


class Deleted(msgspec.Struct, frozen=True, tag="deleted"):
    """The files of a settled try are deleted at the provider."""

    shard: str
    n: int
    at: datetime


class Wave(msgspec.Struct, frozen=True, tag="wave"):
    """Rows of settled tries, sealed again; or those of shards none of which was asked: one that is made smaller, or at
    the finish line any that was never sent.

    The latter's try is claimed by an intent before, so that no other worker can create its batch.
    """

    number: int
    #: (shard, n) of the tries whose rows these are
    sources: list[tuple[str, int]]
    shards: list[Shard]
    at: datetime
    #: of the attempts at these rows, how many count no more: a person cleared the wait after them
    base: int = 0
    #: sealed after the deadline: its synchronous shards are asked at once; the others hold the rest of a source of
    #: which only a part was allowed, and are not sent
    finish: bool = False
    #: rows without a usable answer that the finish line left, by what left them
    left: dict[str, int] = {}


class Deadline(msgspec.Struct, frozen=True, tag="deadline"):
    """The absolute end of the wait, set once for each clear of the wait; retries and deferrals find it."""

    ends: datetime
    at: datetime
    #: tells clears of the task apart: Airflow's max_tries, which a clear raises and a retry does not
    clear: int = 0
    #: True if the wait had ended before: rows without a usable answer get a fresh allowance of attempts
    fresh: bool = False


class Budget(msgspec.Struct, frozen=True, tag="budget"):
    """A ceiling that takes the place of the one before: submit was run again with another."""

    number: int
    #: US dollars; None: no ceiling
    max_cost_usd: float | None
    at: datetime


class Twin(msgspec.Struct, frozen=True, tag="twin"):
    """A batch of the job beside those it keeps: it was cancelled, or had ended already."""

    batch_id: str
    shard: str
    #: the provider's word for how it is
    status: str
    #: False if it ran when it was found and cancelled
    ended: bool
    #: requests that it had answered: they were paid for twice
    completed: int
    at: datetime


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """The wait came to its end."""

    number: int
    at: datetime
    #: shards that were not asked, because the budget did not reach
    withheld: list[str] = []


class Reason(msgspec.Struct, frozen=True):
    """Why rows did not succeed, and how many."""

    outcome: str
    code: str
    message: str
    rows: int


class Landed(msgspec.Struct, frozen=True, tag="landed"):
    """The answers were written to a table."""

    number: int
    table: str
    outcomes: dict[str, int]
    #: US dollars for every answer; None if a price is unknown
    cost_usd: str | None
    standard_cost_usd: str | None
    #: the most frequent first
    reasons: list[Reason]
    at: datetime
    #: requests of the attempts after the first, and what their answers cost: a part of `cost_usd`
    asked_again: int = 0
    asked_again_cost_usd: str | None = None


class Task(StrEnum):
    """The tasks of a job whose clears matter to it."""

    SUBMIT = "submit"
    WAIT = "wait"


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """A task of the job began.

    Airflow counts the attempts of a task up over retries and clears alike, but a clear alone moves `max_tries`, to the
    attempts made so far plus `retries` (`clear_task_instances`). So it names the life of a task: the first attempt in
    a life records it, a retry finds it recorded.
    """

    task: Task
    #: the task instance's max_tries
    life: int
    at: datetime


class Submitted(msgspec.Struct, frozen=True, tag="submitted"):
    """Submit returned: as many batches were created as there was room for."""

    at: datetime


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """A person cancelled the job: nothing is sent or asked again until a task of it is cleared."""

    number: int
    at: datetime


class AgainAsked(msgspec.Struct, frozen=True, tag="again"):
    """A person wants everything asked anew when submit runs next."""

    at: datetime


Record = (
    Uploaded
    | Intent
    | Created
    | Refused
    | CancelAsked
    | Settled
    | Judged
    | Wave
    | Deadline
    | Budget
    | Finished
    | UploadsHeld
    | Twin
    | Landed
    | Begun
    | Submitted
    | Stopped
    | AgainAsked
    | Deleted
)
_TryRecord = Uploaded | Intent | Created | Refused | CancelAsked | Settled


class Phase(StrEnum):
    """Where a shard is on its way."""

    SEALED = "sealed"
    UPLOADED = "uploaded"
    CREATING = "creating"  # intent recorded, no answer known
    LIVE = "live"
    SETTLED = "settled"
    RESEALED = "resealed"  # its rows were sealed into the shards of a wave, which take its place


class Try(msgspec.Struct):
    """One go at having a shard executed."""

    n: int
    file_id: str = ""
    intent: Intent | None = None
    batch_id: str = ""
    created_at: datetime | None = None
    refused: Refused | None = None
    cancel: CancelAsked | None = None
    settled: Settled | None = None

    @property
    def blocked(self) -> Refused | Settled | None:
        """Why nothing of this try ran, if that is its end; the shard then needs another try.

        A batch id is knowledge; that a batch was lost is a conclusion, which one worker may record while the list it
        looked at was late and another worker was still writing down the id.
        """
        if self.refused and not self.batch_id:
            return self.refused
        if self.settled and self.settled.failure not in (None, Failure.LINES):
            return self.settled
        return None


class ShardState(msgspec.Struct):
    """A shard and the tries at it."""

    shard: Shard
    tries: list[Try] = []
    #: its rows go on in the shards of a wave, though they were not asked here
    resealed: bool = False
    #: when it was sealed, and how many attempts at its rows counted no more then
    sealed_at: datetime | None = None
    base: int = 0

    @property
    def last(self) -> Try | None:
        """The newest try."""
        return self.tries[-1] if self.tries else None

    @property
    def phase(self) -> Phase:
        """Where the shard is on its way, from its newest try."""
        last = self.last
        if self.resealed:
            return Phase.RESEALED
        if last is None or last.blocked:
            return Phase.SEALED
        if last.settled:
            return Phase.SETTLED
        if last.batch_id:
            return Phase.LIVE
        if last.intent:
            return Phase.CREATING
        return Phase.UPLOADED if last.file_id else Phase.SEALED

    @property
    def next_n(self) -> int:
        """Number of the try that the next record belongs to."""
        last = self.last
        if last is None:
            return 1
        return last.n + 1 if last.blocked else last.n


class JobState(msgspec.Struct):
    """The fold of a ledger: everything that is known of a job."""

    manifest: Manifest
    shards: dict[str, ShardState]
    waves: list[Wave] = []
    #: the newest landing
    landed: Landed | None = None
    #: what the canary said; None before, and for a job without one
    judged: Judged | None = None
    begun: list[Begun] = []
    submitted: bool = False
    #: the newest of a person's cancels
    stopped_at: datetime | None = None
    again_asked: bool = False
    #: tries whose files are deleted at the provider
    deleted: set[tuple[str, int]] = msgspec.field(default_factory=set)
    #: refusals to take input files, oldest first, and the newest moment at which one was taken
    uploads_refused: list[UploadsHeld] = []
    uploaded_at: datetime | None = None
    #: the newest end of the wait
    finished: Finished | None = None
    #: the newest ceiling that takes the place of the seal's
    budget: Budget | None = None
    #: the newest end of the wait that was set, and the newest that came with a fresh allowance of attempts
    set_deadline: Deadline | None = None
    fresh: Deadline | None = None
    #: batches beside those that are kept, by id, as last seen
    twins: dict[str, Twin] = {}
    #: clears of the wait that are known
    clears: set[int] = set()

    @property
    def canary(self) -> list[ShardState]:
        """The shards that are asked before anything is uploaded."""
        return [self.shards[shard.name] for shard in self.manifest.shards if shard.synchronous]

    @property
    def finish_line(self) -> list[ShardState]:
        """The shards that are asked synchronously after the deadline."""
        return [self.shards[shard.name] for wave in self.waves for shard in wave.shards if shard.synchronous]

    @property
    def estimate(self) -> Estimate:
        """What the job is expected to cost: as measured by the canary, else as sealed."""
        return self.judged.estimate if self.judged else self.manifest.estimate

    @property
    def stopped(self) -> bool:
        """A person cancelled the job, and no task of it was cleared since."""
        stopped_at = self.stopped_at
        return stopped_at is not None and not any(begun.at > stopped_at for begun in self.begun)

    def lives(self, task: Task) -> set[int]:
        """The lives of a task that worked on this generation."""
        return {begun.life for begun in self.begun if begun.task is task}

    @property
    def deadline(self) -> datetime | None:
        """The absolute end of the wait; None if nothing waited yet."""
        return self.set_deadline.ends if self.set_deadline else None

    @property
    def uploads_held(self) -> list[UploadsHeld]:
        """Refusals to take input files since the newest that was taken, oldest first."""
        newest = self.uploaded_at
        return [one for one in self.uploads_refused if newest is None or one.at >= newest]

    @property
    def paid_twice(self) -> int:
        """Requests that were answered in more than one batch of the same attempt; 0, if all is well."""
        return sum(twin.completed for twin in self.twins.values())

    @property
    def ceiling(self) -> float | None:
        """US dollars that the job may cost; None: no ceiling."""
        return self.budget.max_cost_usd if self.budget else self.manifest.max_cost_usd

    @property
    def withheld(self) -> list[ShardState]:
        """Shards that the budget did not reach at the end of the wait, and that did not go on since."""
        names = self.finished.withheld if self.finished else []
        found = [self.shards[name] for name in names if name in self.shards]
        return [shard for shard in found if shard.phase in (Phase.SEALED, Phase.UPLOADED)]

    @property
    def next_wave(self) -> int:
        """The number of a wave that is sealed now; those of void waves are not given again."""
        return max([0, *(wave.number for wave in self.waves), *self.manifest.void_waves]) + 1

    @property
    def drained(self) -> set[tuple[str, int]]:
        """Tries whose rows were asked again already."""
        return {source for wave in self.waves for source in wave.sources}

    def live(self) -> list[tuple[ShardState, Try]]:
        """Shards whose batch the provider has and has not ended, as far as is recorded."""
        return [(s, s.tries[-1]) for s in self.shards.values() if s.phase is Phase.LIVE]

    def settled(self) -> list[tuple[ShardState, Try, Settled]]:
        """Tries whose answers lie in staging, oldest attempt first."""
        found = [(s, t, t.settled) for s in self.shards.values() for t in s.tries if t.settled and not t.blocked]
        return sorted(found, key=lambda entry: (entry[0].shard.attempt, entry[0].shard.name))


def fold(manifest: Manifest, records: Iterable[Record]) -> JobState:
    """The state that a manifest and its records amount to; their order does not matter."""
    state = JobState(manifest, {shard.name: ShardState(shard) for shard in manifest.shards})
    tries: dict[tuple[str, int], Try] = {}
    loose: list[_TryRecord] = []
    for record in records:
        if isinstance(record, Wave):
            state.waves.append(record)
        elif isinstance(record, Landed):
            if state.landed is None or record.number > state.landed.number:
                state.landed = record
        elif isinstance(record, Finished):
            if state.finished is None or record.number > state.finished.number:
                state.finished = record
        elif isinstance(record, UploadsHeld):
            state.uploads_refused.append(record)
        elif isinstance(record, Twin):
            if record.batch_id not in state.twins or record.ended:
                state.twins[record.batch_id] = record
        elif isinstance(record, Budget):
            if state.budget is None or record.number > state.budget.number:
                state.budget = record
        elif isinstance(record, Deadline):
            state.clears.add(record.clear)
            if state.set_deadline is None or record.clear > state.set_deadline.clear:
                state.set_deadline = record
            if record.fresh and (state.fresh is None or record.clear > state.fresh.clear):
                state.fresh = record
        elif isinstance(record, Judged):
            state.judged = record
        elif isinstance(record, Begun):
            state.begun.append(record)
        elif isinstance(record, Submitted):
            state.submitted = True
        elif isinstance(record, Stopped):
            state.stopped_at = max(state.stopped_at or record.at, record.at)
        elif isinstance(record, AgainAsked):
            state.again_asked = True
        elif isinstance(record, Deleted):
            state.deleted.add((record.shard, record.n))
        else:
            loose.append(record)
    void = {shard.name for wave in state.waves if wave.number in manifest.void_waves for shard in wave.shards}
    state.waves = sorted(
        (wave for wave in state.waves if wave.number not in manifest.void_waves), key=lambda wave: wave.number
    )
    reindexed = {shard.name: shard for shard in manifest.reindexed}
    for wave in state.waves:
        state.shards.update(
            {
                shard.name: ShardState(reindexed.get(shard.name, shard), sealed_at=wave.at, base=wave.base)
                for shard in wave.shards
            }
        )
    state.uploads_refused.sort(key=lambda one: one.number)
    state.uploaded_at = max((record.at for record in loose if isinstance(record, Uploaded)), default=None)
    for record in loose:
        one = tries.setdefault((record.shard, record.n), Try(record.n))
        match record:
            case Uploaded():
                one.file_id = record.file_id
            case Intent():
                one.intent = record
                one.file_id = one.file_id or record.file_id
            case Created():
                one.batch_id, one.created_at = record.batch_id, record.at
            case Refused():
                one.refused = record
            case CancelAsked():
                one.cancel = record
            case Settled():
                one.settled = record
                one.batch_id = one.batch_id or record.batch_id
    for (name, _), one in sorted(tries.items()):
        if name not in state.shards and (name in void or _of_another(name, manifest)):
            continue
        if name not in state.shards:
            raise LedgerError(f"The ledger holds a record of shard {name!r}, which neither the seal nor a wave names.")
        state.shards[name].tries.append(one)
    for shard in state.shards.values():
        shard.tries.sort(key=lambda one: one.n)
    drained = state.drained
    for shard in state.shards.values():
        if (last := shard.last) and (shard.shard.name, last.n) in drained:
            shard.resealed = not (last.settled or last.batch_id)
    return state


def shard_names(generation: int) -> str:
    """How the shards of a generation are named: unlike those of the others, whose records may lie in the same place."""
    return "s{:04d}" if generation == 1 else f"g{generation:03d}-{{:04d}}"


def canary_names(generation: int) -> str:
    """The same for its canaries."""
    return "c{:04d}" if generation == 1 else f"g{generation:03d}-c{{:04d}}"


def _of_another(name: str, manifest: Manifest) -> bool:
    """A shard of an earlier generation that this one does not keep, or of a later one."""
    first = _line(manifest)
    generation = int(name[1:4]) if name.startswith("g") and name[1:4].isdigit() else 1
    return generation != manifest.generation and (generation > manifest.generation or generation >= first)


class Ledger:
    """The record of one generation of a job."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._known: dict[str, Record] = {}
        #: records of an earlier generation alone, which lie where it shares those of its shards
        self._foreign: set[str] = set()

    @property
    def prefix(self) -> str:
        """Sub-folder of this generation."""
        return generation_prefix(self.manifest.generation)

    def add(self, record: Record) -> bool:
        """Record one thing. False if this very thing was recorded before, by whomever: nothing is changed then.

        :raises StoppedError: instead of an intent, if a newer generation was sealed since this one was opened.
        """
        if isinstance(record, Intent) and self._followed():
            raise StoppedError(
                f"Job {self.manifest.job_uid} was sealed anew while this worker was at work, so the batch of "
                f"{record.shard} was not created. Everything is recorded; the next attempt goes on with the new seal."
            )
        name = f"{self._place(record)}/{_name(record)}"
        written = self.folder.create(name, msgspec.json.encode(record))
        if written:
            self._known[name] = record
        return written

    def _place(self, record: Record) -> str:
        of_shards = isinstance(record, _TryRecord | Wave | Deleted)
        return f"{self._root if of_shards else self.prefix}/records"

    @property
    def _root(self) -> str:
        return generation_prefix(_line(self.manifest))

    def _followed(self) -> bool:
        later = (name for name in self.folder.folders("") if name.startswith("g") and name > self.prefix)
        return any(self.folder.read(f"{name}/seal.json") is not None for name in later)

    def state(self) -> JobState:
        """The fold of everything recorded until now, by anyone."""
        for place in {f"{self._root}/records", f"{self.prefix}/records"}:
            for name in (f"{place}/{file}" for file in self.folder.names(place)):
                data = self.folder.read(name) if name not in self._known and name not in self._foreign else None
                if data is not None:
                    record: Record = decode(data, Record, f"{self.folder.uri}/{name}")
                    if self._place(record) == place:
                        self._known[name] = record
                    else:
                        self._foreign.add(name)
        return fold(self.manifest, self._known.values())


def generation_prefix(generation: int) -> str:
    """Sub-folder of a generation."""
    return f"g{generation:03d}"


def seal(folder: Folder, manifest: Manifest) -> Ledger:
    """Create the seal. If another worker sealed this generation first, its seal counts and is returned."""
    folder.create(f"{generation_prefix(manifest.generation)}/seal.json", msgspec.json.encode(manifest))
    ledger = open_ledger(folder)
    if ledger is None:
        raise LedgerError(f"{folder.uri}: the seal was written and is gone. Is something else deleting in staging?")
    return ledger


def open_ledger(folder: Folder) -> Ledger | None:
    """The newest sealed generation of a job; None if nothing was sealed yet."""
    for name in reversed(folder.folders("")):
        data = folder.read(f"{name}/seal.json") if name.startswith("g") else None
        if data is not None:
            manifest: Manifest = decode(data, Manifest, f"{folder.uri}/{name}/seal.json")
            if manifest.format != FORMAT:
                raise LedgerError(
                    f"{folder.uri}: the job is of format {manifest.format}, this package reads {FORMAT}. Finish the "
                    "job with the version that began it, or run it again under a new run_id."
                )
            return Ledger(folder, manifest)
    return None


def earlier_lines(folder: Folder, manifest: Manifest) -> list[Ledger]:
    """The newest generation of each line of generations that ended before the one of this manifest began."""
    newest = {_line(ledger.manifest): ledger for ledger in _generations(folder)}
    return [ledger for root, ledger in newest.items() if root < _line(manifest)]


def sound_before(folder: Folder, manifest: Manifest) -> Ledger | None:
    """The newest generation before this one, of its line, that no canary stopped; None if there is none."""
    for ledger in reversed(list(_generations(folder))):
        if ledger.manifest.generation < manifest.generation and _line(ledger.manifest) == _line(manifest):
            judged = ledger.state().judged
            if judged is None or not judged.void:
                return ledger
    return None


def _generations(folder: Folder) -> Iterator[Ledger]:
    """Every generation that was sealed, oldest first."""
    for name in folder.folders(""):
        data = folder.read(f"{name}/seal.json") if name.startswith("g") else None
        if data is not None:
            yield Ledger(folder, decode(data, Manifest, f"{folder.uri}/{name}/seal.json"))


def _line(manifest: Manifest) -> int:
    """The first generation of those that keep what the one before asked."""
    return manifest.root or manifest.generation


def decode(data: bytes, kind: Any, where: str) -> Any:
    """A small file of the ledger.

    :raises LedgerError: naming the file, if it does not read as what it should be.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{where} does not read as a record of a job: {error}. It was left as it is.") from error


def _name(record: Record) -> str:
    kind = record.__struct_config__.tag
    match record:
        case Wave() | Landed() | Stopped() | Budget() | Finished() | UploadsHeld():
            return f"{kind}.{record.number}.json"
        case Begun():
            return f"{kind}.{record.task}.{record.life}.json"
        case Twin():
            digest = hashlib.sha256(record.batch_id.encode()).hexdigest()[:16]
            return f"{kind}.{digest}.{2 if record.ended else 1}.json"
        case Deadline():
            return f"{kind}.{record.clear}.json"
        case Judged() | Submitted() | AgainAsked():
            return f"{kind}.json"
    return f"{kind}.{record.shard}.{record.n}.json"
