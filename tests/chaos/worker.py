"""A process that runs the chain submit -> wait -> land of real operators in forks of itself, to be killed at any step.

    python -m tests.chaos.worker

It imports Airflow once, then reads a `Start` a line and forks; the fork runs the DAG with `dag.test()`. A strike in the
`Start` lets the fork end itself with SIGKILL, or stop itself with SIGSTOP, at a step that it names. The steps are those
of the files a worker writes: nothing of the package is replaced, its writers are only watched.

The start, the stop and the end of each fork are told with a line. The run's end is written to the file that `Start`
names.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import msgspec

#: the real age at which an unanswered create is looked up is 120 s; the rule is the same with another number
UNSURE = timedelta(seconds=1)


class Strike(msgspec.Struct, frozen=True):
    """Where a worker is hit."""

    #: "before" or "after" the step, or "at" a row that is read or landed
    when: str
    #: matches the step: `create NAME`, `write NAME`, `read row`, `land row`
    step: str
    #: at the so-manieth match
    nth: int = 1
    #: seconds from then to the hit; 0 hits on the spot
    delay: float = 0.0
    #: SIGKILL, or SIGSTOP: a worker that is taken for dead and wakes up again
    stop: bool = False


class Start(msgspec.Struct, frozen=True):
    """One go at a run."""

    #: tells the run: the same moment is the same run_id
    logical_date: datetime
    environment: dict[str, str]
    submit: dict[str, Any]
    wait: dict[str, Any]
    land: dict[str, Any]
    #: where the end of the run is written
    result: str
    log: str
    strike: Strike | None = None


class Striker:
    """Counts steps and hits at the right one."""

    def __init__(self, strike: Strike | None, log: Path) -> None:
        self._strike, self._log = strike, log
        self._seen = 0
        self._lock = threading.Lock()

    def step(self, when: str, step: str) -> None:
        """A step is about to be done, or was done."""
        strike = self._strike
        if strike is None or when != strike.when or not re.fullmatch(strike.step, step):
            return
        with self._lock:
            self._seen += 1
            if self._seen != strike.nth:
                return
        if strike.delay:
            timer = threading.Timer(strike.delay, self._hit, [step])
            timer.daemon = True
            timer.start()
        else:
            self._hit(step)

    def _hit(self, step: str) -> None:
        assert self._strike is not None
        self._log.write_text(step)
        os.kill(os.getpid(), signal.SIGSTOP if self._strike.stop else signal.SIGKILL)


def watch(striker: Striker) -> None:
    """Tell the striker of every file that is created or written in staging, and of every row read and landed."""
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.sealing.sealer import Sealer
    from airflow_provider_batch.staging.local import LocalFolder

    create, writer, land, add = LocalFolder.create, LocalFolder.writer, Landing.__iter__, Sealer.add

    def watched_create(self: LocalFolder, name: str, data: bytes) -> bool:
        striker.step("before", f"create {name}")
        created = create(self, name, data)
        striker.step("after", f"create {name}")
        return created

    @contextmanager
    def watched_writer(self: LocalFolder, name: str) -> Iterator[BinaryIO]:
        striker.step("before", f"write {name}")
        with writer(self, name) as file:
            yield file
        striker.step("after", f"write {name}")

    def watched_land(self: Landing) -> Iterator[tuple[Any, ...]]:
        for row in land(self):
            striker.step("at", "land row")
            yield row
        striker.step("at", "landed all")

    def watched_add(self: Sealer, *args: Any, **kwargs: Any) -> Any:
        striker.step("at", "read row")
        return add(self, *args, **kwargs)

    LocalFolder.create = watched_create  # type: ignore[method-assign]
    LocalFolder.writer = watched_writer  # type: ignore[method-assign]
    Landing.__iter__ = watched_land  # type: ignore[method-assign]
    Sealer.add = watched_add  # type: ignore[method-assign]


def run(start: Start) -> dict[str, Any]:
    """Run the chain once; its state, its errors and what land returned."""
    from airflow.sdk import DAG

    from airflow_provider_batch.core.lifecycle import conditions, consequences, steps
    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from tests.airflow.jobs import run_dag

    # The rules import the name, so each module that reads it needs the shorter age.
    for module in (steps, conditions, consequences):
        assert "UNSURE" in vars(module), f"{module.__name__} no longer reads UNSURE."
        vars(module)["UNSURE"] = UNSURE
    watch(Striker(start.strike, Path(f"{start.result}.hit")))
    retries = {"retries": 5, "retry_delay": timedelta(0)}
    with DAG("chaos", schedule=None, default_args=retries) as dag:
        asked = BatchSubmitOperator(task_id="submit", **start.submit)
        waited = BatchSensor(
            task_id="wait",
            job=asked.output,
            row_retry_delay=timedelta(seconds=0.1),
            poke_interval=0.1,
            max_attempts=6,
            **start.wait,
        )
        landed = BatchResultsOperator(task_id="land", job=asked.output, max_failure_rate=0.0, **start.land)
        asked >> waited >> landed
    ran = run_dag(dag, logical_date=start.logical_date)
    return {
        "state": ran.state,
        "states": ran.states,
        "errors": {task: f"{type(error).__name__}: {error}" for task, error in ran.errors.items()},
        "landed": ran.returned.get("land"),
    }


def forked(start: Start) -> int:
    """Run the chain in a fork; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= start.environment
        result = run(start)
        Path(start.result).write_text(json.dumps(result, default=str))
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it is goes to the log, and no fork may go on as the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Fork for each line on standard input; tell of each fork's start, stop and end."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _import_all()
    print(json.dumps({"what": "ready", "pid": os.getpid()}), file=answers)
    rest = b""
    forks: set[int] = set()
    while True:
        # Forks that end or stop are looked for between two lines: a thread for it would be in the way of forking.
        if select.select([0], [], [], 0.02)[0]:
            got = os.read(0, 1 << 16)
            if not got:
                break
            *lines, rest = (rest + got).split(b"\n")
            for line in lines:
                forks.add(pid := forked(msgspec.json.decode(line, type=Start)))
                print(json.dumps({"what": "started", "pid": pid}), file=answers)
        for pid in sorted(forks):
            found, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if found and os.WIFSTOPPED(status):
                print(json.dumps({"what": "stopped", "pid": pid}), file=answers)
            elif found:
                forks.remove(pid)
                print(json.dumps({"what": "ended", "pid": pid}), file=answers)
    for pid in forks:
        os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    """What every fork needs and takes seconds to make: modules, and Airflow's in-process API server."""
    for module in (
        "airflow.dag_processing.bundles.manager",
        "airflow.dag_processing.dagbag",
        "airflow.models.dagrun",
        "airflow.sdk.execution_time.task_runner",
        "airflow.jobs.triggerer_job_runner",
        "airflow.providers.sqlite.hooks.sqlite",
        "airflow_provider_batch.operators.batch",
        "airflow_provider_batch.sensors.batch",
        "openai.resources.batches",
        "openai.resources.files",
        "tests.airflow.jobs",
    ):
        importlib.import_module(module)
    from airflow.sdk.execution_time import supervisor

    app = supervisor.in_process_api_server().app

    async def first_request() -> None:
        # with its first request the server builds its routes
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
            await client.get("/health")

    asyncio.run(first_request())


if __name__ == "__main__":
    main()
