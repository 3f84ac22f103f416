"""Fixtures for every test folder. Sets an AIRFLOW_HOME for the tests before anything imports Airflow."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

from tests.mysql import mysql_database, mysql_server
from tests.postgres import postgres_database, postgres_server

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["airflow_provider_batch.testing"]

__all__ = ["mysql_database", "mysql_server", "postgres_database", "postgres_server"]

if "airflow" in sys.modules:
    raise RuntimeError(
        "Airflow was imported before tests/conftest.py could set AIRFLOW_HOME, so it uses another configuration."
    )

_HOME = tempfile.mkdtemp(prefix="airflow-home-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# The workers of pytest-xdist inherit this environment.
for _name in [name for name in os.environ if name.startswith("AIRFLOW") and name != "AIRFLOW_BATCH_TEST_MYSQL"]:
    del os.environ[_name]
Path(_HOME, "dags").mkdir()
os.environ |= {
    "AIRFLOW_HOME": _HOME,
    # Empty, because each `dag.test()` parses and saves every DAG in this folder.
    "AIRFLOW__CORE__DAGS_FOLDER": f"{_HOME}/dags",
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "0",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    # PyJWT warns about the secret that Airflow generates, because it is too short.
    "AIRFLOW__API_AUTH__JWT_SECRET": "only for tests " * 5,
    # The tests of lineage turn it on.
    "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "0.2",
    "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "0.2",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

# Estimates are the same on every machine. The tests of `core.tokens.counter` remove this.
sys.modules["bpe_openai"] = None  # type: ignore[assignment]

# Slow machines must not fail tests.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


class _OneAirflowAtATime(LoadFileScheduling):  # type: ignore[misc]  # xdist is not typed
    """Gives each test file to one worker, and all files that start a whole Airflow to the same one.

    Several Airflows at the same time are too much for two cores: their API servers and triggerers time out.
    """

    def _split_scope(self, nodeid: str) -> str:
        path: str = super()._split_scope(nodeid)
        return "whole Airflows" if _starts_whole_airflow(path) else path


@cache
def _starts_whole_airflow(path: str) -> bool:
    """Return whether the tests of a file have the mark `standalone`. The scheduler knows only their names."""
    return "pytest.mark.standalone" in (Path(__file__).parents[1] / path).read_text("utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """Schedule tests by file, as `make test` asks for."""
    return _OneAirflowAtATime(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the `measurements` that tests recorded, which are worth reading even if every test passed."""
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", []):
                if name == "measurements":
                    terminalreporter.write_line(str(value))
