"""Delivers webhooks to their receivers, signed according to Standard Webhooks (github.com/standard-webhooks).

A delivery succeeds if the receiver responds with 2xx within `TIMEOUT`. Everything else, including a redirect, is
retried with exponential backoff for 72 hours (developers.openai.com/api/docs/guides/webhooks).

The backoff and the 72 hours are measured with the server's clock. The timeout and the header `webhook-timestamp` use
real time, because receivers compare the header with their own clock.

A receiver can get the same event twice: if the server is killed, and with `--webhook-duplicates`.
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

#: real seconds within which a receiver must respond
TIMEOUT = 5.0
#: Seconds of the server's clock before the second attempt. Each further pause is twice as long as the one before it.
FIRST_PAUSE = 5.0
#: seconds of the server's clock after which the server gives up a delivery: 72 hours
LIFETIME = 259_200.0
#: maximum number of concurrent deliveries to one endpoint, so that an endpoint that hangs cannot use up all sockets
_MAX_CONCURRENT = 8
#: Maximum bytes of a response to read. Small responses are read completely, so that the receiver sees a clean end.
_MAX_RESPONSE_BYTES = 1 << 16


class UndeliveredError(Exception):
    """Raised if a receiver sent no HTTP response. The message says why."""


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return one value of the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return f"v1,{base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()}"


class WebhookSender:
    """Makes the deliveries of one store, each in a separate task. Must be used in one event loop."""

    def __init__(self, store: WebhookStore, clock: Clock, settings: Settings) -> None:
        self._store = store
        self._clock = clock
        self._seed = settings.seed
        self._duplicates = settings.webhook_duplicates
        # no proxies and no redirects, so that events go only to the endpoint's own URL
        self._http = httpx2.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=TIMEOUT,
            # Unlimited, so that a slow receiver cannot delay the others. Connections are not reused, because a receiver
            # may have closed one in the meantime.
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )
        self._slots: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_MAX_CONCURRENT))
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start all pending deliveries, and from now on every new one."""
        self._store.on_delivery = self._start_delivery
        for number in self._store.pending_deliveries():
            self._start_delivery(number)

    async def close(self) -> None:
        """Stop immediately. The next start resumes all pending deliveries."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.aclose()

    def _start_delivery(self, number: int) -> None:
        task = asyncio.create_task(self._deliver(number), name=f"webhook delivery {number}")
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOG.error(
                "The %s failed unexpectedly. It will be retried when the server restarts.",
                task.get_name(),
                exc_info=task.exception(),
            )

    async def _deliver(self, number: int) -> None:
        """Attempt a delivery until it succeeds, is given up, or its endpoint is deleted."""
        while (delivery := self._store.delivery(number)) is not None:
            await self._clock.sleep_until(delivery.due_at)
            async with self._slots[delivery.endpoint_id]:
                endpoint = self._store.endpoint(delivery.endpoint_id)
                if endpoint is None:
                    return
                problem = await self._attempt(endpoint, delivery)
                if problem is None and self._is_duplicated(number):
                    await self._attempt(endpoint, delivery)
            if problem is None:
                self._store.remove_delivery(delivery)
            else:
                self._postpone_or_give_up(endpoint, delivery, problem)

    def _is_duplicated(self, number: int) -> bool:
        return Random(f"{self._seed}/webhook/{number}").random() < self._duplicates

    async def _attempt(self, endpoint: Endpoint, delivery: Delivery) -> str | None:
        """Send the event once. Return None if it was accepted, or else the problem."""
        try:
            status = await self.post(endpoint, delivery.id, delivery.body)
        except UndeliveredError as error:
            return str(error)
        return None if 200 <= status < 300 else f"the receiver responded with status {status}"

    def _postpone_or_give_up(self, endpoint: Endpoint, delivery: Delivery, problem: str) -> None:
        due_at = self._clock.now() + FIRST_PAUSE * 2**delivery.attempts
        message = (
            f"Could not deliver webhook {delivery.id} to {endpoint.url} (attempt {delivery.attempts + 1}): {problem}."
        )
        if due_at > delivery.created_at + LIFETIME:
            _LOG.warning("%s Giving up, because retries end after 72 hours.", message)
            self._store.remove_delivery(delivery)
        else:
            level = logging.INFO if delivery.attempts else logging.WARNING
            _LOG.log(level, "%s Retrying for up to 72 hours.", message)
            self._store.postpone(delivery, due_at)

    async def post(self, endpoint: Endpoint, webhook_id: str, body: bytes) -> int:
        """Send an event once and return the HTTP status of the response.

        :raises UndeliveredError: no response came within `TIMEOUT`.
        """
        timestamp = int(time.time())
        secrets = endpoint.secrets_at(self._clock.now())
        signatures = [signature(secret, webhook_id, timestamp, body) for secret in secrets]
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "airflow-batch-local-server",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }
        try:
            async with asyncio.timeout(TIMEOUT):
                async with self._http.stream("POST", endpoint.url, content=body, headers=headers) as response:
                    size = 0
                    async for chunk in response.aiter_raw():
                        size += len(chunk)
                        if size > _MAX_RESPONSE_BYTES:
                            break
                    return response.status_code
        except TimeoutError as error:
            raise UndeliveredError(f"the receiver did not respond within {TIMEOUT:.0f} s") from error
        except httpx2.HTTPError as error:
            raise UndeliveredError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
