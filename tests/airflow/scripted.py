"""A loopback HTTP server that answers word for word what a test says: for what the local batch server gets right."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple


class Request(NamedTuple):
    """One request as it came in."""

    method: str
    #: path and query, without `/v1`
    target: str
    body: bytes

    @property
    def call(self) -> str:
        """Method and path, as in `POST /batches`."""
        return f"{self.method} {self.target.partition('?')[0]}"


class ScriptedServer(NamedTuple):
    """A server that runs."""

    base_url: str
    #: what came in, in order
    requests: list[Request]

    def calls(self, call: str) -> int:
        """How often this call came in, as in `POST /batches`."""
        return sum(request.call == call for request in self.requests)


#: the bytes to send back, after which the connection is closed
Script = Callable[[Request], bytes]


def reply(
    body: Any, *, status: int = 200, content_type: str = "application/json", length: int | None = None, **headers: str
) -> bytes:
    """An answer; JSON, unless the body is bytes already.

    :param length: what Content-Length promises, if it is not the truth.
    """
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Content-Type": content_type, "Content-Length": str(len(content) if length is None else length)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()} | {"Connection": "close"}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Scripted\r\n{head}\r\n".encode() + content


@contextmanager
def serve_script(script: Script) -> Iterator[ScriptedServer]:
    """Serve on a free port; each request is answered by the script, one after the other."""
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
        length = 0
        while (line := stream.readline()).strip():
            name, _, value = line.decode().partition(":")
            if name.lower() == "content-length":
                length = int(value)
        return Request(words[0], words[1].removeprefix("/v1"), stream.read(length))
