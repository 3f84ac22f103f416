"""Behaviour specific to MySQL and MariaDB: similar keys, unique keys besides ours, types, packets, streaming."""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.mysql import MySqlDatabase
from tests.warehouse.conftest import Warehouse, mysql_warehouse
from tests.warehouse.landing import COLUMNS, land, landed_rows, row, with_column


def refusal(warehouse: Warehouse, columns: tuple[Column, ...] = COLUMNS) -> str:
    with pytest.raises(ResultsTableError) as exc_info:
        open_sink(warehouse.hook, "results", columns).prepare()
    return str(exc_info.value)


def run_statements(warehouse: Warehouse, text: str) -> None:
    """Run every statement that an error message suggests."""
    for statement in re.findall(r"(?:ALTER|CREATE) .*?;", text):
        warehouse.execute(statement)


def results(warehouse: Warehouse, more_sql: str = ", PRIMARY KEY (custom_id)", **types: str) -> None:
    """Create a results table, as a person would by hand."""
    columns = {
        "custom_id": warehouse.text_key_type,
        "outcome": "text",
        "output": "text",
        "job_uid": "text",
        "sealed_at": "datetime(6)",
    } | types
    column_list = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    warehouse.execute(f"CREATE TABLE results ({column_list}{more_sql})")


# Keys


def test_keys_that_only_look_alike_are_separate_rows(mysql: Warehouse) -> None:
    keys = ["a", "A", "a ", "a  ", "ä", "a\u0308", "😀", "😁", "a\0", "", " "]
    land(mysql, [row(key, key) for key in keys])
    assert {key: output for key, (_, output) in landed_rows(mysql).items()} == {key: key for key in keys}


@pytest.mark.parametrize(
    "type_",
    [
        "varchar(100) COLLATE utf8mb4_general_ci",
        "varchar(100) COLLATE utf8mb4_bin",  # treats 'a' and 'a ' as equal
        "varchar(100) CHARACTER SET latin1",
        "char(20)",  # drops trailing spaces
    ],
)
def test_a_key_that_treats_two_values_as_equal_is_refused_with_the_fix(mysql: Warehouse, type_: str) -> None:
    results(mysql, custom_id=type_)
    text = refusal(mysql)
    assert "'custom_id'" in text
    assert "may treat two keys as equal" in text
    run_statements(mysql, text)
    land(mysql, [row("a"), row("A"), row("a ")])
    assert len(landed_rows(mysql)) == 3


def test_the_error_for_an_unlimited_text_key_contains_the_fix(mysql: Warehouse) -> None:
    results(mysql, more_sql="", custom_id="text")
    run_statements(mysql, refusal(mysql))
    land(mysql, [row("a")], [row("a", "2")])
    assert landed_rows(mysql) == {"a": ("succeeded", "2")}


def test_an_index_over_a_prefix_is_not_a_key(mysql: Warehouse) -> None:
    results(mysql, more_sql=", UNIQUE short (custom_id(3))")
    text = refusal(mysql)
    assert "has no unique key" in text
    run_statements(mysql, text)
    land(mysql, [row("same 1"), row("same 2")])
    assert len(landed_rows(mysql)) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_several_text_columns_share_the_space_of_a_key(mysql: Warehouse, count: int) -> None:
    more_keys = [Column(f"k{n}", ColumnType.TEXT, key=True) for n in range(count - 1)]
    columns = (*COLUMNS, *more_keys, Column("day", ColumnType.TIMESTAMP, key=True))
    land(mysql, [(*row("a"), *"x" * (count - 1), datetime(2026, 11, 20, tzinfo=UTC))] * 2, columns=columns)
    assert len(landed_rows(mysql)) == 1


def test_a_key_that_is_too_long_is_refused_and_not_truncated(mysql: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="Data too long for column 'custom_id'"):
        land(mysql, [row("secret" * 100)])
    assert landed_rows(mysql) == {}


# Unique keys besides ours


@pytest.mark.parametrize(
    ("more_sql", "types"),
    [
        (", PRIMARY KEY (custom_id), UNIQUE (job_uid)", {"job_uid": "varchar(50)"}),
        (", UNIQUE (custom_id), PRIMARY KEY (job_uid)", {"job_uid": "varchar(50)"}),
        (", PRIMARY KEY (custom_id), UNIQUE (output(5))", {}),
        (", team int NOT NULL DEFAULT 1, PRIMARY KEY (custom_id), UNIQUE (team)", {}),
        (", PRIMARY KEY (custom_id), UNIQUE (custom_id(2))", {}),
    ],
)
def test_a_unique_key_through_which_a_row_could_replace_another_is_refused(
    mysql: Warehouse, more_sql: str, types: dict[str, str]
) -> None:
    results(mysql, more_sql, **types)
    text = refusal(mysql)
    assert "through which a row could replace a row with another key" in text
    run_statements(mysql, text)
    land(mysql, [row("a1", "same"), row("a2", "same")])
    assert len(landed_rows(mysql)) == 2


@pytest.mark.parametrize(
    ("more_sql", "types"),
    [
        (", PRIMARY KEY (custom_id), UNIQUE (custom_id, job_uid)", {"job_uid": "varchar(50)"}),
        (", id bigint AUTO_INCREMENT PRIMARY KEY, UNIQUE (custom_id)", {}),
        (", ticket int, PRIMARY KEY (custom_id), UNIQUE (ticket, job_uid)", {"job_uid": "varchar(50)"}),
    ],
)
def test_a_unique_key_that_our_rows_cannot_violate_is_accepted(
    mysql: Warehouse, more_sql: str, types: dict[str, str]
) -> None:
    results(mysql, more_sql, **types)
    land(mysql, [row("a", "1"), row("b", "1")], [row("a", "2")])
    assert landed_rows(mysql) == {"a": ("succeeded", "2"), "b": ("succeeded", "1")}


def test_outcome_and_sealed_at_are_replaced_together(mysql: Warehouse) -> None:
    # Each assignment of ON DUPLICATE KEY UPDATE sees the earlier ones. If the outcome were set first, the older seal of
    # the new row would no longer replace the existing one.
    land(mysql, [row("a", "", "pending", minute=2)])
    land(mysql, [row("a", "answer", "refused", minute=1)])
    result = mysql.execute("SELECT outcome, output, sealed_at FROM results")
    assert result == [("refused", "answer", row("a", minute=1)[-1].replace(tzinfo=None))]


# The table


def test_a_table_may_be_in_another_database(mysql: Warehouse, mysql_server: Any) -> None:
    with mysql_server.database() as other_database:
        land(mysql, [row("a", "1")], [row("a", "2")], table=f"{other_database.name}.results")
        assert other_database.execute("SELECT output FROM results") == [("2",)]


def test_the_error_for_a_missing_database_contains_the_statement_that_creates_it(mysql: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match="CREATE DATABASE `no such`;"):
        open_sink(mysql.hook, "no such.results", COLUMNS).prepare()


def test_a_connection_without_a_database_needs_one_in_the_table_name(
    mysql: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mysql.mysql is not None
    monkeypatch.setattr(mysql.hook, "schema", None)
    monkeypatch.setattr(mysql.hook.connection, "schema", None)
    with pytest.raises(ResultsTableError, match=r"Write the table as `database\.table`"):
        open_sink(mysql.hook, "results", COLUMNS).prepare()
    land(mysql, [row("a", "1")], table=f"{mysql.mysql.name}.results")
    assert landed_rows(mysql) == {"a": ("succeeded", "1")}


def test_a_table_without_transactions_is_refused(mysql: Warehouse) -> None:
    results(mysql, custom_id="varchar(99)")
    mysql.execute("ALTER TABLE results ENGINE = MyISAM")
    text = refusal(mysql)
    assert "has the engine MyISAM" in text
    assert "ENGINE = InnoDB;" in text


def test_a_results_table_may_have_the_name_of_the_temporary_table(mysql: Warehouse) -> None:
    land(mysql, [row("a", "1")], [row("a", "2", minute=1)], table="batch_landing")
    assert landed_rows(mysql, "batch_landing") == {"a": ("succeeded", "2")}


def test_a_name_that_mysql_does_not_allow_is_refused(mysql: Warehouse) -> None:
    with pytest.raises(InputError, match="beyond U\\+FFFF"):
        open_sink(mysql.hook, "results", with_column(Column("🎈", ColumnType.TEXT)))


@pytest.mark.parametrize(
    ("type_", "column"),
    [
        ("int", Column("x", ColumnType.JSON)),
        ("date", Column("x", ColumnType.INTEGER)),
        ("longtext", Column("x", ColumnType.BYTES)),
        ("blob", Column("x", ColumnType.TEXT)),
        ("int AS (1) STORED", Column("x", ColumnType.INTEGER)),
    ],
)
def test_a_column_of_an_incompatible_type_is_reported_before_the_first_row(
    mysql: Warehouse, type_: str, column: Column
) -> None:
    results(mysql, f", x {type_}, PRIMARY KEY (custom_id)")
    assert "has the column 'x'" in refusal(mysql, with_column(column))


def test_generated_and_auto_increment_columns_fill_themselves(mysql: Warehouse) -> None:
    results(
        mysql,
        ", n bigint NOT NULL AUTO_INCREMENT, INDEX (n), size int AS (char_length(output)) STORED, "
        "seen timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (custom_id)",
    )
    land(mysql, [row("a", "abc")])
    assert mysql.execute("SELECT n, size FROM results") == [(1, 3)]


def test_a_timestamp_stored_without_fractions_still_equals_itself(mysql: Warehouse) -> None:
    results(mysql, sealed_at="datetime")
    sealed_at = datetime(2026, 11, 20, 12, 0, 0, 700_000, tzinfo=UTC)  # MySQL rounds it up
    for outcome, output in (("failed", "1"), ("succeeded", "2"), ("refused", "3")):
        land(mysql, [("a", outcome, output, "job", sealed_at)])
        assert landed_rows(mysql) == {"a": (outcome, output)}


# Values are stored unchanged


def test_a_server_with_a_lax_sql_mode_does_not_truncate_values(mysql: Warehouse, monkeypatch: Any) -> None:
    monkeypatch.setattr(mysql.hook, "init_command", "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
    results(mysql, job_uid="varchar(3)", output="varchar(50)")
    with pytest.raises(WarehouseError, match="Data too long for column 'job_uid'") as exc_info:
        land(mysql, [row("a", job="secret")])
    assert "secret" not in str(exc_info.value)
    text = """it's "quoted" \\ and \\n"""
    land(mysql, [row("a", text, job="j")])
    assert landed_rows(mysql) == {"a": ("succeeded", text)}


def test_timestamps_are_stored_in_utc_whatever_the_time_zone_of_the_session(mysql: Warehouse, monkeypatch: Any) -> None:
    monkeypatch.setattr(mysql.hook, "init_command", "SET SESSION time_zone = '+13:00'")
    results(mysql, sealed_at="timestamp(6) NULL")
    columns = with_column(Column("t", ColumnType.TIMESTAMP))
    mysql.execute("ALTER TABLE results ADD COLUMN t datetime(6)")
    timestamp = datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC)
    land(mysql, [(*row("a"), timestamp)], columns=columns)
    ((sealed_at, stored_time),) = mysql.execute("SELECT unix_timestamp(sealed_at), t FROM results")
    assert float(sealed_at) == row("a")[-1].timestamp()
    assert stored_time == timestamp.replace(tzinfo=None)


def test_errors_of_the_server_do_not_show_values(mysql: Warehouse, caplog: Any) -> None:
    results(
        mysql, ", x int, y decimal(8,2), CONSTRAINT checked CHECK (output <> 'secret check'), PRIMARY KEY (custom_id)"
    )
    mysql.execute("CREATE UNIQUE INDEX other ON results (x, custom_id)")
    failures = []
    with caplog.at_level("DEBUG"):
        for rows, columns in (([(*row("a"), 98765432109876543210)], with_column(Column("x", ColumnType.INTEGER))),):
            with pytest.raises(WarehouseError) as exc_info:
                land(mysql, rows, columns=columns)
            assert exc_info.value.__suppress_context__
            failures.append(str(exc_info.value))
        (check,) = land(mysql, [row("a", "secret check")])
        (number,) = land(
            mysql, [(*row("a"), Decimal("9876543210"))], columns=with_column(Column("y", ColumnType.NUMERIC))
        )
    assert "checked" in check.message
    assert "Out of range value for column 'x'" in failures[0]
    assert "Out of range value for column 'y'" in number.message
    mysql.execute("DELETE FROM results")
    for text in [*failures, check.message, number.message, caplog.text]:
        assert "secret" not in text
        assert "98765" not in text
    mysql.execute("CREATE TRIGGER t BEFORE INSERT ON results FOR EACH ROW INSERT INTO log VALUES (NEW.custom_id)")
    mysql.execute("CREATE TABLE log (k varchar(99) PRIMARY KEY); INSERT INTO log VALUES ('it''s secret')")
    with pytest.raises(WarehouseError, match=r"Duplicate entry \(value not shown\) for key 'PRIMARY'") as exc_info:
        land(mysql, [row("it's secret")])
    assert landed_rows(mysql) == {}


@contextlib.contextmanager
def packet_size(database: MySqlDatabase, size: int) -> Iterator[None]:
    ((previous_size,),) = database.execute("SELECT @@global.max_allowed_packet")
    database.execute(f"SET GLOBAL max_allowed_packet = {size}")
    try:
        yield
    finally:
        database.execute(f"SET GLOBAL max_allowed_packet = {previous_size}")


def test_statements_fit_into_the_packets_of_the_server(mysql: Warehouse) -> None:
    assert mysql.mysql is not None
    columns = with_column(Column("raw", ColumnType.BYTES))
    with packet_size(mysql.mysql, 64 << 10):
        land(mysql, [(*row(f"k{n}", "'\\\n" * n), b"\xff" * n) for n in range(1000)], columns=columns)
        land(mysql, [(*row("large", "x" * 60_000), None), (*row("larger", "ü" * 30_000), None)], columns=columns)
    assert mysql.execute("SELECT count(*), sum(length(output)), sum(length(raw)) FROM results") == [
        (1002, 3 * 499_500 + 120_000, 499_500)
    ]


@pytest.mark.parametrize("text", ["x" * 70_000, "'" * 35_000, "😀" * 17_000])
def test_the_error_for_a_row_larger_than_a_packet_gives_its_number(mysql: Warehouse, text: str) -> None:
    assert mysql.mysql is not None
    with packet_size(mysql.mysql, 64 << 10):
        with pytest.raises(ResultsTableError, match=r"Row 2 of this landing takes .* bytes .*65,536"):
            land(mysql, [row("a"), row("b", text)])
    assert landed_rows(mysql) == {}


def test_a_landing_waits_for_another_and_then_fails(mysql: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mysql.mysql is not None
    land(mysql, [row("a", "1")])
    monkeypatch.setattr("airflow_provider_batch.warehouse.sinks.mysql.LOCK_WAIT_SECONDS", 0)
    name = hashlib.sha256(f"`{mysql.mysql.name}`.`results`".encode()).hexdigest()[:40]
    with contextlib.closing(mysql.mysql.connect()) as other_database:
        other_database.cursor().execute(f"SELECT GET_LOCK('batch_{name}', 0)")
        with pytest.raises(WarehouseError, match="waited 0 s for another landing") as exc_info:
            land(mysql, [row("a", "2")])
        assert exc_info.value.retry
    assert landed_rows(mysql) == {"a": ("succeeded", "1")}


# Reading

TYPES = {
    "DECIMAL(30, 10)": ("12345678901234567890.0123456789", Decimal("12345678901234567890.0123456789")),
    "DATETIME(6)": ("'2026-11-20 12:30:00.123456'", datetime(2026, 11, 20, 12, 30, 0, 123456)),
    "DATE": ("'2026-11-20'", date(2026, 11, 20)),
    "TIME(6)": ("'-26:00:00.5'", -timedelta(hours=26, microseconds=500_000)),
    "YEAR": ("2026", 2026),
    "BIT(10)": ("b'1000000001'", 513),
    "BIT(1)": ("b'1'", 1),
    "BOOLEAN": ("TRUE", 1),
    "SET('x', 'y', 'z')": ("'x,z'", "x,z"),
    "ENUM('x', 'y')": ("'y'", "y"),
    "JSON": ("""'{"a": "ü😀"}'""", '{"a": "ü😀"}'),
    "BLOB": ("x'00ff'", b"\x00\xff"),
    "VARBINARY(9)": ("x'00ff'", b"\x00\xff"),
    "BINARY(2)": ("x'00ff'", b"\x00\xff"),
    "TEXT CHARACTER SET utf8mb4": ("'ü😀'", "ü😀"),
    "TEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin": ("'ü😀'", "ü😀"),
    "VARCHAR(9) CHARACTER SET latin1": ("'ü'", "ü"),
    "CHAR(9)": ("'a'", "a"),
    "BIGINT UNSIGNED": ("18446744073709551615", 2**64 - 1),
    "TINYINT": ("-128", -128),
    "DOUBLE": ("0.1", 0.1),
}


@pytest.mark.parametrize("type_", TYPES)
def test_both_drivers_return_the_same_value_for_each_type(mysql: Warehouse, type_: str) -> None:
    literal, expected = TYPES[type_]
    mysql.execute(f"CREATE TABLE t (n int, v {type_}); INSERT INTO t VALUES (1, {literal}), (2, NULL)")
    with read_rows(mysql.hook, "SELECT v FROM t ORDER BY n") as rows:
        assert (result := list(rows)) == [(expected,), (None,)]
    assert type(result[0][0]) is type(expected)


def test_reading_200_000_rows_takes_little_memory(mysql: Warehouse) -> None:
    tracemalloc.start()
    try:
        with read_rows(mysql.hook, f"SELECT n, repeat('x', 200) FROM {numbers(200_000)}") as rows:
            count = sum(1 for _ in rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 8_000_000  # all rows together are over 50 MB


def test_leaving_the_block_early_closes_the_connection(mysql: Warehouse) -> None:
    with read_rows(mysql.hook, f"SELECT n, repeat('x', 1000) FROM {numbers(1_000_000)}") as rows:
        next(iter(rows))
    other_connections = (
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = database() AND ID <> connection_id()"
    )
    deadline = time.monotonic() + 30
    while (result := mysql.execute(other_connections)) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.02)  # the server's thread ends shortly after its connection
    assert result == [(0,)]


def numbers(count: int) -> str:
    """Return a subquery with the numbers below `count`, computed while it is read."""
    digits = "(" + " UNION ALL ".join(f"SELECT {n} d" for n in range(10)) + ")"
    places = len(str(count - 1))
    tables = ", ".join(f"{digits} t{place}" for place in range(places))
    value = " + ".join(f"t{place}.d * {10**place}" for place in range(places))
    return f"(SELECT {value} AS n FROM {tables}) AS numbers WHERE n < {count}"


@pytest.mark.parametrize("cursor", ["dictcursor", "ssdictcursor", "sscursor"])
def test_the_cursor_extra_of_a_connection_makes_no_difference(
    mysql_database: MySqlDatabase, monkeypatch: pytest.MonkeyPatch, cursor: str
) -> None:
    warehouse = mysql_warehouse("mysqlclient", mysql_database, monkeypatch, cursor=cursor, charset="latin1")
    with read_rows(warehouse.hook, "SELECT 1 AS a, '😀' AS b") as rows:
        assert list(rows) == [(1, "😀")]
    land(warehouse, [row("a", "😀")])
    assert landed_rows(warehouse) == {"a": ("succeeded", "😀")}


def test_a_function_cannot_change_data_while_rows_are_read(mysql: Warehouse) -> None:
    mysql.execute(
        "CREATE TABLE t (n int); CREATE FUNCTION changes() RETURNS int DETERMINISTIC "
        "MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (1); RETURN 1; END"
    )
    with pytest.raises(WarehouseError, match=r"(?i)read.only"):
        with read_rows(mysql.hook, "SELECT changes()"):
            pass
    assert mysql.execute("SELECT * FROM t") == []


def test_an_unreachable_server_is_a_warehouse_error(mysql: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = mysql_warehouse(mysql.dialect, MySqlDatabase("127.0.0.1", 1, "x", "y", "z"), monkeypatch)
    with pytest.raises(WarehouseError, match=r"Connecting with connection 'warehouse' failed: .*127\.0\.0\.1"):
        with read_rows(broken.hook, "SELECT 1"):
            pass
