"""The types of the columns of an existing table, in terms that all databases share.

Each function reads a type as its database names it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a column stores."""

    #: any value, unchanged
    ANY = "any"
    #: any value of SQLite, but text that looks like a number becomes one
    NUMBER_AFFINITY = "number affinity"
    TEXT = "text"
    ENUM = "enum"
    #: a type that the database reads from text, such as a network address
    PARSED = "parsed"
    INTEGER = "integer"
    FLOAT = "float"
    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    LOCAL_TIMESTAMP = "local_timestamp"
    TIME = "time"
    INTERVAL = "interval"
    UUID = "uuid"
    JSON = "json"
    BYTES = "bytes"
    #: a vector of pgvector
    VECTOR = "vector"
    LIST = "list"
    #: a composite type, a STRUCT or a MAP
    RECORD = "record"
    OTHER = "other"


@dataclass(frozen=True, kw_only=True)
class StoredType:
    """The type of a table's column. None means unlimited."""

    kind: Kind
    #: length of a text
    characters: int | None = None
    bytes: int | None = None
    #: the smallest and the largest integer
    integers: tuple[int, int] | None = None
    #: 32 or 64, for a float
    float_bits: int | None = None
    #: digits of a numeric: all of them, and those after the decimal point
    precision: int | None = None
    scale: int | None = None
    #: digits of the seconds after the decimal point
    fraction_digits: int | None = None
    #: the values of an enum
    labels: tuple[str, ...] | None = None
    #: number of elements of a vector or an array
    elements: int | None = None
    #: largest absolute value of an element
    largest_element: float | None = None
    #: type of the elements of a list
    element: StoredType | None = None


ANY = StoredType(kind=Kind.ANY)
_OTHER = StoredType(kind=Kind.OTHER)
#: the largest number in a `halfvec`
_LARGEST_HALF = 65_504.0


_MODIFIER = re.compile(r"\(-?\d+(?:,-?\d+)?\)")


def without_modifier(type_: str) -> str:
    """Return a type without its length or precision, such as `numeric` for `numeric(12,2)`."""
    return _MODIFIER.sub("", type_)


def _integer(bits: int, *, unsigned: bool = False) -> StoredType:
    limits = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return StoredType(kind=Kind.INTEGER, integers=limits)


def _split(name: str) -> tuple[str, list[int]]:
    """Return a type's name in lower case and without its arguments, and the numbers among these."""
    arguments = re.search(r"\(([-\d, ]*)\)", name)
    numbers = [int(number) for number in arguments[1].split(",") if number.strip()] if arguments else []
    plain_name = re.sub(r"\s*\([^)]*\)", "", name) if arguments else name
    return " ".join(plain_name.lower().split()), numbers


def _numeric(arguments: Sequence[int]) -> StoredType:
    precision, scale = (*arguments, 0)[:2] if arguments else (None, None)
    return StoredType(kind=Kind.NUMERIC, precision=precision, scale=scale)


def _with_fraction(kind: Kind, arguments: Sequence[int], default: int) -> StoredType:
    return StoredType(kind=kind, fraction_digits=arguments[0] if arguments else default)


_POSTGRES: Mapping[str, StoredType] = {
    "smallint": _integer(16),
    "integer": _integer(32),
    "bigint": _integer(64),
    "real": StoredType(kind=Kind.FLOAT, float_bits=32),
    "double precision": StoredType(kind=Kind.FLOAT, float_bits=64),
    "boolean": StoredType(kind=Kind.BOOLEAN),
    "text": StoredType(kind=Kind.TEXT),
    "citext": StoredType(kind=Kind.TEXT),
    '"char"': StoredType(kind=Kind.TEXT, bytes=1),
    "name": StoredType(kind=Kind.TEXT, bytes=63),
    "uuid": StoredType(kind=Kind.UUID),
    "date": StoredType(kind=Kind.DATE),
    "interval": StoredType(kind=Kind.INTERVAL),
    "json": StoredType(kind=Kind.JSON),
    "jsonb": StoredType(kind=Kind.JSON),
    "bytea": StoredType(kind=Kind.BYTES),
    **{name: StoredType(kind=Kind.PARSED) for name in ("inet", "cidr", "macaddr", "macaddr8", "xml", "ltree")},
}


def postgres_type(name: str, type_type: str, labels: Sequence[str] | None) -> StoredType:
    """Return a type of PostgreSQL.

    :param name: as `format_type` returns it. For a domain, that of the type below it.
    :param type_type: `typtype` of the type, or of the elements of a list.
    :param labels: the values of an enum, or of a list of them.
    """
    if name.endswith("[]"):
        return StoredType(kind=Kind.LIST, element=postgres_type(name.removesuffix("[]"), type_type, labels))
    if type_type == "e":
        return StoredType(kind=Kind.ENUM, labels=tuple(labels or ()))
    if type_type == "c":
        return StoredType(kind=Kind.RECORD)
    plain_name, arguments = _split(name)
    plain_name = plain_name if plain_name.startswith('"') else plain_name.rpartition(".")[2]
    if plain_name in ("character varying", "character"):
        return StoredType(kind=Kind.TEXT, characters=arguments[0] if arguments else None)
    if plain_name == "numeric":
        return _numeric(arguments)
    for prefix, kind in (
        ("timestamp with time zone", Kind.TIMESTAMP),
        ("timestamp without time zone", Kind.LOCAL_TIMESTAMP),
        ("time without time zone", Kind.TIME),
    ):
        if plain_name == prefix:
            return _with_fraction(kind, arguments, 6)
    if plain_name in ("vector", "halfvec"):
        return StoredType(
            kind=Kind.VECTOR,
            elements=arguments[0] if arguments else None,
            largest_element=_LARGEST_HALF if plain_name == "halfvec" else None,
        )
    return _POSTGRES.get(plain_name, _OTHER)


_DUCKDB: Mapping[str, StoredType] = {
    "tinyint": _integer(8),
    "smallint": _integer(16),
    "integer": _integer(32),
    "bigint": _integer(64),
    "hugeint": _integer(128),
    "utinyint": _integer(8, unsigned=True),
    "usmallint": _integer(16, unsigned=True),
    "uinteger": _integer(32, unsigned=True),
    "ubigint": _integer(64, unsigned=True),
    "uhugeint": _integer(128, unsigned=True),
    "bignum": StoredType(kind=Kind.INTEGER),
    "float": StoredType(kind=Kind.FLOAT, float_bits=32),
    "double": StoredType(kind=Kind.FLOAT, float_bits=64),
    "boolean": StoredType(kind=Kind.BOOLEAN),
    "varchar": StoredType(kind=Kind.TEXT),
    "uuid": StoredType(kind=Kind.UUID),
    "date": StoredType(kind=Kind.DATE),
    "time": StoredType(kind=Kind.TIME),
    "timestamp": StoredType(kind=Kind.LOCAL_TIMESTAMP),
    "timestamp_s": StoredType(kind=Kind.LOCAL_TIMESTAMP, fraction_digits=0),
    "timestamp_ms": StoredType(kind=Kind.LOCAL_TIMESTAMP, fraction_digits=3),
    "timestamp_ns": StoredType(kind=Kind.LOCAL_TIMESTAMP),
    "timestamp with time zone": StoredType(kind=Kind.TIMESTAMP),
    "interval": StoredType(kind=Kind.INTERVAL),
    "json": StoredType(kind=Kind.JSON),
    "variant": StoredType(kind=Kind.JSON),
    "blob": StoredType(kind=Kind.BYTES),
}


def duckdb_type(name: str) -> StoredType:
    """Return a type of DuckDB, as its catalogue names it."""
    sized = re.fullmatch(r"(.*)\[(\d*)\]", name, re.DOTALL)
    if sized:
        return StoredType(kind=Kind.LIST, element=duckdb_type(sized[1]), elements=int(sized[2]) if sized[2] else None)
    if name.startswith("ENUM("):
        return StoredType(kind=Kind.ENUM, labels=_quoted_texts(name))
    if name.startswith(("STRUCT(", "MAP(")):
        return StoredType(kind=Kind.RECORD)
    plain_name, arguments = _split(name)
    if plain_name == "decimal":
        return _numeric(arguments)
    return _DUCKDB.get(plain_name, _OTHER)


def _quoted_texts(type_: str) -> tuple[str, ...]:
    return tuple(text.replace("''", "'") for text in re.findall(r"'((?:[^']|'')*)'", type_))


_MYSQL_INTEGER_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
_MYSQL: Mapping[str, StoredType] = {
    "tinytext": StoredType(kind=Kind.TEXT, bytes=2**8 - 1),
    "text": StoredType(kind=Kind.TEXT, bytes=2**16 - 1),
    "mediumtext": StoredType(kind=Kind.TEXT, bytes=2**24 - 1),
    "longtext": StoredType(kind=Kind.TEXT),
    "float": StoredType(kind=Kind.FLOAT, float_bits=32),
    "double": StoredType(kind=Kind.FLOAT, float_bits=64),
    "bit": StoredType(kind=Kind.BOOLEAN),
    "date": StoredType(kind=Kind.DATE),
    "uuid": StoredType(kind=Kind.UUID),
    "json": StoredType(kind=Kind.JSON),
    **{name: StoredType(kind=Kind.PARSED) for name in ("set", "inet4", "inet6")},
    **{
        name: StoredType(kind=Kind.BYTES)
        for name in ("binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob")
    },
}


def mysql_type(name: str) -> StoredType:
    """Return a type of MySQL or MariaDB, from COLUMN_TYPE."""
    if name.lower().startswith("enum("):
        return StoredType(kind=Kind.ENUM, labels=_quoted_texts(name))
    if name.lower().startswith("set("):
        return _MYSQL["set"]
    plain_name, arguments = _split(name)
    words = plain_name.split()
    unsigned = "unsigned" in words
    match words[0] if words else "":
        case "char" | "varchar":
            return StoredType(kind=Kind.TEXT, characters=arguments[0] if arguments else None)
        case "decimal":
            return _numeric(arguments)
        case "datetime":
            # stores no time zone; our timestamps are in UTC there
            return _with_fraction(Kind.LOCAL_TIMESTAMP, arguments, 0)
        case "timestamp":
            return _with_fraction(Kind.TIMESTAMP, arguments, 0)
        case "time":
            return _with_fraction(Kind.TIME, arguments, 0)
        case word if word in _MYSQL_INTEGER_BITS:
            return _integer(_MYSQL_INTEGER_BITS[word], unsigned=unsigned)
        case word:
            return _MYSQL.get(word, _OTHER)


_SQLITE_STRICT: Mapping[str, StoredType] = {
    "INT": _integer(64),
    "INTEGER": _integer(64),
    "REAL": StoredType(kind=Kind.FLOAT, float_bits=64),
    "TEXT": StoredType(kind=Kind.TEXT),
    "BLOB": StoredType(kind=Kind.BYTES),
}


def sqlite_type(name: str, *, strict: bool = False) -> StoredType:
    """Return a type of SQLite, as the table declares it.

    Only the columns of a STRICT table have a type. Those of other tables have an affinity, by the rules of
    https://www.sqlite.org/datatype3.html#determination_of_column_affinity. It changes text that looks like a number,
    and nothing else.
    """
    name = name.upper()
    if strict:
        return _SQLITE_STRICT.get(name, ANY)
    if "INT" not in name:
        if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
            return StoredType(kind=Kind.TEXT)
        if "BLOB" in name or not name:
            return ANY
    is_real = "INT" not in name and any(part in name for part in ("REAL", "FLOA", "DOUB"))
    return StoredType(kind=Kind.NUMBER_AFFINITY, float_bits=64 if is_real else None)
