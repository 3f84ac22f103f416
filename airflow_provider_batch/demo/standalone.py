"""A full Airflow on this machine: scheduler, triggerer, DAG processor and API server, until it is stopped.

`airflow standalone` starts its parts as children, some of which lead process groups of their own; ending only the
parent would leave them behind. So the whole family is looked up and ended, and it is checked that nobody is left.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from airflow_provider_batch.demo.home import DemoError, Home
from airflow_provider_batch.demo.story import Story

#: seconds until every part must be healthy
START_TIMEOUT = 300.0
#: seconds that the parts have to end by themselves
STOP_TIMEOUT = 30.0
_PARTS = ("metadatabase", "scheduler", "triggerer", "dag_processor")


class Standalone:
    """A context manager around `airflow standalone`; everything it says goes to a log file.

    :param environment: as `Home.environment` gives it.
    :param log: file to append to.
    :param port: of the API server and UI, on loopback.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *, port: int) -> None:
        self.log = log
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._home = Path(environment["AIRFLOW_HOME"])
        self._environment = dict(environment) | {
            # else the last lines of a quiet Airflow stay in its buffer
            "PYTHONUNBUFFERED": "1",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        }
        self._process: psutil.Popen | None = None

    def __enter__(self) -> Self:
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self._port))
            except OSError as error:
                raise DemoError(
                    f"Port {self._port} is taken. Choose another one with --port (make: PORT=8081)."
                ) from error
        with self.log.open("ab") as log:
            self._process = psutil.Popen(
                [sys.executable, "-m", "airflow", "standalone"],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def await_healthy(self) -> None:
        """Wait until every part is healthy.

        :raises DemoError: if Airflow ends, or is not healthy after `START_TIMEOUT` seconds.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.running:
                raise DemoError(f"Airflow ended while it started. See {self.log}")
            if self._healthy():
                return
            time.sleep(1)
        raise DemoError(f"Airflow was not healthy after {START_TIMEOUT:.0f} s. See {self.log}")

    @property
    def running(self) -> bool:
        """Whether the parent process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def password(self) -> str:
        """Password of the user `admin`, as Airflow's simple auth manager made it up."""
        path = self._home / "simple_auth_manager_passwords.json.generated"
        passwords: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return passwords["admin"]

    def _healthy(self) -> bool:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(f"{self.url}/api/v2/monitor/health", timeout=5) as answer:
                health: dict[str, dict[str, Any]] = json.load(answer)
        except (OSError, ValueError):
            return False
        return all((health.get(part) or {}).get("status") == "healthy" for part in _PARTS)

    def stop(self, timeout: float = STOP_TIMEOUT) -> list[int]:
        """End every process, and kill those that have not ended after `timeout` seconds.

        :return: the ids of the processes that had to be killed.
        """
        parent, self._process = self._process, None
        if parent is None:
            return []
        family = _family(parent)
        with suppress(psutil.NoSuchProcess):
            parent.send_signal(signal.SIGINT)
        family |= _family(parent)
        _, left = psutil.wait_procs(family, timeout=timeout)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _, left = psutil.wait_procs(left, timeout=timeout / 3)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=timeout / 3)
        return sorted(process.pid for process in left)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _family(parent: psutil.Process) -> set[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return {parent, *parent.children(recursive=True)}
    return {parent}


def free_port() -> int:
    """A TCP port of loopback that is free just now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(story: Story, home: Home, environment: Mapping[str, str], *, port: int) -> int:
    """Start Airflow, say how to reach it, wait for Ctrl-C, end it; the process's exit code."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Standalone(environment, home.log, port=port) as airflow:
            try:
                story.step("Airflow starts: scheduler, triggerer, DAG processor, API server (about a minute)")
                airflow.await_healthy()
                story.step(f"Airflow is ready at [bold]{airflow.url}[/]")
                story.step(f"log in as [bold]admin[/] with the password [bold]{airflow.password}[/]")
                story.step("open the DAG label_tickets and press Trigger; Ctrl-C here ends everything")
                while airflow.running:
                    time.sleep(1)
                raise DemoError(f"Airflow ended by itself. See {home.log}")
            except KeyboardInterrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                story.step("ending Airflow …")
                killed = airflow.stop()
                story.step(
                    f"ended; {len(killed)} processes had to be killed" if killed else "ended, no process is left"
                )
                return 0
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
