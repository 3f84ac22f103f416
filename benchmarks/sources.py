"""Sealing the rows of each kind of source: CPU, wall time, and memory beyond what the source itself holds.

    python -m benchmarks.sources [--rows 10000 100000] [--runs 3] [--kind list generator pandas …] [--json FILE]

The memory of a run is its peak minus the memory before the first run, when lists and frames are already complete. It
should not grow with the number of rows.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.comparison import compare
from benchmarks.measure import Figure, run_for_sizes
from benchmarks.worker import Worker

KINDS = ("list", "generator", "pandas", "polars", "arrow", "jsonl", "csv", "parquet", "parquet-duckdb")
MAX_EXTRA_MB = 100
_NAMES = ("id", "day", "country", "title", "body", "label")


def records(count: int) -> Iterator[dict[str, Any]]:
    """Yield tickets as dicts."""
    for ticket in data.tickets(count):
        yield dict(zip(_NAMES, ticket, strict=True))


def write_file(path: Path, count: int) -> None:
    """Write tickets to a file, in the format of its ending."""
    import polars as pl

    frame = pl.DataFrame(list(records(count)))
    writers: dict[str, Callable[[Path], object]] = {
        ".jsonl": frame.write_ndjson,
        ".csv": frame.write_csv,
        ".parquet": frame.write_parquet,
    }
    writers[path.suffix](path)


def prepare(kind: str, count: int, file: str, folder: str) -> Callable[[], int]:
    """Return a function that seals a job over tickets that come from this kind of source."""
    from airflow_provider_batch.sources.open import open_rows
    from airflow_provider_batch.staging.local import LocalFolder
    from airflow_provider_batch.worker.build import build

    plan, read = data.make_plan(), prepare_reader(kind, count, file)
    job_path = Path(folder) / f"job-{kind}"
    # so that the first run does not measure the imports
    build(plan, open_rows(list(records(1))), LocalFolder(Path(folder) / f"warm-up-{kind}-{count}"))
    with open_rows(read()) as source:
        next(iter(source))

    def run() -> int:
        shutil.rmtree(job_path, ignore_errors=True)
        return build(plan, open_rows(read()), LocalFolder(job_path)).manifest.requests

    return run


def prepare_reader(kind: str, count: int, file: str) -> Callable[[], Any]:
    """Return a function that returns the tickets as this kind of source. A frame or a list is already complete."""
    if kind == "parquet-duckdb":
        sys.modules["pyarrow.parquet"] = None  # type: ignore[assignment]  # as if it were not installed
    if file:
        return lambda: file
    if kind == "generator":
        return lambda: records(count)
    rows = list(records(count))
    if kind == "list":
        return lambda: rows
    frame: Any
    if kind == "pandas":
        import pandas as pd

        frame = pd.DataFrame(rows)
    elif kind == "polars":
        import polars as pl

        frame = pl.DataFrame(rows)
    else:
        import pyarrow as pa

        frame = pa.Table.from_pylist(rows)
    return lambda: frame


def file_of(kind: str, rows: int, folder: Path) -> Path | None:
    """Return a file with the tickets, which is written if it does not exist, or None if the kind is not a file."""
    ending = kind.partition("-")[0]
    if ending not in ("jsonl", "csv", "parquet"):
        return None
    file = folder / f"tickets-{rows}.{ending}"
    if not file.exists():
        write_file(file, rows)
    return file


def measure(kind: str, rows: int, runs: int, folder: Path) -> list[Figure]:
    """Measure one kind of source and number of rows."""
    file = file_of(kind, rows, folder)
    arguments: dict[str, Any] = {"kind": kind, "count": rows, "file": str(file or ""), "folder": str(folder)}
    with Worker("benchmarks.sources:prepare", logs=folder, **arguments) as worker:
        measurements = [worker.run() for _ in range(runs)]
    assert {measurement.result for measurement in measurements} == {rows}
    return compare(f"{kind}, {rows:,} rows: sealed", measurements, max_extra_mb=MAX_EXTRA_MB)


def main() -> None:
    """Measure and report."""
    run_for_sizes("Rows of a source -> sealed shards", __doc__, "--kind", KINDS, measure)


if __name__ == "__main__":
    main()
