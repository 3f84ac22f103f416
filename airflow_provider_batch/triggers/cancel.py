"""Cancels batches from the triggerer, after a person's decision ended their task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import openai

from airflow_provider_batch.triggers.clients import shared_client

#: cancels under way at once; 500 batches have to be through in the 30 s that Airflow gives a trigger
AT_ONCE = 32
#: seconds that one cancel may take
TIMEOUT = 10.0
#: seconds before each try to cancel a batch: nobody comes back to it later
PAUSES = (0, 1, 2, 4, 8, 16)


async def cancel_batches(conn_id: str, batch_ids: Sequence[str], tell: Callable[[str, str], None]) -> int:
    """Cancel these batches, each tried several times; how many were cancelled or had ended already.

    :param tell: is told each batch that was not cancelled, and why.
    """
    async with shared_client(conn_id) as shared:
        slots = asyncio.Semaphore(AT_ONCE)

        async def cancel(batch_id: str) -> bool:
            said = ""
            for pause in PAUSES:
                await asyncio.sleep(pause)
                async with slots:
                    try:
                        client = await shared.get()
                    except Exception as error:  # noqa: BLE001  # whatever a secrets backend raises; it may pass
                        said = f"connection {conn_id!r} makes no client: {type(error).__name__}: {error}"
                        continue
                    try:
                        await client.batches.with_raw_response.cancel(batch_id, timeout=TIMEOUT)
                    except openai.ConflictError:  # it had ended
                        return True
                    except openai.AuthenticationError as error:
                        await shared.renew(client)
                        said = str(error)
                    except openai.OpenAIError as error:
                        said = str(error)
                    else:
                        return True
            tell(batch_id, said)
            return False

        return sum(await asyncio.gather(*(cancel(batch_id) for batch_id in batch_ids)))
