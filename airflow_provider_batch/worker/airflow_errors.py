"""Translates our errors for Airflow: an error that a retry cannot fix fails the task without retries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_batch.core.lifecycle.steps import Void
from airflow_provider_batch.exceptions import BatchError, BudgetError, CanaryError


@contextmanager
def airflow_failures() -> Iterator[None]:
    """Turn errors that no retry can fix into `AirflowFailException`, with the same message."""
    try:
        yield
    except BatchError as error:
        if error.retry:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def canary_error(void: Void) -> CanaryError | BudgetError:
    """Return the error for a job that its canary stopped."""
    return BudgetError(void.message) if void.over_budget else CanaryError(void.message, retry=void.may_pass)
