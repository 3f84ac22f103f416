"""Finding the rows that a database refuses, so that all others land.

A database refuses a statement as a whole, and most do not say which row was to blame. Checks, foreign keys, enums,
triggers and casts are known to the database alone, so `storage_limits` cannot find such rows in advance. A sink first
stores all rows with one statement, which costs nothing extra. Only if that is refused because of the data, it calls
`store_the_rest`: ranges of rows are halved until single rows remain. One refused row in a million takes 40 ranges.

A refused row lands without the value that is to blame, like a value that exceeds a column's size. To find the column,
the row is stored with one value after the other left out, and finally with all of them left out.

If the table refuses more than `MAX_REFUSED_ROWS`, the table is wrong and not the rows, so the landing fails as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from airflow_provider_batch.core.answers.outcome import STORAGE, Outcome
from airflow_provider_batch.core.landing.columns import FIXED_COLUMNS
from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.landing.storage_limits import StorageLimits, storage_message
from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.drivers.base import Driver

#: refused rows of one landing, beyond which it fails as a whole
MAX_REFUSED_ROWS = 1000
#: refused rows with the same message for which every column is tried
_SEARCHED_ROWS = 20

#: the value of a column that is left out is None, and the outcome, the code and the message are texts
Changes = Mapping[int, str | None]


class StagedRows(Protocol):
    """Rows that wait to be stored. They are numbered from 1."""

    def store(self, first: int, last: int, changes: Changes | None = None) -> Exception | None:
        """Store a range of rows, both ends included, or return why the database refuses them.

        After a refusal nothing of the range is stored. All other errors are raised.

        :param changes: values to store instead, by the position of their column. Only for a single row.
        """

    def read(self, number: int) -> Sequence[Any]:
        """Return the values of a row, in the order of the columns."""


class RefusedRows:
    """The rows that were refused in one landing, by key."""

    def __init__(
        self,
        columns: Sequence[Column],
        limits: StorageLimits,
        message_of: Callable[[BaseException], str],
        consequence: str,
    ) -> None:
        """Expect the rows of one landing.

        :param message_of: returns the database's words without values.
        :param consequence: what was kept if the landing fails as a whole, and what to do.
        """
        self._columns = columns
        self._message_of = message_of
        self._consequence = consequence
        self._positions = {column.name: index for index, column in enumerate(columns)}
        self._key = [index for index, column in enumerate(columns) if column.key]
        fixed_names = {column.name for column in FIXED_COLUMNS}
        values = [column.name for column in columns if not column.key and column.name not in fixed_names]
        self._value_names = [*values, *(["output"] if "output" in self._positions else [])]
        message_limits = limits.columns.get("error_message")
        self._message_length = (message_limits and (message_limits.characters or message_limits.bytes)) or 10_000
        #: number of rows for which every column was tried, by the database's message
        self._searched: Counter[str] = Counter()
        #: the column that was to blame most recently, by the database's message
        self._last_column: dict[str, str] = {}
        self._refusals: dict[tuple[Any, ...], Refusal] = {}
        self._last_error: Exception | None = None

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The rows that were refused."""
        return tuple(self._refusals.values())

    def check(self, count: int) -> tuple[Refusal, ...]:
        """Return the refusals of a landing of `count` rows, or raise the database's error if no row could land."""
        refusals = self.refusals
        if self._last_error is not None and len(refusals) == count and not any(refusal.landed for refusal in refusals):
            raise self._last_error
        return refusals

    def _key_of(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """Return the values of a row's key columns."""
        return tuple(row[index] for index in self._key)

    def store(self, rows: StagedRows, chunk: Sequence[Sequence[Any]]) -> None:
        """Store a chunk of rows that is held in memory, in the order of `rows`."""
        for row in chunk if self._refusals else ():
            # the row replaces a row with the same key that was refused
            self._refusals.pop(self._key_of(row), None)
        error = rows.store(1, len(chunk))
        if error is not None:
            last_numbers = {self._key_of(row): number for number, row in enumerate(chunk, start=1)}
            self.store_the_rest(rows, len(chunk), error, last_numbers)

    def store_the_rest(
        self, rows: StagedRows, count: int, error: Exception, last_numbers: Mapping[Any, int] | None = None
    ) -> None:
        """Store each of the rows that the database takes, after it refused to store all of them with `error`.

        :param last_numbers: the last row of each key, if there may be several. The rows before it need not be stored.

        Raises ResultsTableError for more than `MAX_REFUSED_ROWS`.
        """
        ranges = [(1, count)]
        refusal: Exception | None = error
        while ranges:
            first, last = ranges.pop()
            if (first, last) != (1, count):
                refusal = rows.store(first, last)
            if refusal is not None and first < last:
                middle = (first + last) // 2
                ranges += [(middle + 1, last), (first, middle)]
            elif refusal is not None:
                row = rows.read(first)
                if last_numbers is None or last_numbers[self._key_of(row)] == first:
                    self._refuse(rows, first, row, refusal)

    def _refuse(self, rows: StagedRows, number: int, row: Sequence[Any], error: Exception) -> None:
        """Store a refused row without the value that is to blame, if possible, and remember the row."""
        message = self._message_of(error)
        self._last_error = error
        column = self._store_without_value(rows, number, row, message)
        key = self._key_of(row)
        self._refusals[key] = Refusal(
            custom_id=str(row[self._positions["custom_id"]] if "custom_id" in self._positions else key[0]),
            lost_success=self._is_success(row) and column != "response",
            column=column or "",
            message=message,
            landed=column is not None,
        )
        if len(self._refusals) > MAX_REFUSED_ROWS:
            raise ResultsTableError(
                f"The table refuses more than {MAX_REFUSED_ROWS:,} rows, the last one because of this: "
                f"{self.refusals[-1].reason}. The table does not fit the job. "
                f"{self._consequence}"
            )

    def _store_without_value(self, rows: StagedRows, number: int, row: Sequence[Any], message: str) -> str | None:
        """Return the column that was left out, '' if it took several, or None if the row cannot be stored."""
        names = [name for name in self._value_names if row[self._positions[name]] is not None]
        if not names:
            return None
        likely_names = [name for name in (self._last_column.get(message),) if name in names]
        self._searched[message] += 1
        if self._searched[message] <= _SEARCHED_ROWS:
            likely_names += [name for name in names if name not in likely_names]
        for name in likely_names:
            if rows.store(number, number, self._changes(row, [name], message)) is None:
                self._last_column[message] = name
                return name
        return "" if rows.store(number, number, self._changes(row, names, message)) is None else None

    def _changes(self, row: Sequence[Any], names: Sequence[str], message: str) -> Changes:
        changes: dict[int, str | None] = {self._positions[name]: None for name in names}
        if self._is_success(row):
            reasons = "; ".join(f"{name}: {message}" for name in names) if len(names) == 1 else message
            marks = {
                "outcome": Outcome.SUCCEEDED if names == ["response"] else Outcome.INVALID_OUTPUT,
                "error_code": STORAGE,
                "error_message": storage_message(reasons)[: self._message_length],
            }
            changes.update(
                {self._positions[name]: str(text) for name, text in marks.items() if name in self._positions}
            )
        return changes

    def _is_success(self, row: Sequence[Any]) -> bool:
        return bool(row[self._positions["outcome"]] == Outcome.SUCCEEDED)


def changed_row(row: Sequence[Any], changes: Changes) -> list[Any]:
    """Return a row with these values changed."""
    values = list(row)
    for index, value in changes.items():
        values[index] = value
    return values


class TemporaryRows:
    """Rows in a temporary table, stored under a savepoint."""

    def __init__(
        self,
        cursor: Any,
        driver: Driver,
        *,
        table: str,
        names: Sequence[str],
        merge: Callable[[int, int], str],
        place: str = "place",
        after: str = "",
    ) -> None:
        """`table` and `names` are SQL, escaped for a statement with parameters.

        :param merge: returns the statement that stores a range of rows.
        :param place: name of the column with the numbers.
        :param after: a statement that makes the database check what it would otherwise check at the commit.
        """
        self._cursor = cursor
        self._driver = driver
        self._table = table
        self._names = names
        self._merge = merge
        self._place = place
        self._after = after

    def store_all(self, statement: str) -> Exception | None:
        """Run the statement that stores all rows, or return why the database refuses it."""
        return self._run([(statement, None)])

    def store(self, first: int, last: int, changes: Changes | None = None) -> Exception | None:
        """See `StagedRows`."""
        statements: list[tuple[str, Sequence[Any] | None]] = [(self._merge(first, last), None)]
        if changes:
            sets = ", ".join(f"{self._names[index]} = %s" for index in changes)
            statements.insert(
                0, (f"UPDATE {self._table} SET {sets} WHERE {self._place} = {first}", tuple(changes.values()))
            )
        return self._run(statements)

    def _run(self, statements: Sequence[tuple[str, Sequence[Any] | None]]) -> Exception | None:
        self._cursor.execute("SAVEPOINT batch_rows")
        try:
            for statement, parameters in statements:
                if parameters is None:
                    self._cursor.execute(statement)
                else:
                    self._cursor.execute(statement, parameters)
            if self._after:
                self._cursor.execute(self._after)
        except Exception as error:
            if not self._driver.refuses_data(error):
                raise
            self._cursor.execute("ROLLBACK TO SAVEPOINT batch_rows")
            return error
        self._cursor.execute("RELEASE SAVEPOINT batch_rows")
        return None

    def count(self) -> int:
        """Return the number of rows."""
        self._cursor.execute(f"SELECT count(*) FROM {self._table}".replace("%%", "%"))
        return int(self._cursor.fetchall()[0][0])

    def read(self, number: int) -> Sequence[Any]:
        """See `StagedRows`."""
        query = f"SELECT {', '.join(self._names)} FROM {self._table} WHERE {self._place} = %s"
        self._cursor.execute(query, (number,))
        row: Sequence[Any] = self._cursor.fetchall()[0]
        return row
