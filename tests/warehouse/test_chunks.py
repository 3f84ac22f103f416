"""Rows are held in memory one chunk at a time, however large they are."""

from __future__ import annotations

from itertools import chain

import pytest

from airflow_provider_batch.warehouse.rows import CHUNK_ROWS, CHUNK_SIZE, chunks


@pytest.mark.parametrize("count", [0, 1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1, 2 * CHUNK_ROWS])
def test_short_rows_are_chunked_by_count_in_their_order(count: int) -> None:
    result = list(chunks([number, "short"] for number in range(count)))
    assert list(chain.from_iterable(result)) == [[number, "short"] for number in range(count)]
    assert [len(chunk) for chunk in result[:-1]] == [CHUNK_ROWS] * (len(result) - 1)
    assert all(0 < len(chunk) <= CHUNK_ROWS for chunk in result)


@pytest.mark.parametrize("long", ["x" * 30_000, b"x" * 30_000], ids=["text", "bytes"])
def test_long_texts_are_chunked_by_size(long: str | bytes) -> None:
    sizes = [len(chunk) * len(long) for chunk in chunks([number, long, None] for number in range(2_000))]
    assert sum(sizes) == 2_000 * len(long)
    assert max(sizes) < CHUNK_SIZE * 1.2
