"""Staging in S3, with the real s3fs and a real store over HTTP, which misbehaves as real stores do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent

import pytest

from airflow_provider_batch.exceptions import StagingError, UnusableStagingError
from airflow_provider_batch.staging.layout import check_exclusive_mode, open_folder
from airflow_provider_batch.staging.object_store import ObjectFolder
from airflow_provider_batch.staging.patience import patient
from airflow_provider_batch.staging.streams import PART_BYTES
from tests.staging import store_proxy
from tests.staging.conftest import BUCKET
from tests.staging.store_proxy import Request, StoreProxy, for_the_first

Opener = Callable[[], ObjectFolder]


def write(folder: ObjectFolder, name: str, data: bytes) -> None:
    with folder.writer(name) as file:
        for start in range(0, len(data), 1 << 20):
            file.write(data[start : start + (1 << 20)])


# Small files, created exclusively


def test_only_the_first_worker_creates_a_file(open_s3: Opener) -> None:
    first, second = open_s3(), open_s3()
    assert first.create("g001/records/intent.json", b"first")
    assert not second.create("g001/records/intent.json", b"second")
    assert second.read("g001/records/intent.json") == b"first"


def test_a_412_without_the_name_of_the_condition_means_that_somebody_was_first(s3: StoreProxy, open_s3: Opener) -> None:
    s3.fault = store_proxy.names_no_condition
    assert open_s3().create("intent.json", b"first")
    assert not open_s3().create("intent.json", b"second")


def is_put(request: Request) -> bool:
    return request.kind == "PUT"


def test_a_conflict_with_an_upload_at_the_same_time_is_repeated_until_it_is_decided(
    s3: StoreProxy, open_s3: Opener
) -> None:
    s3.fault = for_the_first(3, store_proxy.conflicts, is_put)
    assert open_s3().create("intent.json", b"first")
    s3.fault = for_the_first(3, store_proxy.conflicts, is_put)
    assert not open_s3().create("intent.json", b"second")
    assert open_s3().read("intent.json") == b"first"


def test_a_conflict_that_does_not_end_is_decided_by_the_file_that_is_there(s3: StoreProxy, open_s3: Opener) -> None:
    open_s3().create("intent.json", b"first")
    s3.fault = for_the_first(1000, store_proxy.conflicts, is_put)
    assert not open_s3().create("intent.json", b"second")
    with pytest.raises(StagingError, match=r"cannot write s3://.*/other\.json"):
        open_s3().create("other.json", b"1")


def test_a_file_whose_confirmation_was_lost_was_created_by_this_worker(s3: StoreProxy, open_s3: Opener) -> None:
    s3.fault = for_the_first(1, store_proxy.loses_the_answer, is_put)
    with patient(seconds=300):
        assert open_s3().create("intent.json", b"mine")
        assert not open_s3().create("intent.json", b"theirs")


RACER = """
    import sys
    from airflow.sdk.io import attach
    from airflow_provider_batch.staging.object_store import ObjectFolder
    from tests.staging.conftest import BUCKET, s3_filesystem
    url, me = sys.argv[1:]
    attach("s3", conn_id="race", fs=s3_filesystem(url))
    folder = ObjectFolder(f"s3://race@{BUCKET}/race")
    folder.names("")
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(200):
        if folder.create(f"{number}.json", me.encode()):
            print(number)
"""


def test_exactly_one_of_two_processes_creates_each_of_200_files(s3: StoreProxy) -> None:
    racers = {
        me: subprocess.Popen(
            [sys.executable, "-c", dedent(RACER), s3.url, me], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for me in "ab"
    }
    for racer in racers.values():
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers.values():
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    created = [int(number) for racer in racers.values() for number in racer.communicate(timeout=240)[0].split()]
    assert sorted(created) == list(range(200))


# The check of the store before a job is sealed


def test_a_store_that_ignores_exclusive_mode_is_refused_before_anything_is_uploaded(
    s3: StoreProxy, open_s3: Opener
) -> None:
    root = open_s3().uri
    s3.fault = store_proxy.ignores_exclusive_mode
    with pytest.raises(UnusableStagingError, match=r"s3fs \d+\.\d+.*paid for twice\. Nothing was uploaded"):
        check_exclusive_mode(root)
    assert not UnusableStagingError.retry


@pytest.mark.parametrize("fault", [None, store_proxy.names_no_condition])
def test_the_check_of_a_store_costs_two_requests_the_first_time_and_one_after_that(
    s3: StoreProxy, open_s3: Opener, fault: store_proxy.Fault | None
) -> None:
    s3.fault = fault
    root = open_s3().uri
    for requests in (2, 1, 1):
        s3.counts.clear()
        check_exclusive_mode(root)
        assert s3.counts == {"PUT": requests}


def test_a_store_whose_connection_does_not_exist_is_refused_before_other_credentials_are_tried() -> None:
    with pytest.raises(UnusableStagingError, match=r"no connection 'no_such_conn'\. Nothing was uploaded"):
        open_folder("s3://no_such_conn@bucket/batch")


# Large files


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 20_000_000])
def test_a_file_of_any_size_is_read_as_it_was_written(open_s3: Opener, size: int) -> None:
    data = (b"0123456789abcde\n" * (size // 16 + 1))[:size]
    write(open_s3(), "s0001.jsonl", data)
    with open_s3().reader("s0001.jsonl") as file:
        assert b"".join(file) == data
        assert file.seek(0, 2) == size
        file.seek(size // 2)
        assert file.read(10) == data[size // 2 :][:10]


def test_a_file_smaller_than_a_part_is_one_request_to_write_and_one_to_read(s3: StoreProxy, open_s3: Opener) -> None:
    folder = open_s3()
    write(folder, "s0001.jsonl", b"line\n" * 1000)
    with folder.reader("s0001.jsonl") as file:
        assert len(list(file)) == 1000
    assert s3.counts == {"PUT": 1, "GET": 1}


@pytest.mark.parametrize("kind", ["START", "PART", "COMPLETE", "GET"])
@pytest.mark.parametrize("fault", [store_proxy.is_unavailable, store_proxy.loses_the_answer])
def test_each_request_for_a_large_file_is_repeated_while_the_store_does_not_answer(
    s3: StoreProxy, open_s3: Opener, kind: str, fault: store_proxy.Fault
) -> None:
    data = bytes(range(256)) * (20_000_000 // 256)
    s3.fault = for_the_first(1, fault, lambda request: request.kind == kind)
    with patient(seconds=300):
        write(open_s3(), "s0001.jsonl", data)
        with open_s3().reader("s0001.jsonl") as file:
            assert file.read() == data


def test_an_error_while_a_large_file_is_written_leaves_no_file(open_s3: Opener) -> None:
    folder = open_s3()

    def write_and_fail() -> None:
        with folder.writer("s0001.jsonl") as file:
            file.write(b"x" * (2 * PART_BYTES))
            raise ValueError("the task failed")

    with pytest.raises(ValueError, match="the task failed"):
        write_and_fail()
    assert folder.names("") == []
    uploads = folder.store.filesystem.call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
    assert not [upload for upload in uploads if f"{BUCKET}/{upload['Key']}".startswith(folder.path)]


# Errors


ACTIONS: dict[str, Callable[[ObjectFolder], object]] = {
    "create": lambda folder: folder.create("a.json", b"1"),
    "read": lambda folder: folder.read("a.json"),
    "read_all": lambda folder: folder.read_all(["a.json", "b.json"]),
    "names": lambda folder: folder.names("records"),
    "folders": lambda folder: folder.folders(""),
    "writer": lambda folder: write(folder, "s0001.jsonl", b"1"),
    "reader": lambda folder: read(folder, "s0001.jsonl"),
    "remove_everything": lambda folder: folder.remove_everything(),
}


def read(folder: ObjectFolder, name: str) -> bytes:
    with folder.reader(name) as file:
        return file.read()


@pytest.mark.parametrize("fault", ["denies_access", "is_unavailable", "loses_the_answer"])
@pytest.mark.parametrize("action", ACTIONS)
def test_every_error_of_the_store_names_the_file_and_what_to_do(
    s3: StoreProxy, open_s3: Opener, action: str, fault: str
) -> None:
    folder = open_s3()
    s3.fault = getattr(store_proxy, fault)
    with pytest.raises(StagingError, match=rf"Staging: cannot \w+ {folder.uri}.*permissions"):
        ACTIONS[action](folder)


def test_a_file_that_the_store_does_not_delete_stays_and_a_warning_is_logged(
    s3: StoreProxy, open_s3: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    folder = open_s3()
    folder.create("a.json", b"1")
    s3.fault = store_proxy.denies_access
    folder.remove("a.json")
    assert "Could not remove" in caplog.text


@pytest.mark.parametrize("action", ACTIONS)
def test_a_task_repeats_every_operation_while_the_store_answers_503(
    s3: StoreProxy, open_s3: Opener, action: str
) -> None:
    folder = open_s3()
    folder.create("s0001.jsonl", b"1")
    s3.fault = for_the_first(2, store_proxy.is_unavailable)
    with patient(seconds=300):
        ACTIONS[action](folder)


def test_a_task_that_is_being_stopped_repeats_nothing(s3: StoreProxy, open_s3: Opener) -> None:
    folder = open_s3()
    s3.fault = store_proxy.is_unavailable
    with patient(lambda: True), pytest.raises(StagingError, match="cannot read"):
        folder.read("a.json")
    assert s3.counts == {"GET": 1}


def test_the_patience_of_a_task_ends(s3: StoreProxy, open_s3: Opener) -> None:
    folder = open_s3()
    s3.fault = store_proxy.is_unavailable
    with patient(seconds=0.5), pytest.raises(StagingError, match="cannot read"):
        folder.read("a.json")
