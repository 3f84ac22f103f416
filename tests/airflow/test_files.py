"""Input files up and result files down, several at once, against a local batch server on which things go wrong."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from airflow_provider_batch.exceptions import BrokenDownloadError, ProviderError, StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of, make_tickets, query, run_job
from tests.airflow.test_runner import another_worker, batches_of, seal_job

pytestmark = pytest.mark.usefixtures("offline")
SHARDS = 7
UPLOADS, DOWNLOADS = frozenset({Call.UPLOAD}), frozenset({Call.DOWNLOAD})


@pytest.fixture
def server(serve: Callable[..., LocalServer]) -> LocalServer:
    """A server of the test's own, which `openai_default` leads to; calls are not retried, silence ends after 2 s."""
    return serve(openai_client_kwargs={"max_retries": 0, "timeout": 2})


@pytest.fixture
def patient(server: LocalServer, connect: Callable[..., None]) -> None:
    """A silence is waited for as long as it takes."""
    options = {"openai_client_kwargs": {"max_retries": 0, "timeout": 600}}
    connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=options)


@pytest.fixture
def client(server: LocalServer) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    return seal_job(tmp_path, [f"Ticket {number}" for number in range(SHARDS)], requests=1)


def uploaded(ledger: Any) -> dict[str, str]:
    """Shard -> id of its file, of those that are recorded."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    opened = open_ledger(ledger.folder)
    assert opened is not None
    return {name: shard.latest.file_id for name, shard in opened.state().shards.items() if shard.latest}


def settled(ledger: Any) -> list[Any]:
    from airflow_provider_batch.core.ledger.ledger import open_ledger

    opened = open_ledger(ledger.folder)
    assert opened is not None
    return [record for _, _, record in opened.state().settled_submissions()]


def test_when_all_goes_well_each_file_is_uploaded_once_and_each_batch_created_once(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    another_worker(ledger).run({})

    assert (server.calls()["upload"], server.calls()["create"]) == (SHARDS, SHARDS)
    files = {file.id: file.filename for file in client.files.list() if file.purpose == "batch"}
    assert files == {file_id: f"{ledger.manifest.job_uid}-{name}.jsonl" for name, file_id in uploaded(ledger).items()}
    of_batches = {batch.metadata["shard"]: batch.input_file_id for batch in batches_of(client, ledger)}
    assert of_batches == uploaded(ledger)


def upload_until_the_server_dies(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> BaseException | None:
    """Kill the server once it has taken two files and four more are on their way; give what the worker raised."""
    server.set_faults(Fault(kind=Kind.HANG, calls=UPLOADS, skip=2, seconds=1e6))
    with ThreadPoolExecutor() as pool:
        worker = pool.submit(another_worker(ledger).run, {})
        try:
            wait_until(lambda: len(uploaded(ledger)) == 2 and server.calls()["upload"] == 2 + 4)
        finally:
            server.kill()
        return worker.exception()


@pytest.mark.usefixtures("patient")
def test_four_files_are_on_their_way_at_once_and_a_server_that_dies_then_gets_no_more(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> None:
    error = upload_until_the_server_dies(ledger, server, wait_until)
    assert isinstance(error, ProviderError)
    assert re.search(r"Uploading .* failed", str(error))
    assert len(uploaded(ledger)) == 2


@pytest.mark.usefixtures("patient")
def test_after_a_crash_in_the_middle_only_what_was_not_recorded_is_uploaded(
    ledger: Any, server: LocalServer, wait_until: Callable[..., None]
) -> None:
    assert upload_until_the_server_dies(ledger, server, wait_until) is not None
    before = uploaded(ledger)
    server.start()

    another_worker(ledger).run({})

    assert (server.calls()["upload"], server.calls()["create"]) == (SHARDS - 2, SHARDS)
    assert before.items() <= uploaded(ledger).items()


def test_a_refused_upload_ends_the_others_and_what_the_provider_took_is_recorded(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=UPLOADS, status=401, skip=1, times=1))

    with pytest.raises(ProviderError, match="HTTP 401"):
        another_worker(ledger).run({})

    assert {file.id for file in client.files.list()} == set(uploaded(ledger).values())
    assert server.calls()["create"] == 0
    another_worker(ledger).run({})
    assert server.calls()["create"] == SHARDS
    assert server.calls()["upload"] == SHARDS + 1


def test_a_worker_that_is_told_to_end_begins_no_further_upload(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    asked = itertools.count()

    with pytest.raises(StoppedError, match="4 of 7 input files"):
        another_worker(ledger, stopping=lambda: next(asked) >= 3).run({})

    assert len(uploaded(ledger)) == server.calls()["upload"] == 3
    assert server.calls()["create"] == 0


@pytest.fixture
def ended(ledger: Any, server: LocalServer, client: openai.OpenAI, wait_until: Callable[..., None]) -> Any:
    """The job, with all its batches ended and nothing collected."""
    another_worker(ledger).run({})
    wait_until(lambda: all(batch.status == "completed" for batch in batches_of(client, ledger)))
    return ledger


def collect(ledger: Any) -> None:
    worker = another_worker(ledger)
    worker.run(worker.observe())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.TRUNCATE, calls=DOWNLOADS, skip=1, times=2),
        Fault(kind=Kind.STALL, calls=DOWNLOADS, skip=1, times=2, seconds=1e6),
    ],
    ids=["cut off", "silent"],
)
def test_a_result_file_that_breaks_off_is_asked_for_again_whole(
    ended: Any, server: LocalServer, client: openai.OpenAI, fault: Fault
) -> None:
    server.set_faults(fault)

    collect(ended)

    assert server.calls()["download"] == SHARDS + 2
    assert [record.outcomes for record in settled(ended)] == [{"succeeded": 1}] * SHARDS
    contents = {batch.id: client.files.content(batch.output_file_id).read() for batch in batches_of(client, ended)}
    for record in settled(ended):
        (file,) = record.files
        with ended.folder.reader(file.name) as stream:
            assert stream.read() == contents[record.batch_id]


def test_a_batch_whose_file_never_comes_whole_is_not_settled_and_the_next_worker_collects_it(
    ended: Any, server: LocalServer
) -> None:
    server.set_faults(Fault(kind=Kind.TRUNCATE, calls=DOWNLOADS))

    with pytest.raises(BrokenDownloadError, match="was interrupted after"):
        collect(ended)
    assert settled(ended) == []

    server.set_faults()
    collect(ended)
    assert [record.outcomes for record in settled(ended)] == [{"succeeded": 1}] * SHARDS


def test_a_result_file_that_is_gone_holds_up_no_other(ended: Any, client: openai.OpenAI) -> None:
    (gone,) = [batch for batch in batches_of(client, ended) if batch.metadata["shard"] == "s0001"]
    client.files.delete(gone.output_file_id)

    with pytest.raises(ProviderError, match=r"HTTP 404.*deleted or has expired at the provider"):
        collect(ended)

    assert len(settled(ended)) == SHARDS - 1
    assert gone.id not in {record.batch_id for record in settled(ended)}


@pytest.mark.usefixtures("patient")
def test_four_batches_are_collected_at_once(ended: Any, server: LocalServer, wait_until: Callable[..., None]) -> None:
    server.set_faults(Fault(kind=Kind.STALL, calls=DOWNLOADS, seconds=1e6))
    with ThreadPoolExecutor() as pool:
        worker = pool.submit(collect, ended)
        try:
            wait_until(lambda: server.calls()["download"] == 4)
        finally:
            server.kill()
        assert worker.exception() is not None
    assert settled(ended) == []


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
def test_answers_are_split_at_line_feeds_alone(
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
