"""A shard that is still being filled: an input file and its index, written in blocks by other threads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from typing import BinaryIO

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Size

#: bytes that an open shard collects before it writes them
BLOCK = 256 * 1024


class Line(msgspec.Struct, frozen=True, gc=False):
    """A line of an input file, with everything that is needed to put it into a shard."""

    model: str
    line: bytes
    row: RowIndex
    #: expected size of the answer
    answer_bytes: int
    #: while it is a candidate for the canary, and if it was one: the name under which its duplicates are stored
    candidate: str = ""


class _AbandonedError(Exception):
    """Passed to the writers of files that will not be completed."""


_encode_lines = msgspec.json.Encoder().encode_lines


def _completed_future() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


class OpenShard:
    """A shard that is still being filled."""

    def __init__(
        self,
        folder: Folder,
        name: str,
        model: str,
        prefix: str,
        attempt: int,
        pool: Executor,
        *,
        lane: Lane = Lane.BATCH,
    ) -> None:
        self.name, self.model, self.attempt, self.lane = name, model, attempt, lane
        self.file, self.index_path = f"{prefix}/{name}.jsonl", f"{prefix}/{name}.rows.jsonl"
        self.size = Size()
        self._digest, self._index_digest = hashlib.sha256(), hashlib.sha256()
        self._lines, self._index = bytearray(), bytearray()
        self._pool, self._writing = pool, _completed_future()
        with ExitStack() as stack:
            self._line_file: BinaryIO = stack.enter_context(folder.writer(self.file))
            self._index_file: BinaryIO = stack.enter_context(folder.writer(self.index_path))
            self._stack = stack.pop_all()

    def add(self, lines: Sequence[Line], size: Size) -> None:
        """Add lines. `size` is the size of the shard including them."""
        self._lines += b"".join([line.line for line in lines])
        self._index += _encode_lines([line.row for line in lines])
        self.size = size
        if len(self._lines) + len(self._index) >= BLOCK:
            # Wait for the previous block, so that rows are not read faster than they are written.
            self._writing.result()
            self._writing = self._pool.submit(self._write, self._lines, self._index)
            self._lines, self._index = bytearray(), bytearray()

    def _write(self, lines: bytearray, index: bytearray) -> None:
        try:
            self._line_file.write(lines)
            self._index_file.write(index)
        except OSError as error:
            # Let the folder's writers explain the error, for example a full disk.
            self._stack.__exit__(type(error), error, error.__traceback__)
            raise
        self._digest.update(lines)
        self._index_digest.update(index)

    def close(self) -> Future[Shard]:
        """Return a future of the shard, which completes once its files are written and synced."""
        self._writing.result()
        return self._pool.submit(self._close)

    def _close(self) -> Shard:
        self._write(self._lines, self._index)
        self._stack.close()
        return Shard(
            name=self.name,
            model=self.model,
            file=self.file,
            index_file=self.index_path,
            requests=self.size.requests,
            bytes=self.size.bytes,
            sha256=self._digest.hexdigest(),
            tokens=self.size.tokens,
            attempt=self.attempt,
            lane=self.lane,
            index_sha256=self._index_digest.hexdigest(),
        )

    def abandon(self) -> None:
        """Close the files without completing them. No write may be in progress."""
        # End the writers with an error, so that an object store does not keep half a file.
        error = _AbandonedError()
        self._stack.__exit__(type(error), error, None)
