"""What is MySQL's and MariaDB's own: keys that only look alike, unique keys besides ours, types, packets, streaming."""

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
from airflow_provider_batch.warehouse.drivers.mysql import one_statement
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.mysql import MySqlDatabase
from tests.warehouse.conftest import Warehouse, mysql_warehouse
from tests.warehouse.landing import COLUMNS, land, landed, row, with_column


def refusal(warehouse: Warehouse, columns: tuple[Column, ...] = COLUMNS) -> str:
    with pytest.raises(ResultsTableError) as caught:
        open_sink(warehouse.hook, "results", columns).prepare()
    return str(caught.value)


def mended(warehouse: Warehouse, text: str) -> None:
    """Run every statement that an error gives to paste."""
    for statement in re.findall(r"(?:ALTER|CREATE) .*?;", text):
        warehouse.execute(statement)


def results(warehouse: Warehouse, more: str = ", PRIMARY KEY (custom_id)", **types: str) -> None:
    """A results table by hand."""
    columns = {
        "custom_id": warehouse.text_key,
        "outcome": "text",
        "output": "text",
        "job_uid": "text",
        "sealed_at": "datetime(6)",
    } | types
    listed = ", ".join(f"{name} {type_}" for name, type_ in columns.items())
    warehouse.execute(f"CREATE TABLE results ({listed}{more})")


# Keys


def test_keys_that_only_look_alike_are_rows_of_their_own(mysql: Warehouse) -> None:
    keys = ["a", "A", "a ", "a  ", "ä", "a\u0308", "😀", "😁", "a\0", "", " "]
    land(mysql, [row(key, key) for key in keys])
    assert {key: output for key, (_, output) in landed(mysql).items()} == {key: key for key in keys}


@pytest.mark.parametrize(
    "type_",
    [
        "varchar(100) COLLATE utf8mb4_general_ci",
        "varchar(100) COLLATE utf8mb4_bin",  # takes 'a' and 'a ' for one
        "varchar(100) CHARACTER SET latin1",
        "char(20)",  # drops spaces at the end
    ],
)
def test_a_key_that_takes_two_for_one_is_refused_with_the_statement_that_mends_it(mysql: Warehouse, type_: str) -> None:
    results(mysql, custom_id=type_)
    text = refusal(mysql)
    assert "'custom_id'" in text
    assert "may take two keys for one" in text
    mended(mysql, text)
    land(mysql, [row("a"), row("A"), row("a ")])
    assert len(landed(mysql)) == 3


def test_a_key_of_unlimited_text_is_mended_by_what_is_told(mysql: Warehouse) -> None:
    results(mysql, more="", custom_id="text")
    mended(mysql, refusal(mysql))
    land(mysql, [row("a")], [row("a", "2")])
    assert landed(mysql) == {"a": ("succeeded", "2")}


def test_a_key_over_the_beginning_of_a_text_is_no_key(mysql: Warehouse) -> None:
    results(mysql, more=", UNIQUE short (custom_id(3))")
    text = refusal(mysql)
    assert "has the key none" in text
    mended(mysql, text)
    land(mysql, [row("same 1"), row("same 2")])
    assert len(landed(mysql)) == 2


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_several_texts_share_what_a_key_may_hold(mysql: Warehouse, count: int) -> None:
    more = [Column(f"k{n}", ColumnType.TEXT, key=True) for n in range(count - 1)]
    columns = (*COLUMNS, *more, Column("day", ColumnType.TIMESTAMP, key=True))
    land(mysql, [(*row("a"), *"x" * (count - 1), datetime(2026, 11, 20, tzinfo=UTC))] * 2, columns=columns)
    assert len(landed(mysql)) == 1


def test_a_key_that_is_too_long_is_refused_and_not_cut_off(mysql: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="Data too long for column 'custom_id'"):
        land(mysql, [row("secret" * 100)])
    assert landed(mysql) == {}


# Unique keys besides ours


@pytest.mark.parametrize(
    ("more", "types"),
    [
        (", PRIMARY KEY (custom_id), UNIQUE (job_uid)", {"job_uid": "varchar(50)"}),
        (", UNIQUE (custom_id), PRIMARY KEY (job_uid)", {"job_uid": "varchar(50)"}),
        (", PRIMARY KEY (custom_id), UNIQUE (output(5))", {}),
        (", team int NOT NULL DEFAULT 1, PRIMARY KEY (custom_id), UNIQUE (team)", {}),
        (", PRIMARY KEY (custom_id), UNIQUE (custom_id(2))", {}),
    ],
)
def test_a_unique_key_by_which_a_row_could_replace_another_is_refused(
    mysql: Warehouse, more: str, types: dict[str, str]
) -> None:
    results(mysql, more, **types)
    text = refusal(mysql)
    assert "by which a row could replace one of another key" in text
    mended(mysql, text)
    land(mysql, [row("a1", "same"), row("a2", "same")])
    assert len(landed(mysql)) == 2


@pytest.mark.parametrize(
    ("more", "types"),
    [
        (", PRIMARY KEY (custom_id), UNIQUE (custom_id, job_uid)", {"job_uid": "varchar(50)"}),
        (", id bigint AUTO_INCREMENT PRIMARY KEY, UNIQUE (custom_id)", {}),
        (", ticket int, PRIMARY KEY (custom_id), UNIQUE (ticket, job_uid)", {"job_uid": "varchar(50)"}),
    ],
)
def test_a_unique_key_that_no_row_of_ours_can_meet_is_no_obstacle(
    mysql: Warehouse, more: str, types: dict[str, str]
) -> None:
    results(mysql, more, **types)
    land(mysql, [row("a", "1"), row("b", "1")], [row("a", "2")])
    assert landed(mysql) == {"a": ("succeeded", "2"), "b": ("succeeded", "1")}


def test_outcome_and_seal_are_replaced_together(mysql: Warehouse) -> None:
    # Each assignment of ON DUPLICATE KEY UPDATE sees those before it: with the outcome set first, the older seal of
    # the row that replaces would no longer do so.
    land(mysql, [row("a", "", "pending", sealed=2)])
    land(mysql, [row("a", "answer", "refused", sealed=1)])
    found = mysql.execute("SELECT outcome, output, sealed_at FROM results")
    assert found == [("refused", "answer", row("a", sealed=1)[-1].replace(tzinfo=None))]


# The table


def test_a_table_may_be_in_another_database(mysql: Warehouse, mysql_server: Any) -> None:
    with mysql_server.database() as other:
        land(mysql, [row("a", "1")], [row("a", "2")], table=f"{other.name}.results")
        assert other.execute("SELECT output FROM results") == [("2",)]


def test_a_database_that_is_not_there_is_an_error_to_paste_from(mysql: Warehouse) -> None:
    with pytest.raises(ResultsTableError, match="CREATE DATABASE `no such`;"):
        open_sink(mysql.hook, "no such.results", COLUMNS).prepare()


def test_a_connection_without_a_database_needs_one_in_the_name(
    mysql: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mysql.mysql is not None
    monkeypatch.setattr(mysql.hook, "schema", None)
    monkeypatch.setattr(mysql.hook.connection, "schema", None)
    with pytest.raises(ResultsTableError, match=r"name it `database\.table`"):
        open_sink(mysql.hook, "results", COLUMNS).prepare()
    land(mysql, [row("a", "1")], table=f"{mysql.mysql.name}.results")
    assert landed(mysql) == {"a": ("succeeded", "1")}


def test_a_table_without_transactions_is_refused(mysql: Warehouse) -> None:
    results(mysql, custom_id="varchar(99)")
    mysql.execute("ALTER TABLE results ENGINE = MyISAM")
    text = refusal(mysql)
    assert "has the engine MyISAM" in text
    assert "ENGINE = InnoDB;" in text


def test_a_table_called_like_the_one_rows_pass_through_is_not_mistaken_for_it(mysql: Warehouse) -> None:
    land(mysql, [row("a", "1")], [row("a", "2", sealed=1)], table="batch_landing")
    assert landed(mysql, "batch_landing") == {"a": ("succeeded", "2")}


def test_a_name_that_mysql_cannot_have_is_refused(mysql: Warehouse) -> None:
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
def test_a_column_of_another_type_is_found_before_the_first_row(mysql: Warehouse, type_: str, column: Column) -> None:
    results(mysql, f", x {type_}, PRIMARY KEY (custom_id)")
    assert "has the column 'x' as" in refusal(mysql, with_column(column))


def test_generated_and_counted_columns_of_the_owner_fill_themselves(mysql: Warehouse) -> None:
    results(
        mysql,
        ", n bigint NOT NULL AUTO_INCREMENT, INDEX (n), size int AS (char_length(output)) STORED, "
        "seen timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (custom_id)",
    )
    land(mysql, [row("a", "abc")])
    assert mysql.execute("SELECT n, size FROM results") == [(1, 3)]


def test_a_moment_stored_without_fractions_still_equals_itself(mysql: Warehouse) -> None:
    results(mysql, sealed_at="datetime")
    sealed = datetime(2026, 11, 20, 12, 0, 0, 700_000, tzinfo=UTC)  # rounds up
    for outcome, output in (("failed", "1"), ("succeeded", "2"), ("refused", "3")):
        land(mysql, [("a", outcome, output, "job", sealed)])
        assert landed(mysql) == {"a": (outcome, output)}


# Nothing is changed on its way


def test_a_server_that_cuts_off_in_silence_does_not_do_so_here(mysql: Warehouse, monkeypatch: Any) -> None:
    monkeypatch.setattr(mysql.hook, "init_command", "SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
    results(mysql, job_uid="varchar(3)", output="varchar(50)")
    with pytest.raises(WarehouseError, match="Data too long for column 'job_uid'") as caught:
        land(mysql, [row("a", job="secret")])
    assert "secret" not in str(caught.value)
    text = """it's "quoted" \\ and \\n"""
    land(mysql, [row("a", text, job="j")])
    assert landed(mysql) == {"a": ("succeeded", text)}


def test_moments_are_stored_in_utc_whatever_the_session_says(mysql: Warehouse, monkeypatch: Any) -> None:
    monkeypatch.setattr(mysql.hook, "init_command", "SET SESSION time_zone = '+13:00'")
    results(mysql, sealed_at="timestamp(6) NULL")
    columns = with_column(Column("t", ColumnType.TIMESTAMP))
    mysql.execute("ALTER TABLE results ADD COLUMN t datetime(6)")
    moment = datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC)
    land(mysql, [(*row("a"), moment)], columns=columns)
    ((sealed, stored),) = mysql.execute("SELECT unix_timestamp(sealed_at), t FROM results")
    assert float(sealed) == row("a")[-1].timestamp()
    assert stored == moment.replace(tzinfo=None)


def test_what_the_server_says_of_a_value_is_told_without_it(mysql: Warehouse, caplog: Any) -> None:
    results(mysql, ", x int, CONSTRAINT checked CHECK (output <> 'secret check'), PRIMARY KEY (custom_id)")
    mysql.execute("CREATE UNIQUE INDEX other ON results (x, custom_id)")
    failures = []
    with caplog.at_level("DEBUG"):
        for rows, columns in (
            ([row("a", "secret check")], COLUMNS),
            ([(*row("a"), 98765432109876543210)], with_column(Column("x", ColumnType.INTEGER))),
            ([(*row("a"), Decimal("9876543210"))], with_column(Column("x", ColumnType.NUMERIC))),
        ):
            with pytest.raises(WarehouseError) as caught:
                land(mysql, rows, columns=columns)
            assert caught.value.__suppress_context__
            failures.append(str(caught.value))
    assert "checked" in failures[0]
    assert "Out of range value for column 'x'" in failures[1]
    assert "Out of range value for column 'x'" in failures[2]
    for text in [*failures, caplog.text]:
        assert "secret" not in text
        assert "98765" not in text
    mysql.execute("CREATE TRIGGER t BEFORE INSERT ON results FOR EACH ROW INSERT INTO log VALUES (NEW.custom_id)")
    mysql.execute("CREATE TABLE log (k varchar(99) PRIMARY KEY); INSERT INTO log VALUES ('it''s secret')")
    with pytest.raises(WarehouseError, match=r"Duplicate entry \(value not shown\) for key 'PRIMARY'") as caught:
        land(mysql, [row("it's secret")])
    assert landed(mysql) == {}


@contextlib.contextmanager
def packets_of(database: MySqlDatabase, size: int) -> Iterator[None]:
    ((before,),) = database.execute("SELECT @@global.max_allowed_packet")
    database.execute(f"SET GLOBAL max_allowed_packet = {size}")
    try:
        yield
    finally:
        database.execute(f"SET GLOBAL max_allowed_packet = {before}")


def test_statements_fit_into_what_the_server_takes(mysql: Warehouse) -> None:
    assert mysql.mysql is not None
    columns = with_column(Column("raw", ColumnType.BYTES))
    with packets_of(mysql.mysql, 64 << 10):
        land(mysql, [(*row(f"k{n}", "'\\\n" * n), b"\xff" * n) for n in range(1000)], columns=columns)
        land(mysql, [(*row("large", "x" * 60_000), None), (*row("larger", "ü" * 30_000), None)], columns=columns)
    assert mysql.execute("SELECT count(*), sum(length(output)), sum(length(raw)) FROM results") == [
        (1002, 3 * 499_500 + 120_000, 499_500)
    ]


@pytest.mark.parametrize("text", ["x" * 70_000, "'" * 35_000, "😀" * 17_000])
def test_a_row_that_no_packet_holds_is_told_with_its_number(mysql: Warehouse, text: str) -> None:
    assert mysql.mysql is not None
    with packets_of(mysql.mysql, 64 << 10):
        with pytest.raises(ResultsTableError, match=r"Row 2 of this landing takes .* bytes .*65,536"):
            land(mysql, [row("a"), row("b", text)])
    assert landed(mysql) == {}


def test_a_landing_waits_for_another_and_then_says_so(mysql: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mysql.mysql is not None
    land(mysql, [row("a", "1")])
    monkeypatch.setattr("airflow_provider_batch.warehouse.sinks.mysql.LOCK_SECONDS", 0)
    name = hashlib.sha256(f"`{mysql.mysql.name}`.`results`".encode()).hexdigest()[:40]
    with contextlib.closing(mysql.mysql.connect()) as other:
        other.cursor().execute(f"SELECT GET_LOCK('batch_{name}', 0)")
        with pytest.raises(WarehouseError, match="waited 0 s for another landing") as caught:
            land(mysql, [row("a", "2")])
        assert caught.value.retry
    assert landed(mysql) == {"a": ("succeeded", "1")}


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
def test_a_value_of_each_type_comes_the_same_from_either_driver(mysql: Warehouse, type_: str) -> None:
    literal, expected = TYPES[type_]
    mysql.execute(f"CREATE TABLE t (n int, v {type_}); INSERT INTO t VALUES (1, {literal}), (2, NULL)")
    with read_rows(mysql.hook, "SELECT v FROM t ORDER BY n") as rows:
        assert (found := list(rows)) == [(expected,), (None,)]
    assert type(found[0][0]) is type(expected)


def test_two_hundred_thousand_rows_pass_through_little_memory(mysql: Warehouse) -> None:
    tracemalloc.start()
    try:
        with read_rows(mysql.hook, f"SELECT n, repeat('x', 200) FROM {numbers(200_000)}") as rows:
            count = sum(1 for _ in rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 200_000
    assert peak < 8_000_000  # all of them are over 50 MB


def test_leaving_early_leaves_no_connection_behind(mysql: Warehouse) -> None:
    with read_rows(mysql.hook, f"SELECT n, repeat('x', 1000) FROM {numbers(1_000_000)}") as rows:
        next(iter(rows))
    others = "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = database() AND ID <> connection_id()"
    deadline = time.monotonic() + 30
    while (found := mysql.execute(others)) != [(0,)] and time.monotonic() < deadline:
        time.sleep(0.02)  # a thread of the server ends a moment after its connection
    assert found == [(0,)]


def numbers(count: int) -> str:
    """A table of the numbers below a power of ten, made as it is read."""
    digits = "(" + " UNION ALL ".join(f"SELECT {n} d" for n in range(10)) + ")"
    places = len(str(count - 1))
    tables = ", ".join(f"{digits} t{place}" for place in range(places))
    value = " + ".join(f"t{place}.d * {10**place}" for place in range(places))
    return f"(SELECT {value} AS n FROM {tables}) AS numbers WHERE n < {count}"


@pytest.mark.parametrize("cursor", ["dictcursor", "ssdictcursor", "sscursor"])
def test_the_cursor_that_a_connection_asks_for_makes_no_difference(
    mysql_database: MySqlDatabase, monkeypatch: pytest.MonkeyPatch, cursor: str
) -> None:
    asking = mysql_warehouse("mysqlclient", mysql_database, monkeypatch, cursor=cursor, charset="latin1")
    with read_rows(asking.hook, "SELECT 1 AS a, '😀' AS b") as rows:
        assert list(rows) == [(1, "😀")]
    land(asking, [row("a", "😀")])
    assert landed(asking) == {"a": ("succeeded", "😀")}


def test_reading_changes_nothing_even_by_a_function(mysql: Warehouse) -> None:
    mysql.execute(
        "CREATE TABLE t (n int); CREATE FUNCTION changes() RETURNS int DETERMINISTIC "
        "MODIFIES SQL DATA BEGIN INSERT INTO t VALUES (1); RETURN 1; END"
    )
    with pytest.raises(WarehouseError, match=r"(?i)read.only"):
        with read_rows(mysql.hook, "SELECT changes()"):
            pass
    assert mysql.execute("SELECT * FROM t") == []


def test_a_server_that_is_not_there_is_an_error_of_the_warehouse(
    mysql: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = mysql_warehouse(mysql.dialect, MySqlDatabase("127.0.0.1", 1, "x", "y", "z"), monkeypatch)
    with pytest.raises(WarehouseError, match=r"Connecting with connection 'warehouse' failed: .*127\.0\.0\.1"):
        with read_rows(broken.hook, "SELECT 1"):
            pass


@pytest.mark.parametrize(
    ("sql", "kept"),
    [
        ("SELECT ';' ; -- one", "SELECT ';' "),
        ("SELECT 'it\\'s;' # a; b", "SELECT 'it\\'s;' # a; b"),
        ('SELECT `a;``b`, "c;""d" /* e; */;', 'SELECT `a;``b`, "c;""d" /* e; */'),
        ("SELECT 1--1;", "SELECT 1--1"),
    ],
)
def test_one_statement_is_taken_as_it_is(sql: str, kept: str) -> None:
    assert one_statement(sql) == kept


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1; DELETE FROM t", "SELECT 1 /*! ; DELETE FROM t */", "SELECT 1;--DELETE FROM t", "SELECT 1; 'x'"],
)
def test_a_second_statement_is_found_wherever_mysql_would(sql: str) -> None:
    with pytest.raises(InputError, match="more than one statement"):
        one_statement(sql)
