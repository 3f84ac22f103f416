"""The ledger: the record of one job, as a folder of small files in staging.

Every seal and every record is created exclusively and never rewritten. `core.ledger.fold` computes the state of the job
from them. A worker that dies leaves nothing half done: the next one reads the records and continues.

    gNNN/seal.json                                the manifest, which seals generation NNN
    gNNN/records/uploaded.s0001.1.json            shard s0001, submission 1: the provider has its input file
    gNNN/records/intent.s0001.1.json              a worker is about to create the batch; the nonce names the call
    gNNN/records/created.s0001.1.json             the provider created the batch with this id
    gNNN/records/refused.s0001.1.json             there is no batch, and why
    gNNN/records/cancel_requested.s0001.1.json    the provider was asked to cancel the batch
    gNNN/records/collection_failed.s0001.1.1.json its result files could not be collected for the first time
    gNNN/records/settled.s0001.1.json             the batch ended; its result files are in gNNN/collected/s0001.1/
    gNNN/records/files_deleted.s0001.1.json       its files were deleted at the provider
    gNNN/records/canary_verdict.json              the conclusion from the canary's answers
    gNNN/records/retry_round.1.json               rows that were sealed into new shards
    gNNN/records/task_started.wait.2.json         a task of the job started in its clear epoch 2
    gNNN/records/submitted.json                   submit succeeded
    gNNN/records/deadline.2.json                  the absolute deadline of the wait in its clear epoch 2
    gNNN/records/budget.1.json                    a ceiling that replaces the one of the seal
    gNNN/records/upload_refused.1.json            the provider accepted no more input files for now
    gNNN/records/finished.1.json                  the wait is over
    gNNN/records/duplicate_batch.DIGEST.1.json    a duplicate batch was cancelled; .2 once it has ended
    gNNN/records/landed.1.json                    the answers were written to the results table or a file
    gNNN/records/job_cancelled.1.json             a person cancelled the job
    gNNN/records/resubmit_requested.json          a person wants every row sent from scratch
    gNNN/records/bundle.DIGEST.json               copies of other records of this folder, in one file

GENERATIONS. A generation is the set of rows that were sealed together, and `core.lifecycle.generation` decides when a
job gets a new one. A generation that was compared with the previous one keeps its unchanged rows, with their batches
and answers. A generation that started over keeps nothing. A *lineage* is a run of generations that keep each other's
shards:

    g001  sealed first        ─┐ lineage with root 1: the records of all its
    g002  compared with g001  ─┘ shards are in g001/records
    g003  started over        ─┐ lineage with root 3: the records of all its
    g004  compared with g003  ─┘ shards are in g003/records

Records about shards and retry rounds (`SubmissionRecord`, `RetryRound`, `FilesDeleted`) are kept with the seal of the
root, so that every generation of the lineage finds them. All other records are about one generation, and are kept
with its own seal. From generation 2 on, the names of new shards contain the generation, and retry rounds are numbered
throughout a lineage. So the name of a shard is unique within its lineage.

BUNDLES. An object store charges for each request, and every task reads the records that earlier tasks wrote. So a task
that ends or is deferred copies the records that are not in a bundle yet into a new one. A reader takes from a bundle
only what the folder still lists. Records never change, so a bundle never becomes wrong, and without one, each record
is read by itself.

A worker that still works on an earlier generation must not create another batch for it, since the next generation might
have sealed the same rows. `Ledger.add` therefore refuses an intent once there is a newer seal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar

import msgspec

from airflow_provider_batch.core.ledger.fold import fold, lineage_root
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import FORMAT, Manifest
from airflow_provider_batch.core.ledger.records import (
    FilesDeleted,
    Finished,
    Intent,
    JobCancelled,
    Landed,
    Record,
    RetryRound,
    SubmissionRecord,
    UploadRefused,
    file_name,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.exceptions import LedgerError, StoppedError

#: records of which a job may have any number; see `Ledger.append`
Numbered = TypeVar("Numbered", Landed, JobCancelled, Finished, UploadRefused)

#: number of records that are read together, from a store that can do it
_READ_TOGETHER = 500
#: number of records for which a bundle is worth its two requests
_MIN_BUNDLED = 5
#: how the names of bundles begin
_BUNDLE = "bundle."


def shard_name_format(generation: int) -> str:
    """Return the format of the names of a generation's shards. Names are unique within a lineage."""
    return "s{:04d}" if generation == 1 else f"g{generation:03d}-{{:04d}}"


def canary_name_format(generation: int) -> str:
    """Return the format of the names of a generation's canary shards."""
    return "c{:04d}" if generation == 1 else f"g{generation:03d}-c{{:04d}}"


class Ledger:
    """The ledger of one generation of a job."""

    def __init__(self, folder: Folder, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        #: the records read or written so far, by file name
        self._records: dict[str, Record] = {}
        #: content of the records that are in no bundle that this worker knows, by file name
        self._unbundled: dict[str, bytes] = {}
        #: names of bundles that were read or written, and of records in the folder of the root that concern only the
        #: root's own generation
        self._ignored_names: set[str] = set()
        #: called with each record that this worker has written
        self.on_record: Callable[[Record], None] | None = None

    @property
    def prefix(self) -> str:
        """Subfolder of this generation."""
        return generation_prefix(self.manifest.generation)

    def add(self, record: Record) -> bool:
        """Write a record. Return False, without writing, if the same event is already recorded.

        :raises StoppedError: if the record is an intent and a newer generation is sealed.
        """
        if isinstance(record, Intent) and self._has_newer_seal():
            raise StoppedError(
                f"Job {self.manifest.job_uid} got a new generation while this worker was working on the previous one, "
                f"so the batch of shard {record.shard} was not created. Everything done so far is recorded, and the "
                "next attempt continues with the new generation."
            )
        name, data = f"{self._records_folder(record)}/{file_name(record)}", msgspec.json.encode(record)
        is_new = self.folder.create(name, data)
        if is_new:
            self._records[name], self._unbundled[name] = record, data
            if self.on_record is not None:
                self.on_record(record)
        return is_new

    def append(self, record: Numbered) -> Numbered:
        """Write a record under the first free number, starting with its own. Return it with that number."""
        while not self.add(record):
            record = msgspec.structs.replace(record, number=record.number + 1)
        return record

    def _records_folder(self, record: Record) -> str:
        is_shared = isinstance(record, SubmissionRecord | RetryRound | FilesDeleted)
        return f"{self._root_prefix if is_shared else self.prefix}/records"

    @property
    def _root_prefix(self) -> str:
        return generation_prefix(lineage_root(self.manifest))

    def _has_newer_seal(self) -> bool:
        # generations are numbered without gaps
        return self.folder.read(f"{generation_prefix(self.manifest.generation + 1)}/seal.json") is not None

    def state(self) -> JobState:
        """Return the state of the job from everything recorded so far by any worker.

        :raises LedgerError: if a record cannot be read, or belongs to no shard of the job.
        """
        for folder in self._folders:
            names = [f"{folder}/{file}" for file in self.folder.names(folder)]
            unread = [name for name in names if not self._is_read(name)]
            bundles = [name for name in unread if name.startswith(f"{folder}/{_BUNDLE}")]
            if len(unread) > 2 * len(bundles):  # each bundle costs a request, and so does each record
                self._read_bundles(folder, bundles, set(unread))
            unread = [name for name in unread if name not in bundles and not self._is_read(name)]
            for start in range(0, len(unread), _READ_TOGETHER):
                self._read_records(folder, unread[start : start + _READ_TOGETHER])
        return self.known_state()

    def known_state(self) -> JobState:
        """Return the state of the job from what this worker has read or written so far, without a look at staging.

        Use it where this worker has called `state` just before, and nothing depends on what others did since.
        """
        return fold(self.manifest, self.known_records())

    def known_records(self) -> list[Record]:
        """Return the records that this worker has read or written so far, without a look at staging."""
        # a copy, because other threads of Airflow's API server may read this ledger too
        return list(self._records.values())

    def bundle(self) -> None:
        """Copy the records that are in no bundle yet into a new one, if there are enough of them to be worth it."""
        for folder in self._folders:
            names = sorted(name for name in self._unbundled if name.startswith(f"{folder}/"))
            if len(names) < _MIN_BUNDLED:
                continue
            digest = sha256("\n".join(names).encode()).hexdigest()[:16]
            content = {name.removeprefix(f"{folder}/"): msgspec.Raw(self._unbundled[name]) for name in names}
            bundle = f"{folder}/{_BUNDLE}{digest}.json"
            self.folder.create(bundle, msgspec.json.encode(content))
            self._ignored_names.add(bundle)
            for name in names:
                del self._unbundled[name]

    @property
    def _folders(self) -> set[str]:
        return {f"{self._root_prefix}/records", f"{self.prefix}/records"}

    def _is_read(self, name: str) -> bool:
        return name in self._records or name in self._ignored_names

    def _read_bundles(self, folder: str, bundles: list[str], unread: set[str]) -> None:
        """Read the unread records of a folder from its bundles, as far as they are there."""
        for bundle, data in zip(bundles, self.folder.read_all(bundles), strict=True):
            self._ignored_names.add(bundle)
            for file, record in _content_of_bundle(data).items():
                if (name := f"{folder}/{file}") in unread:
                    with suppress(LedgerError):  # the file itself is read instead
                        self._add_read(folder, name, bytes(record))

    def _read_records(self, folder: str, names: list[str]) -> None:
        for name, data in zip(names, self.folder.read_all(names), strict=True):
            if data is not None and self._add_read(folder, name, data):
                self._unbundled[name] = data

    def _add_read(self, folder: str, name: str, data: bytes) -> bool:
        """Add a record that was read. Return False if it is about another generation."""
        record: Record = decode(data, Record, f"{self.folder.uri}/{name}")
        is_ours = self._records_folder(record) == folder
        if is_ours:
            self._records[name] = record
        else:
            self._ignored_names.add(name)
        return is_ours


def _content_of_bundle(data: bytes | None) -> dict[str, msgspec.Raw]:
    """Return the records in a bundle. A bundle that is lost or damaged has none, because they are also files."""
    try:
        content: dict[str, msgspec.Raw] = _decoder(dict[str, msgspec.Raw]).decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return content


def generation_prefix(generation: int) -> str:
    """Return the name of a generation's subfolder."""
    return f"g{generation:03d}"


def seal(folder: Folder, manifest: Manifest) -> Ledger:
    """Create the seal, and return the ledger of the job's newest generation.

    If another worker sealed this generation first, its seal counts and this manifest is discarded.

    :raises LedgerError: if the seal disappeared after it was written.
    """
    folder.create(f"{generation_prefix(manifest.generation)}/seal.json", msgspec.json.encode(manifest))
    ledger = open_ledger(folder)
    if ledger is None:
        raise LedgerError(
            f"The seal of job {manifest.job_uid} was written to {folder.uri}, but has disappeared since. Nothing was "
            "uploaded. Check whether something else deletes files in staging, then run the task again."
        )
    return ledger


def open_ledger(folder: Folder) -> Ledger | None:
    """Return the ledger of the newest sealed generation of a job, or None if nothing is sealed.

    :raises LedgerError: if the seal cannot be read or has another format.
    """
    for name in reversed(folder.folders("")):
        data = folder.read(f"{name}/seal.json") if name.startswith("g") else None
        if data is not None:
            manifest: Manifest = decode(data, Manifest, f"{folder.uri}/{name}/seal.json")
            if manifest.format != FORMAT:
                raise LedgerError(
                    f"The job in {folder.uri} has format {manifest.format}, but this version of the package reads "
                    f"format {FORMAT}. Nothing was changed. Finish the job with the version that started it, or run it "
                    "again under a new run_id."
                )
            return Ledger(folder, manifest)
    return None


def earlier_lineages(folder: Folder, manifest: Manifest) -> list[Ledger]:
    """Return the newest generation of each lineage that ended before the lineage of this manifest started."""
    newest_root = lineage_root(manifest)
    if newest_root == 1:
        return []
    newest = {lineage_root(ledger.manifest): ledger for ledger in _generations(folder)}
    return [ledger for root, ledger in newest.items() if root < newest_root]


def previous_valid_generation(folder: Folder, manifest: Manifest) -> Ledger | None:
    """Return the newest earlier generation of the lineage that its canary did not stop, or None if there is none."""
    root = lineage_root(manifest)
    for ledger in reversed(list(_generations(folder))):
        if ledger.manifest.generation < manifest.generation and lineage_root(ledger.manifest) == root:
            canary_verdict = ledger.state().canary_verdict
            if canary_verdict is None or not canary_verdict.void:
                return ledger
    return None


def _generations(folder: Folder) -> Iterator[Ledger]:
    """Yield every sealed generation, oldest first."""
    for name in folder.folders(""):
        data = folder.read(f"{name}/seal.json") if name.startswith("g") else None
        if data is not None:
            yield Ledger(folder, decode(data, Manifest, f"{folder.uri}/{name}/seal.json"))


@cache
def _decoder(record_type: Any) -> msgspec.json.Decoder[Any]:
    # to build the decoder of a union takes fifty times as long as to decode a record with it
    return msgspec.json.Decoder(record_type)


def decode(data: bytes, record_type: Any, location: str) -> Any:
    """Decode a small file of the ledger.

    :param location: address of the file, for the error.
    :raises LedgerError: if the file is not a valid record of this type.
    """
    try:
        return _decoder(record_type).decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LedgerError(
            f"Cannot read {location} as a record of a job: {error}. The file was left as it is. Restore it, or run the "
            "job under a new run_id."
        ) from error
