"""Operators that others wrote against the real Batch API, unchanged, against the local batch server.

What has to come out is what their own documentation and source say. Where one of them fails here though it works
there, the local server is wrong.
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
    # Four requests take 1,000 s each, so that 2,500 s later two are answered; the window ends before the third is.
    with LocalServer(tmp_path_factory.mktemp("slow"), admin=True, in_progress=4000, window=2800) as server:
        yield server


def _known_to_airflow(server: LocalServer, connect: Connect) -> Platform:
    connect("openai_default", conn_type="openai", password="local", host=server.base_url)
    connect("pydanticai_default", conn_type="pydanticai", password="local", host=server.base_url)
    return Platform(server)


@pytest.fixture
def quick(airflow_home: Path, quick_server: LocalServer, connect: Connect) -> Iterator[Platform]:
    """A server whose batches end at once; the connections of both peers lead there."""
    yield _known_to_airflow(quick_server, connect)
    quick_server.set_faults()


@pytest.fixture
def slow(airflow_home: Path, slow_server: LocalServer, connect: Connect) -> Iterator[Platform]:
    """A server on which time has to be pushed on; the connections of both peers lead there."""
    yield _known_to_airflow(slow_server, connect)
    slow_server.set_faults()


@pytest.fixture(params=[False, True], ids=["waiting", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    """Both ways in which an operator waits."""
    return bool(request.param)
