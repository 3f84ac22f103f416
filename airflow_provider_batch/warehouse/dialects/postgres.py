"""PostgreSQL, with psycopg or psycopg2."""

from __future__ import annotations

from datetime import date, timedelta

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.warehouse import lexer, upsert, values
from airflow_provider_batch.warehouse.dialects.base import Catalogue, Dialect, ErrorPattern, ErrorPatterns, Limits
from airflow_provider_batch.warehouse.drivers.psycopg import PSYCOPG_DRIVER
from airflow_provider_batch.warehouse.read_only import ReadRules

_CATALOGUE = Catalogue(
    # and whether COPY does what an INSERT does, without triggers, rules and row security
    table="""
SELECT c.oid, n.nspname, c.relname, c.relkind,
       c.relkind = 'r' AND NOT (c.relhastriggers OR c.relhasrules OR c.relrowsecurity)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%s)""",
    # the innermost type below a domain, or the column's own type, and what the elements of a list are
    columns="""
SELECT a.attname, format_type(a.atttypid, a.atttypmod),
       a.attnotnull OR base.not_null, a.atthasdef OR a.attidentity <> '' OR base.has_default, a.attgenerated::text,
       a.attidentity::text, format_type(base.oid, base.modifier), e.typtype::text,
       ARRAY(SELECT l.enumlabel::text FROM pg_catalog.pg_enum l WHERE l.enumtypid = e.oid ORDER BY l.enumsortorder),
       CASE WHEN NOT c.collisdeterministic THEN quote_ident(n.nspname) || '.' || quote_ident(c.collname) ELSE '' END
FROM pg_catalog.pg_attribute a
CROSS JOIN LATERAL (
  WITH RECURSIVE types (oid, modifier, not_null, has_default, depth) AS (
    SELECT a.atttypid, a.atttypmod, false, false, 0
    UNION ALL
    SELECT t.typbasetype, t.typtypmod, types.not_null OR t.typnotnull, types.has_default OR t.typdefault IS NOT NULL,
           depth + 1
    FROM types JOIN pg_catalog.pg_type t ON t.oid = types.oid AND t.typtype = 'd'
  )
  SELECT oid, modifier, not_null, has_default FROM types ORDER BY depth DESC LIMIT 1
) base
JOIN pg_catalog.pg_type b ON b.oid = base.oid
JOIN pg_catalog.pg_type e ON e.oid = CASE WHEN b.typcategory = 'A' THEN b.typelem ELSE b.oid END
LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation
LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum""",
    # one row per key column of each unique index that ON CONFLICT can use
    keys="""
SELECT i.indexrelid, a.attname
FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
WHERE i.indrelid = %s AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indexrelid, a.attnum""",
    # the columns by which a table is partitioned, with NULL for an expression
    partitions="""
SELECT a.attname
FROM pg_catalog.pg_partitioned_table p
CROSS JOIN LATERAL unnest(p.partattrs) AS k (attnum)
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = k.attnum AND k.attnum > 0
WHERE p.partrelid = %s""",
    type="SELECT 1 FROM pg_catalog.pg_type WHERE oid = to_regtype(%s) AND typtype <> 'p'",
)

#: What a read-only transaction lets pass: it changes the server or other sessions, reads and writes files, opens
#: connections, or runs SQL that it gets as text. Includes the functions of PostgreSQL's own extensions.
DENIED_FUNCTIONS = "|".join(
    (
        # other sessions, the whole server
        r"pg_(?:terminate|cancel)_backend|pg_reload_conf|pg_rotate_logfile\w*|pg_logfile_rotate|pg_promote",
        r"pg_(?:try_)?advisory_\w+|pg_notify|pg_log_\w+|pg_export_snapshot|pg_nextoid|pg_stop_making_pinned_objects",
        r"pg_stat_(?:\w*reset\w*|force_next_flush)|pg_(?:clear|restore)_(?:attribute|relation|extended)_stats",
        r"set_config|setval|nextval|binary_upgrade_\w+|pg_import_system_collations|pg_extension_config_dump",
        # the write-ahead log, replication, backups
        r"pg_switch_(?:wal|xlog)|pg_create_restore_point|pg_(?:wal|xlog)_replay_(?:pause|resume)",
        r"pg_(?:backup_start|backup_stop|start_backup|stop_backup)|pg_logical_\w+|pg_\w*replication_slots?\w*",
        r"pg_replication_origin_\w+",
        # large objects, files
        r"lo_(?!get$)\w+|lowrite|pg_read_(?:binary_)?file\w*|pg_ls_\w+|pg_stat_file|pg_file_\w+|pg_current_logfile",
        # storage
        r"brin_(?:de)?summarize_\w+|gin_clean_pending_list|heap_force_\w+|pg_truncate_visibility_map",
        r"pg_buffercache_(?:evict|mark)\w*|pg_prewarm|autoprewarm_\w+",
        # SQL as text, other servers
        r"(?:query|cursor)_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table|dblink\w*|postgres_fdw_\w+",
        r"cron\.\w+|aws_\w+\.\w+|http|http_(?:get|post|put|patch|delete|head)|plan_table",
    )
)

POSTGRES = Dialect(
    name="PostgreSQL",
    conn_types=("postgres",),
    types={
        ColumnType.TEXT: "text",
        ColumnType.INTEGER: "bigint",
        ColumnType.FLOAT: "double precision",
        ColumnType.NUMERIC: "numeric",
        ColumnType.BOOLEAN: "boolean",
        ColumnType.DATE: "date",
        ColumnType.TIMESTAMP: "timestamp with time zone",
        ColumnType.LOCAL_TIMESTAMP: "timestamp without time zone",
        ColumnType.TIME: "time without time zone",
        ColumnType.INTERVAL: "interval",
        ColumnType.UUID: "uuid",
        ColumnType.JSON: "jsonb",
        ColumnType.BYTES: "bytea",
        ColumnType.VECTOR: "double precision[]",
    },
    bind={
        ColumnType.TEXT: values.text_without_nul,
        ColumnType.INTEGER: values.integer,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: values.decimal,
        ColumnType.BOOLEAN: lambda value: values.require_type(bool, value),
        ColumnType.DATE: lambda value: values.require_type(date, value),
        ColumnType.TIMESTAMP: values.to_utc,
        ColumnType.LOCAL_TIMESTAMP: values.local_timestamp,
        ColumnType.TIME: values.clock_time,
        ColumnType.INTERVAL: lambda value: values.require_type(timedelta, value),
        # psycopg2 binds a UUID only after an adapter is registered, and a text is cast
        ColumnType.UUID: values.uuid_text,
        ColumnType.JSON: values.json_text,
        ColumnType.BYTES: values.binary,
        ColumnType.VECTOR: list,
    },
    placeholder="%s",
    name_parts=("schema", "table"),
    alter_type="ALTER TABLE {table} ALTER COLUMN {column} TYPE {type};",
    drop_not_null="ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL;",
    limits=Limits(
        name_bytes=63,  # NAMEDATALEN - 1: PostgreSQL truncates longer names with no more than a notice
        text_has_nul=False,
        row_bytes=2**28 - 1,  # the longest string in jsonb; a row of COPY may have four times as many bytes
    ),
    errors=ErrorPatterns(
        absent_table=ErrorPattern(sqlstates=("42P01",)), absent_schema=ErrorPattern(sqlstates=("3F000",))
    ),
    catalogue=_CATALOGUE,
    upsert=upsert.on_conflict,
    # the cursor takes nothing but one query, in a read-only transaction
    reading=ReadRules(
        sqlglot=("postgres",), lexis=lexer.POSTGRES, denied_functions=DENIED_FUNCTIONS, runs_unparsed=True
    ),
    driver=PSYCOPG_DRIVER,
    sink="airflow_provider_batch.warehouse.sinks.postgres:PostgresSink",
)
