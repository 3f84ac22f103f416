"""A provider that misbehaves on demand, and the connection to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.airflow.triggers.provider import Provider

CONN = "openai_default"


@pytest.fixture
def with_provider(
    airflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Provider], Awaitable[Any]]], Any]:
    """Run a test coroutine in its own event loop, with a provider behind `openai_default`; return its result."""

    @asynccontextmanager
    async def serve_provider() -> AsyncIterator[Provider]:
        async with Provider().serve() as provider:
            conn = {"conn_type": "openai", "password": "key", "host": provider.base_url}
            monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps(conn))
            yield provider

    def run(test: Callable[[Provider], Awaitable[Any]]) -> Any:
        async def run_test() -> Any:
            async with serve_provider() as provider, asyncio.timeout(120):
                return await test(provider)

        return asyncio.run(run_test())

    return run
