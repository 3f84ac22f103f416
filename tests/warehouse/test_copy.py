"""A landing copies its rows directly into an empty table of PostgreSQL. Only the time that it takes shows it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from airflow_provider_batch.warehouse import rows as chunking
from airflow_provider_batch.warehouse.sinks import postgres as postgres_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import Row, land, landed_rows, row

#: sessions that wait for an advisory lock or hold one
ADVISORY_LOCKS = "SELECT granted FROM pg_locks WHERE locktype = 'advisory'"


def create_results(warehouse: Warehouse, constraint: str = "") -> None:
    warehouse.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, "
        f"sealed_at timestamptz, note text DEFAULT 'new' {constraint})"
    )


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a block of every two rows."""
    monkeypatch.setattr(chunking, "_BATCH_ROWS", 2)
    monkeypatch.setattr(postgres_sink, "_BLOCK_CHARACTERS", 1)


def advisory_locks_during(warehouse: Warehouse) -> list[bool]:
    """Return the advisory locks while a landing into the table reads its rows."""
    locks: list[bool] = []

    def rows() -> Iterator[Row]:
        yield row("a")
        locks.extend(granted for (granted,) in warehouse.execute(ADVISORY_LOCKS))

    land(warehouse, rows())
    return locks


def test_only_an_empty_table_without_triggers_is_copied_into(postgres: Warehouse) -> None:
    create_results(postgres)
    assert advisory_locks_during(postgres) == [True]
    assert advisory_locks_during(postgres) == []
    postgres.execute("DELETE FROM results")
    assert advisory_locks_during(postgres) == [True]
    postgres.execute("DELETE FROM results")
    postgres.execute(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.note = 'from the trigger'; RETURN NEW; END $$"
    )
    postgres.execute("CREATE TRIGGER stamp BEFORE INSERT ON results FOR EACH ROW EXECUTE FUNCTION stamp()")
    assert advisory_locks_during(postgres) == []
    assert postgres.execute("SELECT custom_id, note FROM results") == [("a", "from the trigger")]


def test_columns_that_are_not_ours_get_their_defaults(postgres: Warehouse) -> None:
    create_results(postgres, ", seen integer GENERATED ALWAYS AS (length(output)) STORED")
    land(postgres, [row("a", "three")])
    assert postgres.execute("SELECT custom_id, note, seen FROM results") == [("a", "new", 5)]


def test_the_last_row_of_a_key_stays_wherever_the_rows_before_it_are(postgres: Warehouse, small_blocks: None) -> None:
    rows = [row(f"k{number}", "first") for number in range(9)]
    land(postgres, [*rows, row("k1", "second"), row("k8", "", "pending"), row("new"), row("k1", "third")])
    assert landed_rows(postgres) == {
        **{f"k{number}": ("succeeded", "first") for number in range(9)},
        "k1": ("succeeded", "third"),
        "new": ("succeeded", "x"),
    }


def test_a_refused_row_costs_itself_alone_in_whichever_block_it_is(postgres: Warehouse, small_blocks: None) -> None:
    for number in range(6):
        create_results(postgres, "CHECK (output <> 'bad')")
        keys = [f"k{key}" for key in range(6)]
        refusals = land(postgres, [row(key, "bad" if key == f"k{number}" else "good") for key in keys])
        assert [(refusal.custom_id, refusal.column) for refusal in refusals] == [(f"k{number}", "output")]
        assert landed_rows(postgres) == {
            key: ("invalid_output", None) if key == f"k{number}" else ("succeeded", "good") for key in keys
        }
        postgres.execute("DROP TABLE results")


def test_a_landing_that_fails_leaves_the_table_empty(postgres: Warehouse, small_blocks: None) -> None:
    def rows() -> Iterator[Row]:
        yield from (row(f"k{number}") for number in range(5))
        raise RuntimeError("the staging folder is gone")

    create_results(postgres)
    with pytest.raises(RuntimeError):
        land(postgres, rows())
    assert landed_rows(postgres) == {}


def test_readers_and_other_writers_carry_on_while_rows_are_copied(postgres: Warehouse, small_blocks: None) -> None:
    def rows() -> Iterator[Row]:
        yield from (row(f"k{number}") for number in range(4))
        assert postgres.execute("SELECT count(*) FROM results") == [(0,)]
        postgres.execute("INSERT INTO results (custom_id, outcome, output) VALUES ('theirs', 'succeeded', 'y')")
        postgres.execute("INSERT INTO results (custom_id, output, outcome) VALUES ('k5', 'theirs', 'failed')")
        yield from (row(f"k{number}") for number in range(4, 7))

    create_results(postgres)
    land(postgres, rows())
    ours = {f"k{number}": ("succeeded", "x") for number in range(7)}
    assert landed_rows(postgres) == ours | {"theirs": ("succeeded", "y")}


def test_a_second_landing_of_the_same_keys_waits_for_the_one_that_copies(
    postgres: Warehouse, small_blocks: None
) -> None:
    keys = [f"k{number}" for number in range(50)]

    def rows() -> Iterator[Row]:
        yield from (row(key, "first", minute=1) for key in keys[:25])
        second = pool.submit(land, postgres, [row(key, "second", minute=2) for key in reversed(keys)])
        while (False,) not in postgres.execute(ADVISORY_LOCKS):
            assert not second.done()
        yield from (row(key, "first", minute=1) for key in keys[25:])

    create_results(postgres)
    with ThreadPoolExecutor(1) as pool:
        land(postgres, rows())
    assert landed_rows(postgres) == dict.fromkeys(keys, ("succeeded", "second"))
