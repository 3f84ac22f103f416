"""Fixtures that run the local server as a real subprocess, with the real SDK as its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from openai import OpenAI

from airflow_provider_batch.testing import LocalServer, StartBatchServer

Serve = Callable[..., tuple[LocalServer, OpenAI]]


def make_client(server: LocalServer) -> OpenAI:
    """Return a client without retries, so that tests see every response."""
    return OpenAI(base_url=server.base_url, api_key="local", max_retries=0)


@pytest.fixture(scope="session")
def server(batch_server: LocalServer) -> LocalServer:
    """A server whose batches take no time, shared by most tests."""
    return batch_server


@pytest.fixture(scope="session")
def client(server: LocalServer) -> Iterator[OpenAI]:
    with make_client(server) as client:
        yield client


@pytest.fixture(scope="session")
def admin_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("state"), admin=True) as running:
        yield running


@pytest.fixture
def faulty(admin_server: LocalServer) -> Iterator[tuple[LocalServer, OpenAI]]:
    """A shared server on which a test can set faults. Other tests may have moved its clock days ahead."""
    with make_client(admin_server) as client:
        yield admin_server, client
    admin_server.set_faults()


@pytest.fixture
def serve(start_batch_server: StartBatchServer) -> Iterator[Serve]:
    """Return a function that starts a server with the given options. Every call starts another server."""
    with ExitStack() as stack:

        def start(**options: Any) -> tuple[LocalServer, OpenAI]:
            running = start_batch_server(**options)
            return running, stack.enter_context(make_client(running))

        yield start
