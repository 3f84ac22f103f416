"""Carries out faults of calls: an error in place of the answer, an answer that is late or cut off, or none.

A middleware that is there only if faults can be. It stands where a gateway would, before the API key is looked
at: a call without a valid key counts, and may be hit, like any other. Whatever is no `Call` (models, webhooks,
`/admin`) is neither counted nor hit.

ASGI has no way to close a connection that was not answered, so uvicorn's protocol is extended to hand on its
transport (`Protocol`).
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.http.server import Server

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as Http
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Http

_CALLS = [
    (method, re.compile(path), call)
    for method, path, call in (
        ("POST", "/v1/files", Call.UPLOAD),
        ("GET", "/v1/files", Call.FILES),
        ("GET", "/v1/files/[^/]+", Call.FILE),
        ("DELETE", "/v1/files/[^/]+", Call.DELETE),
        ("GET", "/v1/files/[^/]+/content", Call.DOWNLOAD),
        ("POST", "/v1/batches", Call.CREATE),
        ("GET", "/v1/batches", Call.LIST),
        ("GET", "/v1/batches/[^/]+", Call.RETRIEVE),
        ("POST", "/v1/batches/[^/]+/cancel", Call.CANCEL),
        ("POST", "|".join(ENDPOINTS), Call.SYNCHRONOUS),
    )
]

#: what a gateway sends when it has lost its way
_PAGE = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body><h1>Please wait</h1></body></html>\n"


def call_of(method: str, path: str) -> Call | None:
    """Which call of the API this is, if any."""
    return next((call for verb, known, call in _CALLS if verb == method and known.fullmatch(path)), None)


class Protocol(Http):
    """Uvicorn's HTTP protocol; an application finds the connection's transport in its scope's state."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Connection:
    """The client's side of one call."""

    def __init__(self, scope: Scope, receive: Receive, stopping: asyncio.Event) -> None:
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive
        self._stopping = stopping

    async def _gone(self) -> None:
        # What the client still sends is read and dropped: only then is the end of its connection seen.
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self) -> None:
        """Close it after what was sent so far."""
        self._transport.close()
        await self._gone()

    async def silence(self, seconds: float) -> bool:
        """Say nothing for so many real seconds; False if the client left or the server was told to end."""
        ends = [asyncio.ensure_future(self._gone()), asyncio.ensure_future(self._stopping.wait())]
        try:
            done, _ = await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        return not done


class _HalfAnswer:
    """A `send` that passes on half of the body and then stalls or cuts it, as the fault says."""

    def __init__(self, send: Send, connection: _Connection, fault: Fault) -> None:
        self._send = send
        self._connection = connection
        self._fault = fault
        #: bytes to pass on until half is reached; None after that
        self._left: int | None = None
        self._cut = False

    async def __call__(self, message: Message) -> None:
        if self._cut:
            return
        if message["type"] == "http.response.start":
            self._left = int(Headers(raw=message["headers"])["content-length"]) // 2
        elif self._left is not None:
            body = message.get("body", b"")
            if len(body) > self._left:
                await self._send({**message, "body": body[: self._left], "more_body": True})
                message = {**message, "body": body[self._left :]}
                self._left = None
                if self._fault.kind is Kind.TRUNCATE or not await self._connection.silence(self._fault.seconds):
                    self._cut = True
                    await self._connection.close()
                    return
            else:
                self._left -= len(body)
        await self._send(message)


async def _unheard(_: Message) -> None:
    """A `send` that nobody listens to."""


class CallFaults:
    """ASGI middleware: counts each call in `server.calls`, and carries out the fault that hits it."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        call = call_of(scope["method"], scope["path"]) if scope["type"] == "http" else None
        fault = None
        if call is not None:
            self._server.calls[call] += 1
            fault = self._server.faults.draw_call_fault(call)
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await self._strike(fault, scope, receive, send)

    async def _strike(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(scope, receive, self._server.stopping)
        if fault.kind in (Kind.COMMIT_THEN_STATUS, Kind.COMMIT_THEN_HANG):
            await self._app(scope, receive, _unheard)
        match fault.kind:
            case Kind.STATUS | Kind.COMMIT_THEN_STATUS:
                error = fault.error()
                refusal = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
                await refusal(scope, receive, send)
            case Kind.HTML:
                await HTMLResponse(_PAGE)(scope, receive, send)
            case Kind.HANG | Kind.COMMIT_THEN_HANG:
                await connection.silence(fault.seconds)
                await connection.close()
            case Kind.DROP:
                await connection.close()
            case Kind.TRUNCATE | Kind.STALL:
                await self._app(scope, receive, _HalfAnswer(send, connection, fault))
            case _:
                raise AssertionError(f"{fault.kind} is no fault of a call")
