"""Cancelling the batches of a job because a person wants it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import BY_PERSON, CancelAsked
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.hooks.batch import BatchHook

#: why batches are cancelled of rows that were then asked anew
ASKED_ANEW = "asked anew"


def cancel_live(ledger: Ledger, hook: BatchHook, tell: Callable[[str], Any], reason: str = BY_PERSON) -> int:
    """Ask the provider to cancel every batch of a job that is not known to have ended; how many could not be asked.

    A batch that ended meanwhile is told of and left: the wait collects its answers. What was cancelled before is
    cancelled once more only if a person says so.
    """
    failed = 0
    for shard, tried in ledger.state().live():
        if tried.cancel is not None and reason != BY_PERSON:
            continue
        try:
            taken = hook.cancel(tried.batch_id)
        except ProviderError as error:
            failed += 1
            tell(f"{shard.shard.name}: {error}")
            continue
        said = f"is being cancelled ({taken.said})" if taken else "had ended before"
        tell(f"{shard.shard.name}: batch {tried.batch_id} {said}")
        if taken is not None or reason == ASKED_ANEW:
            ledger.add(CancelAsked(shard.shard.name, tried.n, reason, datetime.now(UTC)))
    return failed
