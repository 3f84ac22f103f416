"""An HTTP proxy in front of an S3 store. It counts requests, and can make the store misbehave as real ones do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

_HOP_HEADERS = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive"})


class Answer(NamedTuple):
    """An answer of a store."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Request(NamedTuple):
    """A request to a store, as the proxy passes it on."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def kind(self) -> str:
        """Return what the request does: LIST, GET, HEAD, PUT, PART, COMPLETE, DELETE and so on."""
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        if self.method == "GET" and "list-type" in query:
            return "LIST"
        if self.method == "PUT" and "partNumber" in query:
            return "PART"
        if self.method == "POST":
            return "START" if "uploads" in query else "COMPLETE" if "uploadId" in query else "POST"
        return self.method

    @property
    def is_exclusive(self) -> bool:
        """Return whether the request creates a file only if there is none."""
        return self.headers.get("if-none-match") == "*"


#: changes what the store does with a request: returns an answer, None for no answer, or calls the store
Fault = Callable[[Request, Callable[[Request], Answer]], "Answer | None"]


def error(status: int, code: str, details: str = "") -> Answer:
    """Return an error of S3."""
    body = f"<Error><Code>{code}</Code><Message>{code} from the proxy</Message>{details}</Error>"
    return Answer(status, [("Content-Type", "application/xml")], body.encode())


class StoreProxy:
    """The proxy. It passes on one exclusive upload at a time, as S3 decides which of them is first.

    :param port: port of the store on this machine.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = Lock()
        #: number of requests of each kind
        self.counts: Counter[str] = Counter()
        #: makes the store misbehave; None for a store that does not
        self.fault: Fault | None = None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __getattr__(self, name: str) -> Callable[[], None]:
                if name.startswith("do_"):  # the method for a kind of request
                    return lambda: proxy._handle(self)
                raise AttributeError(name)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0)))
        request = Request(handler.command, handler.path, headers, body)
        with self._lock:
            self.counts[request.kind] += 1
        answer = self.fault(request, self._forward) if self.fault else self._forward(request)
        if answer is None:
            handler.close_connection = True
            return
        handler.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP_HEADERS:
                handler.send_header(name, value)
        length = next((value for name, value in answer.headers if name.lower() == "content-length"), "0")
        handler.send_header("Content-Length", length if request.method == "HEAD" else str(len(answer.body)))
        handler.end_headers()
        if request.method != "HEAD":
            handler.wfile.write(answer.body)

    def _forward(self, request: Request) -> Answer:
        if request.is_exclusive:
            with self._lock:
                return self._send(request)
        return self._send(request)

    def _send(self, request: Request) -> Answer:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name not in _HOP_HEADERS}
            connection.request(request.method, request.path, request.body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.getheaders(), response.read())
            if answer.status == 500 and request.kind in ("PART", "COMPLETE"):
                return error(404, "NoSuchUpload")  # moto fails on an upload that is complete; S3 answers this
            return answer
        finally:
            connection.close()


# Ways in which stores misbehave


def ignores_exclusive_mode(request: Request, store: Callable[[Request], Answer]) -> Answer:
    """Do what old gateways do: they do not know `If-None-Match: *`, and replace the file."""
    headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
    return store(request._replace(headers=headers))


def names_no_condition(request: Request, store: Callable[[Request], Answer]) -> Answer:
    """Answer 412 without the element `Condition`, which only AWS sends."""
    answer = store(request)
    if answer.status != 412:
        return answer
    return answer._replace(body=re.sub(rb"<Condition>.*?</Condition>", b"", answer.body))


def for_the_first(number: int, fault: Fault, applies: Callable[[Request], bool] = lambda request: True) -> Fault:
    """Misbehave for the first requests to which a fault applies, and no longer after them."""
    lock, left = Lock(), [number]

    def fault_for_the_first(request: Request, store: Callable[[Request], Answer]) -> Answer | None:
        with lock:
            is_hit = applies(request) and left[0] > 0
            left[0] -= is_hit
        return fault(request, store) if is_hit else store(request)

    return fault_for_the_first


def conflicts(request: Request, store: Callable[[Request], Answer]) -> Answer:
    """Answer as AWS does to one of two uploads of the same file at the same time."""
    return error(409, "ConditionalRequestConflict", "<Condition>If-None-Match</Condition>")


def loses_the_answer(request: Request, store: Callable[[Request], Answer]) -> None:
    """Carry the request out, and close the connection without an answer."""
    store(request)


def is_unavailable(request: Request, store: Callable[[Request], Answer]) -> Answer:
    """Answer 503."""
    return error(503, "ServiceUnavailable")


def denies_access(request: Request, store: Callable[[Request], Answer]) -> Answer:
    """Answer 403."""
    return error(403, "AccessDenied")
