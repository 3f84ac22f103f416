"""The landed rows as a file in staging: newline-delimited JSON, for `COPY INTO` and load jobs.

A landing gives a row again when an older answer of it is better; a file that a warehouse loads must hold each row
once. So the rows pass through a SQLite file on the worker's disk, where a later one replaces the earlier one of its
key. Memory stays bounded by one chunk of rows.
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
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.rows import Incoming, chunks


def write_landed_file(
    folder: Folder,
    name: str,
    columns: Sequence[Column],
    rows: Iterable[tuple[Any, ...]],
    land: Callable[[Iterator[tuple[Any, ...]]], object],
) -> str:
    """Give the rows to `land`, and write each once, the last of its key, as a line of JSON. Returns the file's address.

    A line is an object with every column, null where a row has no value: moments are ISO 8601 in UTC with microseconds,
    numbers are numbers with all their digits, JSON and vectors are themselves, bytes are Base64.

    :raises ResultsTableError: for a value of another type than its column's, and for an empty key.
    :raises StagingError: if staging cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="batch-landed-") as place:
        with closing(sqlite3.connect(Path(place) / "rows.sqlite", isolation_level=None)) as draft:
            # The file is gone with this block, whatever happens: nothing needs to survive.
            draft.execute("PRAGMA journal_mode = OFF")
            draft.execute("PRAGMA synchronous = OFF")
            draft.execute("CREATE TABLE landed (key TEXT PRIMARY KEY, line TEXT) WITHOUT ROWID")
            land(_kept(rows, columns, draft))
            with folder.writer(name) as file:
                for (line,) in draft.execute("SELECT line FROM landed ORDER BY key"):
                    file.write(line.encode() + b"\n")
    return f"{folder.uri.rstrip('/')}/{name}"


def _kept(
    rows: Iterable[tuple[Any, ...]], columns: Sequence[Column], draft: sqlite3.Connection
) -> Iterator[tuple[Any, ...]]:
    names = [column.name for column in columns]
    key = [index for index, column in enumerate(columns) if column.key]
    plain = [_PLAIN[column.type] for column in columns]
    for chunk in chunks(rows):
        lines = []
        for converted in Incoming(chunk, columns, plain):
            line = values.json_text(dict(zip(names, converted, strict=True)))
            lines.append((values.json_text([converted[index] for index in key]), line))
        draft.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?)", lines)
        yield from chunk


def _same(value: Any) -> Any:
    return value


_PLAIN: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: values.mend,
    ColumnType.INTEGER: int,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: _same,
    ColumnType.BOOLEAN: bool,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.iso,
    ColumnType.JSON: _same,
    ColumnType.BYTES: lambda value: base64.b64encode(value).decode(),
    ColumnType.VECTOR: _same,
}
