"""Fixtures for every test folder, and an AIRFLOW_HOME of the tests' own, set before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, settings

from airflow_provider_batch.demo.home import dags_folder
from tests.mysql import mysql_database, mysql_server
from tests.postgres import postgres_database, postgres_server

pytest_plugins = ["airflow_provider_batch.testing"]

__all__ = ["mysql_database", "mysql_server", "postgres_database", "postgres_server"]

if "airflow" in sys.modules:
    raise RuntimeError("Airflow was imported before its tests' AIRFLOW_HOME was set, so it reads somebody else's.")

_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# pytest-xdist starts its workers with what is left here.
for _name in [name for name in os.environ if name.startswith("AIRFLOW") and name != "AIRFLOW_BATCH_TEST_MYSQL"]:
    del os.environ[_name]
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    # The one that Airflow makes up is too short for PyJWT, which warns.
    "AIRFLOW__API_AUTH__JWT_SECRET": "of the tests alone " * 4,
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "0.2",
    "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "0.2",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

# How fast a machine is says nothing of what is tested.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the `measurements` that tests recorded: figures worth reading even if every test passed."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                if name == "measurements":
                    terminalreporter.write_line(str(value))
