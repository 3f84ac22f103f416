"""Which columns of an existing table can store the values of ours, and which values they cannot store.

A column fits if it stores every value of its type unchanged, if necessary after a cast, or if the values that it cannot
store are refused and not changed. Those values are described by `ColumnLimits`, so that each costs its row only.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_batch.core.landing.storage_limits import ColumnLimits, TextFormat
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.stored_types import Kind, StoredType

#: The kinds of columns that store values of each of our types. Text that a column reads as something else is cast.
STORES: Mapping[ColumnType, frozenset[Kind]] = {
    ColumnType.TEXT: frozenset(
        {Kind.TEXT, Kind.ENUM, Kind.UUID, Kind.PARSED, Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.LOCAL_TIMESTAMP}
    ),
    ColumnType.INTEGER: frozenset({Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.TEXT}),
    ColumnType.FLOAT: frozenset({Kind.FLOAT, Kind.NUMERIC, Kind.TEXT}),
    ColumnType.NUMERIC: frozenset({Kind.NUMERIC, Kind.FLOAT, Kind.TEXT}),
    ColumnType.BOOLEAN: frozenset({Kind.BOOLEAN, Kind.INTEGER, Kind.TEXT}),
    ColumnType.DATE: frozenset({Kind.DATE, Kind.LOCAL_TIMESTAMP, Kind.TIMESTAMP, Kind.TEXT}),
    ColumnType.TIMESTAMP: frozenset({Kind.TIMESTAMP, Kind.LOCAL_TIMESTAMP, Kind.TEXT}),
    ColumnType.LOCAL_TIMESTAMP: frozenset({Kind.LOCAL_TIMESTAMP, Kind.TEXT}),
    ColumnType.TIME: frozenset({Kind.TIME, Kind.TEXT}),
    ColumnType.INTERVAL: frozenset({Kind.INTERVAL, Kind.TEXT}),
    ColumnType.UUID: frozenset({Kind.UUID, Kind.TEXT}),
    ColumnType.JSON: frozenset({Kind.JSON, Kind.LIST, Kind.RECORD, Kind.TEXT}),
    ColumnType.BYTES: frozenset({Kind.BYTES}),
    ColumnType.VECTOR: frozenset({Kind.VECTOR, Kind.LIST, Kind.JSON, Kind.TEXT}),
}

#: characters of the longest text that a value of a type becomes
_TEXT_SIZES = {
    ColumnType.BOOLEAN: len("false"),
    ColumnType.DATE: len("2026-11-29"),
    ColumnType.TIME: len("12:00:00.000000"),
    ColumnType.LOCAL_TIMESTAMP: len("2026-11-29T12:00:00.000000"),
    ColumnType.TIMESTAMP: len("2026-11-29T12:00:00.000000+00:00"),
    ColumnType.UUID: 36,
}

_TEXT_FORMATS: Mapping[Kind, TextFormat] = {
    Kind.INTEGER: "integer",
    Kind.NUMBER_AFFINITY: "integer",
    Kind.DATE: "date",
    Kind.TIME: "time",
    Kind.TIMESTAMP: "timestamp",
    Kind.LOCAL_TIMESTAMP: "local timestamp",
    Kind.UUID: "uuid",
}


def problem_of(column: Column, stored: StoredType, *, boolean_characters: int = len("false")) -> str:
    """Return why a table's column cannot store the values of ours, or '' if it can.

    The text completes "it gets float values, ...".

    :param boolean_characters: length of the text that the database makes of true and false.
    """
    kind, type_ = stored.kind, column.type
    if kind is Kind.ANY:
        return ""
    if kind is Kind.NUMBER_AFFINITY and (type_ is not ColumnType.TEXT or column.key):
        return ""
    if type_ is ColumnType.TEXT and column.key and kind is Kind.INTEGER:
        return ""
    if kind not in STORES[type_]:
        return _loss(type_, kind)
    if type_ in (ColumnType.FLOAT, ColumnType.NUMERIC):
        if stored.scale is not None and stored.scale <= 0:
            return "which would be rounded"
        if stored.float_bits == 32:
            return "which would be rounded to about 7 digits"
    if type_ is ColumnType.VECTOR and kind is Kind.LIST and not _stores_floats(stored.element):
        return "whose elements would be rounded or refused"
    is_sized = column.elements is not None and stored.elements is not None
    if type_ is ColumnType.VECTOR and is_sized and column.elements != stored.elements:
        return (
            f'with {column.elements:,} elements. Change the column, or set body={{"dimensions": {stored.elements}}} in '
            "BatchSubmitOperator if the model can shorten its embeddings"
        )
    size = boolean_characters if type_ is ColumnType.BOOLEAN else _TEXT_SIZES.get(type_, 0)
    if kind is Kind.TEXT and stored.characters is not None and stored.characters < size:
        return f"which need {size} characters"
    return ""


def _loss(type_: ColumnType, kind: Kind) -> str:
    if kind is Kind.INTEGER and type_ in (ColumnType.FLOAT, ColumnType.NUMERIC):
        return "which would be rounded"
    if type_ in (ColumnType.TIMESTAMP, ColumnType.LOCAL_TIMESTAMP):
        if kind is Kind.DATE:
            return "whose time of day would be lost"
        if kind is Kind.TIME:
            return "whose date would be lost"
        if kind is Kind.TIMESTAMP:
            return "which have no time zone, so the points in time would be guesses"
    return "which it does not store"


def _stores_floats(element: StoredType | None) -> bool:
    if element is None or element.kind is Kind.FLOAT:
        return True
    return element.kind is Kind.NUMERIC and element.scale is None


def limits_of(column: Column, stored: StoredType) -> ColumnLimits:
    """Return which values of our column the table's column, which fits, cannot store."""
    type_, kind = column.type, stored.kind
    if type_ is ColumnType.TEXT:
        return ColumnLimits(
            characters=stored.characters,
            bytes=stored.bytes,
            labels=stored.labels,
            format=_TEXT_FORMATS.get(kind),
            fraction_digits=stored.fraction_digits,
        )
    if type_ in (ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.NUMERIC):
        if kind is Kind.TEXT:
            return ColumnLimits(characters=stored.characters, bytes=stored.bytes)
        # SQLite turns a numeric that needs more than 64 bits, and is sent as text, into a float
        float_bits = 64 if kind is Kind.NUMBER_AFFINITY and type_ is ColumnType.NUMERIC else stored.float_bits
        return ColumnLimits(
            integers=None if type_ is ColumnType.INTEGER and _takes_64_bits(stored) else stored.integers,
            digits=(stored.precision, stored.scale or 0) if stored.precision is not None else None,
            float_bits=float_bits if type_ is not ColumnType.FLOAT else None,
        )
    if type_ in (ColumnType.TIMESTAMP, ColumnType.LOCAL_TIMESTAMP, ColumnType.TIME):
        return ColumnLimits(fraction_digits=stored.fraction_digits)
    if type_ is ColumnType.VECTOR:
        return ColumnLimits(elements=stored.elements, largest_element=stored.largest_element)
    if type_ is ColumnType.JSON and kind is Kind.LIST:
        return ColumnLimits(
            is_list=True,
            elements=stored.elements,
            element=_limits_of_element(stored.element) if stored.element is not None else None,
        )
    if type_ in (ColumnType.JSON, ColumnType.BYTES) and kind is Kind.TEXT:
        return ColumnLimits(characters=stored.characters, bytes=stored.bytes)
    return ColumnLimits()


def _takes_64_bits(stored: StoredType) -> bool:
    return stored.integers is not None and stored.integers[0] <= -(2**63) and stored.integers[1] >= 2**63 - 1


def _limits_of_element(element: StoredType) -> ColumnLimits:
    """Return what the elements of a list in a JSON document must be."""
    if element.kind is Kind.LIST:
        return limits_of(Column("", ColumnType.JSON), element)
    if element.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT):
        return limits_of(Column("", ColumnType.NUMERIC), element)
    return limits_of(Column("", ColumnType.TEXT), element)
