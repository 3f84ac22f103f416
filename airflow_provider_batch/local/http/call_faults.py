"""Injects faults into API calls: an error, a late or truncated response, or none at all.

The middleware is added only if the server can inject call faults. Like a gateway, it runs before the API key check,
so a call without a valid key is counted and can be hit like any other. Routes that are not a `Call` (models,
webhooks, `/admin`) are neither counted nor hit.

ASGI cannot close a connection without sending a response. `Protocol` therefore extends uvicorn's protocol to pass
its transport to the application.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.faults import BODY_KINDS, Call, Fault, Kind
from airflow_provider_batch.local.http.body_faults import BodySend
from airflow_provider_batch.local.http.server import Server

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
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

#: an HTML page such as a gateway sends instead of the API's response
_PAGE = "<!DOCTYPE html><html><head><title>Just a moment...</title></head><body><h1>Please wait</h1></body></html>\n"


def identify_call(method: str, path: str) -> Call | None:
    """Return the kind of API call with this method and path, or None if it is not a `Call`."""
    return next((call for verb, pattern, call in _CALLS if verb == method and pattern.fullmatch(path)), None)


class Protocol(Http):
    """Uvicorn's HTTP protocol, which also passes the connection's transport to the application in `scope["state"]`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Store the transport in the state. Overrides `asyncio.Protocol.connection_made`."""
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Connection:
    """The client's side of one call."""

    def __init__(self, scope: Scope, receive: Receive, stopping: asyncio.Event) -> None:
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive
        self._stopping = stopping

    async def _wait_for_disconnect(self) -> None:
        # Uvicorn reports the disconnect only after everything that the client sends has been read
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def close(self) -> None:
        """Close the connection after sending what is already buffered."""
        self._transport.close()
        await self._wait_for_disconnect()

    async def stay_silent(self, seconds: float) -> bool:
        """Send nothing for `seconds` of real time.

        Returns False early if the client disconnects or the server is stopping.
        """
        interrupts = [
            asyncio.ensure_future(self._wait_for_disconnect()),
            asyncio.ensure_future(self._stopping.wait()),
        ]
        try:
            finished, _ = await asyncio.wait(interrupts, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for interrupt in interrupts:
                interrupt.cancel()
        return not finished


class _HalfSend:
    """A `send` that passes on half of the body, then stalls or closes the connection, depending on the fault."""

    def __init__(self, send: Send, connection: _Connection, fault: Fault) -> None:
        self._send = send
        self._connection = connection
        self._fault = fault
        #: bytes still to pass on in the first half of the body; None before the body starts and in its second half
        self._remaining: int | None = None
        self._closed = False

    async def __call__(self, message: Message) -> None:
        if self._closed:
            return
        if message["type"] == "http.response.start":
            self._remaining = int(Headers(raw=message["headers"])["content-length"]) // 2
        elif self._remaining is not None:
            body = message.get("body", b"")
            if len(body) > self._remaining:
                await self._send({**message, "body": body[: self._remaining], "more_body": True})
                message = {**message, "body": body[self._remaining :]}
                self._remaining = None
                if self._fault.kind is Kind.TRUNCATE or not await self._connection.stay_silent(self._fault.seconds):
                    self._closed = True
                    await self._connection.close()
                    return
            else:
                self._remaining -= len(body)
        await self._send(message)


async def _discard(_: Message) -> None:
    """Discard a message. Used as the `send` of a response that must not reach the client."""


class CallFaults:
    """ASGI middleware that counts each call in `server.calls` and injects the fault that hits it, if any."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app = app
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection, as defined in the ASGI specification."""
        call = identify_call(scope["method"], scope["path"]) if scope["type"] == "http" else None
        fault = None
        if call is not None:
            self._server.calls[call] += 1
            fault = self._server.faults.draw_call_fault(call)
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await self._inject(fault, scope, receive, send)

    async def _inject(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        connection = _Connection(scope, receive, self._server.stopping)
        if fault.kind in (Kind.COMMIT_THEN_STATUS, Kind.COMMIT_THEN_HANG):
            await self._app(scope, receive, _discard)
        match fault.kind:
            case Kind.STATUS | Kind.COMMIT_THEN_STATUS:
                error = fault.error()
                response = JSONResponse(error.body(), status_code=error.status, headers=error.headers)
                await response(scope, receive, send)
            case Kind.HTML:
                await HTMLResponse(_PAGE)(scope, receive, send)
            case Kind.REDIRECT:
                await RedirectResponse(fault.location or "", fault.status)(scope, receive, send)
            case Kind.ERROR_BODY:
                await JSONResponse(fault.error().body())(scope, receive, send)
            case Kind.EMPTY_BODY:
                await Response()(scope, receive, send)
            case Kind.HANG | Kind.COMMIT_THEN_HANG:
                await connection.stay_silent(fault.seconds)
                await connection.close()
            case Kind.DROP:
                await connection.close()
            case Kind.TRUNCATE | Kind.STALL:
                await self._app(scope, receive, _HalfSend(send, connection, fault))
            case kind if kind in BODY_KINDS:
                await self._app(scope, receive, BodySend(send, fault, self._server, scope["path"]))
            case _:
                raise AssertionError(f"{fault.kind} is not a call fault")
