"""Many waits in the one triggerer of a full Airflow installation, which is killed halfway.

`make soak` runs this with `BATCH_TEST_WAITS=100` and without other load, which takes some minutes. In that case
Airflow's own watchdog must not find the event loop blocked at all while all triggers wait. While triggers start, the
watchdog reports blocking that Airflow itself causes, as it writes a line for each trigger to a busy supervisor. It does
so even for triggers that only sleep (`python -m benchmarks.triggers --only triggerer`, case `idle`). That blocking is
recorded and does not fail the test.
"""

from __future__ import annotations

import math
import os
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.demo.home import Provider
from airflow_provider_batch.local.faults import Call
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.triggers.clients import SLOTS
from airflow_provider_batch.triggers.pace import SPEEDUP
from tests.airflow.standalone import Run, RunningAirflow, running_airflow, wait_until

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("BATCH_TEST_WAITS" not in os.environ, reason="takes minutes; run by make soak"),
]

KEY = "sk-of-the-local-server"
FULL_SIZE = 100
WAITS = int(os.environ.get("BATCH_TEST_WAITS", "20"))
#: rows and batches of each job
ROWS, BATCHES = 6, 3
#: seconds that a batch runs on the local server, longer than any test
BATCH_SECONDS = 7_200.0
INTERVAL = 8.0
#: seconds during which requests are counted
COUNTING_SECONDS = 30.0
#: maximum seconds that the event loop may be blocked; with other tests running, the cause need not be a trigger
MAX_BLOCKED = 0.0 if WAITS >= FULL_SIZE else 2.0
PATIENCE = 60.0 + 10.0 * WAITS
DAGS = Path(__file__).parent / "standalone_dags"
PACE = {
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "6",
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": str(INTERVAL),
    # independent of changes of the default
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": "0.2",
}


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("batches"), in_progress=BATCH_SECONDS, api_key=KEY, admin=True) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, batches: LocalServer) -> Iterator[RunningAirflow]:
    home = tmp_path_factory.mktemp("many")
    with running_airflow(home, Provider(batches.base_url, KEY, local=True), DAGS, PACE) as started:
        with closing(sqlite3.connect(started.home.warehouse)) as warehouse, warehouse:
            warehouse.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, job INTEGER, title TEXT)")
            warehouse.executemany(
                "INSERT INTO tickets VALUES (?, ?, ?)", [(n, n // ROWS, f"ticket {n}") for n in range(ROWS * WAITS)]
            )
        started.await_dags("many_waits")
        yield started


def states(run: Run, task_id: str) -> Counter[str]:
    """Return the number of mapped task instances in each state, read from the database because there are many."""
    query = "SELECT state, count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? AND task_id = ? GROUP BY state"
    with closing(sqlite3.connect(run.airflow.home.airflow / "airflow.db", timeout=60)) as metadata:
        return Counter(dict(metadata.execute(query, [run.dag_id, run.run_id, task_id])))


def await_all(run: Run, task_id: str, state: str) -> None:
    """Wait until all mapped task instances are in this state; fail if any of them fails."""

    def have_state() -> bool:
        counts = states(run, task_id)
        assert not counts.keys() & {"failed", "upstream_failed", "up_for_retry"}, counts
        return counts == {state: WAITS}

    wait_until(f"{WAITS} instances of {task_id} are {state}", have_state, patience=PATIENCE)


def logs_of_triggers(run: Run) -> set[Path]:
    """Return the trigger logs of the waits, one file for each triggerer that ran the trigger."""
    folder = run.airflow.home.airflow / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / "task_id=wait"
    return set(folder.rglob("*.trigger.*.log"))


def await_progress(run: Run, event: str, *, done: str, exclude: set[Path] | None = None) -> None:
    """Wait until the trigger of each wait has logged this number of done requests, in a log that is not excluded.

    :param event: what is awaited, for the error message.
    :param done: regular expression for the number.
    """

    def have_logged() -> bool:
        logs = logs_of_triggers(run) - (exclude or set())
        line = rf"{done} of {ROWS} requests done"
        waits = {path.parent for path in logs if re.search(line, path.read_text("utf-8"))}
        return len(waits) == WAITS

    wait_until(event, have_logged, patience=PATIENCE)


def blocked_seconds(airflow: RunningAirflow, offset: int = 0) -> list[float]:
    """Return for how many seconds Airflow's watchdog found the event loop blocked, each time after this log offset."""
    log = airflow.home.log.read_bytes()[offset:].decode(errors="replace")
    return [float(seconds) for seconds in re.findall(r"async thread was blocked for ([\d.]+) seconds", log)]


def connections(airflow: RunningAirflow, server: LocalServer) -> int:
    """Return the number of open connections from the triggerer to the provider."""
    port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    parents = airflow.processes("triggerer")
    processes = {process for parent in parents for process in (parent, *parent.children(recursive=True))}
    sockets = [socket for process in processes for socket in process.net_connections("tcp") if socket.raddr]
    return sum(socket.raddr.port == port and socket.status == "ESTABLISHED" for socket in sockets)


def test_many_deferred_waits_share_one_poller_and_survive_the_kill_of_their_triggerer(
    airflow: RunningAirflow, batches: LocalServer, record_property: Callable[[str, object], None]
) -> None:
    started_at = time.monotonic()
    run = airflow.trigger("many_waits")
    await_all(run, "wait", "deferred")
    run.await_worker_end("wait", count=WAITS)
    await_progress(run, "the batches of each wait are read", done=r"\d")
    deferred_at = time.monotonic()

    # One request returns all batches that fit on a page, and each batch is read at most `max_reads` times.
    log_size = airflow.home.log.stat().st_size
    calls_before = batches.calls()
    counting_since = time.monotonic()
    time.sleep(COUNTING_SECONDS)
    calls_after = batches.calls()
    max_reads = 1 + (time.monotonic() - counting_since) / (0.9 * INTERVAL / SPEEDUP)
    reads = {call: calls_after[call] - calls_before.get(call, 0) for call in (Call.LIST, Call.RETRIEVE)}
    assert 0 < sum(reads.values()) <= max_reads * math.ceil(WAITS * BATCHES / 50)
    assert connections(airflow, batches) <= SLOTS
    assert [seconds for seconds in blocked_seconds(airflow, log_size) if seconds > MAX_BLOCKED] == []

    logs_before_kill = logs_of_triggers(run)
    batches.advance(0.6 * BATCH_SECONDS)
    killed_at = time.monotonic()
    airflow.kill("triggerer")
    airflow.start("triggerer")
    await_progress(run, "the new triggerer runs each trigger", done="[1-9]", exclude=logs_before_kill)
    assert states(run, "wait") == {"deferred": WAITS}
    restarted_at = time.monotonic()
    log_size = airflow.home.log.stat().st_size
    time.sleep(2 * INTERVAL)
    assert [seconds for seconds in blocked_seconds(airflow, log_size) if seconds > MAX_BLOCKED] == []

    batches.advance(BATCH_SECONDS)
    await_all(run, "land", "success")
    landed_at = time.monotonic()
    assert run.await_end() == "success"
    with closing(sqlite3.connect(airflow.home.warehouse)) as warehouse:
        outcomes = dict(warehouse.execute("SELECT custom_id, outcome FROM many_answers"))
    assert outcomes == {str(n): "succeeded" for n in range(ROWS * WAITS)}
    calls = batches.calls()
    assert calls[Call.CREATE] == WAITS * BATCHES
    assert calls.get(Call.CANCEL, 0) == 0
    record_property(
        "measurements",
        f"{WAITS} waits, {WAITS * BATCHES} batches: deferred after {deferred_at - started_at:.0f} s; "
        f"{reads} in {COUNTING_SECONDS:g} s; all triggers ran again {restarted_at - killed_at:.0f} s after the kill; "
        f"landed {landed_at - restarted_at:.0f} s after their batches ended; while Airflow or its workers started, the "
        f"event loop was blocked for {blocked_seconds(airflow)} s",
    )
