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
gNNN/records/deadline.json              the absolute end of the wait
gNNN/records/landed.1.json              the answers were written to a table
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import FORMAT, Estimate, Manifest, Shard


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


class Wave(msgspec.Struct, frozen=True, tag="wave"):
    """Rows of settled tries, sealed again; at the finish line also those of shards that were never asked.

    The latter's try is claimed by an intent before, so that no other worker can create its batch.
    """

    number: int
    #: (shard, n) of the tries whose rows these are
    sources: list[tuple[str, int]]
    shards: list[Shard]
    at: datetime
    #: sealed after the deadline: its synchronous shards are asked at once; the others hold the rest of a source of
    #: which only a part was allowed, and are not sent
    finish: bool = False
    #: rows without a usable answer that the finish line left, by what left them
    left: dict[str, int] = {}


class Deadline(msgspec.Struct, frozen=True, tag="deadline"):
    """The absolute end of the wait, set once."""

    ends: datetime
    at: datetime


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


Record = Uploaded | Intent | Created | Refused | CancelAsked | Settled | Judged | Wave | Deadline | Landed
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
    deadline: datetime | None = None
    #: what the canary said; None before, and for a job without one
    judged: Judged | None = None

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
        elif isinstance(record, Deadline):
            state.deadline = record.ends
        elif isinstance(record, Judged):
            state.judged = record
        else:
            loose.append(record)
    state.waves.sort(key=lambda wave: wave.number)
    for wave in state.waves:
        state.shards.update({shard.name: ShardState(shard) for shard in wave.shards})
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


class Ledger:
    """The record of one generation of a job."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._known: dict[str, Record] = {}

    @property
    def prefix(self) -> str:
        """Sub-folder of this generation."""
        return generation_prefix(self.manifest.generation)

    def add(self, record: Record) -> bool:
        """Record one thing. False if this very thing was recorded before, by whomever: nothing is changed then."""
        name = _name(record)
        written = self.folder.create(f"{self.prefix}/records/{name}", msgspec.json.encode(record))
        if written:
            self._known[name] = record
        return written

    def state(self) -> JobState:
        """The fold of everything recorded until now, by anyone."""
        for name in self.folder.names(f"{self.prefix}/records"):
            if name not in self._known:
                data = self.folder.read(f"{self.prefix}/records/{name}")
                if data is not None:
                    self._known[name] = decode(data, Record, f"{self.folder.uri}/{self.prefix}/records/{name}")
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
        case Wave() | Landed():
            return f"{kind}.{record.number}.json"
        case Deadline() | Judged():
            return f"{kind}.json"
    return f"{kind}.{record.shard}.{record.n}.json"
