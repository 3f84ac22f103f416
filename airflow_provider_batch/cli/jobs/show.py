"""Text output of `airflow-batch jobs list` and `jobs show`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_provider_batch.core.formatting import format_count, format_time, format_usd, format_usd_range
from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.lifecycle.summary import JobSummary, ShardSummary

#: maximum number of shards to print; a last line says how many more there are
MAX_SHARDS = 200


def format_list(jobs: Sequence[JobSummary], now: datetime) -> Iterator[str]:
    """Yield two lines for each job."""
    for job in jobs:
        index = f"[{job.map_index}]" if job.map_index >= 0 else ""
        yield f"{job.job_uid[:8]}  {job.dag_id}  {job.task_id}{index}  {job.run_id}"
        cost = f"; cost {format_usd(job.cost_usd)}" if job.cost_usd is not None else ""
        yield (
            f"          sealed {format_time(job.sealed_at, now)}; {format_count(job.requests, 'row')}, "
            f"{format_count(job.batches, 'batch', 'batches')}; {job.state}; {_format_outcomes(job.outcomes)}{cost}"
        )


def format_job(job: JobSummary, now: datetime) -> Iterator[str]:
    """Yield the lines that describe one job in full."""
    index = f", map index {job.map_index}" if job.map_index >= 0 else ""
    yield f"Job {job.job_uid}" + (f", generation {job.generation}" if job.generation > 1 else "")
    running_estimate = (
        [("so far", f"{_format_estimate(job.running_estimate)}, by the answers collected")]
        if job.running_estimate
        else []
    )
    yield from _format_fields(
        ("task", f"{job.task_id} of DAG {job.dag_id}{index}"),
        ("run", job.run_id),
        ("state", job.state),
        ("next", job.next),
        ("outcomes", _format_outcomes(job.outcomes)),
        (
            "rows",
            f"{job.requests:,}: {job.sent:,} sent, {format_count(job.duplicates, 'duplicate')}, {job.reused:,} reused"
            + (f", {job.invalid:,} with invalid input" if job.invalid else ""),
        ),
        ("sent to", f"{job.endpoint}, connection {job.connection}"),
        ("sealed", format_time(job.sealed_at, now)),
        ("last event", format_time(job.last_at, now)),
        ("deadline", format_time(job.deadline, now) if job.deadline else "not set yet; it is set when the wait starts"),
        ("estimate", _format_estimate(job.estimate)),
        *running_estimate,
        ("folder", job.folder),
    )
    if job.landed:
        yield from _format_fields(
            (
                "landed",
                f"in {job.landed.location} at {format_time(job.landed.time, now)}, landing {job.landed.number}; cost "
                f"{format_usd(job.landed.cost_usd)}",
            )
        )
        yield from _format_fields(("receipt", job.receipt))
        for reason in job.landed.reasons:
            yield f"    {reason.rows:,} {reason.outcome}, {reason.code}: {reason.message}"
    for retry_round in job.retry_rounds:
        yield (
            f"  retry round {retry_round.number}: {format_count(retry_round.requests, 'row')} at "
            f"{format_time(retry_round.time, now)}, in {', '.join(retry_round.shards)}"
        )
    yield "  shards"
    for shard in job.shards[:MAX_SHARDS]:
        yield from _format_shard(shard, now)
    if len(job.shards) > MAX_SHARDS:
        yield f"    … and {len(job.shards) - MAX_SHARDS:,} more; --json prints all of them"


def _format_shard(shard: ShardSummary, now: datetime) -> Iterator[str]:
    requests = format_count(shard.requests, "request")
    yield f"    {shard.name}  {shard.model}  {requests}, attempt {shard.attempt}: {shard.phase}"
    for submission in shard.submissions:
        time = f" at {format_time(submission.time, now)}" if submission.time else ""
        outcomes = f": {_format_outcomes(submission.outcomes)}" if submission.outcomes else ""
        batch = submission.batch_id or "no batch"
        yield f"      submission {submission.number}  {batch}  {submission.status}{time}{outcomes}"
        if submission.message:
            yield f"        {submission.message}"


def _format_fields(*fields: tuple[str, str]) -> Iterator[str]:
    for name, value in fields:
        yield f"  {name:<11} {value}"


def _format_outcomes(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "no rows"


def _format_estimate(estimate: Estimate) -> str:
    return format_usd_range(estimate.low_usd, estimate.high_usd, estimate.likely_usd)
