"""Carried columns: from the warehouse to staging and back, with their types."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.sealing.carry import CarriedColumns, from_json, type_of
from airflow_provider_batch.exceptions import InputError

INDIA = timezone(timedelta(hours=5, minutes=30))


def round_trip(*values: Any) -> tuple[ColumnType, list[Any]]:
    """Return the type of a column with these values, and the values after a round trip through staging."""
    columns = CarriedColumns(["label"], [0])
    carry_lists = columns.take([(value,) for value in values], 1)
    (column,) = columns.columns()
    stored_values = [
        msgspec.json.decode(msgspec.json.encode(RowIndex("a", "0", row)), type=RowIndex).carry for row in carry_lists
    ]
    return column.type, [from_json(row[0], column) for row in stored_values]


@pytest.mark.parametrize(
    ("value", "type", "restored_value"),
    [
        ("bug", ColumnType.TEXT, "bug"),
        ("", ColumnType.TEXT, ""),
        ("null", ColumnType.TEXT, "null"),
        ("2026-11-20", ColumnType.TEXT, "2026-11-20"),
        (True, ColumnType.BOOLEAN, True),
        (0, ColumnType.INTEGER, 0),
        (-(2**63), ColumnType.INTEGER, -(2**63)),
        (2**63 - 1, ColumnType.INTEGER, 2**63 - 1),
        (2**63, ColumnType.NUMERIC, Decimal(2**63)),
        (10**30, ColumnType.NUMERIC, Decimal(10**30)),
        (0.1, ColumnType.FLOAT, 0.1),
        (1e300, ColumnType.FLOAT, 1e300),
        (Decimal("12345678901234567890.12345"), ColumnType.NUMERIC, Decimal("12345678901234567890.12345")),
        (Decimal("1E+5"), ColumnType.NUMERIC, Decimal("1E+5")),
        (date(2026, 11, 20), ColumnType.DATE, date(2026, 11, 20)),
        (datetime(2026, 11, 20, 8, 30, 1, 7), ColumnType.LOCAL_TIMESTAMP, datetime(2026, 11, 20, 8, 30, 1, 7)),
        (datetime(2026, 11, 20, 8, 30, tzinfo=INDIA), ColumnType.TIMESTAMP, datetime(2026, 11, 20, 3, 0, tzinfo=UTC)),
        (
            datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=5))),
            ColumnType.TEXT,
            "9999-12-31T23:00:00-05:00",
        ),
        (time(8, 30), ColumnType.TIME, time(8, 30)),
        (time(8, 30, tzinfo=UTC), ColumnType.TEXT, "08:30:00+00:00"),
        (timedelta(days=-1, microseconds=1), ColumnType.INTERVAL, timedelta(days=-1, microseconds=1)),
        (uuid.UUID(int=7), ColumnType.UUID, uuid.UUID(int=7)),
        (b"\x00\xff", ColumnType.BYTES, b"\x00\xff"),
        (bytearray(b"\x00"), ColumnType.BYTES, b"\x00"),
        (memoryview(b"\x01"), ColumnType.BYTES, b"\x01"),
        ({"a": [1, None, {"b": "ü"}]}, ColumnType.JSON, {"a": [1, None, {"b": "ü"}]}),
        (["x", 1.5], ColumnType.JSON, ["x", 1.5]),
        (("x", "y"), ColumnType.JSON, ["x", "y"]),
        (
            [Decimal("1.5"), Decimal("1E+400"), Decimal("NaN"), 10**30, math.inf, date(2026, 1, 2)],
            ColumnType.JSON,
            [1.5, Decimal("1E+400"), "NaN", 10**30, "inf", "2026-01-02"],
        ),
        ({date(2026, 1, 2): {1: b"\xff"}}, ColumnType.JSON, {"2026-01-02": {"1": "/w=="}}),
    ],
)
def test_a_value_is_restored_as_the_python_value_of_its_column_type(
    value: Any, type: ColumnType, restored_value: Any
) -> None:
    column_type, (restored,) = round_trip(value)
    assert (column_type, restored) == (type, restored_value)
    assert restored.__class__ is restored_value.__class__


def test_null_stays_null_and_does_not_decide_the_type() -> None:
    assert round_trip(None, 3, None) == (ColumnType.INTEGER, [None, 3, None])


def test_a_column_with_only_nulls_is_text() -> None:
    assert round_trip(None, None) == (ColumnType.TEXT, [None, None])
    assert round_trip() == (ColumnType.TEXT, [])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_infinity_and_nan_survive_json(value: float) -> None:
    column_type, (restored, number) = round_trip(value, 1.5)
    assert (column_type, number) == (ColumnType.FLOAT, 1.5)
    assert restored == value or (math.isnan(restored) and math.isnan(value))


@pytest.mark.parametrize(
    ("values", "type", "restored_value"),
    [
        ([1, 2.5], ColumnType.FLOAT, [1.0, 2.5]),
        ([1, Decimal("2.5")], ColumnType.NUMERIC, [Decimal(1), Decimal("2.5")]),
        ([0.1, Decimal("2.5")], ColumnType.NUMERIC, [Decimal("0.1"), Decimal("2.5")]),
        ([1, 2.5, Decimal(3)], ColumnType.NUMERIC, [Decimal(1), Decimal("2.5"), Decimal(3)]),
        ([1, 2**70], ColumnType.NUMERIC, [Decimal(1), Decimal(2**70)]),
        (
            [date(2026, 1, 2), datetime(2026, 1, 2, 3)],
            ColumnType.LOCAL_TIMESTAMP,
            [datetime(2026, 1, 2), datetime(2026, 1, 2, 3)],
        ),
        ([1, "x"], ColumnType.TEXT, ["1", "x"]),
        ([True, "x"], ColumnType.TEXT, ["true", "x"]),
        ([True, 1], ColumnType.TEXT, ["true", "1"]),
        ([Decimal("1.50"), "x"], ColumnType.TEXT, ["1.50", "x"]),
        ([date(2026, 1, 2), "x"], ColumnType.TEXT, ["2026-01-02", "x"]),
        ([{"a": 1}, "x", 3], ColumnType.JSON, [{"a": 1}, "x", 3]),
    ],
)
def test_a_column_with_several_types_gets_a_type_that_fits_all_values(
    values: list[Any], type: ColumnType, restored_value: list[Any]
) -> None:
    for order in (values, list(reversed(values))):
        column_type, restored_values = round_trip(*order)
        assert column_type == type
        assert restored_values == (restored_value if order is values else list(reversed(restored_value)))


@pytest.mark.parametrize("value", [{1, 2}, object(), 1j, [object()], {"a": {(1, 2): 3}}])
def test_an_unsupported_value_is_reported_with_its_row_and_column(value: Any) -> None:
    columns = CarriedColumns(["id", "span"], [1, 0])
    with pytest.raises(InputError) as error_info:
        columns.take([(value, 1)], 17)
    for part in ("row 17", "'span'", "Nothing was uploaded", "Convert it where the rows come from"):
        assert part in str(error_info.value)


def test_columns_are_read_at_their_positions_in_the_order_of_carry() -> None:
    columns = CarriedColumns(["c", "a"], [2, 0])
    assert columns.take([("x", "not carried", 3)], 1) == [[3, "x"]]
    assert columns.columns() == [Column("c", ColumnType.INTEGER), Column("a", ColumnType.TEXT)]


def test_a_job_may_carry_no_columns() -> None:
    columns = CarriedColumns([], [])
    assert (columns.take([("x",)], 1), columns.columns()) == ([[]], [])


# What always holds

numbers = st.integers(-(2**63), 2**63 - 1)
timestamps = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.sampled_from([UTC, INDIA]))
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
kinds = {
    ColumnType.TEXT: st.text(st.characters(exclude_categories=["Cs"])),
    ColumnType.BOOLEAN: st.booleans(),
    ColumnType.INTEGER: numbers,
    ColumnType.FLOAT: st.floats(allow_nan=False),
    ColumnType.NUMERIC: st.decimals(allow_nan=False, allow_infinity=False) | st.integers(2**63, 2**80),
    ColumnType.DATE: st.dates(),
    ColumnType.TIMESTAMP: timestamps,
    ColumnType.LOCAL_TIMESTAMP: st.datetimes(),
    ColumnType.TIME: st.times(),
    ColumnType.INTERVAL: st.timedeltas(),
    ColumnType.UUID: st.uuids(),
    ColumnType.BYTES: st.binary(),
    ColumnType.JSON: json_values.filter(lambda value: isinstance(value, (dict, list))),
}


def expected(value: Any) -> Any:
    """Return what ColumnType documents for a value of the warehouse."""
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo is not None else value


@given(st.sampled_from(sorted(kinds)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(st.none() | kinds[kind]))))
def test_values_of_one_type_survive_the_round_trip_through_staging(drawn_column: tuple[ColumnType, list[Any]]) -> None:
    kind, values = drawn_column
    column_type, restored_values = round_trip(*values)
    assert column_type == (kind if any(value is not None for value in values) else ColumnType.TEXT)
    assert restored_values == [None if value is None else expected(value) for value in values]
    assert all(
        value.utcoffset() == timedelta(0) for value in restored_values if isinstance(value, datetime) and value.tzinfo
    )


@given(st.lists(st.none() | st.one_of(*kinds.values()), max_size=6))
def test_every_value_of_a_mixed_column_fits_the_column_type(values: list[Any]) -> None:
    python_types = {
        ColumnType.TEXT: str,
        ColumnType.BOOLEAN: bool,
        ColumnType.INTEGER: int,
        ColumnType.FLOAT: float,
        ColumnType.NUMERIC: Decimal,
        ColumnType.DATE: date,
        ColumnType.TIMESTAMP: datetime,
        ColumnType.LOCAL_TIMESTAMP: datetime,
        ColumnType.TIME: time,
        ColumnType.INTERVAL: timedelta,
        ColumnType.UUID: uuid.UUID,
        ColumnType.BYTES: bytes,
        ColumnType.JSON: object,
    }
    column_type, restored_values = round_trip(*values)
    assert [value is None for value in restored_values] == [value is None for value in values]
    assert all(isinstance(value, python_types[column_type]) for value in restored_values if value is not None)


@pytest.mark.parametrize("value", [None, object(), 1j])
def test_type_of_rejects_unsupported_values(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        type_of(value)
