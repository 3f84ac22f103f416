"""Duplicates: rows with the same request as an earlier row. Each distinct request is sent only once.

The first row with a request goes into a shard. Later rows with an equal request are its *duplicates*. No input file
contains them. They are stored in files next to the shards, grouped by the shard whose answer they wait for, and landing
gives them that answer. Rows that reuse an answer of an earlier job are stored in the same way; they wait for a
`ReusedFile` instead of a shard.

Memory holds an 8-byte digest and a shard number for each distinct request, plus one file's worth of duplicates.
"""

from __future__ import annotations

import hashlib
import secrets
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import DuplicateFile, RowIndex
from airflow_provider_batch.core.ledger.sealed_file import changed_file_error, decode_entries, open_sealed
from airflow_provider_batch.exceptions import EqualDigestsError, StagingError

_BUCKETS = 4096
_EIGHT_BYTES = 2**64 - 1
#: the most rows and, approximately, the most bytes in a file of duplicates; landing also holds this much at a time
FILE_ROWS = 50_000
FILE_BYTES = 32 * 1024 * 1024


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """The duplicates of one shard's rows, which lie one after another in a file."""

    #: the shard whose answers these rows wait for
    shard: str
    #: position in the file where they begin, in bytes
    offset: int
    rows: int


class RequestIndex:
    """The distinct requests of a job, each with the shard that contains it.

    A request is identified by an 8-byte digest of its hash and a secret drawn for this build. Because of the secret,
    nobody can construct two requests that are mistaken for each other, and a build that meets such a pair by chance can
    simply be repeated. `DuplicateReader.check_hashes` compares the full hashes, so that such a pair does not go
    unnoticed.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._digests = [array("Q") for _ in range(_BUCKETS)]
        self._shards = [array("H") for _ in range(_BUCKETS)]
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}

    def shard_of(self, sha256: str) -> str | None:
        """Return the name of the shard that contains the request with this hash, or None if none does yet."""
        number = self._number_of(sha256)
        return None if number is None else self._names[number] or None

    def is_unassigned(self, sha256: str) -> bool:
        """Return whether the request with this hash is in the index, but in no shard yet."""
        number = self._number_of(sha256)
        return number is not None and not self._names[number]

    def _number_of(self, sha256: str) -> int | None:
        digest = self._digest(sha256)
        bucket = digest % _BUCKETS
        digests = self._digests[bucket]
        index = bisect_left(digests, digest)
        exists = index < len(digests) and digests[index] == digest
        return self._shards[bucket][index] if exists else None

    def assign_all(self, hashes: Iterable[str], shard: str) -> None:
        """Record that `shard` contains the requests with these hashes; '' adds requests that are in no shard yet."""
        number = self._numbers.get(shard)
        if number is None:
            number = self._numbers[shard] = len(self._names)
            self._names.append(shard)
            if number == 2**16:
                self._shards = [array("I", shards) for shards in self._shards]
        for digest in map(self._digest, hashes):
            bucket = digest % _BUCKETS
            digests, shards = self._digests[bucket], self._shards[bucket]
            index = bisect_left(digests, digest)
            if index < len(digests) and digests[index] == digest:
                shards[index] = number
            else:
                digests.insert(index, digest)
                shards.insert(index, number)

    def _digest(self, sha256: str) -> int:
        # Python's own hash of text: SipHash, 8 bytes.
        return hash(self._secret + sha256) & _EIGHT_BYTES


class DuplicateWriter:
    """Writes duplicates to files of bounded size, in the order of the query."""

    def __init__(self, folder: Folder, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._lines: dict[str, list[bytes]] = {}
        self._rows = self._bytes = 0
        #: each file of rows with its segments, which are written when all shards are final
        self._files: list[tuple[DuplicateFile, list[Segment]]] = []

    def add(self, shard: str, row: RowIndex) -> None:
        """Add a row that gets the answer to the request of `shard` with the same hash.

        :param shard: its name, or a temporary name that `finish` replaces.
        """
        line = msgspec.json.encode(row) + b"\n"
        self._lines.setdefault(shard, []).append(line)
        self._rows += 1
        self._bytes += len(line)
        if self._rows >= FILE_ROWS or self._bytes >= FILE_BYTES:
            self._write()

    def finish(self, shards: Mapping[str, str] | None = None) -> list[DuplicateFile]:
        """Write the last file and return all files.

        :param shards: the shards in which the requests with a temporary name are now.
        """
        if self._rows:
            self._write()
        shards = shards or {}
        files = []
        for file, segments in self._files:
            final_segments = [
                Segment(shards.get(segment.shard, segment.shard), segment.offset, segment.rows) for segment in segments
            ]
            data = msgspec.json.encode(final_segments)
            self._folder.create(file.segments, data)
            files.append(msgspec.structs.replace(file, segments_sha256=hashlib.sha256(data).hexdigest()))
        return files

    def _write(self) -> None:
        name = f"{self._prefix}/duplicates-{len(self._files) + 1:04d}"
        segments, offset, digest = [], 0, hashlib.sha256()
        with self._folder.writer(f"{name}.jsonl") as file:
            for shard, lines in sorted(self._lines.items()):
                data = b"".join(lines)
                segments.append(Segment(shard, offset, len(lines)))
                file.write(data)
                digest.update(data)
                offset += len(data)
        file_entry = DuplicateFile(f"{name}.jsonl", f"{name}.segments.json", self._rows, sha256=digest.hexdigest())
        self._files.append((file_entry, segments))
        self._lines, self._rows, self._bytes = {}, 0, 0


def _decode_segments(folder: Folder, duplicates: DuplicateFile, data: bytes) -> list[Segment]:
    if duplicates.segments_sha256 and hashlib.sha256(data).hexdigest() != duplicates.segments_sha256:
        raise changed_file_error(folder, duplicates.segments, "its checksum differs")
    (segments,) = decode_entries(folder, duplicates.segments, [data], list[Segment])
    return segments


class DuplicateReader:
    """The duplicates of a sealed job, looked up by the shard whose answers they wait for."""

    def __init__(self, folder: Folder, files: Iterable[DuplicateFile]) -> None:
        """Read where the duplicates of each shard are.

        :raises StagingError: if a file that the manifest names no longer exists, or is not the one that was sealed.
        """
        self._folder = folder
        self._segments: dict[str, list[tuple[DuplicateFile, Segment]]] = {}
        #: paths of the files of rows whose checksum was compared
        self._checked_files: set[str] = set()
        for duplicates in files:
            data = folder.read(duplicates.segments)
            if data is None:
                raise StagingError(
                    f"{folder.uri}/{duplicates.segments} no longer exists. It lists the duplicates: the rows that "
                    "share the answer of another row. Restore it if you have a backup of staging."
                )
            for segment in _decode_segments(folder, duplicates, data):
                self._segments.setdefault(segment.shard, []).append((duplicates, segment))

    def __bool__(self) -> bool:
        return bool(self._segments)

    def rows_of(self, shard: str) -> Iterator[RowIndex]:
        """Yield the duplicates of a shard's rows.

        :raises StagingError: if a file is not the one that was sealed, before any of its rows is yielded.
        """
        for duplicates, segment in self._segments.get(shard, ()):
            name = duplicates.file
            with open_sealed(self._folder, name, "" if name in self._checked_files else duplicates.sha256) as file:
                self._checked_files.add(name)
                file.seek(segment.offset)
                yield from decode_entries(self._folder, name, islice(file, segment.rows), RowIndex)

    def all_rows(self) -> Iterator[RowIndex]:
        """Yield every duplicate, shard by shard."""
        for shard in self._segments:
            yield from self.rows_of(shard)

    def check_hashes(self, shard: str, request_hashes: Iterable[str]) -> None:
        """Check that the request of every duplicate of a shard's rows really is in that shard.

        :param request_hashes: the hashes of the requests in the shard.
        :raises EqualDigestsError: if a duplicate has a different request.
        """
        if shard not in self._segments:
            return
        hashes = set(request_hashes)
        for row in self.rows_of(shard):
            if row.sha256 not in hashes:
                raise EqualDigestsError(
                    f"The request of row {row.number} was mistaken for the request of another row: their hashes "
                    "differ, but the 8-byte digests made from them are equal by chance. Nothing was uploaded. Clear "
                    "the task: it then draws new digests."
                )
