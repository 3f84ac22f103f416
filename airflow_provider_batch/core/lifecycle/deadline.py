"""The deadline of a wait: when it is set, and when a cleared wait gets a new one.

The deadline is absolute and recorded in the ledger. A retry after a crash and every start after a deferral read the
recorded deadline and change nothing. Within a generation, only a clear of the wait by a person can move it:

    the wait is running, before its deadline       the deadline stays
    the wait has ended, or its deadline passed     a new deadline, and a fresh allowance of attempts

    start ──────── deadline 1 ── wait ends ── cleared ──────── deadline 2
                                              └─ earlier attempts no longer count against `max_attempts`

So a person who clears a wait in the middle of a job does not extend it, and a person who clears a finished wait because
some rows failed gets those rows retried with the full number of attempts. `attempts.py` computes which attempts are
forgiven.

The CUT-OFF is when batches are cancelled. Without a final pass it is the deadline. With one it is earlier, so that the
final pass can answer the remaining rows by the deadline:

    start ──── batches run ──── cut-off ── cancel, collect ── final pass ──── deadline
                                │◄── 20 minutes, and for each row 3 s on flex, 0.6 s otherwise ──►│

The cut-off never comes before the middle of the wait.

A start records a deadline under its clear epoch (see `TaskStarted`). If two workers start in the same epoch, the first
record counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow_provider_batch.core.ledger.records import Deadline
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.steps import (
    FINAL_PASS_LEAD,
    FLEX_LEAD_PER_ROW,
    STANDARD_LEAD_PER_ROW,
    Policy,
)


def deadline_to_record(state: JobState, clear_epoch: int, ends_at: datetime, now: datetime) -> Deadline | None:
    """Return the deadline to record when a waiting task starts, or None if its clear epoch already has one.

    :param clear_epoch: the `max_tries` of the task instance, which only grows.
    :param ends_at: when a wait that starts now would end.
    """
    last = state.deadline_record
    if clear_epoch in state.deadline_epochs:
        return None
    if last is None:
        return Deadline(ends_at, now, clear_epoch)
    is_over = now >= last.ends_at or (state.finished is not None and state.finished.time >= last.time)
    return Deadline(ends_at if is_over else last.ends_at, now, clear_epoch, is_over)


def cutoff(state: JobState, policy: Policy) -> datetime | None:
    """Return when batches are cancelled, or None if no wait has started."""
    deadline = state.deadline_record
    if deadline is None:
        return None
    rows = min(policy.at_deadline_rows, state.manifest.sent)
    if not rows:
        return deadline.ends_at
    lead_per_row = FLEX_LEAD_PER_ROW if policy.has_flex else STANDARD_LEAD_PER_ROW
    lead = min(FINAL_PASS_LEAD + rows * lead_per_row, (deadline.ends_at - deadline.time) / 2)
    return deadline.ends_at - max(lead, timedelta(0))
