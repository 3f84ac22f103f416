"""Creates the application: routes under `/v1`, the API key check, and OpenAI's error shape for every error."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from airflow_provider_batch.local.answers.examples import LabelledExamples
from airflow_provider_batch.local.answers.faulty import FaultyResponder
from airflow_provider_batch.local.answers.file_ids import FileIdResponder
from airflow_provider_batch.local.answers.offline import OfflineResponder
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.dialects.azure import AzureMiddleware
from airflow_provider_batch.local.engine.engine import Engine
from airflow_provider_batch.local.faults import Faults
from airflow_provider_batch.local.http import admin, batches, endpoints, files, uploads, webhooks
from airflow_provider_batch.local.http.call_faults import CallFaults
from airflow_provider_batch.local.http.server import Server, ServerDependency
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.store import Store

if TYPE_CHECKING:
    from airflow_provider_batch.local.answers.upstream import UpstreamResponder


def create_app(state: Path, settings: Settings) -> FastAPI:
    """Return the application for one state directory.

    :raises airflow_provider_batch.local.storage.store.StateInUseError: another server is using the directory.
    :raises airflow_provider_batch.local.answers.examples.ExamplesError: the labelled examples cannot be used.
    """
    store = Store(state, speed=settings.speed)
    faults = Faults(settings.seed, store.first_time, settings.faults)
    upstream = _upstream(settings)

    def purpose_of(file_id: str) -> str | None:
        file = store.file(settings.dialect.internal_id(file_id))
        return None if file is None else file.purpose

    examples = LabelledExamples(settings.examples) if settings.examples else None
    offline = OfflineResponder(store.first_time, settings.forgotten, examples)
    answering = upstream or FileIdResponder(offline, purpose_of)
    responder = FaultyResponder(answering, faults)
    server = Server(settings, store, responder, Engine(store, responder, settings, faults=faults), faults, upstream)
    server.restore_create_rate()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        server.webhook_sender.start()
        await server.engine.resume()
        yield
        await server.engine.close()
        await server.webhook_sender.close()
        if upstream is not None:
            await upstream.close()
        store.clock.stop()
        store.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.server = server
    for routes in (files.router, uploads.router, batches.router, webhooks.router, endpoints.router):
        app.include_router(routes, prefix="/v1", dependencies=[Depends(_authorise)])
    if settings.admin:
        app.include_router(admin.router, dependencies=[Depends(_authorise)])
    if settings.injects_call_faults:
        app.add_middleware(CallFaults, server=server)
    if settings.dialect.accepts_azure_requests:
        # The middleware that is added last runs first. All others then see OpenAI's paths.
        app.add_middleware(AzureMiddleware, dialect=settings.dialect)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_internal_error)
    return app


def _upstream(settings: Settings) -> UpstreamResponder | None:
    if settings.upstream is None:
        return None
    # imported here because it loads the openai SDK, which takes longer to import than everything else
    from airflow_provider_batch.local.answers.upstream import UpstreamResponder

    return UpstreamResponder(settings.upstream, settings.concurrency)


async def _authorise(request: Request, server: ServerDependency) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise ApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using"
            " Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    expected_key = server.settings.api_key
    if expected_key is not None and not hmac.compare_digest(key.strip().encode(), expected_key.encode()):
        raise ApiError(401, "Incorrect API key provided.", code="invalid_api_key")


async def _answer_api_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ApiError)
    if "echo-key" in request.app.state.server.settings.dialect:
        _, _, key = request.headers.get("authorization", "").partition(" ")
        error.message = f"{error.message} (API key: {key.strip()})"
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


async def _answer_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    route = f"({request.method} {request.url.path})"
    message = {404: f"Invalid URL {route}", 405: f"Invalid method for URL {route}"}.get(error.status_code, error.detail)
    api_error = ApiError(error.status_code, message)
    # Starlette lists only the methods of the first route with this path
    headers = {"Allow": _allowed_methods(request)} if error.status_code == 405 else error.headers
    return JSONResponse(api_error.body(), status_code=error.status_code, headers=headers)


def _allowed_methods(request: Request) -> str:
    """Return all methods of the request's path, as the value of an `Allow` header."""
    routes = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in routes for method in route.methods or ()}))


async def _answer_internal_error(_: Request, error: Exception) -> JSONResponse:
    api_error = ApiError(500, f"The local batch server failed to process this request: {error!r}", type="server_error")
    return JSONResponse(api_error.body(), status_code=500)
