"""Airflow 3.2 starts `dag.test()` too early; as a pytest plugin, this module makes it wait."""

from __future__ import annotations

import functools
import time
from typing import Any


def pytest_sessionstart() -> None:
    """Make `dag.test()` wait in a pytest that was started with `-p tests.airflow.in_process_api`."""
    await_in_process_api_server()


def await_in_process_api_server() -> None:
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
