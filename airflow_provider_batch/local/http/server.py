"""What the routes share: the parts of one running server, and how a request's body and query are read."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, Request

from airflow_provider_batch.local.answers.responder import Responder
from airflow_provider_batch.local.api.errors import ApiError, missing_parameter, out_of_range, too_many, wrong_type
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.engine.capacity import RateLimit
from airflow_provider_batch.local.engine.engine import Engine
from airflow_provider_batch.local.faults import Call, Faults
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.store import Store
from airflow_provider_batch.local.storage.upload_store import UploadStore
from airflow_provider_batch.local.webhooks.delivery import Courier
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
    #: what goes wrong on request; the engine decides by the same object
    faults: Faults
    #: the server that answers, if it is not the offline responder
    upstream: UpstreamResponder | None = None
    #: how often each call came in since the start; counted only if calls may fail
    calls: Counter[Call] = field(init=False, default_factory=Counter)
    #: set when the server is told to end: who waits on a connection ends that now
    stopping: asyncio.Event = field(init=False, default_factory=asyncio.Event)
    creates: RateLimit = field(init=False)
    uploads: RateLimit = field(init=False)
    #: files that come in parts
    parted: UploadStore = field(init=False)
    #: who is told of ended batches
    webhooks: WebhookStore = field(init=False)
    courier: Courier = field(init=False)

    def __post_init__(self) -> None:
        self.creates = RateLimit(self.clock, self.settings.creates_per_hour, 3600)
        self.uploads = RateLimit(self.clock, self.settings.uploads_per_minute, 60)
        self.parted = UploadStore(self.store)
        self.webhooks = WebhookStore(self.store)
        self.courier = Courier(self.webhooks, self.clock, self.settings)

    @property
    def clock(self) -> Clock:
        """By which everything is stamped and expires."""
        return self.store.clock

    def recall_creates(self) -> None:
        """Count the batches of an earlier life of this state against the hourly limit."""
        if self.creates.limit is not None:
            newest = self.store.list_batches(after=None, limit=self.creates.limit)
            self.creates.restore([float(batch.created_at) for batch in reversed(newest)])

    def admit(self, rate: RateLimit, what: str) -> None:
        """429 if this rate limit is reached. `what` names what is counted and per what."""
        wait = rate.acquire()
        if wait > 0:
            message = f"Rate limit reached for {what} in organization org-local. Limit: {rate.limit:,}."
            raise too_many(f"{message} Please try again later.", retry_after=wait / self.clock.speed)


def _server(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


#: a route's parameter of this type receives the running server
TheServer = Annotated[Server, Depends(_server)]


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request as a JSON object, or 400 in OpenAI's words (openai-openapi issue 502)."""
    given = request.headers.get("content-type", "")
    if given and _media_type(given) != "application/json":
        raise ApiError(
            400,
            f"Unsupported content type: '{given}'. This API method only accepts 'application/json' requests, but you"
            f" specified the header 'Content-Type: {given}'. Please try again with a supported content type.",
            code="unsupported_content_type",
        )
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise wrong_type("body", "an object", body)
    return body


def only_known(body: dict[str, Any], names: set[str]) -> None:
    """400 if the body of a request has a parameter beyond these."""
    for name in body:
        if name not in names:
            raise ApiError(400, f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")


def expect_form(request: Request) -> None:
    """415 in OpenAI's words (dongri/openai-api-rs issue 51) unless the body of a request is a multipart form."""
    given = request.headers.get("content-type", "")
    if _media_type(given) != "multipart/form-data":
        raise ApiError(
            415,
            f"Invalid Content-Type header ({given}), expected multipart/form-data."
            " (HINT: If you're using curl, you can pass -H 'Content-Type: multipart/form-data')",
        )


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def limit_of(request: Request, *, default: int, most: int) -> int:
    """The `limit` of a list call, from 1 to `most`, or 400."""
    given = request.query_params.get("limit")
    if given is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", given):
        raise wrong_type("limit", "an integer", given)
    limit = int(given)
    refused = out_of_range("limit", "integer", limit, 1, most)
    if refused is not None:
        raise refused
    return limit


def whole_number(value: object) -> int | None:
    """What JSON Schema counts as an integer, as an int: 5 and 5.0, but not true. None if it is none."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def expires_after(anchor: object, seconds: object, name: str) -> int:
    """The seconds of an expiration policy, 1 hour to 30 days, or 400. `name` is the parameter's."""
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
    whole = whole_number(seconds)
    if whole is None or not 3_600 <= whole <= 2_592_000:
        raise ApiError(
            400,
            f"Invalid '{name}.seconds': expected an integer from 3600 to 2592000, but got {seconds} instead.",
            param=f"{name}.seconds",
            code="invalid_value",
        )
    return whole
