"""Many waits in one triggerer of a whole Airflow, which is killed half-way.

`BATCH_TEST_WAITS=100` makes it a hundred waits, which takes some minutes; `make soak` does so, with the cores for
itself. Then Airflow's own watchdog must not find the event loop blocked at all while all wait. While triggers start it
warns of Airflow itself, also where they only sleep (`python -m benchmarks.triggers --only triggerer`, case `idle`): it
writes a line for each to a supervisor that is busy; that is only told.
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
from airflow_provider_batch.triggers.pace import SOONER
from tests.airflow.standalone import Run, RunningAirflow, running_airflow, wait_until

pytestmark = [
    pytest.mark.standalone,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("BATCH_TEST_WAITS" not in os.environ, reason="takes minutes; run by make soak"),
]

KEY = "sk-of-the-local-server"
MANY = 100
WAITS = int(os.environ.get("BATCH_TEST_WAITS", "20"))
#: of each job
ROWS, BATCHES = 6, 3
#: on a local server, longer than any test
HELD = 7_200.0
INTERVAL = 8.0
#: seconds in which requests are counted
COUNTED = 30.0
#: seconds that the loop may be blocked: while other tests take the cores, no trigger need be to blame
BLOCKED = 0.0 if WAITS >= MANY else 2.0
PATIENCE = 60.0 + 10.0 * WAITS
DAGS = Path(__file__).parent / "standalone_dags"
PACE = {
    "AIRFLOW__CORE__PARALLELISM": "6",
    "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": "6",
    "AIRFLOW__OPENAI_BATCH__POLL_INTERVAL": str(INTERVAL),
    # whatever its default will be
    "AIRFLOW__TRIGGERER__BLOCKED_MAIN_THREAD_WARNING_THRESHOLD": "0.2",
}


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("batches"), in_progress=HELD, api_key=KEY, admin=True) as server:
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
    """How many of its mapped task instances are in which state; read from the database, as they are many."""
    query = "SELECT state, count(*) FROM task_instance WHERE dag_id = ? AND run_id = ? AND task_id = ? GROUP BY state"
    with closing(sqlite3.connect(run.airflow.home.airflow / "airflow.db", timeout=60)) as metadata:
        return Counter(dict(metadata.execute(query, [run.dag_id, run.run_id, task_id])))


def await_all(run: Run, task_id: str, state: str) -> None:
    """Wait until all of its mapped task instances are in this state; none may fail."""

    def look() -> bool:
        found = states(run, task_id)
        assert not found.keys() & {"failed", "upstream_failed", "up_for_retry"}, found
        return found == {state: WAITS}

    wait_until(f"{WAITS} times {task_id} is {state}", look, patience=PATIENCE)


def logs_of_triggers(run: Run) -> set[Path]:
    """Of its waits: a file for each triggerer that ran the trigger."""
    folder = run.airflow.home.airflow / "logs" / f"dag_id={run.dag_id}" / f"run_id={run.run_id}" / "task_id=wait"
    return set(folder.rglob("*.trigger.*.log"))


def await_looks(run: Run, what: str, *, done: str, but: set[Path] | None = None) -> None:
    """Wait until the trigger of each wait told that so many requests are done, in another log than these."""

    def look() -> bool:
        logs = logs_of_triggers(run) - (but or set())
        told = {path.parent for path in logs if re.search(rf"{done} of {ROWS} requests done", path.read_text("utf-8"))}
        return len(told) == WAITS

    wait_until(what, look, patience=PATIENCE)


def blocked(airflow: RunningAirflow, since: int = 0) -> list[float]:
    """For how many seconds Airflow's watchdog found the event loop blocked, each time from there on in the log."""
    log = airflow.home.log.read_bytes()[since:].decode(errors="replace")
    return [float(seconds) for seconds in re.findall(r"async thread was blocked for ([\d.]+) seconds", log)]


def connections(airflow: RunningAirflow, server: LocalServer) -> int:
    """How many connections to the provider the triggerer holds open."""
    port = int(server.base_url.removesuffix("/v1").rpartition(":")[2])
    processes = {child for one in airflow.processes("triggerer") for child in (one, *one.children(recursive=True))}
    open_ones = [each for process in processes for each in process.net_connections("tcp") if each.raddr]
    return sum(each.raddr.port == port and each.status == "ESTABLISHED" for each in open_ones)


def test_many_deferred_waits_share_one_poller_and_outlive_their_triggerer(
    airflow: RunningAirflow, batches: LocalServer, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    run = airflow.trigger("many_waits")
    await_all(run, "wait", "deferred")
    run.await_workers("wait", ended=WAITS)
    await_looks(run, "each wait's batches were looked at", done=r"\d")
    deferred = time.monotonic()

    # Of all batches that fit on a page, one request tells. Each is looked at this often at most.
    said = airflow.home.log.stat().st_size
    before = batches.calls()
    since = time.monotonic()
    time.sleep(COUNTED)
    after = batches.calls()
    looks = 1 + (time.monotonic() - since) / (0.9 * INTERVAL / SOONER)
    asked = {call: after[call] - before.get(call, 0) for call in (Call.LIST, Call.RETRIEVE)}
    assert 0 < sum(asked.values()) <= looks * math.ceil(WAITS * BATCHES / 50)
    assert connections(airflow, batches) <= SLOTS
    assert [seconds for seconds in blocked(airflow, said) if seconds > BLOCKED] == []

    before_kill = logs_of_triggers(run)
    batches.advance(0.6 * HELD)
    killed = time.monotonic()
    airflow.kill("triggerer")
    airflow.start("triggerer")
    await_looks(run, "each is taken up anew", done="[1-9]", but=before_kill)
    assert states(run, "wait") == {"deferred": WAITS}
    taken_up = time.monotonic()
    said = airflow.home.log.stat().st_size
    time.sleep(2 * INTERVAL)
    assert [seconds for seconds in blocked(airflow, said) if seconds > BLOCKED] == []

    batches.advance(HELD)
    await_all(run, "land", "success")
    ended = time.monotonic()
    assert run.await_end() == "success"
    with closing(sqlite3.connect(airflow.home.warehouse)) as warehouse:
        landed = dict(warehouse.execute("SELECT custom_id, outcome FROM many_answers"))
    assert landed == {str(n): "succeeded" for n in range(ROWS * WAITS)}
    calls = batches.calls()
    assert calls[Call.CREATE] == WAITS * BATCHES
    assert calls.get(Call.CANCEL, 0) == 0
    record_property(
        "told",
        f"{WAITS} waits, {WAITS * BATCHES} batches: deferred after {deferred - began:.0f} s; {asked} in {COUNTED:g} s; "
        f"all taken up {taken_up - killed:.0f} s after the kill; ended {ended - taken_up:.0f} s after their batches; "
        f"while Airflow or its workers started, the loop was blocked for {blocked(airflow)} s",
    )
