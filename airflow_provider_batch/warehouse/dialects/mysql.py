"""MySQL (8.0.17 and newer) and MariaDB, with mysqlclient or mysql-connector-python."""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import lexer, upsert, values
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.drivers.mysql import MYSQL_DRIVER
from airflow_provider_batch.warehouse.read_only import ReadRules

#: columns of information_schema: https://dev.mysql.com/doc/refman/8.4/en/information-schema.html
_CATALOGUE = Catalogue(
    table="""
SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.TABLE_TYPE, t.ENGINE, e.TRANSACTIONS, @@lower_case_table_names
FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE
WHERE t.TABLE_SCHEMA = coalesce(%s, database()) AND lower(t.TABLE_NAME) = lower(%s)""",
    columns="""
SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA, CHARACTER_SET_NAME, COLLATION_NAME
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION""",
    keys="""
SELECT INDEX_NAME, COLUMN_NAME, SUB_PART
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0
ORDER BY INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX""",
    partitions="""
SELECT DISTINCT coalesce(PARTITION_EXPRESSION, ''), coalesce(SUBPARTITION_EXPRESSION, '')
FROM information_schema.PARTITIONS
WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND PARTITION_NAME IS NOT NULL""",
)

#: What a read-only transaction lets pass: locks, files of the server, replication, keys, and functions of well-known
#: plugins that run commands or SQL.
_DENIED_FUNCTIONS = "|".join(
    (
        r"get_lock|release_lock|release_all_locks|service_(?:get|release)_\w*locks?|load_file|nextval|setval",
        r"sys_(?:exec|eval|set)|spider_\w+|mroonga_command|keyring_key_(?:generate|store|remove)",
        r"(?:asynchronous_connection_failover|group_replication|audit_log|mysql_firewall|version_tokens|wsrep)_\w+",
        r"set_firewall_mode|gen_dictionary_(?:load|drop)|masking_dictionary_\w+|master_pos_wait|source_pos_wait",
    )
)


def _float(value: Any) -> float | None:
    number = float(value)
    return number if number - number == 0 else None


def _numeric(value: Any) -> str | None:
    number = values.decimal(value)
    return format(number, "f") if number.is_finite() else None


MYSQL = Dialect(
    name="MySQL",
    conn_types=("mysql",),
    types={
        ColumnType.TEXT: "LONGTEXT CHARACTER SET utf8mb4",
        ColumnType.INTEGER: "BIGINT",
        ColumnType.FLOAT: "DOUBLE",
        ColumnType.NUMERIC: "DECIMAL(65, 20)",
        ColumnType.BOOLEAN: "BOOLEAN",
        ColumnType.DATE: "DATE",
        ColumnType.TIMESTAMP: "DATETIME(6)",
        ColumnType.LOCAL_TIMESTAMP: "DATETIME(6)",
        ColumnType.TIME: "TIME(6)",
        # TIME ends at 838 hours
        ColumnType.INTERVAL: "VARCHAR(64)",
        ColumnType.UUID: "CHAR(36)",
        ColumnType.JSON: "JSON",
        ColumnType.BYTES: "LONGBLOB",
        ColumnType.VECTOR: "JSON",
    },
    bind={
        ColumnType.TEXT: values.text,
        ColumnType.INTEGER: values.integer,
        ColumnType.FLOAT: _float,
        ColumnType.NUMERIC: _numeric,
        ColumnType.BOOLEAN: lambda value: int(values.require_type(bool, value)),
        ColumnType.DATE: date.isoformat,
        ColumnType.TIMESTAMP: lambda value: values.to_utc(value).replace(tzinfo=None).isoformat(" ", "microseconds"),
        ColumnType.LOCAL_TIMESTAMP: lambda value: values.local_timestamp(value).isoformat(" ", "microseconds"),
        ColumnType.TIME: values.clock_iso,
        ColumnType.INTERVAL: values.iso_duration,
        ColumnType.UUID: values.uuid_text,
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: values.json_text,
    },
    # Compared byte by byte. Three such columns fit into one key. The sink queries the server for a better collation.
    key_text="VARCHAR(250) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    marks="``",
    placeholder="%s",
    name_parts=("database", "table"),
    alter_type="ALTER TABLE {table} MODIFY {column} {type};",
    drop_not_null="ALTER TABLE {table} MODIFY {column} {type} NULL;",
    renames_across_schemas=True,
    limits=Limits(
        name_code_point=0xFFFF,
        key_bytes=3072,  # the limit of an InnoDB index
        numeric_scale=20,
        float_has_nan=False,
        float_has_infinity=False,
        boolean_characters=1,
    ),
    errors=ErrorPatterns(
        absent_table=ErrorPattern(sqlstates=("42S02",)),
        absent_schema=ErrorPattern(codes=(1049,)),
        no_default_schema=ErrorPattern(sqlstates=("3D000",)),
        table_exists=ErrorPattern(codes=(1050,)),
    ),
    catalogue=_CATALOGUE,
    upsert=upsert.on_duplicate_key,
    # the server takes one statement at a time, in a read-only transaction
    reading=ReadRules(sqlglot=("mysql",), lexis=lexer.MYSQL, denied_functions=_DENIED_FUNCTIONS, runs_unparsed=True),
    driver=MYSQL_DRIVER,
    sink="airflow_provider_batch.warehouse.sinks.mysql:MySqlSink",
)
