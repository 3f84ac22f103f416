"""A real Airflow for tests: started as `make airflow` starts it, spoken to over its REST API, ended without leftovers.

One task at a time may run (`parallelism` and the pool have one slot), so a task that held the slot while it waits
would keep every other one from running.
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

#: seconds for anything that Airflow is asked to do
PATIENCE = 90.0
T = TypeVar("T")
_ENDED = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})
_PACE = {
    "AIRFLOW__CORE__PARALLELISM": "1",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "1",
    # Trigger arguments lie readable in the database, so that a test can look at them.
    "AIRFLOW__CORE__FERNET_KEY": "",
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": "1",
    "AIRFLOW__OPENAI_BATCH__ROW_RETRY_DELAY": "1",
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    # Triggers of a triggerer that was killed are taken over after this many seconds.
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
}


def wait_until(what: str, look: Callable[[], T | None], *, patience: float = PATIENCE) -> T:
    """What `look` returns once that is true.

    :raises AssertionError: if it is not within `patience` seconds.
    """
    deadline = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"Not within {patience:.0f} s: {what}. Last seen: {found!r}")
        time.sleep(0.5)
    return found


@dataclass(frozen=True)
class Run:
    """One DAG run, as the REST API shows it."""

    airflow: RunningAirflow
    dag_id: str
    run_id: str

    @property
    def state(self) -> str:
        """State of the run."""
        return str(self.airflow.get(self._path)["state"])

    def task(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """A task instance; empty if there is none (yet)."""
        mapped = "" if map_index < 0 else f"/{map_index}"
        answer = self.airflow.client.get(f"{self._path}/taskInstances/{task_id}{mapped}")
        return {} if answer.status_code == 404 else dict(answer.raise_for_status().json())

    def await_task(self, task_id: str, state: str, map_index: int = -1, *, attempt: int = 1) -> dict[str, Any]:
        """The task instance once it is in this state.

        :raises AssertionError: if it ends in another state, with its log, or does not get there in time.
        """

        def look() -> dict[str, Any] | None:
            found = self.task(task_id, map_index)
            if found.get("try_number") != attempt:
                return None
            if found["state"] in _ENDED and found["state"] != state:
                log = self.log(task_id, map_index, attempt=attempt)
                raise AssertionError(f"{task_id} is {found['state']}, not {state}. Its log:\n{log}")
            return found if found["state"] == state else None

        return wait_until(f"{task_id} of {self.run_id} is {state} (attempt {attempt})", look)

    def await_workers(self, task_id: str, ended: int = 1) -> None:
        """Wait until the scheduler has heard of the end of this many workers of a task.

        A worker takes up to five seconds to end after its task was deferred. Is the task resumed within that time, then
        the scheduler may take that end for the one of the next worker, and fail the task.
        """
        heard = f"TaskInstance Finished: dag_id={self.dag_id}, task_id={task_id}, run_id={self.run_id},"
        log = self.airflow.home.log
        wait_until(f"{ended} worker(s) of {task_id} ended", lambda: log.read_text("utf-8").count(heard) >= ended)

    def await_end(self) -> str:
        """The state in which the run ended."""
        return wait_until(f"{self.run_id} ends", lambda: state if (state := self.state) in _ENDED else None)

    def log(self, task_id: str, map_index: int = -1, *, attempt: int = 1) -> str:
        """The messages in a task's log, the trigger's among them."""
        path = f"{self._path}/taskInstances/{task_id}/logs/{attempt}"
        answer = self.airflow.get(path, map_index=map_index, full_content=True)
        return "\n".join(line if isinstance(line, str) else str(line["event"]) for line in answer["content"])

    def xcom(self, task_id: str, map_index: int = -1) -> Any:
        """What a task returned."""
        path = f"{self._path}/taskInstances/{task_id}/xcomEntries/return_value"
        return self.airflow.get(path, map_index=map_index, deserialize=True)["value"]

    def links(self, task_id: str) -> dict[str, str | None]:
        """The extra links of a task instance."""
        return dict(self.airflow.get(f"{self._path}/taskInstances/{task_id}/links")["extra_links"])

    def clear(self, *task_ids: str) -> None:
        """Press *Clear* on these tasks, or on the whole run."""
        named = {"task_ids": list(task_ids)} if task_ids else {}
        body = {"dag_run_id": self.run_id, "dry_run": False, "only_failed": False, **named}
        self.airflow.client.post(f"/api/v2/dags/{self.dag_id}/clearTaskInstances", json=body).raise_for_status()

    def mark(self, task_id: str, state: str, map_index: int = -1) -> None:
        """Press *Mark as failed*, or success."""
        mapped = "" if map_index < 0 else f"/{map_index}"
        path = f"{self._path}/taskInstances/{task_id}{mapped}"
        self.airflow.client.patch(path, json={"new_state": state}).raise_for_status()

    @property
    def _path(self) -> str:
        return f"/api/v2/dags/{self.dag_id}/dagRuns/{self.run_id}"


class RunningAirflow:
    """A healthy Airflow; see `running_airflow`."""

    def __init__(self, home: Home, standalone: Standalone, environment: Mapping[str, str]) -> None:
        self.home = home
        # what is started anew has to find the API server
        self._environment = dict(environment) | {"AIRFLOW__API__BASE_URL": standalone.url}
        self._later = contextlib.ExitStack()
        # what Airflow renames loses sight of its environment, but not of its session
        self._sessions = {os.getsid(process.pid) for process in _at_home(home.airflow)}
        # an address on loopback is never asked for through a proxy
        self.client = httpx.Client(base_url=standalone.url, timeout=30, trust_env=False)
        #: of the user `admin`
        self.password = standalone.password
        answer = self.client.post("/auth/token", json={"username": "admin", "password": self.password})
        self.client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"

    def get(self, path: str, **params: Any) -> Any:
        """What the REST API answers."""
        return self.client.get(path, params=params).raise_for_status().json()

    def await_dags(self, *dag_ids: str) -> None:
        """Wait until these DAGs are parsed."""

        def look() -> bool:
            errors = self.get("/api/v2/importErrors")["import_errors"]
            assert not errors, errors
            return {dag["dag_id"] for dag in self.get("/api/v2/dags")["dags"]} >= set(dag_ids)

        wait_until(f"the DAGs {', '.join(dag_ids)} are there", look)

    def trigger(self, dag_id: str, **conf: Any) -> Run:
        """Press *Trigger*: a run without a logical date, with what was filled in in the form."""
        answer = self.client.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None, "conf": conf})
        return Run(self, dag_id, answer.raise_for_status().json()["dag_run_id"])

    def delete_dag(self, dag_id: str) -> None:
        """Press *Delete* on a DAG: its runs are gone too."""
        self.client.delete(f"/api/v2/dags/{dag_id}").raise_for_status()

    def said(self, run: Run, words: str) -> bool:
        """Whether these words stand in the log of a run's wait, or of the triggerer once the trigger has ended."""
        if words in run.log("wait"):
            return True
        lines = self.home.log.read_text("utf-8", errors="replace").splitlines()
        return any(words in line and run.run_id in line for line in lines)

    def processes(self, part: str = "") -> list[psutil.Process]:
        """Its processes, or those of one part, such as "triggerer", whoever their parent is."""
        found = set(_at_home(self.home.airflow))
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if os.getsid(process.pid) in self._sessions and process.status() != psutil.STATUS_ZOMBIE:
                    found.add(process)
        return [process for process in found if part in _command(process)]

    def kill(self, part: str) -> None:
        """`kill -9` to every process of a part, as when its machine is lost."""
        parents = self.processes(part)
        assert parents, f"no process of {part} is there"
        # its log server has another name
        victims = {child for parent in parents for child in (parent, *parent.children(recursive=True))}
        for process in victims:
            process.kill()
        wait_until(f"{part} is gone", lambda: not any(process in self.processes() for process in victims))

    def start(self, part: str) -> None:
        """Start a part anew, such as "triggerer"."""
        self._later.callback(_end, self._start(part))

    @contextlib.contextmanager
    def another(self, part: str) -> Iterator[None]:
        """Meanwhile a part runs once more, such as a second triggerer."""
        process = self._start(part)
        try:
            yield
        finally:
            _end(process)

    def _start(self, part: str) -> psutil.Popen:
        ports = {f"AIRFLOW__LOGGING__{of}_LOG_SERVER_PORT": str(free_port()) for of in ("TRIGGER", "WORKER")}
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
        """End what was started anew."""
        self._later.close()
        self.client.close()


@contextlib.contextmanager
def running_airflow(
    path: Path, provider: Provider, dags: Path, pace: Mapping[str, str] | None = None
) -> Iterator[RunningAirflow]:
    """Airflow with scheduler, triggerer, DAG processor and API server, healthy; all it writes is below `path`.

    :param pace: settings that differ from those of one task at a time, as environment variables.
    :raises AssertionError: at the end, if one of its processes had to be killed or is left.
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
            killed = standalone.stop(timeout=120)  # on a busy machine the demo's 30 s are not enough
            left = airflow.processes()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
    assert not killed, f"these processes did not end by themselves: {killed}"
    assert not left, f"these processes were left behind: {left}"


def _at_home(airflow_home: Path) -> list[psutil.Process]:
    """Every process whose AIRFLOW_HOME is this one."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("AIRFLOW_HOME") == str(airflow_home):
                found.append(process)
    return found


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
