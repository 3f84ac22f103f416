"""Arguments of operators as they come from a DAG, a trigger form or a template, checked and converted.

Each `parse_…` function takes the name of an argument and its value. It returns the value in the type that the rest of
the package works with, or raises InputError, which names the argument, what was expected and what was passed. Forms and
templates give text, so numbers, switches and durations are also accepted as text.

Row arguments need special care: Airflow must resolve them, but only we may render them, once per row. Airflow has to
see them as template fields. Otherwise it would not resolve the XComArgs, mapped arguments and `dag.param(...)` in them
and would not know the dependencies that these imply. But it must not render them, because their Jinja refers to rows.
"""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from typing import Any, NamedTuple

from jinja2 import Environment, TemplateSyntaxError

from airflow_provider_batch.core.schema.paths import Path
from airflow_provider_batch.exceptions import InputError

#: extensions of files that may contain a row argument
TEXT_FILES = (".txt", ".md", ".j2")
#: maximum of every whole number that has no smaller one, so that it fits into every database and computation
MAX_COUNT = 10**12
#: maximum length of the id of a connection, as in Airflow's database
MAX_CONN_ID = 250
#: maximum length of every duration
MAX_DURATION = timedelta(days=3650)

#: seconds of the units in which a duration may be written
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 604_800),
}
_DURATION_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE)
#: a duration in ISO format, such as PT1H30M or P2D, without months and years, which have no fixed length
_ISO_DURATION = re.compile(
    r"P(?=.)(?:(?P<w>\d+)W)?(?:(?P<d>\d+)D)?(?:T(?=.)(?:(?P<h>\d+)H)?(?:(?P<m>\d+)M)?(?:(?P<s>\d+(?:\.\d+)?)S)?)?"
)
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def is_runtime_value(value: Any) -> bool:
    """Return True if a value is, or contains at any depth, something that Airflow resolves only at run time."""
    if isinstance(value, dict):
        return any(is_runtime_value(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return any(is_runtime_value(item) for item in value)
    return hasattr(value, "iter_references") and hasattr(value, "resolve")


def replace_runtime_values(value: Any, replace: Callable[[Any], Any]) -> Any:
    """Return the value with `replace` applied to all run-time values in it, at any depth."""
    if hasattr(value, "iter_references") and hasattr(value, "resolve"):
        return replace(value)
    if isinstance(value, dict):
        return {key: replace_runtime_values(item, replace) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(replace_runtime_values(item, replace) for item in value)
    return value


def resolve(value: Any, context: Any) -> Any:
    """Return the value with all run-time values in it resolved, at any depth. Templates are not rendered."""
    return replace_runtime_values(value, lambda runtime_value: runtime_value.resolve(context))


def is_final(value: Any) -> bool:
    """Return True if Airflow neither resolves nor renders anything in the value of a template field."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, Mapping):
        return all(is_final(item) for item in value.values())
    if isinstance(value, (list, tuple)):
        return all(is_final(item) for item in value)
    return not is_runtime_value(value)


def is_file_name(value: Any) -> bool:
    """Return True if an argument, as its author wrote it, is the name of a text file rather than text."""
    return isinstance(value, str) and value.endswith(TEXT_FILES) and re.fullmatch(r"[\w./-]+", value) is not None


def none_if_blank(value: Any) -> Any:
    """Return None for an input that was left empty in a form (blank text, an empty JSON editor), else the value."""
    is_empty_object = isinstance(value, dict) and not value
    return None if is_empty_object or (isinstance(value, str) and not value.strip()) else value


def check_templated(arguments: object, parsers: Mapping[str, Callable[[str, Any], Any]]) -> None:
    """Check the template fields whose value is already known while the DAG is parsed, with their parsers.

    :param arguments: object that has the fields as attributes, such as an operator.
    :raises InputError: if a value is wrong.
    """
    for name, parse in parsers.items():
        check_value(name, getattr(arguments, name), parse)


def check_value(name: str, value: Any, parse: Callable[[str, Any], Any]) -> None:
    """Check the value of a template field with its parser, as far as it is already known while the DAG is parsed.

    :raises InputError: if the value is wrong.
    """
    if isinstance(value, (list, tuple, Mapping)):
        parse(name, replace_runtime_values(value, lambda _: "text"))
    elif is_final(value):
        parse(name, value)
    elif isinstance(value, str):
        check_syntax(name, value)


def parse_templated(arguments: object, parsers: Mapping[str, Callable[[str, Any], Any]]) -> None:
    """Replace the values of template fields, now that they are rendered, by what their parsers return.

    :raises InputError: if a value is wrong.
    """
    for name, parse in parsers.items():
        setattr(arguments, name, parse(name, getattr(arguments, name)))


def check_syntax(name: str, template: str) -> None:
    """Check the syntax of a template that Airflow renders. Raises InputError."""
    if "{%" in template:
        return  # the DAG may define tags of its own
    try:
        Environment(autoescape=True).parse(template)
    except TemplateSyntaxError as error:
        raise InputError(
            f"{name}: The template has a syntax error: {(error.message or 'unknown').rstrip('.')}, in "
            f"{shorten(template)}."
        ) from error


def argument_error(name: str, expected: str, value: Any) -> InputError:
    """Return the error for a value that is not what an argument expects."""
    if is_runtime_value(value):
        return InputError(
            f"{name}: Expected {expected}. This argument must be known when the DAG is parsed, so it cannot be mapped "
            "or come from another task or from the form of a run."
        )
    if isinstance(value, str) and not is_final(value):
        return InputError(
            f"{name}: Expected {expected}, got {shorten(value)}. This argument is not templated: its value must be "
            "known when the DAG is parsed."
        )
    kind = "" if value is None or isinstance(value, (str, bool)) else f" ({type(value).__name__})"
    return InputError(f"{name}: Expected {expected}, got {shorten(value)}{kind}.")


def shorten(value: Any) -> str:
    """Return a value as Python would write it, with at most about 80 characters."""
    shortened = reprlib.Repr()
    shortened.maxstring = shortened.maxother = 80
    return shortened.repr(value)


def parse_bool(name: str, value: Any, default: bool = False) -> bool:
    """Return the value of a switch, which a form or a template may give as text. None and blank text are the default.

    :raises InputError: if the value is neither true nor false.
    """
    if isinstance(value, bool):
        return value
    if value is None:
        return default
    text = str(value).strip().lower() if isinstance(value, (str, int)) else "?"
    if text in ("", "none"):
        return default
    if text not in (*_TRUE, *_FALSE):
        raise argument_error(name, "true or false", value)
    return text in _TRUE


def parse_count(name: str, value: Any, *, minimum: int = 0, maximum: int = MAX_COUNT) -> int | None:
    """Return a whole number, which a form or a template may give as text. None and blank text are None.

    :raises InputError: for anything else.
    """
    try:
        number = parse_number(name, value, minimum=minimum, maximum=maximum)
    except InputError:
        number = 0.5
    if number is not None and number != int(number):
        allowed = f"of at least {minimum}" if maximum == MAX_COUNT else f"from {minimum} to {maximum:,}"
        raise argument_error(name, f"a whole number {allowed}", value)
    return None if number is None else int(number)


def require_count(name: str, value: Any, *, minimum: int = 0, maximum: int = MAX_COUNT) -> int:
    """Return a whole number as `parse_count` does, but refuse None and blank text.

    :raises InputError: for anything else.
    """
    number = parse_count(name, value, minimum=minimum, maximum=maximum)
    if number is None:
        raise argument_error(name, f"a whole number of at least {minimum}", value)
    return number


def parse_number(name: str, value: Any, *, minimum: float = 0, maximum: float = MAX_COUNT) -> float | None:
    """Return a number, which a form or a template may give as text. None and blank text are None.

    :raises InputError: for anything else.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
        return None
    try:
        number = float("nan") if isinstance(value, (bool, bytes, bytearray)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not minimum <= number <= maximum:
        allowed = f"of at least {minimum}" if maximum == MAX_COUNT else f"from {minimum} to {maximum:,}"
        raise argument_error(name, f"a number {allowed}", value)
    return number


def require_number(name: str, value: Any, *, minimum: float = 0, maximum: float = MAX_COUNT) -> float:
    """Return a number as `parse_number` does, but refuse None and blank text.

    :raises InputError: for anything else.
    """
    number = parse_number(name, value, minimum=minimum, maximum=maximum)
    if number is None:
        raise argument_error(name, f"a number of at least {minimum}", value)
    return number


def parse_duration(name: str, value: Any, *, needs_unit: bool = False) -> timedelta | None:
    """Return a duration: a timedelta, a number of seconds, or text such as "90", "30 min", "1h 30m" or "PT1H30M".

    None and blank text are None.

    :param needs_unit: refuse plain numbers, because their unit is not obvious.
    :raises InputError: for anything else, and for a negative duration or one of more than ten years.
    """
    if none_if_blank(value) is None:
        return None
    duration: timedelta | None
    try:
        duration = _to_timedelta(value)
    except (OverflowError, ValueError):
        duration = None
    if duration is None or not timedelta(0) <= duration <= MAX_DURATION or (needs_unit and _is_plain_number(value)):
        examples = "timedelta(days=30) or '30d'" if needs_unit else "timedelta(hours=1), '1h' or 3600 (seconds)"
        raise argument_error(name, f"a duration of at least 0 and at most ten years, such as {examples}", value)
    return duration


def _is_plain_number(value: Any) -> bool:
    is_number = isinstance(value, (Real, Decimal)) and not isinstance(value, bool)
    return is_number or (isinstance(value, str) and re.fullmatch(r"\s*\d+(\.\d+)?\s*", value) is not None)


def _to_timedelta(value: Any) -> timedelta | None:
    """Return the duration, or None if the value is not one."""
    if isinstance(value, timedelta):
        return value
    if _is_plain_number(value):
        return timedelta(seconds=float(value))
    if not isinstance(value, str):
        return None
    if iso := _ISO_DURATION.fullmatch(value.strip()):
        amounts = {unit: float(amount) for unit, amount in iso.groupdict().items() if amount}
        return timedelta(seconds=sum(amount * _UNITS[unit] for unit, amount in amounts.items()))
    parts = list(_DURATION_PART.finditer(value))
    if "".join(part.group() for part in parts) != value or any(part[2].lower() not in _UNITS for part in parts):
        return None
    return timedelta(seconds=sum(float(part[1]) * _UNITS[part[2].lower()] for part in parts))


def parse_deadline(name: str, value: Any) -> timedelta | datetime:
    """Return a point in time, with its time zone (default: UTC), or a duration as in `parse_duration`.

    A point in time is a datetime or text in ISO format.

    :raises InputError: for anything else, and for a plain number of less than a minute, which was probably meant in
        another unit than seconds.
    """
    if isinstance(value, str):
        with suppress(ValueError):  # it may be a duration
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        # Airflow uses a subclass, which the ledger's records do not accept
        moment = datetime.fromisoformat(value.isoformat())
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        duration = parse_duration(name, value)
    except InputError:
        duration = None
    if duration is None or (_is_plain_number(value) and duration < timedelta(minutes=1)):
        raise argument_error(
            name,
            "a duration such as timedelta(hours=30), '30h' or 108000 (seconds, at least 60), or a date and time as a "
            "datetime or in ISO format",
            value,
        )
    return duration


def parse_text(name: str, value: Any) -> str | None:
    """Return text. None and blank text are None.

    :raises InputError: for anything else, and for text that no database or file system can hold.
    """
    return None if none_if_blank(value) is None else require_text(name, value)


def parse_location(name: str, value: Any) -> str | None:
    """Return the address of a folder, which may be a path. None and blank text are None.

    :raises InputError: for anything else.
    """
    location = parse_text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)
    if location is not None and re.match(r"(?!file:)\w{2,}:/?(?!/)", location):
        raise argument_error(name, "a path, or a URL with two slashes such as 's3://bucket/folder'", value)
    return location


def parse_table_name(name: str, value: Any) -> str | None:
    """Return the name of a table, as `schema.table` or `table`. None and blank text are None.

    :raises InputError: for anything else.
    """
    return None if none_if_blank(value) is None else require_table_name(name, value)


def require_table_name(name: str, value: Any) -> str:
    """Return the name of a table as `parse_table_name` does, but refuse None and blank text. Raises InputError."""
    table = require_text(name, value)
    if "://" in table or table != table.strip():
        raise argument_error(name, "the name of a table, such as 'analytics.answers'", value)
    return table


def require_text(name: str, value: Any, *, pattern: str | None = None) -> str:
    """Return text that is not blank.

    :param pattern: regular expression that the whole text must match. It also rules out templates.
    :raises InputError: for anything else, and for text that no database or file system can hold.
    """
    if not isinstance(value, str) or not value.strip():
        raise argument_error(name, "text that is not empty", value)
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise argument_error(name, "text without NUL characters and halves of surrogate pairs", value)
    if pattern is not None and re.fullmatch(pattern, value) is None:
        raise argument_error(name, f"text of the form {pattern}", value)
    return value


def require_conn_id(name: str, value: Any) -> str:
    """Return the id of a connection.

    :raises InputError: for anything else.
    """
    conn_id = require_text(name, value)
    if "://" in conn_id or conn_id.startswith("sk-"):
        # the value is not shown, because it may contain a password or be an API key
        raise InputError(
            f"{name}: Expected the id of an Airflow connection, such as 'warehouse', but got the address or the key "
            "itself. Create a connection with it, and pass the connection's id."
        )
    if len(conn_id) > MAX_CONN_ID or any(character.isspace() for character in conn_id):
        expected = f"the id of a connection, with at most {MAX_CONN_ID} characters and without blanks"
        raise argument_error(name, expected, value)
    return conn_id


def parse_share(name: str, value: Any, example: float) -> float:
    """Return a number between 0 and 1, without these two.

    :raises InputError: for anything else.
    """
    expected = f"a share between 0 and 1, such as {example}"
    try:
        share = parse_number(name, value, maximum=1)
    except InputError:
        share = None
    if share is None or not 0 < share < 1:
        raise argument_error(name, expected, value)
    return share


def parse_choice(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return the value, which is one of the choices.

    :raises InputError: for anything else.
    """
    if not isinstance(value, str) or value not in choices:
        quoted = [repr(choice) for choice in choices]
        raise argument_error(name, f"{', '.join(quoted[:-1])} or {quoted[-1]}", value)
    return value


def parse_names(name: str, value: Any, choices: Collection[str] | None = None) -> list[str]:
    """Return a list of names, each once. Text is a single name. None and blank text are an empty list.

    :param choices: the names that are allowed. Default: all.
    :raises InputError: for anything else.
    """
    value = none_if_blank(value)
    if value is None:
        return []
    is_single = isinstance(value, str) or not isinstance(value, Iterable) or is_runtime_value(value)
    if is_single or isinstance(value, (bytes, bytearray, memoryview, Mapping)):
        names = [value]
    else:
        names = sorted(value, key=str) if isinstance(value, (set, frozenset)) else list(value)
    for item in names:
        if not isinstance(item, str) or not item.strip() or not is_final(item):
            raise argument_error(name, "a list of names", item)
        require_text(name, item)
    if isinstance(value, str) and "," in value and choices is None:
        raise argument_error(name, "a list, with each name as an item of its own", value)
    unknown_names = [item for item in names if choices is not None and item not in choices]
    if unknown_names and choices is not None:
        raise argument_error(name, f"a list of names out of {', '.join(sorted(choices))}", unknown_names[0])
    return list(dict.fromkeys(names))


def parse_mapping(name: str, value: Any) -> dict[str, Any]:
    """Return a dict with keys that are text. None and blank text are an empty dict.

    :raises InputError: for anything else.
    """
    value = none_if_blank(value)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise argument_error(name, "a dict", value)
    for key in value:
        if not isinstance(key, str) or not key.strip():
            raise argument_error(name, "a dict whose keys are text", value)
    return dict(value)


def parse_metadata(name: str, value: Any) -> dict[str, str]:
    """Return the metadata of a batch, as text. Numbers are written as text, too.

    :raises InputError: for anything else, for more pairs than fit beside our own, and for text that is too long.
    """
    metadata = parse_mapping(name, value)
    reserved_keys = {"job_uid", "shard", "attempt", "nonce"} & set(metadata)
    if reserved_keys or len(metadata) > 12:
        raise InputError(
            f"{name}: Expected at most 12 pairs, and none with the key job_uid, shard, attempt or nonce, got "
            f"{len(metadata)} pairs: {', '.join(metadata)}. A batch can have 16 pairs, and these four keys identify it."
        )
    for key, item in metadata.items():
        is_plain = isinstance(item, (str, int, float)) and not isinstance(item, bool)
        if not is_plain or len(str(item)) > 512 or len(key) > 64:
            expected = "keys of at most 64 and values of at most 512 characters"
            raise argument_error(f"{name}[{shorten(key)}]", expected, item)
    return {key: str(item) for key, item in metadata.items()}


def parse_parameters(name: str, value: Any) -> list[Any] | dict[str, Any] | None:
    """Return the values for the placeholders of a query, as a list or a dict. None and blank text are None.

    :raises InputError: for anything else.
    """
    value = none_if_blank(value)
    if value is None:
        return None
    if isinstance(value, (list, tuple)):
        return list(value)
    if not isinstance(value, Mapping):
        raise argument_error(name, "a list or a dict of values", value)
    return parse_mapping(name, value)


class TableRef(NamedTuple):
    """A table and the Airflow connection to reach it with."""

    #: None for the connection that the job reads from
    conn_id: str | None
    table: str


def parse_table(name: str, value: Any) -> TableRef | None:
    """Return the table given as text or as `{"conn_id": …, "table": …}`, or None if the value is empty.

    :raises InputError: for anything else.
    """
    ref = none_if_blank(value)
    if ref is None:
        return None
    parts = {"table": ref} if isinstance(ref, str) else dict(ref) if isinstance(ref, Mapping) else {}
    table, conn_id = parts.pop("table", None), none_if_blank(parts.pop("conn_id", None))
    if parts or not (isinstance(table, str) and table.strip() and isinstance(conn_id, str | None)):
        raise InputError(
            f"{name}: Expected a table, got {shorten(ref)}. No request was built or sent. "
            'Give "table", "schema.table" or {"conn_id": …, "table": …}, or None to send every row.'
        )
    return TableRef(conn_id, require_table_name(name, table))


def parse_columns(value: Any) -> dict[str, Path]:
    """Return the paths into the output by column, from a mapping, a list of names, one name, or nothing.

    A name stands for the column of that name and for the path that is spelled like it.

    :raises InputError: for anything else.
    """
    if is_runtime_value(value):
        raise argument_error("columns", "names of fields, or paths by column", value)
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
        raise InputError(_columns_error(f"got {shorten(value)}"))
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
