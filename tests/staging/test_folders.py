"""Staging: exclusive creation, complete files, containment, and access from the machine of the next task."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from threading import Barrier, Thread
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from airflow.configuration import AIRFLOW_HOME
from airflow.sdk.io import attach
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.exceptions import InputError, StagingError
from airflow_provider_batch.staging.layout import (
    check_reachable,
    find_staging_root,
    is_local,
    job_folder,
    job_folders,
    lessons_folder,
    open_folder,
    staging_root,
)
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.staging.object_store import ObjectFolder


@pytest.fixture(scope="module", autouse=True)
def _memory() -> None:
    """Attach fsspec's in-memory filesystem as a provider would attach its object store."""
    attach("memory", fs=MemoryFileSystem())


@pytest.fixture(params=["local disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    """Return a job's folder on a disk, or in fsspec's memory filesystem through Airflow's ObjectStoragePath."""
    if request.param == "local disk":
        return open_folder((tmp_path / "job").as_uri())
    return open_folder(f"memory://{secrets.token_hex(8)}/job")


def write(folder: Folder, name: str, data: bytes) -> None:
    with folder.writer(name) as file:
        file.write(data)


def read(folder: Folder, name: str) -> bytes:
    with folder.reader(name) as file:
        return file.read()


# Operations of both kinds of folder


def test_a_file_is_created_once_and_never_changed(folder: Folder) -> None:
    assert folder.create("g001/records/a.json", b"first")
    assert not folder.create("g001/records/a.json", b"second, and longer")
    assert folder.read("g001/records/a.json") == b"first"


def test_a_missing_file_reads_as_none_and_a_missing_folder_lists_as_empty(folder: Folder) -> None:
    assert folder.read("g001/seal.json") is None
    assert folder.names("g001/records") == []
    assert folder.folders("") == []


@pytest.mark.parametrize("subfolder", ["records", "what[a-z]*"])
def test_many_files_are_read_in_the_order_of_their_names(folder: Folder, subfolder: str) -> None:
    for name in ("b", "a"):
        folder.create(f"{subfolder}/{name}.json", name.encode())
    names = [f"{subfolder}/{name}.json" for name in ("b", "missing", "a", "b")]
    assert folder.read_all(names) == [b"b", None, b"a", b"b"]
    assert folder.read_all([]) == []


class Meeting(AsyncFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store in which a read ends when another two have started."""

    cachable = False
    barrier = asyncio.Barrier(3)

    async def _cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        if path.endswith("denied"):
            raise PermissionError(13, "Access Denied", path)
        await asyncio.wait_for(self.barrier.wait(), 60)
        return path.rpartition("/")[2].encode()


def test_a_store_that_can_do_it_reads_many_files_at_the_same_time() -> None:
    conn_id = f"c{secrets.token_hex(8)}"
    attach("memory", conn_id=conn_id, fs=Meeting())
    folder = open_folder(f"memory://{conn_id}@bucket/{conn_id}")
    assert folder.read_all(["a", "b", "c"]) == [b"a", b"b", b"c"]
    with pytest.raises(StagingError, match=r"cannot read .*denied: Access Denied"):
        folder.read_all(["denied"])


def test_removing_a_file_twice_is_not_an_error(folder: Folder) -> None:
    for name in ("build/rendered.jsonl", "build/s0001.jsonl"):
        write(folder, name, b"{}")
    folder.remove("build/rendered.jsonl")
    folder.remove("build/rendered.jsonl")
    assert folder.names("build") == ["s0001.jsonl"]


class WriteOnly(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A store whose permissions let a worker write but not delete."""

    cachable = False

    def rm_file(self, path: str) -> None:
        raise PermissionError(13, "Access Denied", path)

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        self.rm_file(path)


def test_a_file_that_the_store_does_not_delete_stays_and_a_warning_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    conn_id = f"c{secrets.token_hex(8)}"
    attach("memory", conn_id=conn_id, fs=WriteOnly())
    folder = open_folder(f"memory://{conn_id}@bucket/{conn_id}")
    write(folder, "build/rendered.jsonl", b"{}")
    folder.remove("build/rendered.jsonl")
    assert folder.names("build") == ["rendered.jsonl"]
    assert "Could not remove" in caplog.text
    assert "rendered.jsonl" in caplog.text


def test_files_and_folders_are_listed_separately_and_sorted(folder: Folder) -> None:
    for name in ("g002/seal.json", "g001/seal.json", "g001/records/b.json", "g001/records/a.json", "top.json"):
        folder.create(name, b"{}")
    assert folder.folders("") == ["g001", "g002"]
    assert folder.names("") == ["top.json"]
    assert folder.names("g001/records") == ["a.json", "b.json"]
    assert folder.folders("g001") == ["records"]


def test_another_worker_sees_new_files_immediately(folder: Folder) -> None:
    same_folder = open_folder(folder.uri)
    assert same_folder.names("g001/records") == []
    folder.create("g001/records/a.json", b"1")
    assert same_folder.names("g001/records") == ["a.json"]
    assert same_folder.read("g001/records/a.json") == b"1"
    same_folder.create("g001/records/b.json", b"2")
    assert folder.names("g001/records") == ["a.json", "b.json"]


def test_a_large_file_is_written_and_read_as_a_stream(folder: Folder) -> None:
    with folder.writer("g001/build/s0001.jsonl") as file:
        for number in range(1000):
            file.write(f"{number}\n".encode())
    with folder.reader("g001/build/s0001.jsonl") as file:
        assert [int(line) for line in file] == list(range(1000))
        file.seek(0)
        assert file.read(4) == b"0\n1\n"


def test_a_missing_large_file_is_an_error_that_names_it(folder: Folder) -> None:
    with pytest.raises(StagingError, match=r"cannot read .*g001/build/s0001\.jsonl"):
        read(folder, "g001/build/s0001.jsonl")


def test_the_uri_of_a_folder_opens_the_same_folder(folder: Folder) -> None:
    folder.create("a.json", b"1")
    same_folder = open_folder(folder.uri)
    assert same_folder.uri == folder.uri
    assert same_folder.read("a.json") == b"1"


# Exclusive creation by threads and processes


def test_exactly_one_of_many_threads_creates_a_file(tmp_path: Path) -> None:
    workers = 16
    for turn in range(20):
        start = Barrier(workers)
        winners: list[bytes] = []

        def work(
            data: bytes, name: str = f"{turn}.json", barrier: Barrier = start, winners: list[bytes] = winners
        ) -> None:
            folder = LocalFolder(tmp_path)
            barrier.wait()
            if folder.create(name, data):
                winners.append(data)

        threads = [Thread(target=work, args=(f"{number}".encode() * 1000,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert winners == [LocalFolder(tmp_path).read(f"{turn}.json")]
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen[str]) -> str:
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return output


RACER = """
    import sys
    from pathlib import Path
    from airflow_provider_batch.staging.local import LocalFolder
    folder, me = LocalFolder(Path(sys.argv[1])), sys.argv[2]
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(200):
        if folder.create(f"records/{number}.json", me.encode() * 5000):
            print(number)
"""


def test_exactly_one_of_several_processes_creates_each_file(tmp_path: Path) -> None:
    racers = {me: python(RACER, str(tmp_path), me) for me in "abc"}
    for racer in racers.values():
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    creators = {int(number): me for me, racer in racers.items() for number in output_of(racer).split()}
    folder = LocalFolder(tmp_path)
    assert sorted(creators) == list(range(200))
    for number, me in creators.items():
        assert folder.read(f"records/{number}.json") == me.encode() * 5000


WRITER = """
    import json, sys
    from itertools import count
    from pathlib import Path
    from airflow_provider_batch.staging.local import LocalFolder
    folder = LocalFolder(Path(sys.argv[1]))
    for number in count(int(sys.argv[2])):
        folder.create(f"records/{number}.json", json.dumps({"number": number, "fill": "x" * 200_000}).encode())
"""


def test_a_record_is_complete_or_absent_even_if_its_writer_is_killed(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    file_count = 0
    for _ in range(4):
        writer = python(WRITER, str(tmp_path), str(file_count))
        try:
            limit = time.monotonic() + 120
            while len(folder.names("records")) < file_count + 5:
                assert writer.poll() is None
                assert time.monotonic() < limit
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.communicate(timeout=60)
        file_names = folder.names("records")
        for name in file_names:
            record = json.loads(folder.read(f"records/{name}") or b"")
            assert (f"{record['number']}.json", len(record["fill"])) == (name, 200_000)
        file_count = len(file_names)


def test_the_partial_file_of_a_killed_writer_is_not_listed_and_does_not_block_the_record(tmp_path: Path) -> None:
    folder = LocalFolder(tmp_path)
    (tmp_path / "records").mkdir(parents=True)
    (tmp_path / "records" / ".a.json.0123456789abcdef").write_bytes(b"{half")
    assert folder.names("records") == []
    assert folder.create("records/a.json", b"{}")
    assert folder.names("records") == ["a.json"]


# The folder of a job


RUN_IDS = [
    "../../etc/passwd",
    "..",
    ".",
    "",
    "/",
    "/etc/passwd",
    "a/b\\c",
    "manual__2026-11-20T12:00:00+00:00",
    "manual__2026-11-20T12:00:00.000001+00:00",
    "läuft 🚀",
    "läuft",
    "\x00\n",
    "x" * 300,
    "x" * 301,
    "%2e%2e%2f",
    "file:///etc",
    "s3://bucket",
    "?query#fragment",
    "{{ run_id }}",
]


@pytest.mark.parametrize("run_id", RUN_IDS)
@pytest.mark.parametrize("map_index", [-1, 0, 1023])
def test_no_run_id_can_leave_staging(tmp_path: Path, run_id: str, map_index: int) -> None:
    root = tmp_path / "staging"
    for key in (JobKey("dag", "ask", run_id, map_index), JobKey(run_id, run_id, run_id, map_index)):
        folder = cast(LocalFolder, job_folder(root.as_uri(), key))
        assert folder.create("g001/seal.json", b"{}")
        path = folder.path.resolve()
        assert path.relative_to(root.resolve()).parts[-1] not in ("", "..")
        assert len(path.relative_to(root.resolve()).parts) == 3
        assert (path / "g001" / "seal.json").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"staging"}


@pytest.mark.parametrize("run_id", RUN_IDS)
def test_no_run_id_can_leave_the_prefix_of_an_object_store(run_id: str) -> None:
    folder = job_folder("memory://bucket/staging/", JobKey("dag", "ask", run_id))
    assert urlsplit(folder.uri).netloc == "bucket"
    assert urlsplit(folder.uri).path.startswith("/staging/dag/ask/")
    assert urlsplit(folder.uri).path.count("/") == 4
    assert (urlsplit(folder.uri).query, urlsplit(folder.uri).fragment) == ("", "")
    assert ".." not in folder.uri.split("/")


def test_two_run_ids_never_share_a_folder() -> None:
    keys = [JobKey("dag", "ask", run_id, map_index) for run_id in RUN_IDS for map_index in (-1, 0, 1)]
    keys += [JobKey("dag", "ask.b", "r"), JobKey("dag", "ask_b", "r"), JobKey("dag.ask", "b", "r")]
    assert len({job_folder("/staging", key).uri for key in keys}) == len(keys)


@pytest.mark.parametrize("kind", ["local disk", "memory"])
def test_the_folder_of_lessons_is_not_listed_as_a_job(tmp_path: Path, kind: str) -> None:
    # the local path contains characters that a URI must quote
    root = (tmp_path / "a b%").as_uri() if kind == "local disk" else f"memory://{secrets.token_hex(8)}/staging"
    keys = [JobKey("dag", "ask", "run"), JobKey(".learned", "ask", "run")]
    for key in keys:
        job_folder(root, key).create("g001/seal.json", b"{}")
    lessons_folder(root, "openai.default").create("deep/down/limit.json", b"{}")
    lessons_folder(root, "openai_default").create("limit.json", b"{}")
    assert lessons_folder(root, "openai.default").names("") == []
    assert {folder.uri for folder in job_folders(root)} == {job_folder(root, key).uri for key in keys}


@pytest.mark.parametrize("root", ["file:///srv/a%20b", "/srv/batch", "memory://bucket/staging/", "memory://bucket"])
def test_the_staging_root_of_a_job_is_derived_from_its_folder_if_it_is_below_one(root: str) -> None:
    key = JobKey("dag", "ask", "manual__2026-11-20T10:00:00+00:00")
    staging = find_staging_root(job_folder(root, key), key)
    assert staging is not None
    assert job_folder(staging, key).uri == job_folder(root, key).uri
    assert find_staging_root(job_folder(root, key), JobKey("dag", "ask", "another")) is None
    assert find_staging_root(open_folder("/job"), key) is None


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


@given(names, names, names, st.integers(-1, 5), names)
def test_any_two_different_keys_have_different_folders(
    dag_id: str, task_id: str, run_id: str, map_index: int, new_id: str
) -> None:
    key = JobKey(dag_id, task_id, run_id, map_index)
    uri = job_folder("/staging", key).uri
    assert uri == job_folder("/staging", JobKey(dag_id, task_id, run_id, map_index)).uri
    for changed_key in (
        JobKey(new_id, task_id, run_id, map_index),
        JobKey(dag_id, new_id, run_id, map_index),
        JobKey(dag_id, task_id, new_id, map_index),
        JobKey(dag_id, task_id, run_id, map_index + 1),
        JobKey(task_id, dag_id, run_id, map_index),
    ):
        assert (job_folder("/staging", changed_key).uri == uri) == (changed_key == key)


def test_the_path_of_a_folder_is_readable() -> None:
    folder = job_folder("/staging", JobKey("tickets", "ask", "manual__2026-11-20T12:00:00+00:00", 3))
    *_, dag, task, run = cast(LocalFolder, folder).path.parts
    assert (dag, task) == ("tickets", "ask")
    assert run.startswith("manual__2026-11-20T12_00_00+00_00.3.")


@pytest.mark.parametrize("name", ["plain", "with space", "ünïcode", "per%20cent", "ha#sh", "que?ry", "a+b&c=d;e"])
def test_the_uri_of_a_local_folder_may_contain_special_characters(tmp_path: Path, name: str) -> None:
    folder = LocalFolder(tmp_path / name)
    folder.create("a.json", b"1")
    assert open_folder(folder.uri).read("a.json") == b"1"
    assert (tmp_path / name / "a.json").read_bytes() == b"1"


@pytest.mark.parametrize("as_uri", [True, False])
def test_a_local_root_may_be_a_path_or_a_file_uri(tmp_path: Path, as_uri: bool) -> None:
    root = tmp_path.as_uri() if as_uri else str(tmp_path)
    folder = job_folder(root, JobKey("dag", "ask", "run"))
    folder.create("a.json", b"1")
    assert len(list(tmp_path.glob("dag/ask/run.*/a.json"))) == 1
    assert is_local(root)


def test_an_object_store_is_not_local() -> None:
    assert not is_local("s3://bucket/batch")
    assert not is_local("memory://bucket/batch")


# Failures of staging


@pytest.mark.parametrize("operation", ["create", "writer", "names", "read", "reader"])
def test_a_path_below_a_regular_file_is_an_error_that_names_it(tmp_path: Path, operation: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    folder = LocalFolder(tmp_path / "file" / "job")
    actions: dict[str, Callable[[], object]] = {
        "create": lambda: folder.create("g001/seal.json", b"{}"),
        "writer": lambda: write(folder, "g001/s0001.jsonl", b""),
        "names": lambda: folder.names("g001/records"),
        "read": lambda: folder.read("g001/seal.json"),
        "reader": lambda: read(folder, "g001/s0001.jsonl"),
    }
    with pytest.raises(StagingError) as error:
        actions[operation]()
    for part in (f"{tmp_path}/file/job", "[openai_batch] staging"):
        assert part in str(error.value)


def test_the_error_of_a_full_disk_names_the_path(tmp_path: Path) -> None:
    code = """
        import resource, signal, sys
        from pathlib import Path
        from airflow_provider_batch.exceptions import StagingError
        from airflow_provider_batch.staging.local import LocalFolder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        folder = LocalFolder(Path(sys.argv[1]))
        for large in (lambda: folder.create("a.json", b"x" * 200_000), lambda: folder.writer("b.jsonl").__enter__()):
            try:
                large()
            except StagingError as error:
                print(error)
        try:
            with folder.writer("c.jsonl") as file:
                while True:
                    file.write(b"x" * 1000)
        except StagingError as error:
            print(error)
        print(folder.names(""))
    """
    output = output_of(python(code, str(tmp_path)))
    assert f"cannot write {tmp_path}/a.json" in output
    assert f"cannot write {tmp_path}/c.jsonl" in output
    assert "'a.json'" not in output


@pytest.mark.parametrize("uri", ["nowhere://bucket/batch", "hdfs://bucket/batch"])
def test_an_object_store_without_its_provider_is_an_error_that_says_what_to_install(uri: str) -> None:
    with pytest.raises(StagingError, match=rf"{uri}.*apache-airflow-providers-"):
        open_folder(uri)


def test_an_error_of_the_object_store_names_the_path(tmp_path: Path) -> None:
    """fsspec's filesystem for the local disk stands in for a store that refuses, as it does not create folders."""
    folder = ObjectFolder((tmp_path / "none" / "job").as_uri())
    with pytest.raises(StagingError, match=r"cannot write file://.*/none/job/seal\.json"):
        folder.create("seal.json", b"{}")
    with pytest.raises(StagingError, match=r"cannot write file://.*/none/job/s0001\.jsonl"):
        write(folder, "s0001.jsonl", b"x")


class CachesListings(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A filesystem that caches listings until the cache is invalidated, as s3fs does."""

    cachable = False

    def __init__(self) -> None:
        super().__init__()
        self.listings: dict[tuple[str, bool], Any] = {}

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if (path, detail) not in self.listings:
            self.listings[path, detail] = super().ls(path, detail=detail, **kwargs)
        return self.listings[path, detail]

    def invalidate_cache(self, path: str | None = None) -> None:
        self.listings.clear()


def test_a_cached_listing_does_not_hide_the_records_of_other_workers() -> None:
    filesystem = CachesListings()
    attach("memory", conn_id="caches", fs=filesystem)
    bucket = secrets.token_hex(8)
    cached, uncached = open_folder(f"memory://caches@{bucket}/job"), open_folder(f"memory://{bucket}/job")
    uncached.create("records/a.json", b"1")
    assert cached.names("records") == ["a.json"]
    uncached.create("records/b.json", b"2")
    assert filesystem.listings
    assert cached.names("records") == ["a.json", "b.json"]


def test_a_file_can_be_read_from_its_start_several_times(folder: Folder) -> None:
    write(folder, "a.jsonl", b"1\n2\n")
    with folder.reader("a.jsonl") as file:
        assert file.readline() == b"1\n"
    assert read(folder, "a.jsonl") == b"1\n2\n"


# The choice of staging, and whether the next task can reach it


@pytest.mark.parametrize(
    ("executor", "executor_name"),
    [
        ("CeleryExecutor", "CeleryExecutor"),
        ("LocalExecutor,CeleryExecutor", "CeleryExecutor"),
        ("airflow.providers.celery.executors.celery_executor.CeleryExecutor", "CeleryExecutor"),
        ("remote:airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor", "Kubernetes"),
    ],
)
def test_a_local_disk_is_refused_if_tasks_may_run_on_other_machines(
    monkeypatch: pytest.MonkeyPatch, executor: str, executor_name: str
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", executor)
    with pytest.raises(StagingError) as error:
        check_reachable("file:///var/staging", allow_local=False)
    for part in (executor_name, "file:///var/staging", "Nothing was uploaded", "allow_local_staging"):
        assert part in str(error.value)
    assert "LocalExecutor" not in str(error.value)


@pytest.mark.parametrize(
    ("executor", "root", "allow", "environment"),
    [
        ("LocalExecutor", "file:///var/staging", False, {}),
        ("here:LocalExecutor", "/var/staging", False, {}),
        ("airflow.executors.local_executor.LocalExecutor", "/var/staging", False, {}),
        ("CeleryExecutor", "s3://bucket/batch", False, {}),
        ("CeleryExecutor", "file:///mnt/shared", True, {}),
        ("CeleryExecutor", "file:///mnt/shared", False, {"AIRFLOW__OPENAI_BATCH__ALLOW_LOCAL_STAGING": "True"}),
    ],
)
def test_staging_that_every_task_can_reach_is_allowed(
    monkeypatch: pytest.MonkeyPatch, executor: str, root: str, allow: bool, environment: dict[str, str]
) -> None:
    for name, value in {"AIRFLOW__CORE__EXECUTOR": executor, **environment}.items():
        monkeypatch.setenv(name, value)
    check_reachable(root, allow_local=allow)


def test_the_argument_overrides_the_configuration_and_the_default_is_airflows_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW__OPENAI_BATCH__STAGING", raising=False)
    assert staging_root() == f"{Path(AIRFLOW_HOME).absolute().as_uri()}/batch_staging"
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", "s3://conn@bucket/configured")
    assert staging_root() == "s3://conn@bucket/configured"
    assert staging_root("s3://bucket/argument") == "s3://bucket/argument"


@pytest.mark.parametrize("root", ["staging", "./staging", "~/staging", "file://var/staging", "file:staging"])
def test_a_relative_path_is_refused_because_each_task_would_look_for_it_elsewhere(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"^staging: .* is not an absolute path.*/var/lib/airflow"):
        staging_root(root)
    # Airflow expands ~ in its own options.
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", root.removeprefix("~/"))
    with pytest.raises(InputError, match=r"^config \[openai_batch\] staging: "):
        staging_root()


@pytest.mark.parametrize("root", ["/staging", "file:///staging", "file://localhost/staging", "s3://bucket/staging"])
def test_an_absolute_path_or_an_object_store_is_staging_as_it_is_written(root: str) -> None:
    assert staging_root(root) == root
