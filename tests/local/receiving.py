"""A receiver of webhooks: a small HTTP server in threads of this process."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from tests.local.driving import DEADLINE


class Received(NamedTuple):
    """One POST."""

    body: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """Answers with one status after the other, the last one for ever. None never answers, until the block is left."""

    def __init__(self, *answers: int | None, port: int = 0, location: str = "") -> None:
        self.answers = list(answers or (200,))
        self.location = location
        self.received: list[Received] = []
        self._came = threading.Condition()
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = receiver._take(Received(body, {name.lower(): value for name, value in self.headers.items()}))
                if answer is None:
                    receiver._over.wait()
                    return
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/webhook"

    def _take(self, received: Received) -> int | None:
        with self._came:
            self.received.append(received)
            self._came.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait(self, count: int = 1) -> list[Received]:
        """Wait until so many POSTs came; all that did."""
        until = time.monotonic() + DEADLINE
        with self._came:
            while len(self.received) < count:
                came = self._came.wait(until - time.monotonic())
                assert came, f"waited {DEADLINE} s for {count} webhooks, {len(self.received)} came"
            return list(self.received)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._http.shutdown()
        self._http.server_close()
