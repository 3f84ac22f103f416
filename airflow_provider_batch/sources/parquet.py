"""Rows of a Parquet file, read with pyarrow or, where it is not installed, with DuckDB."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Self

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.arrow import CHUNK_ROWS, rows_of_batches
from airflow_provider_batch.sources.source import Source, check_columns
from airflow_provider_batch.warehouse.drivers import duckdb_values

#: digits of a decimal number in DuckDB
_MAX_DIGITS = 38
#: bytes of a column that are read at a time
_BUFFER_BYTES = 1 << 20


def open_parquet(
    filesystem: Any, path: str, address: str, reading: Callable[[], AbstractContextManager[None]]
) -> Source:
    """Return the source of the rows of a file.

    :param reading: names the file in errors of its storage.
    :raises InputError: if neither pyarrow nor DuckDB is installed.
    """
    for module, kind in (("pyarrow.parquet", ArrowParquetRows), ("duckdb", DuckdbParquetRows)):
        try:
            __import__(module)
        except ImportError:
            continue
        return kind(filesystem, path, address, reading)
    raise InputError(
        f"rows: {address} is read with pyarrow or DuckDB, but neither is installed here: pip install "
        "'airflow-provider-batch[parquet]'. Nothing was uploaded."
    )


class _ParquetRows(Source):
    def __init__(
        self, filesystem: Any, path: str, address: str, reading: Callable[[], AbstractContextManager[None]]
    ) -> None:
        super().__init__()
        self._filesystem, self._path, self._address, self._reading = filesystem, path, address, reading
        self._stack = ExitStack()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _error(self, error: Exception) -> InputError:
        return InputError(
            f"rows: {self._address} cannot be read as Parquet: {str(error).rstrip('.')}. Nothing was uploaded."
        )


class ArrowParquetRows(_ParquetRows):
    """Rows of a Parquet file, read with pyarrow."""

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with self._reading(), ExitStack() as stack:
            file = stack.enter_context(self._filesystem.open(self._path, "rb"))
            try:
                self._file = pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            except pa.ArrowException as error:
                raise self._error(error) from error
            self.columns = check_columns(self._file.schema_arrow.names, self._address)
            self._stack = stack.pop_all()
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return rows_of_batches(self._batches(), self._address)

    def _batches(self) -> Iterator[Any]:
        import pyarrow as pa

        try:
            with self._reading():
                yield from self._file.iter_batches(CHUNK_ROWS, use_threads=False)
        except pa.ArrowException as error:
            raise self._error(error) from error


class DuckdbParquetRows(_ParquetRows):
    """Rows of a Parquet file, read with DuckDB."""

    def __enter__(self) -> Self:
        import duckdb

        from airflow_provider_batch.warehouse.drivers.duckdb import DEFAULT_MEMORY_LIMIT

        with self._reading(), ExitStack() as stack:
            config: dict[str, Any] = {"memory_limit": DEFAULT_MEMORY_LIMIT, "threads": 1}
            self._connection = stack.enter_context(duckdb.connect(config=config))
            source = self._path
            if "file" not in self._filesystem.protocol:
                self._connection.register_filesystem(self._filesystem)
                source = self._filesystem.unstrip_protocol(self._path)
            try:
                sql = f"SELECT * FROM read_parquet('{_escape(source)}', hive_partitioning = false)"
                self._check_schema(source)
                columns = [(name, type_) for name, type_, *_ in self._connection.execute(f"DESCRIBE {sql}").fetchall()]
                self._connection.execute(duckdb_values.exact_query(sql, columns))
            except duckdb.Error as error:
                raise self._error(error) from error
            self._read_row = duckdb_values.row_reader(columns)
            self.columns = check_columns([name for name, _ in columns], self._address)
            self._stack = stack.pop_all()
        return self

    def _check_schema(self, source: str) -> None:
        """Raise InputError for a type of which DuckDB would lose something."""
        sql = f"SELECT name, precision, logical_type FROM parquet_schema('{_escape(source)}')"
        for name, precision, logical_type in self._connection.execute(sql).fetchall():
            is_long = precision is not None and int(precision) > _MAX_DIGITS
            if is_long or re.search(r"TimestampType.*UTC=1.*NANOS=Nano", logical_type or ""):
                raise InputError(
                    f"rows: DuckDB cannot read column {name!r} of {self._address} without a loss. Install pyarrow: "
                    "pip install 'airflow-provider-batch[parquet]'. Nothing was uploaded."
                )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        import duckdb

        try:
            with self._reading():
                while rows := self._connection.fetchmany(CHUNK_ROWS):
                    yield from map(self._read_row, rows)
        except duckdb.Error as error:
            raise self._error(error) from error


def _escape(text: str) -> str:
    """Return a path for a string literal, in which wildcards are plain characters."""
    for character in "[*?":
        text = text.replace(character, f"[{character}]")
    return text.replace("'", "''")
