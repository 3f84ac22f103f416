"""A job's record: a folder of small files, each created exclusively and never rewritten; the state is their fold.

gNNN/seal.json                          the manifest: the seal of generation NNN
gNNN/records/uploaded.s0001.1.json      shard s0001, first try: its input file is with the provider
gNNN/records/intent.s0001.1.json        about to be created, with a nonce (who loses this create, stops)
gNNN/records/created.s0001.1.json       the provider's batch id
gNNN/records/refused.s0001.1.json       surely not created, and why
gNNN/records/cancel.s0001.1.json        we asked the provider to cancel it
gNNN/records/settled.s0001.1.json       it ended; its answers lie in gNNN/collected/s0001.1/
gNNN/records/canary.json                what the canary's answers say of the rest, and what it will cost
gNNN/records/retry.1.json               rows asked again, sealed into shards of their own
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

from collections.abc import Iterator
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.fold import fold, lineage_root
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import FORMAT, Manifest
from airflow_provider_batch.core.ledger.records import (
    FilesDeleted,
    Intent,
    NumberedRecord,
    Record,
    RetryRound,
    SubmissionRecord,
    file_name,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.exceptions import LedgerError, StoppedError


def shard_name_format(generation: int) -> str:
    """How the shards of a generation are named: unlike those of the others, whose records may lie in the same place."""
    return "s{:04d}" if generation == 1 else f"g{generation:03d}-{{:04d}}"


def canary_name_format(generation: int) -> str:
    """The same for its canaries."""
    return "c{:04d}" if generation == 1 else f"g{generation:03d}-c{{:04d}}"


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
        name = f"{self._place(record)}/{file_name(record)}"
        written = self.folder.create(name, msgspec.json.encode(record))
        if written:
            self._known[name] = record
        return written

    def append(self, record: NumberedRecord) -> None:
        """Record one more thing of its kind, under the first number from its own on that is free."""
        while not self.add(record):
            record = msgspec.structs.replace(record, number=record.number + 1)

    def _place(self, record: Record) -> str:
        of_shards = isinstance(record, SubmissionRecord | RetryRound | FilesDeleted)
        return f"{self._root if of_shards else self.prefix}/records"

    @property
    def _root(self) -> str:
        return generation_prefix(lineage_root(self.manifest))

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


def earlier_lineages(folder: Folder, manifest: Manifest) -> list[Ledger]:
    """The newest generation of each line of generations that ended before the one of this manifest began."""
    newest = {lineage_root(ledger.manifest): ledger for ledger in _generations(folder)}
    return [ledger for root, ledger in newest.items() if root < lineage_root(manifest)]


def previous_valid_generation(folder: Folder, manifest: Manifest) -> Ledger | None:
    """The newest generation before this one, of its line, that no canary stopped; None if there is none."""
    for ledger in reversed(list(_generations(folder))):
        if ledger.manifest.generation < manifest.generation and lineage_root(ledger.manifest) == lineage_root(manifest):
            canary_verdict = ledger.state().canary_verdict
            if canary_verdict is None or not canary_verdict.void:
                return ledger
    return None


def _generations(folder: Folder) -> Iterator[Ledger]:
    """Every generation that was sealed, oldest first."""
    for name in folder.folders(""):
        data = folder.read(f"{name}/seal.json") if name.startswith("g") else None
        if data is not None:
            yield Ledger(folder, decode(data, Manifest, f"{folder.uri}/{name}/seal.json"))


def decode(data: bytes, kind: Any, where: str) -> Any:
    """A small file of the ledger.

    :raises LedgerError: naming the file, if it does not read as what it should be.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(f"{where} does not read as a record of a job: {error}. It was left as it is.") from error
