"""A value that the database refuses costs its row, and all other rows land."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.landing.refusals import Refusal
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import refusals as refusals_module
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, START, row

MESSAGES = (Column("error_code", ColumnType.TEXT), Column("error_message", ColumnType.TEXT))


def create_results(warehouse: Warehouse, *extra: str) -> None:
    """Create a results table with the columns that every landing writes, and `extra` columns and constraints."""
    text = "varchar(3000)"
    warehouse.execute(
        f"CREATE TABLE results (custom_id {warehouse.text_key_type} NOT NULL PRIMARY KEY, outcome {text}, "
        f"output {text}, job_uid {text}, sealed_at {warehouse.timestamp_type}, error_code {text}, "
        f"error_message {text}{''.join(f', {part}' for part in extra)})"
    )


def land(warehouse: Warehouse, rows: Iterable[tuple[Any, ...]], *extra: Column, **options: Any) -> tuple[Refusal, ...]:
    """Land rows, each followed by no error and the values of `extra`, and return the refusals."""
    sink = open_sink(warehouse.hook, "results", (*COLUMNS, *MESSAGES, *extra), create=False, **options)
    assert isinstance(sink, TableSink)
    sink.prepare()
    sink.write((*values[:5], None, None, *values[5:]) for values in rows)
    return sink.refusals


def table(warehouse: Warehouse, *columns: str) -> dict[str, tuple[Any, ...]]:
    names = ", ".join(("custom_id", *columns))
    return {key: tuple(values) for key, *values in warehouse.execute(f"SELECT {names} FROM results")}


def test_a_row_that_violates_a_check_lands_without_its_value(warehouse: Warehouse) -> None:
    create_results(warehouse, "CHECK (length(output) < 6)")
    rows = [row(f"row {number}", "secret" if number in (2, 7) else "x") for number in range(9)]
    rows.append(row("failed", "secret", outcome="failed"))
    refusals = land(warehouse, rows)

    assert {(refusal.custom_id, refusal.column, refusal.landed) for refusal in refusals} == {
        ("failed", "output", True),
        ("row 2", "output", True),
        ("row 7", "output", True),
    }
    landed = table(warehouse, "outcome", "output", "error_code")
    assert landed.pop("failed") == ("failed", None, None)
    for number in range(9):
        bad = number in (2, 7)
        assert landed[f"row {number}"] == (("invalid_output", None, "storage") if bad else ("succeeded", "x", None))
    ((message,),) = warehouse.execute("SELECT error_message FROM results WHERE custom_id = 'row 2'")
    assert message.startswith("The results table cannot store every value. output: ")
    for text in (message, *(refusal.message for refusal in refusals)):
        assert "secret" not in text


def test_the_rows_land_in_full_once_the_table_takes_them(warehouse: Warehouse) -> None:
    create_results(warehouse, "x integer", "CHECK (x > 0)")
    rows = [(*row(key), number) for number, key in enumerate("abc")]
    x = Column("x", ColumnType.INTEGER)
    assert [refusal.custom_id for refusal in land(warehouse, rows, x)] == ["a"]
    assert [refusal.custom_id for refusal in land(warehouse, rows, x)] == ["a"]
    assert table(warehouse, "outcome", "x") == {
        "a": ("invalid_output", None),
        "b": ("succeeded", 1),
        "c": ("succeeded", 2),
    }
    warehouse.execute("ALTER TABLE results RENAME TO old")
    create_results(warehouse, "x integer")
    warehouse.execute("INSERT INTO results SELECT * FROM old")
    assert land(warehouse, rows, x) == ()
    assert table(warehouse, "outcome", "error_code", "x") == {
        key: ("succeeded", None, number) for number, key in enumerate("abc")
    }


def test_a_row_that_cannot_land_at_all_is_reported(warehouse: Warehouse) -> None:
    create_results(warehouse, "x integer NOT NULL")
    rows = [(*row(key), None if key == "b" else 1) for key in "abc"]
    (refusal,) = land(warehouse, rows, Column("x", ColumnType.INTEGER))
    assert (refusal.custom_id, refusal.landed, refusal.lost_success) == ("b", False, True)
    assert "x" in refusal.message
    assert set(table(warehouse)) == {"a", "c"}


def test_only_the_best_row_of_a_key_is_judged(warehouse: Warehouse) -> None:
    create_results(warehouse, "CHECK (output <> 'bad')")
    # the better answer of a row comes later
    assert land(warehouse, [row("a", "bad", "failed"), row("b"), row("c", "bad"), row("a", "good")]) != ()
    assert table(warehouse, "outcome", "output") == {
        "a": ("succeeded", "good"),
        "b": ("succeeded", "x"),
        "c": ("invalid_output", None),
    }
    (refusal,) = land(warehouse, [row("a", "good", "failed"), row("a", "bad"), row("b", "y")])
    assert refusal.custom_id == "a"
    assert table(warehouse, "outcome", "output")["a"] == ("invalid_output", None)


def test_several_values_of_a_row_are_left_out_if_one_is_not_enough(warehouse: Warehouse) -> None:
    create_results(warehouse, "x integer CHECK (x > 0)", "y integer CHECK (y > 0)")
    columns = (Column("x", ColumnType.INTEGER), Column("y", ColumnType.INTEGER))
    refusals = land(warehouse, [(*row("a"), 0, 0), (*row("b"), 1, 0), (*row("c"), 1, 1)], *columns)
    assert {refusal.custom_id: refusal.column for refusal in refusals} == {"a": "", "b": "y"}
    assert table(warehouse, "output", "x", "y") == {"a": (None, None, None), "b": ("x", 1, None), "c": ("x", 1, 1)}


def test_an_earlier_success_stays_if_the_table_keeps_successes(warehouse: Warehouse) -> None:
    create_results(warehouse, "CHECK (output <> 'bad')")
    land(warehouse, [row("a", "old"), row("b", "old")])
    (refusal,) = land(warehouse, [row("a", "bad", minute=1), row("b", "new", minute=1)], keep_last_success=True)
    assert refusal.custom_id == "a"
    assert table(warehouse, "outcome", "output") == {"a": ("succeeded", "old"), "b": ("succeeded", "new")}


def test_a_table_that_refuses_too_many_rows_fails_the_landing(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals_module, "MAX_REFUSED_ROWS", 10)
    create_results(warehouse, "CHECK (output <> 'bad')")
    rows = [row(f"{number:02}", "bad" if number > 4 else "x") for number in range(30)]
    with pytest.raises(ResultsTableError, match=r"refuses more than 10 rows, .*output.*committed.*clear this task"):
        land(warehouse, rows)
    # DuckDB has no savepoints
    assert len(table(warehouse)) == (16 if warehouse.is_duckdb else 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bad=st.lists(st.booleans(), min_size=1, max_size=40), data=st.data())
def test_exactly_the_rows_that_the_table_takes_land_in_full(
    warehouse: Warehouse, bad: list[bool], data: st.DataObject
) -> None:
    warehouse.execute("DROP TABLE IF EXISTS results")
    create_results(warehouse, "x integer", "y varchar(10)", "CHECK (x > 0)", "CHECK (y <> 'bad')")
    columns = (Column("x", ColumnType.INTEGER), Column("y", ColumnType.TEXT))
    rows = []
    for number, is_bad in enumerate(bad):
        x, y = data.draw(st.sampled_from([(0, "a"), (1, "bad"), (0, "bad")])) if is_bad else (number + 1, "a")
        rows.append((*row(f"{number}", f"{number}"), x, y))
    refusals = land(warehouse, data.draw(st.permutations(rows)), *columns)
    assert {refusal.custom_id for refusal in refusals} == {f"{n}" for n, is_bad in enumerate(bad) if is_bad}
    landed = table(warehouse, "outcome", "x", "y")
    assert landed.keys() == {f"{number}" for number in range(len(bad))}
    for custom_id, _, _, _, _, x, y in rows:
        if bad[int(custom_id)]:
            assert landed[custom_id][0] == "invalid_output"
        else:
            assert landed[custom_id] == ("succeeded", x, y)


def test_statements_grow_with_the_logarithm_of_the_rows(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    create_results(warehouse, "CHECK (output <> 'bad')")
    calls = []
    for cls in (
        "refusals:TemporaryRows",
        "sinks.sqlite:_ChunkRows",
        "sinks.generic:_ChunkRows",
        "sinks.duckdb:_LandingRows",
    ):
        module, _, name = cls.partition(":")
        class_ = getattr(pytest.importorskip(f"airflow_provider_batch.warehouse.{module}"), name)
        store = class_.store

        def count(self: Any, *args: Any, store: Any = store) -> Any:
            calls.append(args)
            return store(self, *args)

        monkeypatch.setattr(class_, "store", count)
    land(warehouse, (row(f"{number:04}", "bad" if number == 2345 else "x") for number in range(4096)))
    assert len(calls) <= 2 * 12 + 3


POSTGRES_TABLES = {
    "domain": ("CREATE DOMAIN small AS integer CHECK (value < 100)", "x small", ColumnType.INTEGER, 5, 500),
    "numeric": ("", "x numeric(4, 2)", ColumnType.NUMERIC, Decimal("1.5"), Decimal("98765.4")),
    "unique": ("", "x integer UNIQUE", ColumnType.INTEGER, 5, 1),
    "deferred unique": ("", "x integer UNIQUE DEFERRABLE INITIALLY DEFERRED", ColumnType.INTEGER, 5, 1),
    "foreign key": (
        "CREATE TABLE parents (id integer PRIMARY KEY); INSERT INTO parents VALUES (1), (5)",
        "x integer REFERENCES parents DEFERRABLE INITIALLY DEFERRED",
        ColumnType.INTEGER,
        5,
        98765,
    ),
    "exclusion": ("", "x integer, EXCLUDE USING btree (x WITH =)", ColumnType.INTEGER, 5, 1),
    "large key": (
        "",
        "x text UNIQUE",
        ColumnType.TEXT,
        "a",
        "".join(chr(0x4E00 + (7919 * number) % 20000) for number in range(9000)),
    ),
    "json": ("", "x jsonb CHECK (jsonb_typeof(x) = 'object')", ColumnType.JSON, {}, [98765]),
}


@pytest.mark.parametrize("kind", POSTGRES_TABLES)
def test_postgres_refuses_one_row(postgres: Warehouse, kind: str) -> None:
    setup, definition, type_, good, bad = POSTGRES_TABLES[kind]
    for statement in filter(None, setup.split("; ")):
        postgres.execute(statement)
    create_results(postgres, definition)
    if kind in ("unique", "deferred unique", "exclusion"):
        land(postgres, [(*row("before"), 1)], Column("x", type_))
    (refusal,) = land(postgres, [(*row("a"), good), (*row("b"), bad), (*row("c"), None)], Column("x", type_))
    assert (refusal.custom_id, refusal.column, refusal.landed) == ("b", "x", True)
    assert "98765" not in refusal.message
    landed = table(postgres, "outcome", "x")
    assert landed["a"] == ("succeeded", good)
    assert landed["b"] == ("invalid_output", None)
    assert landed["c"] == ("succeeded", None)


def test_a_trigger_of_postgres_refuses_a_row_without_showing_its_message(postgres: Warehouse) -> None:
    create_results(postgres)
    postgres.execute(
        "CREATE FUNCTION check_output() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.output = 'secret' THEN "
        "RAISE EXCEPTION 'bad output %', NEW.output; END IF; RETURN NEW; END $$"
    )
    postgres.execute("CREATE TRIGGER t BEFORE INSERT OR UPDATE ON results FOR EACH ROW EXECUTE FUNCTION check_output()")
    (refusal,) = land(postgres, [row("a"), row("b", "secret"), row("c")])
    assert refusal.message == "the function check_output refused the row (SQLSTATE P0001)"
    assert table(postgres, "output") == {"a": ("x",), "b": (None,), "c": ("x",)}


def test_constraints_of_sqlite_that_ignore_or_replace_lose_no_row(sqlite: Warehouse) -> None:
    create_results(
        sqlite,
        "x integer UNIQUE ON CONFLICT REPLACE",
        "y integer UNIQUE ON CONFLICT IGNORE",
        "z integer UNIQUE ON CONFLICT ROLLBACK",
    )
    columns = [Column(name, ColumnType.INTEGER) for name in "xyz"]
    rows = [
        (*row("a"), 1, 1, 1),
        (*row("b"), 1, 2, 2),
        (*row("c"), 3, 1, 3),
        (*row("d"), 4, 4, 1),
        (*row("e"), 5, 5, 5),
    ]
    refusals = land(sqlite, rows, *columns)
    assert {refusal.custom_id: refusal.column for refusal in refusals} == {"b": "x", "c": "y", "d": "z"}
    assert table(sqlite, "x", "y", "z") == {
        "a": (1, 1, 1),
        "b": (None, 2, 2),
        "c": (3, None, 3),
        "d": (4, 4, None),
        "e": (5, 5, 5),
    }


def test_triggers_of_sqlite_refuse_one_row_or_the_landing(sqlite: Warehouse) -> None:
    create_results(sqlite)
    trigger = "CREATE TRIGGER t BEFORE INSERT ON results WHEN NEW.output = 'bad' BEGIN SELECT RAISE({}, 'no'); END"
    for action in ("ABORT", "FAIL"):
        sqlite.execute(trigger.format(action))
        (refusal,) = land(sqlite, [row("a"), row("b", "bad"), row("c")])
        assert (refusal.custom_id, refusal.message) == ("b", "a trigger refused the row")
        assert table(sqlite, "output") == {"a": ("x",), "b": (None,), "c": ("x",)}
        sqlite.execute("DROP TRIGGER t")
        sqlite.execute("DELETE FROM results")
    # this one ends the transaction, and with it what was stored before
    sqlite.execute(trigger.format("ROLLBACK"))
    with pytest.raises(WarehouseError, match="Nothing from this landing was committed"):
        land(sqlite, [row("a"), row("b", "bad"), row("c")])
    assert table(sqlite) == {}


def test_a_json_function_of_sqlite_refuses_one_row(sqlite: Warehouse) -> None:
    create_results(sqlite, "x text CHECK (json_extract(x, '$.a') = 1)")
    (refusal,) = land(sqlite, [(*row("a"), '{"a": 1}'), (*row("b"), "secret")], Column("x", ColumnType.TEXT))
    assert (refusal.custom_id, refusal.column, refusal.message) == ("b", "x", "malformed JSON")
    assert table(sqlite, "x") == {"a": ('{"a": 1}',), "b": (None,)}


@pytest.mark.parametrize(
    ("definition", "type_", "good", "bad"),
    [
        ("x enum('a', 'b')", ColumnType.TEXT, "a", "secret"),
        ("x decimal(4, 1)", ColumnType.NUMERIC, Decimal("0.5"), Decimal("98765.4")),
        ("x struct(a bigint)", ColumnType.JSON, {"a": 1}, {"a": "secret"}),
        ("x varchar UNIQUE", ColumnType.TEXT, "a", "before"),
    ],
)
def test_duckdb_refuses_one_row(duckdb: Warehouse, definition: str, type_: ColumnType, good: Any, bad: Any) -> None:
    create_results(duckdb, definition)
    if bad == "before":
        land(duckdb, [(*row("before"), "before")], Column("x", type_))
    (refusal,) = land(duckdb, [(*row("a"), good), (*row("b"), bad), (*row("c"), None)], Column("x", type_))
    assert (refusal.custom_id, refusal.column) == ("b", "x")
    assert "secret" not in refusal.message
    assert "98765" not in refusal.message
    landed = table(duckdb, "x")
    assert (landed["a"], landed["b"], landed["c"]) == ((good,), (None,), (None,))


@pytest.mark.parametrize(
    ("definition", "type_", "good", "bad"),
    [
        ("x enum('a', 'b')", ColumnType.TEXT, "a", "secret"),
        ("x set('a', 'b')", ColumnType.TEXT, "a,b", "a,secret"),
        ("x inet6", ColumnType.TEXT, "::1", "secret"),
        ("x decimal(4, 1)", ColumnType.NUMERIC, Decimal("0.5"), Decimal("98765.4")),
        ("x timestamp NULL", ColumnType.TIMESTAMP, START, START.replace(year=1066)),
        ("x integer, CONSTRAINT positive CHECK (x > 0)", ColumnType.INTEGER, 1, -98765),
        ("x integer, FOREIGN KEY (x) REFERENCES parents (id)", ColumnType.INTEGER, 1, 98765),
    ],
)
def test_mysql_refuses_one_row(mysql: Warehouse, definition: str, type_: ColumnType, good: Any, bad: Any) -> None:
    mysql.execute("CREATE TABLE parents (id integer PRIMARY KEY)")
    mysql.execute("INSERT INTO parents VALUES (1)")
    create_results(mysql, definition)
    (refusal,) = land(mysql, [(*row("a"), good), (*row("b"), bad), (*row("c"), None)], Column("x", type_))
    assert (refusal.custom_id, refusal.column) == ("b", "x")
    assert "secret" not in refusal.message
    assert "98765" not in refusal.message
    assert mysql.execute("SELECT custom_id, x IS NULL FROM results ORDER BY custom_id") == [
        ("a", 0),
        ("b", 1),
        ("c", 1),
    ]


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        ("inet", "10.0.0.1/32", "secret"),
        ("macaddr", "08:00:2b:01:02:03", "secret"),
        ("date", "2026-02-01", "2026-13-01"),
        ("mood", "so so", "secret"),
        ("short_address", "10.0.0.1/32", "::1"),
    ],
)
def test_a_text_that_a_type_of_postgresql_does_not_have_costs_its_row(
    postgres: Warehouse, type_: str, good: str, bad: str
) -> None:
    postgres.execute(
        "CREATE TYPE mood AS ENUM ('so so'); CREATE DOMAIN short_address AS inet CHECK (family(value) = 4)"
    )
    create_results(postgres, f"x {type_}")
    rows = [(*row("a"), good), (*row("b"), bad), (*row("c"), None)]
    (refusal,) = land(postgres, rows, Column("x", ColumnType.TEXT))
    assert (refusal.custom_id, refusal.column, refusal.landed) == ("b", "x", True)
    assert "secret" not in refusal.message
    assert table(postgres, "CAST(x AS text)") == {"a": (good,), "b": (None,), "c": (None,)}


def test_a_trigger_of_mysql_refuses_a_row_without_showing_its_message(mysql: Warehouse) -> None:
    create_results(mysql)
    mysql.execute(
        "CREATE TRIGGER t BEFORE INSERT ON results FOR EACH ROW IF NEW.output = 'secret' THEN "
        "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'a secret'; END IF"
    )
    (refusal,) = land(mysql, [row("a"), row("b", "secret"), row("c")])
    assert refusal.message == "a trigger refused the row (error 1644)"
    assert table(mysql, "output") == {"a": ("x",), "b": (None,), "c": ("x",)}
