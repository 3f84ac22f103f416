"""The ORDER BY clause of `precedence` agrees with its ranks in Python."""

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
TIMESTAMPS = st.none() | st.integers(0, 3).map(lambda hours: START + timedelta(hours=hours))


@pytest.mark.parametrize("keep_last_success", [False, True])
@given(rows=st.lists(st.tuples(OUTCOMES, TIMESTAMPS), min_size=1, max_size=8))
def test_order_by_rank_puts_the_row_to_keep_first(
    rows: list[tuple[str | None, datetime | None]], keep_last_success: bool
) -> None:
    ranks = [precedence.rank(*row, keep_last_success=keep_last_success) for row in rows]
    winner = 0
    for number, rank in enumerate(ranks):
        if precedence.outranks(rank, ranks[winner]):
            winner = number
    order = precedence.order_by_rank("outcome", "sealed_at", "n", keep_last_success=keep_last_success)
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.execute("CREATE TABLE landed (n, outcome, sealed_at)")
        conn.executemany(
            "INSERT INTO landed VALUES (?, ?, ?)",
            [(n, outcome, timestamp and timestamp.isoformat()) for n, (outcome, timestamp) in enumerate(rows)],
        )
        assert conn.execute(f"SELECT n FROM landed ORDER BY {order}").fetchone() == (winner,)
