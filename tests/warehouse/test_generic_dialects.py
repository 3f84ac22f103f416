"""The generic path with the habits of hooks whose databases were not run here, over SQLite.

Each class below is a `DbApiHook` with the connection type, the placeholders, the transactions and the values of one
provider's hook, as that hook's and its driver's source has them. Behind it is SQLite, which takes any type's name.
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
from airflow_provider_batch.warehouse.reused_table import KnownTable
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, land, landed, row


class Cursor:
    """A sqlite3 cursor that takes the placeholders of one driver and no others."""

    def __init__(self, cursor: sqlite3.Cursor, mark: str, value: Callable[[Any], Any]) -> None:
        self._cursor, self._mark, self._value = cursor, mark, value
        self.arraysize = 1

    @property
    def description(self) -> Any:
        return self._cursor.description

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        # the fewest that any of these drivers takes is Databricks' number
        assert len(parameters) <= 255
        marks = re.findall(r":\d+|%s|\?", sql)
        if self._mark == ":":
            assert marks == [f":{number}" for number in range(1, len(parameters) + 1)], marks
        else:
            assert marks == [self._mark] * len(parameters), marks
        sql = re.sub(r":\d+|%s", "?", sql)
        # what SQLite does not read in a type
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
    """A sqlite3 connection with the transactions of one driver."""

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
    """No placeholder is said by the hook; texts over 4,000 bytes come as handles."""

    conn_type = "oracle"
    supports_autocommit = True
    mark = ":"

    @staticmethod
    def value(value: Any) -> Any:
        return io.StringIO(value) if isinstance(value, str) else value


class LikeTrino(LikeHook):
    """In autocommit, as is the hook's default, a rollback raises."""

    conn_type = "trino"
    _placeholder = "?"
    mark = "?"
    transactions = False


class LikeDatabricks(LikeHook):
    """The hook keeps its connection, and gives it again when it is closed; it says `%s`, but the driver takes `?`."""

    conn_type = "databricks"
    supports_autocommit = True
    mark = "?"
    transactions = False
    kept: Any = None

    def get_conn(self) -> Any:
        self.kept = self.kept or super().get_conn()
        return self.kept


HOOKS = (LikeSnowflake, LikeRedshift, LikeSqlServer, LikeOracle, LikeTrino, LikeDatabricks)


@pytest.fixture(params=HOOKS, ids=lambda hook: hook.conn_type)
def other(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    return warehouse_of(request.param, tmp_path, monkeypatch)


def warehouse_of(hook: type[LikeHook], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **extra: object) -> Warehouse:
    path = tmp_path / "warehouse.db"
    connection = {"conn_type": hook.conn_type, "host": str(path), "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
    return Warehouse("generic", hook("warehouse"), path=path)


def test_rows_land_and_land_again(other: Warehouse) -> None:
    land(other, [row("a", "1"), row("b", "1")], [row("b", "2", sealed=5), row("c", "2")], [row("b", "old")])
    assert landed(other) == {"a": ("succeeded", "1"), "b": ("succeeded", "2"), "c": ("succeeded", "2")}


def test_many_rows_under_a_key_of_two_columns_are_looked_for_in_parts(other: Warehouse) -> None:
    columns = (*COLUMNS, Column("run", ColumnType.TEXT, key=True))
    landing = [(*row(f"k{number:03d}"), "night") for number in range(300)]
    land(other, landing, landing, columns=columns)
    assert other.execute("SELECT count(*), count(DISTINCT custom_id) FROM results") == [(300, 300)]


def test_a_row_without_an_outcome_replaces_nothing(other: Warehouse) -> None:
    land(other, [row("a", "1")], [row("a", "", "pending", sealed=9)], [row("b", "", "pending")], [row("b", "2")])
    assert landed(other) == {"a": ("succeeded", "1"), "b": ("succeeded", "2")}


def test_rows_are_read_with_large_texts_whole(other: Warehouse) -> None:
    land(other, [row("a", "x" * 5_000)])
    with read_rows(other.hook, "SELECT custom_id, output FROM results;") as rows:
        assert list(rows) == [("a", "x" * 5_000)]


def test_an_error_is_told_as_it_is_where_nothing_can_be_rolled_back(other: Warehouse) -> None:
    land(other, [row("a")])
    sink = open_sink(other.hook, "results", COLUMNS)
    sink.prepare()
    other.execute("DROP TABLE results")
    with pytest.raises(WarehouseError, match="no such table") as caught:
        sink.write([row("b")])
    has_transactions = dialect_of(other.hook).transactions
    assert ("nothing of this landing was committed" in str(caught.value)) is has_transactions
    assert ("landing again mends them" in str(caught.value)) is not has_transactions


def test_a_table_is_created_in_words_that_the_database_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = (*COLUMNS, *(Column(f"{type_}_x", type_) for type_ in (ColumnType.BOOLEAN, ColumnType.BYTES)))
    made = {}
    for hook in HOOKS:
        warehouse = warehouse_of(hook, tmp_path, monkeypatch)
        with pytest.raises(ResultsTableError) as caught:
            open_sink(warehouse.hook, "results", columns, create=False).prepare()
        made[hook.conn_type] = str(caught.value)
    for conn_type, words in {
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
        assert [word for word in words if word not in made[conn_type]] == []
        assert ("PRIMARY KEY" in made[conn_type]) is (conn_type not in ("trino", "databricks"))


def test_booleans_are_numbers_where_the_driver_binds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = warehouse_of(LikeOracle, tmp_path, monkeypatch)
    land(oracle, [(*row("a"), True)], columns=(*COLUMNS, Column("flag", ColumnType.BOOLEAN)))
    assert oracle.execute("SELECT flag, typeof(flag) FROM results") == [(1, "integer")]


def test_what_the_connection_says_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = warehouse_of(LikeDatabricks, tmp_path, monkeypatch, placeholder="%s", escape_word_format='"{}"').hook
    assert (dialect_of(said).placeholder, dialect_of(said).marks) == ("%s", '"{}"')
    silent = warehouse_of(LikeDatabricks, tmp_path, monkeypatch).hook
    assert (dialect_of(silent).placeholder, dialect_of(silent).marks) == ("?", "``")


class LikeBigQuery(LikeHook):
    """No transactions, values only by name, and a job for each statement."""

    conn_type = "gcpbigquery"
    transactions = False


def test_bigquery_is_read_but_not_landed_in_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bigquery = warehouse_of(LikeBigQuery, tmp_path, monkeypatch)
    bigquery.execute("CREATE TABLE tickets AS SELECT 'a' AS id")
    with read_rows(bigquery.hook, "SELECT id FROM `tickets`") as rows:
        assert list(rows) == [("a",)]
    with pytest.raises(ResultsTableError, match=r"cannot be landed in row by row.*landed_file=True"):
        open_sink(bigquery.hook, "results", COLUMNS).prepare()


def test_an_earlier_table_is_found_in_each(other: Warehouse) -> None:
    names = ("request_sha256", "finish_reason", "model", "batch_id")
    columns = (*COLUMNS, *(Column(name, ColumnType.TEXT) for name in names))
    assert KnownTable(other.hook, "results").check() is False
    land(other, [(*row("a", "yes"), "0" * 64, "stop", "m", "b")], columns=columns)
    table = KnownTable(other.hook, "results")
    assert table.check()
    assert list(table) == [("0" * 64, "yes", "stop", "m", "b")]
