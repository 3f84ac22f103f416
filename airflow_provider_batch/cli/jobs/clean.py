"""`airflow-batch jobs clean`: staging of jobs that nobody needs any more."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from airflow_provider_batch.core.lifecycle.summary import JobSummary


class Verdict(msgspec.Struct, frozen=True):
    """Whether a job's folder may go, and why or why not."""

    removable: bool
    why: str


def judge(job: JobSummary, retention: timedelta, now: datetime, *, abandoned: bool) -> Verdict:
    """Whether the staging of a job may be removed: it is landed, nothing of it runs, and its retention is over.

    :param abandoned: jobs that never landed may go too; with them go the answers that were paid for.
    """
    days = f"{retention / timedelta(days=1):g} days"
    open_creates = sum(1 for shard in job.shards if shard.phase == "creating")
    if job.live or open_creates:
        return Verdict(False, f"{job.live + open_creates} batch(es) may be live; `jobs cancel` stops them")
    if now - job.last_at < retention:
        return Verdict(False, f"its last event is less than {days} ago")
    if job.landed is not None and "pending" not in job.outcomes:
        return Verdict(True, f"landed in {job.landed.location}, {days} are over")
    if abandoned:
        return Verdict(True, f"never landed whole, {days} are over")
    return Verdict(False, "it never landed whole, and its answers are here alone; --abandoned removes it too")
