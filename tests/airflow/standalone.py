"""Run a complete Airflow in a test, as `make airflow` does, and control it over its REST API.

Only one task can run at a time, because `parallelism` and the default pool are 1. If a waiting task held its slot, no
other task could run.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from airflow_provider_batch.demo.home import Home, Provider
from airflow_provider_batch.demo.standalone import Standalone, free_port

#: How long Airflow may take for anything that a test waits for, in seconds.
PATIENCE = 120.0
T = TypeVar("T")
_END_STATES = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_PACE = {
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1",
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
    # On a busy machine, the API server may need longer than the default of 5 s, which fails the task.
    "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    # Without a Fernet key, trigger arguments are stored as plain text, so tests can read them.
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "1",
    "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    # With these, another triggerer takes over the triggers of a killed one after 8 s.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


def wait_until(condition: str, check: Callable[[], T | None], *, patience: float = PATIENCE) -> T:
    """Call `check` until it returns a true value, and return that value.

    :param condition: what the test waits for, for the error message.
    :raises AssertionError: if this takes more than `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (value := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Waited {patience:.0f} s for this: {condition}. The last check returned {value!r}.")
        time.sleep(0.5)
    return value


@dataclass(frozen=True)
class Run:
    """A DAG run, read and changed over the REST API."""

    airflow: RunningAirflow
    dag_id: str
    run_id: str

    @property
    def state(self) -> str:
        """The current state of the run."""
        return str(self.airflow.get(self._path)["state"])

    def task(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return a task instance, or an empty dict if it does not exist (yet)."""
        response = self.airflow.client.get(self._task_path(task_id, map_index))
        return {} if response.status_code == 404 else dict(response.raise_for_status().json())

    def await_task(self, task_id: str, state: str, map_index: int = -1, *, attempt: int = 1) -> dict[str, Any]:
        """Wait until an attempt of a task is in this state, and return the task instance.

        :raises AssertionError: with the task's log if it ends in another state, or if it takes too long.
        """

        def find_task() -> dict[str, Any] | None:
            task = self.task(task_id, map_index)
            if task.get("try_number") != attempt:
                return None
            if task["state"] in _END_STATES and task["state"] != state:
                log = self.log(task_id, map_index, attempt=attempt)
                raise AssertionError(f"The state of {task_id} is {task['state']}, not {state}. Its log:\n{log}")
            return task if task["state"] == state else None

        return wait_until(f"attempt {attempt} of {task_id} in {self.run_id} is {state}", find_task)

    def await_worker_end(self, task_id: str, count: int = 1) -> None:
        """Wait until the scheduler has processed the end of this many workers of a task.

        A worker takes up to 5 s to end after its task was deferred. If the task is resumed within this time, the
        scheduler may mistake this end for the end of the next worker, and fail the task.
        """
        wait_until(f"{count} worker(s) of {task_id} ended", lambda: self.count_worker_ends(task_id) >= count)

    def count_worker_ends(self, task_id: str) -> int:
        """Return the number of workers of a task whose end the scheduler has processed."""
        line = f"TaskInstance Finished: dag_id={self.dag_id}, task_id={task_id}, run_id={self.run_id},"
        return self.airflow.home.log.read_text("utf-8").count(line)

    def await_end(self) -> str:
        """Wait until the run ends, and return its state."""
        return wait_until(f"{self.run_id} ends", lambda: state if (state := self.state) in _END_STATES else None)

    def log(self, task_id: str, map_index: int = -1, *, attempt: int = 1) -> str:
        """Return the messages in the log of a task, including those of its trigger."""
        path = f"{self._path}/taskInstances/{task_id}/logs/{attempt}"
        response = self.airflow.get(path, map_index=map_index, full_content=True)
        return "\n".join(line if isinstance(line, str) else str(line["event"]) for line in response["content"])

    def xcom(self, task_id: str, map_index: int = -1, key: str = "return_value") -> Any:
        """Return the return value of a task, or another XCom of it."""
        path = f"{self._path}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.airflow.get(path, map_index=map_index, deserialize=True)["value"]

    def links(self, task_id: str) -> dict[str, str | None]:
        """Return the extra links of a task instance, by name."""
        return dict(self.airflow.get(f"{self._path}/taskInstances/{task_id}/links")["extra_links"])

    def clear(self, *task_ids: str) -> None:
        """Press *Clear* on these tasks, or on the whole run if there are none."""
        selection = {"task_ids": list(task_ids)} if task_ids else {}
        body = {"dag_run_id": self.run_id, "dry_run": False, "only_failed": False, **selection}
        self.airflow.client.post(f"/api/v2/dags/{self.dag_id}/clearTaskInstances", json=body).raise_for_status()

    def mark(self, task_id: str, state: str, map_index: int = -1) -> None:
        """Press *Mark state as* on a task: "failed" or "success"."""
        path = self._task_path(task_id, map_index)
        self.airflow.client.patch(path, json={"new_state": state}).raise_for_status()

    @property
    def _path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"

    def _task_path(self, task_id: str, map_index: int) -> str:
        return f"{self._path}/taskInstances/{task_id}" + ("" if map_index < 0 else f"/{map_index}")


class RunningAirflow:
    """A running Airflow whose parts tests can kill and start; see `running_airflow`."""

    def __init__(self, home: Home, standalone: Standalone, environment: Mapping[str, str]) -> None:
        self.home = home
        # A part that is started again must find the API server.
        self._environment = dict(environment) | {"AIRFLOW__API__BASE_URL": standalone.url}
        self._started_parts = contextlib.ExitStack()
        # When Airflow renames a process, its environment can no longer be read, but its session can.
        self._sessions = {os.getsid(process.pid) for process in _processes_of(home.airflow)}
        # Requests to loopback must not go through a proxy. On a busy machine, the API server may need long to answer.
        self.client = httpx.Client(base_url=standalone.url, timeout=PATIENCE, trust_env=False)
        #: Password of the user `admin`.
        self.password = standalone.password
        response = self.client.post("/auth/token", json={"username": "admin", "password": self.password})
        self.client.headers["Authorization"] = f"Bearer {response.raise_for_status().json()['access_token']}"

    def get(self, path: str, **params: Any) -> Any:
        """Return the JSON that the REST API returns for a path."""
        return self.client.get(path, params=params).raise_for_status().json()

    def await_dags(self, *dag_ids: str) -> None:
        """Wait until these DAGs are parsed."""

        def are_parsed() -> bool:
            errors = self.get("/api/v2/importErrors")["import_errors"]
            assert not errors, errors
            return {dag["dag_id"] for dag in self.get("/api/v2/dags")["dags"]} >= set(dag_ids)

        wait_until(f"these DAGs are parsed: {', '.join(dag_ids)}", are_parsed)

    def trigger(self, dag_id: str, **conf: Any) -> Run:
        """Press *Trigger*: start a run without a logical date, with these values in the form."""
        response = self.client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return Run(self, dag_id, response.raise_for_status().json()["dag_run_id"])

    def delete_dag(self, dag_id: str) -> None:
        """Press *Delete* on a DAG, which also deletes its runs."""
        self.client.delete(f"/api/v2/dags/{dag_id}").raise_for_status()

    def wait_log_contains(self, run: Run, text: str) -> bool:
        """Return whether the wait of a run has logged this text.

        Once the trigger has ended, its messages appear in the log of the triggerer instead of the log of the task.
        """
        if text in run.log("wait"):
            return True
        lines = self.home.log.read_text("utf-8", errors="replace").splitlines()
        return any(text in line and run.run_id in line for line in lines)

    def processes(self, part: str = "") -> list[psutil.Process]:
        """Return the processes of this Airflow whose command contains `part`, such as "triggerer".

        Processes whose parent has ended are included.
        """
        processes = set(_processes_of(self.home.airflow))
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) in self._sessions and process.status() != psutil.STATUS_ZOMBIE:
                    processes.add(process)
        return [process for process in processes if part in _command(process)]

    def kill(self, part: str) -> None:
        """Kill every process of a part with SIGKILL, as if its machine were lost."""
        parents = self.processes(part)
        assert parents, f"There is no process of the {part}."
        # The command of its log server is different.
        victims = {child for parent in parents for child in (parent, *parent.children(recursive=True))}
        for process in victims:
            process.kill()
        wait_until(f"the {part} has ended", lambda: not any(process in self.processes() for process in victims))

    def start(self, part: str) -> None:
        """Start a part, such as "triggerer", until the end of this Airflow."""
        self._started_parts.callback(_end, self._start(part))

    @contextlib.contextmanager
    def second_process(self, part: str) -> Iterator[None]:
        """Run a second process of a part, such as another triggerer, while the block runs."""
        process = self._start(part)
        try:
            yield
        finally:
            _end(process)

    def _start(self, part: str) -> psutil.Popen:
        ports = {f"AIRFLOW__LOGGING__{name}_LOG_SERVER_PORT": str(free_port()) for name in ("TRIGGER", "WORKER")}
        environment = self._environment | ports | {"PYTHONUNBUFFERED": "1"}
        with self.home.log.open("ab") as log:
            process = psutil.Popen(
                [sys.executable, "-m", "airflow", part],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._sessions.add(os.getsid(process.pid))
        return process

    def close(self) -> None:
        """End the parts that `start` started, and close the client."""
        self._started_parts.close()
        self.client.close()


@contextlib.contextmanager
def running_airflow(
    path: Path, provider: Provider, dags: Path, pace: Mapping[str, str] | None = None
) -> Iterator[RunningAirflow]:
    """Run Airflow's scheduler, triggerer, DAG processor and API server while the block runs.

    They write only below `path`.

    :param pace: environment variables that override those for one task at a time.
    :raises AssertionError: at the end, if a process had to be killed or is still running.
    """
    home = Home(path)
    home.prepare()
    environment = home.environment(provider) | _PACE | dict(pace or {}) | {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}
    with Standalone(environment, home.log, port=free_port()) as standalone:
        standalone.await_healthy()
        airflow = RunningAirflow(home, standalone, environment)
        try:
            yield airflow
        finally:
            airflow.close()
            killed_processes = standalone.stop(timeout=120)  # The 30 s of the demo are too short on a busy machine.
            remaining_processes = airflow.processes()
            for process in remaining_processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    assert not killed_processes, f"These processes did not end after SIGTERM and were killed: {killed_processes}"
    assert not remaining_processes, f"These processes were still running: {remaining_processes}"


def _processes_of(airflow_home: Path) -> list[psutil.Process]:
    """Return every process that has this AIRFLOW_HOME."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("AIRFLOW_HOME") == str(airflow_home):
                processes.append(process)
    return processes


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _end(process: psutil.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait()
