"""Every kind of source holds only a few rows in memory, besides what the author's value holds itself."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from airflow_provider_batch.sources.open import open_rows

ROWS = 30_000
#: bytes of the largest value of a row
SIZE = 1_000
#: all rows together take 30 MB
MAX_EXTRA_BYTES = 10_000_000


def generate() -> Iterator[dict[str, Any]]:
    for number in range(ROWS):
        yield {"id": number, "body": f"{number:0{SIZE}}"}


def make_value(kind: str, folder: Path) -> Any:
    if kind == "generator":
        return generate()
    rows = list(generate())
    makers: dict[str, Any] = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "arrow": pa.Table.from_pylist}
    if kind in makers:
        return makers[kind](rows)
    if kind == "list":
        return rows
    frame = pl.DataFrame(rows)
    writers: dict[str, Any] = {"jsonl": frame.write_ndjson, "csv": frame.write_csv, "parquet": frame.write_parquet}
    path = folder / f"rows.{kind}"
    writers[kind](path)
    return path


@pytest.mark.parametrize("kind", ["list", "generator", "pandas", "polars", "arrow", "jsonl", "csv", "parquet"])
def test_rows_are_read_in_bounded_memory(kind: str, tmp_path: Path) -> None:
    value = make_value(kind, tmp_path)
    arrow_bytes = pa.total_allocated_bytes()
    tracemalloc.start()
    try:
        with open_rows(value) as source:
            assert sum(1 for _ in source) == ROWS
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < MAX_EXTRA_BYTES
    assert pa.total_allocated_bytes() - arrow_bytes < MAX_EXTRA_BYTES
