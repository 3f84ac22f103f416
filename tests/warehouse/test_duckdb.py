"""Behaviour specific to DuckDB: its types, its file lock, and tables that people create by hand."""

from __future__ import annotations

import logging
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import (
    InputError,
    ResultsTableError,
    WarehouseConnectionError,
    WarehouseError,
)
from airflow_provider_batch.warehouse.drivers import duckdb as duckdb_driver
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse, duckdb_warehouse
from tests.warehouse.landing import COLUMNS, land, landed_rows, row, with_column

TIMESTAMP = datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC)


def file_of(warehouse: Warehouse) -> Path:
    assert warehouse.path is not None
    return warehouse.path


def read(warehouse: Warehouse, sql: str, parameters: Any = None, **options: Any) -> list[tuple[Any, ...]]:
    with read_rows(warehouse.hook, sql, parameters, **options) as rows:
        return list(rows)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("1.50::DECIMAL(10,2)", Decimal("1.50")),
        ("170141183460469231731687303715884105727::HUGEINT", 2**127 - 1),
        ("18446744073709551615::UBIGINT", 2**64 - 1),
        ("0.5::FLOAT", 0.5),
        ("true", True),
        ("DATE '2026-11-20'", date(2026, 11, 20)),
        ("TIMESTAMP '2026-11-20 12:30:00.123456'", TIMESTAMP.replace(tzinfo=None)),
        ("TIMESTAMPTZ '2026-11-20 14:30:00.123456+02'", TIMESTAMP),
        ("TIME '12:30:00'", time(12, 30)),
        ("INTERVAL 90 MINUTE", timedelta(minutes=90)),
        ("[1, NULL, 3]", [1, None, 3]),
        ("{'a': 1.5::DECIMAL(4,1), 'b': [{'c': 'x'}]}", {"a": Decimal("1.5"), "b": [{"c": "x"}]}),
        ("MAP {'k': 1, 'l': 2}", {"k": 1, "l": 2}),
        ("""'{"a": [1, null], "big": 1000000000000000000000}'::JSON""", {"a": [1, None], "big": 10**21}),
        ("'null'::JSON", None),
        ("'\\x00\\xFF'::BLOB", b"\x00\xff"),
        (
            "'5b0e1d4c-3c1f-4a53-9b0a-2f3a4d5e6f70'::UUID",
            uuid.UUID("5b0e1d4c-3c1f-4a53-9b0a-2f3a4d5e6f70"),
        ),
        ("'b'::ENUM('a', 'b')", "b"),
        ("'nul\\0 and 🎈'", "nul\\0 and 🎈"),
    ],
)
def test_each_type_is_read_as_its_python_value(duckdb: Warehouse, sql: str, value: Any) -> None:
    # NULL is None, whatever the type.
    assert read(duckdb, f"SELECT {sql} AS x UNION ALL SELECT NULL") == [(value,), (None,)]


def test_a_query_may_begin_with_from_or_with_or_pivot(duckdb: Warehouse) -> None:
    duckdb.execute("CREATE TABLE t AS SELECT 'a' AS k, 1 AS n UNION ALL SELECT 'b', 2")
    assert read(duckdb, "FROM t ORDER BY n") == [("a", 1), ("b", 2)]
    assert read(duckdb, "WITH x AS (FROM t) SELECT sum(n) FROM x") == [(3,)]
    assert read(duckdb, "PIVOT (SELECT k, n FROM t) ON k USING sum(n)") == [(1, 2)]


@pytest.mark.parametrize(
    "sql",
    [
        "WITH gone AS (SELECT 1) DELETE FROM t",
        "ATTACH 'other.duckdb'",
        "FROM t; DROP TABLE t",
        "PIVOT t ON n USING count(*); DELETE FROM t",
    ],
)
def test_anything_but_a_single_query_is_refused(duckdb: Warehouse, sql: str) -> None:
    duckdb.execute("CREATE TABLE t AS SELECT 1 AS n")
    with pytest.raises(InputError, match=r"(more than one statement|must be a single SELECT).*nothing was uploaded"):
        read(duckdb, sql)
    assert duckdb.execute("FROM t") == [(1,)]


def test_rows_are_streamed_and_errors_show_no_value(duckdb: Warehouse) -> None:
    # If DuckDB computed the whole result first, the text at its end would fail before the first row.
    sql = "SELECT (CASE WHEN range = 20000000 THEN 'secret' ELSE '5' END)::INT AS n FROM range(20000001)"
    with read_rows(duckdb.hook, sql) as rows:
        assert next(iter(rows)) == (5,)
    with pytest.raises(WarehouseError, match="Could not convert string") as exc_info:
        read(duckdb, sql.replace("20000", "20"))
    assert "secret" not in str(exc_info.value)


def test_the_error_for_a_missing_pytz_says_how_to_install_it() -> None:
    # This needs its own process, because the driver keeps the package once it is imported.
    program = """
import sys
sys.modules["pytz"] = None
import duckdb
from airflow_provider_batch.warehouse.errors import message_of
try:
    duckdb.connect().execute("SELECT TIMESTAMPTZ '2026-11-20 12:30:00+00'").fetchall()
except Exception as error:
    print("message:", message_of(error))
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert "message: DuckDB's driver can return values of the type TIMESTAMP WITH TIME ZONE only if" in process.stdout
    assert "pip install 'airflow-provider-batch[duckdb]'" in process.stdout


SETTINGS = "SELECT current_setting('memory_limit'), current_setting('threads')"


def test_memory_is_limited_unless_the_connection_states_it(duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(duckdb, SETTINGS) == [("244.1 MiB", 1)]
    for extra, expected in (
        ({"memory_limit": "1GiB", "threads": 2}, ("1.0 GiB", 2)),
        ({"settings": {"max_memory": "1GiB", "worker_threads": 3}}, ("1.0 GiB", 3)),
        ({"threads": 2}, ("244.1 MiB", 2)),
        ({"settings": {"lock_configuration": True, "memory_limit": "2GiB", "threads": 1}}, ("2.0 GiB", 1)),
    ):
        assert read(duckdb_warehouse(file_of(duckdb), monkeypatch, **extra), SETTINGS) == [expected]
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__DUCKDB_MEMORY_LIMIT", "512MiB")
    assert read(duckdb, SETTINGS) == [("512.0 MiB", 1)]
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__DUCKDB_MEMORY_LIMIT", "a lot")
    with pytest.raises(
        WarehouseConnectionError, match=r"duckdb_memory_limit is 'a lot', which DuckDB refuses: .*256MB"
    ):
        read(duckdb, SETTINGS)


def test_settings_of_a_file_that_is_open_elsewhere_in_the_process_stay(duckdb: Warehouse) -> None:
    with closing(duckdb.hook.get_conn()) as other:
        other.execute("SET memory_limit = '3GiB'")
        assert read(duckdb, SETTINGS)[0][0] == "3.0 GiB"
        assert other.execute(SETTINGS).fetchone()[0] == "3.0 GiB"


@pytest.mark.parametrize("place", ["file", "read-only folder", "memory"])
def test_a_sort_and_a_join_larger_than_the_memory_use_the_disk_and_leave_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    folder, temporary = tmp_path / "data", tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__DUCKDB_MEMORY_LIMIT", "120MiB")
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    warehouse = duckdb_warehouse(folder / "warehouse.duckdb", monkeypatch)
    query = "SELECT range AS n, md5(n::text) AS text, repeat(text, 20) AS long FROM range(250000)"
    warehouse.execute(f"CREATE TABLE t AS {query}")
    source = "t"
    if place == "memory":
        warehouse, source = duckdb_warehouse(Path(":memory:"), monkeypatch), f"({query})"
    if place == "read-only folder":
        # the tests may run as root, who can write to every folder
        monkeypatch.setattr("os.access", lambda path, mode: not str(path).startswith(str(folder)))
    spilled = False
    for sql, count in (
        (f"SELECT * FROM {source} ORDER BY text", 250_000),
        (f"SELECT a.n, b.long FROM {source} a JOIN {source} b ON a.text = b.text", 250_000),
    ):
        with read_rows(warehouse.hook, sql) as rows:
            spilled = spilled or any(tmp_path.rglob("duckdb_temp_*"))
            assert sum(1 for _ in rows) == count
    assert spilled
    assert [path.name for path in tmp_path.rglob("*") if path.name not in ("data", "temporary")] == ["warehouse.duckdb"]


def test_the_error_for_too_little_memory_says_how_to_raise_the_limit(
    duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = duckdb_warehouse(file_of(duckdb), monkeypatch, memory_limit="10MB")
    with pytest.raises(WarehouseError) as exc_info:
        read(small, "SELECT list(repeat('secret', 1000) || range) FROM range(100000)")
    text = str(exc_info.value)
    assert "Out of Memory Error" in text
    assert '{"memory_limit": "1GB"}' in text
    assert "[openai_batch] duckdb_memory_limit" in text
    assert "SET " not in text
    assert text.endswith("Nothing was uploaded.")


@contextmanager
def held_by_another_process(path: Path) -> Iterator[Callable[[], None]]:
    """Hold the file in another process until the yielded function is called."""
    program = "import sys, duckdb; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        yield holder.stdin.close
    finally:
        holder.stdin.close()
        holder.stdout.close()
        assert holder.wait(60) == 0


def test_the_error_for_a_locked_file_says_what_to_do(duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land(duckdb, [row("a", "1")])
    monkeypatch.setattr(duckdb_driver, "LOCK_WAIT_SECONDS", 0)
    with held_by_another_process(file_of(duckdb)):
        with pytest.raises(WarehouseError) as landing:
            land(duckdb, [row("a", "2")])
        with pytest.raises(WarehouseError) as reading:
            read(duckdb, "FROM results")
    for exc_info, consequence in (
        (landing, "Nothing from this landing was committed."),
        (reading, "Nothing was uploaded."),
    ):
        text = str(exc_info.value)
        assert exc_info.value.retry
        for phrase in (
            "'warehouse'",
            "held by another process",
            "PID",
            "pool of one slot",
            '"read_only": true',
            consequence,
        ):
            assert phrase in text, phrase
    assert landed_rows(duckdb) == {"a": ("succeeded", "1")}


def test_a_landing_waits_for_a_locked_file(duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land(duckdb, [row("a", "1")])
    with held_by_another_process(file_of(duckdb)) as release:
        monkeypatch.setattr("time.sleep", lambda seconds: release())
        land(duckdb, [row("a", "2")])
    assert landed_rows(duckdb) == {"a": ("succeeded", "2")}


def test_a_read_only_connection_reads_but_refuses_to_write(duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    land(duckdb, [row("a", "1")])
    reader = duckdb_warehouse(file_of(duckdb), monkeypatch, read_only=True)
    assert read(reader, "SELECT custom_id FROM results") == [("a",)]
    with pytest.raises(WarehouseError, match="read-only"):
        open_sink(reader.hook, "results", COLUMNS).prepare()


def test_an_in_memory_database_is_refused_for_results(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = duckdb_warehouse(Path(":memory:"), monkeypatch)
    with pytest.raises(
        WarehouseConnectionError,
        match=r"in memory, which is lost when the task ends\. Set the connection's host",
    ):
        open_sink(memory.hook, "results", COLUMNS).prepare()


@pytest.mark.parametrize("table", ["analytics.results", "Analytics.RESULTS", "warehouse.analytics.results"])
def test_a_table_is_found_in_its_schema_and_database(duckdb: Warehouse, table: str) -> None:
    with pytest.raises(ResultsTableError, match='CREATE SCHEMA "analytics";'):
        land(duckdb, [row("a", "1")], table="analytics.results")
    duckdb.execute("CREATE SCHEMA analytics")
    land(duckdb, [row("a", "1")], table="analytics.results")
    land(duckdb, [row("a", "2")], table=table)
    assert duckdb.execute("SELECT custom_id, output FROM analytics.results") == [("a", "2")]
    assert len(duckdb.execute("FROM duckdb_tables()")) == 1


def create_results(warehouse: Warehouse, extra_columns: str = "", timestamp_type: str = "timestamptz") -> None:
    warehouse.execute(
        "CREATE TABLE results (custom_id varchar PRIMARY KEY, outcome varchar, output varchar, job_uid varchar, "
        f"sealed_at {timestamp_type}{extra_columns})"
    )


def test_landing_again_works_with_indexes_and_lists_on_our_columns(duckdb: Warehouse) -> None:
    create_results(duckdb, ", v double[], note varchar, UNIQUE (output)")
    duckdb.execute("CREATE INDEX by_outcome ON results (outcome)")
    columns = with_column(Column("v", ColumnType.VECTOR))
    for minute in range(3):
        rows = [(*row(key, f"{key}{minute}", minute=minute), [0.5 * minute]) for key in "abc"]
        land(duckdb, rows, columns=columns)
        duckdb.execute("UPDATE results SET note = 'by hand'")
    assert duckdb.execute("SELECT custom_id, output, v, note FROM results ORDER BY ALL") == [
        (key, f"{key}2", [1.0], "by hand") for key in "abc"
    ]


@pytest.mark.parametrize("key", ['CREATE UNIQUE INDEX i ON results ("the, key", "select")', ""])
def test_a_key_with_unusual_names_is_recognised(duckdb: Warehouse, key: str) -> None:
    unique = "" if key else ', UNIQUE ("select", "the, key")'
    duckdb.execute(
        'CREATE TABLE results ("the, key" varchar, "select" bigint, outcome varchar, output varchar, '
        f"sealed_at timestamptz{unique})"
    )
    duckdb.execute(key or "SELECT 1")
    columns = (
        Column("the, key", ColumnType.TEXT, key=True),
        Column("SELECT", ColumnType.INTEGER, key=True),
        Column("outcome", ColumnType.TEXT),
        Column("output", ColumnType.TEXT),
        Column("sealed_at", ColumnType.TIMESTAMP),
    )
    for output in "12":
        land(
            duckdb,
            [("a", 1, "succeeded", output, TIMESTAMP), ("a", 2, "succeeded", output, TIMESTAMP)],
            columns=columns,
        )
    assert duckdb.execute('SELECT "the, key", "select", output FROM results ORDER BY 2') == [
        ("a", 1, "2"),
        ("a", 2, "2"),
    ]


def test_timestamps_without_a_zone_are_stored_in_utc(duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    create_results(duckdb, ", t timestamp", timestamp_type="timestamp")
    remote = duckdb_warehouse(file_of(duckdb), monkeypatch, settings={"TimeZone": "Pacific/Kiritimati"})
    columns = (*COLUMNS, Column("t", ColumnType.TIMESTAMP))
    land(remote, [(*row("a"), TIMESTAMP)], [(*row("a", "2"), TIMESTAMP)], columns=columns)
    assert remote.execute("SELECT output, sealed_at::text, t::text FROM results") == [
        ("2", "2026-11-20 12:00:00", "2026-11-20 12:30:00.123456")
    ]


def test_keys_that_are_equal_in_the_table_are_one_row(duckdb: Warehouse) -> None:
    duckdb.execute(
        "CREATE TABLE results (custom_id uuid PRIMARY KEY, outcome varchar, output varchar, sealed_at timestamptz)"
    )
    columns = (*COLUMNS[:3], COLUMNS[4])
    id_ = "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"
    land(
        duckdb,
        [(id_, "succeeded", "1", TIMESTAMP), (id_.upper(), "failed", "2", TIMESTAMP)],
        columns=columns,
    )
    assert duckdb.execute("SELECT outcome, output FROM results") == [("failed", "2")]


@pytest.mark.parametrize(
    ("type_", "column", "value", "expected"),
    [
        ("varchar", ColumnType.JSON, {"a": [1, "x"]}, '{"a":[1,"x"]}'),
        ("struct(a bigint, b varchar)", ColumnType.JSON, {"a": 1, "b": "it's"}, {"a": 1, "b": "it's"}),
        ("map(varchar, bigint)", ColumnType.JSON, {"a": 1}, {"a": 1}),
        ("varchar[]", ColumnType.JSON, ["a", "b, c"], ["a", "b, c"]),
        ("float[3]", ColumnType.VECTOR, [1, 0.5, -2.0], (1.0, 0.5, -2.0)),
        ("float[]", ColumnType.VECTOR, [0.5], [0.5]),
        ("varchar", ColumnType.VECTOR, [0.5, 1.0], "[0.5,1.0]"),
        ("varchar", ColumnType.NUMERIC, Decimal("1.123456789012345678"), "1.123456789012345678"),
        ("double", ColumnType.NUMERIC, Decimal("0.25"), 0.25),
        ("decimal(9,2)", ColumnType.NUMERIC, Decimal("0.25"), Decimal("0.25")),
        ("hugeint", ColumnType.INTEGER, 5, 5),
        ("enum('a', 'b')", ColumnType.TEXT, "b", "b"),
    ],
)
def test_values_are_stored_in_columns_of_other_compatible_types(
    duckdb: Warehouse, type_: str, column: ColumnType, value: Any, expected: Any
) -> None:
    create_results(duckdb, f", x {type_}")
    columns = with_column(Column("x", column))
    land(duckdb, [(*row("a"), value), (*row("b"), None)], columns=columns)
    assert duckdb.execute("SELECT x FROM results ORDER BY custom_id") == [(expected,), (None,)]


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("integer", ColumnType.TEXT),
        ("varchar[]", ColumnType.TEXT),
        ("date", ColumnType.INTEGER),
        ("boolean", ColumnType.INTEGER),
        ("varchar", ColumnType.BYTES),
        ("integer", ColumnType.JSON),
        ("double", ColumnType.VECTOR),
        ("bigint GENERATED ALWAYS AS (length(custom_id))", ColumnType.INTEGER),
    ],
)
def test_incompatible_columns_are_reported_before_the_first_row(
    duckdb: Warehouse, type_: str, column: ColumnType
) -> None:
    create_results(duckdb, f", x {type_}")
    with pytest.raises(ResultsTableError) as exc_info:
        open_sink(duckdb.hook, "results", with_column(Column("x", column))).prepare()
    assert '"x"' in str(exc_info.value).replace("'", '"')


def test_errors_of_duckdb_do_not_show_values(duckdb: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    create_results(duckdb, ", x decimal(4,1), s varchar UNIQUE, j struct(a bigint), CHECK (output <> 'secret check')")
    extra_columns = (Column("x", ColumnType.NUMERIC), Column("s", ColumnType.TEXT), Column("j", ColumnType.JSON))
    failures = []
    with caplog.at_level(logging.DEBUG):
        for rows in (
            [(*row("a"), None, "secret twice", None), (*row("b"), None, "secret twice", None)],
            [(*row("a", "secret check"), None, None, None)],
            [(*row("a"), Decimal("98765.4"), None, None)],
            [(*row("a"), None, None, {"a": "secret text"})],
        ):
            (refusal,) = land(duckdb, rows, columns=(*COLUMNS, *extra_columns))
            failures.append(refusal.reason)
    assert failures[0].startswith("column 's': ")
    assert "violates unique constraint" in failures[0]
    assert "CHECK constraint failed" in failures[1]
    assert "DECIMAL(4,1)" in failures[2]
    assert failures[3].startswith("column 'j': ")
    for text in [*failures, caplog.text]:
        assert "secret" not in text
        assert "98765" not in text


def test_the_error_for_an_integer_over_64_bits_does_not_show_it(duckdb: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="out of range") as exc_info:
        land(duckdb, [(*row("a"), 98765432109876543210)], columns=with_column(Column("x", ColumnType.INTEGER)))
    assert "98765" not in str(exc_info.value)


def test_landing_again_over_more_rows_than_the_default_memory_takes_continues_with_more(
    duckdb: Warehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__DUCKDB_MEMORY_LIMIT", "45MB")
    monkeypatch.setattr(duckdb_driver, "DEFAULT_MEMORY_LIMIT", "45MB")
    rows = [row(f"row {number}", output="text " * 20) for number in range(100_000)]
    land(duckdb, rows)
    assert "needs more memory than DuckDB has by default" not in caplog.text

    land(duckdb, rows)

    assert "needs more memory than DuckDB has by default" in caplog.text
    assert duckdb.execute("SELECT count(*) FROM results") == [(100_000,)]
