"""Answers of earlier jobs are read from their results table."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import START, land

NAMES = ("request_sha256", "finish_reason", "model", "batch_id")


def columns(output: ColumnType = ColumnType.TEXT) -> tuple[Column, ...]:
    return (
        Column("custom_id", ColumnType.TEXT, key=True),
        Column("outcome", ColumnType.TEXT),
        Column("output", output),
        Column("sealed_at", ColumnType.TIMESTAMP),
        *(Column(name, ColumnType.TEXT) for name in NAMES),
    )


def test_only_rows_that_succeeded_are_read(warehouse: Warehouse) -> None:
    rows = [
        ("a", "succeeded", "yes", START, "0" * 64, "stop", "m", "batch_1"),
        ("b", "refused", "no", START, "1" * 64, "stop", "m", "batch_1"),
        ("c", "succeeded", "yes", START, None, "stop", "m", "batch_1"),
        ("d", "pending", None, START, "2" * 64, None, "m", None),
    ]
    land(warehouse, rows, columns=columns())
    table = ReusedTable(warehouse.hook, "results")
    assert table.check()
    assert list(table) == [("0" * 64, "yes", "stop", "m", "batch_1")]


def test_a_vector_is_read_as_a_list_or_as_json(warehouse: Warehouse) -> None:
    rows = [("a", "succeeded", [0.5, 1.0], START, "0" * 64, None, "m", "b")]
    land(warehouse, rows, columns=columns(ColumnType.VECTOR))
    table = ReusedTable(warehouse.hook, "results")
    assert table.check()
    ((_, output, *_),) = table
    assert (json.loads(output) if isinstance(output, str) else output) == [0.5, 1.0]


def test_a_table_is_found_regardless_of_case(warehouse: Warehouse) -> None:
    land(warehouse, [("a", "succeeded", "yes", START, "0" * 64, None, "m", "b")], columns=columns())
    table = ReusedTable(warehouse.hook, "RESULTS")
    assert table.check()
    assert len(list(table)) == 1


@pytest.mark.parametrize("table", ["nowhere", "no_schema.nowhere"])
def test_a_table_that_does_not_exist_yet_is_logged(
    warehouse: Warehouse, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="airflow_provider_batch"):
        assert ReusedTable(warehouse.hook, table).check() is False
    assert [record.getMessage() for record in caplog.records] == [
        f"reuse_from: The table {table!r} (connection 'warehouse') does not exist yet, so no answers are reused and "
        "every row is sent."
    ]


def test_an_unreadable_table_is_an_error_and_not_taken_for_a_missing_one(postgres: Warehouse) -> None:
    land(postgres, [("a", "succeeded", "yes", START, "0" * 64, None, "m", "b")], columns=columns())
    postgres.execute("DROP ROLE IF EXISTS nobody_reads")
    postgres.execute("CREATE ROLE nobody_reads LOGIN PASSWORD 'nobody'")
    postgres.hook.connection.login, postgres.hook.connection.password = "nobody_reads", "nobody"
    with pytest.raises(ResultsTableError, match=r"cannot be read.*permission denied") as exc_info:
        ReusedTable(postgres.hook, "results").check()
    assert "grant this connection read access" in str(exc_info.value)


def test_an_unreadable_mysql_table_is_an_error_and_not_taken_for_a_missing_one(mysql: Warehouse) -> None:
    mysql.execute("CREATE USER IF NOT EXISTS nobody_reads IDENTIFIED BY 'nobody'")
    mysql.execute("GRANT CREATE TEMPORARY TABLES ON *.* TO nobody_reads")
    mysql.hook.connection.login, mysql.hook.connection.password = "nobody_reads", "nobody"
    with pytest.raises(ResultsTableError, match="denied"):
        ReusedTable(mysql.hook, "results").check()


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_a_view_over_a_dropped_table_is_an_error(request: pytest.FixtureRequest, dialect: str) -> None:
    warehouse: Warehouse = request.getfixturevalue(dialect)
    warehouse.execute("CREATE TABLE results_before AS SELECT 1 AS outcome")
    warehouse.execute("CREATE VIEW results AS SELECT * FROM results_before")
    warehouse.execute("DROP TABLE results_before")
    with pytest.raises(ResultsTableError, match="cannot be read"):
        ReusedTable(warehouse.hook, "results").check()


@pytest.mark.parametrize("missing", ["outcome", "output", *NAMES])
def test_the_error_for_a_missing_column_names_it(sqlite: Warehouse, missing: str) -> None:
    names = [name for name in ("custom_id", "outcome", "output", *NAMES) if name != missing]
    sqlite.execute(f"CREATE TABLE labels ({', '.join(names)})")
    with pytest.raises(ResultsTableError, match=rf"has no column '{missing}', so it is not a results table"):
        ReusedTable(sqlite.hook, "labels").check()


def test_columns_are_found_in_upper_case(sqlite: Warehouse) -> None:
    sqlite.execute("CREATE TABLE labels (OUTCOME, OUTPUT, REQUEST_SHA256, FINISH_REASON, MODEL, BATCH_ID)")
    sqlite.execute("INSERT INTO labels VALUES ('succeeded', 'yes', 'h', 'stop', 'm', 'b')")
    table = ReusedTable(sqlite.hook, "labels")
    assert table.check()
    assert list(table) == [("h", "yes", "stop", "m", "b")]


def test_a_table_name_is_never_run_as_sql(sqlite: Warehouse) -> None:
    sqlite.execute("CREATE TABLE labels (outcome)")
    assert ReusedTable(sqlite.hook, 'labels"; DROP TABLE labels; --').check() is False
    assert sqlite.execute("SELECT count(*) FROM labels") == [(0,)]


@pytest.mark.parametrize("table", ["", " ", "a..b"])
def test_an_invalid_table_name_is_an_error(sqlite: Warehouse, table: str) -> None:
    with pytest.raises(InputError, match="is not a table name"):
        ReusedTable(sqlite.hook, table)


def test_the_error_for_an_unreachable_database_allows_a_retry(postgres: Warehouse) -> None:
    table = ReusedTable(postgres.hook, "results")
    postgres.hook.database = "nowhere"
    with pytest.raises(WarehouseError) as exc_info:
        assert table.check()
    assert exc_info.value.retry
