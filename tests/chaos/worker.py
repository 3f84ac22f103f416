"""A process that runs submit -> wait -> land with real operators in forks of itself, which can die at any step.

    python -m tests.chaos.worker

The process imports Airflow once. It then reads one `Start` per line and forks for each; the fork runs the DAG with
`dag.test()`. If the `Start` has a strike, the fork kills itself with SIGKILL, or stops itself with SIGSTOP, at the step
that the strike names. Steps are defined by the files that a worker writes and the rows it handles. The package's own
code runs unchanged; its writers are only wrapped so that the steps can be observed.

The process prints one line for the start, the stop and the end of each fork. A fork writes the result of its run to the
file that the `Start` names.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx
import msgspec

if TYPE_CHECKING:
    from airflow_provider_batch.core.ledger.folder import Folder
    from airflow_provider_batch.core.sealing.rendered_row import RenderedRow

#: age at which an unconfirmed create is looked up; 120 s in production, shortened here
LOOK_UP_AFTER = timedelta(seconds=1)


class Strike(msgspec.Struct, frozen=True):
    """The step at which a worker is killed or stopped."""

    #: "before" or "after" the step, or "at" a row that is read or landed
    phase: str
    #: regular expression for the step: `create NAME`, `write NAME`, `read row`, `land row`
    step: str
    #: number of the match that counts
    nth: int = 1
    #: seconds from the match to the signal; 0 sends it immediately
    delay: float = 0.0
    #: send SIGSTOP instead of SIGKILL: the worker is taken for dead and later wakes up again
    stop: bool = False


class Start(msgspec.Struct, frozen=True):
    """One attempt to run the DAG."""

    #: identifies the run: the same date gives the same run_id
    logical_date: datetime
    environment: dict[str, str]
    submit: dict[str, Any]
    wait: dict[str, Any]
    land: dict[str, Any]
    #: file for the result of the run
    result: str
    log: str
    strike: Strike | None = None
    #: number of times that a person has cleared the wait
    clears: int = 0


class Striker:
    """Counts the matching steps and sends the signal at the right one."""

    def __init__(self, strike: Strike | None, log: Path) -> None:
        self._strike, self._log = strike, log
        self._matches = 0
        self._lock = threading.Lock()

    def step(self, phase: str, step: str) -> None:
        """Take note of a step that is about to happen or has just happened."""
        strike = self._strike
        if strike is None or phase != strike.phase or not re.fullmatch(strike.step, step):
            return
        with self._lock:
            self._matches += 1
            if self._matches != strike.nth:
                return
        if strike.delay:
            timer = threading.Timer(strike.delay, self._send_signal, [step])
            timer.daemon = True
            timer.start()
        else:
            self._send_signal(step)

    def _send_signal(self, step: str) -> None:
        assert self._strike is not None
        self._log.write_text(step)
        os.kill(os.getpid(), signal.SIGSTOP if self._strike.stop else signal.SIGKILL)


def watch(striker: Striker, folder: type[Folder]) -> None:
    """Pass every file created or written in staging, and every row read or landed, to the striker.

    :param folder: the kind of folder that staging is in.
    """
    from airflow_provider_batch.core.landing.landing import Landing
    from airflow_provider_batch.core.sealing.sealer import Sealer

    create, writer, land, add = folder.create, folder.writer, Landing.__iter__, Sealer.add

    def watched_create(self: Folder, name: str, data: bytes) -> bool:
        striker.step("before", f"create {name}")
        created = create(self, name, data)
        striker.step("after", f"create {name}")
        return created

    @contextmanager
    def watched_writer(self: Folder, name: str) -> Iterator[BinaryIO]:
        striker.step("before", f"write {name}")
        with writer(self, name) as file:
            yield file
        striker.step("after", f"write {name}")

    def watched_land(self: Landing) -> Iterator[tuple[Any, ...]]:
        for row in land(self):
            striker.step("at", "land row")
            yield row
        striker.step("at", "landed all")

    def watched_add(self: Sealer, rows: Sequence[RenderedRow], *args: Any, **kwargs: Any) -> None:
        for _ in rows:
            striker.step("at", "read row")
        add(self, rows, *args, **kwargs)

    folder.create = watched_create  # type: ignore[method-assign]
    folder.writer = watched_writer  # type: ignore[method-assign]
    Landing.__iter__ = watched_land  # type: ignore[method-assign]
    Sealer.add = watched_add  # type: ignore[method-assign]


def run(start: Start) -> dict[str, Any]:
    """Run the DAG once; return its state, its errors, what the land task returned, and the batches that are held."""
    from airflow.sdk import DAG

    from airflow_provider_batch.core.lifecycle import conditions, consequences, steps
    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from airflow_provider_batch.staging.local import LocalFolder
    from tests.airflow.jobs import run_dag

    # These modules import the name, so it must be replaced in each of them.
    for module in (steps, conditions, consequences):
        assert "LOOK_UP_AFTER" in vars(module), f"{module.__name__} no longer reads LOOK_UP_AFTER."
        vars(module)["LOOK_UP_AFTER"] = LOOK_UP_AFTER
    watch(Striker(start.strike, Path(f"{start.result}.hit")), LocalFolder)
    retries: dict[str, Any] = {"retries": 5, "retry_delay": timedelta(0)}
    with DAG("chaos", schedule=None, default_args=retries) as dag:
        submit = BatchSubmitOperator(task_id="submit", **start.submit)
        wait = BatchSensor(
            task_id="wait",
            job=submit.output,
            row_retry_delay=timedelta(seconds=0.1),
            poke_interval=0.1,
            max_attempts=6,
            # a clear raises `max_tries`, which is how the sensor recognizes it
            retries=retries["retries"] + start.clears,
            **start.wait,
        )
        land = BatchResultsOperator(task_id="land", job=submit.output, **start.land)
        submit >> wait >> land
    dag_run = run_dag(dag, logical_date=start.logical_date)
    return {
        "state": dag_run.state,
        "states": dag_run.states,
        "errors": {task: f"{type(error).__name__}: {error}" for task, error in dag_run.errors.items()},
        "land": dag_run.return_values.get("land"),
        "held_batches": (dag_run.return_values.get("wait") or {}).get("held_batches", []),
    }


def run_and_report(start: Start) -> None:
    """Run the DAG once, and write the result to its file."""
    result = run(start)
    Path(start.result).write_text(json.dumps(result, default=str))


def run_in_fork(start: Any, work: Callable[[Any], None]) -> int:
    """Do the work in a fork and return the fork's process id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(start.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ |= start.environment
        work(start)
        code = 0
    except BaseException:  # noqa: BLE001  # the error goes to the log; a fork must never continue as the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(start_type: type[Any], work: Callable[[Any], None], import_all: Callable[[], None]) -> None:
    """Fork for each line on standard input, and print the start, the stop and the end of each fork.

    :param start_type: type of the lines. Its fields `environment` and `log` are for the fork, the others for the work.
    :param import_all: loads what every fork needs.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import_all()
    print(json.dumps({"event": "ready", "pid": os.getpid()}), file=answers)
    buffer = b""
    forks: set[int] = set()
    while True:
        # Poll for forks that have ended or stopped: a thread for this would interfere with forking.
        if select.select([0], [], [], 0.02)[0]:
            data = os.read(0, 1 << 16)
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                forks.add(pid := run_in_fork(msgspec.json.decode(line, type=start_type), work))
                print(json.dumps({"event": "started", "pid": pid}), file=answers)
        for pid in sorted(forks):
            changed_pid, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED)
            if changed_pid and os.WIFSTOPPED(status):
                print(json.dumps({"event": "stopped", "pid": pid}), file=answers)
            elif changed_pid:
                forks.remove(pid)
                print(json.dumps({"event": "ended", "pid": pid}), file=answers)
    for pid in forks:
        os.kill(pid, signal.SIGKILL)


def _import_all() -> None:
    """Load what every fork needs and what takes seconds: modules, and Airflow's in-process API server."""
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
        # the server builds its routes at the first request
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
            await client.get("/health")

    asyncio.run(first_request())


if __name__ == "__main__":
    serve(Start, run_and_report, _import_all)
