"""The folder of a demo with all its files, and the environment of its Airflow processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import airflow_provider_batch

#: timeout for creating or upgrading Airflow's database, in seconds
MIGRATE_TIMEOUT = 300


class DemoError(Exception):
    """Raised if the demo cannot continue. The message says why and what to do."""


@dataclass(frozen=True)
class Provider:
    """The API that the connection `openai_default` points to."""

    #: None for the default of the SDK, the real API
    base_url: str | None
    api_key: str
    #: True for the local batch server, whose batches take seconds, so that Airflow has to poll them often
    local: bool = False

    @property
    def connection(self) -> str:
        """The Airflow connection as JSON. It contains the key, so use it only in the environment of a process."""
        fields = {"conn_type": "openai", "password": self.api_key}
        return json.dumps(fields | ({"host": self.base_url} if self.base_url else {}))


@dataclass(frozen=True)
class Home:
    """The folder of a demo. The demo writes nothing outside it."""

    path: Path

    @property
    def warehouse(self) -> Path:
        """The SQLite warehouse with the tickets and the results table."""
        return self.path / "warehouse.sqlite"

    @property
    def staging(self) -> Path:
        """The sealed input files, ledgers and collected answers of the jobs."""
        return self.path / "staging"

    @property
    def server(self) -> Path:
        """The state of the local batch server."""
        return self.path / "server"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME with Airflow's database."""
        return self.path / "airflow"

    @property
    def log(self) -> Path:
        """The log file with the output of Airflow."""
        return self.path / "airflow.log"

    def environment(self, provider: Provider, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment for Airflow's processes.

        Variables of `base` (by default `os.environ`) that start with AIRFLOW are dropped: they could point the demo at
        the database of another Airflow.
        """
        base = os.environ if base is None else base
        environment = {name: value for name, value in base.items() if not name.startswith("AIRFLOW")}
        loopback = ",".join(filter(None, (base.get("no_proxy", base.get("NO_PROXY")), "127.0.0.1,localhost")))
        intervals = (
            {"AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "6", "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "5"}
            if provider.local
            else {}
        )
        return (
            environment
            | intervals
            | {
                "no_proxy": loopback,
                "NO_PROXY": loopback,
                # `airflow standalone` starts its components with the command `airflow`.
                "PATH": os.pathsep.join((str(Path(sys.executable).parent), base.get("PATH", os.defpath))),
                "AIRFLOW_HOME": str(self.airflow),
                "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(self.warehouse)}),
                "AIRFLOW_CONN_OPENAI_DEFAULT": provider.connection,
                "AIRFLOW__OPENAI_BATCH__STAGING": self.staging.as_uri(),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
                "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "10",
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__PARALLELISM": "4",
                "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
                # On a busy laptop, the API server may need longer than the default of 5 s, which fails the task.
                "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            }
        )

    def prepare(self) -> None:
        """Create the folder.

        :raises DemoError: if it cannot be created.
        """
        try:
            self.airflow.mkdir(parents=True, exist_ok=True)
            self.staging.mkdir(exist_ok=True)
            self.log.write_text("", encoding="utf-8")
        except OSError as error:
            raise DemoError(
                f"Cannot write to {self.path}: {error.strerror}. Choose another folder with --home."
            ) from error

    def migrate(self, environment: Mapping[str, str]) -> None:
        """Create or upgrade Airflow's database.

        :raises DemoError: if that fails or takes longer than `MIGRATE_TIMEOUT` seconds.
        """
        with self.log.open("ab") as log:
            try:
                process = subprocess.run(
                    [sys.executable, "-m", "airflow", "db", "migrate"],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=MIGRATE_TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise DemoError(
                    f"`airflow db migrate` took longer than {MIGRATE_TIMEOUT} s and was stopped. See its output in "
                    f"{self.log}."
                ) from error
        if process.returncode:
            raise DemoError(
                f"`airflow db migrate` failed with exit code {process.returncode}. See its output in {self.log}.\n"
                f"If another version of Airflow created {self.airflow}, delete that folder and start the demo again."
            )


def dags_folder() -> Path:
    """Return the folder of the example DAGs."""
    return Path(airflow_provider_batch.__file__).parent / "example_dags"
