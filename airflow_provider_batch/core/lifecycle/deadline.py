"""The deadline of a wait: when it is set, and when a cleared wait gets a new one.

The deadline is absolute and recorded in the ledger. A retry after a crash, and every start after a deferral, reads the
recorded deadline and changes nothing. Only a person's clear of the wait may move it:

    the wait had not ended, and its deadline has not passed     the deadline stays
    the wait had ended, or its deadline has passed              a new deadline, and a fresh allowance of attempts

With a fresh allowance, earlier attempts at the rows without a usable answer no longer count against `max_attempts`.
"""

from __future__ import annotations

from datetime import datetime

from airflow_provider_batch.core.ledger.records import Deadline
from airflow_provider_batch.core.ledger.state import JobState


def deadline_to_record(state: JobState, clear: int, ends: datetime, now: datetime) -> Deadline | None:
    """Return the deadline to record when a task that waits starts, or None if this clear already has one.

    :param clear: the number of the last clear of the task; it only grows.
    :param ends: when a wait that starts now would end.
    """
    last = state.deadline_record
    if clear in state.deadline_epochs:
        return None
    if last is None:
        return Deadline(ends, now, clear)
    fresh = now >= last.ends_at or (state.finished is not None and state.finished.time >= last.time)
    return Deadline(ends if fresh else last.ends_at, now, clear, fresh)
