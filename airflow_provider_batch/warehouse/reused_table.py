"""A results table of an earlier job, read for the answers that need not be paid for again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.exceptions import AbsentTableError, InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import NOTHING_UPLOADED, database_errors
from airflow_provider_batch.warehouse.naming import spellings, split_table
from airflow_provider_batch.warehouse.read import read_rows

log = logging.getLogger(__name__)

#: what is read of each row, in this order
COLUMNS = ("request_sha256", "output", "finish_reason", "model", "batch_id")

#: an output may be as large as a few hundred embeddings
_ROWS_AT_ONCE = 200


class KnownTable:
    """The succeeded rows of a results table."""

    def __init__(self, hook: DbApiHook, table: str) -> None:
        """`table` or `schema.table`. Raises InputError if that names no table."""
        self._hook, self.name = hook, table
        self._dialect = dialect_of(hook)
        self._spellings = list(
            dict.fromkeys(
                # as written, or as a database would have created it that folds unquoted names
                self._dialect.quote_table(fold(split_table(table)))
                for fold in (tuple, _lower, _upper)
            )
        )
        self._select = ""

    def check(self) -> bool:
        """Find the table and our columns in it. False, with a line in the log, if there is no such table yet.

        :raises ResultsTableError: if it cannot be read, or is no results table.
        :raises WarehouseError: if there is no connection.
        """
        with database_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            with self._dialect.driver.connection(self._hook, NOTHING_UPLOADED):
                pass
        found = self._found()
        if found is None:
            log.info(
                "reuse_from: there is no table %r yet (connection %r), so nothing is known and every row is asked",
                self.name,
                self._hook.get_conn_id(),
            )
            return False
        table, columns = found
        names = {}
        for name in ("outcome", *COLUMNS):
            matches = [name] if name in columns else spellings(name, columns)
            if len(matches) != 1:
                raise ResultsTableError(
                    f"reuse_from: the table {self.name!r} (connection {self._hook.get_conn_id()!r}) has no column "
                    f"{name!r}, so it is no results table of BatchResultsOperator. Nothing was built, nothing was "
                    "uploaded. Name the table that an earlier job landed in."
                )
            names[name] = self._dialect.quote(matches[0])
        self._select = (
            f"SELECT {', '.join(names[name] for name in COLUMNS)} FROM {table} "
            f"WHERE {names['outcome']} = 'succeeded' AND {names['request_sha256']} IS NOT NULL"
        )
        return True

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """`COLUMNS` of each row that succeeded, streamed. The table must have been checked and found."""
        with read_rows(self._hook, self._select, chunk_rows=_ROWS_AT_ONCE) as rows:
            yield from rows

    def _found(self) -> tuple[str, tuple[str, ...]] | None:
        """The table as SQL and its columns; None if the database says of every spelling that it is not there."""
        said = ""
        for table in self._spellings:
            try:
                with read_rows(self._hook, self._dialect.probe(table)) as rows:
                    return table, rows.columns
            except InputError:
                raise
            except WarehouseError as error:
                if not self._is_absent(error):
                    said = said or str(error)
        if not said:
            return None
        raise ResultsTableError(
            f"reuse_from: the table {self.name!r} (connection {self._hook.get_conn_id()!r}) cannot be read. {said}. "
            "Nothing was built. If it is not there yet, create it, or leave reuse_from out until a first job has "
            "landed in it; if it is, let this connection read it."
        )

    def _is_absent(self, error: WarehouseError) -> bool:
        # A view may be there and need a table that is not: the error is about that other name. DuckDB goes on to
        # suggest names that are there.
        name = re.escape(split_table(self.name)[-1])
        said = str(error).partition(" failed: ")[2].partition("Did you mean")[0]
        about = re.search(rf"(?<!\w){name}(?!\w)", said, re.IGNORECASE)
        return isinstance(error, AbsentTableError) and about is not None


def _lower(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)


def _upper(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.upper() for part in parts)
