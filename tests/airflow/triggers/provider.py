"""A batch provider of the tests' own, in the loop of the test: as badly behaved as a test wants it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

#: what a server answers: status, body, further headers
Reply = tuple[int, Any, dict[str, str]]


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    key: str
    #: by the monotonic clock
    at: float

    @property
    def batch_id(self) -> str:
        """The batch that is asked for; empty if it is the list."""
        return self.path.removeprefix("/v1/batches").strip("/").split("/")[0]


def batch(batch_id: str, status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """A batch object as OpenAI sends it."""
    return {
        "id": batch_id,
        "object": "batch",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file-1",
        "completion_window": "24h",
        "status": status,
        "created_at": int(time.time()),
        "request_counts": {"total": 10, "completed": 0, "failed": 0},
        "metadata": {"job_uid": "0123"},
        **changes,
    }


@dataclass
class Provider:
    """Batches by id, the newest first, and everything that was asked."""

    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    #: asked first; its reply goes out in place of the usual one unless it is None
    instead: Callable[[Asked], Reply | None] = lambda asked: None
    #: seconds that every answer takes
    latency: float = 0.002
    #: requests under way at the same time, at most
    most_at_once: int = 0
    base_url: str = ""
    _at_once: int = 0
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def add(self, *ids: str, **changes: Any) -> list[str]:
        """New batches, each newer than the one before."""
        for batch_id in ids:
            self.batches = {batch_id: batch(batch_id, **changes), **self.batches}
        return list(ids)

    def set(self, batch_id: str, **changes: Any) -> None:
        """Change a batch."""
        self.batches[batch_id] |= changes

    @property
    def lists(self) -> list[Asked]:
        """The requests for a page of the list."""
        return [asked for asked in self.asked if asked.method == "GET" and not asked.batch_id]

    @property
    def singles(self) -> list[str]:
        """The batches that were read singly."""
        return [asked.batch_id for asked in self.asked if asked.method == "GET" and asked.batch_id]

    def usual(self, asked: Asked) -> Reply:
        """What a server that behaves answers."""
        if asked.method == "POST":
            self.set(asked.batch_id, status="cancelling")
            return 200, self.batches[asked.batch_id], {}
        if asked.batch_id:
            if asked.batch_id not in self.batches:
                return 404, {"error": {"message": f"No batch found with id '{asked.batch_id}'"}}, {}
            return 200, self.batches[asked.batch_id], {}
        ids = list(self.batches)
        start = ids.index(asked.query["after"]) + 1 if "after" in asked.query else 0
        end = start + int(asked.query.get("limit", "20"))
        page = [self.batches[batch_id] for batch_id in ids[start:end]]
        return 200, {"object": "list", "data": page, "has_more": end < len(ids)}, {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Provider]:
        """Listen on a free port, in this loop."""
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                line, *headers = head.split("\r\n")
                method, target, _ = line.split(" ")
                fields = {k.lower(): v.strip() for k, _, v in (header.partition(":") for header in headers)}
                await reader.readexactly(int(fields.get("content-length", "0")))
                parts = urlsplit(target)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                key = fields.get("authorization", "").removeprefix("Bearer ")
                asked = Asked(method, parts.path, query, key, time.monotonic())
                self.asked.append(asked)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                await asyncio.sleep(self.latency)
                status, body, extra = self.instead(asked) or self.usual(asked)
                self._at_once -= 1
                sent = body if isinstance(body, bytes) else json.dumps(body).encode()
                lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(sent)}"]
                lines += [f"{name}: {value}" for name, value in extra.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + sent)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the client, or the test, is through
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
