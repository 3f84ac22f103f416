"""A job on a whole Airflow, with a real scheduler, a real triggerer and a real API server.

One start for all tests. Batches at the local batch server go on only when a test lets them, so nothing here depends
on how long anything takes.
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
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai.types import Batch

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.core.ledger.state import JobState, Phase
from airflow_provider_batch.demo.home import Provider
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.staging.layout import job_folder
from tests.airflow.jobs import counts_of
from tests.airflow.standalone import Run, RunningAirflow, running_airflow, wait_until

pytestmark = pytest.mark.standalone

KEY = "sk-only-the-connection-holds-this"
ROWS = 12
#: in every row's text
WORDS = "The blue parrot ate my invoice"
#: on a local server, longer than any test
HELD = 86_400.0
#: seconds that a server hangs, at least
HANGS = 4.0
DAGS = Path(__file__).parent / "standalone_dags"
#: whether a trigger is told that a person ended its task
TOLD = tuple(map(int, version("apache-airflow-core").split(".")[:2])) >= (3, 3)
#: these restart Airflow's parts, and wait for its slow reactions: minutes, and more of them on a busy machine
SOAK = pytest.mark.skipif("BATCH_TEST_WAITS" not in os.environ, reason="takes minutes; run by make soak")
ON_KILL = pytest.mark.skipif(
    not TOLD,
    reason="Before Airflow 3.3 a trigger is not told that a person ended its task (there is no BaseTrigger.on_kill)",
)


class Batches:
    """The local batch server. Its batches stay in progress until `finish`."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._server = LocalServer(state, in_progress=HELD, api_key=KEY, admin=True).start()
        self.base_url = self._server.base_url
        self._client = openai.OpenAI(
            base_url=self.base_url, api_key=KEY, http_client=openai.DefaultHttpxClient(trust_env=False)
        )

    def of(self, run: Run, map_index: int = -1) -> list[Batch]:
        """Every batch that was ever created for the job of a run."""
        job_uid = run.xcom("submit", map_index)["job_uid"]
        return [batch for batch in self._client.batches.list() if (batch.metadata or {}).get("job_uid") == job_uid]

    def status(self, batch_id: str) -> str:
        """Status of one batch."""
        return self._client.batches.retrieve(batch_id).status

    def cancels(self) -> int:
        """How many cancels were asked for since the server was started last."""
        return self._server.calls().get(Call.CANCEL, 0)

    def answer_some(self) -> None:
        """Let every batch get on by more than half, and none end."""
        self._server.advance(HELD * 0.6)

    def stall(self, call: Call) -> None:
        """The second such call from now is carried out, but is not answered before the server ends."""
        self._server.set_faults(
            Fault(kind=Kind.STALL, calls=frozenset({call}), skip=1, times=1, seconds=HELD),
        )

    def restart(self) -> None:
        """End what stalls: its connection is cut."""
        self._server.stop()
        self._server.start()

    def finish(self) -> None:
        """Let every batch end."""
        self._serve(in_progress=0)
        ended = {"completed", "failed", "expired", "cancelled"}
        wait_until("every batch has ended", lambda: all(b.status in ended for b in self._client.batches.list()))
        self._serve(in_progress=HELD)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Meanwhile, and for some seconds, the server takes requests, and answers none."""
        until = time.monotonic() + HANGS
        kill(self._server.pid, signal.SIGSTOP)
        try:
            yield
            time.sleep(max(0.0, until - time.monotonic()))
        finally:
            kill(self._server.pid, signal.SIGCONT)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Meanwhile nobody listens at the server's address."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def close(self) -> None:
        """End the server."""
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
    with running_airflow(home, Provider(batches.base_url, KEY, local=True), DAGS) as started:
        with closing(sqlite3.connect(started.home.warehouse)) as warehouse, warehouse:
            warehouse.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, title TEXT)")
            warehouse.executemany(
                "INSERT INTO tickets VALUES (?, ?)", [(n, f"{WORDS} number {n}") for n in range(ROWS)]
            )
        started.await_dags("tickets", "again", "halves", "doomed", "mapped", "other")
        yield started


def deferred(airflow: RunningAirflow, dag_id: str) -> Run:
    """A run whose wait has been taken up by the triggerer."""
    run = airflow.trigger(dag_id)
    run.await_task("wait", "deferred")
    await_trigger(run)
    return run


def await_trigger(run: Run, map_index: int = -1, *, attempt: int = 1, rows: int = ROWS) -> None:
    def told() -> bool:
        return f"of {rows} requests done" in run.log("wait", map_index, attempt=attempt)

    wait_until("the trigger looks at the batch", told)


def landed(airflow: RunningAirflow, run: Run, table: str = "ticket_answers") -> list[tuple[str, str]]:
    with closing(sqlite3.connect(airflow.home.warehouse)) as warehouse:
        query = f"SELECT custom_id, outcome FROM {table} WHERE run_id = ?"
        return sorted(warehouse.execute(query, [run.run_id]))


def await_ledger(airflow: RunningAirflow, run: Run, what: Callable[[JobState], bool]) -> JobState:
    """The ledger of a run's job, once it says so."""
    folder = job_folder(airflow.home.staging.as_uri(), JobKey(run.dag_id, "submit", run.run_id, -1))

    def look() -> JobState | None:
        ledger = open_ledger(folder)
        state = ledger.state() if ledger is not None else None
        return state if state is not None and what(state) else None

    return wait_until("the ledger says so", look)


def _title(task: dict[str, Any]) -> str:
    """Of the process that runs a task; the one of its supervisor speaks of its executor."""
    return f"airflow worker -- {task['id']}"


def await_end_of(airflow: RunningAirflow, task: dict[str, Any]) -> None:
    wait_until("the process of the task ended", lambda: not airflow.processes(_title(task)))


ALL_SUCCEEDED = sorted((str(n), "succeeded") for n in range(ROWS))


def test_the_wait_is_deferred_and_holds_no_slot_while_the_batch_runs(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "tickets")
    wait = wait_until("a triggerer has it", lambda: w if (w := run.task("wait"))["triggerer_job"] else None)
    assert wait["trigger"]["classpath"] == "airflow_provider_batch.triggers.batch.BatchTrigger"
    assert wait["trigger"]["triggerer_id"] == wait["triggerer_job"]["id"]
    pool = airflow.get("/api/v2/pools/default_pool")
    assert (pool["slots"], pool["open_slots"], pool["occupied_slots"], pool["deferred_slots"]) == (1, 1, 0, 1)

    run.await_workers("wait")
    # A provider that does not answer holds up neither the one slot nor the triggerer's event loop.
    said = airflow.home.log.stat().st_size
    with batches.hanging():
        airflow.trigger("other").await_task("work", "success")
    assert run.task("wait")["state"] == "deferred"

    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of(run)] == ["completed"]
    log = run.log("wait")
    assert re.search(rf"Job \w{{8}}: 0 of {ROWS} requests done, 0 failed; 0 of 1 batches ended", log)
    assert re.search(rf"Job \w{{8}}: {ROWS} of {ROWS} requests done, 0 failed; 1 of 1 batches ended", log)
    # A blocked loop tells of it when it is free again.
    told = airflow.home.log.read_bytes()[said:].decode(errors="replace")
    blocked = re.findall(r"async thread was blocked for ([\d.]+) seconds", told)
    assert [seconds for seconds in blocked if float(seconds) > HANGS / 2] == []


def test_the_arguments_of_the_trigger_hold_ids_and_times_only(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "tickets")
    with closing(sqlite3.connect(airflow.home.airflow / "airflow.db")) as metadata:
        trigger_id = run.task("wait")["trigger"]["id"]
        (stored,) = metadata.execute("SELECT kwargs FROM trigger WHERE id = ?", [trigger_id]).fetchone()
    (batch,) = batches.of(run)
    assert KEY not in stored
    assert WORDS not in stored
    arguments = json.loads(stored)
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
    assert batch.id in stored


def test_the_submit_task_links_to_the_page_of_its_job(airflow: RunningAirflow) -> None:
    run = deferred(airflow, "tickets")
    link = run.links("submit")["LLM batch"]
    assert link is not None
    page = airflow.client.get(link)
    assert page.status_code == 200
    assert run.xcom("submit")["job_uid"] in page.text
    assert httpx.get(f"{airflow.client.base_url}{link}", trust_env=False).status_code == 401


def test_a_clear_of_the_wait_goes_on_with_the_same_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "tickets")
    # a scheduler that hears of a worker's end after the clear passes it over
    run.await_workers("wait")
    run.clear("wait")
    run.await_task("wait", "deferred", attempt=2)
    await_trigger(run, attempt=2)
    if TOLD:
        wait_until("the old trigger was told", lambda: airflow.said(run, "the batches go on"))
    assert [batch.status for batch in batches.of(run)] == ["in_progress"]
    run.await_workers("wait", ended=2)
    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of(run)] == ["completed"]


@ON_KILL
def test_marking_the_wait_as_failed_cancels_its_batch_even_if_the_provider_is_away_just_then(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = deferred(airflow, "tickets")
    with batches.away():
        run.mark("wait", "failed")
        wait_until("the trigger was told", lambda: airflow.said(run, "The state of the task is failed"))
        # Airflow gives a trigger about a second for this, whatever its configuration says.
        wait_until("Airflow is through with it", lambda: airflow.said(run, "trigger completed"))
    assert run.await_end() == "failed"
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of(run)] == ["cancelled"])


@ON_KILL
def test_marking_one_mapped_wait_as_failed_cancels_the_batch_of_that_one_only(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = airflow.trigger("mapped")
    for map_index in (0, 1):
        run.await_task("wait", "deferred", map_index)
        await_trigger(run, map_index, rows=ROWS // 2)
    run.mark("wait", "failed", 1)
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of(run, 1)] == ["cancelled"])
    assert [batch.status for batch in batches.of(run, 0)] == ["in_progress"]
    assert run.task("wait", 0)["state"] == "deferred"


@ON_KILL
def test_marking_the_wait_as_successful_lets_its_batch_go_on(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "tickets")
    run.mark("wait", "success")
    wait_until("the trigger was told", lambda: airflow.said(run, "the batches go on"))
    assert [batch.status for batch in batches.of(run)] == ["in_progress"]


def test_a_killed_triggerer_is_replaced_and_the_run_goes_on_with_the_same_batch(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = deferred(airflow, "tickets")
    before = run.task("wait")["triggerer_job"]["id"]
    airflow.kill("triggerer")
    airflow.start("triggerer")
    wait_until(
        "another triggerer has it", lambda: (run.task("wait")["triggerer_job"] or {}).get("id", before) != before
    )
    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of(run)] == ["completed"]


@SOAK
def test_a_wait_that_another_triggerer_takes_over_is_told_of_an_end_and_cancels_nothing(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = deferred(airflow, "tickets")
    before = run.task("wait")
    with airflow.another("triggerer"):
        with closing(sqlite3.connect(airflow.home.airflow / "airflow.db", timeout=60)) as metadata:
            others = "SELECT id FROM job WHERE job_type = 'TriggererJob' AND state = 'running' AND id > ?"
            ((other,),) = wait_until(
                "the other triggerer is there",
                lambda: metadata.execute(others, [before["triggerer_job"]["id"]]).fetchall(),
            )
            with metadata:
                move = "UPDATE trigger SET triggerer_id = ? WHERE id = ?"
                metadata.execute(move, [other, before["trigger"]["id"]])
        if TOLD:
            wait_until("the first trigger was told", lambda: airflow.said(run, "the batches go on"))
        # Each triggerer writes a file of its own.
        log = f"run_id={run.run_id}/task_id=wait/attempt=1.log.trigger.{other}.log"
        (folder,) = (airflow.home.airflow / "logs").glob(f"dag_id={run.dag_id}")
        wait_until(
            "the other triggerer looks at the batch",
            lambda: (path := folder / log).exists() and f"of {ROWS} requests done" in path.read_text("utf-8"),
        )
        assert run.task("wait")["trigger"]["triggerer_id"] == other
        assert batches.cancels() == 0
        assert [batch.status for batch in batches.of(run)] == ["in_progress"]
        batches.finish()
        assert run.await_end() == "success"
    assert landed(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of(run)] == ["completed"]


@SOAK
def test_clears_of_the_run_and_of_each_task_ask_nothing_again(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "again")
    run.await_workers("wait")
    run.clear()
    run.await_task("wait", "deferred", attempt=2)
    run.await_workers("wait", ended=2)
    assert [batch.status for batch in batches.of(run)] == ["in_progress"]
    batches.finish()
    assert run.await_end() == "success"

    table = landed(airflow, run, "again_answers")
    assert table == ALL_SUCCEEDED
    run.clear()
    run.await_task("land", "success", attempt=2)
    for task_id, attempt in (("submit", 4), ("wait", 4), ("land", 3)):
        run.clear(task_id)
        run.await_task(task_id, "success", attempt=attempt)
    assert [batch.status for batch in batches.of(run)] == ["completed"]
    assert landed(airflow, run, "again_answers") == table


@SOAK
@ON_KILL
def test_a_wait_marked_failed_half_way_keeps_what_was_answered_and_a_clear_asks_the_rest(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = deferred(airflow, "again")
    run.await_workers("wait")
    batches.answer_some()
    wait_until("some rows are answered", lambda: counts_of(batches.of(run)[0]).completed)
    run.mark("wait", "failed")
    wait_until("the batch is cancelled", lambda: [b.status for b in batches.of(run)] == ["cancelled"])
    (first,) = batches.of(run)
    kept = counts_of(first).completed
    assert 0 < kept < ROWS

    run.clear("wait", "land")
    wait_until("the rest is asked", lambda: len(batches.of(run)) == 2)
    (rest,) = (batch for batch in batches.of(run) if batch.id != first.id)
    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run, "again_answers") == ALL_SUCCEEDED
    assert counts_of(rest).total == ROWS - kept


@SOAK
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "clear"])
def test_a_submit_that_is_ended_while_it_uploads_goes_on_in_its_next_attempt_and_pays_nothing_twice(
    airflow: RunningAirflow, batches: Batches, how: str
) -> None:
    batches.stall(Call.UPLOAD)
    run = airflow.trigger("halves")
    await_ledger(airflow, run, lambda state: any(shard.phase is Phase.UPLOADED for shard in state.shards.values()))
    task = run.task("submit")
    if how == "clear":
        run.clear("submit")
    else:
        (process,) = airflow.processes(_title(task))
        process.send_signal(signal.Signals[how])
    if how == "SIGTERM":
        # the task goes on, so that its upload ends; it makes no paid call any more
        wait_until(
            "submit asked for its state",
            lambda: "The state of the task is running, so its batches keep running" in run.log("submit"),
        )
        batches.restart()
    await_end_of(airflow, task)
    if how != "SIGTERM":
        batches.restart()
    run.await_task("submit", "success", attempt=2)
    run.await_task("wait", "deferred")
    run.await_workers("wait")
    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run, "halves_answers") == ALL_SUCCEEDED
    assert [(b.status, counts_of(b).total) for b in batches.of(run)] == [("completed", ROWS // 2)] * 2


@SOAK
def test_marking_a_submit_as_failed_while_it_creates_cancels_what_it_created(
    airflow: RunningAirflow, batches: Batches
) -> None:
    batches.stall(Call.CREATE)
    run = airflow.trigger("halves")
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
def test_a_killed_scheduler_is_replaced_and_the_run_goes_on_with_the_same_batch(
    airflow: RunningAirflow, batches: Batches
) -> None:
    run = deferred(airflow, "tickets")
    run.await_workers("wait")
    airflow.kill("scheduler")
    airflow.start("scheduler")
    batches.finish()
    assert run.await_end() == "success"
    assert landed(airflow, run) == ALL_SUCCEEDED
    assert [batch.status for batch in batches.of(run)] == ["completed"]


@ON_KILL
def test_deleting_the_dag_with_its_runs_cancels_the_batch(airflow: RunningAirflow, batches: Batches) -> None:
    run = deferred(airflow, "doomed")
    (batch,) = batches.of(run)
    # A scheduler that is just looking at a run that is deleted may crash (seen with Airflow 3.3.2 on SQLite).
    airflow.kill("scheduler")
    airflow.delete_dag("doomed")
    wait_until("the batch is cancelled", lambda: batches.status(batch.id) == "cancelled")


def test_neither_the_key_nor_a_rows_text_lies_anywhere_in_airflow(airflow: RunningAirflow) -> None:
    files = [airflow.home.log, *(path for path in airflow.home.airflow.rglob("*") if path.is_file())]
    assert any(path.name == "airflow.db" for path in files)
    for path in files:
        held = path.read_bytes()
        assert KEY.encode() not in held, path
        assert WORDS.encode() not in held, path


def test_the_key_does_not_lie_in_staging(airflow: RunningAirflow) -> None:
    files = [path for path in airflow.home.staging.rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert KEY.encode() not in path.read_bytes(), path
