"""pytest fixtures for DAGs that submit batches: a local batch server, and an Airflow connection to it.

The fixtures need the extra `local`. Load them in the top-level `conftest.py` of your tests:

    pytest_plugins = ["airflow_provider_batch.testing"]

A test with the fixture `offline_batches` can then run a DAG with `dag.test()` and check the results table. Nothing
leaves the machine, and nothing is billed. `docs/how-to/testing.md` contains a complete example.

There is deliberately no `pytest11` entry point. It would load this module in every pytest run of every environment that
has the provider installed, and its fixture names could clash with others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol, Unpack

import pytest

from airflow_provider_batch.cli.main import load
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer, Options

__all__ = [
    "Call",
    "Fault",
    "Kind",
    "LocalServer",
    "Options",
    "StartBatchServer",
    "batch_conn_id",
    "batch_server",
    "batch_server_options",
    "connect_batch_server",
    "offline_batches",
    "start_batch_server",
]

#: Seconds between polls and before retries. The provider's defaults are made for batches that take hours.
_PAUSE = "0.2"
_LOOPBACK = "127.0.0.1,localhost"


class StartBatchServer(Protocol):
    """The type of the fixture `start_batch_server`."""

    def __call__(self, **options: Unpack[Options]) -> LocalServer:
        """Start a server with these options of `airflow-batch serve`. It stops at the end of the test."""
        ...


@pytest.fixture(scope="session")
def batch_server_options() -> Options:
    """Return the options of `batch_server`. Override this fixture to set some: `return {"models": ("gpt-5-mini",)}`."""
    return {}


@pytest.fixture(scope="session")
def batch_server(batch_server_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """Run a local batch server that all tests share. Its batches take no time."""
    with _server(tmp_path_factory, batch_server_options) as server:
        yield server


@pytest.fixture
def start_batch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartBatchServer]:
    """Return a function that starts another server for this test: `start_batch_server(admin=True)`."""
    with ExitStack() as stack:

        def start(**options: Unpack[Options]) -> LocalServer:
            return stack.enter_context(_server(tmp_path_factory, options))

        yield start


def _server(folders: pytest.TempPathFactory, options: Options) -> LocalServer:
    # The server runs in a separate process. Importing its command here reports a missing extra to the test.
    load("serve")
    return LocalServer(folders.mktemp("batch-server"), **options)


@pytest.fixture
def batch_conn_id() -> str:
    """Return the id of the Airflow connection. Override this fixture if your DAGs use another one."""
    return "openai_default"


@pytest.fixture
def connect_batch_server(
    batch_conn_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[LocalServer], None]:
    """Return a function that points the connection to a server for one test: `connect_batch_server(server)`.

    Staging is a folder below `tmp_path`. The sensor polls its batches every 0.2 s, unless the DAG sets an interval.
    """

    def connect(server: LocalServer) -> None:
        connection = {"conn_type": "openai", "password": server.api_key, "host": server.base_url}
        monkeypatch.setenv(f"AIRFLOW_CONN_{batch_conn_id.upper()}", json.dumps(connection))
        monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", (tmp_path / "staging").as_uri())
        monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__POLL_INTERVAL", _PAUSE)
        monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY", _PAUSE)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, ",".join(filter(None, (os.environ.get(name), _LOOPBACK))))

    return connect


@pytest.fixture
def offline_batches(batch_server: LocalServer, connect_batch_server: Callable[[LocalServer], None]) -> LocalServer:
    """Point the connection to `batch_server`, and return the server."""
    connect_batch_server(batch_server)
    return batch_server
