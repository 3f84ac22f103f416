"""What a source of rows is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.naming import duplicate_names


class RowSource(Protocol):
    """The rows of a job. Inside a `with` block, `columns` is set, and iterating yields each row once, as a tuple.

    Values lose nothing: one that Python cannot hold is a `NativeValue` or text. `warehouse.read.Rows` is the source of
    a query.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns. There are none only if there are no rows."""

    @property
    def native_types(self) -> tuple[str, ...]:
        """Type of each column in the database, or '' if it comes from no database."""

    @property
    def database(self) -> str:
        """Name of the database, or '' for none."""

    def __enter__(self) -> Self:
        """Open the source and set its columns."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the source."""

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows, holding only a few of them in memory."""


class Source:
    """A source of rows outside of databases. Subclasses set `columns` when they are entered, and yield the rows."""

    database = ""

    def __init__(self) -> None:
        self.columns: tuple[str, ...] = ()

    @property
    def native_types(self) -> tuple[str, ...]:
        """No column has a type of a database: the types of a job's columns are those of their values."""
        return ("",) * len(self.columns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        raise NotImplementedError


def check_columns(names: Sequence[Any], place: str) -> tuple[str, ...]:
    """Return the names of columns.

    :param place: where the names are from, for the error.
    :raises InputError: if a name is not text, is blank, or occurs twice. Case is ignored, as databases do.
    """
    for name in names:
        if not isinstance(name, str):
            raise InputError(
                f"rows: The names of columns must be text, but {place} has the name {name!r} ({type(name).__name__}). "
                "Nothing was uploaded."
            )
        if not name.strip():
            raise InputError(f"rows: A column of {place} has no name. Give it one. Nothing was uploaded.")
    repeated_names = duplicate_names(names)
    if repeated_names:
        raise InputError(
            f"rows: These columns occur more than once in {place} (names are compared without case): "
            f"{', '.join(repeated_names)}. Give each its own name. Nothing was uploaded."
        )
    return tuple(names)
