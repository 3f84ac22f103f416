"""Groups of rows that are replaced as a whole, in every dialect."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse.dialects.registry import dialect_of
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.replaced_tables import ReplacedTables, Replacement
from tests.warehouse.conftest import Warehouse

COLUMNS = (
    Column("run", ColumnType.TEXT, key=True),
    Column("repeat", ColumnType.INTEGER, key=True),
    Column("reason", ColumnType.TEXT),
    Column("share", ColumnType.FLOAT),
    Column("cost", ColumnType.NUMERIC),
    Column("at", ColumnType.TIMESTAMP),
)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def row(run: str, repeat: int, reason: str | None = "why") -> tuple[Any, ...]:
    return (run, repeat, reason, 0.25, Decimal("0.000123"), NOON)


@pytest.fixture(autouse=True)
def decimals(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver below the generic dialect is sqlite3, which takes no Decimal unless it is told how."""
    if warehouse.dialect == "generic":
        adapters: dict[Any, Any] = sqlite3.adapters
        monkeypatch.setitem(adapters, (Decimal, sqlite3.PrepareProtocol), float)


def tables(warehouse: Warehouse, *names: str) -> ReplacedTables:
    found = ReplacedTables(warehouse.hook, dict.fromkeys(names or ("one",), COLUMNS))
    found.prepare()
    return found


def keys(warehouse: Warehouse, table: str = "one") -> list[tuple[str, int]]:
    quote = warehouse.quote
    found = warehouse.execute(f"SELECT {quote('run')}, {quote('repeat')} FROM {quote(table)}")
    return sorted((run, int(repeat)) for run, repeat in found)


def test_what_was_there_goes_and_what_is_given_comes(warehouse: Warehouse) -> None:
    one = tables(warehouse)
    one.apply([Replacement("one", {"run": "a"}, [row("a", 1), row("a", 2)])])
    one.apply([Replacement("one", {"run": "b"}, [row("b", 1)])])
    one.apply([Replacement("one", {"run": "a"}, [row("a", 2), row("a", 3)])])
    assert keys(warehouse) == [("a", 2), ("a", 3), ("b", 1)]
    one.apply([Replacement("one", {"run": "a", "repeat": 3}, [])])
    assert keys(warehouse) == [("a", 2), ("b", 1)]


def test_values_come_back_as_they_were(warehouse: Warehouse) -> None:
    one = tables(warehouse)
    reason = "'quoted' 100 % \\ 🙂 \ud83d\ude00 \ud800\0"
    one.apply([Replacement("one", {"run": "a"}, [row("a", 1, reason), row("a", 2, None)])])
    sql = dialect_of(warehouse.hook).select("one", ("repeat", "reason", "share", "cost", "at"), ["run"])
    with read_rows(warehouse.hook, sql, ["a"]) as rows:
        first, second = sorted(rows)
    # halves that belong together are joined, a lone one is replaced; only some databases keep a NUL
    assert first[1].rstrip("\0") == "'quoted' 100 % \\ 🙂 😀 \ufffd"
    assert second[1] is None
    for repeat, found in ((1, first), (2, second)):
        assert (found[0], found[2], Decimal(str(found[3]))) == (repeat, 0.25, Decimal("0.000123"))
        moment = found[4] if isinstance(found[4], datetime) else datetime.fromisoformat(found[4])
        assert (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) == NOON


def test_all_changes_are_made_or_none(warehouse: Warehouse) -> None:
    both = tables(warehouse, "one", "two")
    both.apply([Replacement(name, {"run": "a"}, [row("a", 1)]) for name in ("one", "two")])
    with pytest.raises(WarehouseError, match="nothing was written"):
        both.apply(
            [
                Replacement("one", {"run": "a"}, [row("a", 7)]),
                Replacement("two", {"run": "a"}, [row("a", 8), row("a", 8)]),
            ]
        )
    assert keys(warehouse, "one") == keys(warehouse, "two") == [("a", 1)]


def test_no_value_is_in_the_error(warehouse: Warehouse) -> None:
    one = tables(warehouse)
    with pytest.raises(WarehouseError) as error:
        one.apply([Replacement("one", {"run": "secret"}, [row("secret", 1), row("secret", 1)])])
    assert "secret" not in str(error.value)


def test_a_table_that_lacks_a_column_is_told_with_what_mends_it(warehouse: Warehouse) -> None:
    warehouse.execute(f"CREATE TABLE {warehouse.quote('one')} ({warehouse.quote('run')} varchar(99))")
    with pytest.raises(ResultsTableError, match="lacks columns") as error:
        tables(warehouse)
    *_, first = (line for line in str(error.value).splitlines() if "repeat" in line)
    warehouse.execute(first.rstrip(";"))


def test_names_are_quoted(warehouse: Warehouse) -> None:
    # what mysql-connector takes for a placeholder cannot be written otherwise
    percent = "" if warehouse.dialect == "mysql_connector" else " %s"
    name = f'my "rows" `x`; DROP TABLE one; --{percent}'
    tables(warehouse, name).apply([Replacement(name, {"run": "a"}, [row("a", 1)])])
    assert keys(warehouse, name) == [("a", 1)]


def test_a_name_that_no_table_can_have_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(InputError, match="no table name"):
        ReplacedTables(warehouse.hook, {"a..b": COLUMNS})
