"""Decides what the next generation of a job, whose submit task was cleared, keeps of the previous one.

Clearing submit reads the warehouse again. `PreviousGeneration` compares the new rows with the old ones. Two rows are
the same if their custom_ids and their request hashes are equal.

* A row that was sent before stays in its shard, with its batch, its answer and its attempts. Only its carried columns
  and its row number are taken from the new reading.
* A row that is new, or whose request changed, is sealed into a new shard. So is a row that could not be sent before,
  because a file was missing, once the file exists.
* A row that disappeared, or whose request changed, stays in the old shard too, because the input file was already sent.
  It no longer lands (`lands`), and its answer is needed only if another row shares it (`needed`).

A shard is kept if the provider has, had or may have a batch of it. Rows of shards that were never sent are sealed again
together with the new rows, so that rows that disappeared are not sent. The input files of kept shards do not change;
each gets a new index of its rows, and so do the shards of their retry rounds.

Memory holds 8 bytes and a shard number for each row, plus one shard's rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, RowIndex, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, RequestIndex
from airflow_provider_batch.core.sealing.invalid_rows import read_invalid_rows
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import EqualDigestsError

#: phases of a shard for which a batch exists or may exist
_SENT_PHASES = (Phase.CREATING, Phase.LIVE, Phase.SETTLED)


class RowSet:
    """A set of rows, stored as a sum of hashes of their custom_ids, requests and carried values.

    Two sets are equal if they have the same rows, in any order.
    """

    def __init__(self) -> None:
        self._sum = 0
        self.rows = 0

    def add_all(self, rows: Iterable[tuple[str, str, list[Any]]]) -> None:
        """Add rows to the set: the custom_id, the request hash and the carried values of each."""
        for row in rows:
            self._sum += int.from_bytes(hashlib.sha256(msgspec.json.encode(row)).digest(), "little")
            self.rows += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSet) and (self._sum, self.rows) == (other._sum, other.rows)

    __hash__ = None  # type: ignore[assignment]


class PreviousGeneration:
    """The newest generation of a job, with which the next one is compared."""

    def __init__(self, ledger: Ledger) -> None:
        state = ledger.state()
        self.folder: Folder = ledger.folder
        self.manifest: Manifest = state.manifest
        self._state = state
        self._sent_names = _sent_shard_names(state)
        #: shards for which a batch exists or may exist
        self.sent_shards = [shard for shard in self.manifest.shards if shard.name in self._sent_names]
        self._sent_rows = RequestIndex()
        self._rows = RowSet()
        for shard in self.manifest.shards:
            rows = read_rows(self.folder, shard)
            self._add_rows(row for row in rows if row.lands)
            if shard.name in self._sent_names:
                self._sent_rows.assign_all((_row_key(row.custom_id, row.sha256) for row in rows), shard.name)
        self._duplicates = DuplicateReader(self.folder, self.manifest.duplicate_files)
        self._add_rows(self._duplicates.all_rows())
        if self.manifest.invalid_file is not None:
            self._add_rows(invalid.row for invalid in read_invalid_rows(self.folder, self.manifest.invalid_file))

    def _add_rows(self, rows: Iterable[RowIndex]) -> None:
        self._rows.add_all((row.custom_id, row.sha256, row.carry) for row in rows)

    def add_requests_to(self, sealer: Sealer, *, deduplicate: bool) -> None:
        """Add the requests that were sent, and the reused answers, to the index of a sealer.

        New rows with the same requests then share these answers.
        """
        if deduplicate:
            for shard in self.sent_shards:
                sealer.request_index.assign_all((row.sha256 for row in read_rows(self.folder, shard)), shard.name)
        for reused_file in self.manifest.reused_files:
            rows = self._duplicates.rows_of(reused_file.name)
            sealer.request_index.assign_all((row.sha256 for row in rows), reused_file.name)
        sealer.reuse(self.manifest.reused_files)

    def shard_of(self, row: RenderedRow) -> str | None:
        """Return the shard in which the same row was sent, or None if it is new, has changed or was never sent."""
        return self._sent_rows.shard_of(_row_key(row.request.custom_id, row.sha256))

    def matches(self, rows: RowSet, manifest: Manifest) -> bool:
        """Return whether a new generation with these rows and this manifest would be identical to this one."""
        return self._rows == rows and all(
            getattr(self.manifest, name) == getattr(manifest, name) for name in ("author_schema", "carry", "prices")
        )

    def next_manifest(self, manifest: Manifest, sealer: Sealer, prefix: str) -> Manifest:
        """Return the manifest of the next generation.

        It has the shards that were sent, each with a new index of its rows, and the new shards.

        The job_uid stays the same, because it is in running batches and in the references that later tasks hold.

        :param manifest: manifest of the new shards alone, after `sealer` has finished them.
        :raises EqualDigestsError: if two different rows were mistaken for each other by chance.
        """
        duplicates = DuplicateReader(self.folder, sealer.duplicate_files)
        kept_shards = [self._reindex(shard, sealer.kept_rows, duplicates, prefix) for shard in self.sent_shards]
        return msgspec.structs.replace(
            manifest,
            job_uid=self.manifest.job_uid,
            shards=[*kept_shards, *manifest.shards],
            root=self.manifest.root or self.manifest.generation,
            reindexed=self._reindex_retry_rounds(kept_shards, prefix),
            void_retry_rounds=self._void_retry_rounds(),
            several_inputs=manifest.several_inputs or self.manifest.several_inputs,
        )

    def _reindex(self, shard: Shard, kept_rows: DuplicateReader, duplicates: DuplicateReader, prefix: str) -> Shard:
        old_rows = read_rows(self.folder, shard)
        duplicates.check_hashes(shard.name, (row.sha256 for row in old_rows))
        new_rows = {(row.custom_id, row.sha256): row for row in kept_rows.rows_of(shard.name)}
        shared_hashes = {row.sha256 for row in duplicates.rows_of(shard.name)}
        rows = []
        for row in old_rows:
            new_row = new_rows.pop((row.custom_id, row.sha256), None)
            if new_row is not None:
                changes: dict[str, Any] = {
                    "carry": new_row.carry,
                    "number": new_row.number,
                    "lands": True,
                    "needed": True,
                }
            else:
                changes = {"carry": [], "lands": False, "needed": row.sha256 in shared_hashes}
            rows.append(msgspec.structs.replace(row, **changes))
        if new_rows:
            raise EqualDigestsError(
                f"{format_count(len(new_rows), 'row')} of the query {'was' if len(new_rows) == 1 else 'were'} mistaken "
                f"for other rows of shard {shard.name}, because the 8-byte digests made from them are equal by "
                "chance. Nothing was uploaded. Clear the task: it then draws new digests."
            )
        return self._write_index(shard, rows, prefix)

    def _reindex_retry_rounds(self, kept_shards: Iterable[Shard], prefix: str) -> list[Shard]:
        """Return the shards of retried rows, each with an index that agrees with the indexes of the kept shards."""
        kept_by_name = {shard.name: shard for shard in kept_shards}
        reindexed_shards = []
        for retry_round in self._state.retry_rounds:
            if retry_round.number in self._void_retry_rounds():
                continue
            for shard in retry_round.shards:
                rows = read_rows(self.folder, shard)
                for origin in {row.origin for row in rows}:
                    origin_rows = read_rows(self.folder, kept_by_name[origin]) if origin in kept_by_name else None
                    for line, row in enumerate(rows):
                        if row.origin == origin:
                            rows[line] = _update_row(row, origin_rows)
                reindexed_shards.append(self._write_index(shard, rows, prefix))
        return reindexed_shards

    def _void_retry_rounds(self) -> list[int]:
        """Return the numbers of the retry rounds that do not count, because none of their shards was sent."""
        unsent_rounds = [
            retry_round.number
            for retry_round in self._state.retry_rounds
            if not any(shard.name in self._sent_names for shard in retry_round.shards)
        ]
        return [*self.manifest.void_retry_rounds, *unsent_rounds]

    def _write_index(self, shard: Shard, rows: list[RowIndex], prefix: str) -> Shard:
        name, digest = f"{prefix}/{shard.name}.rows.jsonl", hashlib.sha256()
        with self.folder.writer(name) as index:
            for row in rows:
                line = msgspec.json.encode(row) + b"\n"
                index.write(line)
                digest.update(line)
        return msgspec.structs.replace(
            shard,
            index_file=name,
            index_sha256=digest.hexdigest(),
            obsolete_rows=sum(not row.lands for row in rows),
            unneeded_rows=sum(not row.needed for row in rows),
        )


def _sent_shard_names(state: JobState) -> set[str]:
    """Return the names of the shards for which a batch exists or may exist.

    A shard whose rows were sealed again into smaller shards counts as sent if one of these was.
    """
    names = {name for name, shard in state.shards.items() if shard.phase in _SENT_PHASES}
    for retry_round in reversed(state.retry_rounds):
        if any(shard.name in names for shard in retry_round.shards):
            names.update(name for name, _ in retry_round.sources)
    return names


def _update_row(row: RowIndex, origin_rows: list[RowIndex] | None) -> RowIndex:
    """Return a retried row, updated from the shard in which it was first sealed.

    :param origin_rows: the new index of that shard, or None if the shard was not kept.
    """
    if origin_rows is None:
        return msgspec.structs.replace(row, carry=[], lands=False, needed=False)
    origin = origin_rows[row.line]
    return msgspec.structs.replace(
        row, carry=origin.carry, number=origin.number, lands=origin.lands, needed=origin.needed
    )


def _row_key(custom_id: str, sha256: str) -> str:
    return f"{sha256}{custom_id}"
