"""An upstream for tests: a real HTTP server that answers as the test defines and counts requests."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.local.driving import DEADLINE

if TYPE_CHECKING:
    from starlette.requests import Request

Answer = Callable[[dict[str, Any]], Response]


def chat_completion(body: dict[str, Any], **fields: Any) -> Response:
    """Return a minimal chat completion with the request's model and an echo of its last message."""
    message = {"role": "assistant", "content": f"You said: {body['messages'][-1]['content']}"}
    return JSONResponse(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body.get("model"),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            **fields,
        }
    )


class TruncatedResponse(Response):
    """Announces a body and closes the connection before the body is complete."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"100"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id":', "more_body": True})
        raise ConnectionResetError("on purpose")


class CountingUpstream:
    """A context manager that runs the upstream on loopback, in a thread.

    By default it answers every chat request immediately with `chat_completion`.
    """

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._listener = listener
        routes = [
            Route("/v1/models", self._list),
            Route("/{path:path}", self._handle, methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self.reset()

    def reset(self) -> None:
        """Forget all requests and restore the default answers."""
        self.answer: Answer = chat_completion
        self.models: Any = {"object": "list", "data": [{"id": "small", "object": "model"}]}
        #: Path, headers and body of each request, in the order in which they came in.
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.in_flight = self.most_in_flight = 0
        #: Requests wait as long as this returns True for their body.
        self.hold_if: Callable[[dict[str, Any]], bool] = lambda _: False

    @property
    def prompts(self) -> list[str]:
        """The last message of each chat request."""
        return [body["messages"][-1]["content"] for _, _, body in self.requests]

    def wait_for_in_flight(self, count: int) -> None:
        """Wait until at least `count` requests are in flight."""
        self._wait(lambda: self.in_flight >= count)

    def wait_until_idle(self) -> None:
        """Wait until no request is in flight."""
        self._wait(lambda: not self.in_flight)

    def _wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"{self.in_flight} in flight after {DEADLINE} s"
            time.sleep(0.005)

    async def _list(self, _: Request) -> Response:
        return JSONResponse(self.models)

    async def _handle(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.requests.append((request.url.path, dict(request.headers), body))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            while self.hold_if(body) and not await request.is_disconnected():
                await asyncio.sleep(0.005)
            return self.answer(body)
        finally:
            self.in_flight -= 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.hold_if = lambda _: False
        self._server.should_exit = True
        self._thread.join(DEADLINE)
        self._listener.close()
