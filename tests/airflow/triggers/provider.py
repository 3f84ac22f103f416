"""A scripted batch provider that runs in the event loop of the test and misbehaves as the test requires."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

#: status, body and additional headers of an answer
Reply = tuple[int, Any, dict[str, str]]


@dataclass(frozen=True)
class ReceivedRequest:
    """A request that the provider received."""

    method: str
    path: str
    query: dict[str, str]
    key: str
    #: monotonic time
    received_at: float

    @property
    def batch_id(self) -> str:
        """Id of the batch in the path; empty for the list."""
        return self.path.removeprefix("/v1/batches").strip("/").split("/")[0]


def batch(batch_id: str, status: str = "in_progress", **changes: Any) -> dict[str, Any]:
    """Return a batch object as OpenAI sends it."""
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
    """The provider's batches by id, the newest first, and every request it received."""

    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[ReceivedRequest] = field(default_factory=list)
    #: called first for every request; its reply replaces the default one unless it is None
    override: Callable[[ReceivedRequest], Reply | None] = lambda request: None
    #: seconds until each answer
    latency: float = 0.002
    #: highest number of concurrent requests so far
    max_concurrent: int = 0
    base_url: str = ""
    _concurrent: int = 0
    _connections: set[asyncio.Task[None]] = field(default_factory=set)

    def add(self, *ids: str, **changes: Any) -> list[str]:
        """Add batches, each newer than the previous one, and return their ids."""
        for batch_id in ids:
            self.batches = {batch_id: batch(batch_id, **changes), **self.batches}
        return list(ids)

    def set(self, batch_id: str, **changes: Any) -> None:
        """Change fields of a batch."""
        self.batches[batch_id] |= changes

    @property
    def lists(self) -> list[ReceivedRequest]:
        """Requests for a page of the list."""
        return [request for request in self.requests if request.method == "GET" and not request.batch_id]

    @property
    def singles(self) -> list[str]:
        """Ids of the batches that were read one by one."""
        return [request.batch_id for request in self.requests if request.method == "GET" and request.batch_id]

    def default_reply(self, request: ReceivedRequest) -> Reply:
        """Return the answer of a well-behaved server."""
        if request.method == "POST":
            self.set(request.batch_id, status="cancelling")
            return 200, self.batches[request.batch_id], {}
        if request.batch_id:
            if request.batch_id not in self.batches:
                return 404, {"error": {"message": f"No batch found with id '{request.batch_id}'"}}, {}
            return 200, self.batches[request.batch_id], {}
        ids = list(self.batches)
        start = ids.index(request.query["after"]) + 1 if "after" in request.query else 0
        end = start + int(request.query.get("limit", "20"))
        page = [self.batches[batch_id] for batch_id in ids[start:end]]
        return 200, {"object": "list", "data": page, "has_more": end < len(ids)}, {}

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Provider]:
        """Listen on a free port, in the running event loop."""
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
                request = ReceivedRequest(method, parts.path, query, key, time.monotonic())
                self.requests.append(request)
                self._concurrent += 1
                self.max_concurrent = max(self.max_concurrent, self._concurrent)
                await asyncio.sleep(self.latency)
                status, body, extra = self.override(request) or self.default_reply(request)
                self._concurrent -= 1
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(content)}"]
                lines += [f"{name}: {value}" for name, value in extra.items()]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            return  # the client or the test has finished
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
