"""One row of the query, as a template sees it: columns, and nothing but columns."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.exceptions import InputError

_LISTED = 40


class UnknownColumnError(LookupError):
    """A name that is no column, or that fits several. The message is a whole sentence for a person."""


class Columns:
    """The column names of a query, in order.

    A name is found exactly first, else case-insensitively if only one column fits: warehouses fold the case
    of unquoted names, each in its own direction.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Raises InputError if two columns have the very same name: which one is meant cannot be told."""
        self.names = tuple(names)
        self._exact: dict[str, int] = {}
        self._folded: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            if name in self._exact:
                raise InputError(f"sql: the query returns the column {name!r} twice. Rename one of them with AS.")
            self._exact[name] = index
            self._folded.setdefault(name.casefold(), []).append(index)

    def index(self, name: Any) -> int:
        """The position of a column in the row tuple. Raises UnknownColumnError."""
        if not isinstance(name, str):
            raise UnknownColumnError(
                f"row[{name!r}]: a column is found by its name only, and the query returns {self._listed()}."
            )
        found = self._exact.get(name)
        if found is not None:
            return found
        fitting = self._folded.get(name.casefold(), [])
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            choice = ", ".join(repr(self.names[index]) for index in fitting)
            raise UnknownColumnError(
                f"the column {name!r} is ambiguous: the query returns {choice}. Spell it as one of these."
            )
        near = difflib.get_close_matches(name.casefold(), self._folded, n=1)
        guess = f" Did you mean {self.names[self._folded[near[0]][0]]!r}?" if near else ""
        raise UnknownColumnError(
            f"the query has no column {name!r}.{guess} It returns {self._listed()}. "
            "(`row` has columns only, no methods.)"
        )

    def _listed(self) -> str:
        if not self.names:
            return "no columns"
        listed = ", ".join(self.names[:_LISTED])
        rest = len(self.names) - _LISTED
        return f"{listed} and {rest} more" if rest > 0 else listed


class Row:
    """`row` in a template. It has no attributes of its own that a template could reach.

    The template environment asks `lookup` for `row.name` and `row['name']` alike, so columns named `items`,
    `get`, `values` or `_id` are columns, and `row.__class__` is a column that does not exist.
    """

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: Columns, values: Sequence[Any]) -> None:
        self._columns = columns
        self._values = values


def lookup(row: Row, name: Any) -> Any:
    """The value of a column. Raises UnknownColumnError."""
    return row._values[row._columns.index(name)]


def as_dict(row: Row) -> dict[str, Any]:
    """The whole row, column -> value, in the order of the query."""
    return dict(zip(row._columns.names, row._values, strict=True))
