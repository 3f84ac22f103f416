"""One async client per connection and event loop, shared by every trigger that waits on that connection.

Building a client costs about 40 ms and 0.8 MB, and looks the connection up; a thousand triggers share one. It is built
anew every 15 minutes and after a 401, so that a rotated key is picked up, and closed when the last trigger leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from airflow.providers.openai.hooks.openai import OpenAIHook
from openai import AsyncOpenAI

#: seconds after which a client is built anew
MAX_AGE = 15 * 60.0
#: seconds that one poll may take
POLL_TIMEOUT = 60.0
#: polls of one connection that are under way at once, at most
SLOTS = 16


class _PollsUntold(logging.Filter):
    """Drops the transport's line for each read of a batch, which would bury what a person looks for in the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        method, url = record.args[:2] if isinstance(record.args, tuple) and len(record.args) > 1 else ("", "")
        return record.levelno != logging.INFO or method != "GET" or "/batches" not in str(url)


for _transport in ("httpx", "httpx2"):
    logging.getLogger(_transport).addFilter(_PollsUntold())


@dataclass
class SharedClient:
    """The client of one connection in one event loop."""

    conn_id: str
    users: int = 0
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SLOTS))
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _client: AsyncOpenAI | None = None
    _built: float = 0.0
    #: the client before, with which polls may still be under way
    _former: AsyncOpenAI | None = None

    async def get(self) -> AsyncOpenAI:
        """The client, built if there is none or it is too old. The connection is looked up without blocking."""
        async with self._lock:
            if self._client is None or time.monotonic() - self._built > MAX_AGE:
                former, self._former, self._client = self._former, self._client, None
                if former is not None:
                    await former.close()
                built = await OpenAIHook(conn_id=self.conn_id).aget_conn()
                self._client = built.with_options(timeout=POLL_TIMEOUT, max_retries=0)
                self._built = time.monotonic()
            return self._client

    async def renew(self, stale: AsyncOpenAI) -> None:
        """Have the next `get` build a client, unless somebody did already."""
        async with self._lock:
            if self._client is stale:
                self._client = None
                await stale.close()

    async def close(self) -> None:
        """Close the client."""
        async with self._lock:
            clients, self._client, self._former = (self._client, self._former), None, None
            for client in clients:
                if client is not None:
                    await client.close()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, SharedClient]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def shared_client(conn_id: str) -> AsyncIterator[SharedClient]:
    """The shared client of a connection, for as long as a trigger needs it."""
    of_loop = _shared.setdefault(asyncio.get_running_loop(), {})
    shared = of_loop.setdefault(conn_id, SharedClient(conn_id))
    shared.users += 1
    try:
        yield shared
    finally:
        shared.users -= 1
        if not shared.users and of_loop.get(conn_id) is shared:
            del of_loop[conn_id]
            await shared.close()
