"""Columns and their types: the language between a job and a warehouse.

A warehouse maps each `ColumnType` to its own type when it creates a table, and binds values of the Python type
named beside each member.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ColumnType(StrEnum):
    """What a column holds, and the Python values that a row tuple carries for it (or None)."""

    TEXT = "text"  # str
    INTEGER = "integer"  # int, 64 bit
    FLOAT = "float"  # float
    NUMERIC = "numeric"  # decimal.Decimal
    BOOLEAN = "boolean"  # bool
    DATE = "date"  # datetime.date
    TIMESTAMP = "timestamp"  # datetime.datetime, aware, UTC
    JSON = "json"  # dict, list, str, int, float, bool: any JSON value, not yet encoded
    BYTES = "bytes"  # bytes
    VECTOR = "vector"  # list[float]


class Column(msgspec.Struct, frozen=True):
    """One column of a results table."""

    #: as the caller spells it; matched case-insensitively against a table that exists
    name: str
    type: ColumnType
    #: True for the columns that together name a row
    key: bool = False
