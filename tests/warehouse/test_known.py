"""Answers of earlier jobs, read from their results table."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.jobs.columns import Column, ColumnType
from airflow_provider_batch.warehouse.known import KnownTable
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
    table.check()
    assert list(table) == [("0" * 64, "yes", "stop", "m", "batch_1")]


def test_a_vector_comes_back_as_a_list_or_as_json(warehouse: Warehouse) -> None:
    rows = [("a", "succeeded", [0.5, 1.0], START, "0" * 64, None, "m", "b")]
    land(warehouse, rows, columns=columns(ColumnType.VECTOR))
    table = KnownTable(warehouse.hook, "results")
    table.check()
    ((_, output, *_),) = table
    assert (json.loads(output) if isinstance(output, str) else output) == [0.5, 1.0]


def test_a_table_is_found_in_the_case_that_the_database_gave_it(warehouse: Warehouse) -> None:
    land(warehouse, [("a", "succeeded", "yes", START, "0" * 64, None, "m", "b")], columns=columns())
    table = KnownTable(warehouse.hook, "RESULTS")
    table.check()
    assert len(list(table)) == 1


def test_a_table_that_is_not_there_is_told_before_anything_is_built(warehouse: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match=r"'nowhere' .* is not there or cannot be read") as caught:
        KnownTable(warehouse.hook, "nowhere").check()
    assert "leave reuse_from out for that run" in str(caught.value)


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
    table.check()
    assert list(table) == [("h", "yes", "stop", "m", "b")]


def test_a_name_is_data_and_no_sql(sqlite: Warehouse) -> None:
    sqlite.execute("CREATE TABLE labels (outcome)")
    with pytest.raises(ResultsTableError, match="is not there"):
        KnownTable(sqlite.hook, 'labels"; DROP TABLE labels; --').check()
    assert sqlite.execute("SELECT count(*) FROM labels") == [(0,)]


@pytest.mark.parametrize("table", ["", " ", "a..b"])
def test_a_name_of_no_table_is_an_error(sqlite: Warehouse, table: str) -> None:
    with pytest.raises(InputError, match="is no table name"):
        KnownTable(sqlite.hook, table)


def test_a_database_that_does_not_answer_may_be_tried_again(postgres: Warehouse) -> None:
    table = KnownTable(postgres.hook, "results")
    postgres.hook.database = "nowhere"
    with pytest.raises(WarehouseError) as caught:
        table.check()
    assert caught.value.retry
