"""Columns and their types, as a job and a warehouse exchange them.

A warehouse maps each `ColumnType` to a database type when it creates a table. It binds values of the Python type named
next to each member.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class ColumnType(StrEnum):
    """The type of a column. A row tuple holds a value of the Python type next to the member, or None."""

    TEXT = "text"  # str
    INTEGER = "integer"  # int, 64 bit
    FLOAT = "float"  # float
    NUMERIC = "numeric"  # decimal.Decimal
    BOOLEAN = "boolean"  # bool
    DATE = "date"  # datetime.date
    TIMESTAMP = "timestamp"  # datetime.datetime, timezone-aware, in UTC
    LOCAL_TIMESTAMP = "local_timestamp"  # datetime.datetime without a time zone
    TIME = "time"  # datetime.time without a time zone
    INTERVAL = "interval"  # datetime.timedelta
    UUID = "uuid"  # uuid.UUID
    JSON = "json"  # dict, list, str, int, float or bool: any JSON value, not encoded
    BYTES = "bytes"  # bytes
    VECTOR = "vector"  # list[float]


class Column(msgspec.Struct, frozen=True):
    """A column of a results table."""

    #: name as the caller spells it; matched case-insensitively against the columns of an existing table
    name: str
    type: ColumnType
    #: True for the columns that together identify a row
    key: bool = False
    #: whether rows without a usable answer have no value here
    may_be_null: bool = False
    #: number of elements of the vectors, if it is known before the first answer
    elements: int | None = None
    #: type of the column in the database that its values were read from, or '' if that is not recorded
    native_type: str = ""
    #: name of that database, as its dialect spells it
    database: str = ""
