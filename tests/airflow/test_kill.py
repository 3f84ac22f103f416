"""SIGTERM to a running task, as Airflow sends it: the state of the task decides what happens to its batches."""

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
#: seconds for which a batch is in progress on the local server; only `advance` lets them pass
IN_PROGRESS_SECONDS = 7200.0
#: seconds that the response to a creation takes, so that the signal arrives during the call
RESPONSE_SECONDS = 3.0
LOGICAL_DATE = pendulum.datetime(2026, 11, 20)


@pytest.fixture
def paused_server(serve: Callable[..., LocalServer]) -> LocalServer:
    """Start a server on which batches stay in progress. The connection `openai_default` points to it."""
    return serve("held", in_progress=IN_PROGRESS_SECONDS)


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(ROWS)]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Airflow replaces in the process that runs a task."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Killer(Thread):
    """Once `ready` returns True, sets the state of a task as a person would, and sends SIGTERM as Airflow would."""

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


def make_dag(dag_id: str, wait: dict[str, Any] | None = None) -> Any:
    """Return a DAG with two input files of four rows each. Without arguments for the wait, it only submits."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG(dag_id, schedule=None) as dag:
        submit = BatchSubmitOperator(**submit_arguments(limits={"requests": ROWS // 2}))
        if wait:
            wait_task = BatchSensor(task_id="wait", job=submit.output, **wait)
            submit >> wait_task >> BatchResultsOperator(task_id="land", job=submit.output, table="answers")
    return dag


def kill_submit(server: LocalServer, tmp_path: Path, state: str) -> None:
    """Send SIGTERM while the second of two batches is created: it exists, but the response is still on its way."""
    server.set_faults(Fault(kind=Kind.STALL, calls=frozenset({Call.CREATE}), skip=1, times=1, seconds=RESPONSE_SECONDS))

    def second_batch_exists() -> bool:
        return "intent.s0002.1.json" in records(tmp_path) and len(batches(server)) == 2

    killer = Killer(second_batch_exists, "submit", state)
    killer.start()
    run_dag(make_dag(f"killed_{uuid4().hex[:8]}"), logical_date=LOGICAL_DATE)
    killer.join()


@pytest.mark.parametrize("state", ["failed", "removed"])
def test_submit_cancels_every_batch_including_the_one_being_created_if_a_person_stopped_it(
    warehouse: Path, paused_server: LocalServer, tmp_path: Path, state: str
) -> None:
    kill_submit(paused_server, tmp_path, state)

    assert [batch.status for batch in batches(paused_server)] == ["cancelled", "cancelled"]
    assert {"cancel_requested.s0001.1.json", "cancel_requested.s0002.1.json"} < set(records(tmp_path))
    assert '"reason":"killed"' in next(tmp_path.glob("staging/**/cancel_requested.s0001.1.json")).read_text()


@pytest.mark.parametrize("state", ["running", "restarting"])
def test_submit_cancels_nothing_if_its_worker_is_drained_or_the_task_is_cleared(
    warehouse: Path, paused_server: LocalServer, tmp_path: Path, state: str
) -> None:
    kill_submit(paused_server, tmp_path, state)

    assert [batch.status for batch in batches(paused_server)] == ["in_progress", "in_progress"]
    assert {"created.s0001.1.json", "created.s0002.1.json"} < set(records(tmp_path))
    assert not [name for name in records(tmp_path) if name.startswith("cancel")]


def test_running_a_cancelled_job_again_keeps_its_answers_and_sends_the_remaining_rows(
    warehouse: Path, paused_server: LocalServer, tmp_path: Path
) -> None:
    # `dag.test()` cannot serve requests from two threads at the same time, so the signal is sent between two pokes.
    dag_id, wait = f"killed_{uuid4().hex[:8]}", {"deferrable": False, "poke_interval": 3}

    def half_answered() -> bool:
        if "created.s0002.1.json" not in records(tmp_path):
            return False
        paused_server.advance(IN_PROGRESS_SECONDS * 0.6)
        return True

    killer = Killer(
        lambda: any(name.startswith("deadline.") for name in records(tmp_path)) and half_answered(), "wait", "failed"
    )
    killer.start()
    run_dag(make_dag(dag_id, wait), logical_date=LOGICAL_DATE)
    killer.join()
    first = batches(paused_server)
    assert [batch.status for batch in first] == ["cancelled", "cancelled"]
    kept = sum(batch.request_counts.completed for batch in first)
    assert 0 < kept < ROWS

    paused_server.stop()
    port = int(paused_server.base_url.removesuffix("/v1").rpartition(":")[2])
    with LocalServer(tmp_path / "held", port=port) as fast_server:
        result = run_dag(make_dag(dag_id, wait), logical_date=LOGICAL_DATE)
        new_batches = [batch for batch in batches(fast_server) if batch.id not in {old.id for old in first}]

    assert result.state == "success"
    assert result.return_values["land"]["outcomes"] == {"succeeded": ROWS}
    assert sum(batch.request_counts.total for batch in new_batches) == ROWS - kept
    assert query(warehouse, "SELECT count(*), count(DISTINCT custom_id) FROM answers") == [(ROWS, ROWS)]


def test_a_kill_switch_that_may_not_cancel_does_not_open_the_ledger() -> None:
    from airflow_provider_batch.worker.kill_switch import KillSwitch

    def find() -> Ledger | None:
        raise AssertionError("The ledger must not be opened.")

    switch = KillSwitch(cancel=False)
    with switch.watching(None, find, SimpleNamespace()):
        switch.pull()
    assert switch.is_pulled


def test_nothing_is_cancelled_if_the_state_of_the_task_cannot_be_read() -> None:
    from airflow_provider_batch.worker.kill_switch import KillSwitch
    from airflow_provider_batch.worker.task_state import STOPPED_STATES, task_state

    messages: list[str] = []
    log = SimpleNamespace(
        info=lambda event, *args: messages.append(event % args),
        warning=lambda event, *args: messages.append(event % args),
    )
    unknown_task = SimpleNamespace(dag_id="none", task_id="none", run_id="none", map_index=-1)
    assert task_state(unknown_task, log) == task_state(None, log) == "unknown"
    assert "unknown" not in STOPPED_STATES

    def find() -> Ledger | None:
        raise AssertionError("The ledger must not be opened.")

    switch = KillSwitch()
    with switch.watching(unknown_task, find, log):
        switch.pull()
    assert (
        messages[-1]
        == "The state of the task is unknown, so its batches keep running. The next attempt continues with them."
    )


def test_an_error_while_cancelling_is_logged_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.worker import kill_switch

    messages: list[str] = []
    log = SimpleNamespace(info=print, warning=lambda event, *args: messages.append(event % args))
    monkeypatch.setattr(kill_switch, "task_state", lambda ti, log: "failed")

    def find() -> Ledger | None:
        raise OSError("staging is away")

    switch = kill_switch.KillSwitch()
    with switch.watching(None, find, log):
        switch.pull()
    assert messages[-1] == "Could not cancel the batches (OSError: staging is away). They may keep running."


def test_before_airflow_3_3_submit_logs_once_that_only_running_tasks_cancel_their_batches(
    warehouse: Path, offline: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(BaseTrigger, "on_kill", raising=False)

    run_job()

    captured = capfd.readouterr()
    assert (captured.out + captured.err).count("cancel_on_kill covers running tasks only") == 1
