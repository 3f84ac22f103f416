"""Sealing: a job is sealed whole or not at all, wherever its build dies, and memory stays flat."""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from airflow.providers.sqlite.hooks.sqlite import SqliteHook
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import open_ledger, seal
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.render import RequestSpec
from airflow_provider_batch.staging.layout import open_folder
from airflow_provider_batch.staging.object_store import PART_BYTES
from airflow_provider_batch.worker.build import Plan, build
from tests.bucket import Bucket

PLAN = Plan(
    key=JobKey("dag", "submit", "run"),
    spec=RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt="{{ row.body }}"),
    sql="SELECT id, body FROM tickets",
    parameters=None,
    carry=["id"],
    context={},
    openai_conn_id="openai_default",
    limits=Limits(requests=2),
    prices={},
    max_cost_usd=None,
    completion_window="24h",
    metadata={},
    logical_date=None,
)
ROWS = 5


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteHook]:
    path = tmp_path_factory.mktemp("warehouse") / "warehouse.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE tickets (id TEXT, body TEXT)")
        database.executemany("INSERT INTO tickets VALUES (?, ?)", [(f"T-{n}", "Broken") for n in range(ROWS)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_SEALING", json.dumps({"conn_type": "sqlite", "host": str(path)}))
        yield SqliteHook(sqlite_conn_id="sealing")  # type: ignore[no-untyped-call]  # Airflow has no types here


class Died(BaseException):
    """The end of a worker: nothing that handles errors handles this."""


class Death:
    """Counts steps, and dies at one of them: once (a signal's exception), or for good (kill -9)."""

    def __init__(self, at: int | None = None, *, for_good: bool = False) -> None:
        self.at, self.for_good, self.steps = at, for_good, 0

    def __call__(self) -> None:
        step, self.steps = self.steps, self.steps + 1
        if self.at is not None and (step >= self.at if self.for_good else step == self.at):
            raise Died


def in_store(filesystem: MemoryFileSystem) -> Folder:
    conn_id = f"c{secrets.token_hex(8)}"
    attach("memory", conn_id=conn_id, fs=filesystem)
    return open_folder(f"memory://{conn_id}@bucket/{conn_id}")


def work(warehouse: SqliteHook, folder: Folder) -> None:
    """What submit does until the job is sealed."""
    seal(folder, build(PLAN, warehouse, folder).manifest)


def sealed_rows(folder: Folder) -> int | None:
    """How many requests lie sealed, each shard as the seal says; None without a seal."""
    ledger = open_ledger(folder)
    if ledger is None:
        return None
    for shard in ledger.manifest.shards:
        with folder.reader(shard.file) as lines, folder.reader(shard.index_file) as index:
            data, rows = lines.read(), index.read()
        assert hashlib.sha256(data).hexdigest() == shard.sha256
        assert data.count(b"\n") == rows.count(b"\n") == shard.requests
    return ledger.manifest.requests


@pytest.fixture(scope="module")
def steps(warehouse: SqliteHook) -> int:
    """How many steps a whole build takes."""
    count = Death()
    work(warehouse, in_store(Bucket(count)))
    return count.steps


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead are buried as garbage
@settings(max_examples=150, deadline=None)
@given(data=st.data(), for_good=st.booleans())
def test_a_build_that_dies_at_any_point_leaves_a_whole_sealed_job_or_none_at_all(
    warehouse: SqliteHook, steps: int, data: st.DataObject, for_good: bool
) -> None:
    death = Death(data.draw(st.integers(0, steps - 1)), for_good=for_good)
    bucket = Bucket(death)
    folder = in_store(bucket)
    with pytest.raises(Died):
        work(warehouse, folder)
    death.at = None
    assert sealed_rows(folder) in (None, ROWS)
    if not for_good:
        # what was begun was aborted, unless it was the abort that died
        assert len(bucket.pending_uploads) <= 1
    # the next attempt
    with suppress(Died):
        if open_ledger(folder) is None:
            work(warehouse, folder)
    assert sealed_rows(folder) == ROWS


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the dead are buried as garbage
def test_only_the_last_of_the_steps_may_leave_a_sealed_job(warehouse: SqliteHook, steps: int) -> None:
    """So the seal really is what comes last: dying just before it leaves none, whatever else lies there."""
    sealed = []
    for at in range(steps):
        death = Death(at, for_good=True)
        folder = in_store(Bucket(death))
        with pytest.raises(Died):
            work(warehouse, folder)
        death.at = None
        sealed.append(sealed_rows(folder) is not None)
    assert sealed == sorted(sealed)
    assert True in sealed
    assert False in sealed


class Fragile(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's memory filesystem, where a file is there from the start; it dies at one of its calls."""

    cachable = False

    def __init__(self, step: Death) -> None:
        super().__init__()
        self.step = step

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.step()
        file = super()._open(path, mode, **kwargs)
        write = file.write

        def stepping(data: bytes) -> Any:
            self.step()
            return write(data)

        file.write = stepping
        return file


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_nor_does_it_in_fsspecs_memory_filesystem(warehouse: SqliteHook, data: st.DataObject) -> None:
    count = Death()
    work(warehouse, in_store(Fragile(count)))
    death = Death(data.draw(st.integers(0, count.steps - 1)))
    folder = in_store(Fragile(death))
    with pytest.raises(Died):
        work(warehouse, folder)
    assert sealed_rows(folder) in (None, ROWS)


def test_a_file_that_broke_off_is_never_completed() -> None:
    bucket = Bucket()
    folder = in_store(bucket)

    def break_off() -> None:
        with folder.writer("s0001.jsonl") as file:
            file.write(b"x" * (2 * PART_BYTES))
            raise Died

    with pytest.raises(Died):
        break_off()
    assert bucket.store == {}
    assert bucket.pending_uploads == set()


def test_a_large_file_goes_up_in_parts() -> None:
    bucket = Bucket()
    with in_store(bucket).writer("s0001.jsonl") as file:
        for _ in range(4 * PART_BYTES // 1024):
            file.write(b"x" * 1024)
    assert PART_BYTES <= bucket.largest_part <= PART_BYTES + 1024
    (stored,) = bucket.store.values()
    assert stored.getvalue() == b"x" * 4 * PART_BYTES


def test_memory_stays_flat_however_many_rows_are_sealed_in_an_object_store(tmp_path: Path) -> None:
    """In a process of its own, whose store keeps only the seal: what memory grows by is the build's."""
    code = """
        import os
        from airflow.sdk.io import attach
        from airflow_provider_batch.core.provider.limits import Limits
        from airflow_provider_batch.core.requests.render import Request
        from airflow_provider_batch.core.sealing.sealer import Sealer
        from airflow_provider_batch.staging.layout import open_folder
        from benchmarks.measure import read_memory
        from tests.bucket import Bucket
        bucket = Bucket(stores_content=lambda path: False)
        attach("memory", fs=bucket)
        sealer = Sealer(open_folder("memory://bucket/job"), "g001/build", "/v1/chat/completions", Limits())
        body = b'{"max_tokens":9,"text":"%b"}' % (b"x" * 1_000)
        peaks = []
        for number in range(1, 240_001):
            sealer.add(Request(f"row-{number}", "gpt-5-mini", body, 1), [], number, 1)
            if number % 80_000 == 0:
                peaks.append(read_memory(os.getpid())[1])
        sealer.finish()
        print(peaks[0], read_memory(os.getpid())[1], len(bucket.store), bucket.largest_part)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    after_a_third, at_the_end, files, largest = map(int, done.stdout.split()[-4:])
    assert files == 10
    assert largest < 2 * PART_BYTES
    # 160,000 further rows are 160 MB. Of each row 8 bytes stay; the peak also depends on how many parts on their way
    # were ever held at the same moment, of the shard that grows and of the one that is being closed beside it.
    assert at_the_end - after_a_third < 4 * PART_BYTES
