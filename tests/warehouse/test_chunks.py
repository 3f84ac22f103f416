"""Rows are held in memory a chunk at a time, whatever they hold."""

from __future__ import annotations

from itertools import chain

import pytest

from airflow_provider_batch.warehouse.rows import CHUNK_ROWS, CHUNK_SIZE, chunks


@pytest.mark.parametrize("count", [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS])
def test_short_rows_come_by_the_thousands_each_once_in_order(count: int) -> None:
    found = list(chunks([number, "short"] for number in range(count)))
    assert list(chain.from_iterable(found)) == [[number, "short"] for number in range(count)]
    assert [len(chunk) for chunk in found[:-1]] == [CHUNK_ROWS] * (len(found) - 1)
    assert all(0 < len(chunk) <= CHUNK_ROWS for chunk in found)


@pytest.mark.parametrize("long", ["x" * 30_000, b"x" * 30_000], ids=["text", "bytes"])
def test_long_texts_are_held_up_to_a_size(long: str | bytes) -> None:
    sizes = [len(chunk) * len(long) for chunk in chunks([number, long, None] for number in range(2_000))]
    assert sum(sizes) == 2_000 * len(long)
    assert max(sizes) < CHUNK_SIZE * 1.2
