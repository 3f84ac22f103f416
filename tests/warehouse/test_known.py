"""Answers of earlier jobs, read from their results table."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.reused_table import KnownTable
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


def test_the_rows_that_succeeded_are_read_and_no_others(warehouse: Warehouse) -> None:
    rows = [
        ("a", "succeeded", "yes", START, "0" * 64, "stop", "m", "batch_1"),
        ("b", "refused", "no", START, "1" * 64, "stop", "m", "batch_1"),
        ("c", "succeeded", "yes", START, None, "stop", "m", "batch_1"),
        ("d", "pending", None, START, "2" * 64, None, "m", None),
    ]
    land(warehouse, rows, columns=columns())
    table = KnownTable(warehouse.hook, "results")
    assert table.check()
    assert list(table) == [("0" * 64, "yes", "stop", "m", "batch_1")]


def test_a_vector_comes_back_as_a_list_or_as_json(warehouse: Warehouse) -> None:
    rows = [("a", "succeeded", [0.5, 1.0], START, "0" * 64, None, "m", "b")]
    land(warehouse, rows, columns=columns(ColumnType.VECTOR))
    table = KnownTable(warehouse.hook, "results")
    assert table.check()
    ((_, output, *_),) = table
    assert (json.loads(output) if isinstance(output, str) else output) == [0.5, 1.0]


def test_a_table_is_found_in_the_case_that_the_database_gave_it(warehouse: Warehouse) -> None:
    land(warehouse, [("a", "succeeded", "yes", START, "0" * 64, None, "m", "b")], columns=columns())
    table = KnownTable(warehouse.hook, "RESULTS")
    assert table.check()
    assert len(list(table)) == 1


@pytest.mark.parametrize("table", ["nowhere", "no_schema.nowhere"])
def test_a_table_that_is_not_there_yet_knows_nothing(
    warehouse: Warehouse, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="airflow_provider_batch"):
        assert KnownTable(warehouse.hook, table).check() is False
    assert [record.getMessage() for record in caplog.records] == [
        f"reuse_from: there is no table {table!r} yet (connection 'warehouse'), so nothing is known and every row is "
        "asked"
    ]


def test_a_table_that_may_not_be_read_is_an_error_and_not_taken_for_absent(postgres: Warehouse) -> None:
    land(postgres, [("a", "succeeded", "yes", START, "0" * 64, None, "m", "b")], columns=columns())
    postgres.execute("DROP ROLE IF EXISTS nobody_reads")
    postgres.execute("CREATE ROLE nobody_reads LOGIN PASSWORD 'nobody'")
    postgres.hook.connection.login, postgres.hook.connection.password = "nobody_reads", "nobody"
    with pytest.raises(ResultsTableError, match=r"cannot be read.*permission denied") as caught:
        KnownTable(postgres.hook, "results").check()
    assert "let this connection read it" in str(caught.value)


def test_a_mysql_table_that_may_not_be_read_is_an_error_and_not_taken_for_absent(mysql: Warehouse) -> None:
    mysql.execute("CREATE USER IF NOT EXISTS nobody_reads IDENTIFIED BY 'nobody'")
    mysql.execute("GRANT CREATE TEMPORARY TABLES ON *.* TO nobody_reads")
    mysql.hook.connection.login, mysql.hook.connection.password = "nobody_reads", "nobody"
    with pytest.raises(ResultsTableError, match="denied"):
        KnownTable(mysql.hook, "results").check()


@pytest.mark.parametrize("dialect", ["sqlite", "duckdb"])
def test_a_view_over_a_table_that_is_gone_is_there_and_an_error(request: pytest.FixtureRequest, dialect: str) -> None:
    warehouse: Warehouse = request.getfixturevalue(dialect)
    warehouse.execute("CREATE TABLE results_before AS SELECT 1 AS outcome")
    warehouse.execute("CREATE VIEW results AS SELECT * FROM results_before")
    warehouse.execute("DROP TABLE results_before")
    with pytest.raises(ResultsTableError, match="cannot be read"):
        KnownTable(warehouse.hook, "results").check()


@pytest.mark.parametrize("missing", ["outcome", "output", *NAMES])
def test_a_table_that_lacks_a_column_of_ours_is_told_with_its_name(sqlite: Warehouse, missing: str) -> None:
    names = [name for name in ("custom_id", "outcome", "output", *NAMES) if name != missing]
    sqlite.execute(f"CREATE TABLE labels ({', '.join(names)})")
    with pytest.raises(ResultsTableError, match=rf"has no column '{missing}', so it is no results table"):
        KnownTable(sqlite.hook, "labels").check()


def test_columns_are_found_in_upper_case(sqlite: Warehouse) -> None:
    sqlite.execute("CREATE TABLE labels (OUTCOME, OUTPUT, REQUEST_SHA256, FINISH_REASON, MODEL, BATCH_ID)")
    sqlite.execute("INSERT INTO labels VALUES ('succeeded', 'yes', 'h', 'stop', 'm', 'b')")
    table = KnownTable(sqlite.hook, "labels")
    assert table.check()
    assert list(table) == [("h", "yes", "stop", "m", "b")]


def test_a_name_is_data_and_no_sql(sqlite: Warehouse) -> None:
    sqlite.execute("CREATE TABLE labels (outcome)")
    assert KnownTable(sqlite.hook, 'labels"; DROP TABLE labels; --').check() is False
    assert sqlite.execute("SELECT count(*) FROM labels") == [(0,)]


@pytest.mark.parametrize("table", ["", " ", "a..b"])
def test_a_name_of_no_table_is_an_error(sqlite: Warehouse, table: str) -> None:
    with pytest.raises(InputError, match="is no table name"):
        KnownTable(sqlite.hook, table)


def test_a_database_that_does_not_answer_may_be_tried_again(postgres: Warehouse) -> None:
    table = KnownTable(postgres.hook, "results")
    postgres.hook.database = "nowhere"
    with pytest.raises(WarehouseError) as caught:
        assert table.check()
    assert caught.value.retry
