"""The results table is created, accepted as it is, or refused with the statements that fix it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.sinks.duckdb import DuckdbSink
from airflow_provider_batch.warehouse.sinks.generic import GenericSink
from airflow_provider_batch.warehouse.sinks.mysql import MySqlSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from airflow_provider_batch.warehouse.sinks.postgres import PostgresSink
from airflow_provider_batch.warehouse.sinks.sqlite import SqliteSink
from tests.warehouse.conftest import KNOWS_KEYS, Warehouse, postgres_warehouse
from tests.warehouse.landing import COLUMNS, land, landed_rows, row, with_column

CREATE_RESULTS = (
    "CREATE TABLE results (custom_id {text_key_type}, outcome text, output {text_key_type}, job_uid text, "
    "sealed_at {timestamp_type}{more_sql})"
)

knows_keys = pytest.mark.parametrize("warehouse", KNOWS_KEYS, indirect=True)


def create_results(warehouse: Warehouse, more_sql: str = "", **types: str) -> None:
    sql = CREATE_RESULTS.format(
        timestamp_type=warehouse.timestamp_type, text_key_type=warehouse.text_key_type, more_sql=more_sql
    )
    for column, type_ in types.items():
        sql = sql.replace(f" {column} {warehouse.text_key_type},", f" {column} {type_},")
    warehouse.execute(sql)


def allowed_name(warehouse: Warehouse, name: str) -> str:
    """Return the name as far as the database allows it: MySQL has no characters beyond U+FFFF in names."""
    return name.removesuffix(" 🎈") if warehouse.is_mysql else name


def refusal(warehouse: Warehouse, columns: tuple[Column, ...] = COLUMNS, **options: Any) -> str:
    """Return the error message with which preparing the table fails."""
    with pytest.raises(ResultsTableError) as exc_info:
        open_sink(warehouse.hook, "results", columns, **options).prepare()
    assert not exc_info.value.retry
    text = str(exc_info.value)
    assert "'results'" in text
    assert "'warehouse'" in text
    return text


def test_each_warehouse_gets_its_own_sink(warehouse: Warehouse) -> None:
    kinds = {
        "sqlite": SqliteSink,
        "duckdb": DuckdbSink,
        "generic": GenericSink,
        "mysqlclient": MySqlSink,
        "mysql_connector": MySqlSink,
    }
    assert type(open_sink(warehouse.hook, "results", COLUMNS)) is kinds.get(warehouse.dialect, PostgresSink)


def test_redshift_behind_the_postgres_hook_gets_the_generic_sink(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.database is not None
    redshift = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, redshift=True)
    assert type(open_sink(redshift.hook, "results", COLUMNS)) is GenericSink


def test_the_generic_sink_also_writes_with_a_percent_placeholder(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.database is not None
    redshift = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, redshift=True)
    columns = with_column(Column("100% sure?", ColumnType.BOOLEAN))
    land(redshift, [(*row("a", "1"), True), (*row("b", "%s"), None)], columns=columns)
    land(redshift, [(*row("a", "2", minute=1), False), (*row("b", "old", minute=-1), None)], columns=columns)
    result = postgres.execute('SELECT custom_id, output, "100% sure?" FROM results ORDER BY 1')
    assert result == [("a", "2", False), ("b", "%s", None)]


def test_a_missing_table_is_created_with_its_key(warehouse: Warehouse) -> None:
    open_sink(warehouse.hook, "results", COLUMNS).prepare()
    assert warehouse.execute("SELECT * FROM results") == []
    insert = "INSERT INTO results (custom_id) VALUES ('a')"
    warehouse.execute(insert)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate|primary key"):
        warehouse.execute(insert)


def test_the_error_for_a_missing_table_contains_the_statement_that_creates_it(warehouse: Warehouse) -> None:
    text = refusal(warehouse, create=False)
    statement = text[text.index("CREATE TABLE") : text.index(";")]
    assert f"PRIMARY KEY ({warehouse.quote('custom_id')})" in statement
    warehouse.execute(statement)
    open_sink(warehouse.hook, "results", COLUMNS, create=False).prepare()


@pytest.mark.parametrize(
    "name",
    [
        "Results",
        "select",
        'we"ird',
        "we`ird",
        "drop; table",
        "größe 🎈",
        "a'b",
        "100%",
        "with space",
        "{brace}",
        "?",
        "%s",
    ],
)
def test_names_of_tables_and_columns_are_quoted(warehouse: Warehouse, name: str) -> None:
    name = allowed_name(warehouse, name)
    columns = with_column(Column(f"{name} too", ColumnType.TEXT))
    sink = open_sink(warehouse.hook, name, columns)
    sink.write([(*row("a"), "1")])
    sink.write([(*row("a", minute=1), "2")])
    quoted_name = warehouse.quote(f"{name} too")
    assert warehouse.execute(f"SELECT {quoted_name} FROM {warehouse.quote(name)}") == [("2",)]


@pytest.mark.parametrize("name", ["order", "Label", "größe 🎈", 'sa"id', "drop; table", "n", "c0", "e", "i"])
def test_names_of_key_columns_are_quoted(warehouse: Warehouse, name: str) -> None:
    name = allowed_name(warehouse, name)
    columns = (*COLUMNS, Column(name, ColumnType.TEXT, key=True))
    land(warehouse, [(*row("a", "1"), "k")], [(*row("a", "2", minute=1), "k")], columns=columns)
    assert warehouse.execute(f"SELECT custom_id, output, {warehouse.quote(name)} FROM results") == [("a", "2", "k")]


@pytest.mark.parametrize("name", ["", ".", "a.", ".b", "a..b", " ", "nul\0"])
def test_an_invalid_table_name_is_refused(warehouse: Warehouse, name: str) -> None:
    with pytest.raises(InputError, match="is not a table name"):
        open_sink(warehouse.hook, name, COLUMNS)


def test_a_table_may_be_in_a_schema(postgres: Warehouse) -> None:
    postgres.execute('CREATE SCHEMA analytics; CREATE SCHEMA "My; Schema"')
    land(postgres, [row("a", "1")], table="analytics.results")
    land(postgres, [row("a", "2")], table="My; Schema.results")
    assert postgres.execute("SELECT output FROM analytics.results") == [("1",)]
    assert postgres.execute('SELECT output FROM "My; Schema".results') == [("2",)]


def test_the_error_for_a_missing_schema_contains_the_statement_that_creates_it(postgres: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match='CREATE SCHEMA "analytics";'):
        open_sink(postgres.hook, "analytics.results", COLUMNS).prepare()


def test_a_table_may_be_in_an_sqlite_database(sqlite: Warehouse) -> None:
    land(sqlite, [row("a", "1")], table="main.results")
    assert landed_rows(sqlite) == {"a": ("succeeded", "1")}
    with pytest.raises(WarehouseError, match="unknown database"):
        open_sink(sqlite.hook, "analytics.results", COLUMNS).prepare()


def test_a_table_name_with_too_many_parts_is_refused(warehouse: Warehouse) -> None:
    if warehouse.dialect == "generic":
        pytest.skip("other warehouses have names of three parts")
    table = "a.b.c.d" if warehouse.is_duckdb else "a.b.c"
    with pytest.raises(InputError, match=rf"'{table}'"):
        open_sink(warehouse.hook, table, COLUMNS)


def test_a_table_in_a_schema_of_the_search_path_is_found(postgres: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert postgres.database is not None
    postgres.execute("CREATE SCHEMA analytics")
    warehouse = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, options="-c search_path=analytics")
    land(warehouse, [row("a", "1")])
    assert postgres.execute("SELECT output FROM analytics.results") == [("1",)]


def test_a_results_table_may_have_the_name_of_the_temporary_table(postgres: Warehouse) -> None:
    land(postgres, [row("a", "1")], [row("a", "2", minute=1)], table="batch_landing")
    assert landed_rows(postgres, "batch_landing") == {"a": ("succeeded", "2")}


def test_a_name_in_upper_case_finds_the_table_that_unquoted_sql_would_find(postgres: Warehouse) -> None:
    land(postgres, [row("a", "1")])
    land(postgres, [row("a", "2")], table="Results")
    assert landed_rows(postgres) == {"a": ("succeeded", "2")}


def test_a_name_that_postgresql_would_truncate_is_refused(postgres: Warehouse) -> None:
    with pytest.raises(InputError, match="more than 63 bytes"):
        open_sink(postgres.hook, "results", with_column(Column("é" * 32, ColumnType.TEXT)))


def test_an_existing_table_keeps_its_own_spelling(warehouse: Warehouse) -> None:
    names = ("Custom_ID", "OUTCOME", "Output", "JOB_UID", "Sealed_At")
    key, outcome, output, job, sealed_at = map(warehouse.quote, names)
    warehouse.execute(
        f"CREATE TABLE results ({key} {warehouse.text_key_type} PRIMARY KEY, {outcome} text, {output} text, "
        f"{job} text, {sealed_at} {warehouse.timestamp_type})"
    )
    land(warehouse, [row("a", "1")], [row("a", "2", minute=1)])
    assert warehouse.execute(f"SELECT {key}, {output} FROM results") == [("a", "2")]


def test_an_ambiguous_column_is_refused(postgres: Warehouse) -> None:
    create_results(postgres, ', "OutPut" text, PRIMARY KEY (custom_id)')
    text = refusal(postgres)
    assert "match 'output': output, OutPut" in text


def test_duplicate_columns_are_refused(warehouse: Warehouse) -> None:
    with pytest.raises(InputError, match="output"):
        open_sink(warehouse.hook, "results", with_column(Column("OUTPUT", ColumnType.TEXT)))


@pytest.mark.parametrize(
    ("columns", "phrase"),
    [
        (COLUMNS[1:], "needs a key"),
        (COLUMNS[:1] + COLUMNS[2:], "'outcome'"),
        (COLUMNS[:-1], "'sealed_at'"),
        (with_column(Column("why", ColumnType.JSON, key=True)), "cannot be a key"),
        ((*COLUMNS[:-1], Column("sealed_at", ColumnType.TEXT)), "must be of type timestamp"),
    ],
)
def test_columns_unfit_for_a_results_table_are_refused(
    warehouse: Warehouse, columns: tuple[Column, ...], phrase: str
) -> None:
    with pytest.raises(InputError, match=phrase):
        open_sink(warehouse.hook, "results", columns)


def test_every_missing_column_is_reported_with_the_statement_that_adds_it(warehouse: Warehouse) -> None:
    warehouse.execute(f"CREATE TABLE results (custom_id {warehouse.text_key_type} PRIMARY KEY, output text)")
    text = refusal(warehouse, with_column(Column("cost usd", ColumnType.NUMERIC)))
    lines = re.findall(r"ALTER TABLE .*?;", text)
    assert len(lines) == 4
    for line in lines:
        warehouse.execute(line)
    land(warehouse, [(*row("a", "1"), None)], columns=with_column(Column("cost usd", ColumnType.NUMERIC)))
    assert landed_rows(warehouse) == {"a": ("succeeded", "1")}


@knows_keys
@pytest.mark.parametrize(
    "key",
    [
        "",
        ", PRIMARY KEY (output)",
        ", PRIMARY KEY (custom_id, output)",
        ", UNIQUE (custom_id, output)",
    ],
)
def test_a_table_with_another_key_is_refused_with_the_statement_that_adds_ours(warehouse: Warehouse, key: str) -> None:
    create_results(warehouse, key)
    text = refusal(warehouse)
    existing_key = f"the unique key {key[key.index('(') :]}" if key else "no unique key"
    assert f"has {existing_key}, but rows are upserted by (custom_id)" in text
    statements = re.findall(r"(?:CREATE UNIQUE INDEX|ALTER TABLE) .*?;", text)
    assert statements
    for statement in statements:
        warehouse.execute(statement)
    open_sink(warehouse.hook, "results", COLUMNS).prepare()


@knows_keys
@pytest.mark.parametrize(
    "index",
    [
        "CREATE UNIQUE INDEX i ON results (custom_id) WHERE output IS NOT NULL",
        "CREATE UNIQUE INDEX i ON results (lower(custom_id))",
        "CREATE INDEX i ON results (custom_id)",
    ],
)
def test_an_index_that_does_not_make_every_row_unique_is_not_a_key(warehouse: Warehouse, index: str) -> None:
    if warehouse.is_duckdb and "WHERE" in index:
        pytest.skip("DuckDB has no partial indexes")
    if warehouse.is_mysql and index.endswith(("NULL", "))")):
        pytest.skip("MySQL has no partial indexes, and MariaDB none of expressions")
    create_results(warehouse)
    warehouse.execute(index)
    assert "has no unique key" in refusal(warehouse)


@knows_keys
def test_a_unique_index_serves_as_the_key_in_any_order_of_columns(warehouse: Warehouse) -> None:
    create_results(warehouse, f", run {warehouse.text_key_type}, UNIQUE (run, custom_id)")
    columns = (*COLUMNS, Column("run", ColumnType.TEXT, key=True))
    land(warehouse, [(*row("a", "1"), "r")], [(*row("a", "2"), "r"), (*row("a", "3"), "s")], columns=columns)
    assert warehouse.execute("SELECT run, output FROM results ORDER BY run") == [("r", "2"), ("s", "3")]


@knows_keys
def test_a_required_column_that_is_not_ours_is_refused(warehouse: Warehouse) -> None:
    create_results(warehouse, ", owner text NOT NULL, team text NOT NULL DEFAULT 'x', PRIMARY KEY (custom_id)")
    text = refusal(warehouse)
    assert "'owner', which is NOT NULL" in text
    assert "'team'" not in text


def test_columns_that_fill_themselves_are_accepted(postgres: Warehouse) -> None:
    create_results(
        postgres,
        ", id bigint GENERATED ALWAYS AS IDENTITY, n serial NOT NULL, "
        "size int NOT NULL GENERATED ALWAYS AS (length(custom_id)) STORED, PRIMARY KEY (custom_id)",
    )
    land(postgres, [row("abc", "1")])
    assert postgres.execute("SELECT id, n, size FROM results") == [(1, 1, 3)]


@knows_keys
def test_all_problems_are_reported_together(warehouse: Warehouse) -> None:
    warehouse.execute(
        f"CREATE TABLE results (custom_id {warehouse.text_key_type}, output integer, owner text NOT NULL)"
    )
    text = refusal(warehouse)
    for phrase in ("'outcome'", "'sealed_at'", "'output' as ", "'owner'", "has no unique key"):
        assert phrase in text, phrase


@knows_keys
def test_text_for_a_number_column_is_reported_before_the_first_row(warehouse: Warehouse) -> None:
    create_results(warehouse, ", PRIMARY KEY (custom_id)", output="integer")
    assert re.search(r"'output' as int\S*, but it gets text values", refusal(warehouse).lower())


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("text", Column("x", ColumnType.BYTES)),
        ("integer", Column("x", ColumnType.JSON)),
        ("date", Column("x", ColumnType.INTEGER)),
        ("point", Column("x", ColumnType.TEXT)),
        ("integer", Column("x", ColumnType.VECTOR)),
        ("int GENERATED ALWAYS AS (1) STORED", Column("x", ColumnType.INTEGER)),
    ],
)
def test_other_incompatible_types_are_reported_too(postgres: Warehouse, type_: str, column: Column) -> None:
    create_results(postgres, f", x {type_}, PRIMARY KEY (custom_id)")
    assert '"x"' in refusal(postgres, with_column(column)).replace("'", '"')


def test_a_view_is_refused(warehouse: Warehouse) -> None:
    if warehouse.dialect == "generic":
        pytest.skip("the generic sink cannot tell a view from a table")
    create_results(warehouse, ", PRIMARY KEY (custom_id)")
    warehouse.execute("ALTER TABLE results RENAME TO other; ".rstrip("; "))
    warehouse.execute("CREATE VIEW results AS SELECT * FROM other")
    assert "a view" in refusal(warehouse)


def test_a_table_without_write_permission_is_refused_before_the_first_row(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.database is not None
    create_results(postgres, ", PRIMARY KEY (custom_id)")
    postgres.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader; GRANT SELECT ON results TO reader")
    try:
        reader = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, options="-c role=reader")
        assert "permission denied for table results" in refusal(reader)
    finally:
        postgres.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_partitioned_table_is_accepted(postgres: Warehouse) -> None:
    create_results(postgres, ", PRIMARY KEY (custom_id)) PARTITION BY HASH (custom_id")
    postgres.execute("CREATE TABLE p PARTITION OF results FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    land(postgres, [row("a", "1")], [row("a", "2")])
    assert landed_rows(postgres) == {"a": ("succeeded", "2")}
