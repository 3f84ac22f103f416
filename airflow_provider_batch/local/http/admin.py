"""`/admin`: faults, clock and call counts, for tests. The routes exist only with the option `--admin`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request

from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Call, FaultsError, read_faults
from airflow_provider_batch.local.http.server import Server, ServerDependency

router = APIRouter(prefix="/admin")

#: Maximum jump in seconds: 100 years. The clock never goes back, so a mistyped jump could not be undone.
_MAX_JUMP = 3_155_760_000


class _Jump(msgspec.Struct, forbid_unknown_fields=True):
    advance: Annotated[float, msgspec.Meta(ge=0, le=_MAX_JUMP)]


def _plan(server: Server) -> list[dict[str, Any]]:
    return [
        {"fault": msgspec.to_builtins(fault), "hits": hits}
        for fault, hits in zip(server.faults.plan, server.faults.hits, strict=True)
    ]


@router.get("/faults")
async def faults(server: ServerDependency) -> list[dict[str, Any]]:
    """Return each fault and how often it has hit."""
    return _plan(server)


@router.put("/faults")
async def replace_faults(request: Request, server: ServerDependency) -> list[dict[str, Any]]:
    """Replace all faults with a JSON list of faults until the server stops. Respond with 400 if one is invalid."""
    try:
        plan = read_faults(await request.body())
    except FaultsError as error:
        raise ApiError(400, f"Invalid faults: {error}", param=error.param, code="invalid_value") from error
    server.faults.replace(plan)
    return _plan(server)


@router.delete("/faults")
async def remove_faults(server: ServerDependency) -> list[dict[str, Any]]:
    """Remove all faults."""
    server.faults.replace(())
    return _plan(server)


@router.get("/clock")
async def clock(server: ServerDependency) -> dict[str, float]:
    """Return the server's time in Unix seconds, and its speed in server seconds per real second."""
    return {"now": server.clock.now(), "speed": server.clock.speed}


@router.post("/clock")
async def advance(request: Request, server: ServerDependency) -> dict[str, float]:
    """Move the clock ahead by the seconds in `{"advance": seconds}`. Respond with 400 to any other body."""
    try:
        jump = msgspec.json.decode(await request.body(), type=_Jump)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"Invalid jump: {error}", param="advance", code="invalid_value") from error
    server.clock.advance(jump.advance)
    return await clock(server)


@router.get("/calls")
async def calls(server: ServerDependency) -> dict[str, int]:
    """Return the number of calls of each kind since the server started, including failed and refused ones."""
    return {call.value: server.calls[call] for call in Call}
