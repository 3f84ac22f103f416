"""Equal requests are asked once: which row is asked, and where the rows that share its answer are kept.

The first row with a request is asked. Those that come later are its *copies*: they are in no input file, but in files
beside them, grouped by the shard whose answer they wait for. What is held in memory is a digest of 8 bytes and the
number of a shard for each different request, and one file's worth of copies.
"""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import DuplicateFile, RowIndex
from airflow_provider_batch.exceptions import EqualDigestsError, StagingError

_BUCKETS = 4096
_EIGHT_BYTES = 2**64 - 1
#: a file of copies holds at most so many rows, and about so many bytes; this is also what landing holds at a time
FILE_ROWS = 50_000
FILE_BYTES = 32 * 1024 * 1024


class Segment(msgspec.Struct, frozen=True, array_like=True):
    """Copies of one shard's rows, one after another in a file."""

    #: the shard whose rows are asked for them
    shard: str
    #: where in the file they begin, in bytes
    offset: int
    rows: int


class RequestIndex:
    """The different requests of a job, each with the shard that asks it.

    A request is known by 8 bytes, drawn from its hash with a secret of this build: so nobody can make two requests
    that are taken for one, and a build that met two by chance can be done again. Whether that happened is found out
    by `DuplicateReader.check_hashes`, which compares the hashes themselves.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_hex(16)
        self._digests = [array("Q") for _ in range(_BUCKETS)]
        self._shards = [array("H") for _ in range(_BUCKETS)]
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._last = ("", (0, 0))

    def shard_of(self, sha256: str) -> str | None:
        """Name of the shard that asks the request with this hash; None if none does yet."""
        bucket, digest = self._place(sha256)
        digests = self._digests[bucket]
        at = bisect_left(digests, digest)
        found = at < len(digests) and digests[at] == digest
        return (self._names[self._shards[bucket][at]] or None) if found else None

    def is_unassigned(self, sha256: str) -> bool:
        """Whether the request with this hash is there, and no shard has it yet."""
        bucket, digest = self._place(sha256)
        digests = self._digests[bucket]
        at = bisect_left(digests, digest)
        return at < len(digests) and digests[at] == digest and not self._names[self._shards[bucket][at]]

    def assign(self, sha256: str, shard: str) -> None:
        """The request with this hash is asked in `shard`; '' for one that is in none yet."""
        number = self._numbers.get(shard)
        if number is None:
            number = self._numbers[shard] = len(self._names)
            self._names.append(shard)
            if number == 2**16:
                self._shards = [array("I", shards) for shards in self._shards]
        bucket, digest = self._place(sha256)
        digests, shards = self._digests[bucket], self._shards[bucket]
        at = bisect_left(digests, digest)
        if at < len(digests) and digests[at] == digest:
            shards[at] = number
        else:
            digests.insert(at, digest)
            shards.insert(at, number)

    def _place(self, sha256: str) -> tuple[int, int]:
        # a request is added right after it was looked for
        if self._last[0] != sha256:
            digest = self._digest(sha256)
            self._last = (sha256, (digest % _BUCKETS, digest))
        return self._last[1]

    def _digest(self, sha256: str) -> int:
        # Python's own hash of text: SipHash, 8 bytes
        return hash(self._secret + sha256) & _EIGHT_BYTES


class DuplicateWriter:
    """Writes copies as they come into files of bounded size."""

    def __init__(self, folder: Folder, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._waiting: dict[str, list[bytes]] = {}
        self._rows = self._bytes = 0
        self._files: list[DuplicateFile] = []

    def add(self, shard: str, row: RowIndex) -> None:
        """A row that gets the answer of the row of `shard` with the same request hash."""
        line = msgspec.json.encode(row) + b"\n"
        self._waiting.setdefault(shard, []).append(line)
        self._rows += 1
        self._bytes += len(line)
        if self._rows >= FILE_ROWS or self._bytes >= FILE_BYTES:
            self._write()

    def finish(self) -> list[DuplicateFile]:
        """The files, complete."""
        if self._rows:
            self._write()
        return self._files

    def _write(self) -> None:
        name = f"{self._prefix}/duplicates-{len(self._files) + 1:04d}"
        segments, offset = [], 0
        with self._folder.writer(f"{name}.jsonl") as file:
            for shard, lines in sorted(self._waiting.items()):
                segments.append(Segment(shard, offset, len(lines)))
                for line in lines:
                    file.write(line)
                    offset += len(line)
        self._folder.create(f"{name}.segments.json", msgspec.json.encode(segments))
        self._files.append(DuplicateFile(f"{name}.jsonl", f"{name}.segments.json", self._rows))
        self._waiting, self._rows, self._bytes = {}, 0, 0


class DuplicateReader:
    """The copies of a sealed job, found by the shard whose answers they wait for."""

    def __init__(self, folder: Folder, files: Iterable[DuplicateFile]) -> None:
        """Raises StagingError if a file that the seal names is gone."""
        self._folder = folder
        self._of: dict[str, list[tuple[str, Segment]]] = {}
        for copies in files:
            data = folder.read(copies.segments)
            if data is None:
                raise StagingError(
                    f"{folder.uri}/{copies.segments} is gone: it says where the rows are whose requests were asked "
                    "once for several. Put it back if you have a copy of staging."
                )
            for segment in msgspec.json.decode(data, type=list[Segment]):
                self._of.setdefault(segment.shard, []).append((copies.file, segment))

    def __bool__(self) -> bool:
        return bool(self._of)

    def rows_of(self, shard: str) -> Iterator[RowIndex]:
        """The copies of a shard's rows, one at a time, in the order of the query."""
        decoder = msgspec.json.Decoder(RowIndex)
        for name, segment in self._of.get(shard, ()):
            with self._folder.reader(name) as file:
                file.seek(segment.offset)
                for line in islice(file, segment.rows):
                    yield decoder.decode(line)

    def all_rows(self) -> Iterator[RowIndex]:
        """Every copy, shard by shard."""
        for shard in self._of:
            yield from self.rows_of(shard)

    def check_hashes(self, shard: str, asked: Iterable[str]) -> None:
        """Compare the request hash of every copy of a shard's rows with those that are asked there.

        :raises EqualDigestsError: if a copy asks something else.
        """
        if shard not in self._of:
            return
        hashes = set(asked)
        for copy in self.rows_of(shard):
            if copy.sha256 not in hashes:
                raise EqualDigestsError(
                    f"Row {copy.number} was taken for the same request as another: their hashes differ, but the 8 "
                    "bytes kept of each are equal by chance. Nothing was uploaded. Clear the task: they are drawn anew."
                )
