"""`/admin`: faults, clock and counts, for tests. The routes exist only with the option `--admin`."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Request

from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Call, FaultsError, read_faults
from airflow_provider_batch.local.http.server import Server, TheServer

router = APIRouter(prefix="/admin")

#: seconds of the farthest jump, 100 years. The clock never goes back, so a mistyped jump would be there for ever.
_FARTHEST = 3_155_760_000


class _Jump(msgspec.Struct, forbid_unknown_fields=True):
    advance: Annotated[float, msgspec.Meta(ge=0, le=_FARTHEST)]


def _plan(server: Server) -> list[dict[str, Any]]:
    return [
        {"fault": msgspec.to_builtins(fault), "hits": hits}
        for fault, hits in zip(server.faults.plan, server.faults.hits, strict=True)
    ]


@router.get("/faults")
async def faults(server: TheServer) -> list[dict[str, Any]]:
    """Each fault, and how often it has hit."""
    return _plan(server)


@router.put("/faults")
async def replace_faults(request: Request, server: TheServer) -> list[dict[str, Any]]:
    """Take a JSON list of faults instead of all others, until the server ends; 400 if one is wrong."""
    try:
        wanted = read_faults(await request.body())
    except FaultsError as error:
        raise ApiError(400, f"Invalid faults: {error}", param=error.param, code="invalid_value") from error
    server.faults.replace(wanted)
    return _plan(server)


@router.delete("/faults")
async def no_faults(server: TheServer) -> list[dict[str, Any]]:
    """Let nothing go wrong any more."""
    server.faults.replace(())
    return _plan(server)


@router.get("/clock")
async def clock(server: TheServer) -> dict[str, float]:
    """The server's time in Unix seconds, and its seconds per real second."""
    return {"now": server.clock.now(), "speed": server.clock.speed}


@router.post("/clock")
async def advance(request: Request, server: TheServer) -> dict[str, float]:
    """Jump `{"advance": seconds}` ahead; 400 for anything else."""
    try:
        jump = msgspec.json.decode(await request.body(), type=_Jump)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"Invalid jump: {error}", param="advance", code="invalid_value") from error
    server.clock.advance(jump.advance)
    return await clock(server)


@router.get("/calls")
async def calls(server: TheServer) -> dict[str, int]:
    """How many of each call came in since the server was started, whatever became of them."""
    return {call.value: server.calls[call] for call in Call}
