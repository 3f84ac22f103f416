"""The counts of the batches that run, as the provider tells them now.

The ledger learns of a batch only when a task looks at it. So a batch that was cancelled while the wait was deferred, or
that has ended since, still counts as running there. The page asks the provider, and keeps the answers for ten seconds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from fastapi import HTTPException

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.provider.catalogue import OPENAI_BATCHES, is_openai
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.plugins.budget import ThreadBudget

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook

#: maximum number of batches of a job that are read, of them at the same time, and of jobs whose answers are kept
MAX_BATCHES, MAX_CONCURRENT_READS, MAX_JOBS = 50, 4, 200
#: seconds for which answers are kept, and for a single read
KEEP, TIMEOUT = 10.0, 5.0

#: reads from the providers
PROVIDER = ThreadBudget("The provider", threads=8, queued=64, seconds=8)


class LiveBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that the ledger records as running, as the provider shows it."""

    batch_id: str
    shard: str
    #: the provider's word; None if it could not be read
    status: str | None = None
    #: numbers of requests; None if the provider does not tell
    total: int | None = None
    completed: int | None = None
    failed: int | None = None
    as_of: datetime | None = None
    #: why it could not be read, as a sentence
    problem: str | None = None


class Live(msgspec.Struct, frozen=True):
    """The batches of a job that the ledger records as running."""

    batches: list[LiveBatch]
    problem: str | None = None
    #: the provider's own page for its batches, if it has one
    batch_url: str | None = None


_cache: dict[str, tuple[float, Live]] = {}


async def read_live(conn_id: str, state: JobState) -> Live:
    """Return the live counts of a job, at most ten seconds old. Raises nothing: what cannot be read is said."""
    key, now = f"{state.manifest.job_uid} {state.manifest.generation}", time.monotonic()
    live_ids = [(shard.name, submission.batch_id) for shard, submission in state.live_submissions()]
    if key in _cache and now - _cache[key][0] < KEEP and _is_of(_cache[key][1], live_ids):
        return _cache[key][1]
    live = await _ask(conn_id, live_ids) if live_ids else Live([])
    for old in [name for name, (read_at, _) in _cache.items() if now - read_at >= KEEP]:
        del _cache[old]
    if len(_cache) < MAX_JOBS:
        _cache[key] = (time.monotonic(), live)
    return live


def _is_of(live: Live, live_ids: list[tuple[str, str]]) -> bool:
    return [(batch.shard, batch.batch_id) for batch in live.batches] == live_ids[:MAX_BATCHES]


async def _ask(conn_id: str, live_ids: list[tuple[str, str]]) -> Live:
    try:
        hook = await PROVIDER.run(lambda: _open(conn_id))
    except (BatchError, HTTPException) as error:
        return Live([LiveBatch(batch_id=batch_id, shard=shard) for shard, batch_id in live_ids], _sentence(error))
    slots = asyncio.Semaphore(MAX_CONCURRENT_READS)

    async def read(shard: str, batch_id: str) -> LiveBatch:
        async with slots:
            try:
                return await PROVIDER.run(lambda: _read(hook, shard, batch_id))
            except (BatchError, HTTPException) as error:
                return LiveBatch(batch_id=batch_id, shard=shard, problem=_sentence(error))

    batches = await asyncio.gather(*(read(*live_id) for live_id in live_ids[:MAX_BATCHES]))
    more = len(live_ids) - len(batches)
    problem = f"{format_count(more, 'more batch', 'more batches')} were not read." if more > 0 else None
    return Live(list(batches), problem, OPENAI_BATCHES if is_openai(hook.host) else None)


def _open(conn_id: str) -> BatchHook:
    hook = open_hook(conn_id)
    hook.check()
    return hook


def _read(hook: BatchHook, shard: str, batch_id: str) -> LiveBatch:
    batch = hook.retrieve(batch_id, timeout=TIMEOUT)
    has_counts = batch.total > 0
    return LiveBatch(
        batch_id=batch_id,
        shard=shard,
        status=batch.raw_status,
        total=batch.total if has_counts else None,
        completed=batch.completed if has_counts else None,
        failed=batch.failed if has_counts else None,
        as_of=datetime.now(UTC),
    )


def _sentence(error: BatchError | HTTPException) -> str:
    return str(error.detail) if isinstance(error, HTTPException) else str(error)
