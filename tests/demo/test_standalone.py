"""`airflow-batch demo --airflow` starts a full Airflow and stops it again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from airflow_provider_batch.demo.standalone import free_port

pytestmark = pytest.mark.standalone


def wait_for(condition: Callable[[], Any], *, seconds: float, event: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    pytest.fail(f"{event} did not happen within {seconds} s")


class Airflow:
    """The running command, and a client of Airflow's public API."""

    def __init__(self, folder: Path) -> None:
        self.output = folder / "output"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airflow_provider_batch.cli", "demo", "--airflow", f"--port={port}"],
                cwd=folder,
                env={"PATH": os.environ["PATH"], "HOME": str(folder)},
                stdout=output,
                stderr=subprocess.STDOUT,
                # As in a terminal. Tests that run in the background may ignore SIGINT, which children inherit.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        self._token = ""

    def search_output(self, pattern: str) -> re.Match[str] | None:
        assert self.process.poll() is None, self.output.read_text()
        return re.search(pattern, self.output.read_text())

    def log_in(self, password: str) -> None:
        self._token = self("POST", "/auth/token", username="admin", password=password)["access_token"]

    def __call__(self, method: str, path: str, **body: object) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    running = Airflow(tmp_path)
    try:
        yield running
    finally:
        running.process.send_signal(signal.SIGINT)
        running.process.wait(60)


def test_the_demo_prints_the_password_and_ctrl_c_stops_all_processes(airflow: Airflow) -> None:
    password = wait_for(lambda: airflow.search_output(r"password (\S+)"), seconds=300, event="start of Airflow")[1]
    airflow.log_in(password)
    wait_for(
        lambda: (
            [dag["is_paused"] for dag in airflow("GET", "/api/v2/dags?dag_id_pattern=label_tickets")["dags"]] == [False]
        ),
        seconds=60,
        event="unpausing of the DAG",
    )
    processes = psutil.Process(airflow.process.pid).children(recursive=True)
    assert len(processes) > 4

    airflow.process.send_signal(signal.SIGINT)

    assert airflow.process.wait(60) == 0
    assert re.search(r"\bstopped\b", airflow.output.read_text())
    assert [process for process in processes if process.is_running()] == []
