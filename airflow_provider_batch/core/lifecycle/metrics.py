"""The metrics of a job. Each follows from one record.

Records are created exclusively, so one worker of all writes a record and counts it, once. `METRICS` describes them, for
the docs.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.core.ledger.job import Manifest, Shard
from airflow_provider_batch.core.ledger.records import (
    CollectionFailed,
    Created,
    DuplicateBatch,
    Failure,
    Landed,
    Record,
    Refused,
    RetryRound,
    Settled,
    Submitted,
)


class Kind(StrEnum):
    """What a metric is to Airflow's `Stats`."""

    COUNTER = "counter"
    #: a duration in milliseconds
    TIMER = "timer"
    #: the value at a time
    GAUGE = "gauge"


class Description(NamedTuple):
    """What a metric means. Its name may end in `.{outcome}` or `.{failure}`, which stand for every member."""

    kind: Kind
    unit: str
    tags: str
    meaning: str


#: every metric by its name without the prefix `openai_batch.`
METRICS = {
    "jobs.submitted": Description(Kind.COUNTER, "jobs", "", "Jobs whose submit task succeeded."),
    "jobs.held": Description(Kind.COUNTER, "tasks", "", "Tasks that failed because the job waits for a person."),
    "batches.created": Description(Kind.COUNTER, "batches", "model", "Batches that the provider created."),
    "batches.refused.{failure}": Description(
        Kind.COUNTER, "batches", "model", "Batches that the provider did not create, or that failed validation."
    ),
    "batches.wait": Description(
        Kind.TIMER,
        "ms",
        "model",
        "From the seal of the job to the creation of a batch. It includes the wait for queue "
        "capacity. Only for rows that were never sent before.",
    ),
    "batches.duration": Description(
        Kind.TIMER, "ms", "model", "From the creation of a batch until its answers were in staging."
    ),
    "downloads.failed": Description(
        Kind.COUNTER, "batches", "", "Result files that could not be downloaded, or were not believed."
    ),
    "requests.{outcome}": Description(Kind.COUNTER, "requests", "model", "Requests by outcome, in every attempt."),
    "requests.retried": Description(
        Kind.COUNTER, "requests", "model", "Requests that were packed for another attempt."
    ),
    "requests.paid_twice": Description(
        Kind.COUNTER, "requests", "", "Requests that a duplicate batch answered. Alert on it."
    ),
    "tokens.input": Description(Kind.COUNTER, "tokens", "model", "Input tokens that the provider reported."),
    "tokens.output": Description(Kind.COUNTER, "tokens", "model", "Output tokens that the provider reported."),
    "cost": Description(Kind.COUNTER, "millionths of a US dollar", "model", "Cost of all answers of known cost."),
    "batches.unknown_cost": Description(
        Kind.COUNTER, "batches", "model", "Batches with an answer whose cost is unknown, which `cost` leaves out."
    ),
    "landings": Description(Kind.COUNTER, "landings", "", "Landings, each time that a job lands."),
    "rows.{outcome}": Description(Kind.COUNTER, "rows", "model", "Rows by outcome, each time that a job lands."),
    "saved": Description(
        Kind.COUNTER, "millionths of a US dollar", "model", "List price minus cost, at the first landing of a job."
    ),
    "batches.live": Description(Kind.GAUGE, "batches", "conn_id", "Batches that a triggerer waits for."),
    "batches.oldest": Description(Kind.GAUGE, "s", "conn_id", "Age of the oldest of these batches."),
    "poll.latency": Description(Kind.TIMER, "ms", "conn_id", "Time of a request for the status of batches."),
    "poll.failed": Description(Kind.COUNTER, "requests", "conn_id", "Requests for the status of batches that failed."),
}


class Metric(NamedTuple):
    """A value to be counted or timed now."""

    kind: Kind
    #: without the prefix
    name: str
    #: milliseconds for a timer
    value: int
    model: str | None = None


def metrics_of(
    record: Record, manifest: Manifest, shard: Shard | None, created_at: datetime | None
) -> Iterator[Metric]:
    """Yield the metrics of a record that this worker has just written.

    :param shard: the shard that the record is about, if it is known.
    :param created_at: when the batch that the record is about was created, if it is known.
    """
    model = shard.model if shard else None
    match record:
        case Submitted():
            yield Metric(Kind.COUNTER, "jobs.submitted", 1)
        case Created():
            yield Metric(Kind.COUNTER, "batches.created", 1, model)
            if shard is not None and shard.attempt == 1:
                yield Metric(Kind.TIMER, "batches.wait", _milliseconds(manifest.sealed_at, record.time), model)
        case Refused():
            yield _refused(record.failure, model)
        case RetryRound():
            for retried in record.shards:
                yield Metric(Kind.COUNTER, "requests.retried", retried.requests, retried.model)
        case Settled():
            yield from _settled(record, model, created_at)
        case DuplicateBatch() if record.ended and record.completed:
            yield Metric(Kind.COUNTER, "requests.paid_twice", record.completed)
        case CollectionFailed():
            yield Metric(Kind.COUNTER, "downloads.failed", 1)
        case Landed():
            yield from _landed(record, manifest.models)


def _refused(failure: Failure, model: str | None) -> Metric:
    return Metric(Kind.COUNTER, f"batches.refused.{failure}", 1, model)


def _settled(record: Settled, model: str | None, created_at: datetime | None) -> Iterator[Metric]:
    if record.failure not in (None, Failure.LINES):
        yield _refused(record.failure, model)
        return
    if record.batch_id and created_at is not None:
        yield Metric(Kind.TIMER, "batches.duration", _milliseconds(created_at, record.time), model)
    for outcome, requests in record.outcomes.items():
        yield Metric(Kind.COUNTER, f"requests.{outcome}", requests, model)
    yield Metric(Kind.COUNTER, "tokens.input", record.input_tokens, model)
    yield Metric(Kind.COUNTER, "tokens.output", record.output_tokens, model)
    if record.cost_usd is None:
        yield Metric(Kind.COUNTER, "batches.unknown_cost", 1, model)
    else:
        yield Metric(Kind.COUNTER, "cost", _millionths(Decimal(record.cost_usd)), model)


def _landed(record: Landed, models: list[str]) -> Iterator[Metric]:
    # The record has the outcomes of all models in one.
    model = models[0] if len(models) == 1 else None
    yield Metric(Kind.COUNTER, "landings", 1)
    for outcome, rows in record.outcomes.items():
        yield Metric(Kind.COUNTER, f"rows.{outcome}", rows, model)
    if record.number == 1 and record.cost_usd is not None and record.standard_cost_usd is not None:
        saved = Decimal(record.standard_cost_usd) - Decimal(record.cost_usd)
        yield Metric(Kind.COUNTER, "saved", max(_millionths(saved), 0), model)


def _milliseconds(start: datetime, end: datetime) -> int:
    return max(round((end - start).total_seconds() * 1000), 0)


def _millionths(usd: Decimal) -> int:
    return round(usd * 1_000_000)


def all_names() -> list[str]:
    """Return the name of every metric, with every outcome and failure."""
    outcomes, failures = [outcome.value for outcome in Outcome], [failure.value for failure in Failure]
    return sorted(
        name.format(outcome=outcome, failure=failure)
        for name in METRICS
        for outcome in (outcomes if "{outcome}" in name else [""])
        for failure in (failures if "{failure}" in name else [""])
    )
