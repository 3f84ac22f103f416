"""Rows on their way into a table: in chunks, and with errors that name the row and never its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.errors import NOTHING_COMMITTED

#: rows that are held in memory at a time
CHUNK_ROWS = 5000
#: letters and bytes in them, about: 5,000 vectors of 1,536 numbers, written out, would be 150 MB
CHUNK_SIZE = 8_000_000
#: rows that are taken as long as the first of them
_ALIKE = 50

#: what a converter raises for a value that is not of its column's type
_MISFITS = (TypeError, ValueError, AttributeError, ArithmeticError)

#: rows that are converted together, column by column
_BATCH_ROWS = 128


class Incoming:
    """The caller's rows, converted by a function per column; None becomes `null`.

    Rows are taken a batch at a time, and each column of it is converted at once: most columns of a landing hold one
    value in row after row (the job, its run, its moments, the batch), or texts that are stored as they are.

    What the caller's iterator or a conversion raises is kept in `raised`: it is no fault of the database, however
    a driver that reads from here may wrap it.
    """

    def __init__(
        self,
        rows: Iterable[tuple[Any, ...]],
        columns: Sequence[Column],
        convert: Sequence[Callable[[Any], Any]],
        null: str | None = None,
        *,
        plain: Callable[[str], bool] | None = None,
    ) -> None:
        """:param plain: whether converting this text, and any part of it, for a text column changes nothing."""
        self._rows = rows
        self._columns = columns
        self._convert = convert
        self._null = null
        self._plain = plain
        self._keys = [index for index, column in enumerate(columns) if column.key]
        #: rows given so far
        self.count = 0
        self.raised: Exception | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        """The converted rows. Raises ResultsTableError for a value of another type and for an empty key."""
        for batch in self._batches():
            for row in zip(*batch, strict=True):
                self.count += 1
                yield list(row)

    def batches(self) -> Iterator[list[Sequence[Any]]]:
        """The same in batches, each as its converted columns. Raises as `__iter__`."""
        for batch in self._batches():
            self.count += len(batch[0])
            yield batch

    def _batches(self) -> Iterator[list[Sequence[Any]]]:
        rows = iter(self._rows)
        try:
            while batch := list(islice(rows, _BATCH_ROWS)):
                yield self._converted(batch)
        except Exception as error:
            self.raised = error
            raise

    def _converted(self, batch: list[tuple[Any, ...]]) -> list[Sequence[Any]]:
        try:
            given = list(zip(*batch, strict=True))
            if len(given) == len(self._columns) and not any(None in given[index] for index in self._keys):
                return list(map(self._column, self._columns, self._convert, given))
        except _MISFITS:
            pass
        raise self._fault(batch)

    def _column(self, column: Column, convert: Callable[[Any], Any], values: tuple[Any, ...]) -> Sequence[Any]:
        count, null = len(values), self._null
        missing = values.count(None)
        if missing == count:
            return (null,) * count
        if column.type in (ColumnType.TEXT, ColumnType.TIMESTAMP) and values.count(values[0]) == count:
            return (convert(values[0]),) * count
        if column.type is ColumnType.TEXT and self._plain is not None:
            texts = [value for value in values if value is not None] if missing else values
            if self._plain("".join(texts)):
                return values if not missing or null is None else [null if value is None else value for value in values]
        if not missing:
            return list(map(convert, values))
        return [null if value is None else convert(value) for value in values]

    def _fault(self, batch: list[tuple[Any, ...]]) -> ResultsTableError:
        """What is wrong with the first row of the batch that something is wrong with."""
        for row in batch:
            self.count += 1
            if len(row) != len(self._columns):
                return self._refuse(f"has {len(row)} values for {len(self._columns)} columns")
            for index in self._keys:
                if row[index] is None:
                    return self._refuse(f"has no value in the key column {self._columns[index].name!r}")
            for column, convert, value in zip(self._columns, self._convert, row, strict=True):
                try:
                    if value is not None:
                        convert(value)
                except _MISFITS:
                    # The error itself names the value.
                    return self._refuse(
                        f"has a value of type {type(value).__name__} in the column {column.name!r}, which takes "
                        f"{column.type} values"
                    )
        return self._refuse("could not be converted")

    def _refuse(self, problem: str) -> ResultsTableError:
        return ResultsTableError(f"Row {self.count} of this landing {problem}; {NOTHING_COMMITTED}.")


def chunks(rows: Iterable[Sequence[Any]]) -> Iterator[list[Any]]:
    """The rows in lists of at most `CHUNK_ROWS`, and fewer where their texts are long."""
    iterator = iter(rows)
    chunk: list[Any] = []
    held = 0
    while alike := list(islice(iterator, _ALIKE)):
        chunk += alike
        held += len(alike) * sum(len(value) for value in alike[0] if isinstance(value, (str, bytes)))
        if len(chunk) >= CHUNK_ROWS or held >= CHUNK_SIZE:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
