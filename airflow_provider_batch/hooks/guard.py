"""Guards the HTTP client of a connection: where its requests may go, and what is read of the answers.

The SDK follows redirects. An upload that is answered with 307 would send the whole input file and the custom headers of
the connection to another host, and the answer to a 302 would be taken for the answer to a creation. So every redirect
is checked before it is followed:

    request                               to the same origin        to another origin
    POST, DELETE                          refused                   refused
    GET                                   followed                  refused
    GET of the content of a result file   followed                  followed without any header of the connection

Origin means scheme, host and port. Some providers redirect a download to a presigned URL of an object store, which
needs neither key nor headers. Such a redirect may not lead from https to http, and its signature is not logged.

Every answer is redacted before the SDK or anything else reads it: the secrets that the client sends are replaced in its
body and its headers. See `core.provider.redaction`. A body is decompressed for this, so the length and the encoding of
a compressed body are no longer in its headers. Airflow masks the same secrets in the log of a task.

The guard consists of event hooks of the HTTP client, so proxies and certificates stay as the environment sets them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from ipaddress import ip_address
from typing import TypeVar

import httpx2
import openai
from airflow.sdk.log import mask_secret

from airflow_provider_batch.core.provider.api_key import api_key_problem
from airflow_provider_batch.core.provider.redaction import RedactedStream, Redactor, find_secrets

log = logging.getLogger(__name__)

#: headers that a redirected download may carry to another origin
_HARMLESS_HEADERS = frozenset({"accept", "accept-encoding", "connection", "host"})


class _AddressLogFilter(logging.Filter):
    """Removes user, password and query from the URLs in the HTTP client's log lines: a presigned URL is a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_address(part) if isinstance(part, httpx2.URL) else part for part in record.args)
        return True


logging.getLogger("httpx2").addFilter(_AddressLogFilter())

Client = TypeVar("Client", openai.OpenAI, openai.AsyncOpenAI)

#: (connection, host) of the warnings about keys on unencrypted connections that this process has logged
_warned_hosts: set[tuple[str, str]] = set()


class RedirectError(openai.OpenAIError):
    """Raised if a server redirects a request to an address to which it must not be sent. It was not sent there."""


def guard_client(client: Client, conn_id: str) -> Client:
    """Guard a new client and all copies that `with_options` makes of it. Return the client.

    :raises ValueError: if the key cannot be sent. It may come from the environment, so the hook did not check it.
    """
    problem = api_key_problem(client.api_key or None)
    if problem is not None:
        # The HTTP client would show the key in its error.
        raise ValueError(problem)
    guard = _Guard(client, conn_id)
    if isinstance(client, openai.AsyncOpenAI):

        async def check_request(request: httpx2.Request) -> None:
            guard.check_request(request)

        async def check_response(response: httpx2.Response) -> None:
            guard.check_response(response)
            response.stream = _RedactedAsyncBody(guard.take_over(response), guard.redactor)

        client._client.event_hooks = {"request": [check_request], "response": [check_response]}
    else:

        def check_response_sync(response: httpx2.Response) -> None:
            guard.check_response(response)
            response.stream = _RedactedBody(guard.take_over(response), guard.redactor)

        client._client.event_hooks = {"request": [guard.check_request], "response": [check_response_sync]}
        for secret in guard.redactor.secrets:
            mask_secret(secret)
    _warn_if_unencrypted(client.base_url, conn_id)
    return client


class _Guard:
    """The checks of one client."""

    def __init__(self, client: openai.OpenAI | openai.AsyncOpenAI, conn_id: str) -> None:
        self._origin, self._conn_id = client.base_url.origin, conn_id
        #: knows the secrets of the connection, and of every request so far: some tokens are short-lived
        self.redactor = Redactor()
        fields = [("api_key", client.api_key), *client.default_headers.items(), *client.default_query.items()]
        self._add_secrets([(name, value) for name, value in fields if isinstance(value, str)], client.base_url)

    def _add_secrets(self, fields: Iterable[tuple[str, str]], url: httpx2.URL) -> None:
        self.redactor.add(find_secrets([*fields, *url.params.multi_items(), ("password", url.password)]))

    def check_request(self, request: httpx2.Request) -> None:
        """Note the secrets in a request. Remove its headers if it was redirected to another origin."""
        if request.url.origin == self._origin:
            self._add_secrets(request.headers.multi_items(), request.url)
        else:
            request.headers = httpx2.Headers(
                [(name, value) for name, value in request.headers.multi_items() if name in _HARMLESS_HEADERS]
            )

    def take_over(self, response: httpx2.Response) -> httpx2.Response:
        """Redact the headers of a response. Return another response, which decompresses its body."""
        original = httpx2.Response(
            response.status_code, headers=response.headers, stream=response.stream, request=response.request
        )
        headers = [
            # a redirect is followed, so its address stays as it is
            (name, value if name.lower() == b"location" else self.redactor.redact(value))
            for name, value in response.headers.raw
        ]
        if "content-encoding" in response.headers:
            headers = [
                (name, value) for name, value in headers if name.lower() not in (b"content-encoding", b"content-length")
            ]
        response.headers = httpx2.Headers(headers)
        return original

    def check_response(self, response: httpx2.Response) -> None:
        """Check the redirect of a response, if it is one.

        :raises RedirectError: if the redirect must not be followed.
        """
        if not response.has_redirect_location:
            return
        request = response.request
        target = _target(response)
        if target is None:
            reason, action = "it has no usable address", "Check the base URL"
        elif request.method != "GET":
            reason, action = (
                "a request that sends or changes something goes to no second address",
                "Correct the base URL",
            )
        elif target.origin == request.url.origin:
            return
        elif not _is_download(request, self._origin):
            reason = "rows, keys and headers are sent only to the host of the connection"
            action = "If the second host is the right one, set it in the base URL"
        elif request.url.scheme == "https" and target.scheme != "https":
            reason, action = "result files are not read over an unencrypted connection", "Check the base URL"
        else:
            return
        raise RedirectError(
            f"The server redirected {request.method} {_address(request.url)} to "
            f"{'an invalid address' if target is None else _address(target)} (HTTP {response.status_code}). The "
            f"redirect was not followed, because {reason}. {action} of connection {self._conn_id!r} (Admin > "
            "Connections: Host, or base_url in openai_client_kwargs)"
        )


class _RedactedBody(httpx2.SyncByteStream):
    """The decompressed body of a response, without secrets."""

    def __init__(self, original: httpx2.Response, redactor: Redactor) -> None:
        self._original, self._redactor = original, redactor

    def __iter__(self) -> Iterator[bytes]:
        stream = RedactedStream(self._redactor)
        for chunk in self._original.iter_bytes():
            yield stream.feed(chunk)
        yield stream.end()

    def close(self) -> None:
        self._original.close()


class _RedactedAsyncBody(httpx2.AsyncByteStream):
    """The same for the asynchronous client."""

    def __init__(self, original: httpx2.Response, redactor: Redactor) -> None:
        self._original, self._redactor = original, redactor

    async def __aiter__(self) -> AsyncIterator[bytes]:
        stream = RedactedStream(self._redactor)
        async for chunk in self._original.aiter_bytes():
            yield stream.feed(chunk)
        yield stream.end()

    async def aclose(self) -> None:
        await self._original.aclose()


def _target(response: httpx2.Response) -> httpx2.URL | None:
    """Return the URL to which a response redirects, or None if it is not an address of a web server."""
    try:
        target = response.request.url.join(response.headers["location"])
    except httpx2.InvalidURL:
        return None
    return target if target.scheme in ("http", "https") and target.host else None


def _is_download(request: httpx2.Request, origin: httpx2.Origin) -> bool:
    """Return whether a GET reads the content of a file. Nothing else is ever redirected to another origin."""
    path = request.url.path
    return request.url.origin != origin or ("/files/" in path and path.endswith("/content"))


def _address(url: httpx2.URL) -> str:
    """Return a URL without what may be secret: user, password, query and fragment."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _warn_if_unencrypted(base_url: httpx2.URL, conn_id: str) -> None:
    """Log a warning, once per process, if the key of a connection leaves the machine unencrypted."""
    host = base_url.host
    if base_url.scheme != "http" or _is_loopback(host) or (conn_id, host) in _warned_hosts:
        return
    _warned_hosts.add((conn_id, host))
    log.warning(
        "Connection %r sends its key and every row unencrypted to http://%s. Use an https:// base URL if the server "
        "has one.",
        conn_id,
        host,
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
