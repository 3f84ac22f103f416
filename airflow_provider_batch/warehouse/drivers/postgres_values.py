"""PostgreSQL's values as templates see them, read from the server's own text.

psycopg and psycopg2 convert many types differently, lose the months of an interval, and raise an error for values that
Python does not have (`infinity`, years before 1 and after 9999). Both drivers are therefore set to return the text of
all types but the simplest ones, and the functions here convert it. What Python cannot hold exactly stays the server's
text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from airflow_provider_batch.core.schema.native import NativeValue, json_value
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.stored_types import without_modifier

#: Make the text of values independent of what the role or database sets. Only the output of values depends on these
#: settings, except that DateStyle keeps the order of day and month in which texts are read.
SETTINGS = (
    "SELECT set_config('DateStyle', 'ISO', true), set_config('IntervalStyle', 'postgres', true), "
    "set_config('extra_float_digits', '1', true), set_config('bytea_output', 'hex', true)"
)

#: OIDs of the types that both drivers convert exactly: bool, bytea, "char", name, int8, int2, int4, text, oid, float4,
#: float8, unknown, bpchar, varchar, numeric, uuid
_DRIVER_TYPES = frozenset({16, 17, 18, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1042, 1043, 1700, 2950})
#: all types that PostgreSQL itself defines have lower OIDs; both drivers return the text of the others
_FIRST_USER_OID = 16384
TEXT_TYPES_QUERY = (
    f"SELECT oid FROM pg_catalog.pg_type WHERE oid < {_FIRST_USER_OID} "
    f"AND oid NOT IN ({', '.join(map(str, sorted(_DRIVER_TYPES)))})"
)

_TOKENS = {
    delimiter: re.compile(rf'"((?:[^"\\]|\\.)*)"|([{{}}])|([^{{}}{delimiter}"]+)', re.DOTALL) for delimiter in ",;"
}

Converter = Callable[[str], Any]


def converter_of(type_: str) -> Converter | None:
    """Return the function that converts the text of a type, or None if templates see the text itself."""
    name = without_modifier(type_)
    if name in ("json", "jsonb"):
        return json_value
    if name.endswith("[]"):
        element = _ELEMENTS.get(name[:-2], str)
        token = _TOKENS[";" if name == "box[]" else ","]
        return lambda text: _array(text, element, token)
    return _CONVERTERS.get(name)


def _array(text: str, convert: Converter, token: re.Pattern[str]) -> NativeValue:
    """Return an array as nested lists, or its text if it has other bounds than 1 to n (`[0:1]={a,b}`)."""
    if not text.startswith("{"):
        return NativeValue(text, text)
    return NativeValue(_elements(token.finditer(text, 1), convert), text)


def _elements(tokens: Iterator[re.Match[str]], convert: Converter) -> list[Any]:
    elements: list[Any] = []
    for token in tokens:
        quoted, brace, word = token.groups()
        if brace == "}":
            break
        if brace == "{":
            elements.append(_elements(tokens, convert))
        elif quoted is not None:
            elements.append(convert(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)))
        elif word is not None:
            elements.append(None if word == "NULL" else convert(word))
    return elements


_CONVERTERS: dict[str, Converter] = {
    "uuid": lambda value: UUID(str(value)),  # psycopg2 returns text
    "date": values.date_or_text,
    "timestamp without time zone": values.timestamp_or_text,
    "timestamp with time zone": values.timestamp_or_text,
    "time without time zone": values.time_or_text,
    "time with time zone": values.time_or_text,
}
#: the same for the elements of arrays, which the drivers do not convert
_ELEMENTS: dict[str, Converter] = {
    **_CONVERTERS,
    "boolean": lambda text: text == "t",
    "smallint": int,
    "integer": int,
    "bigint": int,
    "oid": int,
    "real": lambda text: _finite_or_text(float(text), text),
    "double precision": lambda text: _finite_or_text(float(text), text),
    "numeric": lambda text: _finite_or_text(Decimal(text), text),
}


def _finite_or_text(number: float | Decimal, text: str) -> float | Decimal | str:
    """Return the number, or the text of NaN and infinity, which the JSON of a list cannot hold."""
    return number if math.isfinite(number) else text
