"""A provider that misbehaves on demand, and the connection that leads to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.triggers.provider import Provider

CONN = "openai_default"


@pytest.fixture
def with_provider(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Provider], Awaitable[Any]]], Any]:
    """Runs a coroutine in a loop of its own, with a provider that `openai_default` leads to; what it returns."""

    @asynccontextmanager
    async def connected() -> AsyncIterator[Provider]:
        async with Provider().serve() as provider:
            conn = {"conn_type": "openai", "password": "key", "host": provider.base_url}
            monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps(conn))
            yield provider

    def run(test: Callable[[Provider], Awaitable[Any]]) -> Any:
        async def whole() -> Any:
            async with connected() as provider, asyncio.timeout(120):
                return await test(provider)

        return asyncio.run(whole())

    return run
