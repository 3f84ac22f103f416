"""DuckDB 2.0 or newer, with DuckDB's own driver."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from uuid import UUID

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import lexer, upsert, values
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.drivers.duckdb import DUCKDB_DRIVER
from airflow_provider_batch.warehouse.read_only import QUERY_WORDS, ReadRules

_CATALOGUE = Catalogue(
    table="""
SELECT database_name, schema_name, table_name, false FROM duckdb_tables()
WHERE lower(database_name) = lower(coalesce($database, current_database()))
  AND lower(schema_name) = lower(coalesce($schema, current_schema())) AND lower(table_name) = lower($table)
UNION ALL
SELECT database_name, schema_name, view_name, true FROM duckdb_views()
WHERE lower(database_name) = lower(coalesce($database, current_database()))
  AND lower(schema_name) = lower(coalesce($schema, current_schema())) AND lower(view_name) = lower($table)""",
    columns="""
SELECT column_name, data_type, NOT is_nullable, column_default IS NULL FROM duckdb_columns()
WHERE (database_name, schema_name, table_name) = (?, ?, ?) ORDER BY column_index""",
    keys="""
SELECT constraint_column_names FROM duckdb_constraints()
WHERE (database_name, schema_name, table_name) = (?, ?, ?) AND constraint_type IN ('PRIMARY KEY', 'UNIQUE')
ORDER BY constraint_type""",
    # an expression is a column name, quoted where SQL requires it, or anything else in parentheses
    indexes="""
SELECT CAST(expressions AS VARCHAR[]) FROM duckdb_indexes()
WHERE (database_name, schema_name, table_name) = (?, ?, ?) AND is_unique ORDER BY index_oid""",
)

#: What a read-only transaction lets pass: it changes the instance or its log, writes the file, runs SQL that it gets as
#: text, or takes an address in memory. Includes the functions of well-known extensions.
_DENIED_FUNCTIONS = "|".join(
    (
        r"(?:force_)?checkpoint|write_log|truncate_duckdb_logs|(?:enable|disable)_\w+|setseed|setval|nextval",
        r"(?:create|register|deregister|destroy)_external_resource\w*|import_database|copy_database|set_config",
        r"query|json_execute_serialized_sql|from_substrait\w*|(?:sqlite|postgres|mysql|mssql)_(?:attach|execute|query)",
        r"pandas_scan|arrow_scan\w*|python_arrow_scan|python_map_function|seq_scan|load_aws_credentials",
        r"http_(?:post|put|patch|delete)\w*|ducklake_(?:add|cleanup|delete|expire|flush|merge|rewrite|set)\w*",
    )
)

DUCKDB = Dialect(
    name="DuckDB",
    conn_types=("duckdb",),
    types={
        ColumnType.TEXT: "VARCHAR",
        ColumnType.INTEGER: "BIGINT",
        ColumnType.FLOAT: "DOUBLE",
        # The widest type. 12 digits after the decimal point are enough for the price of one token.
        ColumnType.NUMERIC: "DECIMAL(38,12)",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "DATE",
        ColumnType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
        ColumnType.LOCAL_TIMESTAMP: "TIMESTAMP",
        ColumnType.TIME: "TIME",
        ColumnType.INTERVAL: "INTERVAL",
        ColumnType.UUID: "UUID",
        ColumnType.JSON: "JSON",
        ColumnType.BYTES: "BLOB",
        ColumnType.VECTOR: "DOUBLE[]",
    },
    # decimals, JSON and vectors are bound as text, which DuckDB casts without losing digits
    bind={
        ColumnType.TEXT: values.text,
        ColumnType.INTEGER: values.integer,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: lambda value: str(values.decimal(value)),
        ColumnType.BOOLEAN: lambda value: values.require_type(bool, value),
        ColumnType.DATE: lambda value: values.require_type(date, value),
        ColumnType.TIMESTAMP: lambda value: values.to_utc(values.require_type(datetime, value)),
        ColumnType.LOCAL_TIMESTAMP: values.local_timestamp,
        ColumnType.TIME: values.clock_time,
        ColumnType.INTERVAL: lambda value: values.require_type(timedelta, value),
        ColumnType.UUID: lambda value: values.require_type(UUID, value),
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: values.json_text,
    },
    name_parts=("database", "schema", "table"),
    alter_type="ALTER TABLE {table} ALTER COLUMN {column} TYPE {type};",
    drop_not_null="ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL;",
    limits=Limits(numeric_scale=12),
    errors=ErrorPatterns(
        absent_table=ErrorPattern(message=r"^Catalog Error: Table with name .* does not exist"),
        absent_schema=ErrorPattern(message="Schema with name"),
    ),
    catalogue=_CATALOGUE,
    upsert=upsert.on_conflict,
    # DuckDB's own parser, which the driver calls, and a read-only transaction decide
    reading=ReadRules(
        sqlglot=("duckdb",),
        lexis=lexer.DUCKDB,
        denied_functions=_DENIED_FUNCTIONS,
        query_words=(*QUERY_WORDS, "PIVOT", "UNPIVOT", "SUMMARIZE", "DESCRIBE", "SHOW"),
        into_writes=False,  # UNPIVOT ... INTO NAME ... VALUE
        runs_unparsed=True,
    ),
    driver=DUCKDB_DRIVER,
    sink="airflow_provider_batch.warehouse.sinks.duckdb:DuckdbSink",
)
