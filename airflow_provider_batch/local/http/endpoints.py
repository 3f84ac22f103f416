"""The synchronous endpoints. They give the same answers as a batch. Streaming is not supported."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from airflow_provider_batch.local.answers.prompt import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATION_MODEL,
    MODERATIONS,
    RESPONSES,
)
from airflow_provider_batch.local.answers.responder import ModelRequest
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.http.flex import check_tier
from airflow_provider_batch.local.http.server import Server, ServerDependency, read_json_object

router = APIRouter()

#: Models that `GET /v1/models` lists without `--model` and `--upstream`. All other names work too.
_EXAMPLES = (
    "gpt-3.5-turbo-instruct",
    "gpt-5-mini",
    "gpt-5-nano",
    MODERATION_MODEL,
    "text-embedding-3-large",
    "text-embedding-3-small",
)
#: 2026-01-01, an arbitrary creation time for every model
_CREATED = 1_767_225_600


async def _answer(endpoint: str, request: Request, server: Server) -> JSONResponse:
    body = await read_json_object(request)
    tier = body.get("service_tier") if endpoint in (CHAT, RESPONSES) else None
    check_tier(tier)
    if tier == "flex":
        await server.flex.process(str(body.get("model")))
    reply = await server.responder.answer(ModelRequest(endpoint=endpoint, body=body))
    content = {**reply.body, "service_tier": "flex"} if tier == "flex" and reply.status == 200 else reply.body
    return JSONResponse(content, status_code=reply.status)


@router.post("/chat/completions")
async def chat_completions(request: Request, server: ServerDependency) -> JSONResponse:
    """Answer one chat completions request."""
    return await _answer(CHAT, request, server)


@router.post("/responses")
async def responses(request: Request, server: ServerDependency) -> JSONResponse:
    """Answer one responses request."""
    return await _answer(RESPONSES, request, server)


@router.post("/embeddings")
async def embeddings(request: Request, server: ServerDependency) -> JSONResponse:
    """Return the embeddings of one or more inputs."""
    return await _answer(EMBEDDINGS, request, server)


@router.post("/completions")
async def completions(request: Request, server: ServerDependency) -> JSONResponse:
    """Complete one or more prompts."""
    return await _answer(COMPLETIONS, request, server)


@router.post("/moderations")
async def moderations(request: Request, server: ServerDependency) -> JSONResponse:
    """Return the moderation results of one or more inputs."""
    return await _answer(MODERATIONS, request, server)


def _model(name: str, server: Server) -> dict[str, Any]:
    owner = "upstream" if server.upstream is not None else "offline-responder"
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}


@router.get("/models")
async def models(server: ServerDependency) -> dict[str, Any]:
    """Return the models named with `--model` or, without that option, the upstream's models or a few examples."""
    if server.upstream is not None and not server.settings.models:
        return {"object": "list", "data": await server.upstream.models()}
    names = sorted(server.settings.models or _EXAMPLES)
    return {"object": "list", "data": [_model(name, server) for name in names]}


@router.get("/models/{name:path}")
async def model(name: str, server: ServerDependency) -> dict[str, Any]:
    """Return one model. Respond with 404 if `--model` restricts the models and this is not one of them."""
    if server.settings.models and name not in server.settings.models:
        raise ApiError(
            404,
            f"The model '{name}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    return _model(name, server)
