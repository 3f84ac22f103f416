"""A results table of an earlier job, read for the answers that need not be paid for again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.failures import NOTHING_UPLOADED, database_errors
from airflow_provider_batch.warehouse.naming import quote, quote_table, spellings, split_table
from airflow_provider_batch.warehouse.read import read_rows

#: what is read of each row, in this order
COLUMNS = ("request_sha256", "output", "finish_reason", "model", "batch_id")

#: an output may be as large as a few hundred embeddings
_ROWS_AT_ONCE = 200


class KnownTable:
    """The succeeded rows of a results table."""

    def __init__(self, hook: DbApiHook, table: str) -> None:
        """`table` or `schema.table`. Raises InputError if that names no table."""
        self._hook, self.name = hook, table
        self._marks = hook.escape_word_format
        self._spellings = list(
            dict.fromkeys(
                # as written, or as a database would have created it that folds unquoted names
                quote_table(fold(split_table(table)), self._marks)
                for fold in (tuple, _lower, _upper)
            )
        )
        self._select = ""

    def check(self) -> None:
        """Find the table and our columns in it.

        :raises ResultsTableError: if it is not there, cannot be read, or is no results table.
        :raises WarehouseError: if there is no connection.
        """
        with database_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            connection: Any = self._hook.get_conn()
            connection.close()
        table, columns = self._found()
        names = {}
        for name in ("outcome", *COLUMNS):
            matches = [name] if name in columns else spellings(name, columns)
            if len(matches) != 1:
                raise ResultsTableError(
                    f"reuse_from: the table {self.name!r} (connection {self._hook.get_conn_id()!r}) has no column "
                    f"{name!r}, so it is no results table of BatchResultsOperator. Nothing was built, nothing was "
                    "uploaded. Name the table that an earlier job landed in."
                )
            names[name] = quote(matches[0], self._marks)
        self._select = (
            f"SELECT {', '.join(names[name] for name in COLUMNS)} FROM {table} "
            f"WHERE {names['outcome']} = 'succeeded' AND {names['request_sha256']} IS NOT NULL"
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """`COLUMNS` of each row that succeeded, streamed. The table must have been checked."""
        with read_rows(self._hook, self._select, chunk_rows=_ROWS_AT_ONCE) as rows:
            yield from rows

    def _found(self) -> tuple[str, tuple[str, ...]]:
        said = ""
        for table in self._spellings:
            try:
                with read_rows(self._hook, f"SELECT * FROM {table} WHERE 1 = 0") as rows:
                    return table, rows.columns
            except InputError:
                raise
            except WarehouseError as error:
                said = said or str(error)
        raise ResultsTableError(
            f"reuse_from: the table {self.name!r} (connection {self._hook.get_conn_id()!r}) is not there or cannot be "
            f"read. {said}. Nothing was built. If the first run is to create it, leave reuse_from out for that run."
        )


def _lower(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)


def _upper(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.upper() for part in parts)
