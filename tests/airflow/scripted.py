"""An HTTP server on loopback whose responses a test writes byte for byte.

Tests use it for wrong and unusual responses that the local batch server does not produce.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple


class Request(NamedTuple):
    """A request as the server received it."""

    method: str
    #: Path and query, without `/v1`.
    target: str
    body: bytes
    #: Header fields by name in lower case.
    headers: dict[str, str]

    @property
    def call(self) -> str:
        """Method and path, such as `POST /batches`."""
        return f"{self.method} {self.target.partition('?')[0]}"


class ScriptedServer(NamedTuple):
    """A running server and the requests it received."""

    base_url: str
    #: Every request so far, in order.
    requests: list[Request]

    def calls(self, call: str) -> int:
        """Return how many times this call was received, such as `POST /batches`."""
        return sum(request.call == call for request in self.requests)


#: Returns the bytes to send for a request. The server then closes the connection.
Script = Callable[[Request], bytes]


def reply(
    body: Any, *, status: int = 200, content_type: str = "application/json", length: int | None = None, **headers: str
) -> bytes:
    """Return the bytes of an HTTP response. The body is encoded as JSON unless it is bytes.

    :param length: a wrong Content-Length to send instead of the right one.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": content_type, "Content-Length": str(len(content) if length is None else length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + content


@contextmanager
def serve_script(script: Script) -> Iterator[ScriptedServer]:
    """Run a server on a free port that calls the script for each request, one request at a time."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = ScriptedServer(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", [])

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                request = _read(connection)
                if request is not None:
                    server.requests.append(request)
                    connection.sendall(script(request))
                    connection.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _read(connection: socket.socket) -> Request | None:
    with connection.makefile("rb") as stream:
        words = stream.readline().decode().split()
        if len(words) != 3:
            return None
        headers = {}
        while (line := stream.readline()).strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        return Request(words[0], words[1].removeprefix("/v1"), body, headers)
