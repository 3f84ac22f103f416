"""How far the jobs on the visible page of the list are, from their ledgers and from the provider."""

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
from airflow_provider_batch.plugins.job.live import Live, read_live
from airflow_provider_batch.plugins.jobs.job_rows import count_outcomes
from airflow_provider_batch.plugins.lookup import find_job
from airflow_provider_batch.plugins.replies import no_job

#: maximum number of jobs of a request, and of those that it reads at the same time
MAX_JOBS = 50
_READ_TOGETHER = 4
#: seconds for which a request waits for the provider's counts of a job
_LIVE_SECONDS = 8.0


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
    #: why nothing is known, or why the batches that run are not counted, as a sentence
    problem: str | None = None


async def read_progress(keys: Sequence[JobKey], dag_ids: Set[str]) -> list[JobProgress]:
    """Return how far jobs are, in the order of their keys.

    If the store does not answer for one of them, the others are not read, so that the request does not wait for it
    again and again.

    :param dag_ids: the DAGs that the user may read.
    """
    reader = _Reader()
    return list(await asyncio.gather(*(reader.read(key, is_readable=key.dag_id in dag_ids) for key in keys)))


class _Reader:
    """Reads a few jobs at a time. A source that did not answer is not tried a second time."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_READ_TOGETHER)
        self._store_problem = ""
        #: by id of the connection
        self._provider_problems: dict[str, str] = {}

    async def read(self, key: JobKey, *, is_readable: bool) -> JobProgress:
        if not is_readable:
            return _unknown(key, no_job().detail)
        async with self._slots:
            if self._store_problem:
                return _unknown(key, self._store_problem)
            try:
                state = await budget.STORE.run(lambda: _read_state(key))
            except HTTPException as error:
                self._store_problem = error.detail
                return _unknown(key, error.detail)
            except BatchError as error:
                return _unknown(key, str(error))
            if state is None:
                return _unknown(key, no_job().detail)
            progress = progress_of(key, state)
            return await self._add_live(progress, state) if state.live_submissions() else progress

    async def _add_live(self, progress: JobProgress, state: JobState) -> JobProgress:
        """Return the progress with the rows that the provider has answered in batches that still run."""
        conn_id = state.manifest.openai_conn_id
        if conn_id in self._provider_problems:
            return msgspec.structs.replace(progress, problem=self._provider_problems[conn_id])
        try:
            async with asyncio.timeout(_LIVE_SECONDS):
                live = await read_live(conn_id, state)
        except TimeoutError:
            problem = f"The provider did not answer within {_LIVE_SECONDS:g} s. Only collected rows are counted."
            self._provider_problems[conn_id] = problem
            return msgspec.structs.replace(progress, problem=problem)
        return add_live(progress, live)


def _read_state(key: JobKey) -> JobState | None:
    ledger = find_job(key)
    return None if ledger is None else ledger.state()


def add_live(progress: JobProgress, live: Live) -> JobProgress:
    """Return the progress with the rows that the provider has answered in batches that still run.

    Rows that failed there are still waiting: the sensor may retry them once the batch is collected.
    """
    waiting = progress.waiting or 0
    answered = min(sum(batch.completed or 0 for batch in live.batches), waiting)
    problems = [problem for problem in (live.problem, *(batch.problem for batch in live.batches)) if problem]
    return msgspec.structs.replace(
        progress,
        done_rows=(progress.done_rows or 0) + answered,
        waiting=waiting - answered,
        problem=problems[0] if problems else None,
    )


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
