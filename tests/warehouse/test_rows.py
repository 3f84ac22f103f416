"""Rows on their way into a table are converted value by value, whatever came before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.jobs.columns import Column, ColumnType
from airflow_provider_batch.warehouse.rows import Incoming

COLUMNS = [
    Column("id", ColumnType.INTEGER, key=True),
    Column("said", ColumnType.TEXT),
    Column("at", ColumnType.TIMESTAMP),
    Column("held", ColumnType.JSON),
]
#: few objects, so that many rows hold the very same one
SAID = st.sampled_from(["", "succeeded", "batch_1", "batch_2", None])
AT = st.sampled_from([datetime(2026, 11, day, tzinfo=UTC) for day in (1, 2)] + [None])


def converted(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return list(Incoming(rows, COLUMNS, [str, str.upper, datetime.isoformat, repr], null="nothing"))


@given(st.lists(st.tuples(st.integers(0, 9), SAID, AT, st.just("x"))))
def test_each_value_is_converted_as_if_it_were_the_only_one(rows: list[tuple[Any, ...]]) -> None:
    assert converted(rows) == [
        [
            str(number),
            "nothing" if said is None else said.upper(),
            "nothing" if at is None else at.isoformat(),
            repr(held),
        ]
        for number, said, at, held in rows
    ]


def test_a_list_that_changed_between_two_rows_is_converted_again() -> None:
    held = ["a"]

    def rows() -> Any:
        yield (1, "x", None, held)
        held.append("b")
        yield (2, "x", None, held)

    assert [row[3] for row in converted(rows())] == ["['a']", "['a', 'b']"]


def test_a_value_that_does_not_fit_is_refused_also_after_one_that_did() -> None:
    with pytest.raises(ResultsTableError, match=r"Row 2 .* type int in the column 'said'"):
        converted([(1, "fine", None, None), (2, 7, None, None)])
