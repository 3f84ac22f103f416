"""Azure's paths and its key header, translated on the way in."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_batch.local.dialects.dialect import Dialect

#: as `AzureOpenAI` of the openai SDK asks: /openai/batches, /openai/deployments/NAME/chat/completions; and its v1 API
_PATH = re.compile(r"/openai/(?:v1/)?(?:deployments/[^/]+/)?(.+)")


class AzureMiddleware:
    """Middleware that makes OpenAI's call of an Azure one.

    With `azure-paths` `/openai/…` and `/openai/v1/…` lead to `/v1/…`, which goes on working; with `api-key-header` that
    header counts as a bearer token.
    """

    def __init__(self, app: ASGIApp, dialect: Dialect) -> None:
        self._app = app
        self._paths = "azure-paths" in dialect
        self._key = "api-key-header" in dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the call on as OpenAI's."""
        if scope["type"] == "http":
            scope = dict(scope)
            found = _PATH.fullmatch(scope["path"]) if self._paths else None
            if found is not None:
                scope["path"] = f"/v1/{found[1]}"
                scope["raw_path"] = scope["path"].encode()
            headers = dict(scope["headers"])
            if self._key and b"api-key" in headers and b"authorization" not in headers:
                scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + headers[b"api-key"])]
        await self._app(scope, receive, send)
