"""Looking up reusable answers keeps neither the rows nor the answers in memory."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.reuse import with_reused_answers
from tests.core.building import CHAT, add_row, request, request_sha256, row_of
from tests.warehouse.conftest import sqlite_warehouse

LARGE = "x" * 5_000


def table_with_answers(path: Path, monkeypatch: pytest.MonkeyPatch, numbers: Iterable[int]) -> ReusedTable:
    """Create a results table with an answer for each of these rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE labels (outcome, output, request_sha256, finish_reason, model, batch_id)")
        connection.executemany(
            "INSERT INTO labels VALUES ('succeeded', ?, ?, 'stop', 'm', 'b')",
            ((LARGE, request_sha256(CHAT, request("old", text=f"{number} {LARGE}").body)) for number in numbers),
        )
    table = ReusedTable(sqlite_warehouse(path, monkeypatch).hook, "labels")
    assert table.check()
    return table


def chunks(count: int) -> Iterator[list[RenderedRow]]:
    """Yield this many rows in chunks of 20, and what remains."""
    for start in range(0, count, 20):
        numbers = range(start, min(start + 20, count))
        yield [row_of(request(str(n), text=f"{n} {LARGE}"), [n, None], n + 1) for n in numbers]


def test_neither_the_rows_nor_the_answers_are_kept_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_with_answers(tmp_path / "warehouse.db", monkeypatch, range(0, 4_000, 2))
    folder = LocalFolder(tmp_path / "job")
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), deduplicate=True)
    tracemalloc.start()
    try:
        generator = with_reused_answers(chunks(4_000), table, sealer, folder, "g001/build", None)
        for rows, expected_rows in zip(generator, chunks(4_000), strict=True):
            assert rows == expected_rows
            for row in rows:
                add_row(sealer, row.request, row.carry, row.number, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (sealer.requests, sealer.reused) == (2_000, 2_000)
    assert peak < 6_000_000, "The rows have 20 MB and the answers 10 MB."


@pytest.mark.parametrize("complete", [True, False], ids=["the build completes", "the build fails"])
def test_the_temporary_file_of_rows_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: bool) -> None:
    table = table_with_answers(tmp_path / "warehouse.db", monkeypatch, [1])
    folder = LocalFolder(tmp_path / "job")
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), deduplicate=True)
    generator = with_reused_answers(chunks(3), table, sealer, folder, "g001/build", None)
    next(generator)
    assert "rendered.jsonl" in folder.names("g001/build")
    for _ in generator if complete else ():
        pass
    generator.close()
    assert "rendered.jsonl" not in folder.names("g001/build")
