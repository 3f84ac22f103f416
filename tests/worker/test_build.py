"""Build and seal a job: it is sealed completely or not at all, wherever the worker dies, in bounded memory."""

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

import msgspec
import pytest
from airflow.providers.sqlite.hooks.sqlite import SqliteHook
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey, Shard
from airflow_provider_batch.core.ledger.ledger import open_ledger, seal
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.render import RequestSpec
from airflow_provider_batch.exceptions import BudgetError
from airflow_provider_batch.staging.layout import open_folder
from airflow_provider_batch.staging.streams import PART_BYTES
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.worker.build import Plan, build, check_canary
from tests.bucket import Bucket

PLAN = Plan(
    key=JobKey("dag", "submit", "run"),
    spec=RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt="{{ row.body }}"),
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


class WorkerDied(BaseException):
    """Simulates the death of a worker. No error handling catches it, as it is not an Exception."""


class Death:
    """Counts steps, and raises at one of them: only at this one (a signal), or at all later ones as well (kill -9).

    :param fatal_step: the step to raise at, counted from 0; None for no step.
    :param permanent: whether the later steps raise as well.
    """

    def __init__(self, fatal_step: int | None = None, *, permanent: bool = False) -> None:
        self.fatal_step, self.permanent, self.steps = fatal_step, permanent, 0

    def __call__(self) -> None:
        step, self.steps = self.steps, self.steps + 1
        if self.fatal_step is not None and (step >= self.fatal_step if self.permanent else step == self.fatal_step):
            raise WorkerDied


def open_store_folder(filesystem: MemoryFileSystem) -> Folder:
    """Return a job folder in this filesystem, at a path that no other test uses."""
    conn_id = f"c{secrets.token_hex(8)}"
    attach("memory", conn_id=conn_id, fs=filesystem)
    return open_folder(f"memory://{conn_id}@bucket/{conn_id}")


def build_and_seal(warehouse: SqliteHook, folder: Folder) -> None:
    """Do what the submit task does until the job is sealed."""
    seal(folder, build(PLAN, read_rows(warehouse, "SELECT id, body FROM tickets", exact=True), folder).manifest)


def count_sealed_requests(folder: Folder) -> int | None:
    """Return the number of sealed requests, or None if there is no seal. Check each shard against the manifest."""
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
    """Return the number of steps of a complete build."""
    counter = Death()
    build_and_seal(warehouse, open_store_folder(Bucket(counter)))
    return counter.steps


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the garbage collector closes the files of a dead worker
@settings(max_examples=150, deadline=None)
@given(data=st.data(), permanent=st.booleans())
def test_a_build_that_dies_at_any_step_leaves_a_completely_sealed_job_or_no_seal(
    warehouse: SqliteHook, steps: int, data: st.DataObject, permanent: bool
) -> None:
    death = Death(data.draw(st.integers(0, steps - 1)), permanent=permanent)
    bucket = Bucket(death)
    folder = open_store_folder(bucket)
    with pytest.raises(WorkerDied):
        build_and_seal(warehouse, folder)
    death.fatal_step = None
    assert count_sealed_requests(folder) in (None, ROWS)
    if not permanent:
        # Unfinished uploads were aborted, unless the abort itself died.
        assert len(bucket.pending_uploads) <= 1
    # The next attempt of the task:
    with suppress(WorkerDied):
        if open_ledger(folder) is None:
            build_and_seal(warehouse, folder)
    assert count_sealed_requests(folder) == ROWS


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the garbage collector closes the files of a dead worker
def test_only_the_last_steps_leave_a_sealed_job(warehouse: SqliteHook, steps: int) -> None:
    """The seal is written last: a worker that dies before it leaves no seal, even if every other file exists."""
    is_sealed = []
    for step in range(steps):
        death = Death(step, permanent=True)
        folder = open_store_folder(Bucket(death))
        with pytest.raises(WorkerDied):
            build_and_seal(warehouse, folder)
        death.fatal_step = None
        is_sealed.append(count_sealed_requests(folder) is not None)
    assert is_sealed == sorted(is_sealed)
    assert True in is_sealed
    assert False in is_sealed


class NonAtomicFilesystem(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """fsspec's memory filesystem, where a file is visible once it is opened. It calls `step` before each operation."""

    cachable = False

    def __init__(self, step: Death) -> None:
        super().__init__()
        self.step = step

    def _open(self, path: str, mode: str = "rb", **kwargs: Any) -> Any:
        self.step()
        file = super()._open(path, mode, **kwargs)
        write = file.write

        def write_step(data: bytes) -> Any:
            self.step()
            return write(data)

        file.write = write_step
        return file


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_same_holds_where_files_are_visible_before_they_are_complete(
    warehouse: SqliteHook, data: st.DataObject
) -> None:
    counter = Death()
    build_and_seal(warehouse, open_store_folder(NonAtomicFilesystem(counter)))
    death = Death(data.draw(st.integers(0, counter.steps - 1)))
    folder = open_store_folder(NonAtomicFilesystem(death))
    with pytest.raises(WorkerDied):
        build_and_seal(warehouse, folder)
    assert count_sealed_requests(folder) in (None, ROWS)


def test_an_interrupted_upload_leaves_no_file() -> None:
    bucket = Bucket()
    folder = open_store_folder(bucket)

    def write_and_die() -> None:
        with folder.writer("s0001.jsonl") as file:
            file.write(b"x" * (2 * PART_BYTES))
            raise WorkerDied

    with pytest.raises(WorkerDied):
        write_and_die()
    assert bucket.store == {}
    assert bucket.pending_uploads == set()


def test_a_large_file_is_uploaded_in_parts() -> None:
    bucket = Bucket()
    with open_store_folder(bucket).writer("s0001.jsonl") as file:
        for _ in range(4 * PART_BYTES // 1024):
            file.write(b"x" * 1024)
    assert PART_BYTES <= bucket.largest_part <= PART_BYTES + 1024
    (file_in_store,) = bucket.store.values()
    assert file_in_store.getvalue() == b"x" * 4 * PART_BYTES


def test_memory_does_not_grow_with_the_rows_that_are_sealed_in_an_object_store(tmp_path: Path) -> None:
    """The test measures a separate process. Its object store keeps no content, so only the build itself uses memory."""
    code = """
        import os
        from airflow.sdk.io import attach
        from airflow_provider_batch.core.provider.limits import Limits
        from airflow_provider_batch.core.requests.request import Request
        from airflow_provider_batch.core.sealing.sealer import Sealer
        from airflow_provider_batch.staging.layout import open_folder
        from benchmarks.measure import read_memory
        from tests.bucket import Bucket
        from tests.core.building import add_row
        bucket = Bucket(stores_content=lambda path: False)
        attach("memory", fs=bucket)
        sealer = Sealer(open_folder("memory://bucket/job"), "g001/build", "/v1/chat/completions", Limits())
        body = b'{"max_tokens":9,"text":"%b"}' % (b"x" * 1_000)
        peaks = []
        for number in range(1, 240_001):
            add_row(sealer, Request(f"row-{number}", "gpt-5-mini", body, 1), [], number, 1)
            if number % 80_000 == 0:
                peaks.append(read_memory(os.getpid())[1])
        sealer.finish()
        print(peaks[0], read_memory(os.getpid())[1], len(bucket.store), bucket.largest_part)
    """
    process = subprocess.run(
        [sys.executable, "-c", dedent(code)], capture_output=True, text=True, timeout=240, check=False
    )
    assert process.returncode == 0, process.stderr
    memory_after_a_third, memory_at_the_end, files, largest_part = map(int, process.stdout.split()[-4:])
    assert files == 10
    assert largest_part < 2 * PART_BYTES
    # The other 160,000 rows have 160 MB. 8 bytes of each row stay in memory. The peak also depends on how many parts
    # are in memory at the same time: those of the growing shard and those of the shard that is being closed.
    assert memory_at_the_end - memory_after_a_third < 4 * PART_BYTES


def test_a_canary_that_alone_costs_more_than_the_ceiling_is_refused() -> None:
    # $0.02 in a batch, $0.04 at the standard price
    canary = Shard(
        "c0001", "gpt-4.1-mini", "f", "i", requests=1, bytes=1, sha256="", tokens=100_000, lane=Lane.STANDARD
    )
    batch = msgspec.structs.replace(canary, name="s0001", requests=9, tokens=900_000, lane=Lane.BATCH)
    for shards, ceiling in (([canary, batch], 0.05), ([batch], 0.03), ([canary], None)):
        check_canary(msgspec.structs.replace(PLAN, max_cost_usd=ceiling), shards)
    with pytest.raises(BudgetError, match=r"canary \(1 request .* alone would cost about \$0\.04, .* Set canary=0"):
        check_canary(msgspec.structs.replace(PLAN, max_cost_usd=0.03), [canary, batch])
