"""The rule of `airflow-batch jobs clean`: which jobs may be removed from staging."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from airflow_provider_batch.core.formatting import format_age, format_count
from airflow_provider_batch.core.lifecycle.summary import JobSummary


class Verdict(msgspec.Struct, frozen=True):
    """Whether the folder of a job may be removed, and why or why not."""

    removable: bool
    reason: str


def judge(job: JobSummary, retention: timedelta, now: datetime, *, include_abandoned: bool) -> Verdict:
    """Decide whether a job may be removed: it has landed, none of its batches runs, and its retention has passed.

    :param include_abandoned: also remove jobs that never landed, together with the answers that were paid for.
    """
    days = retention / timedelta(days=1)
    period = f"{days:g} {'day' if days == 1 else 'days'}"
    live = job.live + sum(1 for shard in job.shards if shard.phase == "creating")
    if live:
        return Verdict(
            False, f"{format_count(live, 'batch', 'batches')} may still be running; `jobs cancel` cancels the job"
        )
    if now - job.last_at < retention:
        return Verdict(False, f"its last event was {format_age(job.last_at, now)}, and its retention is {period}")
    if job.landed is not None and "pending" not in job.outcomes:
        return Verdict(True, f"landed in {job.landed.location}, and its retention of {period} has passed")
    if include_abandoned:
        return Verdict(True, f"never landed completely, and its retention of {period} has passed")
    return Verdict(
        False, "it never landed completely, so its answers exist only in staging; --abandoned removes it too"
    )
