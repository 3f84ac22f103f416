"""The results table of an earlier job, read for answers that can be reused instead of being paid for again."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_batch.exceptions import AbsentTableError, InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.errors import NOTHING_UPLOADED, translate_errors
from airflow_provider_batch.warehouse.naming import spellings, split_table
from airflow_provider_batch.warehouse.read import read_rows

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

log = logging.getLogger(__name__)

#: columns read from each row, in this order
COLUMNS = ("request_sha256", "output", "finish_reason", "model", "batch_id")

#: small chunks, since one output may be as large as a few hundred embeddings
_CHUNK_ROWS = 200


class ReusedTable:
    """The succeeded rows of a results table."""

    def __init__(self, hook: DbApiHook, table: str) -> None:
        """Store the name, `table` or `schema.table`. Raises InputError if it is not a table name."""
        self._hook, self.name = hook, table
        self._dialect = dialect_of(hook)
        self._spellings = list(
            dict.fromkeys(
                # as written, or as created by a database that folds unquoted names to lower or upper case
                self._dialect.quote_table(fold(split_table(table)))
                for fold in (tuple, _lower, _upper)
            )
        )
        self._query = ""

    def check(self) -> bool:
        """Locate the table and our columns in it. If the table does not exist yet, log that and return False.

        :raises ResultsTableError: if the table cannot be read or is not a results table.
        :raises WarehouseError: if the connection fails.
        """
        with translate_errors(self._hook, "Connecting", NOTHING_UPLOADED):
            with self._dialect.driver.connection(self._hook, NOTHING_UPLOADED):
                pass
        location = self._locate()
        if location is None:
            log.info(
                "reuse_from: The table %r (connection %r) does not exist yet, so no answers are reused and every row "
                "is sent.",
                self.name,
                self._hook.get_conn_id(),
            )
            return False
        table, columns = location
        names = {}
        for name in ("outcome", *COLUMNS):
            matches = [name] if name in columns else spellings(name, columns)
            if len(matches) != 1:
                raise ResultsTableError(
                    f"reuse_from: The table {self.name!r} (connection {self._hook.get_conn_id()!r}) has no column "
                    f"{name!r}, so it is not a results table of BatchResultsOperator. Nothing was built, and nothing "
                    "was uploaded. Name a table in which an earlier job landed."
                )
            names[name] = self._dialect.quote(matches[0])
        self._query = (
            f"SELECT {', '.join(names[name] for name in COLUMNS)} FROM {table} "
            f"WHERE {names['outcome']} = 'succeeded' AND {names['request_sha256']} IS NOT NULL"
        )
        return True

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        """Stream `COLUMNS` of each row that succeeded. Call this only after `check` returned True."""
        with read_rows(self._hook, self._query, chunk_rows=_CHUNK_ROWS) as rows:
            yield from rows

    def _locate(self) -> tuple[str, tuple[str, ...]] | None:
        """Return the table's SQL name and its columns, or None if it exists under none of the spellings."""
        message = ""
        for table in self._spellings:
            try:
                with read_rows(self._hook, self._dialect.probe(table)) as rows:
                    return table, rows.columns
            except InputError:
                raise
            except WarehouseError as error:
                if not self._is_absent(error):
                    message = message or str(error)
        if not message:
            return None
        raise ResultsTableError(
            f"reuse_from: The table {self.name!r} (connection {self._hook.get_conn_id()!r}) cannot be read. {message} "
            "Nothing was built. If the table does not exist yet, create it, or omit reuse_from until a first job has "
            "landed in it. If it exists, grant this connection read access."
        )

    def _is_absent(self, error: WarehouseError) -> bool:
        # An existing view may need a table that is gone; the error is then about that other table. DuckDB also
        # suggests the names of existing tables.
        name = re.escape(split_table(self.name)[-1])
        message = str(error).partition(" failed: ")[2].partition("Did you mean")[0]
        mention = re.search(rf"(?<!\w){name}(?!\w)", message, re.IGNORECASE)
        return isinstance(error, AbsentTableError) and mention is not None


def _lower(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.lower() for part in parts)


def _upper(parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part.upper() for part in parts)
