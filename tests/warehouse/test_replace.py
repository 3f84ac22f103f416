"""Groups of rows are replaced as a whole, in every dialect."""

from __future__ import annotations

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

pytestmark = pytest.mark.usefixtures("decimals")

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


def prepared_tables(warehouse: Warehouse, *names: str) -> ReplacedTables:
    result = ReplacedTables(warehouse.hook, dict.fromkeys(names or ("one",), COLUMNS))
    result.prepare()
    return result


def keys(warehouse: Warehouse, table: str = "one") -> list[tuple[str, int]]:
    quote = warehouse.quote
    result = warehouse.execute(f"SELECT {quote('run')}, {quote('repeat')} FROM {quote(table)}")
    return sorted((run, int(repeat)) for run, repeat in result)


def test_the_rows_of_a_group_are_replaced(warehouse: Warehouse) -> None:
    replaced_tables = prepared_tables(warehouse)
    replaced_tables.apply([Replacement("one", {"run": "a"}, [row("a", 1), row("a", 2)])])
    replaced_tables.apply([Replacement("one", {"run": "b"}, [row("b", 1)])])
    replaced_tables.apply([Replacement("one", {"run": "a"}, [row("a", 2), row("a", 3)])])
    assert keys(warehouse) == [("a", 2), ("a", 3), ("b", 1)]
    replaced_tables.apply([Replacement("one", {"run": "a", "repeat": 3}, [])])
    assert keys(warehouse) == [("a", 2), ("b", 1)]


def test_values_are_read_back_unchanged(warehouse: Warehouse) -> None:
    replaced_tables = prepared_tables(warehouse)
    reason = "'quoted' 100 % \\ 🙂 \ud83d\ude00 \ud800\0"
    replaced_tables.apply([Replacement("one", {"run": "a"}, [row("a", 1, reason), row("a", 2, None)])])
    sql = dialect_of(warehouse.hook).select("one", ("repeat", "reason", "share", "cost", "at"), ["run"])
    with read_rows(warehouse.hook, sql, ["a"]) as rows:
        first, second = sorted(rows)
    # Surrogate pairs are joined, a lone surrogate is replaced, and only some databases keep a NUL.
    assert first[1].rstrip("\0") == "'quoted' 100 % \\ 🙂 😀 \ufffd"
    assert second[1] is None
    for repeat, result in ((1, first), (2, second)):
        assert (result[0], result[2], Decimal(str(result[3]))) == (repeat, 0.25, Decimal("0.000123"))
        timestamp = result[4] if isinstance(result[4], datetime) else datetime.fromisoformat(result[4])
        assert (timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)) == NOON


def test_all_changes_are_made_or_none(warehouse: Warehouse) -> None:
    replaced_tables = prepared_tables(warehouse, "one", "two")
    replaced_tables.apply([Replacement(name, {"run": "a"}, [row("a", 1)]) for name in ("one", "two")])
    with pytest.raises(WarehouseError, match="Nothing was written"):
        replaced_tables.apply(
            [
                Replacement("one", {"run": "a"}, [row("a", 7)]),
                Replacement("two", {"run": "a"}, [row("a", 8), row("a", 8)]),
            ]
        )
    assert keys(warehouse, "one") == keys(warehouse, "two") == [("a", 1)]


def test_errors_do_not_show_values(warehouse: Warehouse) -> None:
    replaced_tables = prepared_tables(warehouse)
    with pytest.raises(WarehouseError) as error:
        replaced_tables.apply([Replacement("one", {"run": "secret"}, [row("secret", 1), row("secret", 1)])])
    assert "secret" not in str(error.value)


def test_the_error_for_a_missing_column_contains_the_fix(warehouse: Warehouse) -> None:
    warehouse.execute(f"CREATE TABLE {warehouse.quote('one')} ({warehouse.quote('run')} varchar(99))")
    with pytest.raises(ResultsTableError, match="lacks columns") as error:
        prepared_tables(warehouse)
    *_, first = (line for line in str(error.value).splitlines() if "repeat" in line)
    warehouse.execute(first.rstrip(";"))


def test_names_are_quoted(warehouse: Warehouse) -> None:
    # mysql-connector has no way to escape what it takes for a placeholder.
    percent = "" if warehouse.dialect == "mysql_connector" else " %s"
    name = f'my "rows" `x`; DROP TABLE one; --{percent}'
    prepared_tables(warehouse, name).apply([Replacement(name, {"run": "a"}, [row("a", 1)])])
    assert keys(warehouse, name) == [("a", 1)]


def test_an_invalid_table_name_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(InputError, match="not a table name"):
        ReplacedTables(warehouse.hook, {"a..b": COLUMNS})
