"""Cancels batches from the triggerer, after a person marked their task as failed or skipped, or deleted its run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import openai
from tenacity import retry, stop_after_attempt, wait_exponential

from airflow_provider_batch.hooks.batch import describe_error, is_already_ended
from airflow_provider_batch.triggers.clients import shared_client

#: maximum number of concurrent cancel calls; Airflow gives a trigger 30 s, enough to cancel 500 batches at this rate
CONCURRENCY = 32
#: timeout for one cancel call, in seconds
TIMEOUT = 10.0
#: Maximum number of cancel calls per batch, 1, 2, 4, 8 and 16 s apart. Nothing retries after the last one.
ATTEMPTS = 6


async def cancel_batches(conn_id: str, batch_ids: Sequence[str], report: Callable[[str, str], None]) -> int:
    """Cancel these batches, with retries, and return how many were cancelled or had already ended.

    :param report: called with the id of each batch that was not cancelled, and the reason.
    """
    async with shared_client(conn_id) as shared:
        slots = asyncio.Semaphore(CONCURRENCY)

        @retry(stop=stop_after_attempt(ATTEMPTS), wait=wait_exponential(), reraise=True)
        async def cancel(batch_id: str) -> None:
            async with slots:
                client = await shared.get()
                try:
                    await client.batches.with_raw_response.cancel(batch_id, timeout=TIMEOUT)
                except openai.AuthenticationError:
                    await shared.renew(client)
                    raise
                except openai.OpenAIError as error:
                    if not is_already_ended(error):
                        raise

        results = await asyncio.gather(*map(cancel, batch_ids), return_exceptions=True)
    not_cancelled = [(batch_id, error) for batch_id, error in zip(batch_ids, results, strict=True) if error is not None]
    for batch_id, error in not_cancelled:
        report(batch_id, describe_error(error))
    return len(batch_ids) - len(not_cancelled)
