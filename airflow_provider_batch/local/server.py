"""What the routes share: the parts of one running server, and how a request's body and query are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Request

from airflow_provider_batch.local.engine import Engine
from airflow_provider_batch.local.errors import ApiError, out_of_range, wrong_type
from airflow_provider_batch.local.responder import Responder
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.store import Store


@dataclass(frozen=True)
class Server:
    """The parts of one running server."""

    settings: Settings
    store: Store
    responder: Responder
    engine: Engine


def _server(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


#: a route's parameter of this type receives the running server
TheServer = Annotated[Server, Depends(_server)]


async def json_object(request: Request) -> dict[str, Any]:
    """The body of a request as a JSON object, or 400."""
    try:
        body = msgspec.json.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "We could not parse the JSON body of your request.") from error
    if not isinstance(body, dict):
        raise wrong_type("body", "an object", body)
    return body


def limit_of(request: Request, *, default: int, most: int) -> int:
    """The `limit` of a list call, from 1 to `most`, or 400."""
    given = request.query_params.get("limit")
    if given is None:
        return default
    if not given.isdecimal():
        raise wrong_type("limit", "an integer", given)
    limit = int(given)
    refused = out_of_range("limit", "integer", limit, 1, most)
    if refused is not None:
        raise refused
    return limit


def expires_after(anchor: object, seconds: object, name: str) -> int:
    """The seconds of an expiration policy, 1 hour to 30 days, or 400. `name` is the parameter's."""
    if anchor != "created_at":
        raise ApiError(
            400,
            f"Invalid value: '{anchor}'. Supported values are: 'created_at'.",
            param=f"{name}.anchor",
            code="invalid_value",
        )
    if isinstance(seconds, str) and seconds.isdecimal():
        seconds = int(seconds)
    if not isinstance(seconds, int) or not 3_600 <= seconds <= 2_592_000:
        raise ApiError(
            400,
            f"Invalid '{name}.seconds': expected an integer from 3600 to 2592000, but got {seconds} instead.",
            param=f"{name}.seconds",
            code="invalid_value",
        )
    return seconds
