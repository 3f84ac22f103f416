"""The runner with the local batch server: what it records, which batches exist, and that no shard gets two batches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of

if TYPE_CHECKING:
    import openai

pytestmark = pytest.mark.usefixtures("offline")
LOG = logging.getLogger(__name__)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    """Seal a job of four rows in two shards. The second row of each shard fails once with a transient error."""
    unique = uuid4()
    return seal_job(
        tmp_path, ["one", f"[[fail:500:once]] {unique}", "three", f"[[fail:429:once]] {unique}"], requests=2
    )


def seal_job(path: Path, prompts: list[str], *, requests: int, tokens: int = 10, **manifest_fields: Any) -> Any:
    """Seal a job with a row for each prompt and at most `requests` requests in each shard, and return its ledger."""
    from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.provider.limits import Limits
    from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
    from airflow_provider_batch.core.sealing.sealer import Sealer
    from airflow_provider_batch.staging.local import LocalFolder
    from tests.core.building import add_row

    folder = LocalFolder(path / "job")
    spec = RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt="{{ row.text }}")
    renderer = compile_renderer(spec, ["id", "text"], {})
    sealer = Sealer(folder, "g001/build", spec.endpoint, Limits(requests=requests))
    for number, text in enumerate(prompts, start=1):
        (request,) = renderer([(f"row-{number}", text)], number)
        add_row(sealer, request, [], number, tokens)
    shards = sealer.finish()
    fields: dict[str, Any] = {
        "job_uid": uuid4().hex,
        "key": JobKey("dag", "submit", "run"),
        "sealed_at": datetime.now(UTC),
        "endpoint": spec.endpoint,
        "openai_conn_id": "openai_default",
        "requests": len(prompts),
        "shards": shards,
        "carry": [],
        "estimate": Estimate(),
        "limits": Limits(requests=requests),
    }
    manifest = Manifest(**(fields | manifest_fields))
    return seal(folder, manifest)


def another_worker(ledger: Any, *, later: timedelta = timedelta(), **options: Any) -> Any:
    """Return a runner that shares only the folder of the job with other runners."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    own_ledger = open_ledger(ledger.folder)
    assert own_ledger is not None
    policy = Policy(backoff=timedelta(0))
    return Runner(own_ledger, BatchHook(), policy, LOG, clock=lambda: datetime.now(UTC) + later, **options)


def batches_of(client: openai.OpenAI, ledger: Any) -> list[Any]:
    """Return every batch that was created for a job."""
    uid = ledger.manifest.job_uid
    return [batch for batch in client.batches.list(limit=100) if (batch.metadata or {}).get("job_uid") == uid]


def await_batches(client: openai.OpenAI, ledger: Any, wait_until: Callable[..., None]) -> None:
    wait_until(lambda: all(batch.status == "completed" for batch in batches_of(client, ledger)))


def test_a_second_worker_does_not_create_the_batches_of_the_first_again(ledger: Any, client: openai.OpenAI) -> None:
    another_worker(ledger).run({})
    another_worker(ledger).run({})

    assert sorted(batch.metadata["shard"] for batch in batches_of(client, ledger)) == ["s0001", "s0002"]


def test_a_worker_that_is_being_stopped_creates_nothing_and_the_next_one_continues(
    ledger: Any, client: openai.OpenAI
) -> None:
    with pytest.raises(StoppedError, match="2 of 2 input files"):
        another_worker(ledger, stopping=lambda: True).run({})
    assert batches_of(client, ledger) == []

    another_worker(ledger).run({})

    assert len(batches_of(client, ledger)) == 2


def test_an_input_file_that_was_changed_after_the_seal_is_never_uploaded(ledger: Any, client: openai.OpenAI) -> None:
    from airflow_provider_batch.exceptions import StagingError

    with (ledger.folder.path / ledger.manifest.shards[0].file).open("ab") as file:
        file.write(b"\n")

    with pytest.raises(StagingError, match=r"s0001\.jsonl is not the file that was sealed"):
        another_worker(ledger).run({})

    assert f"{ledger.manifest.job_uid}-s0001.jsonl" not in {file.filename for file in client.files.list()}
    assert batches_of(client, ledger) == []


def record_unconfirmed_create(ledger: Any, client: openai.OpenAI, *, batch_exists: bool) -> str:
    """Leave the job as a worker does that was killed while it created the batch of s0001. Return the nonce."""
    from airflow_provider_batch.core.ledger.records import Intent, Uploaded

    now, nonce = datetime.now(UTC), uuid4().hex
    with ledger.folder.reader(ledger.manifest.shards[0].file) as file:
        file_id = client.files.create(file=("s0001.jsonl", file), purpose="batch").id
    ledger.add(Uploaded("s0001", 1, file_id, now))
    ledger.add(Intent("s0001", 1, nonce, file_id, now))
    if batch_exists:
        client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"job_uid": ledger.manifest.job_uid, "shard": "s0001", "nonce": nonce},
        )
    return nonce


@pytest.mark.parametrize("batch_exists", [True, False])
def test_an_unconfirmed_create_is_left_alone_for_two_minutes_and_then_looked_up(
    ledger: Any, client: openai.OpenAI, batch_exists: bool
) -> None:
    nonce = record_unconfirmed_create(ledger, client, batch_exists=batch_exists)
    another_worker(ledger).run({})
    first_shard_batches = [batch for batch in batches_of(client, ledger) if batch.metadata["shard"] == "s0001"]
    assert len(first_shard_batches) == (1 if batch_exists else 0)

    another_worker(ledger, later=timedelta(seconds=121)).run({})

    (batch,) = [batch for batch in batches_of(client, ledger) if batch.metadata["shard"] == "s0001"]
    assert (batch.metadata["nonce"] == nonce) is batch_exists


def test_a_lookup_does_not_find_the_batch_of_an_earlier_submission_of_the_same_file(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Created, Failure, Intent, Settled

    record_unconfirmed_create(ledger, client, batch_exists=True)
    (earlier,) = batches_of(client, ledger)
    now = datetime.now(UTC)
    ledger.add(Created("s0001", 1, earlier.id, now))
    ledger.add(Settled("s0001", 1, earlier.id, "failed", now, failure=Failure.CAPACITY, message="full"))
    ledger.add(Intent("s0001", 2, uuid4().hex, earlier.input_file_id, now))

    another_worker(ledger, later=timedelta(seconds=121)).run({})

    submissions = another_worker(ledger).ledger.state().shards["s0001"].submissions
    assert (submissions[1].refusal.failure, submissions[1].batch_id) == (Failure.LOST, "")
    assert submissions[2].batch_id not in ("", earlier.id)


def test_of_two_batches_from_one_create_the_oldest_is_kept_and_the_duplicate_is_cancelled(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    with LocalServer(tmp_path / "slow", in_progress=600) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        client = client_of(slow_server)
        record_unconfirmed_create(ledger, client, batch_exists=True)
        (first,) = batches_of(client, ledger)
        duplicate = client.batches.create(
            input_file_id=first.input_file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=first.metadata,
        )

        another_worker(ledger, later=timedelta(seconds=121)).run({})

        assert client.batches.retrieve(duplicate.id).status in ("cancelling", "cancelled")
        assert client.batches.retrieve(first.id).status not in ("cancelling", "cancelled")


def create_unrecorded_batch(ledger: Any, client: openai.OpenAI, **metadata: str) -> Any:
    """Create a batch of shard s0001 that the ledger does not record."""
    with ledger.folder.reader(ledger.manifest.shards[0].file) as file:
        file_id = client.files.create(file=("s0001.jsonl", file), purpose="batch").id
    all_metadata = {
        "job_uid": ledger.manifest.job_uid,
        "shard": "s0001",
        "attempt": "1",
        "nonce": uuid4().hex,
        **metadata,
    }
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata=all_metadata
    )


def test_a_duplicate_batch_that_appears_later_is_cancelled_or_counted_and_batches_of_other_jobs_are_left_alone(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Finish

    ledger = seal_job(tmp_path, ["one", "two"], requests=2)
    with LocalServer(tmp_path / "server", in_progress=600, admin=True) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        client = client_of(server)
        another_worker(ledger).run({})
        ended_duplicate = create_unrecorded_batch(ledger, client)
        wait_until(lambda: {batch.status for batch in batches_of(client, ledger)} == {"in_progress"})
        server.advance(3_600)
        wait_until(lambda: {batch.status for batch in batches_of(client, ledger)} == {"completed"})
        running_duplicate = create_unrecorded_batch(ledger, client)
        foreign = create_unrecorded_batch(ledger, client, job_uid=uuid4().hex)

        worker = another_worker(ledger)
        pause = worker.run(worker.observe())

        assert isinstance(pause, Finish)
        assert client.batches.retrieve(running_duplicate.id).status in ("cancelling", "cancelled")
        assert client.batches.retrieve(foreign.id).status in ("validating", "in_progress")
        state = worker.ledger.state()
        assert set(state.duplicate_batches) == {ended_duplicate.id, running_duplicate.id}
        assert state.paid_twice == 2
        another_worker(ledger).run({})
        later_state = another_worker(ledger).ledger.state()
        assert (set(later_state.duplicate_batches), later_state.paid_twice) == (set(state.duplicate_batches), 2)


def test_a_batch_that_was_considered_lost_is_adopted_if_its_shard_has_no_other(
    connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import Failure, Intent, Refused, Uploaded

    ledger = seal_job(tmp_path, ["one", "two"], requests=2)
    with LocalServer(tmp_path / "server", in_progress=600) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        client = client_of(server)
        late_batch = create_unrecorded_batch(ledger, client, nonce="the nonce of the first submission")
        now = datetime.now(UTC)
        ledger.add(Uploaded("s0001", 1, late_batch.input_file_id, now))
        ledger.add(Intent("s0001", 1, "the nonce of the first submission", late_batch.input_file_id, now))
        ledger.add(Refused("s0001", 1, Failure.LOST, "no such batch", now))

        another_worker(ledger).run({})

        assert [batch.id for batch in batches_of(client, ledger)] == [late_batch.id]
        state = another_worker(ledger).ledger.state()
        assert [submission.batch_id for _, submission in state.live_submissions()] == [late_batch.id]
        assert state.paid_twice == 0


def test_a_full_queue_is_recognized_even_if_the_failed_batch_has_two_empty_files(
    ledger: Any, connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Failure

    with LocalServer(tmp_path / "azure", dialects=("failed-with-files",), enqueued_token_limit=1) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        client = client_of(server)
        another_worker(ledger).run({})
        wait_until(lambda: all(batch.status == "failed" for batch in batches_of(client, ledger)))
        assert all(batch.output_file_id and batch.error_file_id for batch in batches_of(client, ledger))

        worker = another_worker(ledger)
        worker.run(worker.observe())

        state = worker.ledger.state()
        settled_records = [state.shards[shard.name].submissions[0].settled for shard in ledger.manifest.shards]
        assert [record and record.failure for record in settled_records] == [Failure.CAPACITY, Failure.CAPACITY]


def test_two_workers_that_planned_the_same_retry_round_send_its_rows_once(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps
    from airflow_provider_batch.core.lifecycle.steps import Policy, Retry

    another_worker(ledger).run({})
    await_batches(client, ledger, wait_until)
    first, second = another_worker(ledger), another_worker(ledger)
    for step in next_steps(first.ledger.state(), first.observe(), first.policy, datetime.now(UTC))[0]:
        first._carry_out([step])
    (retry,), _ = next_steps(second.ledger.state(), {}, Policy(backoff=timedelta(0)), datetime.now(UTC))
    assert isinstance(retry, Retry)

    first._carry_out([retry])
    second._carry_out([retry])

    current_ledger = open_ledger(ledger.folder)
    assert current_ledger is not None
    assert [
        sum(shard.requests for shard in retry_round.shards) for retry_round in current_ledger.state().retry_rounds
    ] == [2]


def test_workers_that_each_observe_the_job_once_complete_it(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
    from airflow_provider_batch.core.lifecycle.steps import Finish

    pause: Any = None
    for _ in range(6):
        worker = another_worker(ledger)
        pause = worker.run(worker.observe())
        await_batches(client, ledger, wait_until)
        if isinstance(pause, Finish):
            break

    assert isinstance(pause, Finish)
    assert outcomes_so_far(worker.ledger.state()) == {"succeeded": 4}
    assert sum(batch.request_counts.total for batch in batches_of(client, ledger)) == 6


def seal_job_with_tokens(path: Path, prompts: list[str], *, requests: int) -> Any:
    """Seal a job like `seal_job`, with the token estimate that the submit task would make."""
    from airflow_provider_batch.core.pricing.estimate import Estimator
    from airflow_provider_batch.core.pricing.prices import Prices
    from airflow_provider_batch.core.requests.request import Request

    body = b'{"messages": [{"role": "user", "content": "%s"}]}' % prompts[0].encode()
    (tokens,) = Estimator(Prices(), "/v1/chat/completions").add([Request("row-1", "gpt-5-mini", body, 1)], [0])
    return seal_job(path, prompts, requests=requests, tokens=tokens)


def run_until_finished(ledger: Any, server: LocalServer, wait_until: Callable[..., None]) -> Any:
    """Run one worker after another until the job is finished, and return its state.

    The clock of each worker is an hour ahead of the one before. In between, at least one batch ends.
    """
    from airflow_provider_batch.core.lifecycle.steps import Finish

    client = client_of(server)
    for hour in range(200):
        worker = another_worker(ledger, later=timedelta(hours=hour))
        if isinstance(worker.run(worker.observe()), Finish):
            return worker.ledger.state()
        live = {submission.batch_id for _, submission in worker.ledger.state().live_submissions()}
        wait_until(lambda live=live: _any_ended(client, live))
    raise AssertionError("The job did not finish.")


def _any_ended(client: openai.OpenAI, batch_ids: set[str]) -> bool:
    """Return whether at least one of these batches has ended, or there are none."""
    end_statuses = ("completed", "failed", "expired", "cancelled")
    return not batch_ids or any(client.batches.retrieve(batch_id).status in end_statuses for batch_id in batch_ids)


def test_forty_shards_pass_through_a_queue_for_three_without_intervention(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far

    ledger = seal_job_with_tokens(tmp_path, [f"Say the number {n:02d} in words." for n in range(40)], requests=1)
    limit = 3 * ledger.manifest.shards[0].tokens + 2
    with LocalServer(tmp_path / "narrow", enqueued_token_limit=limit, in_progress=0.2) as small_queue:
        connect("openai_default", conn_type="openai", password="local", host=small_queue.base_url)

        state = run_until_finished(ledger, small_queue, wait_until)

    assert outcomes_so_far(state) == {"succeeded": 40}
    assert {record.outcomes["succeeded"] for _, _, record in state.settled_submissions()} == {1}
    assert not state.retry_rounds


def test_a_shard_larger_than_the_queue_is_split_and_a_row_larger_than_the_queue_fails_with_the_providers_message(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far

    ledger = seal_job_with_tokens(tmp_path, [f"Say {n:02d}." for n in range(6)], requests=6)
    tokens = ledger.manifest.shards[0].tokens
    with LocalServer(tmp_path / "narrow", enqueued_token_limit=tokens // 2) as small_queue:
        connect("openai_default", conn_type="openai", password="local", host=small_queue.base_url)
        state = run_until_finished(ledger, small_queue, wait_until)
    assert outcomes_so_far(state) == {"succeeded": 6}
    assert {shard.attempt for retry_round in state.retry_rounds for shard in retry_round.shards} == {1}

    one_row = seal_job_with_tokens(tmp_path / "never", ["Say one word."], requests=1)
    with LocalServer(tmp_path / "none", enqueued_token_limit=1) as no_queue:
        connect("openai_default", conn_type="openai", password="local", host=no_queue.base_url)
        state = run_until_finished(one_row, no_queue, wait_until)
    landing = Landing(
        one_row.folder, state, key={}, columns={}, store_response=False, run_id="run", landed_at=datetime.now(UTC)
    )
    assert len(list(landing)) == 1
    assert landing.outcomes == {"failed": 1}
    assert "Limit: 1 enqueued tokens" in landing.totals.most_common_reasons(1)[0].message


def test_a_create_that_is_refused_for_its_rate_delays_it_and_the_creates_after_it(
    ledger: Any, connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Failure

    with LocalServer(tmp_path / "slow", creates_per_hour=1, admin=True) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        worker = another_worker(ledger)
        pause = worker.run({})
        (first, second) = worker.ledger.state().shards.values()
        assert (bool(first.submissions[-1].batch_id), second.submissions[-1].refusal.failure) == (
            True,
            Failure.CAPACITY,
        )
        assert pause.any_end
        assert slow_server.calls()["create"] == 2

        slow_server.advance(3601)
        worker = another_worker(ledger, later=timedelta(hours=2))
        worker.run({})
        assert all(shard.submissions[-1].batch_id for shard in worker.ledger.state().shards.values())


def test_no_batch_is_created_above_the_cost_ceiling_and_a_raised_ceiling_continues_the_job(
    batch_server: LocalServer, client: openai.OpenAI, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.ledger.records import Budget
    from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
    from airflow_provider_batch.core.lifecycle.steps import Finish

    prices = {"gpt-5-mini": {"input": 0, "output": 1_000_000}}
    ceiling: dict[str, Any] = {"max_cost_usd": 300.0, "output_tokens_high": {"gpt-5-mini": 100.0}}
    ledger = seal_job(tmp_path, [f"Say {n:03d}." for n in range(60)], requests=20, prices=prices, **ceiling)

    def finish_job() -> Any:
        for _ in range(20):
            worker = another_worker(ledger)
            pause = worker.run(worker.observe())
            if isinstance(pause, Finish):
                return worker.finish(pause)
            await_batches(client, ledger, wait_until)
        raise AssertionError("The job did not finish.")

    # Each output token costs one dollar. The only known length of an answer is the upper estimate of 100 tokens.
    spent = BudgetTracker(finish_job()).spent
    state = another_worker(ledger).ledger.state()
    outcomes = outcomes_so_far(state)
    assert outcomes.keys() == {"succeeded", "withheld"}
    assert 0 < spent <= 300
    landing = Landing(
        ledger.folder, state, key={}, columns={}, store_response=False, run_id="run", landed_at=datetime.now(UTC)
    )
    assert len({row[0] for row in landing}) == 60
    assert landing.outcomes == outcomes
    assert {reason.code for reason in landing.totals.most_common_reasons(9)} == {"max_cost_usd"}

    ledger.add(Budget(1, 60_000.0, datetime.now(UTC)))
    assert outcomes_so_far(finish_job()) == {"succeeded": 60}


def test_a_cancel_that_fails_is_repeated_and_delays_nothing_else(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import Deadline
    from airflow_provider_batch.core.lifecycle.steps import Wait

    with LocalServer(tmp_path / "slow", in_progress=3600, admin=True) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        another_worker(ledger).run({})
        now = datetime.now(UTC)
        ledger.add(Deadline(now, now))
        slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CANCEL}), status=503, times=1))

        worker = another_worker(ledger)
        pause = worker.run(worker.observe())

        cancelled = [shard.submissions[-1].cancel is not None for shard in worker.ledger.state().shards.values()]
        assert sorted(cancelled) == [False, True]
        assert isinstance(pause, Wait)
        assert pause.until is not None
        assert pause.until - now < timedelta(minutes=2)

        worker.run(worker.observe())
        assert all(shard.submissions[-1].cancel for shard in worker.ledger.state().shards.values())


def test_cancelling_a_job_cancels_every_batch_and_logs_those_that_had_already_ended(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import BY_PERSON
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.cancel import cancel_job

    with LocalServer(tmp_path / "slow", in_progress=3600, admin=True) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        another_worker(ledger).run({})
        slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CANCEL}), status=409, times=1))
        messages: list[str] = []

        assert cancel_job(ledger, BatchHook(), BY_PERSON, messages.append) == 0

    first, second = (shard.submissions[-1] for shard in ledger.state().shards.values())
    assert messages == [
        f"s0001: batch {first.batch_id} had already ended, so there was nothing to cancel (person)",
        f"s0002: cancelling batch {second.batch_id} (person); its status is cancelling",
    ]
    assert first.cancel
    assert second.cancel
