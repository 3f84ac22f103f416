"""Databases without a sink of their own: what they take, and where their hooks and drivers differ.

None of these was run. Each entry was read from the source of the hook and of its driver: providers snowflake 6.20,
amazon 9.39, databricks 7.23, trino 6.7, oracle 4.7, microsoft-mssql 4.7 and google 22.8. Only the Trino and MSSQL hooks
say how to talk to their databases (`placeholder`, `escape_word_format`); the others leave `%s` and `"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.dialects.base import Dialect, Errors, Limits, Sign
from airflow_provider_batch.warehouse.drivers.base import DATABRICKS_DRIVER, ORACLE_DRIVER
from airflow_provider_batch.warehouse.drivers.psycopg import PSYCOPG_DRIVER

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


def moment(value: Any) -> datetime:
    """Return a moment in UTC without its time zone, from whatever a driver gives for one."""
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return values.utc(parsed).replace(tzinfo=None)


def day(value: Any) -> date:
    """Return a date, from whatever a driver gives for one."""
    return value if type(value) is date else date.fromisoformat(str(value)[:10])


#: entries without quotation marks and placeholder take those of the hook
GENERIC = Dialect(
    name="this database",
    conn_types=(),
    types=_TYPES,
    # several databases cannot make a TEXT part of a key
    key_text="VARCHAR(512)",
    bind={
        ColumnType.TEXT: values.text,
        ColumnType.INTEGER: int,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: values.decimal,
        ColumnType.BOOLEAN: bool,
        ColumnType.DATE: day,
        ColumnType.TIMESTAMP: moment,
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: values.json_text,
    },
    marks="",
    placeholder="",
    follows_hook=True,
    limits=Limits(numeric_scale=12),
    errors=Errors(
        absent_table=Sign(states=("42S02",)),  # ODBC's code, which many drivers use
        # Snowflake gives ODBC's code for both, and says so.
        hidden_table=Sign(words=r"(?i)authori[sz]ed|permission|privilege"),
    ),
)


def _types(text: str, **others: str) -> Mapping[ColumnType, str]:
    texts = dict.fromkeys((ColumnType.TEXT, ColumnType.JSON, ColumnType.VECTOR), text)
    return {**_TYPES, **texts, **{ColumnType[name.upper()]: type_ for name, type_ in others.items()}}


def _absent(words: str) -> Errors:
    return Errors(absent_table=Sign(words=words))


SNOWFLAKE = replace(
    GENERIC, name="Snowflake", conn_types=("snowflake",), types=_types("TEXT", bytes="BINARY"), upper=True
)

REDSHIFT = replace(
    GENERIC,
    name="Redshift",
    conn_types=("redshift",),
    # TEXT is VARCHAR(256) there, https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html
    types=_types("VARCHAR(65535)", bytes="VARBYTE(1000000)"),
    bind={**GENERIC.bind, ColumnType.TEXT: values.text_without_nul},
    limits=replace(GENERIC.limits, text_has_nul=False),
    errors=_absent(r"\b42P01\b"),
)

#: through the postgres hook. Redshift has no ON CONFLICT and enforces no keys.
REDSHIFT_OVER_POSTGRES = replace(
    REDSHIFT, conn_types=("postgres",), extra_flags=("redshift", "redshift-serverless"), driver=PSYCOPG_DRIVER
)

SQL_SERVER = replace(
    GENERIC,
    name="SQL Server",
    conn_types=("mssql",),
    # TIMESTAMP is the version of a row there
    types=_types("NVARCHAR(MAX)", boolean="BIT", timestamp="DATETIME2(6)", bytes="VARBINARY(MAX)"),
    # without this collation 'a' and 'A' are one key
    key_text="NVARCHAR(450) COLLATE Latin1_General_100_BIN2",
    errors=_absent(r"\bInvalid object name\b"),
)

ORACLE = replace(
    GENERIC,
    name="Oracle",
    conn_types=("oracle",),
    types=_types("CLOB", integer="NUMBER(19)", boolean="NUMBER(1)", timestamp="TIMESTAMP(6)"),
    key_text="VARCHAR2(512 CHAR)",
    # its driver does not know True and False
    bind={**GENERIC.bind, ColumnType.BOOLEAN: int},
    placeholder=":",
    upper=True,
    # It never tells an absent table from a hidden one.
    errors=Errors(hidden_table=Sign(words="ORA-00942")),
    driver=ORACLE_DRIVER,
)

TRINO = replace(
    GENERIC,
    name="Trino",
    conn_types=("trino",),
    types=_types("VARCHAR", float="DOUBLE", numeric="DECIMAL(38, 12)", timestamp="TIMESTAMP(6)", bytes="VARBINARY"),
    key_text="VARCHAR",
    declares_key=False,
    transactions=False,
    errors=_absent(r"\bTABLE_NOT_FOUND\b"),
)

DATABRICKS = replace(
    GENERIC,
    name="Databricks",
    conn_types=("databricks",),
    types=_types("STRING", float="DOUBLE", numeric="DECIMAL(38, 12)", bytes="BINARY"),
    key_text="STRING",
    marks="``",
    placeholder="?",
    declares_key=False,
    transactions=False,
    errors=_absent(r"\bTABLE_OR_VIEW_NOT_FOUND\b"),
    driver=DATABRICKS_DRIVER,
)

#: Its cursor puts values into the SQL itself, takes them by name only, and makes each row a job of its own.
BIGQUERY = replace(
    GENERIC,
    name="BigQuery",
    conn_types=("gcpbigquery",),
    marks="``",
    writable=False,
    errors=_absent(r"\bNot found: Table\b"),
)
