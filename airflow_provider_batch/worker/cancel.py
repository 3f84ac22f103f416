"""Cancels batches of a job: for a person, for a killed task, and for steps of the lifecycle.

For a deferred wait, the trigger cancels the batches itself (`triggers.cancel`), because it may not read staging.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.lifecycle.cancelling import cancel_record, cancel_steps
from airflow_provider_batch.core.lifecycle.steps import Cancel
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.worker.parallel import run_concurrently

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook


def cancel_job(
    ledger: Ledger, hook: BatchHook, reason: str, report: Callable[[str], object], *, concurrency: int = 1
) -> int:
    """Cancel every batch of a job that is not known to have ended, and record it.

    :param reason: the reason to record. Batches that were cancelled before are skipped unless it is `BY_PERSON`.
    :param report: receives a sentence about each batch.
    :param concurrency: number of cancel requests sent at the same time.
    :return: number of batches that the provider did not cancel.
    """
    steps = cancel_steps(ledger.state(), reason)
    return len(cancel_batches(ledger, hook, steps, report, concurrency=concurrency))


def cancel_batches(
    ledger: Ledger,
    hook: BatchHook,
    steps: Sequence[Cancel],
    report: Callable[[str], object],
    *,
    concurrency: int = 1,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Cancel]:
    """Cancel these batches, and record each cancel as soon as the provider has answered.

    :return: the steps whose cancel request failed. A failed request does not stop the others.
    """
    failed_steps: list[Cancel] = []

    def cancel(step: Cancel) -> BatchView | ProviderError | None:
        try:
            return hook.cancel(step.submission.batch_id)
        except ProviderError as error:
            return error

    def record(step: Cancel, answer: BatchView | ProviderError | None) -> None:
        name, batch_id = step.shard.name, step.submission.batch_id
        if isinstance(answer, ProviderError):
            failed_steps.append(step)
            report(f"{name}: {answer}")
            return
        ledger.add(cancel_record(step, clock()))
        if answer is None:
            report(f"{name}: batch {batch_id} had already ended, so there was nothing to cancel ({step.reason})")
        else:
            report(f"{name}: cancelling batch {batch_id} ({step.reason}); its status is {answer.raw_status}")

    if concurrency > 1 and steps:
        hook.warm_up()
        run_concurrently(steps, cancel, record, concurrency)
    else:
        for step in steps:
            record(step, cancel(step))
    return failed_steps
