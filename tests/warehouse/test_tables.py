"""The results table: created, found as it is, or refused with the statements that mend it."""

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
from tests.warehouse.landing import COLUMNS, land, landed, row, with_column

MADE_BY_HAND = (
    "CREATE TABLE results (custom_id {text_key}, outcome text, output {text_key}, job_uid text, "
    "sealed_at {moment}{more})"
)

knows_keys = pytest.mark.parametrize("warehouse", KNOWS_KEYS, indirect=True)


def by_hand(warehouse: Warehouse, more: str = "", **types: str) -> None:
    sql = MADE_BY_HAND.format(moment=warehouse.moment, text_key=warehouse.text_key, more=more)
    for column, type_ in types.items():
        sql = sql.replace(f" {column} {warehouse.text_key},", f" {column} {type_},")
    warehouse.execute(sql)


def without_what_no_name_has(warehouse: Warehouse, name: str) -> str:
    """MySQL takes no characters beyond U+FFFF in names."""
    return name.removesuffix(" 🎈") if warehouse.is_mysql else name


def refusal(warehouse: Warehouse, columns: tuple[Column, ...] = COLUMNS, **options: Any) -> str:
    """What preparing the table is refused with."""
    with pytest.raises(ResultsTableError) as caught:
        open_sink(warehouse.hook, "results", columns, **options).prepare()
    assert not caught.value.retry
    text = str(caught.value)
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
    land(redshift, [(*row("a", "2", sealed=1), False), (*row("b", "old", sealed=-1), None)], columns=columns)
    found = postgres.execute('SELECT custom_id, output, "100% sure?" FROM results ORDER BY 1')
    assert found == [("a", "2", False), ("b", "%s", None)]


def test_an_absent_table_is_created_with_its_key(warehouse: Warehouse) -> None:
    open_sink(warehouse.hook, "results", COLUMNS).prepare()
    assert warehouse.execute("SELECT * FROM results") == []
    insert = "INSERT INTO results (custom_id) VALUES ('a')"
    warehouse.execute(insert)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate|primary key"):
        warehouse.execute(insert)


def test_an_absent_table_that_must_not_be_created_is_an_error_to_paste_from(warehouse: Warehouse) -> None:
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
def test_any_name_of_a_table_and_a_column_is_quoted(warehouse: Warehouse, name: str) -> None:
    name = without_what_no_name_has(warehouse, name)
    columns = with_column(Column(f"{name} too", ColumnType.TEXT))
    sink = open_sink(warehouse.hook, name, columns)
    sink.write([(*row("a"), "1")])
    sink.write([(*row("a", sealed=1), "2")])
    quoted = warehouse.quote(f"{name} too")
    assert warehouse.execute(f"SELECT {quoted} FROM {warehouse.quote(name)}") == [("2",)]


@pytest.mark.parametrize("name", ["order", "Label", "größe 🎈", 'sa"id', "drop; table", "n", "c0", "e", "i"])
def test_any_name_of_a_key_column_is_quoted(warehouse: Warehouse, name: str) -> None:
    name = without_what_no_name_has(warehouse, name)
    columns = (*COLUMNS, Column(name, ColumnType.TEXT, key=True))
    land(warehouse, [(*row("a", "1"), "k")], [(*row("a", "2", sealed=1), "k")], columns=columns)
    assert warehouse.execute(f"SELECT custom_id, output, {warehouse.quote(name)} FROM results") == [("a", "2", "k")]


@pytest.mark.parametrize("name", ["", ".", "a.", ".b", "a..b", " ", "nul\0"])
def test_a_name_that_names_nothing_is_refused(warehouse: Warehouse, name: str) -> None:
    with pytest.raises(InputError, match="is no table name"):
        open_sink(warehouse.hook, name, COLUMNS)


def test_a_table_may_be_in_a_schema(postgres: Warehouse) -> None:
    postgres.execute('CREATE SCHEMA analytics; CREATE SCHEMA "My; Schema"')
    land(postgres, [row("a", "1")], table="analytics.results")
    land(postgres, [row("a", "2")], table="My; Schema.results")
    assert postgres.execute("SELECT output FROM analytics.results") == [("1",)]
    assert postgres.execute('SELECT output FROM "My; Schema".results') == [("2",)]


def test_a_schema_that_is_not_there_is_an_error_to_paste_from(postgres: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match='CREATE SCHEMA "analytics";'):
        open_sink(postgres.hook, "analytics.results", COLUMNS).prepare()


def test_a_table_may_be_in_a_database_of_sqlite(sqlite: Warehouse) -> None:
    land(sqlite, [row("a", "1")], table="main.results")
    assert landed(sqlite) == {"a": ("succeeded", "1")}
    with pytest.raises(WarehouseError, match="unknown database"):
        open_sink(sqlite.hook, "analytics.results", COLUMNS).prepare()


def test_too_many_parts_are_refused(warehouse: Warehouse) -> None:
    if warehouse.dialect == "generic":
        pytest.skip("other warehouses have three")
    table = "a.b.c.d" if warehouse.is_duckdb else "a.b.c"
    with pytest.raises(InputError, match=rf"'{table}'"):
        open_sink(warehouse.hook, table, COLUMNS)


def test_a_table_in_a_schema_of_the_search_path_is_found(postgres: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert postgres.database is not None
    postgres.execute("CREATE SCHEMA analytics")
    warehouse = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, options="-c search_path=analytics")
    land(warehouse, [row("a", "1")])
    assert postgres.execute("SELECT output FROM analytics.results") == [("1",)]


def test_a_table_called_like_the_one_rows_pass_through_is_not_mistaken_for_it(postgres: Warehouse) -> None:
    land(postgres, [row("a", "1")], [row("a", "2", sealed=1)], table="batch_landing")
    assert landed(postgres, "batch_landing") == {"a": ("succeeded", "2")}


def test_upper_case_finds_the_table_that_sql_would_find(postgres: Warehouse) -> None:
    land(postgres, [row("a", "1")])
    land(postgres, [row("a", "2")], table="Results")
    assert landed(postgres) == {"a": ("succeeded", "2")}


def test_a_name_that_postgresql_would_cut_off_is_refused(postgres: Warehouse) -> None:
    with pytest.raises(InputError, match="more than 63 bytes"):
        open_sink(postgres.hook, "results", with_column(Column("é" * 32, ColumnType.TEXT)))


def test_an_existing_table_keeps_its_own_spelling(warehouse: Warehouse) -> None:
    key, outcome, output, job, sealed = map(warehouse.quote, ("Custom_ID", "OUTCOME", "Output", "JOB_UID", "Sealed_At"))
    warehouse.execute(
        f"CREATE TABLE results ({key} {warehouse.text_key} PRIMARY KEY, {outcome} text, {output} text, {job} text, "
        f"{sealed} {warehouse.moment})"
    )
    land(warehouse, [row("a", "1")], [row("a", "2", sealed=1)])
    assert warehouse.execute(f"SELECT {key}, {output} FROM results") == [("a", "2")]


def test_a_column_that_could_be_either_of_two_is_refused(postgres: Warehouse) -> None:
    by_hand(postgres, ', "OutPut" text, PRIMARY KEY (custom_id)')
    text = refusal(postgres)
    assert "'output' could mean: output, OutPut" in text


def test_columns_given_twice_are_refused(warehouse: Warehouse) -> None:
    with pytest.raises(InputError, match="output"):
        open_sink(warehouse.hook, "results", with_column(Column("OUTPUT", ColumnType.TEXT)))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (COLUMNS[1:], "needs a key"),
        (COLUMNS[:1] + COLUMNS[2:], "'outcome'"),
        (COLUMNS[:-1], "'sealed_at'"),
        (with_column(Column("why", ColumnType.JSON, key=True)), "cannot be a key"),
        ((*COLUMNS[:-1], Column("sealed_at", ColumnType.TEXT)), "must be of type timestamp"),
    ],
)
def test_columns_that_make_no_results_table_are_refused(
    warehouse: Warehouse, columns: tuple[Column, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        open_sink(warehouse.hook, "results", columns)


def test_every_missing_column_comes_with_a_line_to_paste(warehouse: Warehouse) -> None:
    warehouse.execute(f"CREATE TABLE results (custom_id {warehouse.text_key} PRIMARY KEY, output text)")
    text = refusal(warehouse, with_column(Column("cost usd", ColumnType.NUMERIC)))
    lines = re.findall(r"ALTER TABLE .*?;", text)
    assert len(lines) == 4
    for line in lines:
        warehouse.execute(line)
    land(warehouse, [(*row("a", "1"), None)], columns=with_column(Column("cost usd", ColumnType.NUMERIC)))
    assert landed(warehouse) == {"a": ("succeeded", "1")}


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
def test_a_table_with_another_key_is_refused_with_the_key_that_is_needed(warehouse: Warehouse, key: str) -> None:
    by_hand(warehouse, key)
    text = refusal(warehouse)
    has = key[key.index("(") :] if key else "none"
    assert f"has the key {has}, but rows are landed by (custom_id)" in text
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
def test_an_index_that_does_not_make_every_row_unique_is_no_key(warehouse: Warehouse, index: str) -> None:
    if warehouse.is_duckdb and "WHERE" in index:
        pytest.skip("DuckDB has no partial indexes")
    if warehouse.is_mysql and index.endswith(("NULL", "))")):
        pytest.skip("MySQL has no partial indexes, and MariaDB none of expressions")
    by_hand(warehouse)
    warehouse.execute(index)
    assert "has the key none" in refusal(warehouse)


@knows_keys
def test_a_unique_index_serves_as_the_key_in_any_order_of_columns(warehouse: Warehouse) -> None:
    by_hand(warehouse, f", run {warehouse.text_key}, UNIQUE (run, custom_id)")
    columns = (*COLUMNS, Column("run", ColumnType.TEXT, key=True))
    land(warehouse, [(*row("a", "1"), "r")], [(*row("a", "2"), "r"), (*row("a", "3"), "s")], columns=columns)
    assert warehouse.execute("SELECT run, output FROM results ORDER BY run") == [("r", "2"), ("s", "3")]


@knows_keys
def test_a_required_column_that_nothing_here_fills_is_refused(warehouse: Warehouse) -> None:
    by_hand(warehouse, ", owner text NOT NULL, team text NOT NULL DEFAULT 'x', PRIMARY KEY (custom_id)")
    text = refusal(warehouse)
    assert "'owner', which may not be NULL" in text
    assert "'team'" not in text


def test_columns_that_fill_themselves_are_no_obstacle(postgres: Warehouse) -> None:
    by_hand(
        postgres,
        ", id bigint GENERATED ALWAYS AS IDENTITY, n serial NOT NULL, "
        "size int NOT NULL GENERATED ALWAYS AS (length(custom_id)) STORED, PRIMARY KEY (custom_id)",
    )
    land(postgres, [row("abc", "1")])
    assert postgres.execute("SELECT id, n, size FROM results") == [(1, 1, 3)]


@knows_keys
def test_everything_that_is_wrong_is_told_at_once(warehouse: Warehouse) -> None:
    warehouse.execute(f"CREATE TABLE results (custom_id {warehouse.text_key}, output integer, owner text NOT NULL)")
    text = refusal(warehouse)
    for said in ("'outcome'", "'sealed_at'", "'output' as ", "'owner'", "has the key none"):
        assert said in text, said


@knows_keys
def test_text_for_a_number_is_found_before_the_first_row(warehouse: Warehouse) -> None:
    by_hand(warehouse, ", PRIMARY KEY (custom_id)", output="integer")
    assert re.search(r"'output' as int\S*, but it gets text values", refusal(warehouse).lower())


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("text", Column("x", ColumnType.BYTES)),
        ("integer", Column("x", ColumnType.JSON)),
        ("date", Column("x", ColumnType.INTEGER)),
        ("uuid", Column("x", ColumnType.TEXT)),
        ("integer", Column("x", ColumnType.VECTOR)),
        ("int GENERATED ALWAYS AS (1) STORED", Column("x", ColumnType.INTEGER)),
    ],
)
def test_other_types_that_do_not_fit_are_found_too(postgres: Warehouse, type_: str, column: Column) -> None:
    by_hand(postgres, f", x {type_}, PRIMARY KEY (custom_id)")
    if type_ == "text":
        open_sink(postgres.hook, "results", with_column(column)).prepare()  # PostgreSQL shows bytes as text
    else:
        assert '"x"' in refusal(postgres, with_column(column)).replace("'", '"')


def test_a_view_is_refused(warehouse: Warehouse) -> None:
    if warehouse.dialect == "generic":
        pytest.skip("cannot tell a view from a table")
    by_hand(warehouse, ", PRIMARY KEY (custom_id)")
    warehouse.execute("ALTER TABLE results RENAME TO other; ".rstrip("; "))
    warehouse.execute("CREATE VIEW results AS SELECT * FROM other")
    assert "is a view" in refusal(warehouse)


def test_a_table_that_must_not_be_written_is_refused_before_the_first_row(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert postgres.database is not None
    by_hand(postgres, ", PRIMARY KEY (custom_id)")
    postgres.execute("DROP ROLE IF EXISTS reader; CREATE ROLE reader; GRANT SELECT ON results TO reader")
    try:
        reader = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, options="-c role=reader")
        assert "permission denied for table results" in refusal(reader)
    finally:
        postgres.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_partitioned_table_is_a_table(postgres: Warehouse) -> None:
    by_hand(postgres, ", PRIMARY KEY (custom_id)) PARTITION BY HASH (custom_id")
    postgres.execute("CREATE TABLE p PARTITION OF results FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    land(postgres, [row("a", "1")], [row("a", "2")])
    assert landed(postgres) == {"a": ("succeeded", "2")}
