"""The rows of one SELECT are streamed as plain tuples; errors are clear and come before anything is uploaded."""

from __future__ import annotations

import sqlite3
import time
import tracemalloc
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import HookLineageCollector
from airflow.providers.common.sql.hooks import lineage as sql_lineage

from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.warehouse.read import read_rows
from tests.postgres import Database
from tests.warehouse.conftest import Warehouse, postgres_warehouse


def read(warehouse: Warehouse, sql: str, parameters: Any = None, **options: Any) -> list[tuple[Any, ...]]:
    with read_rows(warehouse.hook, sql, parameters, **options) as rows:
        return list(rows)


@pytest.fixture
def tickets(warehouse: Warehouse) -> Warehouse:
    warehouse.execute("CREATE TABLE tickets (id integer, title text)")
    values = ", ".join(f"({n}, 'title {n}')" for n in range(1, 8))
    warehouse.execute(f"INSERT INTO tickets VALUES {values}")
    return warehouse


def test_columns_and_rows_are_read_as_plain_tuples(tickets: Warehouse) -> None:
    with read_rows(tickets.hook, "SELECT id, title FROM tickets ORDER BY id") as rows:
        assert rows.columns == ("id", "title")
        result = list(rows)
    assert result == [(n, f"title {n}") for n in range(1, 8)]
    assert {type(row) for row in result} == {tuple}


@pytest.mark.parametrize("chunk_rows", [1, 2, 7, 8])
def test_the_chunk_size_does_not_change_the_rows(tickets: Warehouse, chunk_rows: int) -> None:
    result = read(tickets, "SELECT id FROM tickets ORDER BY id", chunk_rows=chunk_rows)
    assert result == [(n,) for n in range(1, 8)]


def test_an_empty_result_has_columns(tickets: Warehouse) -> None:
    with read_rows(tickets.hook, "SELECT id, title FROM tickets WHERE id < 0") as rows:
        assert rows.columns == ("id", "title")
        assert list(rows) == []


def test_columns_are_spelled_as_the_database_spells_them(tickets: Warehouse) -> None:
    name = "größe" if tickets.is_mysql else "größe 🎈"  # MySQL allows no characters beyond U+FFFF in names
    with read_rows(tickets.hook, f'SELECT id AS "Id", title AS "{name}" FROM tickets') as rows:
        assert rows.columns == ("Id", name)


def test_parameters_are_passed_to_the_driver(tickets: Warehouse) -> None:
    mark = "?" if tickets.path else "%s"
    assert read(tickets, f"SELECT title FROM tickets WHERE id = {mark}", [3]) == [("title 3",)]


def test_named_parameters_are_passed_to_the_driver(tickets: Warehouse) -> None:
    mark = "$id" if tickets.is_duckdb else ":id" if tickets.path else "%(id)s"
    assert read(tickets, f"SELECT title FROM tickets WHERE id = {mark}", {"id": 3}) == [("title 3",)]


def test_a_percent_sign_is_a_plain_character_without_parameters(tickets: Warehouse) -> None:
    assert read(tickets, "SELECT id FROM tickets WHERE title LIKE '%7'") == [(7,)]


@pytest.mark.parametrize(
    "end",
    [";", " ; \n", "; -- that was all", " -- one; two", "\n/* one; /* two; */ three */ ;;", "\n-- it's over"],
)
def test_a_final_semicolon_and_comments_are_accepted(tickets: Warehouse, end: str) -> None:
    if not (tickets.is_postgres or tickets.is_duckdb) and "/* two" in end:
        end = end.replace("/* two; */ ", "")  # comments do not nest in the other databases
    assert read(tickets, f"SELECT id FROM tickets WHERE title <> ';' ORDER BY id LIMIT 1{end}") == [(1,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT id FROM tickets; DELETE FROM tickets",
        "SELECT id FROM tickets; SELECT title FROM tickets",
        "SELECT 'it''s'; /* and */ DELETE FROM tickets;",
    ],
)
def test_several_statements_are_refused_and_none_takes_effect(tickets: Warehouse, sql: str) -> None:
    with pytest.raises(InputError, match="more than one statement"):
        read(tickets, sql)
    assert tickets.execute("SELECT count(*) FROM tickets") == [(7,)]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE tickets SET title = ''",
        "  -- look\n/* here */ (delete FROM tickets)",
        "INSERT INTO tickets VALUES (8, '')",
        "DROP TABLE tickets",
    ],
)
def test_a_statement_that_changes_data_is_not_run(tickets: Warehouse, sql: str) -> None:
    with pytest.raises(InputError, match="must be a single SELECT"):
        read(tickets, sql)
    assert tickets.execute("SELECT count(*), min(length(title)) FROM tickets") == [(7, 7)]


def test_a_change_that_begins_with_with_does_not_take_effect(tickets: Warehouse) -> None:
    if tickets.dialect == "generic":
        pytest.skip("with an unknown driver, this depends on the driver")
    with pytest.raises((InputError, WarehouseError)):
        read(tickets, "WITH gone AS (SELECT 1) DELETE FROM tickets")
    assert tickets.execute("SELECT count(*) FROM tickets") == [(7,)]


@pytest.mark.parametrize("sql", ["", "  \n", "-- nothing", ";"])
def test_empty_sql_is_refused(warehouse: Warehouse, sql: str) -> None:
    with pytest.raises(InputError, match="sql is empty"):
        read(warehouse, sql)


@pytest.mark.parametrize("second", ["id", "ID"])
def test_a_duplicate_column_is_reported(tickets: Warehouse, second: str) -> None:
    with pytest.raises(InputError, match=r"more than once.*: id\."):
        read(tickets, f'SELECT id, title, 1 AS "{second}" FROM tickets')


def test_database_errors_name_the_connection(tickets: Warehouse) -> None:
    with pytest.raises(WarehouseError) as exc_info:
        read(tickets, "SELECT titel FROM tickets")
    text = str(exc_info.value)
    assert "titel" in text
    assert "'warehouse'" in text
    assert text.splitlines()[-1] == "Nothing was uploaded."


def test_an_error_between_rows_does_not_show_the_value(postgres: Warehouse) -> None:
    postgres.execute(
        "CREATE TABLE t AS SELECT n, CASE n WHEN 900 THEN 'secret' ELSE '1' END AS v FROM generate_series(1, 1000) n"
    )
    with (
        pytest.raises(WarehouseError, match="invalid input syntax for type integer") as exc_info,
        read_rows(postgres.hook, "SELECT v::int FROM t", chunk_rows=10) as rows,
    ):
        for _ in rows:
            pass
    assert "secret" not in str(exc_info.value)
    assert rows.count == 890


def test_an_unreachable_server_is_a_warehouse_error(postgres: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    missing_database = Database("/nonexistent", "nowhere")
    unreachable = postgres_warehouse(postgres.dialect, missing_database, monkeypatch)
    with pytest.raises(WarehouseError, match="Connecting with connection 'warehouse' failed"):
        read(unreachable, "SELECT 1")


@pytest.mark.parametrize("cursor", ["dictcursor", "namedtuplecursor", "realdictcursor"])
def test_the_cursor_extra_of_a_connection_makes_no_difference(
    postgres: Warehouse, monkeypatch: pytest.MonkeyPatch, cursor: str
) -> None:
    if cursor == "realdictcursor" and postgres.dialect == "psycopg":
        pytest.skip("the hook supports it only with psycopg2")
    assert postgres.database is not None
    warehouse = postgres_warehouse(postgres.dialect, postgres.database, monkeypatch, cursor=cursor)
    (row,) = read(warehouse, "SELECT 1 AS a, 'x' AS b")
    assert row == (1, "x")
    assert type(row) is tuple


def test_row_objects_of_a_driver_become_tuples(sqlite: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite.hook.get_conn

    def with_row_objects() -> sqlite3.Connection:
        conn: sqlite3.Connection = connect()
        conn.row_factory = sqlite3.Row
        return conn

    monkeypatch.setattr(sqlite.hook, "get_conn", with_row_objects)
    assert read(sqlite, "SELECT 1 AS a, 'x' AS b") == [(1, "x")]

    def with_dicts() -> sqlite3.Connection:
        conn: sqlite3.Connection = connect()
        conn.row_factory = lambda cursor, row: {
            column[0]: value for column, value in zip(cursor.description, row, strict=True)
        }
        return conn

    monkeypatch.setattr(sqlite.hook, "get_conn", with_dicts)
    assert read(sqlite, "SELECT 1 AS a, 'x' AS b") == [(1, "x")]


def test_both_drivers_return_bytes(postgres: Warehouse) -> None:
    (row,) = read(postgres, r"SELECT 1, '\x00ff'::bytea AS a, NULL::bytea AS b")
    assert row == (1, b"\x00\xff", None)
    assert type(row[1]) is bytes


def test_reading_200_000_rows_takes_little_memory(postgres: Warehouse) -> None:
    postgres.execute("SELECT 1")
    tracemalloc.start()
    try:
        with read_rows(postgres.hook, "SELECT n, repeat('x', 200) FROM generate_series(1, 200000) n") as rows:
            count = sum(1 for _ in rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 8_000_000  # all rows together are over 50 MB


def test_the_first_rows_arrive_before_the_query_has_finished(postgres: Warehouse) -> None:
    # If the server computed the whole result first, the division by zero at its end would come before the first row.
    with read_rows(postgres.hook, "SELECT 1 / (1000000 - n) FROM generate_series(1, 1000000) n") as rows:
        assert next(iter(rows)) == (0,)


def test_leaving_the_block_early_closes_the_connection(postgres: Warehouse) -> None:
    with read_rows(postgres.hook, "SELECT generate_series(1, 100000)") as rows:
        next(iter(rows))
    other_connections = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    deadline = time.monotonic() + 30
    while (result := postgres.execute(other_connections)) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.02)  # the server process ends shortly after its connection
    assert result == [(0,)]


def test_the_query_reaches_the_lineage_collector_without_parameters(
    tickets: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow uses a real collector only if a plugin reads lineage.
    collector = HookLineageCollector()  # type: ignore[no-untyped-call]  # Airflow has no types here
    monkeypatch.setattr(sql_lineage, "get_hook_lineage_collector", lambda: collector)
    mark = "?" if tickets.path else "%s"
    sql = f"SELECT id FROM tickets WHERE id < {mark}"
    read(tickets, sql, [3])
    (lineage,) = collector.collected_assets.extra
    assert lineage.value == {"sql": sql, "row_count": 2}


def test_row_values_are_not_logged(tickets: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG"):
        read(tickets, "SELECT title FROM tickets")
    assert "title 3" not in caplog.text
