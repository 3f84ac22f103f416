"""Queue capacity: when a model is held back, what is learned from refusals, and which shards are divided."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.records import (
    Created,
    Deadline,
    Failure,
    Intent,
    Record,
    Refused,
    RetryRound,
    Settled,
    Uploaded,
    UploadRefused,
)
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.core.lifecycle.capacity import parse_queue_limit
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import (
    Collect,
    Create,
    FinalPass,
    Finish,
    GiveUp,
    JudgeCanary,
    Policy,
    Reseal,
    Retry,
    Step,
    Upload,
    Wait,
)
from airflow_provider_batch.core.pricing.input_correction import InputCorrection
from airflow_provider_batch.core.provider.batch import BatchProblem, BatchView, Status
from airflow_provider_batch.core.provider.limits import Limits
from tests.core.building import NOW, manifest_of, plain_shard

MINUTE = timedelta(minutes=1)
POLICY = Policy(backoff=5 * MINUTE)
NAMED_LIMIT = (
    "token_limit_exceeded: Enqueued token limit reached for m in organization o. Limit: 1,000 enqueued tokens. "
    "Please try again once some in_progress batches have been completed."
)


@pytest.mark.parametrize(
    ("message", "limit"),
    [
        # as seen at OpenAI (openai-python issue 2084) and Azure (learn.microsoft.com/answers 2285577)
        (NAMED_LIMIT.replace("1,000", "2,000,000"), 2_000_000),
        (
            "token_limit_exceeded: The number of enqueued tokens has surpassed the configured limit of 30K for the "
            "deployment 'd'",
            30_000,
        ),
        ("enqueued tokens: limit is 1.5M", 1_500_000),
        ("enqueued tokens: LIMIT=2.000.000.", 2_000_000),
        ("enqueued tokens, limit: 900 000 tokens", 900_000),
        ("Enqueued token limit: 5b.", 5_000_000_000),
        ("Enqueued token limit reached for gpt-4o", None),
        ("Enqueued token limit: 0", None),
        ("token_limit_exceeded: limit: 1.2.3 tokens", None),
        # limits of calls, or per minute, are not about the queue
        ("rate_limit_exceeded: Rate limit reached on tokens per min. Limit: 30000, used 29000", None),
        ("Too many batches. Limit: 2000 per hour", None),
        ("", None),
    ],
)
def test_the_limit_is_read_from_the_providers_message(message: str, limit: int | None) -> None:
    assert parse_queue_limit(message) == limit


def shard(name: str = "s0001", tokens: int = 300, requests: int = 4) -> Shard:
    return plain_shard(name, requests=requests, tokens=tokens)


def live_records(name: str, n: int = 1, time: datetime = NOW) -> list[Record]:
    return [
        Uploaded(name, n, "file", time),
        Intent(name, n, "nonce", "file", time),
        Created(name, n, f"b-{name}-{n}", time),
    ]


def queue_full_records(name: str, n: int = 1, time: datetime = NOW, message: str = NAMED_LIMIT) -> list[Record]:
    failed = Settled(name, n, f"b-{name}-{n}", "failed", time, failure=Failure.CAPACITY, message=message)
    return [*live_records(name, n, time), failed]


def refused_records(name: str, n: int = 1, time: datetime = NOW, message: str = "HTTP 429") -> list[Record]:
    return [*live_records(name, n, time)[:2], Refused(name, n, Failure.CAPACITY, message, time)]


def completed_records(name: str, n: int = 1, time: datetime = NOW, ended_at: datetime = NOW) -> list[Record]:
    return [*live_records(name, n, time), Settled(name, n, "b", "completed", ended_at, outcomes={"succeeded": 4})]


def shard_of(step: Step) -> str:
    """Return the name of the shard of a step."""
    assert not isinstance(step, JudgeCanary | Retry | FinalPass)
    return step.shard.name


def plan(shards: list[Shard], *records: Record, now: datetime) -> tuple[list[tuple[Any, ...]], Any]:
    """Return the steps, each as its type and the name of its shard, and the pause."""
    steps, pause = next_steps(fold(manifest_of(shards), records), {}, POLICY, now)
    return [(type(step), shard_of(step)) for step in steps], pause


SHARDS = [shard(f"s{n:04d}") for n in range(1, 6)]


def test_a_full_queue_holds_back_all_shards_of_the_model_and_no_other() -> None:
    other_shard = plain_shard("s0009", model="another", tokens=300)
    steps, pause = plan([*SHARDS, other_shard], *queue_full_records("s0001"), now=NOW + MINUTE)
    assert steps == [(Upload, "s0009")]
    assert pause.until == NOW + 5 * MINUTE


def test_with_no_live_batch_the_smallest_shard_is_sent_alone() -> None:
    shards = [*SHARDS, shard("s0006", tokens=100)]
    steps, _ = plan(shards, *queue_full_records("s0001"), now=NOW + 5 * MINUTE)
    assert steps == [(Upload, "s0006")]


def test_the_end_of_a_batch_of_the_model_ends_the_backoff() -> None:
    records = [*completed_records("s0001", ended_at=NOW + 2 * MINUTE), *queue_full_records("s0002", time=NOW + MINUTE)]
    steps, _ = plan(SHARDS, *records, now=NOW + 2 * MINUTE)
    assert steps[0] == (Create, "s0002")


def test_no_more_tokens_are_live_than_the_named_limit() -> None:
    records = [
        *completed_records("s0001", ended_at=NOW + 2 * MINUTE),
        *live_records("s0002"),
        *queue_full_records("s0003", time=NOW + MINUTE),
    ]
    steps, pause = plan(SHARDS, *records, now=NOW + 2 * MINUTE)
    assert steps == [(Create, "s0003"), (Upload, "s0004")]
    assert pause == Wait(["b-s0002-1"], None, any_end=True)


def test_a_limit_that_was_not_named_is_inferred_from_the_batches_that_ran_during_the_refusal() -> None:
    message = "Enqueued token limit reached"
    records = [
        *completed_records("s0001", ended_at=NOW + 2 * MINUTE),
        *live_records("s0002"),
        *queue_full_records("s0003", time=NOW + MINUTE, message=message),
    ]
    steps, pause = plan(SHARDS, *records, now=NOW + 2 * MINUTE)
    assert steps == [(Create, "s0003")]
    assert pause == Wait(["b-s0002-1"], None, any_end=True)


def test_beyond_the_inferred_limit_one_shard_is_sent_after_each_backoff_without_a_creation() -> None:
    message = "Enqueued token limit reached"
    records = [
        *completed_records("s0001", ended_at=NOW + 2 * MINUTE),
        *live_records("s0002"),
        *queue_full_records("s0003", time=NOW + MINUTE, message=message),
        *live_records("s0003", 2, time=NOW + 2 * MINUTE),
    ]
    steps, pause = plan(SHARDS, *records, now=NOW + 3 * MINUTE)
    assert steps == []
    assert pause.until == NOW + 7 * MINUTE
    assert plan(SHARDS, *records, now=NOW + 7 * MINUTE)[0] == [(Upload, "s0004")]


def test_a_creation_without_an_answer_counts_as_live() -> None:
    records = [
        *queue_full_records("s0001", message="Enqueued token limit reached"),
        *live_records("s0002", time=NOW + 6 * MINUTE)[:2],
    ]
    steps, pause = plan(SHARDS[:2], *records, now=NOW + 7 * MINUTE)
    assert steps == []
    assert pause.until == NOW + 8 * MINUTE


def test_after_a_refused_creation_the_other_shards_are_sent_once_the_backoff_is_over() -> None:
    records = [*live_records("s0001"), *refused_records("s0002", time=NOW + MINUTE)]
    assert plan(SHARDS, *records, now=NOW + 2 * MINUTE)[0] == []
    assert [name for _, name in plan(SHARDS, *records, now=NOW + 6 * MINUTE)[0]] == ["s0002", "s0003", "s0004", "s0005"]


def test_nothing_is_created_before_the_retry_after_of_the_provider() -> None:
    refusal_records = [*live_records("s0001")[:2], Refused("s0001", 1, Failure.CAPACITY, "HTTP 429", NOW, 1_800.0)]
    steps, pause = plan(SHARDS, *refusal_records, now=NOW + 29 * MINUTE)
    assert (steps, pause.until) == ([], NOW + 30 * MINUTE)
    assert plan(SHARDS, *refusal_records, now=NOW + 30 * MINUTE)[0] == [(Create, "s0001")]


def test_the_end_of_a_batch_does_not_shorten_the_retry_after_of_the_provider() -> None:
    refusal_records = [*live_records("s0002")[:2], Refused("s0002", 1, Failure.CAPACITY, "HTTP 429", NOW, 1_800.0)]
    records = [*completed_records("s0001", ended_at=NOW + 2 * MINUTE), *refusal_records]
    steps, pause = plan(SHARDS, *records, now=NOW + 3 * MINUTE)
    assert (steps, pause.until) == ([], NOW + 30 * MINUTE)


@pytest.mark.parametrize(("retry_after", "minutes"), [(None, 5), (0.0, 5), (20.0, 5), (301.0, 301 / 60), (1e300, 60)])
def test_a_retry_after_is_extended_to_the_backoff_and_limited_to_an_hour(
    retry_after: float | None, minutes: float
) -> None:
    refusal_records = [*live_records("s0001")[:2], Refused("s0001", 1, Failure.CAPACITY, "HTTP 429", NOW, retry_after)]
    assert plan(SHARDS, *refusal_records, now=NOW)[1].until == NOW + timedelta(minutes=minutes)
    assert plan(SHARDS, UploadRefused(1, "HTTP 429", NOW, retry_after), now=NOW)[1].until == NOW + timedelta(
        minutes=minutes
    )


# Input files that are refused


def test_after_a_refused_input_file_none_is_uploaded_and_uploaded_ones_are_used() -> None:
    other_shard = plain_shard("s0009", model="another", tokens=300)
    records: list[Record] = [Uploaded("s0002", 1, "file", NOW - MINUTE), UploadRefused(1, "HTTP 429", NOW)]
    steps, pause = plan([*SHARDS, other_shard], *records, now=NOW + 4 * MINUTE)
    assert steps == [(Create, "s0002")]
    assert pause.until == NOW + 5 * MINUTE
    assert len(plan([*SHARDS, other_shard], *records, now=NOW + 5 * MINUTE)[0]) == 6


def test_a_refused_input_file_is_not_a_submission_of_its_shard() -> None:
    state = fold(manifest_of(SHARDS), [UploadRefused(1, "HTTP 429", NOW)])
    steps, _ = next_steps(state, {}, POLICY, NOW + 5 * MINUTE)
    assert {step.number for step in steps if isinstance(step, Upload)} == {1}


def test_a_limit_in_the_refusal_of_an_input_file_is_not_the_queue_limit() -> None:
    refusal = UploadRefused(1, NAMED_LIMIT, NOW)
    assert [kind for kind, _ in plan([shard(tokens=2_000)], refusal, now=NOW + 5 * MINUTE)[0]] == [Upload]


def test_uploads_wait_twice_as_long_after_each_refusal_until_a_file_is_accepted() -> None:
    refusals = [UploadRefused(n, "HTTP 429", NOW + n * MINUTE) for n in (1, 2, 3)]
    assert plan(SHARDS, *refusals, now=NOW + 3 * MINUTE)[1].until == NOW + 23 * MINUTE
    accepted_file = Uploaded("s0001", 1, "file", NOW + 2 * MINUTE + timedelta(seconds=1))
    steps, pause = plan(SHARDS, *refusals, accepted_file, now=NOW + 3 * MINUTE)
    assert (steps, pause.until) == ([(Create, "s0001")], NOW + 8 * MINUTE)


def test_the_wait_ends_at_the_deadline_even_if_uploads_are_refused() -> None:
    records: list[Record] = [UploadRefused(1, "HTTP 429", NOW), Deadline(NOW + MINUTE, NOW)]
    assert plan(SHARDS, *records, now=NOW)[1].until == NOW + MINUTE
    assert plan(SHARDS, *records, now=NOW + MINUTE) == ([], Finish())


# Shards that do not fit


def test_a_shard_above_the_named_limit_is_resealed_immediately() -> None:
    state = fold(manifest_of([shard(tokens=2_500, requests=100)]), queue_full_records("s0001"))
    (step,), _ = next_steps(state, {}, POLICY, NOW)
    assert isinstance(step, Reseal)
    assert (step.number, step.tokens, step.requests) == (2, 1_000, 50)


def test_a_shard_above_a_limit_named_for_another_shard_is_resealed_before_it_is_sent() -> None:
    steps, _ = plan([shard("s0001"), shard("s0002", tokens=2_000)], *queue_full_records("s0001"), now=NOW)
    assert steps == [(Reseal, "s0002")]


def test_a_shard_that_was_refused_alone_once_is_sent_again_unchanged() -> None:
    steps, _ = plan([shard()], *queue_full_records("s0001"), now=NOW + 5 * MINUTE)
    assert steps == [(Create, "s0001")]


@pytest.mark.parametrize("message", [NAMED_LIMIT, "Enqueued token limit reached"])
def test_a_shard_that_was_refused_alone_twice_is_halved(message: str) -> None:
    records = [
        *queue_full_records("s0001", message=message),
        *queue_full_records("s0001", 2, time=NOW + 5 * MINUTE, message=message),
    ]
    state = fold(manifest_of([shard(requests=5)]), records)
    assert next_steps(state, {}, POLICY, NOW + 14 * MINUTE)[0] == []
    (step,), _ = next_steps(state, {}, POLICY, NOW + 15 * MINUTE)
    assert isinstance(step, Reseal)
    assert (step.number, step.tokens, step.requests) == (3, 150, 3)


def test_a_shard_that_was_refused_while_other_batches_ran_is_not_divided() -> None:
    records = [
        *completed_records("s0002", ended_at=NOW + 30 * MINUTE),
        *queue_full_records("s0001"),
        *queue_full_records("s0001", 2, time=NOW + 5 * MINUTE),
        *queue_full_records("s0001", 3, time=NOW + 20 * MINUTE),
    ]
    assert plan([shard("s0001"), shard("s0002")], *records, now=NOW + 30 * MINUTE)[0] == [(Create, "s0001")]


def test_a_single_row_above_the_named_limit_is_given_up_after_two_refusals_with_the_providers_message() -> None:
    single_row = [shard(tokens=2_000, requests=1)]
    assert plan(single_row, *queue_full_records("s0001"), now=NOW + 5 * MINUTE)[0] == [(Create, "s0001")]
    state = fold(manifest_of(single_row), [*queue_full_records("s0001"), *queue_full_records("s0001", 2)])
    (step,), _ = next_steps(state, {}, POLICY, NOW + 10 * MINUTE)
    assert isinstance(step, GiveUp)
    assert (step.number, step.message) == (3, NAMED_LIMIT)


def test_a_single_row_that_may_fit_is_never_given_up() -> None:
    records = [
        record
        for n in range(1, 20)
        for record in queue_full_records("s0001", n, message="Enqueued token limit reached")
    ]
    assert plan([shard(requests=1)], *records, now=NOW + timedelta(hours=1))[0] == [(Create, "s0001")]


def test_a_resealed_shard_is_never_sent_and_its_rows_continue_in_the_new_shards() -> None:
    records = [
        *queue_full_records("s0001"),
        Intent("s0001", 2, "claim", "", NOW),
        RetryRound(1, [("s0001", 2)], [shard("r01-0001"), shard("r01-0002")], NOW),
    ]
    state = fold(manifest_of([shard(tokens=600)]), records)
    assert state.shards["s0001"].phase is Phase.RESEALED
    steps, _ = next_steps(state, {}, POLICY, NOW + 10 * MINUTE)
    assert [(type(step), shard_of(step)) for step in steps] == [(Upload, "r01-0001")]


def test_after_a_worker_was_killed_with_a_claim_the_look_up_finds_no_batch_and_the_shard_continues() -> None:
    records = [*queue_full_records("s0001"), Intent("s0001", 2, "claim", "", NOW)]
    assert fold(manifest_of([shard()]), records).shards["s0001"].phase is Phase.CREATING
    records.append(Refused("s0001", 2, Failure.LOST, "lost", NOW + 2 * MINUTE))
    assert plan([shard()], *records, now=NOW + 10 * MINUTE)[0] == [(Create, "s0001")]


# Whole jobs against a model of the provider


class Provider:
    """A provider with a queue. Batches that do not fit fail a minute after their creation; others take 20 minutes."""

    def __init__(self, limit: int, *, foreign_tokens: int = 0, message: str = "Enqueued token limit reached.") -> None:
        self.limit, self.foreign_tokens, self.message = limit, foreign_tokens, message
        self.batches: dict[str, tuple[Shard, datetime, bool]] = {}
        self.refusals = 0

    def create(self, new_shard: Shard, now: datetime) -> str:
        queued_tokens = sum(
            queued_shard.tokens
            for queued_shard, created_at, fits in self.batches.values()
            if fits and now < created_at + 20 * MINUTE
        )
        fits = self.foreign_tokens + queued_tokens + new_shard.tokens <= self.limit
        self.refusals += not fits
        name = f"batch-{len(self.batches)}"
        self.batches[name] = new_shard, now, fits
        return name

    def view(self, batch_id: str, now: datetime) -> BatchView:
        _, created_at, fits = self.batches[batch_id]
        if now < created_at + (20 * MINUTE if fits else MINUTE):
            return BatchView(batch_id, Status.RUNNING, "in_progress")
        if fits:
            return BatchView(batch_id, Status.COMPLETED, "completed")
        return BatchView(
            batch_id, Status.FAILED, "failed", problems=[BatchProblem("token_limit_exceeded", self.message)]
        )


def run_job(provider: Provider, shards: list[Shard]) -> JobState:
    """Run one worker whenever it is due, until the job is finished."""
    manifest, records, now = manifest_of(shards), list[Record](), NOW
    for _ in range(3_000):
        state = fold(manifest, records)
        live = {
            live_submission.batch_id: provider.view(live_submission.batch_id, now)
            for _, live_submission in state.live_submissions()
        }
        steps, pause = next_steps(state, live, POLICY, now)
        for step in steps:
            assert not isinstance(step, JudgeCanary | Retry | FinalPass)
            spec = step.shard.spec
            match step:
                case Upload(number=number):
                    records.append(Uploaded(spec.name, number, "file", now))
                case Create(number=number):
                    records += [Intent(spec.name, number, "nonce", "file", now)]
                    records += [Created(spec.name, number, provider.create(spec, now), now)]
                case Collect(submission=submission, batch=batch) if batch.status is Status.FAILED:
                    message = f"token_limit_exceeded: {provider.message}"
                    records.append(
                        Settled(
                            spec.name,
                            submission.number,
                            batch.id,
                            "failed",
                            now,
                            failure=Failure.CAPACITY,
                            message=message,
                        )
                    )
                case Collect(submission=submission, batch=batch):
                    outcomes = {"succeeded": spec.requests}
                    records.append(Settled(spec.name, submission.number, batch.id, "completed", now, outcomes=outcomes))
                case Reseal(number=submission_number, tokens=tokens, requests=requests):
                    number, parts, remaining_rows = len(state.retry_rounds) + 1, list[Shard](), spec.requests
                    rows_per_shard = max(min(requests, tokens * spec.requests // spec.tokens), 1)
                    while remaining_rows:
                        rows = min(rows_per_shard, remaining_rows)
                        part = shard(f"r{number:02d}-{len(parts):04d}", spec.tokens * rows // spec.requests, rows)
                        parts, remaining_rows = [*parts, part], remaining_rows - rows
                    records += [
                        Intent(spec.name, submission_number, "claim", "", now),
                        RetryRound(number, [(spec.name, submission_number)], parts, now),
                    ]
                    break
                case _:
                    raise AssertionError(step)
        if steps:
            continue
        if isinstance(pause, Finish):
            return state
        assert isinstance(pause, Wait)
        ends = [
            provider.batches[batch_id][1] + (20 * MINUTE if provider.batches[batch_id][2] else MINUTE)
            for batch_id in pause.batch_ids
        ]
        wake_times = [pause.until] if pause.until else []
        now = min([*wake_times, min(ends) if pause.any_end and ends else max(ends, default=now + timedelta(days=99))])
    raise AssertionError("the job does not end")


def count_answers(state: JobState) -> int:
    return sum(settled.outcomes.get("succeeded", 0) for _, _, settled in state.settled_submissions())


@pytest.mark.parametrize("message", ["Enqueued token limit reached.", "Limit: 1,000 enqueued tokens."])
def test_forty_shards_get_through_a_queue_for_three_with_few_refusals(message: str) -> None:
    provider = Provider(1_000, message=message)
    state = run_job(provider, [shard(f"s{n:04d}") for n in range(1, 41)])
    assert count_answers(state) == 160
    assert not state.retry_rounds
    # 37 are sent before anything is known about the queue. After that there is less than one refusal for each.
    assert provider.refusals <= 37 + (0 if "1,000" in message else 37)


@pytest.mark.parametrize("message", ["Enqueued token limit reached.", "Limit: 1,000 enqueued tokens."])
def test_shards_that_can_never_fit_are_divided_until_they_do(message: str) -> None:
    provider = Provider(1_000, message=message)
    state = run_job(provider, [shard(f"s{n:04d}", tokens=6_400, requests=64) for n in range(1, 4)])
    assert count_answers(state) == 192
    assert max(retried_shard.attempt for retry_round in state.retry_rounds for retried_shard in retry_round.shards) == 1


def test_a_job_does_not_fail_if_other_jobs_fill_the_queue() -> None:
    provider = Provider(1_000, foreign_tokens=900, message="Limit: 1,000 enqueued tokens.")
    state = run_job(provider, [shard(f"s{n:04d}", tokens=400, requests=8) for n in range(1, 4)])
    assert count_answers(state) == 24


# The correction of estimated tokens


def answered_records(name: str, estimated: int, reported: int) -> list[Record]:
    (*records, settled) = completed_records(name)
    assert isinstance(settled, Settled)
    return [
        *records,
        msgspec.structs.replace(settled, input_tokens=reported, estimated_input_tokens=estimated, answers=4),
    ]


def corrected_steps(shards: list[Shard], *records: Record, now: datetime = NOW, **manifest: Any) -> list[Step]:
    return list(next_steps(fold(manifest_of(shards, **manifest), records), {}, POLICY, now)[0])


@pytest.mark.parametrize("limits", [{"limits": Limits(tokens=1_000)}, {"learned_tokens": {"gpt-5-mini": 1_000}}])
def test_a_shard_that_answers_show_to_be_too_large_is_divided_before_it_is_uploaded(limits: dict[str, Any]) -> None:
    shards = [shard("s0001", tokens=300), shard("s0002", tokens=900), shard("s0003", tokens=240)]
    steps = corrected_steps(shards, *answered_records("s0001", 300, 1_200), **limits)
    assert [(type(step), shard_of(step)) for step in steps] == [(Reseal, "s0002"), (Upload, "s0003")]
    reseal = steps[0]
    assert isinstance(reseal, Reseal)
    assert (reseal.tokens, reseal.requests) == (250, 2)


def test_without_a_limit_no_shard_is_divided() -> None:
    assert [type(step) for step in corrected_steps(SHARDS, *answered_records("s0001", 300, 90_000))] == [Upload] * 4


def test_a_single_row_above_the_limit_is_sent_alone() -> None:
    shards = [shard("s0001"), shard("s0002", tokens=900, requests=1)]
    steps = corrected_steps(shards, *answered_records("s0001", 300, 1_200), limits=Limits(tokens=1_000))
    assert [(type(step), shard_of(step)) for step in steps] == [(Upload, "s0002")]


def test_no_more_corrected_tokens_are_live_than_the_named_limit() -> None:
    # 300 estimated tokens are 450, so that two shards fit into 1,000 tokens, and not three
    records = [*queue_full_records("s0002"), *answered_records("s0001", 300, 450), *live_records("s0003")]
    steps = corrected_steps(SHARDS, *records, now=NOW + 5 * MINUTE)
    assert [(type(step), shard_of(step)) for step in steps] == [(Create, "s0002")]


def test_what_earlier_jobs_learned_corrects_the_tokens_before_there_are_answers() -> None:
    steps = corrected_steps(SHARDS[:1], limits=Limits(tokens=500), input_factors={"gpt-5-mini": 2.0})
    assert [type(step) for step in steps] == [Reseal]


@given(limit=st.integers(1, 10**9), factor=st.floats(0.05, 10_000))
def test_an_estimate_within_the_limit_is_within_it_after_the_correction(limit: int, factor: float) -> None:
    correction = InputCorrection(fold(manifest_of([], input_factors={"m": factor}), []))
    tokens = correction.estimated_limit("m", limit)
    assert correction.correct("m", tokens) <= limit or tokens == 1
