"""What databases without a sink of their own take, and what their hooks give, where that differs from the common.

None of these was run. Each line is read from the source of the hook and of its driver: providers snowflake 6.20, amazon
9.39, databricks 7.23, trino 6.7, oracle 4.7, microsoft-mssql 4.7 and google 22.8. Only the Trino and MSSQL hooks say
how their databases are to be spoken to (`placeholder`, `escape_word_format`); the others leave `%s` and `"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse.connect import is_redshift, speaks

#: names that most databases know; where one does not, create the table beforehand
_TYPES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "TEXT",
    ColumnType.INTEGER: "BIGINT",
    ColumnType.FLOAT: "DOUBLE PRECISION",
    ColumnType.NUMERIC: "NUMERIC(38, 12)",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.DATE: "DATE",
    ColumnType.TIMESTAMP: "TIMESTAMP",
    ColumnType.JSON: "TEXT",
    ColumnType.BYTES: "BLOB",
    ColumnType.VECTOR: "TEXT",
}


@dataclass(frozen=True)
class Dialect:
    """How one database is spoken to."""

    #: types of columns that are created
    types: Mapping[ColumnType, str] = field(default_factory=lambda: _TYPES)
    #: of a text in a key: several databases cannot make a TEXT one
    key_text: str = "VARCHAR(512)"
    #: the driver's placeholder; '' for that of the hook, ':' for :1, :2 and so on
    placeholder: str = ""
    #: quotation marks of identifiers; '' for those of the hook
    marks: str = ""
    #: unquoted names are upper case there, so a table is created that way
    upper: bool = False
    #: CREATE TABLE takes a PRIMARY KEY
    declares_key: bool = True
    #: what was written before an error is rolled back
    transactions: bool = True
    #: a driver that knows True and False
    booleans: bool = True
    #: rows can be written one by one
    writable: bool = True


def _types(text: str, **others: str) -> Mapping[ColumnType, str]:
    texts = dict.fromkeys((ColumnType.TEXT, ColumnType.JSON, ColumnType.VECTOR), text)
    return {**_TYPES, **texts, **{ColumnType[name.upper()]: type_ for name, type_ in others.items()}}


#: by connection type
DIALECTS = {
    "snowflake": Dialect(_types("TEXT", bytes="BINARY"), upper=True),
    # TEXT is VARCHAR(256) there, https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html
    "redshift": Dialect(_types("VARCHAR(65535)", bytes="VARBYTE(1000000)")),
    # TIMESTAMP is the version of a row there; without this collation 'a' and 'A' are one key
    "mssql": Dialect(
        _types("NVARCHAR(MAX)", boolean="BIT", timestamp="DATETIME2(6)", bytes="VARBINARY(MAX)"),
        key_text="NVARCHAR(450) COLLATE Latin1_General_100_BIN2",
    ),
    "oracle": Dialect(
        _types("CLOB", integer="NUMBER(19)", boolean="NUMBER(1)", timestamp="TIMESTAMP(6)"),
        key_text="VARCHAR2(512 CHAR)",
        placeholder=":",
        upper=True,
        booleans=False,
    ),
    "trino": Dialect(
        _types("VARCHAR", float="DOUBLE", numeric="DECIMAL(38, 12)", timestamp="TIMESTAMP(6)", bytes="VARBINARY"),
        key_text="VARCHAR",
        declares_key=False,
        transactions=False,
    ),
    "databricks": Dialect(
        _types("STRING", float="DOUBLE", numeric="DECIMAL(38, 12)", bytes="BINARY"),
        key_text="STRING",
        placeholder="?",
        marks="``",
        declares_key=False,
        transactions=False,
    ),
    # Its cursor puts values into the SQL itself, takes them by name only, and makes each row a job of its own.
    "gcpbigquery": Dialect(marks="``", writable=False),
}


def dialect_of(hook: DbApiHook) -> Dialect:
    """How the database of this hook is spoken to. What the connection's extra says comes first."""
    name = next((name for name in DIALECTS if speaks(hook, name)), "")
    found = DIALECTS["redshift"] if is_redshift(hook) else DIALECTS.get(name, Dialect())
    extra = hook.connection_extra
    return replace(
        found,
        placeholder=hook.placeholder if "placeholder" in extra else found.placeholder or hook.placeholder,
        marks=hook.escape_word_format if "escape_word_format" in extra or not found.marks else found.marks,
    )
