"""Many triggers in a complete `airflow triggerer`, with its supervisor, its database and a log for each trigger.

This is a case of `benchmarks.triggers`, which describes what is measured. `idle` runs the same number of triggers that
only sleep, to show what Airflow itself does to the loop. Airflow's watchdog reports a blocked loop for these too while
they start: `run_trigger` writes a line per trigger to the supervisor, which blocks while the supervisor is busy, and a
full garbage collection of the process takes 0.3 s.

The task instances that wait for the triggers are in a separate metadata database. There is no scheduler, because the
resumed tasks need not run. One more trigger, `MeterTrigger`, measures the lag of the loop and reports it over a socket.
An event has arrived when its task instance is no longer deferred.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
from airflow.triggers.base import BaseTrigger, TriggerEvent

from benchmarks.measure import read_memory
from benchmarks.triggers import (
    CLASSES,
    ENDED_JOBS,
    STEADY_SECONDS,
    Counts,
    LagMeter,
    send_request,
    trigger_arguments,
)

#: seconds to wait for anything from the triggerer; a blocked triggerer is slow
TIMEOUT = 900.0


class IdleTrigger(BaseTrigger):
    """Only sleeps. A loop full of these shows the cost of Airflow itself."""

    running = 0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "benchmarks.triggerer.IdleTrigger", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until cancelled."""
        type(self).running += 1
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # Airflow has no types here


class MeterTrigger(BaseTrigger):
    """Measures the loop that it runs in.

    It sends its measurements as JSON to every client that connects to its socket. They cover the time since the first
    client connected.
    """

    def __init__(self, path: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types here
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return "benchmarks.triggerer.MeterTrigger", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure until cancelled."""
        counts = await asyncio.to_thread(Counts)
        meter, is_started = LagMeter(), False

        async def send_measurements(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal is_started
            if not is_started:
                is_started, meter.lags = True, [0.0]
            measurements = {
                "pid": os.getpid(),
                "p50": meter.percentile(0.5),
                "p99": meter.percentile(0.99),
                "longest": max(meter.lags),
                "cpu": time.process_time(),
                "status_checks": counts.status_checks,
                "checked_batches": len(counts.checked_batches),
                "clients": counts.clients,
                "idle": IdleTrigger.running,
            }
            writer.write(json.dumps(measurements).encode())
            writer.close()

        async with await asyncio.start_unix_server(send_measurements, self.path):
            await meter.measure()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # Airflow has no types here


class Metadata:
    """A metadata database with a DAG run whose tasks are deferred."""

    def __init__(self, path: Path) -> None:
        self._path = path
        from airflow.models.dag import DagModel
        from airflow.models.dag_version import DagVersion
        from airflow.models.dagbundle import DagBundleModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState

        with create_session() as session:
            session.add(DagBundleModel(name="bench"))
            session.flush()
            session.add(
                DagModel(  # type: ignore[no-untyped-call]  # Airflow has no types here
                    dag_id="bench",
                    bundle_name="bench",
                    max_active_tasks=16,
                    max_consecutive_failed_dag_runs=0,
                    has_task_concurrency_limits=False,
                )
            )
            session.flush()
            version = DagVersion(dag_id="bench", bundle_name="bench")
            session.add(version)
            session.add(DagRun(dag_id="bench", run_id="bench", run_type="manual", state=DagRunState.RUNNING))
            session.flush()
            self._version = version.id

    def defer(self, task_id: str, classpath: str, triggers: Sequence[dict[str, Any]]) -> None:
        """Defer the mapped instances of a task to triggers with these arguments."""
        from airflow.models.taskinstance import TaskInstance
        from airflow.models.trigger import Trigger
        from airflow.utils.session import create_session
        from sqlalchemy import insert

        with create_session() as session:
            rows = [Trigger(classpath, arguments) for arguments in triggers]
            session.add_all(rows)
            session.flush()
            instance = {
                "dag_id": "bench",
                "run_id": "bench",
                "task_id": task_id,
                "dag_version_id": self._version,
                "state": "deferred",
                "try_number": 1,
                "max_tries": 0,
                "pool": "default_pool",
                "pool_slots": 1,
                "queue": "default",
                "priority_weight": 1,
                "hostname": "",
                "next_method": "execute_complete",
                "next_kwargs": {},
                "context_carrier": {},
            }
            session.execute(
                insert(TaskInstance),
                [instance | {"map_index": number, "trigger_id": row.id} for number, row in enumerate(rows)],
            )

    def resumed_instances(self, task_id: str) -> set[int]:
        """Return the map indexes of a task's instances that are no longer deferred."""
        query = "SELECT map_index FROM task_instance WHERE task_id = ? AND state <> 'deferred'"
        with closing(sqlite3.connect(self._path, timeout=60)) as database:
            return {map_index for (map_index,) in database.execute(query, [task_id])}


@contextmanager
def running_triggerer(log: Path, capacity: int) -> Iterator[psutil.Process]:
    """Run a triggerer. Yield its supervisor, which is the process that uses the database."""
    # Each trigger that has logged anything keeps a file open.
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    command = [sys.executable, "-m", "airflow", "triggerer", f"--capacity={capacity}", "--skip-serve-logs"]
    with log.open("wb") as output:
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        processes = {process, *process.children(recursive=True)}
        process.send_signal(signal.SIGTERM)
        _, survivors = psutil.wait_procs(processes, timeout=60)
        for survivor in survivors:
            with contextlib.suppress(psutil.NoSuchProcess):
                survivor.kill()


def wait_for(event: str, check: Callable[[], Any], log: Path, pause: float = 1.0) -> Any:
    """Call `check` until it returns a true value, and return that value.

    :param event: what is waited for, for the error.
    :param log: file whose end the error shows.
    :param pause: seconds between two calls.
    :raises RuntimeError: after TIMEOUT seconds.
    """
    deadline = time.monotonic() + TIMEOUT
    while not (result := check()):
        if time.monotonic() > deadline:
            log_end = log.read_text("utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{log_end}\nThis did not happen within {TIMEOUT:g} s: {event}.")
        time.sleep(pause)
    return result


def read_meter(path: str) -> dict[str, Any]:
    """Return the meter's measurements since its first client connected; empty if the meter has not started yet."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(TIMEOUT)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return {}
        with client.makefile("rb") as answer:
            measurements: dict[str, Any] = json.load(answer)
    return measurements


def prepare_many(
    implementation: str, triggers: int, batches_per_trigger: int, url: str
) -> Callable[[], dict[str, float]]:
    """Return a function that runs many triggers in one triggerer and returns a value for each figure.

    No other case may use the same AIRFLOW_HOME, because its database is used.
    """
    home = Path(os.environ["AIRFLOW_HOME"])
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=sys.stderr)
    metadata = Metadata(home / "airflow.db")
    log = home / "triggerer.log"

    def run() -> dict[str, float]:
        # The path of a Unix socket must be short.
        with tempfile.TemporaryDirectory() as folder:
            return measure(f"{folder}/meter")

    def measure(path: str) -> dict[str, float]:
        metadata.defer("meter", "benchmarks.triggerer.MeterTrigger", [{"path": path}])
        jobs = [
            [f"batch_{batches_per_trigger * number + offset}" for offset in range(batches_per_trigger)]
            for number in range(triggers)
        ]
        with running_triggerer(log, triggers + 1) as supervisor:
            pid = wait_for("the triggerer runs its meter", lambda: read_meter(path), log)["pid"]
            initial_memory, _ = read_memory(pid)
            initial_log_size = log.stat().st_size
            start_time = time.perf_counter()
            if implementation == "idle":
                metadata.defer("wait", "benchmarks.triggerer.IdleTrigger", [{} for _ in jobs])
            else:
                arguments = [trigger_arguments(implementation, batch_ids) for batch_ids in jobs]
                metadata.defer("wait", CLASSES[implementation], arguments)

            def all_checked() -> bool:
                if implementation == "idle":
                    return bool(read_meter(path)["idle"] >= triggers)
                if implementation == "ours":
                    return bool(read_meter(path)["checked_batches"] == triggers * batches_per_trigger)
                return bool(send_request(f"{url}/counts").get("single", 0) >= triggers)

            wait_for("every batch was checked once", all_checked, log)
            first_round = time.perf_counter() - start_time
            time.sleep(STEADY_SECONDS / 2)
            start = read_meter(path)
            initial_requests, start_time = send_request(f"{url}/counts"), time.perf_counter()
            initial_supervisor_cpu = sum(supervisor.cpu_times()[:2])
            time.sleep(STEADY_SECONDS)
            end = read_meter(path)
            seconds = time.perf_counter() - start_time
            requests = {
                kind: count - initial_requests.get(kind, 0) for kind, count in send_request(f"{url}/counts").items()
            }
            supervisor_cpu = sum(supervisor.cpu_times()[:2]) - initial_supervisor_cpu
            our_checks = end["status_checks"] - start["status_checks"]
            status_checks = our_checks if implementation == "ours" else requests.get("single", 0)
            used_memory, _ = read_memory(pid)
            with log.open("rb") as file:
                file.seek(initial_log_size)
                warnings = re.findall(rb"async thread was blocked for ([\d.]+) seconds", file.read())
            result = {
                "p50": end["p50"],
                "p99": end["p99"],
                "longest": end["longest"],
                "blocked": len(warnings),
                "first_round": first_round,
                "kb": (used_memory - initial_memory) / 1000 / triggers,
            }
            if implementation == "idle":
                return result
            end_times = {}
            for number in range(0, triggers, max(1, triggers // ENDED_JOBS)):
                for batch_id in jobs[number]:
                    send_request(f"{url}/end/{batch_id}", "POST")
                end_times[number] = time.monotonic()
            delays: dict[int, float] = {}

            def all_arrived() -> bool:
                now = time.monotonic()
                for number in metadata.resumed_instances("wait") & end_times.keys() - delays.keys():
                    delays[number] = now - end_times[number]
                return delays.keys() == end_times.keys()

            wait_for("the events of all ended jobs arrived", all_arrived, log, pause=0.25)
        return result | {
            "requests": 50 * sum(requests.values()) / max(1, status_checks),
            "status_checks": status_checks / triggers / batches_per_trigger,
            "cpu": 100 * (end["cpu"] - start["cpu"]) / seconds,
            "supervisor": 100 * supervisor_cpu / seconds,
            "clients": end["clients"],
            "to_event": statistics.median(delays.values()),
        }

    return run
