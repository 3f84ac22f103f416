"""Many triggers in a whole triggerer: `airflow triggerer` with its supervisor, its database and a log for each trigger.

A case of `benchmarks.triggers`, which tells what is measured; `idle` is what Airflow itself does to the loop: as many
triggers that only sleep. Its watchdog warns of those too while they start: `run_trigger` writes a line per trigger to
the supervisor, which blocks while that one is busy, and a full garbage collection of the process takes 0.3 s.

Task instances that are deferred to the triggers lie in a metadata database of the case's own; there is no scheduler, as
nobody has to run what is resumed. How late the loop is tells one more trigger, `Meter`, over a socket. An event has
arrived when its task instance is no longer deferred.
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

from benchmarks.measure import memory
from benchmarks.triggers import CLASSES, ENDING, STEADY, Counts, Lag, arguments, ask

#: seconds that a triggerer may take for anything; one that is blocked takes long
PATIENCE = 900.0


class Idle(BaseTrigger):
    """Sleeps: what is seen of a loop full of these is Airflow's own."""

    running = 0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "benchmarks.triggerer.Idle", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep until cancelled."""
        type(self).running += 1
        await asyncio.Event().wait()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # Airflow has no types here


class Meter(BaseTrigger):
    """Measures the loop that it runs in. Whoever connects to its socket is told what was seen since the first did."""

    def __init__(self, path: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow has no types here
        self.path = path

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments."""
        return "benchmarks.triggerer.Meter", {"path": self.path}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Measure until cancelled."""
        counts = await asyncio.to_thread(Counts)
        lag, begun = Lag(), False

        async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal begun
            if not begun:
                begun, lag.late = True, [0.0]
            told = {
                "pid": os.getpid(),
                "p50": lag.percentile(0.5),
                "p99": lag.percentile(0.99),
                "longest": max(lag.late),
                "cpu": time.process_time(),
                "looks": counts.looks,
                "seen": len(counts.seen),
                "clients": counts.clients,
                "idle": Idle.running,
            }
            writer.write(json.dumps(told).encode())
            writer.close()

        async with await asyncio.start_unix_server(tell, self.path):
            await lag.measure()
        yield TriggerEvent(None)  # type: ignore[no-untyped-call]  # Airflow has no types here


class Metadata:
    """A metadata database with a run whose tasks are deferred."""

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
            rows = [Trigger(classpath, given) for given in triggers]
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

    def resumed(self, task_id: str) -> set[int]:
        """Which instances of a task are no longer deferred."""
        query = "SELECT map_index FROM task_instance WHERE task_id = ? AND state <> 'deferred'"
        with closing(sqlite3.connect(self._path, timeout=60)) as database:
            return {map_index for (map_index,) in database.execute(query, [task_id])}


@contextmanager
def running(log: Path, capacity: int) -> Iterator[psutil.Process]:
    """A triggerer; its process that speaks to the database."""
    # Each trigger that ever logged holds a file open.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    command = [sys.executable, "-m", "airflow", "triggerer", f"--capacity={capacity}", "--skip-serve-logs"]
    with log.open("wb") as said:
        process = psutil.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        family = {process, *process.children(recursive=True)}
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=60)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


def until(what: str, look: Callable[[], Any], log: Path, pause: float = 1.0) -> Any:
    """What `look` returns once that is true."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        if time.monotonic() > deadline:
            said = log.read_text("utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"{said}\nNot within {PATIENCE:g} s: {what}")
        time.sleep(pause)
    return found


def read(path: str) -> dict[str, Any]:
    """What the meter measured since the last time; empty if there is none yet."""
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return {}
        with client.makefile("rb") as answer:
            told: dict[str, Any] = json.load(answer)
    return told


def many(who: str, triggers: int, each: int, url: str) -> Callable[[], dict[str, float]]:
    """A case: many triggers in one triggerer. Airflow's database must be that of the case alone."""
    home = Path(os.environ["AIRFLOW_HOME"])
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, stdout=sys.stderr)
    metadata = Metadata(home / "airflow.db")
    log = home / "triggerer.log"

    def run() -> dict[str, float]:
        # the name of a socket has to be short
        with tempfile.TemporaryDirectory() as folder:
            return measure(f"{folder}/meter")

    def measure(path: str) -> dict[str, float]:
        metadata.defer("meter", "benchmarks.triggerer.Meter", [{"path": path}])
        jobs = [[f"batch_{each * n + k}" for k in range(each)] for n in range(triggers)]
        with running(log, triggers + 1) as supervisor:
            before = until("the triggerer is there", lambda: read(path), log)
            pid = before["pid"]
            resident, _ = memory(pid)
            warned = log.stat().st_size
            began = time.perf_counter()
            if who == "idle":
                metadata.defer("wait", "benchmarks.triggerer.Idle", [{} for _ in jobs])
            else:
                metadata.defer("wait", CLASSES[who], [arguments(who, job) for job in jobs])

            def all_seen() -> bool:
                if who == "idle":
                    return bool(read(path)["idle"] >= triggers)
                if who == "ours":
                    return bool(read(path)["seen"] == triggers * each)
                return bool(ask(f"{url}/asked").get("single", 0) >= triggers)

            until("each batch was looked at", all_seen, log)
            first_seen = time.perf_counter() - began
            time.sleep(STEADY / 2)
            starting = read(path)
            asked, began = ask(f"{url}/asked"), time.perf_counter()
            of_supervisor = sum(supervisor.cpu_times()[:2])
            time.sleep(STEADY)
            now = read(path)
            seconds = time.perf_counter() - began
            asked = {name: count - asked.get(name, 0) for name, count in ask(f"{url}/asked").items()}
            of_supervisor = sum(supervisor.cpu_times()[:2]) - of_supervisor
            looked = now["looks"] - starting["looks"] if who == "ours" else asked.get("single", 0)
            used, _ = memory(pid)
            with log.open("rb") as said:
                said.seek(warned)
                blocked = re.findall(rb"async thread was blocked for ([\d.]+) seconds", said.read())
            if who == "idle":
                told = {"p50": now["p50"], "p99": now["p99"], "longest": now["longest"], "first": first_seen}
                return told | {"blocked": len(blocked), "kb": (used - resident) / 1000 / triggers}
            at = {}
            for number in range(0, triggers, max(1, triggers // ENDING)):
                for batch_id in jobs[number]:
                    ask(f"{url}/end/{batch_id}", "POST")
                at[number] = time.monotonic()
            took: dict[int, float] = {}

            def all_arrived() -> bool:
                moment = time.monotonic()
                for number in metadata.resumed("wait") & at.keys() - took.keys():
                    took[number] = moment - at[number]
                return took.keys() == at.keys()

            until("the events arrived", all_arrived, log, pause=0.25)
        return {
            "p50": now["p50"],
            "p99": now["p99"],
            "longest": now["longest"],
            "blocked": len(blocked),
            "requests": 50 * sum(asked.values()) / max(1, looked),
            "looks": looked / triggers / each,
            "first": first_seen,
            "cpu": 100 * (now["cpu"] - starting["cpu"]) / seconds,
            "supervisor": 100 * of_supervisor / seconds,
            "kb": (used - resident) / 1000 / triggers,
            "clients": now["clients"],
            "to_event": statistics.median(took.values()),
        }

    return run
