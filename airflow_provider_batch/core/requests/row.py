"""A row as templates see it: its columns and nothing else."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.exceptions import InputError

#: maximum number of column names in an error message
_MAX_NAMES = 40


class UnknownColumnError(LookupError):
    """Raised for a name that matches no column, or several. The message is a complete sentence."""


class Columns:
    """The column names of a job's rows, in order.

    A name must match a column exactly, or case-insensitively if only one column matches that way: warehouses fold the
    case of unquoted names, some to upper case, some to lower case.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Raise InputError if two columns have exactly the same name, since a template could not tell them apart."""
        self.names = tuple(names)
        self._exact: dict[str, int] = {}
        self._by_folded_name: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            if name in self._exact:
                raise InputError(f"There are two columns named {name!r}. Give each its own name.")
            self._exact[name] = index
            self._by_folded_name.setdefault(name.casefold(), []).append(index)

    def index(self, name: Any) -> int:
        """Return the position of a column in the row tuple. Raises UnknownColumnError."""
        if not isinstance(name, str):
            raise UnknownColumnError(
                f"row[{name!r}] is not a column: columns can only be accessed by name. {self._describe_names()}"
            )
        position = self._exact.get(name)
        if position is not None:
            return position
        matches = self._by_folded_name.get(name.casefold(), [])
        if len(matches) == 1:
            return matches[0]
        if matches:
            choices = ", ".join(repr(self.names[index]) for index in matches)
            raise UnknownColumnError(
                f"The column name {name!r} is ambiguous: the columns include {choices}. Use one of these spellings."
            )
        similar = difflib.get_close_matches(name.casefold(), self._by_folded_name, n=1)
        hint = f" Did you mean {self.names[self._by_folded_name[similar[0]][0]]!r}?" if similar else ""
        raise UnknownColumnError(
            f"There is no column {name!r}.{hint} {self._describe_names()} (`row` has only columns, no methods.)"
        )

    def _describe_names(self) -> str:
        if not self.names:
            return "The rows have no columns."
        names = ", ".join(self.names[:_MAX_NAMES])
        remaining = len(self.names) - _MAX_NAMES
        return f"The columns are {names}{f' and {remaining:,} more' if remaining > 0 else ''}."


class Row:
    """The variable `row` of a template. A template cannot reach any attribute of this object.

    The template environment resolves both `row.name` and `row['name']` with `lookup`. Columns named `items`, `get`,
    `values` or `_id` therefore work as columns, and `row.__class__` is a column that does not exist.
    """

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: Columns, values: Sequence[Any]) -> None:
        self._columns = columns
        self._values = values

    def __repr__(self) -> str:
        # `'%s' % row` and filters such as `pprint` call this. The address of an object would differ in every run.
        from airflow_provider_batch.core.requests.value import to_json_text  # imports this module

        return to_json_text(self)


def lookup(row: Row, name: Any) -> Any:
    """Return the value of a column. Raises UnknownColumnError."""
    return row._values[row._columns.index(name)]


def row_to_dict(row: Row) -> dict[str, Any]:
    """Return the row as a dict of column name to value, in the order of the columns."""
    return dict(zip(row._columns.names, row._values, strict=True))
