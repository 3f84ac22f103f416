"""Concurrent uploads of input files and downloads of result files, with failures injected by the local batch server."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_batch.exceptions import ProviderError, StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of, make_tickets, query, run_job
from tests.airflow.test_runner import another_worker, batches_of, seal_job

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.usefixtures("offline")
SHARDS = 7
UPLOADS, DOWNLOADS = frozenset({Call.UPLOAD}), frozenset({Call.DOWNLOAD})


@pytest.fixture
def server(serve: Callable[..., LocalServer]) -> LocalServer:
    """Start a server for one test and point `openai_default` to it. Calls are not retried and time out after 2 s."""
    return serve(openai_client_kwargs={"max_retries": 0, "timeout": 2})


@pytest.fixture
def long_timeout(server: LocalServer, connect: Callable[..., None]) -> None:
    """Raise the timeout, so that a server that does not answer never causes an error."""
    options = {"openai_client_kwargs": {"max_retries": 0, "timeout": 600}}
    connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=options)


@pytest.fixture
def client(server: LocalServer) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    return seal_job(tmp_path, [f"Ticket {number}" for number in range(SHARDS)], requests=1)


def recorded_file_ids(ledger: Any) -> dict[str, str]:
    """Return the ids of the recorded uploads by shard."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    reopened = open_ledger(ledger.folder)
    assert reopened is not None
    return {name: shard.latest.file_id for name, shard in reopened.state().shards.items() if shard.latest}


def settled_records(ledger: Any) -> list[Any]:
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    reopened = open_ledger(ledger.folder)
    assert reopened is not None
    return [record for _, _, record in reopened.state().settled_submissions()]


def failures_of(ledger: Any) -> list[str]:
    """Return why batches of the job could not be collected."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    reopened = open_ledger(ledger.folder)
    assert reopened is not None
    submissions = [submission for _, submission in reopened.state().live_submissions()]
    return [failure.message for submission in submissions for failure in submission.collection_failures]


def test_each_file_is_uploaded_once_and_each_batch_is_created_once(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    another_worker(ledger).run({})

    assert (server.calls()["upload"], server.calls()["create"]) == (SHARDS, SHARDS)
    files = {file.id: file.filename for file in client.files.list() if file.purpose == "batch"}
    assert files == {
        file_id: f"{ledger.manifest.job_uid}-{name}.jsonl" for name, file_id in recorded_file_ids(ledger).items()
    }
    input_file_ids = {batch.metadata["shard"]: batch.input_file_id for batch in batches_of(client, ledger)}
    assert input_file_ids == recorded_file_ids(ledger)


def upload_until_the_server_dies(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> BaseException | None:
    """Kill the server once two files are stored and four uploads are in progress. Return the worker's exception."""
    server.set_faults(Fault(kind=Kind.HANG, calls=UPLOADS, skip=2, seconds=1e6))
    with ThreadPoolExecutor() as pool:
        worker = pool.submit(another_worker(ledger).run, {})
        try:
            wait_until(lambda: len(recorded_file_ids(ledger)) == 2 and server.calls()["upload"] == 2 + 4)
        finally:
            server.kill()
        return worker.exception()


@pytest.mark.usefixtures("long_timeout")
def test_four_uploads_run_concurrently_and_none_follows_after_the_server_dies(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> None:
    error = upload_until_the_server_dies(ledger, server, wait_until)
    assert isinstance(error, ProviderError)
    assert re.search(r"Uploading .* failed", str(error))
    assert len(recorded_file_ids(ledger)) == 2


@pytest.mark.usefixtures("long_timeout")
def test_after_a_crash_only_the_unrecorded_files_are_uploaded(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> None:
    assert upload_until_the_server_dies(ledger, server, wait_until) is not None
    earlier_uploads = recorded_file_ids(ledger)
    server.start()

    another_worker(ledger).run({})

    assert (server.calls()["upload"], server.calls()["create"]) == (SHARDS - 2, SHARDS)
    assert earlier_uploads.items() <= recorded_file_ids(ledger).items()


def test_a_refused_upload_stops_the_others_and_every_stored_file_is_recorded(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=UPLOADS, status=401, skip=1, times=1))

    with pytest.raises(ProviderError, match="HTTP 401"):
        another_worker(ledger).run({})

    assert {file.id for file in client.files.list()} == set(recorded_file_ids(ledger).values())
    assert server.calls()["create"] == 0
    another_worker(ledger).run({})
    assert server.calls()["create"] == SHARDS
    assert server.calls()["upload"] == SHARDS + 1


def test_a_worker_that_is_being_stopped_starts_no_further_upload(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    checks = itertools.count()

    with pytest.raises(StoppedError, match="4 of 7 input files"):
        another_worker(ledger, stopping=lambda: next(checks) >= 3).run({})

    assert len(recorded_file_ids(ledger)) == server.calls()["upload"] == 3
    assert server.calls()["create"] == 0


@pytest.fixture
def ended_job(ledger: Any, server: LocalServer, client: openai.OpenAI, wait_until: Callable[..., None]) -> Any:
    """The job after all its batches have ended and before any is collected."""
    another_worker(ledger).run({})
    wait_until(lambda: all(batch.status == "completed" for batch in batches_of(client, ledger)))
    return ledger


def collect(ledger: Any, *, later: timedelta = timedelta()) -> None:
    worker = another_worker(ledger, later=later)
    worker.run(worker.observe())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.TRUNCATE, calls=DOWNLOADS, skip=1, times=2),
        Fault(kind=Kind.STALL, calls=DOWNLOADS, skip=1, times=2, seconds=1e6),
    ],
    ids=["truncated", "stalled"],
)
def test_an_interrupted_download_is_repeated_from_the_start(
    ended_job: Any, server: LocalServer, client: openai.OpenAI, fault: Fault
) -> None:
    server.set_faults(fault)

    collect(ended_job)

    assert server.calls()["download"] == SHARDS + 2
    assert [record.outcomes for record in settled_records(ended_job)] == [{"succeeded": 1}] * SHARDS
    contents = {batch.id: client.files.content(batch.output_file_id).read() for batch in batches_of(client, ended_job)}
    for record in settled_records(ended_job):
        (file,) = record.files
        with ended_job.folder.reader(file.name) as stream:
            assert stream.read() == contents[record.batch_id]


def test_a_batch_whose_file_never_arrives_complete_is_not_settled_and_the_next_worker_collects_it(
    ended_job: Any, server: LocalServer
) -> None:
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=DOWNLOADS))

    collect(ended_job)
    assert settled_records(ended_job) == []
    assert all("was interrupted after" in message for message in failures_of(ended_job))
    assert len(failures_of(ended_job)) == SHARDS

    server.set_faults()
    collect(ended_job, later=timedelta(minutes=10))
    assert [record.outcomes for record in settled_records(ended_job)] == [{"succeeded": 1}] * SHARDS


def test_a_deleted_result_file_does_not_stop_other_batches_from_being_settled(
    ended_job: Any, client: openai.OpenAI
) -> None:
    (deleted,) = [batch for batch in batches_of(client, ended_job) if batch.metadata["shard"] == "s0001"]
    client.files.delete(deleted.output_file_id)

    collect(ended_job)

    (message,) = failures_of(ended_job)
    assert "HTTP 404" in message
    assert "deleted or has expired at the provider" in message
    assert len(settled_records(ended_job)) == SHARDS - 1
    assert deleted.id not in {record.batch_id for record in settled_records(ended_job)}


@pytest.mark.usefixtures("long_timeout")
def test_four_batches_are_collected_concurrently(
    ended_job: Any, server: LocalServer, wait_until: Callable[..., None]
) -> None:
    server.set_faults(Fault(kind=Kind.STALL, calls=DOWNLOADS, seconds=1e6))
    with ThreadPoolExecutor() as pool:
        worker = pool.submit(collect, ended_job)
        try:
            wait_until(lambda: server.calls()["download"] == 4)
        finally:
            server.kill()
        assert worker.exception() is None
    assert settled_records(ended_job) == []
    assert len(failures_of(ended_job)) == SHARDS


@pytest.mark.parametrize(
    "faults",
    [
        (Fault(kind=Kind.SEPARATORS),),
        (Fault(kind=Kind.SEPARATORS), Fault(kind=Kind.CRLF)),
        (Fault(kind=Kind.SEPARATORS), Fault(kind=Kind.NO_FINAL_NEWLINE)),
        (Fault(kind=Kind.SEPARATORS), Fault(kind=Kind.CRLF), Fault(kind=Kind.NO_FINAL_NEWLINE)),
    ],
    ids=lambda faults: " and ".join(fault.kind for fault in faults),
)
def test_answers_are_split_only_at_line_feeds(
    tmp_path: Path, connect: Callable[..., None], server: LocalServer, faults: tuple[Fault, ...]
) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    make_tickets(warehouse, [(f"T-{number}", "Title", "Body", "a") for number in range(1, 6)])
    connect("warehouse", conn_type="sqlite", host=str(warehouse))
    server.set_faults(*faults)

    result = run_job()

    assert result.state == "success"
    rows = query(warehouse, "SELECT custom_id, outcome, output FROM answers ORDER BY custom_id")
    assert [row[:2] for row in rows] == [(f"T-{number}", "succeeded") for number in range(1, 6)]
    for _, _, output in rows:
        assert all(separator in output for separator in "\u2028\u2029\u0085")
