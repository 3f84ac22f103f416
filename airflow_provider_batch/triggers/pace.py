"""When a batch is looked at again. Numbers only: no clock of its own, no network.

The interval that the author chose is the longest. Young batches are looked at sooner, as small jobs often end within
minutes; so are those that are nearly done.
"""

from __future__ import annotations

import random

from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.provider.retry_after import parse_retry_after

#: how many times sooner than the interval a young or nearly ended batch is looked at
SOONER = 4
#: a batch is looked at after this part of its age
PART_OF_AGE = 0.1
#: this part of the requests answered counts as nearly done
NEARLY = 0.95
#: what is due within this part of its interval is looked at together with what is due now
TOGETHER = 0.125
#: a new batch is looked at within this many seconds, with all others that came meanwhile
NEW_WITHIN = 3.0
#: the longest pause after errors, in seconds, unless the interval itself is longer
LONGEST_BACKOFF = 300.0
#: the longest Retry-After that is taken at its word, in seconds
LONGEST_RETRY_AFTER = 900.0


def until_next_look(view: BatchView, now: float, interval: float) -> float:
    """Seconds until a running batch is looked at again.

    :param now: Unix seconds.
    :param interval: the longest it may be, in seconds.
    """
    if _nearly_done(view):
        return interval / SOONER
    if not view.created_at:
        return interval
    age = max(0.0, now - view.created_at)
    return min(max(age * PART_OF_AGE, interval / SOONER), interval)


def _nearly_done(view: BatchView) -> bool:
    if view.status is Status.CANCELLING or view.raw_status.lower() == "finalizing":
        return True
    return view.total > 0 and view.completed + view.failed >= NEARLY * view.total


def until_first_look(interval: float) -> float:
    """Seconds until a new batch is looked at; by chance, so that triggerers that start together do not ask together."""
    return min(NEW_WITHIN, interval) * random.uniform(0.3, 1.0)


def spread() -> float:
    """A factor for pauses, by chance."""
    return random.uniform(0.9, 1.1)


def backoff(failures: int, interval: float) -> float:
    """Seconds to pause after so many failed sweeps in a row."""
    longest = max(interval, min(LONGEST_BACKOFF, 16 * interval))
    return min(interval * 2.0 ** min(failures - 1, 10), longest)


def retry_after(said: str | None) -> float:
    """Seconds that a server's Retry-After asks for, a number or a date; 0 for none and for nonsense."""
    return min(parse_retry_after(said) or 0.0, LONGEST_RETRY_AFTER)
