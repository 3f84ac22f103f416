"""A value of the warehouse, as text in a prompt and as JSON in a body.

The body of a request is written in one canonical way, so that equal questions have equal bytes and one hash:
no spaces, UTF-8, keys sorted at every level, except inside JSON Schemas. There the order is part of the
question: "outputs will be produced in the same order as the ordering of keys in the schema" (OpenAI's guide
"Structured model outputs", section "Key ordering"), and a schema that asks for the reasons before the verdict
must not be turned around.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.requests.row import Row, as_dict

#: keys of a body whose value is a JSON Schema: of an output, of a function's arguments
SCHEMA_KEYS = frozenset({"schema", "parameters"})

_encode_plain = msgspec.json.Encoder(decimal_format="number").encode
_SCALARS = frozenset({str, int, bool, type(None)})
_BINARY = (bytes, bytearray, memoryview)


class UnusableError(ValueError):
    """A value that has no place in a request. `value` is the culprit itself: its column is found by it."""

    def __init__(self, value: Any, message: str) -> None:
        super().__init__(message)
        self.value = value


def text(value: Any) -> str:
    """A value inside text: None is '', lists and dicts are JSON, the rest is `str()`.

    Raises UnusableError for bytes, and for methods and generators, which only a slip in a template gives.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, (Mapping, list, tuple, Row)):
        return json_text(value)
    not_binary(value)
    if callable(value):
        raise UnusableError(value, "the value is a function or method. Are its parentheses () missing?")
    if isinstance(value, Iterator):
        raise UnusableError(value, "the value is a generator. Add the filter `| list` or `| join`.")
    return str(value)


def json_text(value: Any) -> str:
    """A value as JSON inside text, its keys in their own order. Raises UnusableError."""
    return _encoded(as_json(value, sort=False)).decode()


def not_binary(value: Any) -> Any:
    """The value, unless it is bytes of some kind: then UnusableError."""
    if isinstance(value, _BINARY):
        raise UnusableError(
            value,
            f"the value is binary ({type(value).__name__}). Make text of it in the SQL: a cast, or base64.",
        )
    return value


def as_json(value: Any, *, sort: bool) -> Any:
    """The same value made of dict, list, str, int, float, bool, None and Decimal alone.

    Dates, times and UUIDs become ISO text; Decimals stay numbers with all their digits. With `sort` the keys
    are sorted (see the head of this module). Raises UnusableError for anything that JSON does not have.
    """
    if type(value) in _SCALARS:
        return value
    if isinstance(value, Mapping):
        return {key: as_json(value[key], sort=sort and key not in SCHEMA_KEYS) for key in keys(value, sort=sort)}
    if isinstance(value, (list, tuple)):
        return [as_json(item, sort=sort) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnusableError(value, f"the number {value} does not exist in JSON.")
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UnusableError(value, f"the number {value} does not exist in JSON.")
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Row):
        return as_json(as_dict(value), sort=sort)
    not_binary(value)
    raise UnusableError(
        value,
        f"a {type(value).__name__} is no JSON value. Make it text or a number in the SQL, or use a filter.",
    )


def keys(mapping: Mapping[Any, Any], *, sort: bool) -> list[str]:
    """The keys of a JSON object in their canonical order. Raises UnusableError for one that is no str."""
    for key in mapping:
        if not isinstance(key, str):
            raise UnusableError(mapping, f"the key {key!r} is no text, as keys of JSON objects are.")
    return sorted(mapping) if sort else list(mapping)


def canonical(value: Any) -> bytes:
    """The canonical JSON of a value. Raises UnusableError, also for text that UTF-8 cannot express."""
    if type(value) not in _SCALARS:
        value = as_json(value, sort=True)
    return _encoded(value)


def _encoded(value: Any) -> bytes:
    try:
        return _encode_plain(value)
    except UnicodeEncodeError as error:
        raise UnusableError(
            value,
            "the text has half of a surrogate pair, which UTF-8 cannot express. It was cut or decoded "
            "wrongly before it reached the warehouse: repair it there, or leave the row out.",
        ) from error


def is_broken(value: Any) -> bool:
    """Text that UTF-8 cannot express."""
    if not isinstance(value, str) or value.isascii():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_blank(value: Any) -> bool:
    """None, empty, or text of nothing but whitespace."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, (Mapping, list, tuple)) and not value)
