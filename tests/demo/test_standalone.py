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

import openai
import psutil
import pytest

from airflow_provider_batch.demo.standalone import free_port
from airflow_provider_batch.local.process import LocalServer

pytestmark = pytest.mark.standalone
KEY = "sk-not-a-real-key-0123456789"


def wait_for(condition: Callable[[], Any], *, seconds: float, event: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.2)
    pytest.fail(f"{event} did not happen within {seconds} s")


class Airflow:
    """The running command, and a client of Airflow's public API."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.output = folder / "output"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "airflow_provider_batch.cli", "demo", "--airflow", f"--port={port}", *arguments],
                cwd=folder,
                env={
                    **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                    "HOME": str(folder),
                    **environment,
                },
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
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=90) as answer:
            return json.load(answer)

    def start(self) -> None:
        """Wait until Airflow is healthy, and log in."""
        self.log_in(wait_for(lambda: self.search_output(r"password (\S+)"), seconds=300, event="start of Airflow")[1])

    def paused(self) -> dict[str, bool]:
        """Return, for each DAG, whether it is paused."""
        return {dag["dag_id"]: dag["is_paused"] for dag in self("GET", "/api/v2/dags")["dags"]}

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """Return the runs of a DAG."""
        return list(self("GET", f"/api/v2/dags/{dag_id}/dagRuns")["dag_runs"])

    def stop(self) -> None:
        """Press Ctrl-C, and wait until the command has ended."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)


@pytest.fixture
def airflow(tmp_path: Path) -> Iterator[Airflow]:
    running = Airflow(tmp_path)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def live_airflow(tmp_path: Path) -> Iterator[tuple[Airflow, LocalServer]]:
    """Run the live demo against a local server that stands in for the real API."""
    (tmp_path / "cwd").mkdir()
    with LocalServer(tmp_path / "api", api_key=KEY) as api:
        running = Airflow(tmp_path / "cwd", "--live", OPENAI_API_KEY=KEY, OPENAI_BASE_URL=api.base_url)
        try:
            yield running, api
        finally:
            running.stop()


def test_the_live_demo_says_what_may_be_spent_and_spends_nothing_before_a_person_acts(
    live_airflow: tuple[Airflow, LocalServer],
) -> None:
    airflow, api = live_airflow
    airflow.start()
    output = airflow.output.read_text()
    assert output.index("One run of each DAG costs at most $") < output.index("starting Airflow")
    assert re.search(r"label_tickets +│ \$5\.00 +│ when you trigger it", output)
    assert re.search(r"nightly_eval +│ \$.* +│ paused; once you unpause it: At 02:00", output)
    parsed = wait_for(lambda: len(paused := airflow.paused()) > 5 and paused, seconds=60, event="parsing of the DAGs")
    assert [dag_id for dag_id, is_paused in parsed.items() if is_paused] == ["nightly_eval"]

    run_id = airflow("POST", "/api/v2/dags/label_tickets/dagRuns", logical_date=None, conf={"limit": 3})["dag_run_id"]
    path = f"/api/v2/dags/label_tickets/dagRuns/{run_id}"
    # the triggerer of the live demo polls rarely, so the job itself is not awaited
    wait_for(lambda: list(openai.OpenAI(base_url=api.base_url, api_key=KEY).batches.list()), seconds=120, event="batch")
    airflow("PATCH", path, state="failed")
    assert airflow.runs("nightly_eval") == []
    airflow("PATCH", "/api/v2/dags/nightly_eval", is_paused=False)
    time.sleep(10)  # several rounds of the scheduler
    assert airflow.runs("nightly_eval") == []


def test_the_demo_prints_the_password_and_ctrl_c_stops_all_processes(airflow: Airflow) -> None:
    airflow.start()
    wait_for(lambda: airflow.paused().get("label_tickets") is False, seconds=60, event="unpausing of the DAG")
    processes = psutil.Process(airflow.process.pid).children(recursive=True)
    assert len(processes) > 4

    airflow.process.send_signal(signal.SIGINT)

    assert airflow.process.wait(60) == 0
    assert re.search(r"\bstopped\b", airflow.output.read_text())
    assert [process for process in processes if process.is_running()] == []
