"""An Airflow of the tests' own: its home is set before anything imports Airflow, its database is made once."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.process import LocalServer

if "airflow" in sys.modules:
    raise RuntimeError("Airflow was imported before its tests' AIRFLOW_HOME was set, so it reads somebody else's.")

_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    "AIRFLOW__BATCH__POLL_INTERVAL": "0.2",
    "AIRFLOW__BATCH__ASK_AGAIN_AFTER": "0.2",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """AIRFLOW_HOME with a migrated database."""
    done = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    _await_in_process_api_server()
    return Path(_HOME)


def _await_in_process_api_server() -> None:
    """On Airflow 3.2 `dag.test()` sends requests before its in-process API server has started; from 3.3 on it waits."""
    from airflow import __version__
    from airflow.sdk.execution_time import supervisor

    if not __version__.startswith("3.2."):
        return
    start = supervisor.in_process_api_server

    @functools.cache
    def started() -> Any:
        api = start()
        assert api.transport
        end = time.monotonic() + 60
        while not hasattr(api.app.state, "svcs_registry"):
            assert time.monotonic() < end, "Airflow's in-process API server did not start within 60 s"
            time.sleep(0.02)
        return api

    supervisor.in_process_api_server = started


@pytest.fixture(scope="session")
def batch_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A local batch server whose batches end at once."""
    with LocalServer(tmp_path_factory.mktemp("batch-server")) as server:
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives Airflow a connection: `connect("warehouse", conn_type="sqlite", host="…")`."""

    def add(conn_id: str, **fields: object) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return add


@pytest.fixture
def offline(
    airflow_home: Path,
    batch_server: LocalServer,
    connect: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """`openai_default` leads to the local batch server; staging is a folder of the test's own."""
    connect("openai_default", conn_type="openai", password="local", host=batch_server.base_url)
    monkeypatch.setenv("AIRFLOW__BATCH__STAGING", (tmp_path / "staging").as_uri())
