"""Landed rows as a file in staging: newline-delimited JSON, for `COPY INTO` and load jobs.

A landing yields a row twice if an older answer turns out to be the better one, but a file for a warehouse must contain
each row once. The rows therefore pass through a SQLite file on the worker's disk, in which a later row replaces the
earlier one with the same key. Memory is bounded by one chunk of rows.
"""

from __future__ import annotations

import base64
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.rows import IncomingRows, chunks


def write_landed_file(
    folder: Folder,
    name: str,
    columns: Sequence[Column],
    rows: Iterable[tuple[Any, ...]],
    land: Callable[[Iterator[tuple[Any, ...]]], object],
) -> str:
    """Pass the rows to `land`, and write the last row of each key to a file as JSON. Return the file's address.

    Each line is an object with every column, null where the row has no value. Timestamps are ISO 8601 in UTC with
    microseconds, and local timestamps have no offset. Intervals are ISO 8601 durations, numbers keep all their digits,
    JSON and vectors are embedded as JSON, and bytes are Base64.

    :raises ResultsTableError: for a value that does not have its column's type, and for an empty key.
    :raises StagingError: if staging cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="batch-landed-") as directory:
        with closing(sqlite3.connect(Path(directory) / "rows.sqlite", isolation_level=None)) as draft:
            # the file is deleted at the end of this block, so it needs no durability
            draft.execute("PRAGMA journal_mode = OFF")
            draft.execute("PRAGMA synchronous = OFF")
            draft.execute("CREATE TABLE landed (key TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID")
            land(_store_and_yield(rows, columns, draft))
            with folder.writer(name) as file:
                for (line,) in draft.execute("SELECT line FROM landed ORDER BY key"):
                    file.write(line.encode() + b"\n")
    return f"{folder.uri.rstrip('/')}/{name}"


def _store_and_yield(
    rows: Iterable[tuple[Any, ...]], columns: Sequence[Column], draft: sqlite3.Connection
) -> Iterator[tuple[Any, ...]]:
    names = [column.name for column in columns]
    key = [index for index, column in enumerate(columns) if column.key]
    converters = [_CONVERTERS[column.type] for column in columns]
    for chunk in chunks(rows):
        lines = []
        for converted_row in IncomingRows(chunk, columns, converters):
            line = values.json_text(dict(zip(names, converted_row, strict=True)))
            lines.append((values.json_text([converted_row[index] for index in key]), line))
        draft.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?)", lines)
        yield from chunk


def _identity(value: Any) -> Any:
    return value


_CONVERTERS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: values.sanitize,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: _identity,
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.to_iso,
    ColumnType.LOCAL_TIMESTAMP: values.local_iso,
    ColumnType.TIME: values.clock_iso,
    ColumnType.INTERVAL: values.iso_duration,
    ColumnType.UUID: values.uuid_text,
    ColumnType.JSON: lambda value: value.value if isinstance(value, NativeValue) else value,
    ColumnType.BYTES: lambda value: base64.b64encode(value).decode(),
    ColumnType.VECTOR: _identity,
}
