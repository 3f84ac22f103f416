"""Rows on their way into a table: in chunks, and with errors that identify the row but never show its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED

#: rows held in memory at a time
CHUNK_ROWS = 5000
#: Approximate characters and bytes held in memory at a time. Without this limit, 5,000 vectors of 1,536 numbers would
#: be 150 MB of text.
CHUNK_SIZE = 8_000_000
#: number of rows whose size is estimated from the first one
_SAMPLE_ROWS = 50

#: exceptions that a converter raises for a value of the wrong type
_MISFITS = (TypeError, ValueError, AttributeError, ArithmeticError)

#: rows converted together, column by column
_BATCH_ROWS = 128


class IncomingRows:
    """The caller's rows, each value converted by the function for its column. None becomes `null`.

    Rows are converted in batches, column by column: in a landing most columns repeat one value in every row (the job,
    its run, its timestamps, the batch) or hold text that needs no conversion.

    `error` keeps the exception that the caller's iterator or a converter raised, even if the driver that reads the rows
    wraps it in one of its own. The database is not to blame for it.
    """

    def __init__(
        self,
        rows: Iterable[tuple[Any, ...]],
        columns: Sequence[Column],
        converters: Sequence[Callable[[Any], Any]],
        null: str | None = None,
        *,
        is_plain: Callable[[str], bool] | None = None,
    ) -> None:
        """:param is_plain: whether conversion leaves this text, and any part of it, unchanged in a text column."""
        self._rows = rows
        self._columns = columns
        self._converters = converters
        self._null = null
        self._is_plain = is_plain
        self._keys = [index for index, column in enumerate(columns) if column.key]
        #: rows yielded so far
        self.count = 0
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        """Yield the converted rows. Raises ResultsTableError for a value of the wrong type and for an empty key."""
        for batch in self._batches():
            for row in zip(*batch, strict=True):
                self.count += 1
                yield list(row)

    def batches(self) -> Iterator[list[Sequence[Any]]]:
        """Yield the converted rows in batches, each as a list of columns. Raises like `__iter__`."""
        for batch in self._batches():
            self.count += len(batch[0])
            yield batch

    def _batches(self) -> Iterator[list[Sequence[Any]]]:
        rows = iter(self._rows)
        try:
            while batch := list(islice(rows, _BATCH_ROWS)):
                yield self._convert_batch(batch)
        except Exception as error:
            self.error = error
            raise

    def _convert_batch(self, batch: list[tuple[Any, ...]]) -> list[Sequence[Any]]:
        try:
            value_columns = list(zip(*batch, strict=True))
            if len(value_columns) == len(self._columns) and not any(
                None in value_columns[index] for index in self._keys
            ):
                return list(map(self._convert_column, self._columns, self._converters, value_columns))
        except _MISFITS:
            pass
        raise self._find_fault(batch)

    def _convert_column(self, column: Column, convert: Callable[[Any], Any], values: tuple[Any, ...]) -> Sequence[Any]:
        count, null, first = len(values), self._null, values[0]
        # comparing a value with itself is several times faster than comparing it with None, so this comes first
        is_comparable = first is None or column.type in (ColumnType.TEXT, ColumnType.TIMESTAMP)
        if is_comparable and values.count(first) == count:
            return (null if first is None else convert(first),) * count
        has_nulls = None in values
        if column.type is ColumnType.TEXT and self._is_plain is not None:
            texts = [value for value in values if value is not None] if has_nulls else values
            if self._is_plain("".join(texts)):
                return values if not has_nulls or null is None else [null if v is None else v for v in values]
        if not has_nulls:
            return list(map(convert, values))
        return [null if value is None else convert(value) for value in values]

    def _find_fault(self, batch: list[tuple[Any, ...]]) -> ResultsTableError:
        """Return an error about the first faulty row of the batch."""
        for row in batch:
            self.count += 1
            if len(row) != len(self._columns):
                return self._row_error(f"has {len(row)} values for {len(self._columns)} columns")
            for index in self._keys:
                if row[index] is None:
                    return self._row_error(f"has no value in the key column {self._columns[index].name!r}")
            for column, convert, value in zip(self._columns, self._converters, row, strict=True):
                try:
                    if value is not None:
                        convert(value)
                except _MISFITS:
                    # the converter's own error would show the value
                    return self._row_error(
                        f"has a value of type {type(value).__name__} in the column {column.name!r}, which takes "
                        f"{column.type} values"
                    )
        return self._row_error("could not be converted")

    def _row_error(self, problem: str) -> ResultsTableError:
        return ResultsTableError(f"Row {self.count:,} of this landing {problem}. {NOTHING_COMMITTED}")


def chunks(rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """Yield the rows in lists of at most `CHUNK_ROWS`, or fewer if their texts are long."""
    iterator = iter(rows)
    chunk: list[Any] = []
    size = 0
    while sample := list(islice(iterator, _SAMPLE_ROWS)):
        chunk += sample
        size += len(sample) * sum(len(value) for value in sample[0] if isinstance(value, (str, bytes)))
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_SIZE:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
