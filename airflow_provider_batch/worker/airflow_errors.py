"""Translates our errors for Airflow: an error that a retry cannot fix fails the task without retries."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_batch.core.lifecycle.metrics import Kind
from airflow_provider_batch.core.lifecycle.steps import Void
from airflow_provider_batch.exceptions import BatchError, BudgetError, CanaryError, JobHeldError
from airflow_provider_batch.staging.patience import patient
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.metrics import send

#: characters per line of a logged reason. Airflow's page shows about this many, and only wraps if asked.
_LINE_WIDTH = 100


@contextmanager
def airflow_failures(log: Log, stopping: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Log why a task fails, and turn errors that no retry can fix into `AirflowFailException` with the same message.

    While the block runs, operations on staging have the patience of a task.

    Airflow logs the stack of an error before its message. So the message is logged first, and the stack of an error
    that no retry can fix, which is about the arguments or the rows, ends here. The log level DEBUG shows all of it.

    :param stopping: returns True once the worker is being stopped.
    """
    try:
        with patient(stopping):
            yield
    except BatchError as error:
        log_reason(log, f"{type(error).__name__}: {error}")
        if isinstance(error, JobHeldError):
            send(Kind.COUNTER, "jobs.held", 1)
        if error.retry:
            raise
        log.debug("The error was raised here:", exc_info=error)
        raise AirflowFailException(f"{type(error).__name__}: {error}") from None


def log_reason(log: Log, message: str) -> None:
    """Log why a task fails, in lines that fit on a page."""
    lines = [
        line
        for paragraph in message.splitlines()
        for line in textwrap.wrap(paragraph, _LINE_WIDTH, break_long_words=False, break_on_hyphens=False)
    ]
    log.error("%s", "\n".join(lines))


def canary_error(void: Void) -> CanaryError | BudgetError:
    """Return the error for a job that its canary stopped."""
    return BudgetError(void.message) if void.over_budget else CanaryError(void.message, retry=void.may_pass)
