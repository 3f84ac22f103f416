"""Rows on their way into a table: in chunks, and with errors that name the row and never its values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.jobs.columns import Column, ColumnType
from airflow_provider_batch.warehouse.failures import NOTHING_COMMITTED

T = TypeVar("T")

#: rows that are held in memory at a time
CHUNK_ROWS = 5000

#: what a converter raises for a value that is not of its column's type
_MISFITS = (TypeError, ValueError, AttributeError, ArithmeticError)

#: values of these never change, so the very same object converts to the same again
_IMMUTABLE = (ColumnType.TEXT, ColumnType.TIMESTAMP)


class Incoming:
    """The caller's rows, each converted by a function per column; None becomes `null`.

    What the caller's iterator or a conversion raises is kept in `raised`: it is no fault of the database, however
    a driver that reads from here may wrap it.
    """

    def __init__(
        self,
        rows: Iterable[Sequence[Any]],
        columns: Sequence[Column],
        convert: Sequence[Callable[[Any], Any]],
        null: str | None = None,
    ) -> None:
        self._rows = rows
        self._columns = columns
        self._convert = [
            _remembering(function) if column.type in _IMMUTABLE else function
            for column, function in zip(columns, convert, strict=True)
        ]
        self._null = null
        #: rows taken so far
        self.count = 0
        self.raised: Exception | None = None

    def __iter__(self) -> Iterator[list[Any]]:
        """The converted rows. Raises ResultsTableError for a value of another type and for an empty key."""
        keys = [index for index, column in enumerate(self._columns) if column.key]
        convert, null = self._convert, self._null
        try:
            for row in self._rows:
                self.count += 1
                for index in keys:
                    if row[index] is None:
                        raise self._refuse(f"has no value in the key column {self._columns[index].name!r}")
                try:
                    converted = [
                        null if value is None else function(value) for function, value in zip(convert, row, strict=True)
                    ]
                except _MISFITS:
                    # The original names the value.
                    raise self._misfit(row) from None
                yield converted
        except Exception as error:
            self.raised = error
            raise

    def _refuse(self, problem: str) -> ResultsTableError:
        return ResultsTableError(f"Row {self.count} of this landing {problem}; {NOTHING_COMMITTED}.")

    def _misfit(self, row: Sequence[Any]) -> ResultsTableError:
        if len(row) != len(self._columns):
            return self._refuse(f"has {len(row)} values for {len(self._columns)} columns")
        for column, function, value in zip(self._columns, self._convert, row, strict=True):
            try:
                if value is not None:
                    function(value)
            except _MISFITS:
                return self._refuse(
                    f"has a value of type {type(value).__name__} in the column {column.name!r}, which takes "
                    f"{column.type} values"
                )
        return self._refuse("could not be converted")


def _remembering(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same function, which does not convert the object that it converted last.

    Many columns are one object in every row of a landing: the job, its run, its moments, the batch.
    """
    last: Any = None
    converted: Any = None

    def remembering(value: Any) -> Any:
        nonlocal last, converted
        if value is not last:
            converted = convert(value)
            last = value
        return converted

    return remembering


def chunks(rows: Iterable[T], size: int = CHUNK_ROWS) -> Iterator[list[T]]:
    """The rows in lists of at most `size`."""
    iterator = iter(rows)
    while chunk := list(islice(iterator, size)):
        yield chunk
