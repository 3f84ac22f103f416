"""One async client per connection and event loop, shared by every trigger that waits on that connection.

Building a client takes about 40 ms and 0.8 MB and reads the connection from Airflow, so a thousand triggers share one.
The client is rebuilt every 15 minutes and after a 401, which picks up a rotated key. It is closed when the last trigger
leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from airflow_provider_batch.hooks.batch import BatchHook

if TYPE_CHECKING:
    from openai import AsyncOpenAI

#: seconds after which a client is rebuilt
MAX_AGE = 15 * 60.0
#: timeout for one read, in seconds
READ_TIMEOUT = 60.0
#: maximum number of concurrent reads per connection
SLOTS = 16


class _ReadLogFilter(logging.Filter):
    """Drops the HTTP client's log line for each read of a batch, which would bury the lines that a person looks for."""

    def filter(self, record: logging.LogRecord) -> bool:
        method, url = record.args[:2] if isinstance(record.args, tuple) and len(record.args) > 1 else ("", "")
        return record.levelno != logging.INFO or method != "GET" or "/batches" not in str(url)


for _logger_name in ("httpx", "httpx2"):
    logging.getLogger(_logger_name).addFilter(_ReadLogFilter())


@dataclass
class SharedClient:
    """The client of one connection in one event loop."""

    conn_id: str
    users: int = 0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _client: AsyncOpenAI | None = None
    #: monotonic time at which the client was built
    _built_at: float = 0.0
    #: the client that was replaced last; reads may still be using it
    _previous: AsyncOpenAI | None = None

    async def get(self) -> AsyncOpenAI:
        """Return the client; build it first if there is none or it is too old. Does not block the event loop."""
        async with self._lock:
            if self._client is None or time.monotonic() - self._built_at > MAX_AGE:
                previous, self._previous, self._client = self._previous, self._client, None
                if previous is not None:
                    await previous.close()
                client = await BatchHook(conn_id=self.conn_id).aget_conn()
                self._client = client.with_options(timeout=READ_TIMEOUT, max_retries=0)
                self._built_at = time.monotonic()
            return self._client

    async def renew(self, client: AsyncOpenAI) -> None:
        """Close this client, so that the next `get` builds another one. Do nothing if it was already replaced."""
        async with self._lock:
            if self._client is client:
                self._client = None
                await client.close()

    async def close(self) -> None:
        """Close the client."""
        async with self._lock:
            clients, self._client, self._previous = (self._client, self._previous), None, None
            for client in clients:
                if client is not None:
                    await client.close()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def shared_client(conn_id: str) -> AsyncIterator[SharedClient]:
    """Provide the shared client of a connection, and close it after its last user."""
    clients = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = clients.setdefault(conn_id, SharedClient(conn_id))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users and clients.get(conn_id) is shared:
            del clients[conn_id]
            await shared.close()
