"""How far the jobs on the visible page of the list are, from their ledgers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence, Set
from datetime import datetime

import msgspec
from fastapi import HTTPException

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.progress import cost_so_far, outcomes_so_far
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.jobs.job_rows import count_outcomes
from airflow_provider_batch.plugins.lookup import find_job
from airflow_provider_batch.plugins.replies import no_job

#: maximum number of jobs of a request, and of those that it reads at the same time
MAX_JOBS = 50
_READ_TOGETHER = 4


class JobProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is. None is unknown, never 0."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    #: numbers of rows, as in the list
    done_rows: int | None = msgspec.field(name="done", default=None)
    failed: int | None = None
    waiting: int | None = None
    #: US dollars, of the answers that are collected
    cost_usd: float | None = None
    deadline: datetime | None = None
    #: why nothing is known, as a sentence
    problem: str | None = None


async def read_progress(keys: Sequence[JobKey], dag_ids: Set[str]) -> list[JobProgress]:
    """Return how far jobs are, in the order of their keys.

    If the store does not answer for one of them, the others are not read, so that the request does not wait for it
    again and again.

    :param dag_ids: the DAGs that the user may read.
    """
    slots = asyncio.Semaphore(_READ_TOGETHER)
    failures: list[HTTPException] = []

    async def read(key: JobKey) -> JobProgress:
        if key.dag_id not in dag_ids:
            return _unknown(key, no_job().detail)
        async with slots:
            if failures:
                return _unknown(key, failures[0].detail)
            try:
                return await budget.STORE.run(lambda: _read(key))
            except HTTPException as error:
                failures.append(error)
                return _unknown(key, error.detail)
            except BatchError as error:
                return _unknown(key, str(error))

    return list(await asyncio.gather(*map(read, keys)))


def _read(key: JobKey) -> JobProgress:
    ledger = find_job(key)
    return _unknown(key, no_job().detail) if ledger is None else progress_of(key, ledger.state())


def progress_of(key: JobKey, state: JobState) -> JobProgress:
    """Return how far a job is.

    A row that is retried is waiting again. The rows of a job that runs again after its landing are counted by what was
    collected, without the duplicates of other rows.
    """
    is_landed = state.landed is not None and not state.live_submissions()
    outcomes = state.landed.outcomes if state.landed and is_landed else outcomes_so_far(state)
    succeeded, unsuccessful = count_outcomes(outcomes)
    rows = state.manifest.requests
    return JobProgress(
        dag_id=key.dag_id,
        run_id=key.run_id,
        task_id=key.task_id,
        map_index=key.map_index,
        done_rows=succeeded,
        failed=unsuccessful,
        waiting=max(rows - (succeeded or 0) - (unsuccessful or 0), 0),
        cost_usd=cost_so_far(state),
        deadline=state.deadline,
    )


def _unknown(key: JobKey, problem: str) -> JobProgress:
    return JobProgress(
        dag_id=key.dag_id, run_id=key.run_id, task_id=key.task_id, map_index=key.map_index, problem=problem
    )
