"""Fixtures: the local server as a real subprocess, the real SDK as its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from airflow_provider_batch.local.process import LocalServer

Serve = Callable[..., tuple[LocalServer, OpenAI]]


def client_of(server: LocalServer) -> OpenAI:
    """A client that retries nothing, so that every answer is seen as it is."""
    return OpenAI(base_url=server.base_url, api_key="local", max_retries=0)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server without pauses, shared by all tests that need no other."""
    with LocalServer(tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[OpenAI]:
    with client_of(server) as opened:
        yield opened


@pytest.fixture(scope="session")
def admin_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as running:
        yield running


@pytest.fixture
def faulty(admin_server: LocalServer) -> Iterator[tuple[LocalServer, OpenAI]]:
    """A server without pauses whose faults a test may set. Shared, so its clock may be days ahead."""
    with client_of(admin_server) as opened:
        yield admin_server, opened
    admin_server.set_faults()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a server with options of one's own; called twice, it starts two."""
    with ExitStack() as stack:

        def start(**options: Any) -> tuple[LocalServer, OpenAI]:
            state = tmp_path / f"state-{len(list(tmp_path.iterdir()))}"
            running = stack.enter_context(LocalServer(state, **options))
            return running, stack.enter_context(client_of(running))

        yield start
