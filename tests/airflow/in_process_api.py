"""Make `dag.test()` wait until its in-process API server has started, which Airflow 3.2 does not do.

This module is also a pytest plugin: `pytest -p tests.airflow.in_process_api`.
"""

from __future__ import annotations

import functools
import time
from typing import Any


def pytest_sessionstart() -> None:
    """Apply the fix when pytest loads this module as a plugin."""
    await_in_process_api_server()


def await_in_process_api_server() -> None:
    """Make `dag.test()` of Airflow 3.2 wait for its API server. Airflow 3.3 and later wait without this."""
    from airflow import __version__
    from airflow.sdk.execution_time import supervisor

    if not __version__.startswith("3.2."):
        return
    start_server = supervisor.in_process_api_server

    @functools.cache
    def start_and_wait() -> Any:
        api = start_server()
        assert api.transport
        deadline = time.monotonic() + 60
        while not hasattr(api.app.state, "svcs_registry"):
            assert time.monotonic() < deadline, "Airflow's in-process API server did not start within 60 s."
            time.sleep(0.02)
        return api

    supervisor.in_process_api_server = start_and_wait
