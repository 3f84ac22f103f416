"""Landed rows as a file, on a local disk or in an object store: Parquet or newline-delimited JSON, by its ending.

A landing yields a row twice if an older answer turns out to be the better one, but a file must contain each row once.
The rows therefore pass through a SQLite file on the worker's disk, in which a later row replaces the earlier one with
the same key. The finished file is built next to it, and only then replaces the one at its address. Memory is bounded by
one chunk of rows, or by one row group of a Parquet file.
"""

from __future__ import annotations

import base64
import gzip
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import msgspec
from airflow.providers.common.compat.sdk import AirflowException, ObjectStoragePath

from airflow_provider_batch.core.arguments import argument_error, is_final, parse_location
from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.landing.storage_limits import ColumnLimits, StorageLimits
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import NativeValue
from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.staging.store import Store
from airflow_provider_batch.warehouse import parquet, values
from airflow_provider_batch.warehouse.rows import IncomingRows, chunks
from airflow_provider_batch.warehouse.sinks.open import Sink
from airflow_provider_batch.warehouse.table import check_columns

_PARQUET = ".parquet"
#: endings of newline-delimited JSON
_JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_ENDINGS = (_PARQUET, *_JSON_LINES)

#: protocols whose files appear only once an upload is complete. With others, a finished file is renamed.
_ATOMIC_PROTOCOLS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss"})

#: bytes that are copied at a time
_COPY_BYTES = 1 << 20

#: protocols that only read
_READ_ONLY_PROTOCOLS = frozenset({"http", "https", "data"})


def parse_results_file(name: str, value: Any) -> str | None:
    """Return the address of a file for results. None and blank text are None.

    If the address is a template, only what follows the last expression is checked.

    :raises InputError: if it is neither an absolute path nor a URL, or if its ending is not that of a known format.
    """
    address = parse_location(name, str(value) if isinstance(value, ObjectStoragePath) else value)
    if address is None:
        return None
    is_template = not is_final(address)
    ending = address.rpartition("}")[2].lower() if is_template else address.lower()
    if not any(ending.endswith(format_) or (is_template and format_.endswith(ending)) for format_ in _ENDINGS):
        raise argument_error(
            name, f"the address of a file that ends in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}", value
        )
    is_url, is_path = "://" in address, address.startswith("/")
    if not is_template and (not (is_url or is_path) or urlsplit(address).scheme in _READ_ONLY_PROTOCOLS):
        raise argument_error(
            name,
            "an absolute path, or the URL of a file that can be written, such as 's3://bucket/answers.parquet'",
            value,
        )
    return address


class ResultsFile:
    """A file for the rows of landings, each of which replaces it as a whole. It implements `sinks.open.Sink`."""

    def __init__(self, address: str, columns: Sequence[Column], table: Sink | None = None) -> None:
        """:param table: results table that gets the same rows.

        :raises InputError: if two columns have the same name.
        """
        self.address = address
        self._columns = check_columns(columns)
        self._is_parquet = address.lower().endswith(_PARQUET)
        self._table = table

    @property
    def limits(self) -> StorageLimits:
        """What the file and the table can both store."""
        limits: StorageLimits = getattr(self._table, "limits", None) or StorageLimits()
        if not self._is_parquet:
            return limits
        columns = dict(limits.columns)
        for column in self._columns:
            if column.type is ColumnType.NUMERIC:
                table_limits = columns.get(column.name, ColumnLimits())
                digits = _common_digits(parquet.decimal_digits(column), table_limits.digits)
                columns[column.name] = msgspec.structs.replace(table_limits, digits=digits)
        return msgspec.structs.replace(limits, columns=columns)

    @property
    def refusals(self) -> Sequence[Refusal]:
        """The rows that the table refused in the last `write`. The file has them."""
        return getattr(self._table, "refusals", ())

    def prepare(self) -> None:
        """Check that the file can be written from here, and prepare the table. The file itself is not touched.

        :raises InputError: if a package or a connection is missing, or if the file's folder cannot be written.
        """
        if self._is_parquet:
            parquet.find_writer()
        path = _locate(self.address)
        if isinstance(path, Path):
            _check_folder(path)
        if self._table is not None:
            self._table.prepare()

    def write(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Write the rows to the table, and the last row of each key to the file. Return how many were received.

        :raises ResultsTableError: for a value that does not have its column's type, and for an empty key.
        :raises WarehouseError: if the file cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="batch-results-") as directory:
            with closing(_Draft(Path(directory) / "rows.sqlite")) as draft:
                stored_rows = self._store_and_yield(rows, draft)
                count = _count(stored_rows) if self._table is None else self._table.write(stored_rows)
                file = Path(directory) / "results"
                self._build(file, draft)
            try:
                _publish(file, _locate(self.address))
            except OSError as error:
                raise WarehouseError(
                    f"Cannot write the results file {self.address}: {error.strerror or error}. A file that was there "
                    "before is unchanged. The answers are kept in staging. Fix the cause, then clear this task."
                ) from error
        return count

    def _store_and_yield(self, rows: Iterable[tuple[Any, ...]], draft: _Draft) -> Iterator[tuple[Any, ...]]:
        converters = [(_PARQUET_TEXTS if self._is_parquet else _JSON_VALUES)[column.type] for column in self._columns]
        names = [column.name for column in self._columns]
        key = [index for index, column in enumerate(self._columns) if column.key]
        for chunk in chunks(rows):
            lines = []
            for row in IncomingRows(chunk, self._columns, converters):
                line = values.json_line(row if self._is_parquet else dict(zip(names, row, strict=True)))
                lines.append((values.json_line([row[index] for index in key]), line))
            draft.store(lines)
            yield from chunk

    def _build(self, path: Path, draft: _Draft) -> None:
        if self._is_parquet:
            parquet.write_parquet(path, self._columns, draft.lines(), draft.size())
            return
        with _open_json_lines(path, is_compressed=self.address.lower().endswith(".gz")) as file:
            for line in draft.lines():
                file.write(line + b"\n")


class _Draft:
    """Encoded rows by key, in a SQLite file that is deleted at the end of a landing, so that it needs no durability."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute("CREATE TABLE landed (key BLOB PRIMARY KEY, line BLOB) WITHOUT ROWID")

    def store(self, lines: Sequence[tuple[bytes, bytes]]) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR REPLACE INTO landed VALUES (?, ?)", lines)
        self._connection.execute("COMMIT")

    def lines(self) -> Iterator[bytes]:
        """Yield the rows, sorted by key."""
        return (line for (line,) in self._connection.execute("SELECT line FROM landed ORDER BY key"))

    def size(self) -> parquet.Size:
        """Return the size of all rows."""
        query = "SELECT count(*), coalesce(sum(length(line)), 0), coalesce(max(length(line)), 0) FROM landed"
        return parquet.Size(*self._connection.execute(query).fetchone())

    def close(self) -> None:
        self._connection.close()


def _count(rows: Iterable[object]) -> int:
    return sum(1 for _ in rows)


def _common_digits(digits: tuple[int, int], others: tuple[int, int] | None) -> tuple[int, int]:
    """Return the precision and the scale of the numbers that fit into both."""
    if others is None:
        return digits
    whole, scale = min(digits[0] - digits[1], others[0] - others[1]), min(digits[1], others[1])
    return whole + scale, scale


@contextmanager
def _open_json_lines(path: Path, *, is_compressed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if not is_compressed:
            yield file
            return
        # without a name and a time, equal rows make equal files
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as compressed:
            yield compressed  # type: ignore[misc]  # it is a binary file, but not declared as one


def _locate(address: str) -> Path | ObjectStoragePath:
    """Return the local path or the path in an object store.

    :raises InputError: if the packages or the connection for the object store are missing.
    """
    if address.startswith("/"):
        return Path(address)
    if urlsplit(address).scheme == "file":
        return Path(unquote(urlsplit(address).path))
    try:
        path = ObjectStoragePath(address)
        _ = path.fs  # looks up the filesystem and the connection
    except (ValueError, ImportError) as error:
        raise InputError(
            f"Cannot write the results file {address}, because this Airflow installation has no filesystem for it: "
            f"{error}. Install the provider that contains it, such as apache-airflow-providers-amazon[s3fs]."
        ) from error
    except AirflowException as error:
        raise InputError(f"Cannot write the results file {address}: {error}") from error
    return path


def _check_folder(path: Path) -> None:
    """Check that a local file can be created or replaced. Its folder is created with it."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        problem = (
            "it is a folder" if path.is_dir() else f"{folder} is not a folder in which this worker may create files"
        )
        raise InputError(f"Cannot write the results file {path}: {problem}.")


def _publish(file: Path, path: Path | ObjectStoragePath) -> None:
    """Copy a finished file to its address, where it appears as a whole."""
    draft_name = f".{path.name}.{secrets.token_hex(8)}.tmp"
    if isinstance(path, Path):
        _replace_local_file(file, path, path.with_name(draft_name))
        return
    is_atomic = path.protocol in _ATOMIC_PROTOCOLS
    destination = path if is_atomic else path.with_name(draft_name)
    path.fs.makedirs(path.parent.path, exist_ok=True)
    with file.open("rb") as source, Store(path.fs).writer(destination.path) as target:
        shutil.copyfileobj(source, target, _COPY_BYTES)
    if not is_atomic:
        path.fs.mv(destination.path, path.path)


def _replace_local_file(file: Path, path: Path, draft: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("rb") as source, draft.open("xb") as target:
            shutil.copyfileobj(source, target, _COPY_BYTES)
            target.flush()
            os.fsync(target.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _decimal_text(value: Any) -> str:
    return f"{values.decimal(value):f}"


def _json_value(value: Any) -> Any:
    return value.value if isinstance(value, NativeValue) else value


def _json_document(value: Any) -> str:
    is_text = isinstance(value, NativeValue) and value.is_json
    return values.sanitize(value.text) if is_text else values.json_line(_json_value(value)).decode()


def _base64_text(value: Any) -> str:
    return base64.b64encode(values.binary(value)).decode()


#: how newline-delimited JSON and the texts for a Parquet file express values in the same way
_TEXTS: Mapping[ColumnType, Callable[[Any], Any]] = {
    ColumnType.TEXT: values.text,
    ColumnType.DATE: date.isoformat,
    ColumnType.TIMESTAMP: values.to_iso,
    ColumnType.LOCAL_TIMESTAMP: values.local_iso,
    ColumnType.TIME: values.clock_iso,
    ColumnType.INTERVAL: values.iso_duration,
    ColumnType.UUID: values.uuid_text,
    ColumnType.BYTES: _base64_text,
}
_JSON_VALUES: Mapping[ColumnType, Callable[[Any], Any]] = {
    **_TEXTS,
    ColumnType.INTEGER: values.integer,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: values.decimal,
    ColumnType.BOOLEAN: bool,
    ColumnType.JSON: _json_value,
    ColumnType.VECTOR: list,
}
_PARQUET_TEXTS: Mapping[ColumnType, Callable[[Any], str]] = {
    **_TEXTS,
    ColumnType.INTEGER: lambda value: str(values.integer(value)),
    ColumnType.FLOAT: lambda value: repr(float(value)),
    ColumnType.NUMERIC: _decimal_text,
    ColumnType.BOOLEAN: lambda value: "true" if value else "false",
    ColumnType.JSON: _json_document,
    ColumnType.VECTOR: lambda value: values.json_line(value).decode(),
}
