"""Which row stays, in every dialect: by key, by rank, and never by luck."""

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
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import MYSQL_DRIVERS, Warehouse
from tests.warehouse.landing import COLUMNS, Row, land, landed, row


def test_rows_are_inserted_and_counted(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    sink.prepare()
    assert sink.write([row("a", "1"), row("b", "2"), row("a", "3")]) == 3
    assert landed(warehouse) == {"a": ("succeeded", "3"), "b": ("succeeded", "2")}


def test_no_rows_make_an_empty_table(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    assert sink.write([]) == 0
    assert landed(warehouse) == {}


def test_writing_the_same_again_changes_nothing(warehouse: Warehouse) -> None:
    rows = [row("a", "1"), row("a", "2", "pending"), row("b", "3", "failed"), row("c", "4", "withheld")]
    land(warehouse, rows)
    first = warehouse.execute("SELECT * FROM results ORDER BY custom_id")
    land(warehouse, rows, rows)
    assert warehouse.execute("SELECT * FROM results ORDER BY custom_id") == first


def test_the_later_seal_wins_whatever_its_outcome_and_whoever_lands_last(warehouse: Warehouse) -> None:
    older, newer = [row("a", "old", sealed=1)], [row("a", "new", "failed", sealed=2)]
    land(warehouse, older, newer)
    assert landed(warehouse) == {"a": ("failed", "new")}
    land(warehouse, older)
    assert landed(warehouse) == {"a": ("failed", "new")}


def test_of_equal_seals_the_last_written_wins(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1"), row("a", "2")])
    assert landed(warehouse) == {"a": ("succeeded", "2")}
    land(warehouse, [row("a", "3", "failed")])
    assert landed(warehouse) == {"a": ("failed", "3")}


@pytest.mark.parametrize("outcome", ["pending", "withheld"])
def test_a_row_without_an_outcome_is_inserted_but_replaces_nothing(warehouse: Warehouse, outcome: str) -> None:
    land(warehouse, [row("a", "answer", "failed", sealed=1)])
    land(warehouse, [row("a", "", outcome, sealed=2), row("b", "", outcome, sealed=2)])
    assert landed(warehouse) == {"a": ("failed", "answer"), "b": (outcome, "")}


def test_any_outcome_replaces_a_row_without_one(warehouse: Warehouse) -> None:
    # Also an earlier seal's: had it landed first, the row without an outcome would not have replaced it.
    land(warehouse, [row("a", "", "pending", sealed=2)])
    land(warehouse, [row("a", "answer", "refused", sealed=1)])
    assert landed(warehouse) == {"a": ("refused", "answer")}


def test_keep_last_success_lets_only_a_success_replace_a_success(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1", sealed=1)], keep_last_success=True)
    land(warehouse, [row("a", "2", "failed", sealed=2)], keep_last_success=True)
    assert landed(warehouse) == {"a": ("succeeded", "1")}
    land(warehouse, [row("a", "3", sealed=3)], keep_last_success=True)
    assert landed(warehouse) == {"a": ("succeeded", "3")}


def test_keep_last_success_finds_the_success_whichever_landed_first(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "2", "failed", sealed=2)], keep_last_success=True)
    land(warehouse, [row("a", "1", sealed=1)], keep_last_success=True)
    assert landed(warehouse) == {"a": ("succeeded", "1")}


def test_a_row_that_was_entered_by_hand_without_a_seal_is_replaced(warehouse: Warehouse) -> None:
    land(warehouse, [])
    warehouse.execute("INSERT INTO results (custom_id, output) VALUES ('a', 'by hand'), ('b', 'by hand')")
    land(warehouse, [row("a", "1"), row("b", "", "pending")])
    assert landed(warehouse) == {"a": ("succeeded", "1"), "b": (None, "by hand")}


def test_columns_that_are_not_ours_keep_their_values(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1"), row("b", "1")])
    warehouse.execute("ALTER TABLE results ADD COLUMN note text")
    warehouse.execute("UPDATE results SET note = 'checked by hand' WHERE custom_id = 'a'")
    land(warehouse, [row("a", "2", sealed=1), row("b", "2", sealed=1), row("c", "2", sealed=1)])
    found = warehouse.execute("SELECT custom_id, output, note FROM results ORDER BY custom_id")
    assert found == [("a", "2", "checked by hand"), ("b", "2", None), ("c", "2", None)]


def test_a_key_may_have_several_columns_of_several_types(warehouse: Warehouse) -> None:
    columns = (
        Column("run", ColumnType.TEXT, key=True),
        Column("part", ColumnType.INTEGER, key=True),
        *COLUMNS,
        Column("day", ColumnType.DATE, key=True),
    )
    day, next_day = datetime(2026, 11, 20).date(), datetime(2026, 11, 21).date()
    first = [("r1", 1, *row("a", "1"), day), ("r2", 1, *row("a", "2"), day), ("r1", 10, *row("a", "3"), day)]
    second = [("r1", 1, *row("a", "4", sealed=1), day), ("r1", 1, *row("a", "5", sealed=1), next_day)]
    land(warehouse, first, second, columns=columns)
    found = warehouse.execute("SELECT run, part, output FROM results ORDER BY output")
    assert found == [("r2", 1, "2"), ("r1", 10, "3"), ("r1", 1, "4"), ("r1", 1, "5")]


def test_everything_of_one_write_is_one_transaction(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking.chunks, "__defaults__", (2,))
    land(warehouse, [row("a", "kept")])

    def breaking_off() -> Iterator[Row]:
        for n in range(20):
            yield row(f"k{n}")
        yield row("a", "lost")
        raise LookupError("staging went away")

    sink = open_sink(warehouse.hook, "results", COLUMNS)
    with pytest.raises(LookupError, match="staging went away"):
        sink.write(breaking_off())
    assert landed(warehouse) == {"a": ("succeeded", "kept")}
    assert sink.write([row("b")]) == 1


def test_a_landing_passes_through_little_memory(warehouse: Warehouse) -> None:
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    sink.prepare()
    tracemalloc.start()
    try:
        assert sink.write(row(f"k{n}", f"{n:01000}") for n in range(40_000)) == 40_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000  # all of them are over 50 MB


def test_an_error_of_our_own_in_the_rows_is_passed_on(warehouse: Warehouse) -> None:
    error = WarehouseError("as it was")

    def breaking_off() -> Iterator[Row]:
        yield row("a")
        raise error

    with pytest.raises(WarehouseError) as caught:
        land(warehouse, breaking_off())
    assert caught.value is error


outcomes = st.sampled_from(["succeeded", "failed", "refused", "pending", "withheld"])
answers = st.tuples(st.sampled_from("abcd"), outcomes)
jobs = st.lists(st.lists(answers, max_size=6), min_size=1, max_size=4)


def model(landings: list[list[Row]], keep_last_success: bool) -> dict[str, tuple[str, str]]:
    """What must be in the table, row after row, in the plainest words."""
    table: dict[str, Row] = {}
    for new in itertools.chain.from_iterable(landings):
        key, outcome = new[0], new[1]
        old = table.get(key)
        if old is None:
            table[key] = new
        elif outcome in ("pending", "withheld"):
            continue
        elif old[1] in ("pending", "withheld"):
            table[key] = new
        elif keep_last_success and (old[1] == "succeeded") != (outcome == "succeeded"):
            table[key] = new if outcome == "succeeded" else old
        elif new[4] >= old[4]:
            table[key] = new
    return {key: (found[1], found[2]) for key, found in table.items()}


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    jobs=jobs,
    again=st.lists(st.integers(0, 3), max_size=4),
    chunk=st.integers(1, 7),
    keep_last_success=st.booleans(),
    shuffle=st.randoms(use_true_random=False),
)
def test_the_table_is_that_of_the_model_for_any_landings_order_and_chunks(
    warehouse: Warehouse,
    jobs: list[list[tuple[str, str]]],
    again: list[int],
    chunk: int,
    keep_last_success: bool,
    shuffle: Any,
) -> None:
    sealed = [
        [
            row(key, f"job {number} line {line}", outcome, sealed=number, job=str(number))
            for line, (key, outcome) in enumerate(job)
        ]
        for number, job in enumerate(jobs)
    ]
    landings = sealed + [sealed[number % len(sealed)] for number in again]
    shuffle.shuffle(landings)
    expected = model(landings, keep_last_success)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking.chunks, "__defaults__", (chunk,))
        land(warehouse, *landings, keep_last_success=keep_last_success)
    found = landed(warehouse)
    # Once each job has landed, only rows without an outcome depend on who came first.
    with_outcome = {key for job in sealed for key, outcome, *_ in job if outcome not in ("pending", "withheld")}
    ordered = model(sealed, keep_last_success)
    warehouse.execute("DROP TABLE results")
    assert found == expected
    assert {key: found[key] for key in with_outcome} == {key: ordered[key] for key in with_outcome}


@pytest.mark.parametrize("warehouse", ["duckdb", "psycopg", "psycopg2", *MYSQL_DRIVERS], indirect=True)
@pytest.mark.parametrize("round_", range(3))
def test_two_landings_at_once_end_the_same(warehouse: Warehouse, round_: int) -> None:
    keys = [f"k{n:04}" for n in range(3000)]
    first = [row(key, "first", sealed=1) for key in keys]
    second = [row(key, "second", sealed=2) for key in reversed(keys)]
    land(warehouse, [])
    gate = threading.Barrier(4)

    def one(rows: list[Row]) -> None:
        sink = open_sink(warehouse.hook, "results", COLUMNS)
        sink.prepare()

        def at_once() -> Iterator[Row]:
            gate.wait(60)
            yield from rows

        sink.write(at_once())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, (first, second, second, first)))
    assert landed(warehouse) == dict.fromkeys(keys, ("succeeded", "second"))


def test_tasks_that_create_the_table_at_once_all_find_it(warehouse: Warehouse) -> None:
    gate = threading.Barrier(4)
    if warehouse.dialect == "generic":
        pytest.skip("without a lock that every database has, one of them may have to be run again")

    def one(number: int) -> None:
        sink = open_sink(warehouse.hook, "results", COLUMNS)
        gate.wait(60)
        sink.prepare()
        sink.write([row(str(number))])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(one, range(4)))
    assert len(landed(warehouse)) == 4
