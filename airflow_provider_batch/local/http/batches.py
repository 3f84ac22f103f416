"""`/v1/batches`: create, retrieve, list and cancel batches.

Creating a batch checks only the request itself. Errors in the input file show up later, as a failed batch.
"""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Request

from airflow_provider_batch.local.answers.prompt import ENDPOINTS, UNSUPPORTED_ENDPOINTS
from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, wrong_type
from airflow_provider_batch.local.api.objects import Batch, new_batch_id
from airflow_provider_batch.local.http.server import ServerDependency, parse_expiration, parse_limit, read_json_object
from airflow_provider_batch.local.settings import FILE_LIFETIME

router = APIRouter(prefix="/batches")

#: limits of `metadata`: pairs, and characters of a key and a value (OpenAI's API description, schema Metadata)
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512


@router.post("")
async def create(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Create a batch. Respond with 400 to an invalid endpoint, window, metadata or expiration policy."""
    body = await read_json_object(request)
    for name in ("input_file_id", "endpoint", "completion_window"):
        if body.get(name) is None:
            raise missing_parameter(name)
        if not isinstance(body[name], str):
            raise wrong_type(name, "a string", body[name])
    dialect = server.settings.dialect
    endpoint = dialect.endpoint(body["endpoint"])
    if endpoint in UNSUPPORTED_ENDPOINTS:
        raise ApiError(
            400,
            f"The local batch server does not implement the endpoint '{endpoint}', which OpenAI's batches support."
            f" It implements: {', '.join(ENDPOINTS)}.",
            param="endpoint",
            code="unsupported_endpoint",
        )
    if endpoint not in ENDPOINTS:
        raise invalid_value("endpoint", body["endpoint"], list(ENDPOINTS))
    window = dialect.window(body["completion_window"])
    if window is None:
        raise invalid_value("completion_window", body["completion_window"], list(dialect.windows.supported))
    metadata = body.get("metadata")
    _check_metadata(metadata)
    output_lifetime = _output_lifetime(body)
    server.enforce(server.create_rate, "batches created per hour")
    now = server.clock.seconds()
    batch = Batch(
        id=new_batch_id(),
        endpoint=endpoint,
        input_file_id=dialect.internal_id(body["input_file_id"]),
        completion_window=window,
        created_at=now,
        expires_at=now + dialect.lifetime(window, server.settings.window),
        metadata=metadata,
    )
    return dialect.create_reply(_to_json(server.engine.submit(batch, output_lifetime=output_lifetime)))


def _output_lifetime(body: dict[str, Any]) -> int:
    policy = body.get("output_expires_after")
    if policy is None:
        return FILE_LIFETIME
    if not isinstance(policy, dict):
        raise wrong_type("output_expires_after", "an object", policy)
    return parse_expiration(policy.get("anchor"), policy.get("seconds"), "output_expires_after")


def _check_metadata(metadata: object) -> None:
    if metadata is None:
        return
    if not isinstance(metadata, dict):
        raise wrong_type("metadata", "an object", metadata)
    if len(metadata) > _MAX_PAIRS:
        raise ApiError(
            400,
            f"Invalid 'metadata': too many properties. Expected an object with at most {_MAX_PAIRS} properties,"
            f" but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise wrong_type(f"metadata.{key}", "a string", value)
        for text, maximum in ((key, _MAX_KEY), (value, _MAX_VALUE)):
            if len(text) > maximum:
                raise ApiError(
                    400,
                    f"Invalid 'metadata.{key}': string too long. Expected a string with maximum length {maximum},"
                    f" but got a string with length {len(text)} instead.",
                    param=f"metadata.{key}",
                    code="string_above_max_length",
                )


def _to_json(batch: Batch) -> dict[str, Any]:
    wire = msgspec.to_builtins(batch)
    assert isinstance(wire, dict)
    return wire


@router.get("")
async def list_batches(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Return a page of batches, newest first. `limit` is 1 to 100, 20 by default."""
    limit = parse_limit(request, default=20, maximum=100)
    dialect = server.settings.dialect
    after = dialect.list_start(request.query_params.get("after"), request.query_params.get("cursor"))
    if after is not None:
        server.engine.batch(after)
    batches = server.batch_views.list(after=after, limit=limit + 1)
    page = batches[:limit]
    return dialect.rewrite_page(
        {
            "object": "list",
            "data": [dialect.rewrite_batch(_to_json(batch)) for batch in page],
            "first_id": page[0].id if page else None,
            "last_id": page[-1].id if page else None,
            "has_more": len(batches) > limit,
        }
    )


@router.get("/{batch_id}")
async def retrieve(batch_id: str, server: ServerDependency) -> dict[str, Any]:
    """Return the current state of one batch."""
    return server.settings.dialect.rewrite_batch(_to_json(server.batch_views.retrieve(batch_id)))


@router.post("/{batch_id}/cancel")
async def cancel(batch_id: str, server: ServerDependency) -> dict[str, Any]:
    """Start to cancel a batch. Respond with 409 if it has already ended in another way."""
    return server.settings.dialect.rewrite_batch(_to_json(server.engine.cancel(batch_id)))
