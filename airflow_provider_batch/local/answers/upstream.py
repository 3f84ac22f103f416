"""Answers from another server that speaks OpenAI's synchronous API, such as vLLM, Ollama or llama.cpp.

Each request is forwarded unchanged, except for the model if `Upstream.model` is set, to the same path at the upstream.
Only the upstream validates it, and its answer is returned unchanged. The `openai` SDK sends the request. It retries
transient failures (408, 409, 429, 5xx, lost connections) twice, after the pause that `Retry-After` asks for (up to two
minutes). If a request still has no answer, only that request fails, with an error in OpenAI's format:

    4xx, 5xx                             the same status, with the upstream's message
    any other reply, such as HTML        502
    connection lost                      502
    no connection                        503; in a batch only after the upstream was unreachable for `Upstream.patience`
    no answer within `Upstream.timeout`  `request_timeout`; in a batch its line has no response
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import msgspec
from openai import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AsyncOpenAI,
    DefaultAsyncHttpxClient,
    HttpxBinaryResponseContent,
    Timeout,
)

from airflow_provider_batch.local.answers.prompt import CHAT, COMPLETIONS, EMBEDDINGS, MODERATIONS, RESPONSES
from airflow_provider_batch.local.answers.replies import tokens_of
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.settings import Upstream

_LOG = logging.getLogger(__name__)

#: number of retries after the first attempt
_RETRIES = 2
#: seconds to wait for a connection, on each attempt
_CONNECT_TIMEOUT = 5.0
#: seconds to wait for the list of models
_LIST_TIMEOUT = 3.0
#: characters of the upstream's answer that an error message quotes
_MAX_EXCERPT = 300
#: number of models that `describe` lists
_MAX_LISTED_MODELS = 5
#: API key to send if none is set; without it the SDK would send the one in OPENAI_API_KEY
_NO_KEY = "none"
#: endpoint -> key of the list that each of its answers contains
_RESULT_KEYS = {
    CHAT: "choices",
    COMPLETIONS: "choices",
    RESPONSES: "output",
    EMBEDDINGS: "data",
    MODERATIONS: "results",
}


class UpstreamResponder:
    """Forwards requests to an upstream.

    A responder belongs to one event loop. Use it as an async context manager, or close it.

    :param concurrency: maximum number of requests in flight, over all batches and synchronous calls.
    """

    def __init__(self, upstream: Upstream, concurrency: int) -> None:
        self._upstream = upstream
        self._slots = asyncio.Semaphore(concurrency)
        self._client = AsyncOpenAI(
            base_url=upstream.url,
            api_key=upstream.api_key or _NO_KEY,
            max_retries=_RETRIES,
            # `_post` limits the total time of an answer. The transport could only limit the pauses between bytes.
            timeout=Timeout(None, connect=_CONNECT_TIMEOUT),
            http_client=DefaultAsyncHttpxClient(trust_env=False) if _is_loopback(upstream.url) else None,
        )
        # the SDK reads them from the environment, where they are meant for OpenAI
        self._client.organization = self._client.project = None
        #: monotonic time since which the upstream has been unreachable; None while it is reachable
        self._unreachable_since: float | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to the upstream."""
        await self._client.close()

    def model_name(self, model: str) -> str:
        """Return the model that is requested from the upstream, which presumably reports the same name."""
        return self._upstream.model or model

    async def answer(self, request: ModelRequest) -> Reply:
        """Forward one request. See `Responder.answer`."""
        if request.body.get("stream"):
            return _error_reply(ApiError(400, "The local batch server does not support streaming.", param="stream"))
        try:
            response = await self._post(request)
        except TimeoutError:
            return self._timeout_reply()
        except APIStatusError as error:
            return _error_reply(self._upstream_error(request, error.status_code, error.response))
        except APIConnectionError as error:
            return _error_reply(self._connection_error(error))
        return self._read(request, response)

    async def models(self) -> list[dict[str, Any]]:
        """Return the upstream's models as OpenAI's objects, or `Upstream.model` if the upstream lists none."""
        try:
            models = await self._list_models()
        except APIError:
            models = []
        return [{"created": 0, "owned_by": "upstream", **model, "object": "model"} for model in models] or [
            {"id": name, "object": "model", "created": 0, "owned_by": "upstream"}
            for name in (self._upstream.model,)
            if name
        ]

    async def describe(self) -> str:
        """Return a text for the log: the upstream and its models, or why it cannot be reached."""
        url, model = self._upstream.url, self._upstream.model
        summary = f"answers come from the upstream {url}{f', always with the model {model}' if model else ''}."
        try:
            names = [model_object["id"] for model_object in await self._list_models()]
        except APIStatusError as error:
            option = "--upstream-api-key" if error.status_code in (401, 403) else "--upstream (the base URL)"
            return f"{summary}\nIts models are unknown: GET {url}/models returned {error.status_code}. Check {option}."
        except APIError as error:
            return (
                f"{summary}\nWARNING: the upstream cannot be reached ({_reason(error)}). Start it, or correct"
                f" --upstream. Batch requests wait up to {self._upstream.patience:g} s for it and then fail with 503."
            )
        if not names:
            return summary
        remainder = f" and {len(names) - _MAX_LISTED_MODELS:,} more" if len(names) > _MAX_LISTED_MODELS else ""
        return f"{summary}\nIts models: {', '.join(names[:_MAX_LISTED_MODELS])}{remainder}."

    async def _list_models(self) -> list[dict[str, Any]]:
        response = await self._client.get(
            f"{self._upstream.url}/models",
            cast_to=HttpxBinaryResponseContent,
            options={"max_retries": 0, "timeout": _LIST_TIMEOUT, "follow_redirects": False},
        )
        body = _json(response.content)
        data = body.get("data") if isinstance(body, dict) else body
        items = [item for item in data if isinstance(item, dict)] if isinstance(data, list) else []
        return [item for item in items if isinstance(item.get("id"), str)]

    # sending requests

    def _url(self, endpoint: str) -> str:
        return self._upstream.url + endpoint.removeprefix("/v1")

    async def _post(self, request: ModelRequest) -> httpx2.Response:
        """Return the upstream's 2xx response. A batch request waits for an unreachable upstream.

        :raises TimeoutError: the upstream did not answer within `Upstream.timeout`.
        :raises openai.APIError: the upstream answered with another status, or not at all.
        """
        body = {**request.body, "model": self._upstream.model} if self._upstream.model else request.body
        content = msgspec.json.encode(body)
        while True:
            try:
                # one slot per attempt: rows that wait for an unreachable upstream must not delay the errors of others
                async with self._slots, asyncio.timeout(self._upstream.timeout):
                    response = await self._client.post(
                        self._url(request.endpoint),
                        cast_to=HttpxBinaryResponseContent,
                        content=content,
                        options={"follow_redirects": False},
                    )
            except APIStatusError:
                self._note_reachable()
                raise
            except APIConnectionError as error:
                if not _unreachable(error) or self._note_unreachable(error) or request.custom_id is None:
                    raise
            else:
                self._note_reachable()
                return response.response

    def _note_unreachable(self, error: APIConnectionError) -> bool:
        """Record that the upstream is unreachable. Return whether requests have waited for it long enough."""
        now = time.monotonic()
        if self._unreachable_since is None:
            self._unreachable_since = now
            _LOG.warning(
                "The upstream %s cannot be reached (%s). Batch requests wait up to %g s for it and then fail with 503.",
                self._upstream.url,
                _reason(error),
                self._upstream.patience,
            )
        return now - self._unreachable_since >= self._upstream.patience

    def _note_reachable(self) -> None:
        if self._unreachable_since is not None:
            outage = time.monotonic() - self._unreachable_since
            self._unreachable_since = None
            _LOG.warning("The upstream %s is reachable again after %.0f s", self._upstream.url, outage)

    # reading the answer

    def _read(self, request: ModelRequest, response: httpx2.Response) -> Reply:
        body, result_key = _json(response.content), _RESULT_KEYS[request.endpoint]
        if isinstance(body, dict) and isinstance(body.get(result_key), list):
            if not _has_valid_usage(request.endpoint, body):
                del body["usage"]
            return Reply(200, body)
        # some gateways send errors with status 200
        if isinstance(body, dict) and body.get("error"):
            inner = body["error"].get("code") if isinstance(body["error"], dict) else None
            status = inner if isinstance(inner, int) and 400 <= inner <= 599 else 502
            return _error_reply(self._upstream_error(request, status, response))
        content_type = response.headers.get("content-type", "no content type")
        return _error_reply(
            ApiError(
                502,
                f"{self._url(request.endpoint)} answered {response.status_code} without `{result_key}`, so it is not an"
                f" OpenAI-compatible API. Check that --upstream is the base URL of the API. The answer ({content_type})"
                f" was: {_excerpt(response.content)}",
                type="server_error",
            )
        )

    def _upstream_error(self, request: ModelRequest, status: int, response: httpx2.Response) -> ApiError:
        """Return the upstream's error in OpenAI's format."""
        url, fields = self._url(request.endpoint), _error_fields(response.content)
        upstream_message = fields.get("message")
        if not isinstance(upstream_message, str):
            upstream_message = ""
        message = upstream_message or _excerpt(response.content)
        if not 400 <= status <= 599:
            location = response.headers.get("location")
            redirect = f" and redirected to {location}" if location else ""
            message = f"{url} answered {status}{redirect}. Check that --upstream is the base URL of the API."
            status = 502
        elif status in (404, 405) and "model" not in message.lower():
            # a missing model is a 404 too; its message mentions the model
            hint = f" It may support {CHAT}." if request.endpoint == RESPONSES else ""
            message = f"The upstream has no {request.endpoint}: {url} answered {status} ({message}).{hint}"
        elif not upstream_message:
            message = f"{url} answered {status}: {message}"
        type_, param, code = (
            value if isinstance(value, str) else None for value in map(fields.get, ("type", "param", "code"))
        )
        default_type = "server_error" if status >= 500 else "invalid_request_error"
        return ApiError(status, message, type=type_ or default_type, param=param, code=code)

    def _connection_error(self, error: APIConnectionError) -> ApiError:
        url, reason = self._upstream.url, _reason(error)
        if not _unreachable(error):
            return ApiError(
                502, f"The upstream {url} closed the connection without an answer ({reason}).", type="server_error"
            )
        return ApiError(
            503,
            f"The upstream {url} cannot be reached ({reason}). Start it, or correct --upstream, and retry the request.",
            type="server_error",
        )

    def _timeout_reply(self) -> Reply:
        message = f"The upstream {self._upstream.url} did not answer within {self._upstream.timeout:g} s."
        error = ApiError(408, message, type="server_error", code="request_timeout")
        return Reply(408, error.body(), {"code": "request_timeout", "message": message})


def _error_reply(error: ApiError) -> Reply:
    return Reply(error.status, error.body())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreachable(error: APIConnectionError) -> bool:
    """Return whether no connection was established, so that the upstream certainly did not get the request."""
    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)


def _reason(error: APIError) -> str:
    """Return the reason that the operating system gives or, if it gives none, the transport's."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ConnectionError) and inner.errno:
            return os.strerror(inner.errno)
        inner = inner.__cause__ or inner.__context__
    return str(error.__cause__ or "") or type(error.__cause__ or error).__name__


def _json(content: bytes) -> Any:
    """Return the decoded value, or None if the content is not JSON."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _excerpt(content: bytes) -> str:
    text = content.decode(errors="replace").strip()
    return f"{text[:_MAX_EXCERPT]}…" if len(text) > _MAX_EXCERPT else text or "nothing"


def _error_fields(content: bytes) -> Mapping[str, Any]:
    """Return the fields of an error: from `error` (OpenAI), from the top level, or from `detail` (FastAPI)."""
    body = _json(content)
    if not isinstance(body, dict):
        return {}
    inner = body.get("error") or body
    if isinstance(inner, str):
        return {"message": inner}
    if not isinstance(inner, dict):
        return {}
    return {"message": inner.get("detail"), **inner}


def _has_valid_usage(endpoint: str, body: Mapping[str, Any]) -> bool:
    """Return whether the tokens in an answer are non-negative integers, so that a batch can add them up."""
    try:
        return all(type(count) is int and count >= 0 for count in tokens_of(endpoint, body))
    except AttributeError:
        return False
