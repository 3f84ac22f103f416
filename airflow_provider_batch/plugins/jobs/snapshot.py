"""All jobs, as they were a few seconds ago.

Every view of the list needs all jobs, for its totals. They are read once for all views and users of an API server, and
at most once in `MAX_AGE` seconds.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from airflow_provider_batch.plugins.jobs.job_rows import JobRow, State, make_job_rows
from airflow_provider_batch.plugins.jobs.task_rows import read_task_rows

#: seconds for which the jobs are not read again
MAX_AGE = 5.0

#: how many of the newest jobs of a task tell how long the next one takes
_EARLIER_JOBS = 20


class Snapshot:
    """The jobs of all DAGs, newest first.

    :param read: reads them.
    """

    def __init__(self, read: Callable[[], list[JobRow]]) -> None:
        self._read = read
        self._lock = threading.Lock()
        self._rows: list[JobRow] = []
        self._read_at = -MAX_AGE

    def rows(self) -> list[JobRow]:
        """Return the jobs. Do not change the list."""
        with self._lock:
            if time.monotonic() - self._read_at >= MAX_AGE:
                self._rows = self._read()
                self._read_at = time.monotonic()
            return self._rows


def read_jobs() -> list[JobRow]:
    """Return the jobs of all DAGs, newest first."""
    oldest = datetime.min.replace(tzinfo=UTC)
    rows = sorted(make_job_rows(read_task_rows()), key=lambda row: row.started_at or oldest, reverse=True)
    return expect_ends(rows, datetime.now(UTC))


def expect_ends(rows: Sequence[JobRow], now: datetime) -> list[JobRow]:
    """Return the jobs with the time at which those that run are expected to end.

    A job is expected to take as long as half of the newest jobs of the same task did. That is unknown if there are
    none, or if the job already takes longer.

    :param rows: newest first.
    """
    durations: defaultdict[tuple[str, str], list[timedelta]] = defaultdict(list)
    for row in rows:
        earlier = durations[row.dag_id, row.task_id]
        if row.state is State.LANDED and row.started_at and row.ended_at and len(earlier) < _EARLIER_JOBS:
            earlier.append(row.ended_at - row.started_at)
    return [_expect_end(row, durations[row.dag_id, row.task_id], now) for row in rows]


def _expect_end(row: JobRow, durations: list[timedelta], now: datetime) -> JobRow:
    if row.has_ended or row.started_at is None or not durations:
        return row
    expected_end = row.started_at + sorted(durations)[len(durations) // 2]
    return msgspec.structs.replace(row, expected_end=expected_end) if expected_end > now else row


JOBS = Snapshot(read_jobs)
