"""When to read a batch again. Pure arithmetic: no clock and no network.

The author's interval is the maximum. Young batches are read sooner, because small jobs often end within minutes, and so
are batches that are nearly done.
"""

from __future__ import annotations

import random

from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.core.provider.retry_after import parse_retry_after

#: reads per interval of a nearly done batch, and the maximum for a young batch
SPEEDUP = 4
#: a batch is read again after this fraction of its age
AGE_FRACTION = 0.1
#: fraction of answered requests from which a batch counts as nearly done
NEARLY_DONE = 0.95
#: batches that fall due within this fraction of their interval are read together with those that are due now
EARLY_FRACTION = 0.125
#: maximum seconds until a new batch is first read, together with all others that were added meanwhile
FIRST_READ_WITHIN = 3.0
#: maximum pause after errors, in seconds, unless the interval itself is longer
MAX_BACKOFF = 300.0
#: maximum seconds that a Retry-After header can hold up reads
MAX_RETRY_AFTER = 900.0


def seconds_until_next_read(view: BatchView, now: float, interval: float) -> float:
    """Return the seconds until a running batch is read again.

    :param now: Unix time in seconds.
    :param interval: maximum result, in seconds.
    """
    if _is_nearly_done(view):
        return interval / SPEEDUP
    if not view.created_at:
        return interval
    age = max(0.0, now - view.created_at)
    return min(max(age * AGE_FRACTION, interval / SPEEDUP), interval)


def _is_nearly_done(view: BatchView) -> bool:
    if view.status is Status.CANCELLING or view.raw_status.lower() == "finalizing":
        return True
    return view.total > 0 and view.answered >= NEARLY_DONE * view.total


def seconds_until_first_read(interval: float) -> float:
    """Return the seconds until a new batch is first read.

    The result is random, so that triggerers that start together do not call the provider together.
    """
    return min(FIRST_READ_WITHIN, interval) * random.uniform(0.3, 1.0)


def jitter() -> float:
    """Return a random factor for a pause, close to 1."""
    return random.uniform(0.9, 1.1)


def backoff(failures: int, interval: float) -> float:
    """Return the seconds to pause after a number of consecutive failures."""
    longest = max(interval, min(MAX_BACKOFF, 16 * interval))
    return min(interval * 2.0 ** min(failures - 1, 10), longest)


def bounded_retry_after(header: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, up to a maximum; 0 if it is missing or invalid."""
    return min(parse_retry_after(header) or 0.0, MAX_RETRY_AFTER)
