"""Translates Azure's paths and its API key header into OpenAI's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow_provider_batch.local.dialects.dialect import Dialect

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: paths of the SDK's `AzureOpenAI` (/openai/batches, /openai/deployments/NAME/chat/completions) and of Azure's v1 API
_PATH = re.compile(r"/openai/(?:v1/)?(?:deployments/[^/]+/)?(.+)")


class AzureMiddleware:
    """Middleware that turns Azure's requests into OpenAI's.

    With the switch `azure-paths`, `/openai/…` and `/openai/v1/…` are served like `/v1/…`, which still works. With
    `api-key-header`, the header `api-key` counts as a bearer token.
    """

    def __init__(self, app: ASGIApp, dialect: Dialect) -> None:
        self._app = app
        self._rewrite_paths = "azure-paths" in dialect
        self._accept_key_header = "api-key-header" in dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Rewrite the path and the header of the request, and pass it on."""
        if scope["type"] == "http":
            scope = dict(scope)
            match = _PATH.fullmatch(scope["path"]) if self._rewrite_paths else None
            if match is not None:
                scope["path"] = f"/v1/{match[1]}"
                scope["raw_path"] = scope["path"].encode()
            headers = dict(scope["headers"])
            if self._accept_key_header and b"api-key" in headers and b"authorization" not in headers:
                scope["headers"] = [*scope["headers"], (b"authorization", b"Bearer " + headers[b"api-key"])]
        await self._app(scope, receive, send)
