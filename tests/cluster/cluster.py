"""A whole Airflow with the CeleryExecutor: a scheduler, two workers and two triggerers that share no disk.

Everything comes from packages and listens on loopback or a Unix socket. The metadata database, the results of Celery
and the warehouse are three databases of one PostgreSQL.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from airflow_provider_batch.demo.standalone import free_port
from airflow_provider_batch.local.process import LocalServer
from tests.cluster.machines import Machine, connection
from tests.cluster.processes import ClusterError, wait_until
from tests.cluster.services import BUCKET, REGION, STORE_LOGIN, STORE_PASSWORD, Redis, Store
from tests.cluster.strikes import FOLDER_VARIABLE
from tests.postgres import Database, running_postgres

WORKERS = ("worker-1", "worker-2")
TRIGGERERS = ("triggerer-1", "triggerer-2")
#: tasks that a worker runs at the same time
WORKER_TASKS = 2
#: Slots of the pool that the mapped jobs share.
POOL, POOL_SLOTS = "batch", 20
#: Seconds that a batch takes on the local server, more than a submit takes, so that every wait is deferred.
BATCH_SECONDS = 30.0
END_STATES = frozenset({"success", "failed"})
DAGS = Path(__file__).parent / "dags"

#: What makes Airflow notice a death within seconds instead of minutes.
_NOTICE = {
    "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "3",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "20",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}

_WORKER_SETTINGS = {"AIRFLOW__CELERY__CELERY_CONFIG_OPTIONS": "tests.cluster.celery_settings.CELERY_CONFIG"}


class Cluster:
    """The machines, their services and the local batch server, while the block runs.

    :param folder: everything that they write, except the data of PostgreSQL.
    :param jobs: number of mapped jobs of the DAG `fan_out`.
    """

    def __init__(self, folder: Path, jobs: int) -> None:
        self.folder, self._jobs = folder, jobs
        #: what the tasks write for the test
        self.observations = folder / "observations"
        self._stack = ExitStack()
        self.redis = Redis(folder / "redis.log")
        self.store = Store(folder / "store.log")
        self.provider = LocalServer(
            folder / "provider",
            admin=True,
            # Logs hide keys, so a key must be no word of a message.
            api_key="sk-of-the-local-server",
            in_progress=BATCH_SECONDS,
            creates_per_hour=1_000_000,
        )
        self.machines: dict[str, Machine] = {}

    def __enter__(self) -> Self:
        self.observations.mkdir()
        with ExitStack() as stack:
            server = stack.enter_context(running_postgres(max_connections=200))
            self.metadata, self.warehouse, celery = (stack.enter_context(server.database()) for _ in range(3))
            stack.enter_context(self.provider)
            for service in (self.redis, self.store):
                service.start()
                stack.callback(service.kill)
            self._settings = self._airflow_settings(celery)
            self._start_airflow(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _start_airflow(self, stack: ExitStack) -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        self._settings |= {
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            "AIRFLOW__API__BASE_URL": url,
        }
        api_server = ["api-server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        commands = {
            "api-server": api_server,
            "scheduler": ["scheduler", "--skip-serve-logs"],
            "dag-processor": ["dag-processor"],
            **{name: ["triggerer", "--skip-serve-logs"] for name in TRIGGERERS},
            **{name: _worker_command(name) for name in WORKERS},
        }
        self.machines = {
            name: Machine(name, self.folder, command, self._settings | (_WORKER_SETTINGS if name in WORKERS else {}))
            for name, command in commands.items()
        }
        self.run("db", "migrate")
        self.run("pools", "set", POOL, str(POOL_SLOTS), "The mapped jobs")
        for machine in self.machines.values():
            machine.start()
            # Its files are deleted anyway, so a clean end would only take time.
            stack.callback(machine.kill)
        # Requests to loopback must not go through a proxy.
        self._client = stack.enter_context(httpx.Client(base_url=url, timeout=60, trust_env=False))
        wait_until("the API server responds", self._log_in)
        wait_until("the scheduler and a triggerer are healthy", self._is_healthy)
        wait_until("the DAGs are parsed", self._has_dags)

    def run(self, *arguments: str) -> None:
        """Run a command of Airflow to completion.

        :raises ClusterError: if it fails.
        """
        machine = Machine("commands", self.folder, [], self._settings)
        command = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=machine.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if command.returncode:
            raise ClusterError(f"airflow {' '.join(arguments)} failed:\n{command.stdout}\n{command.stderr}")

    def _airflow_settings(self, celery: Database) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        loopback = "127.0.0.1,localhost"
        store = {"endpoint_url": self.store.url, "region_name": REGION}
        return {
            **inherited,
            **_NOTICE,
            "NO_PROXY": loopback,
            "no_proxy": loopback,
            "PYTHONUNBUFFERED": "1",
            "CLUSTER_JOBS": str(self._jobs),
            FOLDER_VARIABLE: str(self.observations),
            "AIRFLOW_CONN_WAREHOUSE": self.warehouse.airflow_connection(),
            "AIRFLOW_CONN_OPENAI_DEFAULT": connection(
                "openai", password=self.provider.api_key, host=self.provider.base_url
            ),
            "AIRFLOW_CONN_AWS_DEFAULT": connection("aws", login=STORE_LOGIN, password=STORE_PASSWORD, extra=store),
            "AIRFLOW__OPENAI_BATCH__STAGING": f"s3://aws_default@{BUCKET}/staging",
            "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "2",
            "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "1",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": _sqlalchemy("psycopg2", self.metadata),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": _sqlalchemy("asyncpg", self.metadata),
            "AIRFLOW__CELERY__BROKER_URL": self.redis.url,
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{_sqlalchemy('psycopg2', celery)}",
            "AIRFLOW__CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "120",
            "AIRFLOW__CORE__PARALLELISM": "40",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "tests.cluster.machines.machine_name",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # On a busy machine, the API server may need longer than the default of 5 s, which fails the task.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def _log_in(self) -> bool:
        for machine in self.machines.values():
            machine.check_running()
        with suppress(httpx.TransportError):
            response = self._client.get("/auth/token")
            if response.is_success:
                self._client.headers["Authorization"] = f"Bearer {response.json()['access_token']}"
                return True
        return False

    def _is_healthy(self) -> bool:
        health = self.get("/api/v2/monitor/health")
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))

    def _has_dags(self) -> bool:
        errors = self.get("/api/v2/importErrors")["import_errors"]
        if errors:
            raise ClusterError(f"The DAGs of the cluster cannot be parsed:\n{errors}")
        return len(self.get("/api/v2/dags")["dags"]) == 3

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON that Airflow's REST API returns for a path."""
        return self._client.get(path, params=params).raise_for_status().json()

    def trigger(self, dag_id: str, **conf: Any) -> str:
        """Start a run of a DAG and return its run_id."""
        response = self._client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return str(response.raise_for_status().json()["dag_run_id"])

    def state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a run."""
        return str(self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """Return the state of each task of a run, by task_id."""
        tasks = self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=1000)["task_instances"]
        return {task["task_id"]: task["state"] for task in tasks}

    def triggerer_of(self, dag_id: str, run_id: str, task_id: str) -> str | None:
        """Return the name of the triggerer that has the trigger of a waiting task."""
        task = self.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        job = task.get("triggerer_job") or {}
        return job.get("hostname")

    def await_state(self, dag_id: str, run_id: str, task_id: str, *states: str) -> None:
        """Wait until a task of a run is in one of these states."""
        wait_until(
            f"{task_id} of {run_id} is {' or '.join(states)}",
            lambda: self.task_states(dag_id, run_id).get(task_id) in states,
        )

    def await_end(self, dag_id: str, run_id: str, *, patience: float) -> str:
        """Wait until a run ends, and return its state."""
        return wait_until(
            f"{run_id} of {dag_id} ends",
            lambda: state if (state := self.state(dag_id, run_id)) in END_STATES else None,
            patience=patience,
        )


def _worker_command(name: str) -> list[str]:
    return ["celery", "worker", "--celery-hostname", name, "--concurrency", str(WORKER_TASKS), "--skip-serve-logs"]


def _sqlalchemy(driver: str, database: Database) -> str:
    return f"postgresql+{driver}://postgres@/{database.name}?host={database.socket_dir}"
