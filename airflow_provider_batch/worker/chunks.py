"""Divides the rows of a source into chunks, which are rendered and sealed together.

Most of the time of a row by row build goes into calls, not into bytes. A chunk has at most `CHUNK_ROWS` rows and about
`CHUNK_BYTES` bytes, or one row that is larger than that, so memory is bounded. Its requests have about as many bytes at
most. A row may be far smaller than its request, for example under a long system prompt, so the first chunks are small
and show how large requests are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_batch.core.requests.value import SCALARS
from airflow_provider_batch.core.schema.native import NativeValue

CHUNK_ROWS = 1_000
CHUNK_BYTES = 8_000_000
#: maximum number of rows in the first chunk
FIRST_ROWS = 16


class ChunkSize:
    """The maximum number of rows in the next chunk."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.rows = min(FIRST_ROWS, max_rows)

    def adjust(self, rows: int, request_bytes: int) -> None:
        """Choose the size of the next chunk by the last one, which had this many rows and bytes of requests."""
        fitting_rows = CHUNK_BYTES * rows // max(request_bytes, 1)
        self.rows = max(1, min(self._max_rows, 2 * rows, fitting_rows))


def chunks_of(rows: Iterable[tuple[Any, ...]], max_size: ChunkSize) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows in chunks. `max_size` may change between two of them.

    If the source raises an error, the rows before it are yielded first, so that the first fault is the one reported.
    """
    chunk: list[tuple[Any, ...]] = []
    size = 0
    try:
        for row in rows:
            chunk.append(row)
            for value in row:
                size += len(value) if type(value) is str else 8 if type(value) in SCALARS else _size_of(value)
            if len(chunk) >= max_size.rows or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    except Exception:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _size_of(value: Any) -> int:
    """Return the approximate size of a value in bytes."""
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return len(value)
        case NativeValue():
            return len(value.text)
        case Mapping():
            return sum(map(_size_of, value)) + sum(map(_size_of, value.values()))
        case list() | tuple():
            return sum(map(_size_of, value))
    return 8
