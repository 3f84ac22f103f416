"""Rows from several sources with the same columns, such as files, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.source import RowSource, Source

#: a name for errors, and a function that opens the part
Part = tuple[str, Callable[[], RowSource]]


class Parts(Source):
    """The rows of several sources, each of which is opened when its turn comes.

    All must have the same columns, in any order. Parts without columns, which have no rows either, are left out.
    """

    def __init__(self, parts: Iterable[Part]) -> None:
        super().__init__()
        self._parts = iter(parts)
        self._stack = ExitStack()
        self._first: RowSource = Source()
        self._first_name = ""

    def __enter__(self) -> Self:
        for name, open_part in self._parts:
            part = self._stack.enter_context(open_part())
            if part.columns:
                self._first_name, self._first, self.columns = name, part, part.columns
                break
            self._stack.close()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        if not self.columns:
            return
        yield from self._first
        self._stack.close()
        for name, open_part in self._parts:
            with open_part() as part:
                if part.columns == self.columns:
                    yield from part
                elif part.columns:
                    positions = self._positions_in(part.columns, name)
                    yield from (tuple(row[position] for position in positions) for row in part)

    def _positions_in(self, columns: tuple[str, ...], name: str) -> list[int]:
        """Return where the columns are in the rows of a part. Raises InputError if it has other columns."""
        for column in self.columns:
            if column not in columns:
                raise InputError(
                    f"rows: {name} has no column {column!r}, but {self._first_name} has. All must have the same "
                    "columns. Nothing was uploaded."
                )
        for column in columns:
            if column not in self.columns:
                raise InputError(
                    f"rows: {name} has the column {column!r}, but {self._first_name} does not. All must have the same "
                    "columns. Nothing was uploaded."
                )
        return [columns.index(column) for column in self.columns]
