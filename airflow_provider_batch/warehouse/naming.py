"""Names of tables and columns: splitting, quoting, and finding a column under another spelling."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import InputError


def split_table(table: str) -> tuple[str, ...]:
    """`schema.table` as its parts. Each part is taken literally: quotes and semicolons in it are characters.

    Raises InputError if a part is empty or holds a NUL character, which no database can name.
    """
    parts = tuple(table.split("."))
    if not all(part.strip() for part in parts) or "\0" in table:
        raise InputError(f"{table!r} is no table name: give `table` or `schema.table`. Nothing was written.")
    return parts


def quote(name: str, marks: str = '""') -> str:
    """One identifier between the dialect's quotation marks, those within it doubled."""
    opening, closing = marks[0], marks[-1]
    return opening + name.replace(closing, closing * 2) + closing


def quote_table(parts: Sequence[str], marks: str = '""') -> str:
    """A table's name with each part quoted."""
    return ".".join(quote(part, marks) for part in parts)


def spellings(name: str, existing: Iterable[str]) -> list[str]:
    """The names in `existing` that are `name` but for upper and lower case."""
    return [other for other in existing if other.casefold() == name.casefold()]


def repeated(names: Sequence[str]) -> list[str]:
    """The names that are there more than once, also if they differ only by case, each as first spelled."""
    first: dict[str, str] = {}
    again: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in first:
            again[folded] = first[folded]
        first.setdefault(folded, name)
    return list(again.values())


def position(columns: Sequence[Column], name: str) -> int:
    """Where the column `name` stands among ours. Raises InputError if it is not there."""
    for index, column in enumerate(columns):
        if column.name == name:
            return index
    raise InputError(f"A results table needs a column {name!r}: it decides which of two answers stays.")
