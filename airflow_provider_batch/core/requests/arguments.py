"""Row arguments: resolved by Airflow, rendered by us once per row.

Airflow must know these arguments as template fields, or XComArgs, mapped arguments and `dag.param(...)` in them would
be neither resolved nor seen as dependencies. But it must not render them: their Jinja is about rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_batch.exceptions import InputError

#: endings of files that row arguments may be kept in
TEXT_FILES = (".txt", ".md", ".j2")


def is_runtime_value(value: Any) -> bool:
    """Whether a value is, or holds at any depth, something that Airflow only knows at run time."""
    if isinstance(value, dict):
        return any(is_runtime_value(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_runtime_value(inner) for inner in value)
    return hasattr(value, "iter_references") and hasattr(value, "resolve")


def resolve(value: Any, context: Any) -> Any:
    """A value with everything in it resolved that Airflow resolves at run time, at any depth, and nothing rendered."""
    if hasattr(value, "iter_references") and hasattr(value, "resolve"):
        return value.resolve(context)
    if isinstance(value, dict):
        return {key: resolve(inner, context) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(inner, context) for inner in value)
    return value


def is_file_name(value: Any) -> bool:
    """Whether an argument as the author wrote it is the name of a text file, rather than text."""
    return isinstance(value, str) and value.endswith(TEXT_FILES) and re.fullmatch(r"[\w./-]+", value) is not None


def parse_bool(name: str, value: Any) -> bool:
    """A switch that may come from a form or a template as text ("False" is not true).

    :raises InputError: for anything that is neither.
    """
    if isinstance(value, bool) or value is None:
        return bool(value)
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", "", "none"):
        return False
    raise InputError(f"{name}: {value!r} is neither true nor false.")


def none_if_blank(value: Any) -> Any:
    """The value, or None for what a form gives where nothing was filled in: blank text, an empty JSON editor."""
    return None if value == {} or (isinstance(value, str) and not value.strip()) else value


def parse_count(name: str, value: Any, most: int | None = None) -> int | None:
    """A whole number from 0 to `most` that may come from a form or a template as text; None and '' are none.

    :raises InputError: for anything else.
    """
    number = parse_number(name, value)
    if number is not None and (number != int(number) or (most is not None and number > most)):
        allowed = "of at least 0" if most is None else f"from 0 to {most}"
        raise InputError(f"{name}: {value!r} is no whole number {allowed}.")
    return None if number is None else int(number)


def parse_number(name: str, value: Any) -> float | None:
    """A positive number that may come from a form or a template as text; None and '' are none.

    :raises InputError: for anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise InputError(f"{name}: {value!r} is no amount. Give a number of at least 0.")
    return number


class TableRef(NamedTuple):
    """A table, and the connection that leads to it."""

    conn_id: str
    table: str


def parse_table(name: str, value: Any, default_conn_id: str) -> TableRef | None:
    """Return the table that an argument names, as text or as `{"conn_id": …, "table": …}`; None if it is empty.

    :raises InputError: for anything else.
    """
    place = none_if_blank(value)
    if place is None:
        return None
    parts = {"table": place} if isinstance(place, str) else dict(place) if isinstance(place, Mapping) else {}
    table, conn_id = parts.pop("table", None), parts.pop("conn_id", default_conn_id)
    if parts or not (isinstance(table, str) and table.strip() and isinstance(conn_id, str)):
        raise InputError(
            f"{name}: {place!r} names no table. Give `table`, `schema.table` or "
            '{"conn_id": …, "table": …}, or None to ask every row. Nothing was built.'
        )
    return TableRef(conn_id, table)
