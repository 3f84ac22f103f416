"""Run jobs on a complete Airflow with its scheduler, triggerer and API server.

Airflow is started once for all tests. Batches at the local batch server progress only when a test lets them, so no test
depends on how long anything takes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.metadata import version
from os import kill
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.demo.home import Provider
from airflow_provider_batch.links.batch import PAGE, job_page, plugin_url
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.staging.layout import job_folder
from tests.airflow.jobs import counts_of
from tests.airflow.standalone import Run, RunningAirflow, running_airflow, wait_until

if TYPE_CHECKING:
    from openai.types import Batch

pytestmark = pytest.mark.standalone

KEY = "sk-only-the-connection-holds-this"
ROWS = 12
#: Part of the text of every row.
ROW_TEXT = "The blue parrot ate my invoice"
#: How long a batch is in progress unless a test advances it, in seconds: longer than any test.
BATCH_SECONDS = 86_400.0
#: How long a hanging server does not respond, in seconds, at least.
HANG_SECONDS = 4.0
DAGS = Path(__file__).parent / "standalone_dags"
#: Whether Airflow calls `BaseTrigger.on_kill` when a person ends the task of a trigger.
HAS_ON_KILL = tuple(map(int, version("apache-airflow-core").split(".")[:2])) >= (3, 3)
#: Tests that restart parts of Airflow and wait until Airflow reacts. This takes minutes, and longer on a busy machine.
SOAK = pytest.mark.skipif("BATCH_TEST_WAITS" not in os.environ, reason="takes minutes; `make soak` runs it")
ON_KILL = pytest.mark.skipif(
    not HAS_ON_KILL,
    reason="Before Airflow 3.3, which added BaseTrigger.on_kill, a trigger does not learn that a person ended its task",
)


class Batches:
    """A local batch server whose batches stay in progress until a test calls `finish`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._server = LocalServer(state, in_progress=BATCH_SECONDS, api_key=KEY, admin=True).start()
        self.base_url = self._server.base_url
        self._client = openai.OpenAI(
            base_url=self.base_url, api_key=KEY, http_client=openai.DefaultHttpxClient(trust_env=False)
        )

    def of_run(self, run: Run, map_index: int = -1) -> list[Batch]:
        """Return every batch that was created for the job of a run."""
        job_uid = run.xcom("submit", map_index)["job_uid"]
        return [batch for batch in self._client.batches.list() if (batch.metadata or {}).get("job_uid") == job_uid]

    def status(self, batch_id: str) -> str:
        """Return the status of a batch."""
        return self._client.batches.retrieve(batch_id).status

    def count_cancels(self) -> int:
        """Return the number of cancel calls since the last start of the server."""
        return self._server.calls().get(Call.CANCEL, 0)

    def answer_some(self) -> None:
        """Advance every batch by more than half, so that none ends."""
        self._server.advance(BATCH_SECONDS * 0.6)

    def stall(self, call: Call) -> None:
        """Carry out the second of these calls from now on, but do not answer it until the server stops."""
        self._server.set_faults(
            Fault(kind=Kind.STALL, calls=frozenset({call}), skip=1, times=1, seconds=BATCH_SECONDS),
        )

    def restart(self) -> None:
        """Stop and start the server, which closes the connection of a stalled call."""
        self._server.stop()
        self._server.start()

    def finish(self) -> None:
        """Let every batch end."""
        self._serve(in_progress=0)
        end_statuses = {"completed", "failed", "expired", "cancelled"}
        wait_until("every batch has ended", lambda: all(b.status in end_statuses for b in self._client.batches.list()))
        self._serve(in_progress=BATCH_SECONDS)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """While the block runs, and for at least `HANG_SECONDS`, let the server accept requests and answer none."""
        hangs_until = time.monotonic() + HANG_SECONDS
        kill(self._server.pid, signal.SIGSTOP)
        try:
            yield
            time.sleep(max(0.0, hangs_until - time.monotonic()))
        finally:
            kill(self._server.pid, signal.SIGCONT)

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Stop the server while the block runs."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def close(self) -> None:
        """Stop the server."""
        self._client.close()
        self._server.stop()

    def _serve(self, *, in_progress: float) -> None:
        self._server.stop()
        port = urlsplit(self.base_url).port
        assert port is not None
        self._server = LocalServer(self._state, port=port, in_progress=in_progress, api_key=KEY, admin=True).start()


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batches]:
    with closing(Batches(tmp_path_factory.mktemp("batches"))) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, batches: Batches) -> Iterator[RunningAirflow]:
    home = tmp_path_factory.mktemp("standalone")
    with running_airflow(home, Provider(batches.base_url, KEY, local=True), DAGS) as airflow:
        with closing(sqlite3.connect(airflow.home.warehouse)) as warehouse, warehouse:
            warehouse.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, title TEXT)")
            warehouse.executemany(
                "INSERT INTO tickets VALUES (?, ?)", [(n, f"{ROW_TEXT} number {n}") for n in range(ROWS)]
            )
        airflow.await_dags("tickets", "rerun", "two_shards", "to_be_deleted", "mapped", "other")
        yield airflow


def start_waiting_run(airflow: RunningAirflow, dag_id: str) -> Run:
    """Trigger a DAG and wait until the trigger of its wait polls the batch."""
    run = airflow.trigger(dag_id)
    run.await_task("wait", "deferred")
    await_trigger(run)
    return run


def await_trigger(run: Run, map_index: int = -1, *, attempt: int = 1, rows: int = ROWS) -> None:
    def has_polled() -> bool:
        return f"of {rows} requests done" in run.log("wait", map_index, attempt=attempt)

    wait_until("the trigger polls the batch", has_polled)


def landed_rows(airflow: RunningAirflow, run: Run, table: str = "ticket_answers") -> list[tuple[str, str]]:
    with closing(sqlite3.connect(airflow.home.warehouse)) as warehouse:
        query = f"SELECT custom_id, outcome FROM {table} WHERE run_id = ?"
        return sorted(warehouse.execute(query, [run.run_id]))


def await_ledger(airflow: RunningAirflow, run: Run, condition: Callable[[JobState], bool]) -> JobState:
    """Wait until the state of a run's job meets a condition, and return the state."""
    folder = job_folder(airflow.home.staging.as_uri(), JobKey(run.dag_id, "submit", run.run_id, -1))

    def find_state() -> JobState | None:
        ledger = open_ledger(folder)
        state = ledger.state() if ledger is not None else None
        return state if state is not None and condition(state) else None

    return wait_until("the job reaches the state", find_state)


def _title(task: dict[str, Any]) -> str:
    """Return the title of the process that runs a task. The title of its supervisor names the executor instead."""
    return f"airflow worker -- {task['id']}"


def await_end_of(airflow: RunningAirflow, task: dict[str, Any]) -> None:
    wait_until("the process of the task has ended", lambda: not airflow.processes(_title(task)))


ALL_SUCCEEDED = sorted((str(n), "succeeded") for n in range(ROWS))


def test_the_wait_is_deferred_and_holds_no_slot_while_the_batch_runs(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "tickets")
    wait = wait_until("a triggerer runs the trigger", lambda: w if (w := run.task("wait"))["triggerer_job"] else None)
    assert wait["trigger"]["classpath"] == "airflow_provider_batch.triggers.batch.BatchTrigger"
    assert wait["trigger"]["triggerer_id"] == wait["triggerer_job"]["id"]
    pool = airflow.get("/api/v2/pools/default_pool")
    assert (pool["slots"], pool["open_slots"], pool["occupied_slots"], pool["deferred_slots"]) == (1, 1, 0, 1)

    run.await_worker_end("wait")
    # A provider that does not answer blocks neither the only slot nor the event loop of the triggerer.
    log_size = airflow.home.log.stat().st_size
    with batches.hanging():
        airflow.trigger("other").await_task("work", "success")
    assert run.task("wait")["state"] == "deferred"

    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]
    log = run.log("wait")
    assert re.search(rf"Job \w{{8}}: 0 of {ROWS} requests done, 0 failed; 0 of 1 batches ended", log)
    assert re.search(rf"Job \w{{8}}: {ROWS} of {ROWS} requests done, 0 failed; 1 of 1 batches ended", log)
    # A blocked event loop logs this as soon as it runs again.
    new_log = airflow.home.log.read_bytes()[log_size:].decode(errors="replace")
    blocked_seconds = re.findall(r"async thread was blocked for ([\d.]+) seconds", new_log)
    assert [seconds for seconds in blocked_seconds if float(seconds) > HANG_SECONDS / 2] == []


def test_the_arguments_of_the_trigger_contain_only_ids_and_times(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "tickets")
    with closing(sqlite3.connect(airflow.home.airflow / "airflow.db")) as metadata:
        trigger_id = run.task("wait")["trigger"]["id"]
        (kwargs,) = metadata.execute("SELECT kwargs FROM trigger WHERE id = ?", [trigger_id]).fetchone()
    (batch,) = batches.of_run(run)
    assert KEY not in kwargs
    assert ROW_TEXT not in kwargs
    arguments = json.loads(kwargs)
    assert set(arguments) <= {"__var", "__type"} | {
        "openai_conn_id",
        "job_uid",
        "batch_ids",
        "deadline",
        "wake_at",
        "any_end",
        "poll_interval",
        "cancel_on_kill",
    }
    assert batch.id in kwargs


def test_the_submit_task_links_to_the_page_of_its_job(airflow: RunningAirflow) -> None:
    run = start_waiting_run(airflow, "tickets")
    link = run.links("submit")["LLM batch"]
    assert link == job_page(run.dag_id, run.run_id, "submit")
    # what the page reads
    address = link.replace(PAGE, plugin_url("/api/job"))
    job = airflow.client.get(address).raise_for_status().json()["job"]
    assert job["job_uid"] == run.xcom("submit")["job_uid"]
    assert httpx.get(f"{airflow.client.base_url}{address}", trust_env=False).status_code == 401


def test_a_cleared_wait_continues_with_the_same_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "tickets")
    # The scheduler ignores the end of a worker that it processes after the clear.
    run.await_worker_end("wait")
    run.clear("wait")
    run.await_task("wait", "deferred", attempt=2)
    await_trigger(run, attempt=2)
    if HAS_ON_KILL:
        wait_until("the old trigger was killed", lambda: airflow.wait_log_contains(run, "its batches keep running"))
    assert [batch.status for batch in batches.of_run(run)] == ["in_progress"]
    run.await_worker_end("wait", count=2)
    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]


@ON_KILL
def test_marking_the_wait_as_failed_cancels_its_batch_even_if_the_provider_is_unreachable_at_first(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = start_waiting_run(airflow, "tickets")
    with batches.unreachable():
        run.mark("wait", "failed")
        wait_until("the trigger was killed", lambda: airflow.wait_log_contains(run, "The state of the task is failed"))
        # Airflow gives a killed trigger about a second, regardless of its configuration.
        wait_until("Airflow has ended the trigger", lambda: airflow.wait_log_contains(run, "trigger completed"))
    assert run.await_end() == "failed"
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of_run(run)] == ["cancelled"])


@ON_KILL
def test_marking_a_mapped_wait_as_failed_cancels_only_its_own_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = airflow.trigger("mapped")
    for map_index in (0, 1):
        run.await_task("wait", "deferred", map_index)
        await_trigger(run, map_index, rows=ROWS // 2)
    run.mark("wait", "failed", 1)
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of_run(run, 1)] == ["cancelled"])
    assert [batch.status for batch in batches.of_run(run, 0)] == ["in_progress"]
    assert run.task("wait", 0)["state"] == "deferred"


@ON_KILL
def test_marking_the_wait_as_success_does_not_cancel_its_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "tickets")
    run.mark("wait", "success")
    wait_until("the trigger was killed", lambda: airflow.wait_log_contains(run, "its batches keep running"))
    assert [batch.status for batch in batches.of_run(run)] == ["in_progress"]


def test_after_a_triggerer_is_killed_another_continues_with_the_same_batch(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = start_waiting_run(airflow, "tickets")
    killed_id = run.task("wait")["triggerer_job"]["id"]
    airflow.kill("triggerer")
    airflow.start("triggerer")
    wait_until(
        "another triggerer runs the trigger",
        lambda: (run.task("wait")["triggerer_job"] or {}).get("id", killed_id) != killed_id,
    )
    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]


@SOAK
def test_a_trigger_that_another_triggerer_takes_over_is_killed_and_cancels_nothing(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = start_waiting_run(airflow, "tickets")
    first_task = run.task("wait")
    with airflow.second_process("triggerer"):
        with closing(sqlite3.connect(airflow.home.airflow / "airflow.db", timeout=60)) as metadata:
            select_newer = "SELECT id FROM job WHERE job_type = 'TriggererJob' AND state = 'running' AND id > ?"
            ((other_id,),) = wait_until(
                "the second triggerer runs",
                lambda: metadata.execute(select_newer, [first_task["triggerer_job"]["id"]]).fetchall(),
            )
            with metadata:
                move = "UPDATE trigger SET triggerer_id = ? WHERE id = ?"
                metadata.execute(move, [other_id, first_task["trigger"]["id"]])
        if HAS_ON_KILL:
            wait_until(
                "the first trigger was killed", lambda: airflow.wait_log_contains(run, "its batches keep running")
            )
        # Each triggerer writes its own log file.
        log = f"run_id={run.run_id}/task_id=wait/attempt=1.log.trigger.{other_id}.log"
        (folder,) = (airflow.home.airflow / "logs").glob(f"dag_id={run.dag_id}")
        wait_until(
            "the second triggerer polls the batch",
            lambda: (path := folder / log).exists() and f"of {ROWS} requests done" in path.read_text("utf-8"),
        )
        assert run.task("wait")["trigger"]["triggerer_id"] == other_id
        assert batches.count_cancels() == 0
        assert [batch.status for batch in batches.of_run(run)] == ["in_progress"]
        batches.finish()
        assert run.await_end() == "success"
    assert landed_rows(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]


@SOAK
def test_clearing_the_run_or_each_of_its_tasks_sends_nothing_again(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "rerun")
    run.await_worker_end("wait")
    run.clear()
    run.await_task("wait", "deferred", attempt=2)
    run.await_worker_end("wait", count=2)
    assert [batch.status for batch in batches.of_run(run)] == ["in_progress"]
    batches.finish()
    assert run.await_end() == "success"

    table = landed_rows(airflow, run, "rerun_answers")
    assert table == ALL_SUCCEEDED
    run.clear()
    run.await_task("land", "success", attempt=2)
    for task_id, attempt in (("submit", 4), ("wait", 4), ("land", 3)):
        run.clear(task_id)
        run.await_task(task_id, "success", attempt=attempt)
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]
    assert landed_rows(airflow, run, "rerun_answers") == table


@SOAK
@ON_KILL
def test_a_wait_marked_as_failed_halfway_keeps_its_answers_and_a_clear_sends_only_the_other_rows(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = start_waiting_run(airflow, "rerun")
    run.await_worker_end("wait")
    batches.answer_some()
    wait_until("some rows are answered", lambda: counts_of(batches.of_run(run)[0]).completed)
    run.mark("wait", "failed")
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of_run(run)] == ["cancelled"])
    (first_batch,) = batches.of_run(run)
    answer_count = counts_of(first_batch).completed
    assert 0 < answer_count < ROWS

    run.clear("wait", "land")
    wait_until("the other rows are sent", lambda: len(batches.of_run(run)) == 2)
    (second_batch,) = (batch for batch in batches.of_run(run) if batch.id != first_batch.id)
    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run, "rerun_answers") == ALL_SUCCEEDED
    assert counts_of(second_batch).total == ROWS - answer_count


@SOAK
@pytest.mark.parametrize("cause", ["SIGTERM", "SIGKILL", "clear"])
def test_after_submit_was_ended_during_an_upload_its_next_attempt_continues_and_pays_for_nothing_twice(
    airflow: RunningAirflow, batches: Batches, cause: str
) -> None:
    batches.stall(Call.UPLOAD)
    run = airflow.trigger("two_shards")
    await_ledger(airflow, run, lambda state: any(shard.phase is Phase.UPLOADED for shard in state.shards.values()))
    task = run.task("submit")
    if cause == "clear":
        run.clear("submit")
    else:
        (process,) = airflow.processes(_title(task))
        process.send_signal(signal.Signals[cause])
    if cause == "SIGTERM":
        # The task continues, so that its upload can end, but it makes no further paid call.
        wait_until(
            "submit has read the state of its task",
            lambda: "The state of the task is running, so its batches keep running" in run.log("submit"),
        )
        batches.restart()
    await_end_of(airflow, task)
    if cause != "SIGTERM":
        batches.restart()
    run.await_task("submit", "success", attempt=2)
    run.await_task("wait", "deferred")
    run.await_worker_end("wait")
    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run, "two_shards_answers") == ALL_SUCCEEDED
    assert [(b.status, counts_of(b).total) for b in batches.of_run(run)] == [("completed", ROWS // 2)] * 2


@SOAK
def test_marking_submit_as_failed_during_a_create_cancels_the_batches_that_it_created(
    airflow: RunningAirflow, batches: Batches
) -> None:
    batches.stall(Call.CREATE)
    run = airflow.trigger("two_shards")
    state = await_ledger(airflow, run, lambda state: state.shards["s0002"].phase is Phase.CREATING)
    ((_, submission),) = state.live_submissions()
    task = run.task("submit")
    run.mark("submit", "failed")
    wait_until("the batch is cancelled", lambda: batches.status(submission.batch_id) == "cancelled")
    await_end_of(airflow, task)
    assert "The state of the task is failed, so its batches are cancelled" in run.log("submit")
    state = await_ledger(airflow, run, lambda state: True)
    assert [shard.latest.cancel.reason for shard in state.shards.values() if shard.latest and shard.latest.cancel] == [
        "killed"
    ]
    batches.restart()


@SOAK
def test_after_the_scheduler_is_killed_another_continues_with_the_same_batch(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = start_waiting_run(airflow, "tickets")
    run.await_worker_end("wait")
    airflow.kill("scheduler")
    airflow.start("scheduler")
    batches.finish()
    assert run.await_end() == "success"
    assert landed_rows(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of_run(run)] == ["completed"]


@ON_KILL
def test_deleting_the_dag_with_its_runs_cancels_the_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = start_waiting_run(airflow, "to_be_deleted")
    (batch,) = batches.of_run(run)
    # A scheduler that processes a run while it is deleted may crash (seen with Airflow 3.3.2 on SQLite).
    airflow.kill("scheduler")
    airflow.delete_dag("to_be_deleted")
    wait_until("the batch is cancelled", lambda: batches.status(batch.id) == "cancelled")


def test_no_file_of_airflow_contains_the_key_or_the_text_of_a_row(airflow: RunningAirflow) -> None:
    files = [airflow.home.log, *(path for path in airflow.home.airflow.rglob("*") if path.is_file())]
    assert any(path.name == "airflow.db" for path in files)
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert ROW_TEXT.encode() not in content, path


def test_no_file_in_staging_contains_the_key(airflow: RunningAirflow) -> None:
    files = [path for path in airflow.home.staging.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
