"""Shared by the routes: the parts of one running server, and helpers to parse request bodies and queries.

The helpers raise `ApiError`, which becomes an error response.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, Request

from airflow_provider_batch.local.answers.responder import Responder
from airflow_provider_batch.local.api.errors import ApiError, missing_parameter, out_of_range, rate_limited, wrong_type
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.engine.capacity import RateLimit
from airflow_provider_batch.local.engine.engine import Engine
from airflow_provider_batch.local.faults import Call, Faults
from airflow_provider_batch.local.http.batch_views import BatchViews
from airflow_provider_batch.local.http.flex import FlexTier
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.store import Store
from airflow_provider_batch.local.storage.upload_store import UploadStore
from airflow_provider_batch.local.webhooks.delivery import WebhookSender
from airflow_provider_batch.local.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from airflow_provider_batch.local.answers.upstream import UpstreamResponder


@dataclass
class Server:
    """The parts of one running server."""

    settings: Settings
    store: Store
    responder: Responder
    engine: Engine
    #: Injected faults. The engine uses the same object.
    faults: Faults
    #: the server that answers instead of the offline responder, if there is one
    upstream: UpstreamResponder | None = None
    #: number of calls since the start; counted only if the server can inject call faults
    calls: Counter[Call] = field(init=False, default_factory=Counter)
    #: Set when the server begins to stop. Anything that keeps a connection waiting must end then.
    stopping: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    #: what the routes show of the engine's batches
    batch_views: BatchViews = field(init=False)
    create_rate: RateLimit = field(init=False)
    upload_rate: RateLimit = field(init=False)
    #: files that are uploaded in parts
    uploads: UploadStore = field(init=False)
    #: webhook endpoints and pending deliveries
    webhooks: WebhookStore = field(init=False)
    webhook_sender: WebhookSender = field(init=False)
    flex: FlexTier = field(init=False)

    def __post_init__(self) -> None:
        self.batch_views = BatchViews(self.engine)
        self.create_rate = RateLimit(self.clock, self.settings.creates_per_hour, 3600)
        self.upload_rate = RateLimit(self.clock, self.settings.uploads_per_minute, 60)
        self.uploads = UploadStore(self.store)
        self.webhooks = WebhookStore(self.store)
        self.webhook_sender = WebhookSender(self.webhooks, self.clock, self.settings)
        self.flex = FlexTier(self.settings, self.clock)

    @property
    def clock(self) -> Clock:
        """The clock that all timestamps, expiry times and rate limits use."""
        return self.store.clock

    def restore_create_rate(self) -> None:
        """Count batches created before a restart against the hourly limit."""
        if self.create_rate.limit is not None:
            newest = self.store.list_records(after=None, limit=self.create_rate.limit)
            self.create_rate.restore([float(record.batch.created_at) for record in reversed(newest)])

    def enforce(self, rate: RateLimit, description: str) -> None:
        """Respond with 429 if this rate limit is reached. `description` says what is counted, and in which period."""
        wait = rate.acquire()
        if wait > 0:
            message = f"Rate limit reached for {description} in organization org-local. Limit: {rate.limit:,}."
            raise rate_limited(f"{message} Please try again later.", retry_after=wait / self.clock.speed)


def _server(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


#: type of a route's parameter that receives the running server
ServerDependency = Annotated[Server, Depends(_server)]


async def read_json_object(request: Request) -> dict[str, Any]:
    """Return the body of a request, or respond with 400 if it is not a JSON object.

    The messages are OpenAI's (openai-openapi issue 502).
    """
    content_type = request.headers.get("content-type", "")
    if content_type and _media_type(content_type) != "application/json":
        raise ApiError(
            400,
            f"Unsupported content type: '{content_type}'. This API method only accepts 'application/json' requests,"
            f" but you specified the header 'Content-Type: {content_type}'. Please try again with a supported content"
            " type.",
            code="unsupported_content_type",
        )
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise wrong_type("body", "an object", body)
    return body


def reject_unknown(body: dict[str, Any], names: set[str]) -> None:
    """Respond with 400 if the body contains a parameter other than `names`."""
    for name in body:
        if name not in names:
            raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def require_form(request: Request) -> None:
    """Respond with 415 unless the body is a multipart form. The message is OpenAI's (dongri/openai-api-rs issue 51)."""
    content_type = request.headers.get("content-type", "")
    if _media_type(content_type) != "multipart/form-data":
        raise ApiError(
            415,
            f"Invalid Content-Type header ({content_type}), expected multipart/form-data."
            " (HINT: If you're using curl, you can pass -H 'Content-Type: multipart/form-data')",
        )


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def parse_limit(request: Request, *, default: int, maximum: int) -> int:
    """Return the `limit` of a list call. Respond with 400 unless it is an integer from 1 to `maximum`."""
    text = request.query_params.get("limit")
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise wrong_type("limit", "an integer", text)
    limit = int(text)
    error = out_of_range("limit", "integer", limit, 1, maximum)
    if error is not None:
        raise error
    return limit


def as_integer(value: object) -> int | None:
    """Return a value as an int if it is an integer in JSON Schema's sense (5 and 5.0, but not true), else None."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def parse_expiration(anchor: object, seconds: object, name: str) -> int:
    """Return the seconds of the expiration policy in the parameter `name`.

    Responds with 400 unless the anchor is `created_at` and the seconds are an integer from 1 hour to 30 days.
    """
    for part, value in (("anchor", anchor), ("seconds", seconds)):
        if value is None:
            raise missing_parameter(f"{name}.{part}")
    if anchor != "created_at":
        raise ApiError(
            400,
            f"Invalid value: '{anchor}'. Supported values are: 'created_at'.",
            param=f"{name}.anchor",
            code="invalid_value",
        )
    integer = as_integer(seconds)
    if integer is None or not 3_600 <= integer <= 2_592_000:
        raise ApiError(
            400,
            f"Invalid '{name}.seconds': expected an integer from 3600 to 2592000, but got {seconds} instead.",
            param=f"{name}.seconds",
            code="invalid_value",
        )
    return integer
