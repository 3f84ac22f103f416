"""The generic path with the behaviour of hooks whose databases are not available to the tests, on top of SQLite.

Each hook class below has the connection type, the placeholders, the transactions and the values of one provider's hook,
taken from the source of that hook and its driver. Behind it is SQLite, which accepts any type name.
"""

from __future__ import annotations

import io
import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.sql.hooks.sql import DbApiHook

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, land, landed_rows, row


class Cursor:
    """An sqlite3 cursor that accepts only the placeholders of one driver."""

    def __init__(self, cursor: sqlite3.Cursor, mark: str, value: Callable[[Any], Any]) -> None:
        self._cursor, self._mark, self._value = cursor, mark, value
        self.arraysize = 1

    @property
    def description(self) -> Any:
        return self._cursor.description

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        # Databricks accepts the fewest parameters of these drivers.
        assert len(parameters) <= 255
        marks = re.findall(r":\d+|%s|\?", sql)
        if self._mark == ":":
            assert marks == [f":{number}" for number in range(1, len(parameters) + 1)], marks
        else:
            assert marks == [self._mark] * len(parameters), marks
        sql = re.sub(r":\d+|%s", "?", sql)
        # Remove the parts of types that SQLite does not parse.
        sql = re.sub(r" COLLATE \w+|\(MAX\)| CHAR(?=\))", "", sql)
        sql = re.sub(r"\b(STRING|VARCHAR2|DATETIME2|TIMESTAMP)\b", "TEXT", sql)
        self._cursor.execute(sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        for parameters in rows:
            self.execute(sql, parameters)

    def fetchmany(self, size: int) -> list[tuple[Any, ...]]:
        return [tuple(map(self._value, row)) for row in self._cursor.fetchmany(size)]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(map(self._value, row)) for row in self._cursor.fetchall()]

    def close(self) -> None:
        self._cursor.close()


class Conn:
    """An sqlite3 connection with the transactions of one driver."""

    def __init__(self, path: str, mark: str, *, transactions: bool, value: Callable[[Any], Any]) -> None:
        self._conn = sqlite3.connect(path, isolation_level="DEFERRED" if transactions else None)
        self._mark, self._transactions, self._value = mark, transactions, value
        self.autocommit: Any = None

    def cursor(self) -> Cursor:
        return Cursor(self._conn.cursor(), self._mark, self._value)

    def commit(self) -> None:
        self._conn.commit()

    def rollback(self) -> None:
        if not self._transactions:
            raise RuntimeError("no transaction was started")
        self._conn.rollback()

    def close(self) -> None:
        self._conn.close()


class LikeHook(DbApiHook):
    conn_name_attr = "like_conn_id"
    default_conn_name = "warehouse"
    mark = "%s"
    transactions = True

    @staticmethod
    def value(value: Any) -> Any:
        return value

    def get_conn(self) -> Any:
        host = self.connection.host
        assert host is not None
        return Conn(host, self.mark, transactions=self.transactions, value=self.value)


class LikeSnowflake(LikeHook):
    conn_type = "snowflake"
    supports_autocommit = True


class LikeRedshift(LikeHook):
    conn_type = "redshift"
    supports_autocommit = True


class LikeSqlServer(LikeHook):
    conn_type = "mssql"
    supports_autocommit = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "escape_word_format": "[{}]"})


class LikeOracle(LikeHook):
    """The hook declares no placeholder, and texts over 4,000 bytes are returned as handles."""

    conn_type = "oracle"
    supports_autocommit = True
    mark = ":"

    @staticmethod
    def value(value: Any) -> Any:
        return io.StringIO(value) if isinstance(value, str) else value


class LikeTrino(LikeHook):
    """In autocommit mode, the hook's default, a rollback raises."""

    conn_type = "trino"
    _placeholder = "?"
    mark = "?"
    transactions = False


class LikeDatabricks(LikeHook):
    """The hook returns its cached connection even if it is closed. It declares `%s`, but the driver takes `?`."""

    conn_type = "databricks"
    supports_autocommit = True
    mark = "?"
    transactions = False
    cached_conn: Any = None

    def get_conn(self) -> Any:
        self.cached_conn = self.cached_conn or super().get_conn()
        return self.cached_conn


HOOKS = (LikeSnowflake, LikeRedshift, LikeSqlServer, LikeOracle, LikeTrino, LikeDatabricks)


@pytest.fixture(params=HOOKS, ids=lambda hook: hook.conn_type)
def warehouse(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    return warehouse_of(request.param, tmp_path, monkeypatch)


def warehouse_of(hook: type[LikeHook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **extra: object) -> Warehouse:
    path = tmp_path / "warehouse.db"
    connection = {"conn_type": hook.conn_type, "host": str(path), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return Warehouse("generic", hook("warehouse"), path=path)


def test_rows_land_and_land_again(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1"), row("b", "1")], [row("b", "2", minute=5), row("c", "2")], [row("b", "old")])
    assert landed_rows(warehouse) == {"a": ("succeeded", "1"), "b": ("succeeded", "2"), "c": ("succeeded", "2")}


def test_many_existing_rows_are_looked_up_in_several_queries(warehouse: Warehouse) -> None:
    columns = (*COLUMNS, Column("run", ColumnType.TEXT, key=True))
    landing = [(*row(f"k{number:03d}"), "night") for number in range(300)]
    land(warehouse, landing, landing, columns=columns)
    assert warehouse.execute("SELECT count(*), count(DISTINCT custom_id) FROM results") == [(300, 300)]


def test_a_row_without_an_outcome_replaces_nothing(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "1")], [row("a", "", "pending", minute=9)], [row("b", "", "pending")], [row("b", "2")])
    assert landed_rows(warehouse) == {"a": ("succeeded", "1"), "b": ("succeeded", "2")}


def test_large_texts_are_read_in_full(warehouse: Warehouse) -> None:
    land(warehouse, [row("a", "x" * 5_000)])
    with read_rows(warehouse.hook, "SELECT custom_id, output FROM results;") as rows:
        assert list(rows) == [("a", "x" * 5_000)]


def test_the_error_says_whether_rows_were_rolled_back(warehouse: Warehouse) -> None:
    land(warehouse, [row("a")])
    sink = open_sink(warehouse.hook, "results", COLUMNS)
    sink.prepare()
    warehouse.execute("DROP TABLE results")
    with pytest.raises(WarehouseError, match="no such table") as exc_info:
        sink.write([row("b")])
    has_transactions = dialect_of(warehouse.hook).transactions
    assert ("Nothing from this landing was committed." in str(exc_info.value)) is has_transactions
    assert ("Landing again repairs that." in str(exc_info.value)) is not has_transactions


def test_a_table_is_created_with_the_types_of_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (*COLUMNS, *(Column(f"{type_}_x", type_) for type_ in (ColumnType.BOOLEAN, ColumnType.BYTES)))
    messages = {}
    for hook in HOOKS:
        warehouse = warehouse_of(hook, tmp_path, monkeypatch)
        with pytest.raises(ResultsTableError) as exc_info:
            open_sink(warehouse.hook, "results", columns, create=False).prepare()
        messages[hook.conn_type] = str(exc_info.value)
    for conn_type, fragments in {
        "snowflake": ['"RESULTS"', '"CUSTOM_ID" VARCHAR(512) NOT NULL', '"OUTPUT" TEXT', "BINARY", "PRIMARY KEY"],
        "redshift": ['"results"', '"output" VARCHAR(65535)', "VARBYTE(1000000)"],
        "mssql": [
            "[results]",
            "[output] NVARCHAR(MAX)",
            "[boolean_x] BIT",
            "[sealed_at] DATETIME2(6)",
            "_BIN2 NOT NUL",
        ],
        "oracle": ['"OUTCOME" VARCHAR2(512 CHAR)', '"OUTPUT" CLOB', '"BOOLEAN_X" NUMBER(1)'],
        "trino": ['"output" VARCHAR', "VARBINARY", "TIMESTAMP(6)"],
        "databricks": ["`results`", "`output` STRING", "`bytes_x` BINARY"],
    }.items():
        assert [fragment for fragment in fragments if fragment not in messages[conn_type]] == []
        assert ("PRIMARY KEY" in messages[conn_type]) is (conn_type not in ("trino", "databricks"))


def test_booleans_are_bound_as_numbers_if_the_driver_cannot_bind_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle = warehouse_of(LikeOracle, tmp_path, monkeypatch)
    land(oracle, [(*row("a"), True)], columns=(*COLUMNS, Column("flag", ColumnType.BOOLEAN)))
    assert oracle.execute("SELECT flag, typeof(flag) FROM results") == [(1, "integer")]


def test_the_extra_of_a_connection_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured_hook = warehouse_of(
        LikeDatabricks, tmp_path, monkeypatch, placeholder="%s", escape_word_format='"{}"'
    ).hook
    assert (dialect_of(configured_hook).placeholder, dialect_of(configured_hook).marks) == ("%s", '"{}"')
    default_hook = warehouse_of(LikeDatabricks, tmp_path, monkeypatch).hook
    assert (dialect_of(default_hook).placeholder, dialect_of(default_hook).marks) == ("?", "``")


class LikeBigQuery(LikeHook):
    """The hook has no transactions, binds values only by name, and runs a job for each statement."""

    conn_type = "gcpbigquery"
    transactions = False


def test_bigquery_is_read_but_not_written_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bigquery = warehouse_of(LikeBigQuery, tmp_path, monkeypatch)
    bigquery.execute("CREATE TABLE tickets AS SELECT 'a' AS id")
    with read_rows(bigquery.hook, "SELECT id FROM `tickets`") as rows:
        assert list(rows) == [("a",)]
    with pytest.raises(ResultsTableError, match=r"cannot be written row by row.*replace table by results_file"):
        open_sink(bigquery.hook, "results", COLUMNS).prepare()


def test_the_table_of_an_earlier_job_is_read(warehouse: Warehouse) -> None:
    names = ("request_sha256", "finish_reason", "model", "batch_id")
    columns = (*COLUMNS, *(Column(name, ColumnType.TEXT) for name in names))
    assert ReusedTable(warehouse.hook, "results").check() is False
    land(warehouse, [(*row("a", "yes"), "0" * 64, "stop", "m", "b")], columns=columns)
    table = ReusedTable(warehouse.hook, "results")
    assert table.check()
    assert list(table) == [("0" * 64, "yes", "stop", "m", "b")]
