"""A receiver of webhooks: a small HTTP server that runs in threads of the test process."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import NamedTuple, Self

from tests.local.driving import DEADLINE


class Webhook(NamedTuple):
    """One webhook as it was received."""

    body: bytes
    headers: dict[str, str]

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Receiver:
    """A receiver that responds with the given statuses, one after the other, and repeats the last one.

    For a status of None, it does not respond until the `with` block ends.
    """

    def __init__(self, *answers: int | None, port: int = 0, location: str = "") -> None:
        self.answers = list(answers or (200,))
        self.location = location
        self.webhooks: list[Webhook] = []
        self._arrival = threading.Condition()
        self._closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = receiver._record(Webhook(body, {name.lower(): value for name, value in self.headers.items()}))
                if answer is None:
                    receiver._closing.wait()
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

    def _record(self, webhooks: Webhook) -> int | None:
        with self._arrival:
            self.webhooks.append(webhooks)
            self._arrival.notify_all()
            return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def wait(self, count: int = 1) -> list[Webhook]:
        """Wait for `count` webhooks and return all that have arrived."""
        deadline = time.monotonic() + DEADLINE
        with self._arrival:
            while len(self.webhooks) < count:
                in_time = self._arrival.wait(deadline - time.monotonic())
                assert in_time, f"{len(self.webhooks)} of {count} webhooks arrived within {DEADLINE} s"
            return list(self.webhooks)

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
