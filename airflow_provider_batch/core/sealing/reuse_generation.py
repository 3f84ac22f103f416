"""A job whose submit was cleared: what is asked now, compared with what was asked before.

A row is the same if its custom_id and its request hash are. It then stays in the shard that it was asked in, with its
batch, its answer and its attempts; only its carried columns are taken from the new reading. A shard is kept as long as
the provider has, or had, a batch of it; rows of shards that were never sent are sealed anew with the new ones, so that
nothing is sent that nobody asks any more.

What is held in memory is 8 bytes and the number of a shard for each row, and one shard's rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, RowIndex, Shard
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.requests.render import Request
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader, RequestIndex
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.exceptions import EqualDigestsError

#: phases of a shard that a batch exists of, or may exist
_SENT = (Phase.CREATING, Phase.LIVE, Phase.SETTLED)


class RowSet:
    """The rows of a generation as one number, whatever their order: custom_id, request and carried values of each."""

    def __init__(self) -> None:
        self._sum = 0
        self.rows = 0

    def add(self, custom_id: str, sha256: str, carry: list[Any]) -> None:
        """Count a row in."""
        told = msgspec.json.encode([custom_id, sha256, carry])
        self._sum += int.from_bytes(hashlib.sha256(told).digest(), "little")
        self.rows += 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowSet) and (self._sum, self.rows) == (other._sum, other.rows)

    __hash__ = None  # type: ignore[assignment]


class PreviousGeneration:
    """The newest generation of a job, as the next one is compared with it."""

    def __init__(self, ledger: Ledger) -> None:
        state = ledger.state()
        self.folder: Folder = ledger.folder
        self.manifest: Manifest = state.manifest
        self._state = state
        self._sent = _sent(state)
        #: shards that a batch exists of, or may exist
        self.sent_shards = [shard for shard in self.manifest.shards if shard.name in self._sent]
        self._asked = RequestIndex()
        self._rows = RowSet()
        for shard in self.manifest.shards:
            for row in read_rows(self.folder, shard):
                if row.lands:
                    self._rows.add(row.custom_id, row.sha256, row.carry)
                if shard.name in self._sent:
                    self._asked.assign(_both(row.custom_id, row.sha256), shard.name)
        self._copies = DuplicateReader(self.folder, self.manifest.duplicate_files)
        for row in self._copies.all_rows():
            self._rows.add(row.custom_id, row.sha256, row.carry)

    def add_requests_to(self, sealer: Sealer, *, deduplicate: bool) -> None:
        """Make a sealer know what is asked already, so that rows with the same request share its answer."""
        if deduplicate:
            for shard in self.sent_shards:
                for row in read_rows(self.folder, shard):
                    sealer.request_index.assign(row.sha256, shard.name)
        for known in self.manifest.reused_files:
            for row in self._copies.rows_of(known.name):
                sealer.request_index.assign(row.sha256, known.name)
        sealer.reuse(self.manifest.reused_files)

    def shard_of(self, request: Request, sha256: str) -> str | None:
        """The shard that this very row is asked in; None if it is new or changed, or was never sent."""
        return self._asked.shard_of(_both(request.custom_id, sha256))

    def matches(self, rows: RowSet, manifest: Manifest) -> bool:
        """Whether a new generation with these rows would be this one again."""
        return self._rows == rows and all(
            getattr(self.manifest, name) == getattr(manifest, name) for name in ("output_schema", "carry", "prices")
        )

    def next_manifest(self, manifest: Manifest, sealer: Sealer, prefix: str) -> Manifest:
        """The manifest of the next generation: with the shards that were sent, each with a new index of its rows.

        The job stays the same one: batches that run carry its uid, and so does the reference that later tasks hold.

        :param manifest: of the new shards alone, which `sealer` has finished.
        :raises EqualDigestsError: if two different rows were taken for one by chance.
        """
        copies = DuplicateReader(self.folder, sealer.duplicate_files)
        kept = [self._reindexed(shard, sealer.kept_rows, copies, prefix) for shard in self.sent_shards]
        return msgspec.structs.replace(
            manifest,
            job_uid=self.manifest.job_uid,
            shards=[*kept, *manifest.shards],
            root=self.manifest.root or self.manifest.generation,
            reindexed=self._reindexed_retry_rounds(kept, prefix),
            void_retry_rounds=self._void_retry_rounds(),
            several_inputs=manifest.several_inputs or self.manifest.several_inputs,
        )

    def _reindexed(self, shard: Shard, kept: DuplicateReader, copies: DuplicateReader, prefix: str) -> Shard:
        before = read_rows(self.folder, shard)
        copies.check_hashes(shard.name, (row.sha256 for row in before))
        now = {(row.custom_id, row.sha256): row for row in kept.rows_of(shard.name)}
        taken = {row.sha256 for row in copies.rows_of(shard.name)}
        rows = []
        for row in before:
            found = now.pop((row.custom_id, row.sha256), None)
            if found is not None:
                changes: dict[str, Any] = {"carry": found.carry, "number": found.number, "lands": True, "needed": True}
            else:
                changes = {"carry": [], "lands": False, "needed": row.sha256 in taken}
            rows.append(msgspec.structs.replace(row, **changes))
        if now:
            raise EqualDigestsError(
                f"{len(now)} row(s) were taken for rows of shard {shard.name} that they are not, as the 8 bytes kept "
                "of each are equal by chance. Nothing was uploaded. Clear the task: they are drawn anew."
            )
        return self._indexed(shard, rows, prefix)

    def _reindexed_retry_rounds(self, kept: Iterable[Shard], prefix: str) -> list[Shard]:
        """The shards of rows that were asked again, each with an index that agrees with those of the kept shards."""
        now = {shard.name: shard for shard in kept}
        again = []
        for retry_round in self._state.retry_rounds:
            if retry_round.number in self._void_retry_rounds():
                continue
            for shard in retry_round.shards:
                rows = read_rows(self.folder, shard)
                for origin in {row.origin for row in rows}:
                    current = read_rows(self.folder, now[origin]) if origin in now else None
                    for line, row in enumerate(rows):
                        if row.origin == origin:
                            rows[line] = _as_now(row, current)
                again.append(self._indexed(shard, rows, prefix))
        return again

    def _void_retry_rounds(self) -> list[int]:
        """Waves of which nothing was sent."""
        unsent = [
            retry_round.number
            for retry_round in self._state.retry_rounds
            if not any(shard.name in self._sent for shard in retry_round.shards)
        ]
        return [*self.manifest.void_retry_rounds, *unsent]

    def _indexed(self, shard: Shard, rows: list[RowIndex], prefix: str) -> Shard:
        name = f"{prefix}/{shard.name}.rows.jsonl"
        with self.folder.writer(name) as index:
            for row in rows:
                index.write(msgspec.json.encode(row) + b"\n")
        return msgspec.structs.replace(
            shard,
            index_file=name,
            obsolete_rows=sum(not row.lands for row in rows),
            unneeded_rows=sum(not row.needed for row in rows),
        )


def _sent(state: JobState) -> set[str]:
    """Names of the shards that a batch exists of, or may exist; or of a part of them, where they were made smaller."""
    sent = {name for name, shard in state.shards.items() if shard.phase in _SENT}
    for retry_round in reversed(state.retry_rounds):
        if any(shard.name in sent for shard in retry_round.shards):
            sent.update(name for name, _ in retry_round.sources)
    return sent


def _as_now(row: RowIndex, origin: list[RowIndex] | None) -> RowIndex:
    if origin is None:
        return msgspec.structs.replace(row, carry=[], lands=False, needed=False)
    now = origin[row.line]
    return msgspec.structs.replace(row, carry=now.carry, number=now.number, lands=now.lands, needed=now.needed)


def _both(custom_id: str, sha256: str) -> str:
    return f"{sha256}{custom_id}"
