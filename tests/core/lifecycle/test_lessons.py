"""Lessons from one job for the next one: the queue limit of a model, and the length of its answers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.records import Created, Failure, Intent, Record, Refused, Settled, UploadRefused
from airflow_provider_batch.core.ledger.samples import InputSample, OutputSample
from airflow_provider_batch.core.lifecycle.lessons import (
    MAX_AGE,
    MAX_KEPT,
    MIN_ANSWERS,
    LearnedFacts,
    Output,
    QueueLimit,
    lessons_from,
    load_lessons,
    save_lessons,
)
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, NOW, add_row, manifest_of, plain_shard, request

KEY = JobKey("dag", "ask", "manual__2026-11-20")
NAMED_LIMIT = "Enqueued token limit reached for m. Limit: {} enqueued tokens."
DAY = timedelta(days=1)
#: sums of squares and of logarithms per answer
SQUARES, LOGS = 325.0, 2.5


def lessons_of(*records: Record, models: tuple[str, ...] = ("small",)) -> list[QueueLimit | Output]:
    shards = [plain_shard(f"s{n:04d}", model=model) for n, model in enumerate(models, start=1)]
    return lessons_from(fold(manifest_of(shards), records))


def queue_full_records(n: int, message: str, time: datetime = NOW, shard: str = "s0001") -> list[Record]:
    settled = Settled(shard, n, f"b-{n}", "failed", time, failure=Failure.CAPACITY, message=message)
    return [Intent(shard, n, "nonce", "file", time), Created(shard, n, f"b-{n}", time), settled]


def answered_records(answers: int, tokens: int, shard: str = "s0001", **more: Any) -> list[Record]:
    """The records of a batch, with sums that are easy to add up instead of plausible ones."""
    settled = Settled(
        shard,
        1,
        "b",
        "completed",
        NOW,
        answers=answers,
        output_tokens=tokens,
        output_squares=SQUARES * answers,
        output_logs=LOGS * answers,
        **more,
    )
    return [Created(shard, 1, "b", NOW), settled]


def output(
    uid: str,
    answers: int = MIN_ANSWERS,
    tokens: int = 100,
    time: datetime = NOW,
    inputs: tuple[int, int] = (0, 0),
    **more: str,
) -> Output:
    fields = {"dag_id": "dag", "task_id": "ask", "model": "small"} | more
    sample = InputSample(answers, *inputs)
    return Output(
        uid, fields["dag_id"], fields["task_id"], fields["model"], OutputSample(answers, tokens), sample, time
    )


# Lessons of a job


def test_the_newest_limit_that_the_provider_named_for_each_model_is_learned() -> None:
    records = [
        *queue_full_records(1, NAMED_LIMIT.format("2,000")),
        *queue_full_records(2, NAMED_LIMIT.format("1,000"), time=NOW + DAY),
        *queue_full_records(1, NAMED_LIMIT.format("30K"), shard="s0002"),
    ]
    assert lessons_of(*records, models=("small", "large")) == [
        QueueLimit("small", 1_000, NOW + DAY),
        QueueLimit("large", 30_000, NOW),
    ]


def test_a_limit_is_learned_from_a_refused_creation_too() -> None:
    refused = Refused("s0001", 1, Failure.CAPACITY, NAMED_LIMIT.format("1,000"), NOW)
    assert lessons_of(Intent("s0001", 1, "nonce", "file", NOW), refused) == [QueueLimit("small", 1_000, NOW)]


@pytest.mark.parametrize(
    "records",
    [
        queue_full_records(1, "Enqueued token limit reached"),
        [Refused("s0001", 1, Failure.ACCOUNT, NAMED_LIMIT.format("1,000"), NOW)],
        [UploadRefused(1, NAMED_LIMIT.format("1,000"), NOW)],
        answered_records(0, 0),
    ],
    ids=["no limit is named", "it is about the account", "it is about files", "no answers"],
)
def test_nothing_is_learned_from_a_refusal_without_a_limit(records: list[Any]) -> None:
    assert lessons_of(*records) == []


def test_the_answers_of_each_model_and_their_output_tokens_are_learned() -> None:
    records = [
        *answered_records(3, 60, input_answers=3, input_tokens=900, estimated_input_tokens=300),
        *answered_records(2, 10, "s0002"),
        *answered_records(1, 5, "s0003", input_answers=1, input_tokens=100, estimated_input_tokens=100),
    ]
    uid = manifest_of([]).job_uid
    assert lessons_of(*records, models=("small", "large", "small")) == [
        Output(uid, "dag", "ask", "small", OutputSample(4, 65, 4 * SQUARES, 4 * LOGS), InputSample(4, 1_000, 400), NOW),
        Output(uid, "dag", "ask", "large", OutputSample(2, 10, 2 * SQUARES, 2 * LOGS), InputSample(), NOW),
    ]


def test_the_input_of_embeddings_is_learned_although_they_have_no_output() -> None:
    (lesson,) = lessons_of(*answered_records(3, 0, input_answers=3, input_tokens=900, estimated_input_tokens=300))
    assert isinstance(lesson, Output)
    assert (lesson.outputs.tokens, lesson.inputs.reported) == (0, 900)


# Lessons for the next job


def test_a_limit_applies_to_all_tasks_of_the_connection_and_the_newest_counts(folder: LocalFolder) -> None:
    save_lessons(folder, [QueueLimit("small", 2_000, NOW), QueueLimit("large", 500, NOW)])
    save_lessons(folder, [QueueLimit("small", 1_000, NOW - DAY)])
    facts = load_lessons(folder, JobKey("another", "task", "run"), NOW + DAY)
    assert {model: limit.tokens for model, limit in facts.limits.items()} == {"small": 2_000, "large": 500}


def test_output_lessons_apply_only_to_the_same_task_of_the_same_dag(folder: LocalFolder) -> None:
    save_lessons(folder, [output("1"), output("2", dag_id="another"), output("3", task_id="another")])
    assert load_lessons(folder, KEY, NOW).outputs == {"small": OutputSample(MIN_ANSWERS, 100)}
    assert load_lessons(folder, JobKey("dag", "third", "run"), NOW).outputs == {}


def test_the_answers_of_several_small_jobs_are_added_up(folder: LocalFolder) -> None:
    save_lessons(folder, [output("1", MIN_ANSWERS - 1, 19)])
    assert load_lessons(folder, KEY, NOW).outputs == {}
    save_lessons(folder, [output("2", 1, 1, time=NOW + DAY)])
    assert load_lessons(folder, KEY, NOW + DAY).outputs == {"small": OutputSample(MIN_ANSWERS, 20)}


def test_the_input_tokens_of_earlier_jobs_correct_the_estimate_of_the_next_one(folder: LocalFolder) -> None:
    save_lessons(folder, [output("1", 1, inputs=(900, 100))])
    assert load_lessons(folder, KEY, NOW).input_factors == {}  # too few answers
    save_lessons(folder, [output("2", inputs=(100, 100), time=NOW + DAY)])
    assert load_lessons(folder, KEY, NOW + DAY).input_factors == {"small": 5.0}


@pytest.mark.parametrize(
    ("inputs", "factors"),
    [((0, 0), {}), ((0, 1_000), {}), ((5, 0), {}), ((20, 20_000), {"small": 0.05}), ((10**12, 5), {"small": 10_000})],
    ids=["no usage", "zero", "no estimate", "one token each", "absurd"],
)
def test_reported_tokens_that_make_no_sense_are_not_believed(
    folder: LocalFolder, inputs: tuple[int, int], factors: dict[str, float]
) -> None:
    save_lessons(folder, [output("1", inputs=inputs)])
    assert load_lessons(folder, KEY, NOW).input_factors == factors


def test_lessons_older_than_thirty_days_are_ignored(folder: LocalFolder) -> None:
    save_lessons(folder, [QueueLimit("small", 1_000, NOW), output("1")])
    assert load_lessons(folder, KEY, NOW + MAX_AGE - DAY) != LearnedFacts()
    assert load_lessons(folder, KEY, NOW + MAX_AGE) == LearnedFacts()


def test_a_job_whose_wait_ends_twice_saves_its_lessons_once(folder: LocalFolder) -> None:
    assert len(save_lessons(folder, [QueueLimit("small", 1_000, NOW), output("1")])) == 2
    assert save_lessons(folder, [QueueLimit("small", 1_000, NOW), output("1", 2 * MIN_ANSWERS)]) == []
    assert load_lessons(folder, KEY, NOW).outputs == {"small": OutputSample(MIN_ANSWERS, 100)}


def test_only_the_newest_lessons_about_a_subject_are_kept(folder: LocalFolder) -> None:
    for n in range(MAX_KEPT + 3):
        save_lessons(folder, [QueueLimit("small", 1_000 + n, NOW + n * DAY), output(str(n), time=NOW + n * DAY)])
    save_lessons(folder, [QueueLimit("large", 1, NOW)])
    assert len(folder.names("")) == 2 * MAX_KEPT + 1
    assert load_lessons(folder, KEY, NOW + 9 * DAY).limits["small"].tokens == 1_000 + MAX_KEPT + 2


@pytest.mark.parametrize("data", [b"", b"{", b'{"type":"limit"}', b'{"type":"poem"}', b"\xff"])
def test_a_file_that_is_not_a_lesson_is_skipped(folder: LocalFolder, data: bytes) -> None:
    save_lessons(folder, [QueueLimit("small", 1_000, NOW)])
    folder.create(f"{folder.names('')[0][:-5]}.x.json", data)
    assert load_lessons(folder, KEY, NOW).limits["small"].tokens == 1_000


# Shards


def test_shards_of_a_model_are_kept_within_its_learned_limit_and_others_are_not(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), learned_tokens={"small": 20})
    for number in range(1, 7):
        add_row(sealer, request(f"r{number}", model="small" if number < 6 else "large"), [], number, 9)
    for number in range(7, 10):
        add_row(sealer, request(f"r{number}", model="large"), [], number, 9)
    tokens_by_model = sorted((shard.model, shard.tokens) for shard in sealer.finish())
    assert tokens_by_model == [("large", 36), ("small", 9), ("small", 18), ("small", 18)]


def test_a_row_above_a_learned_limit_gets_a_shard_of_its_own(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/build", CHAT, Limits(), learned_tokens={"gpt-5-mini": 20})
    for number, tokens in enumerate([5, 21, 5], start=1):
        add_row(sealer, request(f"r{number}"), [], number, tokens)
    assert [shard.tokens for shard in sealer.finish()] == [5, 21, 5]


def test_shards_are_within_the_limits_after_the_correction_that_earlier_jobs_learned(folder: LocalFolder) -> None:
    factors = {"gpt-5-mini": 2.5}
    sealer = Sealer(folder, "g001/build", CHAT, Limits(tokens=50), input_factors=factors)
    for number in range(1, 6):
        add_row(sealer, request(f"r{number}"), [], number, 10)
    assert [shard.tokens for shard in sealer.finish()] == [20, 20, 10]


def test_a_correction_that_earlier_jobs_learned_refuses_no_row(folder: LocalFolder) -> None:
    sealer = Sealer(folder, "g001/build", CHAT, Limits(tokens=50), input_factors={"gpt-5-mini": 100.0})
    add_row(sealer, request("r1"), [], 1, 50)
    assert [shard.tokens for shard in sealer.finish()] == [50]
