"""Our errors, as Airflow acts on them: what a retry cannot help fails the task at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_batch.core.lifecycle.steps import Void
from airflow_provider_batch.exceptions import BatchError, BudgetError, CanaryError


@contextmanager
def told_to_airflow() -> Iterator[None]:
    """Turn errors that no retry can help into `AirflowFailException`; the message stays."""
    try:
        yield
    except BatchError as error:
        if error.retry:
            raise
        raise AirflowFailException(f"{type(error).__name__}: {error}") from error


def canary_error(void: Void) -> CanaryError | BudgetError:
    """The error of a job that its canary stopped."""
    return BudgetError(void.message) if void.over_budget else CanaryError(void.message)
