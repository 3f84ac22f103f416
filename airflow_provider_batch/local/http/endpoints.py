"""The synchronous endpoints: the same answers as in a batch, at once. They do not stream."""

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
from airflow_provider_batch.local.http.server import Server, TheServer, json_object

router = APIRouter()

#: named by `GET /v1/models` when the server was not told which models it knows; any other name works too
_EXAMPLES = (
    "gpt-3.5-turbo-instruct",
    "gpt-5-mini",
    "gpt-5-nano",
    MODERATION_MODEL,
    "text-embedding-3-large",
    "text-embedding-3-small",
)
#: 2026-01-01, the made-up creation time of every model
_CREATED = 1_767_225_600


async def _answer(endpoint: str, request: Request, server: Server) -> JSONResponse:
    reply = await server.responder.answer(ModelRequest(endpoint=endpoint, body=await json_object(request)))
    return JSONResponse(reply.body, status_code=reply.status)


@router.post("/chat/completions")
async def chat_completions(request: Request, server: TheServer) -> JSONResponse:
    """Answer one chat."""
    return await _answer(CHAT, request, server)


@router.post("/responses")
async def responses(request: Request, server: TheServer) -> JSONResponse:
    """Answer one responses request."""
    return await _answer(RESPONSES, request, server)


@router.post("/embeddings")
async def embeddings(request: Request, server: TheServer) -> JSONResponse:
    """Embed one or several inputs."""
    return await _answer(EMBEDDINGS, request, server)


@router.post("/completions")
async def completions(request: Request, server: TheServer) -> JSONResponse:
    """Complete one or several prompts."""
    return await _answer(COMPLETIONS, request, server)


@router.post("/moderations")
async def moderations(request: Request, server: TheServer) -> JSONResponse:
    """Judge one or several inputs."""
    return await _answer(MODERATIONS, request, server)


def _model(name: str, server: Server) -> dict[str, Any]:
    owner = "upstream" if server.upstream is not None else "offline-responder"
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": owner}


@router.get("/models")
async def models(server: TheServer) -> dict[str, Any]:
    """The models the server was told of, or the upstream's, or examples: without a list, every name is accepted."""
    if server.upstream is not None and not server.settings.models:
        return {"object": "list", "data": await server.upstream.models()}
    names = sorted(server.settings.models or _EXAMPLES)
    return {"object": "list", "data": [_model(name, server) for name in names]}


@router.get("/models/{name:path}")
async def model(name: str, server: TheServer) -> dict[str, Any]:
    """One model; 404 if the server was told which models it knows and this is none of them."""
    if server.settings.models and name not in server.settings.models:
        raise ApiError(
            404,
            f"The model '{name}' does not exist or you do not have access to it.",
            param="model",
            code="model_not_found",
        )
    return _model(name, server)
