"""Parquet files, written by pyarrow or DuckDB, whichever is installed.

Both get each row as a JSON array of texts and nulls, and cast the texts to the types of the columns.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError

#: Largest precision of a decimal that every reader has, and the scale of a column whose own is not known. It has room
#: for 20 digits before the decimal point.
_PRECISION, _SCALE = 38, 18
#: rows of a row group, and bytes of their texts
_GROUP_ROWS, _GROUP_BYTES = 50_000, 16_000_000
#: the same, for rows that pyarrow converts together
_BATCH_ROWS, _BATCH_BYTES = 2_000, 2_000_000

_DECIMAL_TYPE = re.compile(r"(?:decimal|numeric|number)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)", re.IGNORECASE)

_decode_rows: Callable[[bytes], list[list[str | None]]] = msgspec.json.Decoder(list[list[str | None]]).decode


class Size(NamedTuple):
    """Number of rows, and the bytes of all of them and of the largest."""

    rows: int
    total: int
    largest: int


def decimal_digits(column: Column) -> tuple[int, int]:
    """Return the precision and the scale of a numeric column: those that it had in its database, if they fit."""
    match = _DECIMAL_TYPE.fullmatch(column.native_type.strip())
    if match is not None and 0 < int(match[1]) <= _PRECISION and int(match[2] or 0) <= int(match[1]):
        return int(match[1]), int(match[2] or 0)
    return _PRECISION, _SCALE


def find_writer() -> Callable[[Path, Sequence[Column], Iterable[bytes], Size], None]:
    """Return the function that writes Parquet with an installed package.

    :raises InputError: if no package for it is installed.
    """
    if find_spec("pyarrow") is not None:
        return _write_with_pyarrow
    if find_spec("duckdb") is not None:
        return _write_with_duckdb
    raise InputError(
        "A Parquet file is written by pyarrow or DuckDB, and neither is installed. Run pip install "
        "'airflow-provider-batch[parquet]', or let the name of the file end in .jsonl for newline-delimited JSON."
    )


def write_parquet(path: Path, columns: Sequence[Column], rows: Iterable[bytes], size: Size) -> None:
    """Write rows to a Parquet file.

    :param rows: each a JSON array with a text or null for each column.
    :raises InputError: if no package for it is installed.
    """
    find_writer()(path, columns, rows, size)


def _write_with_pyarrow(path: Path, columns: Sequence[Column], rows: Iterable[bytes], size: Size) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    types = {
        ColumnType.INTEGER: pyarrow.int64(),
        ColumnType.FLOAT: pyarrow.float64(),
        ColumnType.BOOLEAN: pyarrow.bool_(),
        ColumnType.DATE: pyarrow.date32(),
        ColumnType.TIMESTAMP: pyarrow.timestamp("us", "UTC"),
        ColumnType.LOCAL_TIMESTAMP: pyarrow.timestamp("us"),
        ColumnType.BYTES: pyarrow.binary(),
        ColumnType.VECTOR: pyarrow.list_(pyarrow.float64()),
    }

    def type_of(column: Column) -> Any:
        if column.type is ColumnType.NUMERIC:
            return pyarrow.decimal128(*decimal_digits(column))
        return types.get(column.type, pyarrow.string())

    def array(column: Column, texts: Sequence[str | None]) -> Any:
        if column.type in _DECODERS:
            decode = _DECODERS[column.type]
            return pyarrow.array([None if text is None else decode(text) for text in texts], type_of(column))
        return pyarrow.array(texts, pyarrow.string()).cast(type_of(column))

    def convert(batch: list[bytes]) -> Any:
        texts_by_column = zip(*_decode_rows(b"[" + b",".join(batch) + b"]"), strict=True)
        arrays = [array(column, texts) for column, texts in zip(columns, texts_by_column, strict=True)]
        return pyarrow.Table.from_arrays(arrays, schema=schema)

    schema = pyarrow.schema([(column.name, type_of(column)) for column in columns])
    with ParquetWriter(path, schema, compression="zstd") as writer:
        group: list[Any] = []
        rows_in_group = bytes_in_group = 0

        def write_group() -> None:
            if group:
                writer.write_table(pyarrow.concat_tables(group), row_group_size=rows_in_group)
                group.clear()

        for batch, batch_bytes in _batches(rows):
            group.append(convert(batch))
            rows_in_group, bytes_in_group = rows_in_group + len(batch), bytes_in_group + batch_bytes
            if rows_in_group >= _GROUP_ROWS or bytes_in_group >= _GROUP_BYTES:
                write_group()
                rows_in_group = bytes_in_group = 0
        write_group()


#: how pyarrow gets the values of the types to which it casts no texts
_DECODERS: dict[ColumnType, Callable[[str], Any]] = {
    ColumnType.BYTES: base64.b64decode,
    ColumnType.VECTOR: msgspec.json.decode,
}


def _batches(rows: Iterable[bytes]) -> Iterator[tuple[list[bytes], int]]:
    """Yield the rows in lists that are converted together, with their size in bytes. Texts take much more memory."""
    batch: list[bytes] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row)
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_BYTES:
            yield batch, size
            batch, size = [], 0
    if batch:
        yield batch, size


def _write_with_duckdb(path: Path, columns: Sequence[Column], rows: Iterable[bytes], size: Size) -> None:
    import duckdb

    lines = path.with_suffix(".jsonl")
    with lines.open("wb") as file:
        for row in rows:
            file.write(row + b"\n")
    values = ", ".join(
        f"{_duckdb_expression(column, f'texts[{index}]')} AS {_quote(column.name)}"
        for index, column in enumerate(columns, start=1)
    )
    source = "read_ndjson_objects($lines, maximum_object_size = $largest)"
    group_rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES * size.rows // max(size.total, 1)))
    with duckdb.connect(
        config={"threads": 1, "memory_limit": "512MB", "temp_directory": str(path.parent)}
    ) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            f"COPY (SELECT {values} FROM (SELECT from_json(json, '[\"VARCHAR\"]') AS texts FROM {source})) "
            f"TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {group_rows})",
            {"lines": str(lines), "largest": max(size.largest + 1024, 1 << 20)},
        )
    lines.unlink()


_DUCKDB_TYPES = {
    ColumnType.INTEGER: "BIGINT",
    ColumnType.FLOAT: "DOUBLE",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.DATE: "DATE",
    ColumnType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    ColumnType.LOCAL_TIMESTAMP: "TIMESTAMP",
    ColumnType.VECTOR: "DOUBLE[]",
}


def _duckdb_expression(column: Column, text: str) -> str:
    if column.type is ColumnType.BYTES:
        return f"from_base64({text})"
    if column.type is ColumnType.NUMERIC:
        precision, scale = decimal_digits(column)
        return f"CAST({text} AS DECIMAL({precision}, {scale}))"
    return f"CAST({text} AS {_DUCKDB_TYPES.get(column.type, 'VARCHAR')})"


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
