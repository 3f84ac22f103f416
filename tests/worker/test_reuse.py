"""Rows and known answers pass each other in a file, not in memory."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.render import request_sha256
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.warehouse.reused_table import ReusedTable
from airflow_provider_batch.worker.reuse import RenderedRow, with_reused_answers
from tests.core.building import CHAT, request
from tests.warehouse.conftest import sqlite_warehouse

LARGE = "x" * 5_000


def known_table(path: Path, monkeypatch: pytest.MonkeyPatch, answered: Iterable[int]) -> ReusedTable:
    """A results table with the answers of these rows."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE labels (outcome, output, request_sha256, finish_reason, model, batch_id)")
        connection.executemany(
            "INSERT INTO labels VALUES ('succeeded', ?, ?, 'stop', 'm', 'b')",
            ((LARGE, request_sha256(CHAT, request("old", text=f"{number} {LARGE}").body)) for number in answered),
        )
    table = ReusedTable(sqlite_warehouse(path, monkeypatch).hook, "labels")
    assert table.check()
    return table


def rows(count: int) -> Iterator[RenderedRow]:
    return (RenderedRow(request(str(n), text=f"{n} {LARGE}"), [n, None], n + 1) for n in range(count))


def test_neither_the_rows_nor_the_table_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = known_table(tmp_path / "warehouse.db", monkeypatch, range(0, 4_000, 2))
    folder = LocalFolder(tmp_path / "job")
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), deduplicate=True)
    rendered = rows(4_000)
    tracemalloc.start()
    try:
        for one, carry, number in with_reused_answers(rendered, table, sealer, folder, "g001/build", None):
            assert (one, carry, number) == (
                request(str(number - 1), text=f"{number - 1} {LARGE}"),
                [number - 1, None],
                number,
            )
            if not sealer.add_if_duplicate(one, carry, number):
                sealer.add(one, carry, number, 1)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (sealer.requests, sealer.reused) == (2_000, 2_000)
    assert peak < 6_000_000, "20 MB of rows and 10 MB of answers went through"


@pytest.mark.parametrize("whole", [True, False], ids=["a build that ends well", "a build that fails on its way"])
def test_the_file_in_which_the_rows_waited_goes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    table = known_table(tmp_path / "warehouse.db", monkeypatch, [1])
    folder = LocalFolder(tmp_path / "job")
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), deduplicate=True)
    passing = with_reused_answers(rows(3), table, sealer, folder, "g001/build", None)
    next(passing)
    assert "rendered.jsonl" in folder.names("g001/build")
    for _ in passing if whole else ():
        pass
    passing.close()
    assert "rendered.jsonl" not in folder.names("g001/build")
