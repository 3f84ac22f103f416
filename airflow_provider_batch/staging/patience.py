"""How long an operation on an object store is repeated while the store does not answer.

A store that is restarted, or that limits the rate of requests, answers 503 for a while. Its library repeats a request
for a few seconds. A task can wait longer: it would only fail, and Airflow's retry would do the same work again. So a
task sets its patience with `patient`. Without it, for instance in Airflow's API server and on the command line, where a
person waits, nothing is repeated beyond what the library does.

The patience is that of the process, because a task has a process of its own, and its threads share it.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.staging.store_errors import describe, is_transient

log = logging.getLogger(__name__)

Result = TypeVar("Result")

#: seconds for which a task repeats an operation
TASK_SECONDS = 600.0
#: seconds before the first repetition; each further delay is twice as long
FIRST_DELAY = 1.0
_MAX_DELAY = 30.0
#: seconds after which a wait looks whether the task is being stopped
_LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Patience:
    """For how many seconds an operation is repeated, and what ends that early."""

    seconds: float
    stopping: Callable[[], bool] = lambda: False


_patience = Patience(0)


@contextmanager
def patient(stopping: Callable[[], bool] = lambda: False, *, seconds: float = TASK_SECONDS) -> Iterator[None]:
    """While the block runs, repeat operations of this process on a store that does not answer.

    :param stopping: returns True once the worker is being stopped; nothing is repeated from then on.
    :param seconds: how long one operation is repeated.
    """
    global _patience
    before, _patience = _patience, Patience(seconds, stopping)
    try:
        yield
    finally:
        _patience = before


def persist(operation: Callable[[], Result], purpose: str) -> Result:
    """Return what an operation returns, and repeat it while the store does not answer.

    :param operation: may be carried out several times.
    :param purpose: what the operation does, as in "cannot read s3://bucket/file".
    :raises Exception: the last error of the operation.
    """
    patience, ends_at, delay = _patience, time.monotonic() + _patience.seconds, FIRST_DELAY
    while True:
        try:
            return operation()
        except Exception as error:
            time_left = ends_at - time.monotonic()
            if time_left <= 0 or patience.stopping() or not is_transient(error):
                raise
            log.warning(
                "Staging: cannot %s right now: %s. Trying again, for up to %s.",
                purpose,
                describe(error),
                format_count(round(time_left), "second"),
            )
        _wait(min(delay * random.uniform(0.5, 1), time_left), patience)
        delay = min(2 * delay, _MAX_DELAY)


def _wait(seconds: float, patience: Patience) -> None:
    ends_at = time.monotonic() + seconds
    while (time_left := ends_at - time.monotonic()) > 0 and not patience.stopping():
        time.sleep(min(time_left, _LOOK_EVERY))
