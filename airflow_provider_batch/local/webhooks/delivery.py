"""Brings webhooks to their receivers, signed as Standard Webhooks has it (github.com/standard-webhooks).

An answer of 2xx within `PATIENCE` is success; anything else, a redirect too, is tried again with exponential backoff
until 72 hours have passed (developers.openai.com/api/docs/guides/webhooks). Backoff and the 72 hours go by the server's
clock; the header `webhook-timestamp` and the patience are real time, as receivers compare the one with their own clock.

A receiver may hear of the same event twice: after a kill, and on request (`--webhook-duplicates`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import time
from collections import defaultdict
from random import Random

import httpx2

from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.webhooks.store import Delivery, Endpoint, WebhookStore

_LOG = logging.getLogger(__name__)

#: real seconds in which a receiver must answer
PATIENCE = 5.0
#: seconds of the server's clock until the second attempt; each later pause is twice as long
FIRST_PAUSE = 5.0
#: seconds of the server's clock after which no further attempt is made: 72 hours
LIFETIME = 259_200.0
#: deliveries to one endpoint at a time, so that one that hangs does not take up every socket
_AT_ONCE = 8
#: bytes of an answer that are read, to let small ones end in peace
_READ = 1 << 16


class UndeliveredError(Exception):
    """No HTTP answer came from a receiver. Says why."""


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """One value of the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()}"


class Courier:
    """Makes the deliveries of one store, each in a task of its own. Belongs to one event loop."""

    def __init__(self, store: WebhookStore, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._seed = settings.seed
        self._duplicates = settings.webhook_duplicates
        # Neither a proxy nor a redirect leads away from the receiver that was named.
        self._http = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=PATIENCE,
            # No receiver waits for another's connection, and none is spoken to over one that it may have closed.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take up what is still to be delivered, and from now on whatever is added."""
        self._store.on_delivery = self._take
        for number in self._store.waiting():
            self._take(number)

    async def close(self) -> None:
        """Stop at once; what has not arrived is delivered after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def _take(self, number: int) -> None:
        task = asyncio.create_task(self._deliver(number), name=f"webhook delivery {number}")
        self._tasks.add(task)
        task.add_done_callback(self._drop)

    def _drop(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("The %s broke off", task.get_name(), exc_info=task.exception())

    async def _deliver(self, number: int) -> None:
        """Try until it has arrived, is given up, or its endpoint is gone."""
        while (delivery := self._store.delivery(number)) is not None:
            await self._clock.sleep_until(delivery.due_at)
            async with self._slots[delivery.endpoint_id]:
                endpoint = self._store.endpoint(delivery.endpoint_id)
                if endpoint is None:
                    return
                problem = await self._attempt(endpoint, delivery)
                if problem is None and self._is_doubled(number):
                    await self._attempt(endpoint, delivery)
            if problem is None:
                self._store.finish(delivery)
            else:
                self._go_on(endpoint, delivery, problem)

    def _is_doubled(self, number: int) -> bool:
        return Random(f"{self._seed}/webhook/{number}").random() < self._duplicates

    async def _attempt(self, endpoint: Endpoint, delivery: Delivery) -> str | None:
        """None if it has arrived, else what was wrong."""
        try:
            status = await self.post(endpoint, delivery.id, delivery.body)
        except UndeliveredError as error:
            return str(error)
        return None if 200 <= status < 300 else f"it answered {status}"

    def _go_on(self, endpoint: Endpoint, delivery: Delivery, problem: str) -> None:
        due_at = self._clock.now() + FIRST_PAUSE * 2**delivery.attempts
        what = f"Webhook {delivery.id} did not arrive at {endpoint.url} on attempt {delivery.attempts + 1}: {problem}."
        if due_at > delivery.created_at + LIFETIME:
            _LOG.warning("%s It is given up, as 72 hours have passed.", what)
            self._store.finish(delivery)
        else:
            _LOG.log(logging.INFO if delivery.attempts else logging.WARNING, "%s It is tried again for 72 hours.", what)
            self._store.postpone(delivery, due_at)

    async def post(self, endpoint: Endpoint, webhook_id: str, body: bytes) -> int:
        """Send an event once; the HTTP status of the answer.

        :raises UndeliveredError: none came in time.
        """
        timestamp = int(time.time())
        signatures = [signature(one, webhook_id, timestamp, body) for one in endpoint.secrets_at(self._clock.now())]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "airflow-batch-local-server",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
        try:
            async with asyncio.timeout(PATIENCE):
                async with self._http.stream("POST", endpoint.url, content=body, headers=headers) as answer:
                    read = 0
                    async for chunk in answer.aiter_raw():
                        read += len(chunk)
                        if read > _READ:
                            break
                    return answer.status_code
        except TimeoutError as error:
            raise UndeliveredError(f"it did not answer within {PATIENCE:.0f} s") from error
        except httpx2.HTTPError as error:
            raise UndeliveredError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
