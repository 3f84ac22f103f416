"""Run batch operators of other providers, unchanged, against the local batch server.

Their authors wrote them for the real Batch API. The tests expect what the documentation and the source of these
operators say. If an operator works with the real API and fails here, the local server is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.peers.driving import Platform

Connect = Callable[..., None]


@pytest.fixture(scope="session")
def quick_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("quick"), admin=True) as server:
        yield server


@pytest.fixture(scope="session")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    # Each of four requests takes 1,000 s. After 2,500 s two are answered, and the window ends before the third is.
    with LocalServer(tmp_path_factory.mktemp("slow"), admin=True, in_progress=4000, window=2800) as server:
        yield server


def _connect_peers(server: LocalServer, connect: Connect) -> Platform:
    connect("openai_default", conn_type="openai", password="local", host=server.base_url)
    connect("pydanticai_default", conn_type="pydanticai", password="local", host=server.base_url)
    return Platform(server)


@pytest.fixture
def quick(airflow_home: Path, quick_server: LocalServer, connect: Connect) -> Iterator[Platform]:
    """A server whose batches take no time, with the connections of both operators."""
    yield _connect_peers(quick_server, connect)
    quick_server.set_faults()


@pytest.fixture
def slow(airflow_home: Path, slow_server: LocalServer, connect: Connect) -> Iterator[Platform]:
    """A server whose time the test advances, with the connections of both operators."""
    yield _connect_peers(slow_server, connect)
    slow_server.set_faults()


@pytest.fixture(params=[False, True], ids=["waiting", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    """Whether the operator waits in the triggerer or in the worker."""
    return bool(request.param)
