"""The ORDER BY of `precedence` agrees with its ranks in Python."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.warehouse import precedence

START = datetime(2026, 11, 20, tzinfo=UTC)
OUTCOMES = st.sampled_from(["succeeded", "failed", "pending", "withheld", None])
MOMENTS = st.none() | st.integers(0, 3).map(lambda hours: START + timedelta(hours=hours))


@pytest.mark.parametrize("keep_last_success", [False, True])
@given(rows=st.lists(st.tuples(OUTCOMES, MOMENTS), min_size=1, max_size=8))
def test_the_first_row_of_the_order_is_the_one_that_stays(
    rows: list[tuple[str | None, datetime | None]], keep_last_success: bool
) -> None:
    ranks = [precedence.rank(*row, keep_last_success=keep_last_success) for row in rows]
    stays = 0
    for number, rank in enumerate(ranks):
        if precedence.outranks(rank, ranks[stays]):
            stays = number
    order = precedence.best_first("outcome", "sealed_at", "n", keep_last_success=keep_last_success)
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE landed (n, outcome, sealed_at)")
        conn.executemany(
            "INSERT INTO landed VALUES (?, ?, ?)",
            [(n, outcome, moment and moment.isoformat()) for n, (outcome, moment) in enumerate(rows)],
        )
        assert conn.execute(f"SELECT n FROM landed ORDER BY {order}").fetchone() == (stays,)
