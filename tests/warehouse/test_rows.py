"""Rows on their way into a table are converted value by value, independently of earlier rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.rows import IncomingRows

COLUMNS = [
    Column("id", ColumnType.INTEGER, key=True),
    Column("text", ColumnType.TEXT),
    Column("time", ColumnType.TIMESTAMP),
    Column("document", ColumnType.JSON),
]
#: few values, so that many rows share the same one
TEXTS = st.sampled_from(["", "SUCCEEDED", "batch_1", "batch_2", None])
DOCUMENTS: st.SearchStrategy[object] = st.sampled_from([1, True, 1.0, "x", [], None])
TIMES = st.sampled_from([datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2)] + [None])


def is_upper(text: str) -> bool:
    return text == text.upper()


def convert_rows(rows: list[tuple[Any, ...]], is_plain: Callable[[str], bool] | None = None) -> list[list[Any]]:
    return list(
        IncomingRows(rows, COLUMNS, [str, str.upper, datetime.isoformat, repr], null="nothing", is_plain=is_plain)
    )


def convert_alone(number: int, text: str | None, time: datetime | None, document: Any) -> list[Any]:
    return [
        str(number),
        "nothing" if text is None else text.upper(),
        "nothing" if time is None else time.isoformat(),
        "nothing" if document is None else repr(document),
    ]


@given(st.lists(st.tuples(st.integers(0, 9), TEXTS, TIMES, DOCUMENTS)), st.sampled_from([None, is_upper]))
def test_each_value_is_converted_independently_of_other_rows(
    rows: list[tuple[Any, ...]], is_plain: Callable[[str], bool] | None
) -> None:
    assert convert_rows(rows, is_plain) == [convert_alone(*row) for row in rows]


def test_rows_keep_their_order() -> None:
    rows = [(number, f"Text {number}", datetime(2026, 11, 1, tzinfo=UTC), [number]) for number in range(1000)]
    incoming = IncomingRows(rows, COLUMNS, [str, str.upper, datetime.isoformat, repr])
    assert list(incoming) == [convert_alone(*row) for row in rows]
    assert incoming.count == 1000


def test_a_value_of_the_wrong_type_is_refused_even_after_a_right_one() -> None:
    with pytest.raises(ResultsTableError, match=r"Row 2 .* type int in the column 'text'"):
        convert_rows([(1, "fine", None, None), (2, 7, None, None)], is_upper)


@pytest.mark.parametrize(
    ("faulty_row", "problem"),
    [
        ((300, 7, None, None), "has a value of type int in the column 'text'"),
        ((None, "x", None, None), "has no value in the key column 'id'"),
        ((300, "x", None), "has 3 values for 4 columns"),
    ],
)
def test_the_error_names_the_first_faulty_row(faulty_row: tuple[Any, ...], problem: str) -> None:
    rows: list[tuple[Any, ...]] = [(number, "x", None, None) for number in range(400)]
    rows[299] = faulty_row
    rows[350] = (None, 7)
    with pytest.raises(ResultsTableError, match=f"Row 300 of this landing {problem}"):
        convert_rows(rows, is_upper)
