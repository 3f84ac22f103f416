"""Statements that insert a row, or update the one with its key if the new one takes precedence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.warehouse import naming, precedence


@dataclass(frozen=True, kw_only=True)
class Upserted:
    """The table and the columns that are written, in the order of a row."""

    #: the table as SQL
    table: str
    columns: Sequence[Column]
    #: the columns' names as SQL
    names: Sequence[str]
    keep_last_success: bool

    @property
    def keys(self) -> list[str]:
        """The names of the key columns."""
        return [name for name, column in zip(self.names, self.columns, strict=True) if column.key]

    @property
    def others(self) -> list[str]:
        """The names of all other columns."""
        return [name for name, column in zip(self.names, self.columns, strict=True) if not column.key]

    @property
    def outcome(self) -> str:
        """The name of the column with the outcome."""
        return self.names[naming.position(self.columns, "outcome")]

    @property
    def sealed_at(self) -> str:
        """The name of the column with the time of the seal."""
        return self.names[naming.position(self.columns, "sealed_at")]


class Upsert(Protocol):
    """Builds the statement."""

    def __call__(self, into: Upserted, rows: str) -> str:
        """Return the SQL that upserts `rows`, which is a SELECT or VALUES."""


def on_conflict(into: Upserted, rows: str) -> str:
    """INSERT ... ON CONFLICT DO UPDATE, as PostgreSQL, SQLite and DuckDB have it."""
    replaces = precedence.replaces(
        "excluded", "e", into.outcome, into.sealed_at, keep_last_success=into.keep_last_success
    )
    sets = ", ".join(f"{name} = excluded.{name}" for name in into.others)
    return (
        f"INSERT INTO {into.table} AS e ({', '.join(into.names)}) {rows} "
        f"ON CONFLICT ({', '.join(into.keys)}) DO UPDATE SET {sets} WHERE {replaces}"
    )


def on_duplicate_key(into: Upserted, rows: str) -> str:
    """INSERT ... ON DUPLICATE KEY UPDATE, as MySQL and MariaDB have it.

    It has no WHERE, so every column is set to `IF(replaces, new, old)`. Assignments run from left to right and see what
    those before them set. So the two columns that `replaces` looks at come last, `sealed_at` before `outcome`. Once
    `sealed_at` is replaced, the condition for `outcome` still holds, since equal moments replace. If it was not
    replaced, nothing has changed.
    """
    table, outcome, sealed_at = into.table, into.outcome, into.sealed_at
    replaces = precedence.replaces_values(
        (f"VALUES({outcome})", f"VALUES({sealed_at})"),
        (f"{table}.{outcome}", f"{table}.{sealed_at}"),
        keep_last_success=into.keep_last_success,
    )
    # sealed_at or outcome may be part of the key, where they stay as they are.
    last = [name for name in (sealed_at, outcome) if name in into.others]
    first = [name for name in into.others if name not in last]
    sets = ", ".join(f"{name} = IF({replaces}, VALUES({name}), {table}.{name})" for name in [*first, *last])
    return f"INSERT INTO {table} ({', '.join(into.names)}) {rows} ON DUPLICATE KEY UPDATE {sets}"
