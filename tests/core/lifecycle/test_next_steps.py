"""What happens next to a job, phase by phase."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.records import (
    CanaryVerdict,
    CancelRequested,
    Created,
    Deadline,
    Failure,
    Intent,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState, ShardState
from airflow_provider_batch.core.lifecycle.attempts import is_retryable, next_attempt, retryable_rows
from airflow_provider_batch.core.lifecycle.capacity import MAX_HOLD
from airflow_provider_batch.core.lifecycle.failures import classify_batch_failure, classify_refusal
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import (
    CANCEL_GRACE,
    LOOK_UP_AFTER,
    RETRYABLE,
    Cancel,
    Collect,
    Create,
    Finish,
    Hold,
    JudgeCanary,
    LookUp,
    Policy,
    Retry,
    SendSynchronously,
    Upload,
    Void,
    Wait,
)
from airflow_provider_batch.core.provider.batch import BatchProblem, BatchView, Status
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.building import NOW, manifest_of, plain_shard

POLICY = Policy(max_attempts=3, backoff=timedelta(minutes=5))
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)


def job(*records: Record, shards: tuple[str, ...] = ("s0001",)) -> JobState:
    """Return the state of a job with these records. Shards whose name begins with c are canaries."""
    return fold(
        manifest_of([plain_shard(name, lane=Lane.STANDARD if name.startswith("c") else Lane.BATCH) for name in shards]),
        records,
    )


def uploaded(n: int = 1, shard: str = "s0001") -> Uploaded:
    return Uploaded(shard, n, f"file-{n}", NOW)


def intent(n: int = 1, shard: str = "s0001", time: datetime = NOW) -> Intent:
    return Intent(shard, n, f"nonce-{n}", "file-1", time)


def live_records(n: int = 1, shard: str = "s0001") -> list[Record]:
    return [uploaded(n, shard), intent(n, shard), Created(shard, n, f"batch-{shard}-{n}", NOW)]


def refused_records(failure: Failure, n: int = 1, shard: str = "s0001", time: datetime = NOW) -> list[Record]:
    return [uploaded(n, shard), intent(n, shard), Refused(shard, n, failure, f"{failure} said no", time)]


def settled_records(
    n: int = 1, shard: str = "s0001", *, time: datetime = NOW, failure: Failure | None = None, **outcomes: int
) -> list[Record]:
    transient = outcomes.pop("transient", 0)
    record = Settled(
        shard,
        n,
        f"batch-{shard}-{n}",
        "completed",
        time,
        outcomes=outcomes,
        transient=transient,
        failure=failure,
        message=f"{failure} said no",
    )
    return [*live_records(n, shard), record]


def deadline(ends_at: datetime) -> Deadline:
    return Deadline(ends_at, NOW)


def view(batch_id: str = "batch-s0001-1", raw_status: str = "in_progress", **more: Any) -> BatchView:
    status = {"in_progress": Status.RUNNING, "cancelling": Status.CANCELLING, "paused": Status.RUNNING}
    return BatchView(batch_id, status.get(raw_status) or Status(raw_status), raw_status, **more)


def views_by_id(*views: BatchView) -> dict[str, BatchView]:
    return {batch_view.id: batch_view for batch_view in views}


def steps(state: JobState, *views: BatchView, now: datetime = NOW, policy: Policy = POLICY) -> list[Any]:
    return next_steps(state, views_by_id(*views), policy, now)[0]


def pause(state: JobState, *views: BatchView, now: datetime = NOW, policy: Policy = POLICY) -> Any:
    """Return how the job pauses, and check that there are no steps."""
    due_steps, next_pause = next_steps(state, views_by_id(*views), policy, now)
    assert due_steps == []
    return next_pause


# Sealed


def test_a_sealed_shard_is_uploaded() -> None:
    (step,) = steps(job())
    assert isinstance(step, Upload)
    assert (step.shard.name, step.number) == ("s0001", 1)


def test_all_sealed_shards_are_uploaded_together() -> None:
    assert [step.shard.name for step in steps(job(shards=("s0001", "s0002")))] == ["s0001", "s0002"]


def test_the_batch_of_an_uploaded_shard_is_created_from_its_file() -> None:
    (step,) = steps(job(uploaded()))
    assert isinstance(step, Create)
    assert (step.shard.name, step.number, step.file_id) == ("s0001", 1, "file-1")


@pytest.mark.parametrize("records", [refused_records(Failure.CAPACITY), settled_records(failure=Failure.CAPACITY)])
def test_a_shard_refused_by_a_full_queue_waits_and_reuses_its_file(records: list[Any]) -> None:
    state = job(*records)
    assert pause(state, now=NOW + 5 * MINUTE - SECOND) == Wait([], NOW + 5 * MINUTE, any_end=True)
    (step,) = steps(state, now=NOW + 5 * MINUTE)
    assert isinstance(step, Create)
    assert (step.number, step.file_id) == (2, "file-1")


def test_a_shard_refused_by_a_full_queue_waits_twice_as_long_each_time_up_to_an_hour() -> None:
    records: list[Record] = []
    waits = []
    for n in range(1, 9):
        records += refused_records(Failure.CAPACITY, n)
        waits.append(pause(job(*records)).until - NOW)
    assert waits == [5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, *[MAX_HOLD] * 4]


def test_a_shard_refused_by_a_full_queue_waits_for_the_end_of_any_batch() -> None:
    state = job(*refused_records(Failure.CAPACITY), *live_records(1, "s0002"), shards=("s0001", "s0002"))
    next_pause = pause(state, view("batch-s0002-1"))
    assert next_pause == Wait(["batch-s0002-1"], NOW + 5 * MINUTE, any_end=True)


@pytest.mark.parametrize("records", [refused_records(Failure.FILE), settled_records(failure=Failure.FILE)])
def test_a_file_that_the_provider_does_not_find_is_uploaded_again_after_a_short_wait(records: list[Any]) -> None:
    state = job(*records)
    assert isinstance(pause(state, now=NOW + 29 * SECOND), Wait)
    (step,) = steps(state, now=NOW + 30 * SECOND)
    assert isinstance(step, Upload)
    assert step.number == 2
    (step,) = steps(job(*records, uploaded(2)), now=NOW + 30 * SECOND)
    assert isinstance(step, Create)
    assert (step.number, step.file_id) == (2, "file-2")


def test_a_shard_whose_batch_failed_for_an_unknown_reason_is_uploaded_again_after_the_retry_delay() -> None:
    records = settled_records(failure=Failure.UNKNOWN)
    state = job(*records)
    assert pause(state, now=NOW + 5 * MINUTE - SECOND) == Wait([], NOW + 5 * MINUTE, any_end=False)
    (step,) = steps(state, now=NOW + 5 * MINUTE)
    assert isinstance(step, Upload)
    assert (step.number, step.shard.spec.attempt) == (2, 1)
    (step,) = steps(job(*records, uploaded(2)), now=NOW + 5 * MINUTE)
    assert isinstance(step, Create)
    assert (step.number, step.file_id) == (2, "file-2")


@pytest.mark.parametrize("records", [refused_records(Failure.ACCOUNT), settled_records(failure=Failure.ACCOUNT)])
def test_an_account_failure_holds_the_job_with_the_providers_message(records: list[Any]) -> None:
    assert pause(job(*records)) == Hold("account said no")


def test_an_account_failure_no_longer_holds_the_job_once_a_task_has_started_again() -> None:
    policy = msgspec.structs.replace(POLICY, restarted_at=NOW + SECOND)
    (step,) = steps(job(*refused_records(Failure.ACCOUNT)), policy=policy, now=NOW + SECOND)
    assert isinstance(step, Create)
    assert (step.number, step.file_id) == (2, "file-1")
    refused_twice = job(*refused_records(Failure.ACCOUNT), *refused_records(Failure.ACCOUNT, 2, time=NOW + SECOND))
    assert pause(refused_twice, policy=policy, now=NOW + SECOND) == Hold("account said no")


def test_a_held_job_waits_for_its_running_batches() -> None:
    state = job(*refused_records(Failure.ACCOUNT), *live_records(1, "s0002"), shards=("s0001", "s0002"))
    assert isinstance(pause(state, view("batch-s0002-1")), Wait)


def test_a_lost_creation_is_repeated_immediately_with_the_same_file() -> None:
    (step,) = steps(job(*refused_records(Failure.LOST)))
    assert isinstance(step, Create)
    assert (step.number, step.file_id) == (2, "file-1")


# The canary

CANARIES = ("c0001", "c0002", "s0001")
VERDICT = CanaryVerdict(Estimate(), NOW)


def answered_record(shard: str, **outcomes: int) -> Settled:
    transient = outcomes.pop("transient", 0)
    return Settled(shard, 1, "", "answered", NOW, outcomes=outcomes, transient=transient)


def test_canaries_are_sent_before_anything_is_uploaded() -> None:
    sends = steps(job(shards=CANARIES))
    assert [(type(step), step.shard.name, step.number) for step in sends] == [
        (SendSynchronously, "c0001", 1),
        (SendSynchronously, "c0002", 1),
    ]
    (step,) = steps(job(answered_record("c0001", succeeded=3), shards=CANARIES))
    assert isinstance(step, SendSynchronously)
    assert step.shard.name == "c0002"


def test_settled_canaries_are_judged_before_anything_is_uploaded_or_retried() -> None:
    records = (answered_record("c0001", failed=3, transient=3), answered_record("c0002", succeeded=3))
    assert steps(job(*records, shards=CANARIES), now=NOW + 60 * MINUTE) == [JudgeCanary()]
    upload, retry = steps(job(*records, VERDICT, shards=CANARIES), now=NOW + 60 * MINUTE)
    assert isinstance(upload, Upload)
    assert isinstance(retry, Retry)


def test_a_void_generation_is_never_uploaded() -> None:
    records = (answered_record("c0001", failed=3), answered_record("c0002", succeeded=3))
    state = job(*records, msgspec.structs.replace(VERDICT, void="wrong", over_budget=True), shards=CANARIES)
    assert steps(state) == []
    assert pause(state) == Void("wrong", over_budget=True)


def test_a_canary_that_the_account_refused_holds_the_job_and_is_sent_once_a_person_has_acted() -> None:
    state = job(Refused("c0001", 1, Failure.ACCOUNT, "pay", NOW), shards=CANARIES)
    assert steps(state) == []
    assert pause(state) == Hold("pay")
    first, second = steps(state, policy=msgspec.structs.replace(POLICY, restarted_at=NOW + SECOND), now=NOW + SECOND)
    assert [(first.shard.name, first.number), (second.shard.name, second.number)] == [("c0001", 2), ("c0002", 1)]


def test_no_canary_is_sent_after_the_deadline() -> None:
    state = job(deadline(NOW), shards=CANARIES)
    assert steps(state) == []
    assert pause(state) == Finish()


# Creating


def test_an_unanswered_creation_is_left_alone_for_two_minutes_and_then_looked_up() -> None:
    state = job(uploaded(), intent())
    assert pause(state, now=NOW + LOOK_UP_AFTER - SECOND) == Wait([], NOW + LOOK_UP_AFTER, any_end=False)
    (step,) = steps(state, now=NOW + LOOK_UP_AFTER)
    assert isinstance(step, LookUp)
    assert step.submission.intent
    assert step.submission.intent.nonce == "nonce-1"
    assert timedelta(seconds=120) == LOOK_UP_AFTER


def test_an_unanswered_creation_is_looked_up_even_after_the_deadline() -> None:
    """Its batch may be running and cost money."""
    state = job(uploaded(), intent(), deadline(NOW + MINUTE))
    assert pause(state, now=NOW + MINUTE) == Wait([], NOW + LOOK_UP_AFTER, any_end=False)
    (step,) = steps(state, now=NOW + LOOK_UP_AFTER)
    assert isinstance(step, LookUp)
    (step,) = steps(job(*live_records(), deadline(NOW + MINUTE)), now=NOW + LOOK_UP_AFTER)
    assert isinstance(step, Cancel)


# Live


@pytest.mark.parametrize("raw_status", ["in_progress", "cancelling", "paused"])
def test_a_running_batch_is_waited_for_regardless_of_its_raw_status(raw_status: str) -> None:
    assert pause(job(*live_records()), view(raw_status=raw_status)) == Wait(["batch-s0001-1"], None, any_end=False)


def test_a_batch_that_was_not_read_is_waited_for() -> None:
    assert pause(job(*live_records())) == Wait(["batch-s0001-1"], None, any_end=False)


def test_a_wait_ends_at_the_deadline_at_the_latest() -> None:
    assert pause(job(*live_records(), deadline(NOW + HOUR))) == Wait(["batch-s0001-1"], NOW + HOUR, any_end=False)


@pytest.mark.parametrize("raw_status", ["completed", "failed", "expired", "cancelled"])
@pytest.mark.parametrize("is_over", [False, True])
def test_an_ended_batch_is_collected_before_and_after_the_deadline(raw_status: str, is_over: bool) -> None:
    batch = view(raw_status=raw_status)
    (step,) = steps(job(*live_records(), deadline(NOW if is_over else NOW + HOUR)), batch)
    assert isinstance(step, Collect)
    assert (step.shard.name, step.submission.number, step.batch) == ("s0001", 1, batch)


def test_at_the_deadline_running_batches_are_cancelled_once_and_waited_for_until_the_grace_period_ends() -> None:
    (step,) = steps(job(*live_records(), deadline(NOW)), view())
    assert isinstance(step, Cancel)
    assert (step.submission.batch_id, step.reason) == ("batch-s0001-1", "deadline")
    state = job(*live_records(), deadline(NOW), CancelRequested("s0001", 1, "deadline", NOW))
    assert pause(state, view(raw_status="cancelling")) == Wait(["batch-s0001-1"], NOW + CANCEL_GRACE, any_end=False)
    assert pause(state, view(raw_status="cancelling"), now=NOW + CANCEL_GRACE) == Finish()


@pytest.mark.parametrize(
    "records",
    [
        [],
        [uploaded()],
        refused_records(Failure.CAPACITY),
        refused_records(Failure.FILE),
        refused_records(Failure.LOST),
        refused_records(Failure.ACCOUNT),
        settled_records(failed=3, transient=3),
        settled_records(expired=3),
        settled_records(failure=Failure.LINES, failed=3, transient=2),
    ],
    ids=range(9),
)
def test_nothing_is_uploaded_created_or_retried_after_the_deadline(records: list[Any]) -> None:
    assert pause(job(*records, deadline(NOW)), now=NOW + 100 * HOUR) == Finish()


# Settled


def test_a_job_with_nothing_more_to_send_is_finished() -> None:
    assert pause(job(*settled_records(succeeded=3))) == Finish()
    assert pause(job(shards=())) == Finish()


@pytest.mark.parametrize("outcome", ["expired", "cancelled", "invalid_output", "missing"])
def test_retryable_rows_are_retried_after_their_delay(outcome: str) -> None:
    state = job(*settled_as({"succeeded": 2, outcome: 1}))
    until = pause(state).until
    assert NOW + 5 * MINUTE <= until <= NOW + 6 * MINUTE
    (step,) = steps(state, now=until)
    assert isinstance(step, Retry)
    assert [(shard.name, record.number) for shard, record in step.sources] == [("s0001", 1)]


def test_failed_rows_are_retried_only_if_their_failure_is_transient() -> None:
    assert pause(job(*settled_records(failed=3, transient=0))) == Finish()
    assert isinstance(pause(job(*settled_records(failed=3, transient=1))), Wait)


@pytest.mark.parametrize("outcome", ["succeeded", "incomplete", "refused"])
def test_other_outcomes_are_final(outcome: str) -> None:
    assert pause(job(*settled_as({outcome: 3}))) == Finish()


@pytest.mark.parametrize("outcome", sorted(RETRYABLE))
def test_outcomes_that_the_author_did_not_list_are_not_retried(outcome: Outcome) -> None:
    policy = msgspec.structs.replace(POLICY, retry_on=RETRYABLE - {outcome})
    counts = {outcome.value: 3, "transient": 3 if outcome is Outcome.FAILED else 0}
    assert pause(job(*settled_as(counts)), policy=policy) == Finish()
    assert isinstance(pause(job(*settled_as(counts))), Wait)


def settled_as(outcomes: dict[str, int], shard: str = "s0001") -> list[Record]:
    """Return the records of a settled shard with these outcomes, given as data."""
    counts: dict[str, Any] = outcomes
    return settled_records(1, shard, **counts)


def on_attempt(attempt: int, **outcomes: int) -> JobState:
    """Return a job with a settled shard whose rows are on this attempt."""
    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", attempt=attempt)], NOW)
    return job(*settled_records(expired=3), retry_round, *settled_as(outcomes, "r01-0001"))


def test_rows_are_sent_at_most_max_attempts_times() -> None:
    assert isinstance(pause(on_attempt(2, expired=3)), Wait)
    assert pause(on_attempt(3, expired=3)) == Finish()
    assert pause(job(*settled_records(expired=3)), policy=msgspec.structs.replace(POLICY, max_attempts=1)) == Finish()


def test_the_retry_delay_doubles_with_each_attempt() -> None:
    policy = msgspec.structs.replace(POLICY, max_attempts=5)
    for attempt, base in ((1, 5), (2, 10), (3, 20), (4, 40)):
        state = on_attempt(attempt, expired=3) if attempt > 1 else job(*settled_records(expired=3))
        wait = pause(state, policy=policy).until - NOW
        assert base * MINUTE <= wait <= 1.2 * base * MINUTE


def test_rows_are_not_retried_twice_for_the_same_answer() -> None:
    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", attempt=2)], NOW)
    (step,) = steps(job(*settled_records(expired=3), retry_round), now=NOW + HOUR)
    assert isinstance(step, Upload)
    assert step.shard.name == "r01-0001"


def test_rows_to_retry_are_merged_once_the_last_of_them_is_ready() -> None:
    state = job(
        *settled_records(1, "s0001", expired=1),
        *settled_records(1, "s0002", expired=1, time=NOW + 3 * MINUTE),
        shards=("s0001", "s0002"),
    )
    until = pause(state, now=NOW + 7 * MINUTE).until
    assert until >= NOW + 8 * MINUTE
    (step,) = steps(state, now=until)
    assert [shard.name for shard, _ in step.sources] == ["s0001", "s0002"]


# A person clears the wait

LATER = NOW + 31 * HOUR


def cleared(time: datetime = LATER) -> list[Record]:
    return [Deadline(NOW + 30 * HOUR, NOW), Deadline(time + 30 * HOUR, time, clear_epoch=1, resets_attempts=True)]


def test_with_a_fresh_allowance_earlier_attempts_no_longer_count() -> None:
    retry_round = RetryRound(1, [("s0001", 1)], [plain_shard("r01-0001", attempt=3)], NOW)
    exhausted = [*settled_records(expired=3), retry_round, *settled_records(1, "r01-0001", expired=3)]
    assert pause(job(*exhausted)) == Finish()
    (step,) = steps(job(*exhausted, *cleared()), now=LATER)
    assert isinstance(step, Retry)
    assert step.forgiven_attempts == 3
    second_round = RetryRound(2, [("r01-0001", 1)], [plain_shard("r02-0001", attempt=4)], LATER, forgiven_attempts=3)
    retried_once = [*exhausted, *cleared(), second_round, *settled_records(1, "r02-0001", time=LATER, expired=3)]
    assert LATER + 5 * MINUTE <= pause(job(*retried_once), now=LATER).until <= LATER + 6 * MINUTE
    third_round = RetryRound(3, [("r02-0001", 1)], [plain_shard("r03-0001", attempt=6)], LATER, forgiven_attempts=3)
    assert (
        pause(job(*retried_once, third_round, *settled_records(1, "r03-0001", time=LATER, expired=3)), now=LATER)
        == Finish()
    )


def test_an_attempt_that_ends_after_the_clear_is_the_first_of_the_fresh_allowance() -> None:
    policy = msgspec.structs.replace(POLICY, max_attempts=2)
    state = job(*settled_records(time=LATER, expired=3), *cleared())
    (step,) = steps(state, now=LATER + HOUR, policy=policy)
    assert (step.forgiven_attempts, next_attempt(*step.sources[0])) == (0, 2)


def test_rows_with_different_numbers_of_forgiven_attempts_are_sealed_separately() -> None:
    state = job(
        *settled_records(1, "s0001", expired=1),
        *settled_records(1, "s0002", expired=1, time=LATER),
        *cleared(),
        shards=("s0001", "s0002"),
    )
    assert [(step.forgiven_attempts, len(step.sources)) for step in steps(state, now=LATER + HOUR)] == [(0, 1), (1, 1)]


# Batches that failed validation


def test_the_valid_rows_of_a_batch_with_invalid_lines_are_resealed_immediately_without_counting_an_attempt() -> None:
    state = job(*settled_records(failure=Failure.LINES, failed=3, transient=2))
    (step,) = steps(state, policy=msgspec.structs.replace(POLICY, max_attempts=1))
    assert isinstance(step, Retry)
    ((shard, record),) = step.sources
    assert next_attempt(shard, record) == 1


def test_the_valid_rows_of_a_batch_with_invalid_lines_do_not_wait_for_others() -> None:
    state = job(
        *settled_records(1, "s0001", expired=1),
        *settled_records(1, "s0002", failure=Failure.LINES, failed=3, transient=2),
        shards=("s0001", "s0002"),
    )
    due_steps, _ = next_steps(state, {}, POLICY, NOW)
    (step,) = due_steps
    assert isinstance(step, Retry)
    assert [shard.name for shard, _ in step.sources] == ["s0002"]
    resealed_state = job(
        *settled_records(1, "s0001", expired=1),
        *settled_records(1, "s0002", failure=Failure.LINES, failed=3, transient=2),
        RetryRound(1, [("s0002", 1)], [], NOW),
        shards=("s0001", "s0002"),
    )
    assert NOW + 5 * MINUTE <= pause(resealed_state).until <= NOW + 6 * MINUTE


def test_an_ordinary_answer_counts_as_an_attempt() -> None:
    state = job(*settled_records(expired=3))
    (step,) = steps(state, now=NOW + HOUR)
    assert next_attempt(*step.sources[0]) == 2


def test_a_failed_batch_that_names_no_line_is_final() -> None:
    assert pause(job(*settled_records(failure=Failure.LINES, failed=3, transient=0))) == Finish()


def problem(code: str, message: str = "", line: int | None = None) -> BatchProblem:
    return BatchProblem(code, message, line)


@pytest.mark.parametrize(
    ("problems", "failure", "lines"),
    [
        # messages as seen at OpenAI and Azure
        (
            [
                problem(
                    "token_limit_exceeded",
                    "Enqueued token limit reached for gpt-4o-mini in organization org-x. Limit: 2,000,000 enqueued "
                    "tokens. Please try again once some in_progress batches have been completed.",
                )
            ],
            Failure.CAPACITY,
            {},
        ),
        (
            [
                problem(
                    "token_limit_exceeded", "The number of enqueued tokens has surpassed the configured limit of 30K"
                )
            ],
            Failure.CAPACITY,
            {},
        ),
        ([problem("", "Enqueued token limit reached for model")], Failure.CAPACITY, {}),
        ([problem("batch_limit_exceeded", "10 batches run already")], Failure.CAPACITY, {}),
        ([problem("rate_limit_exceeded")], Failure.CAPACITY, {}),
        ([problem("billing_hard_limit_reached", "Billing hard limit has been reached")], Failure.ACCOUNT, {}),
        ([problem("insufficient_quota", "You exceeded your current quota")], Failure.ACCOUNT, {}),
        ([problem("billing_not_active")], Failure.ACCOUNT, {}),
        ([problem("project_spend_limit_exceeded")], Failure.ACCOUNT, {}),
        ([problem("organization_spend_limit_exceeded")], Failure.ACCOUNT, {}),
        (
            [problem("invalid_request", "Cannot find file file-x, or organization org-x does not have access to it.")],
            Failure.FILE,
            {},
        ),
        (
            [problem("invalid_json_line", "This line is not parseable as valid JSON.", 3)],
            Failure.LINES,
            {2: "invalid_json_line: This line is not parseable as valid JSON."},
        ),
        (
            [problem("missing_required_parameter", "custom_id", 1), problem("invalid_url", "no match", 4)],
            Failure.LINES,
            {0: "missing_required_parameter: custom_id", 3: "invalid_url: no match"},
        ),
        ([problem("streaming_unsupported", "no", 1)], Failure.LINES, {0: "streaming_unsupported: no"}),
        ([problem("model_not_found", "no", 1)], Failure.LINES, {0: "model_not_found: no"}),
        ([problem("empty_file", "The input file is empty.")], Failure.LINES, {}),
        ([problem("never_seen_before", "hm")], Failure.UNKNOWN, {}),
        ([problem("", "some text")], Failure.UNKNOWN, {}),
        ([], Failure.UNKNOWN, {}),
        ([problem("odd", "line nought", 0)], Failure.UNKNOWN, {}),
        # a message that names a line is about that row only
        (
            [problem("invalid_image", "Cannot find file file-of-an-image", 2)],
            Failure.LINES,
            {1: "invalid_image: Cannot find file file-of-an-image"},
        ),
        # A full queue is reported together with invalid lines, which will be reported again.
        ([problem("invalid_url", "no", 4), problem("token_limit_exceeded", "full")], Failure.CAPACITY, {}),
    ],
    ids=range(22),
)
def test_the_errors_of_a_failed_batch_are_classified(
    problems: list[BatchProblem], failure: Failure, lines: dict[int, str]
) -> None:
    batch_failure, message, line_messages = classify_batch_failure(
        view(raw_status="failed", problems=problems), ShardState(plain_shard("s0001", requests=100))
    )
    assert (batch_failure, line_messages) == (failure, lines)
    assert message
    assert all(reported_problem.message in message for reported_problem in problems)


@pytest.mark.parametrize(
    ("status", "code", "message", "failure"),
    [
        (429, None, "Too many batches", Failure.CAPACITY),
        (429, "rate_limit_exceeded", "slow down", Failure.CAPACITY),
        (429, "insufficient_quota", "You exceeded your current quota", Failure.ACCOUNT),
        (401, "invalid_api_key", "Incorrect API key provided", Failure.ACCOUNT),
        (402, None, "Payment required", Failure.ACCOUNT),
        (403, None, "Not allowed", Failure.ACCOUNT),
        (400, "billing_hard_limit_reached", "Billing hard limit has been reached", Failure.ACCOUNT),
        (400, None, "Cannot find file file-x or project p does not have access to it.", Failure.FILE),
        (404, None, "No such File object: file not found", Failure.FILE),
        (400, "invalid_value", "Invalid value: '/v1/x'. Supported values are: …", Failure.ACCOUNT),
        (422, None, "metadata", Failure.ACCOUNT),
        # after these, nobody knows whether a batch exists: it is looked up before another one is created
        (408, None, "timed out", None),
        (409, None, "conflict", None),
        (500, None, "", None),
        (502, None, "", None),
        (503, None, "", None),
        (504, None, "", None),
        (302, None, "", None),
    ],
)
def test_an_http_response_to_a_creation_is_a_definite_refusal_or_leaves_it_open(
    status: int, code: str | None, message: str, failure: Failure | None
) -> None:
    assert classify_refusal(status, code, message) is failure


# Properties of single answers


@given(
    st.dictionaries(st.sampled_from(sorted(Outcome)), st.integers(0, 4)),
    st.integers(0, 4),
    st.sets(st.sampled_from(sorted(RETRYABLE))),
    st.sampled_from([None, Failure.LINES]),
)
def test_the_number_of_retryable_rows_equals_their_count(
    outcomes: dict[Outcome, int], transient: int, retry_on: set[Outcome], failure: Failure | None
) -> None:
    outcomes.setdefault(Outcome.FAILED, transient)
    transient = min(transient, outcomes[Outcome.FAILED])
    if failure is Failure.LINES:
        outcomes = {Outcome.FAILED: outcomes[Outcome.FAILED]}
    settled = Settled(
        "s0001",
        1,
        "b",
        "x",
        NOW,
        outcomes={outcome.value: count for outcome, count in outcomes.items()},
        transient=transient,
        failure=failure,
    )
    answers = [
        Answer(outcome, transient=outcome is Outcome.FAILED and number < transient)
        for outcome, count in outcomes.items()
        for number in range(count)
    ]
    policy = Policy(retry_on=frozenset(retry_on))
    assert sum(is_retryable(answer, settled, policy) for answer in answers) == retryable_rows(settled, policy)
