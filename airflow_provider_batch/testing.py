"""pytest fixtures for DAGs that send batches: a local batch server, and an Airflow connection that leads to it.

Load them in the `conftest.py` at the top of your tests; they need the extra `local`:

    pytest_plugins = ["airflow_provider_batch.testing"]

A test that uses the fixture `offline_batches` can then run a DAG with `dag.test()` and look at the results table.
Nothing leaves the machine, and nothing is billed. `docs/testing.md` has a complete example.

There is no `pytest11` entry point on purpose. It would load this module in every pytest run of every environment that
has the provider installed, and its fixtures could shadow or be shadowed by others there.
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

#: seconds; the defaults of the provider suit batches that take hours
_PAUSE = "0.2"
_LOOPBACK = "127.0.0.1,localhost"


class StartBatchServer(Protocol):
    """The type of the fixture `start_batch_server`."""

    def __call__(self, **options: Unpack[Options]) -> LocalServer:
        """Start a server with these options of `airflow-batch serve`. It ends with the test."""
        ...


@pytest.fixture(scope="session")
def batch_server_options() -> Options:
    """Options of `batch_server`. Override this fixture to change them: `return {"models": ("gpt-5-mini",)}`."""
    return {}


@pytest.fixture(scope="session")
def batch_server(batch_server_options: Options, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A local batch server that all tests share. Its batches take no time."""
    with _server(tmp_path_factory, batch_server_options) as server:
        yield server


@pytest.fixture
def start_batch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartBatchServer]:
    """Start a server of the test's own: `start_batch_server(admin=True)`. Every call starts another one."""
    with ExitStack() as stack:

        def start(**options: Unpack[Options]) -> LocalServer:
            return stack.enter_context(_server(tmp_path_factory, options))

        yield start


def _server(folders: pytest.TempPathFactory, options: Options) -> LocalServer:
    # The server is a process of its own. Importing its command here says which extra is missing, if one is.
    load("serve")
    return LocalServer(folders.mktemp("batch-server"), **options)


@pytest.fixture
def batch_conn_id() -> str:
    """The Airflow connection that leads to the server. Override this fixture if your DAGs name another one."""
    return "openai_default"


@pytest.fixture
def connect_batch_server(
    batch_conn_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[LocalServer], None]:
    """Let DAGs send their batches to this server, for one test: `connect_batch_server(server)`.

    Staging is a folder of the test's own. The sensor looks at its batches every 0.2 s, unless the DAG says otherwise.
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
    """Let DAGs send their batches to `batch_server`, and return it."""
    connect_batch_server(batch_server)
    return batch_server
