"""Statements that insert a row, or update the existing row with the same key if the new one takes precedence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.warehouse import naming, precedence


@dataclass(frozen=True, kw_only=True)
class UpsertTarget:
    """The table and the columns to write, in the order of a row."""

    #: table name as SQL
    table: str
    columns: Sequence[Column]
    #: column names as SQL
    names: Sequence[str]
    keep_last_success: bool

    @property
    def key_names(self) -> list[str]:
        """Names of the key columns, as SQL."""
        return [name for name, column in zip(self.names, self.columns, strict=True) if column.key]

    @property
    def other_names(self) -> list[str]:
        """Names of all other columns, as SQL."""
        return [name for name, column in zip(self.names, self.columns, strict=True) if not column.key]

    @property
    def outcome(self) -> str:
        """Name of the outcome column, as SQL."""
        return self.names[naming.position(self.columns, "outcome")]

    @property
    def sealed_at(self) -> str:
        """Name of the `sealed_at` column, as SQL."""
        return self.names[naming.position(self.columns, "sealed_at")]


class Upsert(Protocol):
    """A function that builds an upsert statement."""

    def __call__(self, into: UpsertTarget, rows: str) -> str:
        """Return the SQL that upserts `rows`, a SELECT or VALUES clause."""


def on_conflict(into: UpsertTarget, rows: str) -> str:
    """Return `INSERT ... ON CONFLICT DO UPDATE`, for PostgreSQL, SQLite and DuckDB."""
    replaces = precedence.replaces(
        "excluded", "e", into.outcome, into.sealed_at, keep_last_success=into.keep_last_success
    )
    sets = ", ".join(f"{name} = excluded.{name}" for name in into.other_names)
    return (
        f"INSERT INTO {into.table} AS e ({', '.join(into.names)}) {rows} "
        f"ON CONFLICT ({', '.join(into.key_names)}) DO UPDATE SET {sets} WHERE {replaces}"
    )


def on_duplicate_key(into: UpsertTarget, rows: str) -> str:
    """Return `INSERT ... ON DUPLICATE KEY UPDATE`, for MySQL and MariaDB.

    The statement has no WHERE, so every column is set to `IF(replaces, new, old)`. Assignments run from left to right,
    and each sees the values that earlier ones set. The two columns that `replaces` reads therefore come last,
    `sealed_at` before `outcome`. Once `sealed_at` is replaced, the condition still holds for `outcome`, because a row
    with an equal timestamp replaces. If `sealed_at` was not replaced, nothing has changed.
    """
    table, outcome, sealed_at = into.table, into.outcome, into.sealed_at
    replaces = precedence.replaces_values(
        (f"VALUES({outcome})", f"VALUES({sealed_at})"),
        (f"{table}.{outcome}", f"{table}.{sealed_at}"),
        keep_last_success=into.keep_last_success,
    )
    # sealed_at or outcome may be part of the key, and key columns are not updated
    condition_names = [name for name in (sealed_at, outcome) if name in into.other_names]
    independent_names = [name for name in into.other_names if name not in condition_names]
    sets = ", ".join(
        f"{name} = IF({replaces}, VALUES({name}), {table}.{name})" for name in [*independent_names, *condition_names]
    )
    return f"INSERT INTO {table} ({', '.join(into.names)}) {rows} ON DUPLICATE KEY UPDATE {sets}"
