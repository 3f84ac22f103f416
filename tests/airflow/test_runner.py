"""The runner against the local batch server: what was recorded, what exists, and never a second batch for a shard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import openai
import pytest

from airflow_provider_batch.exceptions import StoppedError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of

pytestmark = pytest.mark.usefixtures("offline")
LOG = logging.getLogger(__name__)


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    """A sealed job of four rows in two shards."""
    once = uuid4()
    return seal_job(tmp_path, ["one", f"[[fail:500:once]] {once}", "three", f"[[fail:429:once]] {once}"], requests=2)


def seal_job(place: Path, prompts: list[str], *, requests: int, tokens: int = 10, **more: Any) -> Any:
    """A sealed job of one row for each prompt, with so many requests in each shard; `more` goes to its manifest."""
    from airflow_provider_batch.core.ledger.job import Estimate, JobKey, Manifest
    from airflow_provider_batch.core.ledger.ledger import seal
    from airflow_provider_batch.core.provider.limits import Limits
    from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
    from airflow_provider_batch.core.sealing.sealer import Sealer
    from airflow_provider_batch.staging.local import LocalFolder

    folder = LocalFolder(place / "job")
    spec = RequestSpec(custom_id="{{ row.id }}", model="gpt-5-mini", prompt="{{ row.text }}")
    renderer = compile_renderer(spec, ["id", "text"], {})
    sealer = Sealer(folder, "g001/build", spec.endpoint, Limits(requests=requests))
    for number, text in enumerate(prompts, start=1):
        sealer.add(renderer((f"row-{number}", text), number), [], number, tokens)
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
    manifest = Manifest(**(fields | more))
    return seal(folder, manifest)


def another_worker(ledger: Any, *, later: timedelta = timedelta(), **options: Any) -> Any:
    """A runner that shares nothing with others but the job's folder."""
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.steps import Policy
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.runner import Runner

    opened = open_ledger(ledger.folder)
    assert opened is not None
    policy = Policy(backoff=timedelta(0))
    return Runner(opened, BatchHook(), policy, LOG, clock=lambda: datetime.now(UTC) + later, **options)


def batches_of(client: openai.OpenAI, ledger: Any) -> list[Any]:
    uid = ledger.manifest.job_uid
    return [batch for batch in client.batches.list(limit=100) if (batch.metadata or {}).get("job_uid") == uid]


def until_ended(client: openai.OpenAI, ledger: Any, wait_until: Callable[..., None]) -> None:
    wait_until(lambda: all(batch.status == "completed" for batch in batches_of(client, ledger)))


def test_a_second_worker_creates_nothing_that_the_first_created(ledger: Any, client: openai.OpenAI) -> None:
    another_worker(ledger).run({})
    another_worker(ledger).run({})

    assert sorted(batch.metadata["shard"] for batch in batches_of(client, ledger)) == ["s0001", "s0002"]


def test_a_worker_that_was_told_to_end_creates_nothing_and_its_successor_goes_on(
    ledger: Any, client: openai.OpenAI
) -> None:
    with pytest.raises(StoppedError, match="2 of 2 input files"):
        another_worker(ledger, stopping=lambda: True).run({})
    assert batches_of(client, ledger) == []

    another_worker(ledger).run({})

    assert len(batches_of(client, ledger)) == 2


def test_a_sealed_file_that_was_changed_is_never_uploaded(ledger: Any, client: openai.OpenAI) -> None:
    from airflow_provider_batch.exceptions import StagingError

    with (ledger.folder.path / ledger.manifest.shards[0].file).open("ab") as file:
        file.write(b"\n")

    with pytest.raises(StagingError, match=r"s0001\.jsonl is not the file that was sealed"):
        another_worker(ledger).run({})

    assert f"{ledger.manifest.job_uid}-s0001.jsonl" not in {file.filename for file in client.files.list()}
    assert batches_of(client, ledger) == []


def unanswered(ledger: Any, client: openai.OpenAI, *, committed: bool) -> str:
    """As a worker leaves it that was killed while it created s0001. Gives the nonce."""
    from airflow_provider_batch.core.ledger.records import Intent, Uploaded

    now, nonce = datetime.now(UTC), uuid4().hex
    with ledger.folder.reader(ledger.manifest.shards[0].file) as file:
        file_id = client.files.create(file=("s0001.jsonl", file), purpose="batch").id
    ledger.add(Uploaded("s0001", 1, file_id, now))
    ledger.add(Intent("s0001", 1, nonce, file_id, now))
    if committed:
        client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata={"job_uid": ledger.manifest.job_uid, "shard": "s0001", "nonce": nonce},
        )
    return nonce


@pytest.mark.parametrize("committed", [True, False])
def test_an_unanswered_creation_is_left_alone_for_two_minutes_and_looked_up_then(
    ledger: Any, client: openai.OpenAI, committed: bool
) -> None:
    nonce = unanswered(ledger, client, committed=committed)
    another_worker(ledger).run({})
    of_first = [batch for batch in batches_of(client, ledger) if batch.metadata["shard"] == "s0001"]
    assert len(of_first) == (1 if committed else 0)

    another_worker(ledger, later=timedelta(seconds=121)).run({})

    (of_first,) = [batch for batch in batches_of(client, ledger) if batch.metadata["shard"] == "s0001"]
    assert (of_first.metadata["nonce"] == nonce) is committed


def test_a_lost_creation_is_not_taken_for_the_batch_of_an_earlier_try_with_the_same_file(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Created, Failure, Intent, Settled

    unanswered(ledger, client, committed=True)
    (earlier,) = batches_of(client, ledger)
    now = datetime.now(UTC)
    ledger.add(Created("s0001", 1, earlier.id, now))
    ledger.add(Settled("s0001", 1, earlier.id, "failed", now, failure=Failure.CAPACITY, message="full"))
    ledger.add(Intent("s0001", 2, uuid4().hex, earlier.input_file_id, now))

    another_worker(ledger, later=timedelta(seconds=121)).run({})

    submissions = another_worker(ledger).ledger.state().shards["s0001"].submissions
    assert (submissions[1].refusal.failure, submissions[1].batch_id) == (Failure.LOST, "")
    assert submissions[2].batch_id not in ("", earlier.id)


def test_of_two_batches_of_one_creation_the_oldest_is_kept_and_its_twin_cancelled(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    with LocalServer(tmp_path / "slow", in_progress=600) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        client = client_of(slow_server)
        unanswered(ledger, client, committed=True)
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


def created_behind_our_back(ledger: Any, client: openai.OpenAI, **metadata: str) -> Any:
    """A batch of shard s0001 that nobody recorded."""
    with ledger.folder.reader(ledger.manifest.shards[0].file) as file:
        file_id = client.files.create(file=("s0001.jsonl", file), purpose="batch").id
    named = {"job_uid": ledger.manifest.job_uid, "shard": "s0001", "attempt": "1", "nonce": uuid4().hex, **metadata}
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h", metadata=named
    )


def test_a_twin_that_appears_later_is_cancelled_or_counted_and_batches_of_others_are_left_alone(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.steps import Finish

    ledger = seal_job(tmp_path, ["one", "two"], requests=2)
    with LocalServer(tmp_path / "server", in_progress=600, admin=True) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        client = client_of(server)
        another_worker(ledger).run({})
        ended = created_behind_our_back(ledger, client)
        wait_until(lambda: {batch.status for batch in batches_of(client, ledger)} == {"in_progress"})
        server.advance(3_600)
        wait_until(lambda: {batch.status for batch in batches_of(client, ledger)} == {"completed"})
        running = created_behind_our_back(ledger, client)
        foreign = created_behind_our_back(ledger, client, job_uid=uuid4().hex)

        worker = another_worker(ledger)
        pause = worker.run(worker.observe())

        assert isinstance(pause, Finish)
        assert client.batches.retrieve(running.id).status in ("cancelling", "cancelled")
        assert client.batches.retrieve(foreign.id).status in ("validating", "in_progress")
        state = worker.ledger.state()
        assert set(state.duplicate_batches) == {ended.id, running.id}
        assert state.paid_twice == 2
        another_worker(ledger).run({})
        after = another_worker(ledger).ledger.state()
        assert (set(after.duplicate_batches), after.paid_twice) == (set(state.duplicate_batches), 2)


def test_a_batch_that_was_taken_for_lost_is_adopted_if_none_was_made_in_its_place(
    connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import Failure, Intent, Refused, Uploaded

    ledger = seal_job(tmp_path, ["one", "two"], requests=2)
    with LocalServer(tmp_path / "server", in_progress=600) as server:
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        client = client_of(server)
        late = created_behind_our_back(ledger, client, nonce="the nonce of the first try")
        now = datetime.now(UTC)
        ledger.add(Uploaded("s0001", 1, late.input_file_id, now))
        ledger.add(Intent("s0001", 1, "the nonce of the first try", late.input_file_id, now))
        ledger.add(Refused("s0001", 1, Failure.LOST, "no such batch", now))

        another_worker(ledger).run({})

        assert [batch.id for batch in batches_of(client, ledger)] == [late.id]
        state = another_worker(ledger).ledger.state()
        assert [submission.batch_id for _, submission in state.live_submissions()] == [late.id]
        assert state.paid_twice == 0


def test_a_full_queue_is_known_as_such_though_the_failed_batch_has_two_empty_files(
    ledger: Any, connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.records import Failure

    with LocalServer(tmp_path / "azure", dialects=("failed-with-files",), enqueued_token_limit=1) as full:
        connect("openai_default", conn_type="openai", password="local", host=full.base_url)
        client = client_of(full)
        another_worker(ledger).run({})
        wait_until(lambda: all(batch.status == "failed" for batch in batches_of(client, ledger)))
        assert all(batch.output_file_id and batch.error_file_id for batch in batches_of(client, ledger))

        worker = another_worker(ledger)
        worker.run(worker.observe())

        state = worker.ledger.state()
        first_tries = [state.shards[shard.name].submissions[0].settled for shard in ledger.manifest.shards]
        assert [settled and settled.failure for settled in first_tries] == [Failure.CAPACITY, Failure.CAPACITY]


def test_two_workers_that_planned_the_same_wave_ask_its_rows_once(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.ledger.ledger import open_ledger
    from airflow_provider_batch.core.lifecycle.next_steps import next_steps
    from airflow_provider_batch.core.lifecycle.steps import Policy, Retry

    another_worker(ledger).run({})
    until_ended(client, ledger, wait_until)
    first, second = another_worker(ledger), another_worker(ledger)
    for step in next_steps(first.ledger.state(), first.observe(), first.policy, datetime.now(UTC))[0]:
        first._carry_out([step])
    (planned,), _ = next_steps(second.ledger.state(), {}, Policy(backoff=timedelta(0)), datetime.now(UTC))
    assert isinstance(planned, Retry)

    first._carry_out([planned])
    second._carry_out([planned])

    after = open_ledger(ledger.folder)
    assert after is not None
    assert [sum(shard.requests for shard in retry_round.shards) for retry_round in after.state().retry_rounds] == [2]


def test_a_job_goes_from_its_seal_to_its_last_answer_by_workers_that_each_see_it_once(
    ledger: Any, client: openai.OpenAI, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
    from airflow_provider_batch.core.lifecycle.steps import Finish

    pause: Any = None
    for _ in range(6):
        worker = another_worker(ledger)
        pause = worker.run(worker.observe())
        until_ended(client, ledger, wait_until)
        if isinstance(pause, Finish):
            break

    assert isinstance(pause, Finish)
    assert outcomes_so_far(worker.ledger.state()) == {"succeeded": 4}
    assert sum(batch.request_counts.total for batch in batches_of(client, ledger)) == 6


def seal_counted(place: Path, prompts: list[str], *, requests: int) -> Any:
    """As `seal_job`, with the input tokens estimated as submit does."""
    from airflow_provider_batch.core.pricing.estimate import Estimator
    from airflow_provider_batch.core.pricing.prices import Prices

    estimator = Estimator(Prices(), "/v1/chat/completions")
    tokens = estimator.add("gpt-5-mini", b'{"messages": [{"role": "user", "content": "%s"}]}' % prompts[0].encode(), 1)
    return seal_job(place, prompts, requests=requests, tokens=tokens)


def go_on_until_finished(ledger: Any, server: LocalServer, wait_until: Callable[..., None]) -> Any:
    """Workers, one after the other, each an hour after the one before, while the server's batches go on. The state."""
    from airflow_provider_batch.core.lifecycle.steps import Finish

    client = client_of(server)
    for hour in range(200):
        worker = another_worker(ledger, later=timedelta(hours=hour))
        if isinstance(worker.run(worker.observe()), Finish):
            return worker.ledger.state()
        live = {submission.batch_id for _, submission in worker.ledger.state().live_submissions()}
        wait_until(lambda live=live: _any_ended(client, live))
    raise AssertionError("the job does not come to its end")


def _any_ended(client: openai.OpenAI, batch_ids: set[str]) -> bool:
    """Whether one of these batches ended; also true if there is none."""
    ended = ("completed", "failed", "expired", "cancelled")
    return not batch_ids or any(client.batches.retrieve(batch_id).status in ended for batch_id in batch_ids)


def test_forty_shards_against_room_for_three_flow_through_without_a_person(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far

    ledger = seal_counted(tmp_path, [f"Say the number {n:02d} in words." for n in range(40)], requests=1)
    limit = 3 * ledger.manifest.shards[0].tokens + 2
    with LocalServer(tmp_path / "narrow", enqueued_token_limit=limit, in_progress=0.2) as narrow:
        connect("openai_default", conn_type="openai", password="local", host=narrow.base_url)

        state = go_on_until_finished(ledger, narrow, wait_until)

    assert outcomes_so_far(state) == {"succeeded": 40}
    assert {settled.outcomes["succeeded"] for _, _, settled in state.settled_submissions()} == {1}
    assert not state.retry_rounds


def test_a_shard_that_can_never_fit_is_sealed_again_and_a_row_that_cannot_fails_in_the_providers_words(
    connect: Callable[..., None], tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far

    ledger = seal_counted(tmp_path, [f"Say {n:02d}." for n in range(6)], requests=6)
    tokens = ledger.manifest.shards[0].tokens
    with LocalServer(tmp_path / "narrow", enqueued_token_limit=tokens // 2) as narrow:
        connect("openai_default", conn_type="openai", password="local", host=narrow.base_url)
        state = go_on_until_finished(ledger, narrow, wait_until)
    assert outcomes_so_far(state) == {"succeeded": 6}
    assert {shard.attempt for retry_round in state.retry_rounds for shard in retry_round.shards} == {1}

    small = seal_counted(tmp_path / "never", ["Say one word."], requests=1)
    with LocalServer(tmp_path / "none", enqueued_token_limit=1) as none:
        connect("openai_default", conn_type="openai", password="local", host=none.base_url)
        state = go_on_until_finished(small, none, wait_until)
    landing = Landing(
        small.folder, state, key={}, columns={}, store_response=False, run_id="run", landed_at=datetime.now(UTC)
    )
    assert len(list(landing)) == 1
    assert landing.outcomes == {"failed": 1}
    assert "Limit: 1 enqueued tokens" in landing.most_common_reasons(1)[0].message


def test_a_create_that_is_refused_for_its_rate_holds_the_others_back_and_they_go_later(
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


def test_nothing_is_created_past_the_ceiling_and_a_raised_one_lets_the_job_go_on(
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

    def to_the_end() -> Any:
        for _ in range(20):
            worker = another_worker(ledger)
            pause = worker.run(worker.observe())
            if isinstance(pause, Finish):
                return worker.finish(pause)
            until_ended(client, ledger, wait_until)
        raise AssertionError("the job does not come to its end")

    # an answer costs a dollar a token; nothing is known of their length but that 100 may come
    spent = BudgetTracker(to_the_end()).spent
    state = another_worker(ledger).ledger.state()
    outcomes = outcomes_so_far(state)
    assert outcomes.keys() == {"succeeded", "withheld"}
    assert 0 < spent <= 300
    landing = Landing(
        ledger.folder, state, key={}, columns={}, store_response=False, run_id="run", landed_at=datetime.now(UTC)
    )
    assert len({row[0] for row in landing}) == 60
    assert landing.outcomes == outcomes
    assert {reason.code for reason in landing.most_common_reasons(9)} == {"max_cost_usd"}

    ledger.add(Budget(1, 60_000.0, datetime.now(UTC)))
    assert outcomes_so_far(to_the_end()) == {"succeeded": 60}


def test_a_cancel_that_the_provider_does_not_take_holds_nothing_up_and_is_asked_for_again(
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


def test_a_person_cancels_every_batch_and_one_that_had_ended_is_logged_and_left_alone(
    ledger: Any, connect: Callable[..., None], tmp_path: Path
) -> None:
    from airflow_provider_batch.core.ledger.records import BY_PERSON
    from airflow_provider_batch.hooks.batch import BatchHook
    from airflow_provider_batch.worker.cancel import cancel_job

    with LocalServer(tmp_path / "slow", in_progress=3600, admin=True) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)
        another_worker(ledger).run({})
        slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CANCEL}), status=409, times=1))
        sentences: list[str] = []

        assert cancel_job(ledger, BatchHook(), BY_PERSON, sentences.append) == 0

    first, second = (shard.submissions[-1] for shard in ledger.state().shards.values())
    assert sentences == [
        f"s0001: batch {first.batch_id} had already ended, so there was nothing to cancel (person)",
        f"s0002: cancelling batch {second.batch_id} (person); its status is cancelling",
    ]
    assert first.cancel
    assert second.cancel
