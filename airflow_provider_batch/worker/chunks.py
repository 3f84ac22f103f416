"""Divides the rows of a source into chunks, which are rendered and sealed together.

Most of the time of a row by row build goes into calls, not into bytes. A chunk has at most `CHUNK_ROWS` rows and about
`CHUNK_BYTES` bytes, or one row that is larger than that, so memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from airflow_provider_batch.core.schema.native import NativeValue

CHUNK_ROWS = 1_000
CHUNK_BYTES = 8_000_000


def chunks_of(rows: Iterable[tuple[Any, ...]], max_rows: int) -> Iterator[list[tuple[Any, ...]]]:
    """Yield the rows in chunks of at most `max_rows` rows."""
    chunk: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        for value in row:
            size += len(value) if type(value) is str else _size_of(value)
        if len(chunk) >= max_rows or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _size_of(value: Any) -> int:
    """Return the approximate size of a value in bytes."""
    match value:
        case str() | bytes() | bytearray() | memoryview():
            return len(value)
        case None | bool() | int() | float():
            return 8
        case NativeValue():
            return len(value.text)
        case Mapping():
            return sum(map(_size_of, value)) + sum(map(_size_of, value.values()))
        case list() | tuple():
            return sum(map(_size_of, value))
    return 8
