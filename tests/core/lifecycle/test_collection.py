"""Result files that are not believed are downloaded again with a growing delay, and then held for a person."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import (
    CollectionFailed,
    Created,
    Finished,
    Intent,
    Record,
    Settled,
    Task,
    TaskStarted,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.collection import MAX_FAILURES, collect_again_at, held_batches, is_held
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.status import status_of
from airflow_provider_batch.core.lifecycle.steps import Finish, Policy, Wait
from airflow_provider_batch.core.provider.batch import BatchView, Status
from tests.core.building import NOW, manifest_of, plain_shard

BACKOFF = timedelta(minutes=5)
MINUTE = timedelta(minutes=1)
SHARDS = [plain_shard("s0001"), plain_shard("s0002")]


def live(shard: str) -> list[Record]:
    return [
        Uploaded(shard, 1, "file", NOW),
        Intent(shard, 1, "nonce", "file", NOW),
        Created(shard, 1, f"batch-{shard}", NOW),
    ]


def failures(count: int) -> list[Record]:
    """Return failures to collect s0001, a minute apart."""
    return [
        CollectionFailed("s0001", 1, n, "batch-s0001", f"Failure {n}.", NOW + n * MINUTE) for n in range(1, count + 1)
    ]


def state_of(*records: Record) -> JobState:
    return fold(manifest_of(SHARDS), [*live("s0001"), *live("s0002"), *records])


def test_the_delay_starts_at_a_tenth_of_the_backoff_and_doubles_up_to_an_hour() -> None:
    delays = []
    for count in range(1, 9):
        state = state_of(*failures(count))
        again_at = collect_again_at(state, state.shards["s0001"].submissions[0], BACKOFF * 4)
        assert again_at is not None
        delays.append((again_at - NOW - count * MINUTE).total_seconds())
    assert delays == [120, 240, 480, 960, 1920, 3600, 3600, 3600]


def test_a_batch_without_a_failure_is_collected_at_once() -> None:
    state = state_of()
    assert collect_again_at(state, state.shards["s0001"].submissions[0], BACKOFF) is None


def test_a_batch_is_held_after_the_last_failure() -> None:
    before, after = state_of(*failures(MAX_FAILURES - 1)), state_of(*failures(MAX_FAILURES))
    assert not is_held(before, before.shards["s0001"].submissions[0])
    assert is_held(after, after.shards["s0001"].submissions[0])
    assert [(shard.name, failure.message) for shard, failure in held_batches(after)] == [("s0001", "Failure 7.")]


def test_clearing_the_wait_starts_the_count_again() -> None:
    cleared = TaskStarted(Task.WAIT, 2, NOW + 20 * MINUTE)
    state = state_of(*failures(MAX_FAILURES), Finished(1, NOW + 10 * MINUTE), cleared)
    assert collect_again_at(state, state.shards["s0001"].submissions[0], BACKOFF) is None
    assert held_batches(state) == []


def test_a_batch_waits_for_a_person_if_the_wait_ends_before_its_last_download() -> None:
    state = state_of(*failures(2), Finished(1, NOW + 10 * MINUTE))
    assert [shard.name for shard, _ in held_batches(state)] == ["s0001"]


def test_the_rest_of_the_job_continues_and_ends_without_a_held_batch() -> None:
    ended = {
        f"batch-s000{n}": BatchView(f"batch-s000{n}", Status.COMPLETED, "completed", output_file_id="out")
        for n in (1, 2)
    }
    now = NOW + timedelta(hours=1)
    state = state_of(*failures(MAX_FAILURES))
    steps, _ = next_steps(state, ended, Policy(backoff=BACKOFF), now)
    assert [step.shard.name for step in steps] == ["s0002"]  # type: ignore[union-attr]

    other_settled = Settled("s0002", 1, "batch-s0002", "completed", now, outcomes={"succeeded": 3})
    assert next_steps(state_of(*failures(MAX_FAILURES), other_settled), ended, Policy(), now) == ([], Finish())


def test_until_the_next_download_the_job_waits_for_its_other_batches_and_for_the_time() -> None:
    state = state_of(*failures(1))
    steps, pause = next_steps(state, {}, Policy(backoff=BACKOFF), NOW + MINUTE)
    assert not steps
    assert pause == Wait(["batch-s0002"], NOW + MINUTE + BACKOFF / 10, any_end=False)


def test_a_batch_that_has_ended_takes_no_queue_capacity() -> None:
    state = state_of(*failures(1))
    assert state.shards["s0001"].submissions[0].ended_at == NOW + MINUTE
    assert state.shards["s0002"].submissions[0].ended_at is None


def test_the_status_says_which_batch_is_held_and_what_to_do() -> None:
    settled = Settled("s0002", 1, "batch-s0002", "completed", NOW, outcomes={"succeeded": 3})
    _, status, advice = status_of(state_of(*failures(MAX_FAILURES), settled))
    assert status == "1 batch held: Failure 7."
    assert "clear the wait" in advice
    _, status, _ = status_of(state_of(*failures(MAX_FAILURES)))
    assert "1 batch at the provider, 1 batch held" in status


def test_a_settled_batch_is_no_longer_held() -> None:
    settled = Settled("s0001", 1, "batch-s0001", "completed", NOW, outcomes={"succeeded": 3})
    assert held_batches(state_of(*failures(MAX_FAILURES), settled)) == []
    assert held_batches(state_of(*failures(MAX_FAILURES), msgspec.structs.replace(settled, shard="s0002"))) != []
