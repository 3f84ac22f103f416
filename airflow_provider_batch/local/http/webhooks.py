"""`/v1/webhook_endpoints`: webhooks that report the end of a batch, as in `client.webhooks` of the openai SDK.

Two things differ from OpenAI:

- A receiver must be on this computer, and may use plain `http`. A development server must not be a way to reach other
  hosts.
- An endpoint can subscribe to all of OpenAI's event types, but this server sends batch events only.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import httpx2
from fastapi import APIRouter, Request

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, wrong_type
from airflow_provider_batch.local.http.server import ServerDependency, parse_limit, read_json_object, reject_unknown
from airflow_provider_batch.local.webhooks.delivery import UndeliveredError
from airflow_provider_batch.local.webhooks.store import (
    Endpoint,
    encode_event,
    new_endpoint_id,
    new_secret,
    new_webhook_id,
)

router = APIRouter()

_BATCH_EVENTS = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
#: event types that `webhooks.create` of the openai SDK accepts
_EVENT_TYPES = [
    *_BATCH_EVENTS,
    "response.completed",
    "response.failed",
    "response.cancelled",
    "response.incomplete",
    "eval.run.succeeded",
    "eval.run.failed",
    "eval.run.canceled",
    "fine_tuning.job.succeeded",
    "fine_tuning.job.failed",
    "fine_tuning.job.cancelled",
    "realtime.call.incoming",
    "video.completed",
    "video.failed",
    "agent.environment.ready",
    "agent.environment.failed",
    "agent.environment.suspended",
    "agent.environment.expired",
    "agent.session.created",
    "agent.session.action_required",
    "agent.session.in_progress",
    "agent.session.idle",
    "agent.session.failed",
    "safety.alert.created",
]
#: seconds for which the old secret can stay active after a rotation
_OLD_SECRET_LIFETIME = 86_400


@router.get("/webhook_event_types")
async def event_types() -> dict[str, Any]:
    """Return the types of events that this server sends."""
    return {"object": "list", "data": _BATCH_EVENTS}


@router.post("/webhook_endpoints")
async def create(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Create an endpoint. Its secret is returned only here and by `rotate_secret`."""
    body = await read_json_object(request)
    reject_unknown(body, {"event_types", "name", "url"})
    for name in ("event_types", "name", "url"):
        if body.get(name) is None:
            raise missing_parameter(name)
    now = server.clock.seconds()
    endpoint = Endpoint(
        id=new_endpoint_id(), created_at=now, updated_at=now, secret=new_secret(), **_parse_fields(body)
    )
    server.webhooks.add_endpoint(endpoint)
    return _with_secret(endpoint)


def _parse_fields(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of an endpoint that the body contains. Respond with 400 if one is invalid."""
    fields = dict[str, Any]()
    for name in ("name", "url"):
        value = body.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise wrong_type(name, "a string", value)
            fields[name] = value
    if fields.get("name") == "":
        raise ApiError(400, "Invalid 'name': it is empty.", param="name", code="invalid_value")
    if "url" in fields and not _is_loopback(fields["url"]):
        raise ApiError(
            400,
            "Invalid 'url': the local batch server sends events only to this computer. Use an http or https URL with"
            " localhost or a loopback address and without a password, such as http://127.0.0.1:8000/webhook.",
            param="url",
            code="invalid_value",
        )
    if body.get("event_types") is not None:
        fields["event_types"] = _parse_event_types(body["event_types"])
    return fields


def _is_loopback(url: str) -> bool:
    # parse the URL with the HTTP client that will use it, so that the check cannot interpret it differently
    try:
        parsed = httpx2.URL(url)
        if parsed.scheme not in ("http", "https") or parsed.userinfo:
            return False
        return parsed.host == "localhost" or ipaddress.ip_address(parsed.host).is_loopback
    except (httpx2.InvalidURL, ValueError):
        return False


def _parse_event_types(event_types: Any) -> list[str]:
    if not isinstance(event_types, list):
        raise wrong_type("event_types", "an array", event_types)
    if not event_types:
        raise ApiError(400, "Invalid 'event_types': the array is empty.", param="event_types", code="invalid_value")
    for index, event_type in enumerate(event_types):
        if event_type not in _EVENT_TYPES:
            raise invalid_value(f"event_types[{index}]", event_type, _EVENT_TYPES)
    return list(dict.fromkeys(event_types))


def _to_json(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "signing_secret_hint": f"whsec_****{endpoint.secret[-4:]}",
    }


def _with_secret(endpoint: Endpoint) -> dict[str, Any]:
    return {**_to_json(endpoint), "signing_secret": endpoint.secret}


def _find_endpoint(server: ServerDependency, endpoint_id: str) -> Endpoint:
    endpoint = server.webhooks.endpoint(endpoint_id)
    if endpoint is None:
        raise ApiError(404, f"No webhook endpoint found with id '{endpoint_id}'.", param="webhook_endpoint_id")
    return endpoint


@router.get("/webhook_endpoints")
async def list_endpoints(request: Request, server: ServerDependency) -> dict[str, Any]:
    """Return a page of endpoints, newest first. `limit` is 1 to 100, 20 by default."""
    limit = parse_limit(request, default=20, maximum=100)
    after = request.query_params.get("after")
    endpoints = server.webhooks.endpoints()
    if after is not None:
        endpoints = endpoints[endpoints.index(_find_endpoint(server, after)) + 1 :]
    page = endpoints[:limit]
    return {
        "object": "list",
        "data": [_to_json(endpoint) for endpoint in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(endpoints) > limit,
    }


@router.get("/webhook_endpoints/{endpoint_id}")
async def retrieve(endpoint_id: str, server: ServerDependency) -> dict[str, Any]:
    """Return one endpoint, without its secret."""
    return _to_json(_find_endpoint(server, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}")
async def update(endpoint_id: str, request: Request, server: ServerDependency) -> dict[str, Any]:
    """Change the fields that the body contains. Pending deliveries go to the new URL."""
    body = await read_json_object(request)
    reject_unknown(body, {"event_types", "name", "url"})
    return _to_json(server.webhooks.change_endpoint(_find_endpoint(server, endpoint_id), **_parse_fields(body)))


@router.delete("/webhook_endpoints/{endpoint_id}")
async def delete(endpoint_id: str, server: ServerDependency) -> dict[str, Any]:
    """Delete an endpoint and its pending deliveries."""
    server.webhooks.delete_endpoint(_find_endpoint(server, endpoint_id).id)
    return {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
async def rotate_secret(endpoint_id: str, request: Request, server: ServerDependency) -> dict[str, Any]:
    """Give an endpoint a new secret. The body can keep the old one active for 24 hours, alongside the new one."""
    # the example in OpenAI's documentation sends no body
    body = await read_json_object(request) if await request.body() else {}
    name = "keep_old_secret_active_for_24_hours"
    reject_unknown(body, {name})
    keep_old = body.get(name, False)
    if not isinstance(keep_old, bool):
        raise wrong_type(name, "a boolean", keep_old)
    endpoint = _find_endpoint(server, endpoint_id)
    changed = server.webhooks.change_endpoint(
        endpoint,
        secret=new_secret(),
        old_secret=endpoint.secret if keep_old else "",
        old_secret_until=server.clock.now() + _OLD_SECRET_LIFETIME if keep_old else 0.0,
    )
    return _with_secret(changed)


@router.post("/webhook_endpoints/{endpoint_id}/test")
async def test(endpoint_id: str, request: Request, server: ServerDependency) -> dict[str, Any]:
    """Send a sample event once, even if the endpoint does not subscribe to its type.

    Responds with 400 if the receiver does not respond.
    """
    body = await read_json_object(request)
    reject_unknown(body, {"event_type"})
    kind = body.get("event_type")
    if kind is None:
        raise missing_parameter("event_type")
    if kind not in _BATCH_EVENTS:
        raise invalid_value("event_type", kind, _BATCH_EVENTS)
    endpoint = _find_endpoint(server, endpoint_id)
    sample = encode_event(kind, "batch_test", created_at=server.clock.seconds())
    try:
        status = await server.webhook_sender.post(endpoint, new_webhook_id(), sample)
    except UndeliveredError as error:
        raise ApiError(400, f"The test event could not be delivered to {endpoint.url}: {error}.") from error
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint.id,
        "event_type": kind,
        "status_code": status,
        "success": True,
    }
