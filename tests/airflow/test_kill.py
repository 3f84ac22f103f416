"""SIGTERM to a task that runs, as Airflow sends it: what becomes of its batches depends on the state of the task."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pendulum
import pytest
from airflow.triggers.base import BaseTrigger

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, client_of, query, run_dag, run_job, submit_arguments

ROWS = 8
#: seconds for which a batch is in progress on the local server; only `advance` makes them pass
HELD = 7200.0
#: seconds that the answer to a creation takes, so that the signal comes while the call is under way
SLOW = 3.0
MOMENT = pendulum.datetime(2026, 11, 20)


@pytest.fixture
def held(serve: Callable[..., LocalServer]) -> LocalServer:
    """A server on which batches stay in progress; `openai_default` leads there."""
    return serve("held", in_progress=HELD)


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(ROWS)]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Airflow takes over SIGTERM of the process that a task runs in."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Killer(Thread):
    """Once `ready` says so: a person acts on the task, and Airflow sends SIGTERM to it."""

    def __init__(self, ready: Callable[[], bool], task_id: str, state: str) -> None:
        super().__init__(daemon=True)
        self._ready, self._task_id, self._state = ready, task_id, state

    def run(self) -> None:
        end = time.monotonic() + 60
        while not self._ready():
            if time.monotonic() > end:
                return
            time.sleep(0.05)
        set_state(self._task_id, self._state)
        os.kill(os.getpid(), signal.SIGTERM)


def set_state(task_id: str, state: str) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    with create_session() as session:
        running = session.query(TaskInstance).filter_by(task_id=task_id, state="running").all()
        assert len(running) == 1, running
        running[0].state = state


def records(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob("staging/**/records/*.json"))


def batches(server: LocalServer) -> list[Any]:
    return list(client_of(server).batches.list())


def a_dag(dag_id: str, wait: dict[str, Any] | None = None) -> Any:
    """Two input files of four rows each; nothing but submit unless there are arguments for the wait."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG(dag_id, schedule=None) as dag:
        submit = BatchSubmitOperator(**submit_arguments(limits={"requests": ROWS // 2}))
        if wait:
            waited = BatchSensor(task_id="wait", job=submit.output, **wait)
            submit >> waited >> BatchResultsOperator(task_id="land", job=submit.output, table="answers")
    return dag


def kill_submit(server: LocalServer, tmp_path: Path, state: str) -> None:
    """SIGTERM while the second of two batches is being created: it exists, but the answer is on its way."""
    server.set_faults(Fault(kind=Kind.STALL, calls=frozenset({Call.CREATE}), skip=1, times=1, seconds=SLOW))

    def half_way() -> bool:
        return "intent.s0002.1.json" in records(tmp_path) and len(batches(server)) == 2

    killer = Killer(half_way, "submit", state)
    killer.start()
    run_dag(a_dag(f"killed_{uuid4().hex[:8]}"), logical_date=MOMENT)
    killer.join()


@pytest.mark.parametrize("state", ["failed", "removed"])
def test_submit_cancels_all_it_created_and_is_creating_once_a_person_ended_it(
    warehouse: Path, held: LocalServer, tmp_path: Path, state: str
) -> None:
    kill_submit(held, tmp_path, state)

    assert [batch.status for batch in batches(held)] == ["cancelled", "cancelled"]
    assert {"cancel_requested.s0001.1.json", "cancel_requested.s0002.1.json"} < set(records(tmp_path))
    assert '"reason":"killed"' in next(tmp_path.glob("staging/**/cancel_requested.s0001.1.json")).read_text()


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_submit_cancels_nothing_when_its_worker_is_drained_or_the_task_is_cleared(
    warehouse: Path, held: LocalServer, tmp_path: Path, state: str
) -> None:
    kill_submit(held, tmp_path, state)

    assert [batch.status for batch in batches(held)] == ["in_progress", "in_progress"]
    assert {"created.s0001.1.json", "created.s0002.1.json"} < set(records(tmp_path))
    assert not [name for name in records(tmp_path) if name.startswith("cancel")]


def test_a_half_cancelled_job_that_is_run_again_keeps_what_was_answered_and_asks_the_rest(
    warehouse: Path, held: LocalServer, tmp_path: Path
) -> None:
    # `dag.test()` is no supervisor for two threads that ask at once: the signal comes between two looks at the batches
    dag_id, looks = f"killed_{uuid4().hex[:8]}", {"deferrable": False, "poke_interval": 3}

    def half_answered() -> bool:
        if "created.s0002.1.json" not in records(tmp_path):
            return False
        held.advance(HELD * 0.6)
        return True

    killer = Killer(
        lambda: any(name.startswith("deadline.") for name in records(tmp_path)) and half_answered(), "wait", "failed"
    )
    killer.start()
    run_dag(a_dag(dag_id, looks), logical_date=MOMENT)
    killer.join()
    first = batches(held)
    assert [batch.status for batch in first] == ["cancelled", "cancelled"]
    kept = sum(batch.request_counts.completed for batch in first)
    assert 0 < kept < ROWS

    held.stop()
    port = int(held.base_url.removesuffix("/v1").rpartition(":")[2])
    with LocalServer(tmp_path / "held", port=port) as quick:
        result = run_dag(a_dag(dag_id, looks), logical_date=MOMENT)
        again = [batch for batch in batches(quick) if batch.id not in {one.id for one in first}]

    assert result.state == "success"
    assert result.return_values["land"]["outcomes"] == {"succeeded": ROWS}
    assert sum(batch.request_counts.total for batch in again) == ROWS - kept
    assert query(warehouse, "SELECT count(*), count(DISTINCT custom_id) FROM answers") == [(ROWS, ROWS)]


def test_a_switch_that_may_not_cancel_never_looks_for_a_ledger() -> None:
    from airflow_provider_batch.worker.kill_switch import KillSwitch

    def find() -> Ledger | None:
        raise AssertionError("nobody may look")

    switch = KillSwitch(cancel=False)
    with switch.watching(None, find, SimpleNamespace()):
        switch.pull()
    assert switch.is_pulled


def test_a_state_that_cannot_be_read_is_unsure_and_nothing_is_cancelled() -> None:
    from airflow_provider_batch.worker.kill_switch import KillSwitch
    from airflow_provider_batch.worker.task_state import STOPPED_STATES, task_state

    said: list[str] = []
    log = SimpleNamespace(
        info=lambda event, *args: said.append(event % args), warning=lambda event, *args: said.append(event % args)
    )
    nobody = SimpleNamespace(dag_id="none", task_id="none", run_id="none", map_index=-1)
    assert task_state(nobody, log) == task_state(None, log) == "unknown"
    assert "unknown" not in STOPPED_STATES

    def find() -> Ledger | None:
        raise AssertionError("nobody may look")

    switch = KillSwitch()
    with switch.watching(nobody, find, log):
        switch.pull()
    assert (
        said[-1]
        == "The state of the task is unknown, so its batches keep running. The next attempt continues with them."
    )


def test_an_error_while_cancelling_is_told_and_raised_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.worker import kill_switch

    said: list[str] = []
    log = SimpleNamespace(info=print, warning=lambda event, *args: said.append(event % args))
    monkeypatch.setattr(kill_switch, "task_state", lambda ti, log: "failed")

    def find() -> Ledger | None:
        raise OSError("staging is away")

    switch = kill_switch.KillSwitch()
    with switch.watching(None, find, log):
        switch.pull()
    assert said[-1] == "Could not cancel the batches (OSError: staging is away). They may keep running."


def test_before_airflow_3_3_submit_says_once_that_only_running_tasks_cancel(
    warehouse: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(BaseTrigger, "on_kill", raising=False)

    run_job()

    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("cancel_on_kill covers running tasks only") == 1
