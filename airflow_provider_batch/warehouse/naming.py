"""Names of tables and columns: splitting, quoting, and matching regardless of case."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import InputError


def split_table(table: str) -> tuple[str, ...]:
    """Return the parts of `schema.table`. Each part is taken literally: quotes and semicolons are plain characters.

    Raises InputError if a part is empty or contains a NUL character, which no database allows in a name.
    """
    parts = tuple(table.split("."))
    if not all(part.strip() for part in parts) or "\0" in table:
        raise InputError(f"{table!r} is not a table name. Use `table` or `schema.table`. Nothing was written.")
    return parts


def quote(name: str, marks: str = '""') -> str:
    """Return an identifier in quotation marks, with quotation marks inside it doubled."""
    opening, closing = marks[0], marks[-1]
    return opening + name.replace(closing, closing * 2) + closing


def quote_table(parts: Sequence[str], marks: str = '""') -> str:
    """Return a table name with each part quoted."""
    return ".".join(quote(part, marks) for part in parts)


def spellings(name: str, existing: Iterable[str]) -> list[str]:
    """Return the names in `existing` that equal `name`, ignoring case."""
    return [candidate for candidate in existing if candidate.casefold() == name.casefold()]


def duplicate_names(names: Sequence[str]) -> list[str]:
    """Return the names that occur more than once, ignoring case, each in its first spelling."""
    first: dict[str, str] = {}
    duplicates: dict[str, str] = {}
    for name in names:
        key = name.casefold()
        if key in first:
            duplicates[key] = first[key]
        first.setdefault(key, name)
    return list(duplicates.values())


def position(columns: Sequence[Column], name: str) -> int:
    """Return the index of the column `name`. Raises InputError if the column is missing."""
    for index, column in enumerate(columns):
        if column.name == name:
            return index
    raise InputError(
        f"A results table needs a column {name!r}, which decides which of two answers is kept. Nothing was written."
    )
