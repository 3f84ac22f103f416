"""Answers from another server: any that speaks OpenAI's synchronous API, as vLLM, Ollama and llama.cpp do.

Each request goes on as it came, to the same path at the upstream, which alone judges it; what comes back is the
answer as it is. The `openai` SDK carries it there, and tries again what a second try may mend: 408, 409, 429,
5xx and lost connections, twice, after the pause that `Retry-After` asks for (up to two minutes). What then is no
answer becomes an error of this one request, in OpenAI's shape:

    4xx, 5xx                      the same status, with what the upstream said
    anything else, as HTML        502
    a connection lost meanwhile   502
    no connection                 503. In a batch only when the upstream has been away for `Upstream.patience`
    `Upstream.timeout` is over    `request_timeout`, which in a batch has no response
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

#: tries after the first one
_RETRIES = 2
#: seconds that a connection may take to come about, on each try
_CONNECT = 5.0
#: seconds for the list of models
_LOOK = 3.0
#: characters of a foreign answer that an error repeats
_QUOTED = 300
#: models that the greeting names
_NAMED = 5
#: without a key of one's own the SDK would send the one in OPENAI_API_KEY
_NO_KEY = "none"
#: the list that every answer of an endpoint has
_CARRIES = {CHAT: "choices", COMPLETIONS: "choices", RESPONSES: "output", EMBEDDINGS: "data", MODERATIONS: "results"}


class UpstreamResponder:
    """Lets an upstream answer. Belongs to one event loop; use it as an async context manager, or close it.

    :param concurrency: requests in flight at once, whoever asks them.
    """

    def __init__(self, upstream: Upstream, concurrency: int) -> None:
        self._upstream = upstream
        self._slots = asyncio.Semaphore(concurrency)
        self._client = AsyncOpenAI(
            base_url=upstream.url,
            api_key=upstream.api_key or _NO_KEY,
            max_retries=_RETRIES,
            # How long an answer may take in all is measured here; the transport knows only pauses between bytes.
            timeout=Timeout(None, connect=_CONNECT),
            http_client=DefaultAsyncHttpxClient(trust_env=False) if _is_loopback(upstream.url) else None,
        )
        # Taken from the environment, where they belong to the real OpenAI.
        self._client.organization = self._client.project = None
        #: since when the upstream cannot be reached, by the monotonic clock
        self._away_since: float | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connections."""
        await self._client.close()

    def model_name(self, asked: str) -> str:
        """The name the upstream is asked for, and presumably reports."""
        return self._upstream.model or asked

    async def answer(self, ask: ModelRequest) -> Reply:
        """See `Responder.answer`."""
        if ask.body.get("stream"):
            return _refused(ApiError(400, "The local batch server does not stream.", param="stream"))
        try:
            answered = await self._post(ask)
        except TimeoutError:
            return self._too_slow()
        except APIStatusError as error:
            return _refused(self._no(ask, error.status_code, error.response))
        except APIConnectionError as error:
            return _refused(self._lost(error))
        return self._read(ask, answered)

    async def models(self) -> list[dict[str, Any]]:
        """The models that the upstream lists, as OpenAI's objects; the one to ask for if it lists none."""
        try:
            listed = await self._listed()
        except APIError:
            listed = []
        return [{"created": 0, "owned_by": "upstream", **model, "object": "model"} for model in listed] or [
            {"id": name, "object": "model", "created": 0, "owned_by": "upstream"}
            for name in (self._upstream.model,)
            if name
        ]

    async def describe(self) -> str:
        """Who answers, in words: the upstream and its models, or why it cannot be reached now."""
        url, model = self._upstream.url, self._upstream.model
        said = f"answers come from the upstream {url}{f', always asked for the model {model}' if model else ''}."
        try:
            names = [one["id"] for one in await self._listed()]
        except APIStatusError as error:
            option = "--upstream-api-key right" if error.status_code in (401, 403) else "--upstream its base URL"
            return f"{said}\nIt lists no models: GET {url}/models is answered with {error.status_code}. Is {option}?"
        except APIError as error:
            return (
                f"{said}\nWARNING: it cannot be reached now ({_reason(error)}). Start it, or correct --upstream."
                f" Requests of batches wait {self._upstream.patience:g} s for it, then they fail with 503."
            )
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{said}\nIt lists these models: {', '.join(names[:_NAMED])}{more}." if names else said

    async def _listed(self) -> list[dict[str, Any]]:
        answered = await self._client.get(
            f"{self._upstream.url}/models",
            cast_to=HttpxBinaryResponseContent,
            options={"max_retries": 0, "timeout": _LOOK, "follow_redirects": False},
        )
        body = _json(answered.content)
        data = body.get("data") if isinstance(body, dict) else body
        models = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
        return [model for model in models if isinstance(model.get("id"), str)]

    # asking

    def _url(self, endpoint: str) -> str:
        return self._upstream.url + endpoint.removeprefix("/v1")

    async def _post(self, ask: ModelRequest) -> httpx2.Response:
        """What the upstream answers with 2xx. Waits for an upstream that is away, if it is a batch that asks.

        :raises TimeoutError: the time of one request is over.
        :raises openai.APIError: anything but 2xx, or no answer.
        """
        body = {**ask.body, "model": self._upstream.model} if self._upstream.model else ask.body
        content = msgspec.json.encode(body)
        while True:
            try:
                # One slot for each try: rows that wait for an upstream that is away keep nobody from being told so.
                async with self._slots, asyncio.timeout(self._upstream.timeout):
                    answered = await self._client.post(
                        self._url(ask.endpoint),
                        cast_to=HttpxBinaryResponseContent,
                        content=content,
                        options={"follow_redirects": False},
                    )
            except APIStatusError:
                self._is_here()
                raise
            except APIConnectionError as error:
                if not _unreachable(error) or self._is_away(error) or ask.custom_id is None:
                    raise
            else:
                self._is_here()
                return answered.response

    def _is_away(self, error: APIConnectionError) -> bool:
        """Note that the upstream cannot be reached; whether it has been away for longer than requests wait."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            _LOG.warning(
                "The upstream %s cannot be reached (%s). Requests of batches wait %g s for it, then fail with 503.",
                self._upstream.url,
                _reason(error),
                self._upstream.patience,
            )
        return now - self._away_since >= self._upstream.patience

    def _is_here(self) -> None:
        if self._away_since is not None:
            away = time.monotonic() - self._away_since
            self._away_since = None
            _LOG.warning("The upstream %s answers again, after %.0f s.", self._upstream.url, away)

    # what came back

    def _read(self, ask: ModelRequest, answered: httpx2.Response) -> Reply:
        body, carries = _json(answered.content), _CARRIES[ask.endpoint]
        if isinstance(body, dict) and isinstance(body.get(carries), list):
            if not _can_be_added_up(ask.endpoint, body):
                del body["usage"]
            return Reply(200, body)
        # Some gateways pack their errors into a 200.
        if isinstance(body, dict) and body.get("error"):
            inner = body["error"].get("code") if isinstance(body["error"], dict) else None
            status = inner if isinstance(inner, int) and 400 <= inner <= 599 else 502
            return _refused(self._no(ask, status, answered))
        kind = answered.headers.get("content-type", "no content type")
        return _refused(
            ApiError(
                502,
                f"{self._url(ask.endpoint)} answered {answered.status_code} without `{carries}`, so this is no answer"
                f" of an OpenAI-compatible server. Is --upstream its base URL? It sent {kind}:"
                f" {_quoted(answered.content)}",
                type="server_error",
            )
        )

    def _no(self, ask: ModelRequest, status: int, answered: httpx2.Response) -> ApiError:
        """An error of the upstream, in OpenAI's shape."""
        url, said = self._url(ask.endpoint), _said(answered.content)
        words = said.get("message")
        message = words if isinstance(words, str) and words else _quoted(answered.content)
        if not 400 <= status <= 599:
            to = answered.headers.get("location")
            message = f"{url} answered {status}{f' and points to {to}' if to else ''}. Is --upstream its base URL?"
            status = 502
        elif status in (404, 405) and "model" not in message.lower():
            # A model that is not there is a 404 too, and says so.
            way_out = f" It may have {CHAT}." if ask.endpoint == RESPONSES else ""
            message = f"The upstream has no {ask.endpoint}: {url} answered {status} ({message}).{way_out}"
        elif message is not words:
            message = f"{url} answered {status}: {message}"
        kind, param, code = (
            value if isinstance(value, str) else None for value in map(said.get, ("type", "param", "code"))
        )
        usual = "server_error" if status >= 500 else "invalid_request_error"
        return ApiError(status, message, type=kind or usual, param=param, code=code)

    def _lost(self, error: APIConnectionError) -> ApiError:
        url, reason = self._upstream.url, _reason(error)
        if not _unreachable(error):
            return ApiError(502, f"The upstream {url} broke off without an answer ({reason}).", type="server_error")
        return ApiError(
            503,
            f"The upstream {url} cannot be reached ({reason}). Start it, or correct --upstream, and ask again.",
            type="server_error",
        )

    def _too_slow(self) -> Reply:
        message = f"The upstream {self._upstream.url} gave no answer within {self._upstream.timeout:g} s."
        error = ApiError(408, message, type="server_error", code="request_timeout")
        return Reply(408, error.body(), {"code": "request_timeout", "message": message})


def _refused(error: ApiError) -> Reply:
    return Reply(error.status, error.body())


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unreachable(error: APIConnectionError) -> bool:
    """Whether no connection came about, so that the request was surely not asked."""
    return isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)


def _reason(error: APIError) -> str:
    """What happened, as the operating system calls it, or else the transport."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, ConnectionError) and inner.errno:
            return os.strerror(inner.errno)
        inner = inner.__cause__ or inner.__context__
    return str(error.__cause__ or "") or type(error.__cause__ or error).__name__


def _json(content: bytes) -> Any:
    """The value, or None if it is no JSON."""
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _quoted(content: bytes) -> str:
    text = content.decode(errors="replace").strip()
    return f"{text[:_QUOTED]}…" if len(text) > _QUOTED else text or "nothing"


def _said(content: bytes) -> Mapping[str, Any]:
    """The parts of an error, wherever they are: in `error` as OpenAI has it, at the top, or in FastAPI's `detail`."""
    body = _json(content)
    if not isinstance(body, dict):
        return {}
    inner = body.get("error") or body
    if isinstance(inner, str):
        return {"message": inner}
    if not isinstance(inner, dict):
        return {}
    return {"message": inner.get("detail"), **inner}


def _can_be_added_up(endpoint: str, body: Mapping[str, Any]) -> bool:
    """Whether the tokens that an answer reports are whole numbers, as a batch's usage and every reader expects."""
    try:
        return all(type(count) is int and count >= 0 for count in tokens_of(endpoint, body))
    except AttributeError:
        return False
