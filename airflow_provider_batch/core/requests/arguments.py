"""Arguments as they come from a DAG, a trigger form or a template.

Row arguments need special care: Airflow must resolve them, but only we may render them, once per row. Airflow has to
see them as template fields. Otherwise it would not resolve the XComArgs, mapped arguments and `dag.param(...)` in them
and would not know the dependencies that these imply. But it must not render them, because their Jinja refers to rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_batch.core.schema.paths import Path
from airflow_provider_batch.exceptions import InputError

#: extensions of files that may contain a row argument
TEXT_FILES = (".txt", ".md", ".j2")


def is_runtime_value(value: Any) -> bool:
    """Return True if a value is, or contains at any depth, something that Airflow resolves only at run time."""
    if isinstance(value, dict):
        return any(is_runtime_value(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_runtime_value(item) for item in value)
    return hasattr(value, "iter_references") and hasattr(value, "resolve")


def resolve(value: Any, context: Any) -> Any:
    """Return the value with all run-time values in it resolved, at any depth. Templates are not rendered."""
    if hasattr(value, "iter_references") and hasattr(value, "resolve"):
        return value.resolve(context)
    if isinstance(value, dict):
        return {key: resolve(item, context) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(resolve(item, context) for item in value)
    return value


def is_file_name(value: Any) -> bool:
    """Return True if an argument, as its author wrote it, is the name of a text file rather than text."""
    return isinstance(value, str) and value.endswith(TEXT_FILES) and re.fullmatch(r"[\w./-]+", value) is not None


def none_if_blank(value: Any) -> Any:
    """Return None for an input that was left empty in a form (blank text, an empty JSON editor), else the value."""
    return None if value == {} or (isinstance(value, str) and not value.strip()) else value


def parse_bool(name: str, value: Any) -> bool:
    """Return the value of a switch, which a form or a template may give as text. "False" and None are False.

    :raises InputError: if the value is neither true nor false.
    """
    if isinstance(value, bool) or value is None:
        return bool(value)
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off", "", "none"):
        return False
    raise InputError(f"{name}: Expected true or false, got {value!r}.")


def parse_count(name: str, value: Any, maximum: int | None = None) -> int | None:
    """Return a whole number from 0 to `maximum`, which a form or a template may give as text. None and "" are None.

    :raises InputError: for anything else.
    """
    number = parse_number(name, value)
    if number is not None and (number != int(number) or (maximum is not None and number > maximum)):
        allowed = "of at least 0" if maximum is None else f"from 0 to {maximum:,}"
        raise InputError(f"{name}: Expected a whole number {allowed}, got {value!r}.")
    return None if number is None else int(number)


def parse_number(name: str, value: Any) -> float | None:
    """Return a number of at least 0, which a form or a template may give as text. None and "" are None.

    :raises InputError: for anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if isinstance(value, bool) or not 0 <= number < float("inf"):
        raise InputError(f"{name}: Expected a number of at least 0, got {value!r}.")
    return number


class TableRef(NamedTuple):
    """A table and the Airflow connection to reach it with."""

    conn_id: str
    table: str


def parse_table(name: str, value: Any, default_conn_id: str) -> TableRef | None:
    """Return the table given as text or as `{"conn_id": …, "table": …}`, or None if the value is empty.

    :raises InputError: for anything else.
    """
    ref = none_if_blank(value)
    if ref is None:
        return None
    parts = {"table": ref} if isinstance(ref, str) else dict(ref) if isinstance(ref, Mapping) else {}
    table, conn_id = parts.pop("table", None), parts.pop("conn_id", default_conn_id)
    if parts or not (isinstance(table, str) and table.strip() and isinstance(conn_id, str)):
        raise InputError(
            f"{name}: Expected a table, got {ref!r}. No request was built or sent. "
            'Give "table", "schema.table" or {"conn_id": …, "table": …}, or None to send every row.'
        )
    return TableRef(conn_id, table)


def parse_columns(value: Any) -> dict[str, Path]:
    """Return the paths into the output by column, from a mapping, a list of names, one name, or nothing.

    A name stands for the column of that name and for the path that is spelled like it.

    :raises InputError: for anything else.
    """
    if is_runtime_value(value):
        raise InputError("columns: The columns must be known when the DAG is parsed, so no other task can give them.")
    if value is None or isinstance(value, str):
        value = [] if none_if_blank(value) is None else [value]
    if isinstance(value, (list, tuple)):
        for name in value:
            if not isinstance(name, str):
                raise InputError(_columns_error(f"{name!r} in the list is not a name"))
        repeated = [name for name in value if value.count(name) > 1]
        if repeated:
            raise InputError(_columns_error(f"{repeated[0]!r} is in the list more than once"))
        value = dict(zip(value, value, strict=True))
    if not isinstance(value, Mapping):
        raise InputError(_columns_error(f"got {value!r}"))
    for name, path in value.items():
        if not isinstance(name, str) or not name.strip():
            raise InputError(_columns_error(f"{name!r} cannot be the name of a column"))
        if not _is_path(path):
            raise InputError(_columns_error(f"{path!r}, for column {name!r}, is not a path"))
    return {name: path if isinstance(path, str) else tuple(path) for name, path in value.items()}


def _is_path(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(type(part) in (str, int) for part in value)
    return isinstance(value, str)


def _columns_error(problem: str) -> str:
    return (
        f'columns: Expected names of fields, such as ["category", "score"], or paths by column, such as '
        f'{{"city": "address.city", "score": ["v1.0", "score"]}}, but {problem}.'
    )
