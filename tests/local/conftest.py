"""Fixtures: the local server as a real subprocess, the real SDK as its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openai import OpenAI

from airflow_provider_batch.testing import LocalServer, StartBatchServer

Serve = Callable[..., tuple[LocalServer, OpenAI]]


def client_of(server: LocalServer) -> OpenAI:
    """A client that retries nothing, so that every answer is seen as it is."""
    return OpenAI(base_url=server.base_url, api_key="local", max_retries=0)


@pytest.fixture(scope="session")
def server(batch_server: LocalServer) -> LocalServer:
    """A server without pauses, shared by all tests that need no other."""
    return batch_server


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
def serve(start_batch_server: StartBatchServer) -> Iterator[Serve]:
    """Start a server with options of one's own; called twice, it starts two."""
    with ExitStack() as stack:

        def start(**options: Any) -> tuple[LocalServer, OpenAI]:
            running = start_batch_server(**options)
            return running, stack.enter_context(client_of(running))

        yield start
