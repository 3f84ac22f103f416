"""Rows on their way into a table are converted value by value, whatever came before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.rows import Incoming

COLUMNS = [
    Column("id", ColumnType.INTEGER, key=True),
    Column("said", ColumnType.TEXT),
    Column("at", ColumnType.TIMESTAMP),
    Column("held", ColumnType.JSON),
]
#: few values, so that many rows hold the very same one
SAID = st.sampled_from(["", "SUCCEEDED", "batch_1", "batch_2", None])
HELD: st.SearchStrategy[object] = st.sampled_from([1, True, 1.0, "x", [], None])
AT = st.sampled_from([datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2)] + [None])


def is_upper(text: str) -> bool:
    return text == text.upper()


def converted(rows: list[tuple[Any, ...]], plain: Callable[[str], bool] | None = None) -> list[list[Any]]:
    return list(Incoming(rows, COLUMNS, [str, str.upper, datetime.isoformat, repr], null="nothing", plain=plain))


def alone(number: int, said: str | None, at: datetime | None, held: Any) -> list[Any]:
    return [
        str(number),
        "nothing" if said is None else said.upper(),
        "nothing" if at is None else at.isoformat(),
        "nothing" if held is None else repr(held),
    ]


@given(st.lists(st.tuples(st.integers(0, 9), SAID, AT, HELD)), st.sampled_from([None, is_upper]))
def test_each_value_is_converted_as_if_it_were_the_only_one(
    rows: list[tuple[Any, ...]], plain: Callable[[str], bool] | None
) -> None:
    assert converted(rows, plain) == [alone(*row) for row in rows]


def test_rows_are_taken_in_their_order_however_many_there_are() -> None:
    rows = [(number, f"Said {number}", datetime(2026, 11, 1, tzinfo=UTC), [number]) for number in range(1000)]
    incoming = Incoming(rows, COLUMNS, [str, str.upper, datetime.isoformat, repr])
    assert list(incoming) == [alone(*row) for row in rows]
    assert incoming.count == 1000


def test_a_value_that_does_not_fit_is_refused_also_after_one_that_did() -> None:
    with pytest.raises(ResultsTableError, match=r"Row 2 .* type int in the column 'said'"):
        converted([(1, "fine", None, None), (2, 7, None, None)], is_upper)


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        ((300, 7, None, None), "has a value of type int in the column 'said'"),
        ((None, "x", None, None), "has no value in the key column 'id'"),
        ((300, "x", None), "has 3 values for 4 columns"),
    ],
)
def test_the_first_row_at_fault_is_named(faulty: tuple[Any, ...], said: str) -> None:
    rows: list[tuple[Any, ...]] = [(number, "x", None, None) for number in range(400)]
    rows[299] = faulty
    rows[350] = (None, 7)
    with pytest.raises(ResultsTableError, match=f"Row 300 of this landing {said}"):
        converted(rows, is_upper)
