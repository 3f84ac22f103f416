"""Databases without a sink of their own: what they accept, and how their hooks and drivers differ.

None of these dialects has been run against its database. Each is derived from the source of the hook and its driver:
providers snowflake 6.20, amazon 9.39, databricks 7.23, trino 6.7, oracle 4.7, microsoft-mssql 4.7 and google 22.8. Only
the Trino and MSSQL hooks declare how to talk to their databases (`placeholder`, `escape_word_format`). The others keep
Airflow's defaults, `%s` and `"`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import values
from airflow_provider_batch.warehouse.dialects import postgres
from airflow_provider_batch.warehouse.dialects.base import Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.drivers.base import DATABRICKS_DRIVER, ORACLE_DRIVER
from airflow_provider_batch.warehouse.drivers.psycopg import REDSHIFT_DRIVER
from airflow_provider_batch.warehouse.read_only import ReadRules

#: Type names that most databases know. For a database that lacks one of them, the user creates the table.
_TYPES: Mapping[ColumnType, str] = {
    ColumnType.TEXT: "TEXT",
    ColumnType.INTEGER: "BIGINT",
    ColumnType.FLOAT: "DOUBLE PRECISION",
    ColumnType.NUMERIC: "NUMERIC(38, 12)",
    ColumnType.BOOLEAN: "BOOLEAN",
    ColumnType.DATE: "DATE",
    ColumnType.TIMESTAMP: "TIMESTAMP",
    ColumnType.LOCAL_TIMESTAMP: "TIMESTAMP",
    # several databases have no type for the next three, or one that drivers cannot bind
    ColumnType.TIME: "VARCHAR(32)",
    ColumnType.INTERVAL: "VARCHAR(64)",
    ColumnType.UUID: "VARCHAR(36)",
    ColumnType.JSON: "TEXT",
    ColumnType.BYTES: "BLOB",
    ColumnType.VECTOR: "TEXT",
}


def to_naive_utc(value: Any) -> datetime:
    """Return a timestamp in UTC without its time zone, parsed from what the driver returned if necessary."""
    parsed = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return values.to_utc(parsed).replace(tzinfo=None)


def to_date(value: Any) -> date:
    """Return a date, parsed from what the driver returned if necessary."""
    return value if type(value) is date else date.fromisoformat(str(value)[:10])


#: functions that change something, reach other servers, or run SQL that they get as text
_DENIED_FUNCTIONS = "|".join(
    (
        postgres.DENIED_FUNCTIONS,
        # Snowflake
        r"system\$(?!typeof$|clustering_|stream_|last_change)\w+",
        # SQL Server
        r"openrowset|openquery|opendatasource",
        # Oracle
        r"utl_\w+\.\w+|dbms_(?!lob$|random$|utility$|crypto$)\w+\.(?!substr$|getlength$|instr$)\w+|httpuritype",
        # Trino
        r"system\.(?:query|execute)",
        # Databricks
        r"(?:try_)?reflect|java_method",
    )
)


#: SQL Server separates statements by nothing but spaces: SELECT 1 DELETE FROM t. All of these words are reserved there.
_STATEMENT_WORDS = frozenset(
    {
        *(
            "alter",
            "backup",
            "bulk",
            "commit",
            "create",
            "dbcc",
            "declare",
            "delete",
            "deny",
            "drop",
            "exec",
            "execute",
        ),
        *("grant", "insert", "kill", "reconfigure", "restore", "revoke", "rollback", "shutdown", "truncate", "update"),
        *("updatetext", "waitfor", "writetext"),
    }
)


def _reading(sqlglot: str, statement_words: frozenset[str] = frozenset()) -> ReadRules:
    return ReadRules(sqlglot=(sqlglot,), denied_functions=_DENIED_FUNCTIONS, statement_words=statement_words)


#: dialects with empty quotation marks and placeholder take those of the hook
GENERIC = Dialect(
    name="this database",
    conn_types=(),
    reading=_reading("", _STATEMENT_WORDS),
    types=_TYPES,
    # several databases do not allow TEXT in a key
    key_text="VARCHAR(512)",
    bind={
        ColumnType.TEXT: values.text,
        ColumnType.INTEGER: int,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: values.decimal,
        ColumnType.BOOLEAN: bool,
        ColumnType.DATE: to_date,
        ColumnType.TIMESTAMP: to_naive_utc,
        ColumnType.LOCAL_TIMESTAMP: values.local_timestamp,
        ColumnType.TIME: values.clock_iso,
        ColumnType.INTERVAL: values.iso_duration,
        ColumnType.UUID: values.uuid_text,
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: values.json_text,
    },
    marks="",
    placeholder="",
    follows_hook=True,
    limits=Limits(numeric_scale=12),
    errors=ErrorPatterns(
        absent_table=ErrorPattern(sqlstates=("42S02",)),  # ODBC's code, which many drivers use
        # Snowflake returns ODBC's code for missing and inaccessible tables alike; its message mentions both
        hidden_table=ErrorPattern(message=r"(?i)authori[sz]ed|permission|privilege"),
    ),
)


def _types(text: str, **overrides: str) -> Mapping[ColumnType, str]:
    texts = dict.fromkeys((ColumnType.TEXT, ColumnType.JSON, ColumnType.VECTOR), text)
    return {**_TYPES, **texts, **{ColumnType[name.upper()]: type_ for name, type_ in overrides.items()}}


def _absent_table(message: str) -> ErrorPatterns:
    return ErrorPatterns(absent_table=ErrorPattern(message=message))


SNOWFLAKE = replace(
    GENERIC,
    name="Snowflake",
    savepoint="",
    conn_types=("snowflake",),
    reading=_reading("snowflake"),
    types=_types("TEXT", bytes="BINARY"),
    folds_to_upper=True,
    limits=replace(GENERIC.limits, text_bytes=16_777_216),
)

REDSHIFT = replace(
    GENERIC,
    name="Redshift",
    savepoint="",
    conn_types=("redshift",),
    reading=_reading("redshift"),
    # in Redshift TEXT is VARCHAR(256), https://docs.aws.amazon.com/redshift/latest/dg/r_Character_types.html
    types=_types("VARCHAR(65535)", bytes="VARBYTE(1000000)"),
    bind={**GENERIC.bind, ColumnType.TEXT: values.text_without_nul},
    limits=replace(GENERIC.limits, text_has_nul=False, text_bytes=65_535),
    errors=_absent_table(r"\b42P01\b"),
)

#: Redshift through the postgres hook. It has no ON CONFLICT and does not enforce keys.
REDSHIFT_OVER_POSTGRES = replace(
    REDSHIFT, conn_types=("postgres",), extra_flags=("redshift", "redshift-serverless"), driver=REDSHIFT_DRIVER
)

SQL_SERVER = replace(
    GENERIC,
    name="SQL Server",
    savepoint="SAVE TRANSACTION batch_rows",
    rollback_to_savepoint="ROLLBACK TRANSACTION batch_rows",
    conn_types=("mssql",),
    reading=_reading("tsql", _STATEMENT_WORDS),
    # in SQL Server TIMESTAMP is a row version
    types=_types(
        "NVARCHAR(MAX)", boolean="BIT", timestamp="DATETIME2(6)", local_timestamp="DATETIME2(6)", bytes="VARBINARY(MAX)"
    ),
    # without this collation 'a' and 'A' would be the same key
    key_text="NVARCHAR(450) COLLATE Latin1_General_100_BIN2",
    errors=_absent_table(r"\bInvalid object name\b"),
)

ORACLE = replace(
    GENERIC,
    name="Oracle",
    conn_types=("oracle",),
    reading=_reading("oracle"),
    types=_types(
        "CLOB", integer="NUMBER(19)", boolean="NUMBER(1)", timestamp="TIMESTAMP(6)", local_timestamp="TIMESTAMP(6)"
    ),
    key_text="VARCHAR2(512 CHAR)",
    # the driver cannot bind True and False
    bind={**GENERIC.bind, ColumnType.BOOLEAN: int},
    placeholder=":",
    folds_to_upper=True,
    # Oracle reports a missing table and an inaccessible one with the same error
    errors=ErrorPatterns(hidden_table=ErrorPattern(message="ORA-00942")),
    driver=ORACLE_DRIVER,
)

TRINO = replace(
    GENERIC,
    name="Trino",
    savepoint="",
    conn_types=("trino",),
    reading=_reading("trino"),
    types=_types(
        "VARCHAR",
        float="DOUBLE",
        numeric="DECIMAL(38, 12)",
        timestamp="TIMESTAMP(6)",
        local_timestamp="TIMESTAMP(6)",
        bytes="VARBINARY",
    ),
    key_text="VARCHAR",
    declares_key=False,
    transactions=False,
    errors=_absent_table(r"\bTABLE_NOT_FOUND\b"),
)

DATABRICKS = replace(
    GENERIC,
    name="Databricks",
    savepoint="",
    conn_types=("databricks",),
    reading=_reading("databricks"),
    types=_types("STRING", float="DOUBLE", numeric="DECIMAL(38, 12)", bytes="BINARY"),
    key_text="STRING",
    marks="``",
    placeholder="?",
    declares_key=False,
    transactions=False,
    errors=_absent_table(r"\bTABLE_OR_VIEW_NOT_FOUND\b"),
    driver=DATABRICKS_DRIVER,
)

#: BigQuery's cursor inserts values into the SQL text, takes them only by name, and runs a separate job for each row
BIGQUERY = replace(
    GENERIC,
    name="BigQuery",
    conn_types=("gcpbigquery",),
    reading=_reading("bigquery"),
    marks="``",
    writable=False,
    errors=_absent_table(r"\bNot found: Table\b"),
)
