"""The runner against a local server that leaves creations unconfirmed, does not find files yet, or has foreign batches.

No matter what the server answers, each shard has exactly one batch in the end, and no other job's batch is touched.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of
from tests.airflow.test_runner import another_worker, batches_of, seal_job

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.usefixtures("offline")
CREATES = frozenset({Call.CREATE})
NOT_FOUND = "Cannot find file file-x, or organization org-x does not have access to it."


@pytest.fixture
def server(serve: Callable[..., LocalServer], monkeypatch: pytest.MonkeyPatch) -> LocalServer:
    """Start a server for one test. The SDK may retry calls twice, and a creation times out after 2 s."""
    from airflow_provider_batch.hooks import batch

    monkeypatch.setattr(batch, "CREATE_TIMEOUT", 2.0)
    return serve(openai_client_kwargs={"max_retries": 2})


@pytest.fixture
def client(server: LocalServer) -> openai.OpenAI:
    return client_of(server)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    """Seal a job of two rows in two shards."""
    return seal_job(tmp_path, ["one", "two"], requests=1)


def shards_of(batches: list[Any]) -> list[str]:
    return sorted(batch.metadata["shard"] for batch in batches)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.COMMIT_THEN_STATUS, status=500, calls=CREATES, times=1),
        Fault(kind=Kind.COMMIT_THEN_HANG, seconds=30, calls=CREATES, times=1),
        Fault(kind=Kind.TRUNCATE, calls=CREATES, times=1),
        Fault(kind=Kind.STALL, seconds=30, calls=CREATES, times=1),
        Fault(kind=Kind.HTML, calls=CREATES, times=1),
        Fault(kind=Kind.HANG, seconds=30, calls=CREATES, times=1),
        Fault(kind=Kind.DROP, calls=CREATES, times=1),
        Fault(kind=Kind.STATUS, status=500, calls=CREATES, times=1),
        Fault(kind=Kind.STATUS, status=503, calls=CREATES, times=1, retry_after=7200),
        Fault(kind=Kind.STATUS, status=408, calls=CREATES, times=1),
    ],
    ids=lambda fault: f"{fault.kind} {fault.status}" if "status" in fault.kind else fault.kind,
)
def test_an_unconfirmed_creation_is_looked_up_and_each_shard_gets_one_batch(
    ledger: Any, server: LocalServer, client: openai.OpenAI, fault: Fault
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    server.set_faults(fault)
    pause = another_worker(ledger).run({})
    assert isinstance(pause, Wait)
    assert server.calls()["create"] == 2

    another_worker(ledger, later=timedelta(seconds=121)).run({})

    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]


UPLOADS = frozenset({Call.UPLOAD})


@pytest.mark.parametrize(
    ("fault", "minutes"),
    [
        (Fault(kind=Kind.STATUS, status=429, calls=UPLOADS, times=3, skip=1), 0),
        (Fault(kind=Kind.STATUS, status=429, calls=UPLOADS, times=1, skip=1, retry_after=1_800), 30),
        (Fault(kind=Kind.STATUS, status=503, calls=UPLOADS, times=1, skip=1, retry_after=7_200), 60),
    ],
    ids=["429 three times", "429 for half an hour", "503 for two hours"],
)
def test_an_upload_refused_for_capacity_is_repeated_later_and_other_shards_continue(
    ledger: Any, server: LocalServer, client: openai.OpenAI, fault: Fault, minutes: int
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    server.set_faults(fault)
    start_time = datetime.now(UTC)
    pause = another_worker(ledger).run({})
    assert isinstance(pause, Wait)
    assert pause.until is not None
    assert pause.until > start_time + timedelta(minutes=minutes)
    assert len(batches_of(client, ledger)) == 1
    uploads = server.calls()["upload"]
    if minutes:
        another_worker(ledger, later=timedelta(minutes=minutes - 1)).run({})
        assert server.calls()["upload"] == uploads

    another_worker(ledger, later=timedelta(minutes=minutes + 1)).run({})

    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]
    assert {submission.number for shard in ledger.state().shards.values() for submission in shard.submissions} == {1}


def test_a_refused_creation_waits_for_the_retry_after(ledger: Any, server: LocalServer, client: openai.OpenAI) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, status=429, calls=CREATES, times=1, retry_after=1_800))
    another_worker(ledger).run({})
    another_worker(ledger, later=timedelta(minutes=29)).run({})
    assert batches_of(client, ledger) == []

    another_worker(ledger, later=timedelta(minutes=31)).run({})

    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]


def test_an_upload_refused_for_insufficient_quota_is_not_a_capacity_error(ledger: Any, server: LocalServer) -> None:
    from airflow_provider_batch.exceptions import CapacityError, ProviderError

    server.set_faults(Fault(kind=Kind.STATUS, status=429, code="insufficient_quota", calls=UPLOADS))
    with pytest.raises(ProviderError, match="insufficient_quota") as raised:
        another_worker(ledger).run({})
    assert not isinstance(raised.value, CapacityError)


def test_a_failed_lookup_creates_nothing_and_the_next_worker_repeats_it(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    from airflow_provider_batch.exceptions import ProviderError

    server.set_faults(
        Fault(kind=Kind.COMMIT_THEN_STATUS, status=500, calls=CREATES, times=1),
        Fault(kind=Kind.HTML, calls=frozenset({Call.LIST})),
    )
    another_worker(ledger).run({})
    with pytest.raises(ProviderError, match=r"Listing batches.*Nothing was created"):
        another_worker(ledger, later=timedelta(seconds=121)).run({})
    assert server.calls()["create"] == 2

    server.set_faults()
    another_worker(ledger, later=timedelta(seconds=122)).run({})

    assert server.calls()["create"] == 2
    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]


@pytest.mark.parametrize("dialects", [("groq",), ("ignore-after", "no-has-more"), ("milliseconds",)], ids="+".join)
def test_a_creation_is_looked_up_on_servers_whose_lists_and_times_differ_from_openais(
    ledger: Any, connect: Callable[..., None], tmp_path: Path, dialects: tuple[str, ...]
) -> None:
    with LocalServer(tmp_path / "dialect", admin=True, dialects=dialects) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        server.set_faults(Fault(kind=Kind.COMMIT_THEN_STATUS, status=500, calls=CREATES, times=1))
        another_worker(ledger).run({})
        another_worker(ledger, later=timedelta(seconds=121)).run({})

        assert server.calls()["create"] == 2
        client = client_of(server)
        batches = client.batches.list(limit=100).data  # one page, because the SDK would page forever
        assert shards_of(batches) == ["s0001", "s0002"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind=Kind.STATUS, status=400, message=NOT_FOUND, calls=CREATES, times=1),
        Fault(kind=Kind.FAIL_BATCH, code="invalid_request", message=NOT_FOUND, times=1),
    ],
    ids=["the creation is refused", "the created batch fails"],
)
def test_a_file_not_found_right_after_its_upload_is_uploaded_again_without_counting_an_attempt(
    ledger: Any, server: LocalServer, client: openai.OpenAI, wait_until: Callable[..., None], fault: Fault
) -> None:
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far

    server.set_faults(fault)
    another_worker(ledger).run({})
    for _ in range(3):
        wait_until(lambda: all(batch.status in ("completed", "failed") for batch in batches_of(client, ledger)))
        worker = another_worker(ledger)
        worker.run(worker.observe())

    state = worker.ledger.state()
    assert outcomes_so_far(state) == {"succeeded": 2}
    assert state.retry_rounds == []
    assert server.calls()["upload"] == server.calls()["create"] == 3


@pytest.mark.parametrize("kind", [Kind.DROP, Kind.STATUS, Kind.COMMIT_THEN_STATUS])
def test_an_interrupted_upload_is_repeated_from_its_first_byte(
    ledger: Any, server: LocalServer, client: openai.OpenAI, kind: Kind
) -> None:
    server.set_faults(Fault(kind=kind, calls=frozenset({Call.UPLOAD}), times=1))
    another_worker(ledger).run({})

    assert server.calls()["upload"] == 3
    file_ids = {batch.metadata["shard"]: batch.input_file_id for batch in batches_of(client, ledger)}
    for shard in ledger.manifest.shards:
        with ledger.folder.reader(shard.file) as file:
            assert client.files.content(file_ids[shard.name]).read() == file.read()


def test_a_creation_refused_for_hours_is_postponed_and_nothing_fails(
    ledger: Any, server: LocalServer, client: openai.OpenAI
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Wait

    server.set_faults(Fault(kind=Kind.STATUS, status=429, retry_after=7200, calls=CREATES))
    assert isinstance(another_worker(ledger).run({}), Wait)
    assert batches_of(client, ledger) == []
    assert server.calls()["create"] <= 2

    server.set_faults()
    for hours in (3, 6):
        another_worker(ledger, later=timedelta(hours=hours)).run({})
    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]
    assert server.calls()["upload"] == 2


def test_batches_of_another_deployment_with_the_same_job_key_are_never_touched(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import Deadline, Intent, Uploaded

    foreign_ledger = seal_job(tmp_path / "foreign", ["one", "two"], requests=1)
    assert foreign_ledger.manifest.key == ledger.manifest.key
    assert foreign_ledger.manifest.job_uid != ledger.manifest.job_uid
    with LocalServer(tmp_path / "slow", in_progress=600) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        client = client_of(slow_server)
        another_worker(foreign_ledger).run({})
        now = datetime.now(UTC)
        with ledger.folder.reader(ledger.manifest.shards[0].file) as file:
            file_id = client.files.create(file=("s0001.jsonl", file), purpose="batch").id
        ledger.add(Uploaded("s0001", 1, file_id, now))
        ledger.add(Intent("s0001", 1, "a nonce that no batch has", file_id, now))

        another_worker(ledger, later=timedelta(seconds=121)).run({})
        assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]
        ledger.add(Deadline(now, now))
        worker = another_worker(ledger)
        worker.run(worker.observe())

        assert {batch.status for batch in batches_of(client, ledger)} <= {"cancelling", "cancelled"}
        foreign_statuses = [batch.status for batch in batches_of(client, foreign_ledger)]
        assert len(foreign_statuses) == 2
        assert not {"cancelling", "cancelled"}.intersection(foreign_statuses)


def test_a_worker_suspended_before_its_create_call_looks_the_batch_up_first(
    ledger: Any, server: LocalServer, client: openai.OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    worker = another_worker(ledger)
    write = worker.ledger.add

    def add(record: Any) -> bool:
        added = bool(write(record))
        if type(record).__name__ == "Intent":
            # Suspend the worker right after it writes the record, like SIGSTOP or a sleeping machine.
            worker._clock = lambda: datetime.now(UTC) + timedelta(hours=1)
        return added

    worker.ledger.add = add
    worker.run({})

    # An hour later it first checks whether another worker has created the batch in the meantime.
    assert "s0001: this worker was suspended for 36" in caplog.text
    assert "s0001: the create call was never confirmed" in caplog.text
    assert [submission.batch_id != "" for submission in ledger.state().shards["s0001"].submissions] == [False, True]
    assert shards_of(batches_of(client, ledger)) == ["s0001", "s0002"]
    assert server.calls()["create"] == 2


def test_a_batch_created_after_its_creation_counted_as_lost_is_cancelled_and_counted(
    ledger: Any, server: LocalServer, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Intent
    from airflow_provider_batch.core.lifecycle.steps import Finish

    # Just before the create call of the first worker, a second worker takes over with a clock that is 121 s ahead.
    # It finds no batch, so it creates one.
    first = another_worker(ledger)
    create, waiting_workers = first.hook.create, [another_worker(ledger, later=timedelta(seconds=121))]

    def create_late(*args: Any, **kwargs: Any) -> Any:
        if waiting_workers:
            waiting_workers.pop().run({})
        return create(*args, **kwargs)

    first.hook.create = create_late
    first.run({})
    wait_until(lambda: all(batch.status in ("completed", "cancelled") for batch in batches_of(client, ledger)))
    state = ledger.state()
    assert [submission.number for submission in state.shards["s0001"].superseded_submissions] == [1]
    assert sum(isinstance(submission.intent, Intent) for submission in state.shards["s0001"].submissions) == 2

    worker = another_worker(ledger)
    pause = worker.run(worker.observe())
    assert isinstance(pause, Finish)

    state = ledger.state()
    (duplicate,) = state.duplicate_batches.values()
    assert duplicate.batch_id == state.shards["s0001"].submissions[0].batch_id
    completed = {batch.id: batch.request_counts.completed for batch in batches_of(client, ledger)}
    assert len(completed) == 3
    assert state.paid_twice == completed[duplicate.batch_id]
