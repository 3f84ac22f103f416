"""`airflow-batch jobs show`: jobs as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from airflow_provider_batch.core.lifecycle.summary import JobSummary, ShardSummary

#: longer lists are cut, and say so
MAX_SHARDS = 200


def listed(jobs: Sequence[JobSummary]) -> Iterator[str]:
    """One block of two lines for each job."""
    for job in jobs:
        index = f"[{job.map_index}]" if job.map_index >= 0 else ""
        yield f"{job.job_uid[:8]}  {job.dag_id}  {job.task_id}{index}  {job.run_id}"
        cost = f"; cost {job.cost_usd} US dollars" if job.cost_usd is not None else ""
        yield (
            f"          sealed {_time(job.sealed_at)}; {job.requests:,} rows, {job.batches} batch(es); {job.state}; "
            f"{_counts(job.outcomes)}{cost}"
        )


def shown(job: JobSummary) -> Iterator[str]:
    """Everything that is known of one job."""
    index = f", map index {job.map_index}" if job.map_index >= 0 else ""
    yield f"Job {job.job_uid}" + (f", generation {job.generation}" if job.generation > 1 else "")
    yield from _pairs(
        ("task", f"{job.task_id} of DAG {job.dag_id}{index}"),
        ("run", job.run_id),
        ("state", job.state),
        ("next", job.next),
        ("outcomes", _counts(job.outcomes)),
        (
            "rows",
            f"{job.requests:,}: {job.sent:,} sent, {job.duplicates:,} duplicates, {job.reused:,} reused",
        ),
        ("sent to", f"{job.endpoint}, connection {job.connection}"),
        ("sealed", _time(job.sealed_at)),
        ("last event", _time(job.last_at)),
        ("deadline", _time(job.deadline) if job.deadline else "none yet: it is set when the wait begins"),
        ("estimate", _range(job.estimate.low_usd, job.estimate.high_usd)),
        ("folder", job.folder),
    )
    if job.landed:
        cost = job.landed.cost_usd
        yield from _pairs(
            (
                "landed",
                f"in {job.landed.location} at {_time(job.landed.time)}, landing {job.landed.number}; cost "
                f"{'unknown' if cost is None else f'{cost} US dollars'}",
            )
        )
        for reason in job.landed.reasons:
            yield f"    {reason.rows:,} {reason.outcome}, {reason.code}: {reason.message}"
    for retry_round in job.retry_rounds:
        yield (
            f"  retry round {retry_round.number}: {retry_round.requests:,} rows at {_time(retry_round.time)}, in "
            f"{', '.join(retry_round.shards)}"
        )
    yield "  shards"
    for shard in job.shards[:MAX_SHARDS]:
        yield from _shard(shard)
    if len(job.shards) > MAX_SHARDS:
        yield f"    … and {len(job.shards) - MAX_SHARDS} more; --json has them all"


def _shard(shard: ShardSummary) -> Iterator[str]:
    yield f"    {shard.name}  {shard.model}  {shard.requests:,} requests, attempt {shard.attempt}: {shard.phase}"
    for submission in shard.submissions:
        at = f" at {_time(submission.time)}" if submission.time else ""
        counts = f": {_counts(submission.outcomes)}" if submission.outcomes else ""
        batch = submission.batch_id or "no batch"
        yield f"      submission {submission.number}  {batch}  {submission.status}{at}{counts}"
        if submission.message:
            yield f"        {submission.message}"


def _pairs(*pairs: tuple[str, str]) -> Iterator[str]:
    for name, value in pairs:
        yield f"  {name:<11} {value}"


def _counts(outcomes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items()) or "no rows"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _range(low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else f"between {low:.4f} and {high:.4f} US dollars"
