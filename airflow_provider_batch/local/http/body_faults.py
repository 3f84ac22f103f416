"""Call faults that replace the body of a successful response, so that the response itself still looks complete.

The status is 200 and Content-Length matches the wrong body. Only the content shows that something is wrong.
"""

from __future__ import annotations

import gzip
import io
import random
from typing import TYPE_CHECKING

from starlette.datastructures import MutableHeaders

from airflow_provider_batch.local.api.json_path import replace_value
from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.http.server import Server

if TYPE_CHECKING:
    from starlette.types import Message, Send

#: a comment such as a cache puts in front of what it delivers
_BANNER = b"<!-- served by cache-7 -->\n"


class BodySend:
    """A `send` that collects a response and passes it on with another body. A response other than 200 is unchanged.

    :param path: the path of the call.
    """

    def __init__(self, send: Send, fault: Fault, server: Server, path: str) -> None:
        self._send = send
        self._fault = fault
        self._server = server
        self._path = path
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Collect one message, and send the whole response after the last one."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        self._body += message.get("body", b"")
        if message.get("more_body", False):
            return
        assert self._start is not None
        body = bytes(self._body)
        if self._start["status"] == 200:
            body = self._replace(body)
            headers = MutableHeaders(scope=self._start)
            del headers["content-length"]
            if not self._fault.chunked:
                headers["content-length"] = str(len(body))
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})

    def _replace(self, body: bytes) -> bytes:
        if self._fault.kind is Kind.OTHER_FILE:
            return _other_file(self._server, self._path)
        if self._fault.kind is Kind.RESPONSE_FIELD:
            assert self._fault.path is not None
            return replace_value(body, self._fault.path, self._fault.json)
        return damaged_body(self._fault.kind, body)


def damaged_body(kind: Kind, body: bytes) -> bytes:
    """Return the body that this fault makes of a complete one."""
    match kind:
        case Kind.COMPRESSED:
            return gzip.compress(body, mtime=0)
        case Kind.GARBAGE:
            return random.Random(len(body)).randbytes(len(body))
        case Kind.CUT:
            return _cut_in_a_line(body)
        case Kind.CUT_AT_LINE:
            return _first_half(body)
        case Kind.REPEATED_HALF:
            return _first_half(body) * 2
        case Kind.BANNER:
            return _BANNER + body
    raise AssertionError(f"{kind} does not replace the body of a response")


def _cut_in_a_line(body: bytes) -> bytes:
    end = len(body) // 2
    return body[: end + 1] if body[:end].endswith(b"\n") else body[:end]


def _first_half(body: bytes) -> bytes:
    r"""Return the first half of the lines. Only `\n` ends a line."""
    lines = io.BytesIO(body).readlines()
    return b"".join(lines[: len(lines) // 2])


def _other_file(server: Server, path: str) -> bytes:
    """Return the newest file other than the one that this path downloads, preferably one with the same purpose."""
    file_id = server.settings.dialect.internal_id(path.removeprefix("/v1/files/").removesuffix("/content"))
    file = server.store.file(file_id)
    for purpose in (None if file is None else file.purpose, None):
        for other in server.store.list_files(after=None, limit=2, ascending=False, purpose=purpose):
            if other.id != file_id:
                return server.store.path(other.id).read_bytes()
    return b""
