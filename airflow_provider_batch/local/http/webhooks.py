"""`/v1/webhook_endpoints`: who is told when a batch has ended, as `client.webhooks` of the openai SDK has it.

Two things differ from OpenAI. A receiver must be on this computer, `http` is enough for it: a server for development
must not be a way to reach other hosts. And of the event types that OpenAI knows, which are all accepted, only those of
batches ever occur.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import httpx2
from fastapi import APIRouter, Request

from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, wrong_type
from airflow_provider_batch.local.http.server import TheServer, json_object, limit_of, only_known
from airflow_provider_batch.local.webhooks.delivery import UndeliveredError
from airflow_provider_batch.local.webhooks.store import Endpoint, event, new_endpoint_id, new_secret, new_webhook_id

router = APIRouter()

_BATCH_EVENTS = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
#: what `webhooks.create` of the openai SDK takes
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
#: seconds that a rotated secret may stay active
_OLD_SECRET = 86_400


@router.get("/webhook_event_types")
async def event_types() -> dict[str, Any]:
    """The types of events that occur here."""
    return {"object": "list", "data": _BATCH_EVENTS}


@router.post("/webhook_endpoints")
async def create(request: Request, server: TheServer) -> dict[str, Any]:
    """Add an endpoint. Its secret is shown now and when it is rotated, never again."""
    body = await json_object(request)
    only_known(body, {"event_types", "name", "url"})
    for name in ("event_types", "name", "url"):
        if body.get(name) is None:
            raise missing_parameter(name)
    now = server.clock.seconds()
    endpoint = Endpoint(id=new_endpoint_id(), created_at=now, updated_at=now, secret=new_secret(), **_checked(body))
    server.webhooks.add_endpoint(endpoint)
    return _with_secret(endpoint)


def _checked(body: dict[str, Any]) -> dict[str, Any]:
    """The fields of an endpoint that are given, or 400."""
    checked = dict[str, Any]()
    for name in ("name", "url"):
        given = body.get(name)
        if given is not None:
            if not isinstance(given, str):
                raise wrong_type(name, "a string", given)
            checked[name] = given
    if checked.get("name") == "":
        raise ApiError(400, "Invalid 'name': it is empty.", param="name", code="invalid_value")
    if "url" in checked and not _is_loopback(checked["url"]):
        raise ApiError(
            400,
            "Invalid 'url': the local batch server tells receivers on this computer alone. It must be an http or https"
            " URL of localhost or a loopback address, without a password, such as http://127.0.0.1:8000/webhook.",
            param="url",
            code="invalid_value",
        )
    if body.get("event_types") is not None:
        checked["event_types"] = _checked_types(body["event_types"])
    return checked


def _is_loopback(url: str) -> bool:
    # Read by the client that will go there, so that both understand the same.
    try:
        parsed = httpx2.URL(url)
        if parsed.scheme not in ("http", "https") or parsed.userinfo:
            return False
        return parsed.host == "localhost" or ipaddress.ip_address(parsed.host).is_loopback
    except (httpx2.InvalidURL, ValueError):
        return False


def _checked_types(given: Any) -> list[str]:
    if not isinstance(given, list):
        raise wrong_type("event_types", "an array", given)
    if not given:
        raise ApiError(400, "Invalid 'event_types': the array is empty.", param="event_types", code="invalid_value")
    for index, one in enumerate(given):
        if one not in _EVENT_TYPES:
            raise invalid_value(f"event_types[{index}]", one, _EVENT_TYPES)
    return list(dict.fromkeys(given))


def _wire(endpoint: Endpoint) -> dict[str, Any]:
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
    return {**_wire(endpoint), "signing_secret": endpoint.secret}


def _known(server: TheServer, endpoint_id: str) -> Endpoint:
    endpoint = server.webhooks.endpoint(endpoint_id)
    if endpoint is None:
        raise ApiError(404, f"No webhook endpoint found with id '{endpoint_id}'.", param="webhook_endpoint_id")
    return endpoint


@router.get("/webhook_endpoints")
async def list_endpoints(request: Request, server: TheServer) -> dict[str, Any]:
    """Endpoints, newest first, by pages of 1 to 100, default 20."""
    limit = limit_of(request, default=20, most=100)
    after = request.query_params.get("after")
    found = server.webhooks.endpoints()
    if after is not None:
        found = found[found.index(_known(server, after)) + 1 :]
    page = found[:limit]
    return {
        "object": "list",
        "data": [_wire(endpoint) for endpoint in page],
        "first_id": page[0].id if page else None,
        "last_id": page[-1].id if page else None,
        "has_more": len(found) > limit,
    }


@router.get("/webhook_endpoints/{endpoint_id}")
async def retrieve(endpoint_id: str, server: TheServer) -> dict[str, Any]:
    """One endpoint, without its secret."""
    return _wire(_known(server, endpoint_id))


@router.post("/webhook_endpoints/{endpoint_id}")
async def update(endpoint_id: str, request: Request, server: TheServer) -> dict[str, Any]:
    """Change what is given; what waits to be delivered goes to the new URL."""
    body = await json_object(request)
    only_known(body, {"event_types", "name", "url"})
    return _wire(server.webhooks.change_endpoint(_known(server, endpoint_id), **_checked(body)))


@router.delete("/webhook_endpoints/{endpoint_id}")
async def delete(endpoint_id: str, server: TheServer) -> dict[str, Any]:
    """Delete an endpoint; what waits to be delivered to it is dropped."""
    server.webhooks.delete_endpoint(_known(server, endpoint_id).id)
    return {"id": endpoint_id, "object": "webhook_endpoint.deleted", "deleted": True}


@router.post("/webhook_endpoints/{endpoint_id}/rotate_secret")
async def rotate_secret(endpoint_id: str, request: Request, server: TheServer) -> dict[str, Any]:
    """Give an endpoint a new secret. Events are signed with both for 24 hours if one asks for it."""
    # OpenAI's sample has no body.
    body = await json_object(request) if await request.body() else {}
    name = "keep_old_secret_active_for_24_hours"
    only_known(body, {name})
    keep = body.get(name, False)
    if not isinstance(keep, bool):
        raise wrong_type(name, "a boolean", keep)
    endpoint = _known(server, endpoint_id)
    changed = server.webhooks.change_endpoint(
        endpoint,
        secret=new_secret(),
        old_secret=endpoint.secret if keep else "",
        old_secret_until=server.clock.now() + _OLD_SECRET if keep else 0.0,
    )
    return _with_secret(changed)


@router.post("/webhook_endpoints/{endpoint_id}/test")
async def test(endpoint_id: str, request: Request, server: TheServer) -> dict[str, Any]:
    """Send a sample event once, whether or not the endpoint wants such; 400 if no answer comes."""
    body = await json_object(request)
    only_known(body, {"event_type"})
    kind = body.get("event_type")
    if kind is None:
        raise missing_parameter("event_type")
    if kind not in _BATCH_EVENTS:
        raise invalid_value("event_type", kind, _BATCH_EVENTS)
    endpoint = _known(server, endpoint_id)
    sample = event(kind, "batch_test", created_at=server.clock.seconds())
    try:
        status = await server.courier.post(endpoint, new_webhook_id(), sample)
    except UndeliveredError as error:
        raise ApiError(400, f"The test event did not arrive at {endpoint.url}: {error}.") from error
    return {
        "object": "webhook_endpoint.test",
        "webhook_endpoint_id": endpoint.id,
        "event_type": kind,
        "status_code": status,
        "success": True,
    }
