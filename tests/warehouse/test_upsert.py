"""The row with the higher rank stays, in every dialect."""

from __future__ import annotations

import itertools
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import WarehouseError
from airflow_provider_batch.warehouse import rows as chunking
from airflow_provider_batch.warehouse.sinks import postgres
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import MYSQL_DRIVERS, Warehouse
from tests.warehouse.landing import COLUMNS, Row, land, landed_rows, row


def test_rows_are_inserted_and_counted(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    sink.prepare()
    assert sink.write([row("a", "1"), row("b", "2"), row("a", "3")]) == 3
    assert landed_rows(warehouse) == {"a": ("succeeded", "3"), "b": ("succeeded", "2")}


def test_no_rows_make_an_empty_table(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    assert sink.write([]) == 0
    assert landed_rows(warehouse) == {}


def test_writing_the_same_rows_again_changes_nothing(warehouse: Warehouse) -> None:
    rows = [row("a", "1"), row("a", "2", "pending"), row("b", "3", "failed"), row("c", "4", "withheld")]
    land(warehouse, rows)
    first = warehouse.execute("SELECT * FROM results ORDER BY custom_id")
    land(warehouse, rows, rows)
    assert warehouse.execute("SELECT * FROM results ORDER BY custom_id") == first


def test_the_later_seal_wins_whatever_its_outcome_and_the_order_of_landing(warehouse: Warehouse) -> None:
    older, newer = [row("a", "old", minute=1)], [row("a", "new", "failed", minute=2)]
    land(warehouse, older, newer)
    assert landed_rows(warehouse) == {"a": ("failed", "new")}
    land(warehouse, older)
    assert landed_rows(warehouse) == {"a": ("failed", "new")}


def test_of_rows_sealed_at_the_same_time_the_last_written_wins(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1"), row("a", "2")])
    assert landed_rows(warehouse) == {"a": ("succeeded", "2")}
    land(warehouse, [row("a", "3", "failed")])
    assert landed_rows(warehouse) == {"a": ("failed", "3")}


@pytest.mark.parametrize("outcome", ["pending", "withheld"])
def test_a_row_without_an_outcome_is_inserted_but_replaces_nothing(warehouse: Warehouse, outcome: str) -> None:
    land(warehouse, [row("a", "answer", "failed", minute=1)])
    land(warehouse, [row("a", "", outcome, minute=2), row("b", "", outcome, minute=2)])
    assert landed_rows(warehouse) == {"a": ("failed", "answer"), "b": (outcome, "")}


def test_any_outcome_replaces_a_row_without_one(warehouse: Warehouse) -> None:
    # This holds even for an earlier seal: if it had landed first, the pending row would not have replaced it.
    land(warehouse, [row("a", "", "pending", minute=2)])
    land(warehouse, [row("a", "answer", "refused", minute=1)])
    assert landed_rows(warehouse) == {"a": ("refused", "answer")}


def test_keep_last_success_lets_only_a_success_replace_a_success(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1", minute=1)], keep_last_success=True)
    land(warehouse, [row("a", "2", "failed", minute=2)], keep_last_success=True)
    assert landed_rows(warehouse) == {"a": ("succeeded", "1")}
    land(warehouse, [row("a", "3", minute=3)], keep_last_success=True)
    assert landed_rows(warehouse) == {"a": ("succeeded", "3")}


def test_keep_last_success_keeps_the_success_whatever_the_order_of_landing(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "2", "failed", minute=2)], keep_last_success=True)
    land(warehouse, [row("a", "1", minute=1)], keep_last_success=True)
    assert landed_rows(warehouse) == {"a": ("succeeded", "1")}


def test_a_row_without_sealed_at_is_replaced(warehouse: Warehouse) -> None:
    land(warehouse, [])
    warehouse.execute("INSERT INTO results (custom_id, output) VALUES ('a', 'by hand'), ('b', 'by hand')")
    land(warehouse, [row("a", "1"), row("b", "", "pending")])
    assert landed_rows(warehouse) == {"a": ("succeeded", "1"), "b": (None, "by hand")}


def test_columns_that_are_not_ours_keep_their_values(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1"), row("b", "1")])
    warehouse.execute("ALTER TABLE results ADD COLUMN note text")
    warehouse.execute("UPDATE results SET note = 'checked by hand' WHERE custom_id = 'a'")
    land(warehouse, [row("a", "2", minute=1), row("b", "2", minute=1), row("c", "2", minute=1)])
    result = warehouse.execute("SELECT custom_id, output, note FROM results ORDER BY custom_id")
    assert result == [("a", "2", "checked by hand"), ("b", "2", None), ("c", "2", None)]


def test_a_key_may_have_several_columns_of_several_types(warehouse: Warehouse) -> None:
    columns = (
        Column("run", ColumnType.TEXT, key=True),
        Column("part", ColumnType.INTEGER, key=True),
        *COLUMNS,
        Column("day", ColumnType.DATE, key=True),
    )
    day, next_day = datetime(2026, 11, 20).date(), datetime(2026, 11, 21).date()
    first = [("r1", 1, *row("a", "1"), day), ("r2", 1, *row("a", "2"), day), ("r1", 10, *row("a", "3"), day)]
    second = [("r1", 1, *row("a", "4", minute=1), day), ("r1", 1, *row("a", "5", minute=1), next_day)]
    land(warehouse, first, second, columns=columns)
    result = warehouse.execute("SELECT run, part, output FROM results ORDER BY output")
    assert result == [("r2", 1, "2"), ("r1", 10, "3"), ("r1", 1, "4"), ("r1", 1, "5")]


def test_one_write_is_one_transaction(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "CHUNK_ROWS", 2)
    monkeypatch.setattr(chunking, "_SAMPLE_ROWS", 1)
    land(warehouse, [row("a", "kept")])

    def failing_rows() -> Iterator[Row]:
        for n in range(20):
            yield row(f"k{n}")
        yield row("a", "lost")
        raise LookupError("staging went away")

    sink = open_sink(warehouse.hook, "results", COLUMNS)
    with pytest.raises(LookupError, match="staging went away"):
        sink.write(failing_rows())
    assert landed_rows(warehouse) == {"a": ("succeeded", "kept")}
    assert sink.write([row("b")]) == 1


def test_a_landing_takes_little_memory(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    sink.prepare()
    tracemalloc.start()
    try:
        assert sink.write(row(f"k{n}", f"{n:01000}") for n in range(40_000)) == 40_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000  # all rows together are over 50 MB


def test_an_error_of_this_package_in_the_rows_is_passed_on(warehouse: Warehouse) -> None:
    error = WarehouseError("as it was")

    def failing_rows() -> Iterator[Row]:
        yield row("a")
        raise error

    with pytest.raises(WarehouseError) as exc_info:
        land(warehouse, failing_rows())
    assert exc_info.value is error


outcomes = st.sampled_from(["succeeded", "failed", "refused", "pending", "withheld"])
answers = st.tuples(st.sampled_from("abcd"), outcomes)
jobs = st.lists(st.lists(answers, max_size=6), min_size=1, max_size=4)


def model(landings: list[list[Row]], keep_last_success: bool) -> dict[str, tuple[str, str]]:
    """Return the expected content of the table, by the simplest implementation: row by row."""
    table: dict[str, Row] = {}
    for new_row in itertools.chain.from_iterable(landings):
        key, outcome = new_row[0], new_row[1]
        old_row = table.get(key)
        if old_row is None:
            table[key] = new_row
        elif outcome in ("pending", "withheld"):
            continue
        elif old_row[1] in ("pending", "withheld"):
            table[key] = new_row
        elif keep_last_success and (old_row[1] == "succeeded") != (outcome == "succeeded"):
            table[key] = new_row if outcome == "succeeded" else old_row
        elif new_row[4] >= old_row[4]:
            table[key] = new_row
    return {key: (result[1], result[2]) for key, result in table.items()}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    jobs=jobs,
    repetitions=st.lists(st.integers(0, 3), max_size=4),
    chunk=st.integers(1, 7),
    keep_last_success=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_table_agrees_with_the_model_for_any_landings_order_and_chunks(
    warehouse: Warehouse,
    jobs: list[list[tuple[str, str]]],
    repetitions: list[int],
    chunk: int,
    keep_last_success: bool,
    shuffle: Any,
) -> None:
    job_rows = [
        [
            row(key, f"job {number} line {line}", outcome, minute=number, job=str(number))
            for line, (key, outcome) in enumerate(job)
        ]
        for number, job in enumerate(jobs)
    ]
    landings = job_rows + [job_rows[number % len(job_rows)] for number in repetitions]
    shuffle.shuffle(landings)
    expected = model(landings, keep_last_success)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "CHUNK_ROWS", chunk)
        patch.setattr(chunking, "_SAMPLE_ROWS", 1)
        patch.setattr(chunking, "_BATCH_ROWS", chunk)
        patch.setattr(postgres, "_BLOCK_CHARACTERS", 1)
        land(warehouse, *landings, keep_last_success=keep_last_success)
    result = landed_rows(warehouse)
    # Once every job has landed, only rows without an outcome depend on the order of landing.
    with_outcome = {key for job in job_rows for key, outcome, *_ in job if outcome not in ("pending", "withheld")}
    expected_in_order = model(job_rows, keep_last_success)
    warehouse.execute("DROP TABLE results")
    assert result == expected
    assert {key: result[key] for key in with_outcome} == {key: expected_in_order[key] for key in with_outcome}


@pytest.mark.parametrize("warehouse", ["duckdb", "psycopg", "psycopg2", *MYSQL_DRIVERS], indirect=True)
@pytest.mark.parametrize("attempt", range(3))
def test_concurrent_landings_have_the_same_result(warehouse: Warehouse, attempt: int) -> None:
    keys = [f"k{n:04}" for n in range(3000)]
    first = [row(key, "first", minute=1) for key in keys]
    second = [row(key, "second", minute=2) for key in reversed(keys)]
    land(warehouse, [])
    gate = threading.Barrier(4)

    def land_once(rows: list[Row]) -> None:
        sink = open_sink(warehouse.hook, "results", COLUMNS)
        sink.prepare()

        def gated_rows() -> Iterator[Row]:
            gate.wait(60)
            yield from rows

        sink.write(gated_rows())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land_once, (first, second, second, first)))
    assert landed_rows(warehouse) == dict.fromkeys(keys, ("succeeded", "second"))


def test_tasks_that_create_the_table_concurrently_all_find_it(warehouse: Warehouse) -> None:
    gate = threading.Barrier(4)
    if warehouse.dialect == "generic":
        pytest.skip("not every database has a lock, so one of the tasks may have to be retried")

    def land_once(number: int) -> None:
        sink = open_sink(warehouse.hook, "results", COLUMNS)
        gate.wait(60)
        sink.prepare()
        sink.write([row(str(number))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land_once, range(4)))
    assert len(landed_rows(warehouse)) == 4
