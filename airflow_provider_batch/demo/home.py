"""The folder of a demo: where things lie, and the environment that Airflow gets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import airflow_provider_batch

#: how long creating or upgrading Airflow's own database may take, in seconds
MIGRATE_TIMEOUT = 300


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Provider:
    """Whom the connection `openai_default` leads to."""

    #: None is the SDK's own default, the real API
    base_url: str | None
    api_key: str
    #: the local batch server: as batches take seconds there, it is looked at every few seconds
    local: bool = False

    @property
    def connection(self) -> str:
        """As an Airflow connection in JSON. Holds the key: for a process's environment only."""
        fields = {"conn_type": "openai", "password": self.api_key}
        return json.dumps(fields | ({"host": self.base_url} if self.base_url else {}))


@dataclass(frozen=True)
class Home:
    """One demo's folder. Everything it makes is inside."""

    path: Path

    @property
    def warehouse(self) -> Path:
        """The SQLite warehouse: the tickets, and the table that the answers land in."""
        return self.path / "warehouse.sqlite"

    @property
    def staging(self) -> Path:
        """Sealed input files, ledger and collected answers of each job."""
        return self.path / "staging"

    @property
    def server(self) -> Path:
        """State of the local batch server."""
        return self.path / "server"

    @property
    def airflow(self) -> Path:
        """AIRFLOW_HOME, with Airflow's own database."""
        return self.path / "airflow"

    @property
    def log(self) -> Path:
        """Everything that Airflow says."""
        return self.path / "airflow.log"

    def environment(self, provider: Provider, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment for Airflow's processes.

        Of what is set, nothing that speaks to Airflow is taken over: a demo must not reach another Airflow's database.
        """
        given = os.environ if base is None else base
        environment = {name: value for name, value in given.items() if not name.startswith("AIRFLOW")}
        loopback = ",".join(filter(None, (given.get("no_proxy", given.get("NO_PROXY")), "127.0.0.1,localhost")))
        pace = (
            {"AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "6", "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "5"}
            if provider.local
            else {}
        )
        return (
            environment
            | pace
            | {
                "no_proxy": loopback,
                "NO_PROXY": loopback,
                # `airflow standalone` starts its parts by their name.
                "PATH": os.pathsep.join((str(Path(sys.executable).parent), given.get("PATH", os.defpath))),
                "AIRFLOW_HOME": str(self.airflow),
                "AIRFLOW_CONN_WAREHOUSE": json.dumps({"conn_type": "sqlite", "host": str(self.warehouse)}),
                "AIRFLOW_CONN_OPENAI_DEFAULT": provider.connection,
                "AIRFLOW__OPENAI_BATCH__STAGING": self.staging.as_uri(),
                "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder()),
                "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__CORE__PARALLELISM": "4",
                "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            }
        )

    def prepare(self) -> None:
        """Make the folder.

        :raises DemoError: if it cannot be made.
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
        """Create or upgrade Airflow's own database.

        :raises DemoError: if Airflow does not manage to.
        """
        with self.log.open("ab") as log:
            try:
                done = subprocess.run(
                    [sys.executable, "-m", "airflow", "db", "migrate"],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=MIGRATE_TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise DemoError(f"`airflow db migrate` took over {MIGRATE_TIMEOUT} s. See {self.log}") from error
        if done.returncode:
            raise DemoError(
                f"`airflow db migrate` ended with exit code {done.returncode}; see {self.log}\n"
                f"If another version of Airflow made {self.airflow}, delete that folder and start again."
            )


def dags_folder() -> Path:
    """The ready DAGs: inside an installed package, beside it in a checkout."""
    package = Path(airflow_provider_batch.__file__).parent
    inside = package / "dags"
    return inside if inside.is_dir() else package.parent / "dags"
