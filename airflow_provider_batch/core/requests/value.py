"""Warehouse values as text in a prompt and as JSON in a request body.

Request bodies are written as canonical JSON, so that identical requests have identical bytes and therefore the same
hash: no whitespace, UTF-8, and sorted keys at every level except inside JSON Schemas. The order of keys in a schema is
part of the request: "outputs will be produced in the same order as the ordering of keys in the schema" (OpenAI's guide
"Structured model outputs", section "Key ordering"). A schema that puts the reasons before the verdict must keep them
in that order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.core.requests.row import Row, row_to_dict

#: keys of a request body whose value is a JSON Schema: of the output, or of a function's arguments
SCHEMA_KEYS = frozenset({"schema", "parameters"})

_encode_plain = msgspec.json.Encoder(decimal_format="number").encode
#: types whose values are neither nested nor need a check
SCALARS = frozenset({str, int, bool, type(None)})
_BINARY = (bytes, bytearray, memoryview)


class UnusableValueError(ValueError):
    """Raised for a value that cannot be part of a request.

    `value` is the offending object itself; the renderer compares it with the values of the row to name the column.
    """

    def __init__(self, value: Any, message: str) -> None:
        super().__init__(message)
        self.value = value


def to_text(value: Any) -> str:
    """Return a value as it appears inside text: None as "", lists and dicts as JSON, everything else by `str()`.

    Raises UnusableValueError for binary values, and for functions and generators, which only a mistake in a template
    can produce.
    """
    if type(value) is str:
        return value
    if value is None:
        return ""
    if type(value) is int:
        return str(value)
    if isinstance(value, (Mapping, list, tuple, Row)):
        return to_json_text(value)
    reject_binary(value)
    reject_unprintable(value)
    return str(value)


def reject_unprintable(value: Any) -> None:
    """Raise UnusableValueError for a value whose text would differ from run to run, or that contains one.

    Such a text holds the address of an object, or the items of a set in any order. The request hash would change, and
    its answer would be paid for again.
    """
    if type(value) in SCALARS:
        return
    if isinstance(value, Mapping):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            reject_unprintable(item)
    elif isinstance(value, (set, frozenset)):
        raise UnusableValueError(value, "The value is a set, which has no order. Add the filter `| sort`.")
    elif callable(value):
        raise UnusableValueError(value, "The value is a function or method. Did you forget to call it with ()?")
    elif isinstance(value, Iterator):
        raise UnusableValueError(value, "The value is a generator. Add the filter `| list` or `| join`.")
    elif _shows_address(type(value)):
        raise UnusableValueError(value, f"A value of type {type(value).__name__} has no text form.")


def _shows_address(kind: Any) -> bool:
    return kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__


def to_json_text(value: Any) -> str:
    """Return a value as JSON text, with its keys in their original order. Raises UnusableValueError."""
    try:
        return _encode(to_json_value(value, sort=False)).decode()
    except RecursionError as error:
        raise _nested_too_deeply(value) from error


def _nested_too_deeply(value: Any) -> UnusableValueError:
    return UnusableValueError(
        value, "The value is nested too deeply to be written as JSON. Flatten it in the SQL, or leave the row out."
    )


def reject_binary(value: Any) -> Any:
    """Return the value unchanged. Raises UnusableValueError if it is binary (bytes, bytearray or memoryview)."""
    if isinstance(value, _BINARY):
        raise UnusableValueError(
            value,
            f"The value is binary ({type(value).__name__}). Convert it to text in the SQL or in rows, with a "
            "cast or as base64.",
        )
    return value


def to_json_value(value: Any, *, sort: bool) -> Any:
    """Return the value built only from dict, list, str, int, float, bool, None and Decimal.

    Dates, times and UUIDs become ISO text. Decimals stay numbers and keep all their digits. With `sort`, the keys of
    objects are sorted, except inside JSON Schemas. Raises UnusableValueError for anything that JSON cannot express.
    """
    if type(value) in SCALARS:
        return value
    if isinstance(value, Mapping):
        return {
            key: to_json_value(value[key], sort=sort and key not in SCHEMA_KEYS)
            for key in ordered_keys(value, sort=sort)
        }
    if isinstance(value, (list, tuple)):
        return [to_json_value(item, sort=sort) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UnusableValueError(value, f"JSON cannot represent the number {value}.")
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UnusableValueError(value, f"JSON cannot represent the number {value}.")
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Row):
        return to_json_value(row_to_dict(value), sort=sort)
    reject_binary(value)
    raise UnusableValueError(
        value,
        f"A value of type {type(value).__name__} cannot be written as JSON. "
        "Convert it to text or a number in the SQL, or use a template filter.",
    )


def ordered_keys(mapping: Mapping[Any, Any], *, sort: bool) -> list[str]:
    """Return the keys of a JSON object, sorted if `sort` is true. Raises UnusableValueError if a key is not a str."""
    for key in mapping:
        if not isinstance(key, str):
            raise UnusableValueError(mapping, f"The key {key!r} is not a string. Keys of JSON objects must be strings.")
    return sorted(mapping) if sort else list(mapping)


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON of a value, as the module docstring defines it.

    Raises UnusableValueError, also for text that UTF-8 cannot encode.
    """
    if type(value) in SCALARS:
        return _encode(value)
    try:
        return _encode(to_json_value(value, sort=True))
    except RecursionError as error:
        raise _nested_too_deeply(value) from error


def canonical_json_of_all(values: Sequence[Any]) -> list[bytes]:
    """Return the canonical JSON of each value. Raises the same errors as `canonical_json`."""
    if SCALARS.issuperset(map(type, values)):
        with suppress(UnicodeEncodeError):
            return list(map(_encode_plain, values))
    return list(map(canonical_json, values))


def _encode(value: Any) -> bytes:
    try:
        return _encode_plain(value)
    except UnicodeEncodeError as error:
        raise UnusableValueError(
            value,
            "The text contains half of a surrogate pair, which UTF-8 cannot encode. It was cut or decoded "
            "incorrectly before it reached the warehouse. Repair it there, or exclude the row.",
        ) from error


def has_lone_surrogate(value: Any) -> bool:
    """Return True for text that UTF-8 cannot encode because it contains half of a surrogate pair."""
    if not isinstance(value, str) or value.isascii():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def is_blank(value: Any) -> bool:
    """Return True for None, for empty values, and for text that consists only of whitespace."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or (isinstance(value, (Mapping, list, tuple)) and not value)
