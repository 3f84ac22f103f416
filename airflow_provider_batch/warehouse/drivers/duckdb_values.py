"""DuckDB's values as templates see them, read from DuckDB's own text.

DuckDB's driver loses the months of an interval, nanoseconds and infinity, and rounds a FLOAT. The query is therefore
wrapped in another one that returns the text of such columns. A nested column is returned twice: as text, from which
DuckDB restores it exactly, and as a Python value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_batch.core.schema.native import NativeValue, json_value
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.drivers.base import RowReader, to_tuple
from airflow_provider_batch.warehouse.naming import quote

#: types whose text is read instead of the driver's value, with the function that converts it
_TEXT_TYPES: Mapping[str, Callable[[str], Any]] = {
    "DATE": values.date_or_text,
    "TIMESTAMP": values.timestamp_or_text,
    "TIMESTAMP_S": values.timestamp_or_text,
    "TIMESTAMP_MS": values.timestamp_or_text,
    "TIMESTAMP_NS": values.timestamp_or_text,
    "TIMESTAMP WITH TIME ZONE": values.timestamp_or_text,
    "TIME": values.time_or_text,
    "TIME_NS": values.time_or_text,
    "TIME WITH TIME ZONE": values.time_or_text,
    "INTERVAL": str,
    "FLOAT": float,
    "BIT": str,
    "BIGNUM": str,
}
_NESTED = re.compile(r"(?:STRUCT|MAP|UNION|TUPLE)\(.*|.*\]|VARIANT", re.DOTALL)
#: parts of a nested value that the driver loses or cannot return
_LOSSY_PARTS = re.compile(r"\b(?:DATE|TIME\w*|INTERVAL|FLOAT|BIT|BIGNUM|UNION|VARIANT)\b")
#: Types whose text inside a nested value cannot be read back: that of a UNION does not name the member, and that of
#: JSON is not quoted. Such values travel as JSON.
_JSON_PARTS = re.compile(r"\b(?:UNION|JSON)\b")

#: name and type of a column
Column = tuple[str, str]


def native_text(type_: str, name: str) -> str:
    """Return the expression for a column's exact text."""
    return f"CAST(to_json({name}) AS VARCHAR)" if _JSON_PARTS.search(type_) else f"CAST({name} AS VARCHAR)"


def from_native_text(type_: str, name: str) -> str:
    """Return the expression that restores the value of `native_text`."""
    return f"CAST(CAST({name} AS JSON) AS {type_})" if _JSON_PARTS.search(type_) else f"CAST({name} AS {type_})"


def exact_query(sql: str, columns: Sequence[Column]) -> str:
    """Return a query with the same rows and columns as `sql`, and the texts of its nested columns after them."""
    if not any(type_ in _TEXT_TYPES or _NESTED.fullmatch(type_) for _, type_ in columns):
        return sql
    aliases = [f"c{index}" for index in range(len(columns))]
    expressions = []
    for alias, (name, type_) in zip(aliases, columns, strict=True):
        expression = alias
        if type_ in _TEXT_TYPES:
            expression = native_text(type_, alias)
        elif _NESTED.fullmatch(type_) and _LOSSY_PARTS.search(type_):
            expression = f"CAST(to_json({alias}) AS VARCHAR)"
        expressions.append(f"{expression} AS {quote(name)}")
    expressions += [
        native_text(type_, alias)
        for alias, (_, type_) in zip(aliases, columns, strict=True)
        if _NESTED.fullmatch(type_)
    ]
    return f"SELECT {', '.join(expressions)} FROM (\n{sql}\n) AS t({', '.join(aliases)})"


def row_reader(columns: Sequence[Column]) -> RowReader:
    """Return a function that reads the rows of `exact_query`."""
    types = [type_ for _, type_ in columns]
    converters = {index: _TEXT_TYPES[type_] for index, type_ in enumerate(types) if type_ in _TEXT_TYPES}
    converters |= {index: json_value for index, type_ in enumerate(types) if type_ == "JSON"}
    nested = [index for index, type_ in enumerate(types) if _NESTED.fullmatch(type_)]
    if not converters and not nested:
        return to_tuple

    def read(row: Any) -> tuple[Any, ...]:
        cells = list(row[: len(types)])
        for index, convert in converters.items():
            if cells[index] is not None:
                cells[index] = convert(cells[index])
        for index, text in zip(nested, row[len(types) :], strict=True):
            if cells[index] is not None:
                cells[index] = _nested(types[index], cells[index], text)
        return tuple(cells)

    return read


def _nested(type_: str, value: Any, text: str) -> NativeValue:
    if _LOSSY_PARTS.search(type_):
        value = json_value(value).value
    return NativeValue(value, text)
