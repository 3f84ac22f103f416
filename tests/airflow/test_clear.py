"""Clearing submit: unchanged rows keep their batch and answer, the others are sent, and `resubmit` sends all rows."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, counts_of, query, run_in_background

ANSWERS = "SELECT custom_id, output, batch_id, cost_usd, attempt, job_uid, outcome FROM answers"


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", f"text {n}", "bug") for n in range(1, 6)]


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def batch_sizes(server: LocalServer) -> list[int]:
    """Return the number of requests in each batch at the provider, oldest first."""
    client = client_of(server)
    return [counts_of(batch).total for batch in client.batches.list(limit=100)][::-1]


def statuses(server: LocalServer) -> Sequence[str]:
    client = client_of(server)
    return [batch.status for batch in client.batches.list(limit=100)][::-1]


def answers(path: Path) -> dict[str, tuple[Any, ...]]:
    return {row[0]: row[1:] for row in query(path, ANSWERS)}


def test_a_clear_sends_nothing_if_nothing_changed(
    warehouse: Path, server: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    first = job.run(limits={"requests": 2})
    before = answers(warehouse)
    second = job.clear(limits={"requests": 2})

    assert second.state == "success"
    assert batch_sizes(server) == [2, 2, 1]
    assert "5 rows are unchanged; there is nothing new to send" in capfd.readouterr().out
    assert second.return_values["submit"] == first.return_values["submit"]
    assert answers(warehouse) == before


def test_changed_and_new_rows_are_sent_and_missing_rows_are_not_landed(
    warehouse: Path, server: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    first = job.run(limits={"requests": 3}, carry=["label"])
    before = answers(warehouse)
    change(
        warehouse,
        "UPDATE tickets SET body = 'another text' WHERE id = 'T-2'",
        "DELETE FROM tickets WHERE id = 'T-4'",
        "INSERT INTO tickets VALUES ('T-0', 'New', 'text', 'new')",
        "UPDATE tickets SET label = 'corrected' WHERE id = 'T-1'",
        "DELETE FROM answers",
    )
    second = job.clear(limits={"requests": 3}, carry=["label"])

    assert second.state == "success"
    assert batch_sizes(server) == [3, 2, 2]
    assert (
        "3 rows are unchanged and keep their batch and answer. 2 rows are new, changed or not sent yet, and will be "
        "sent." in capfd.readouterr().out
    )
    after = answers(warehouse)
    assert sorted(after) == ["T-0", "T-1", "T-2", "T-3", "T-5"]
    assert {row: after[row] for row in ("T-1", "T-3", "T-5")} == {row: before[row] for row in ("T-1", "T-3", "T-5")}
    assert len({after["T-0"][1], after["T-2"][1], before["T-2"][1]}) == 2
    assert query(warehouse, "SELECT label FROM answers WHERE custom_id = 'T-1'") == [("corrected",)]
    summary, reference = second.return_values["land"], second.return_values["submit"]
    assert summary["outcomes"] == {"succeeded": 5}
    assert (summary["requests"], summary["sent"]) == (5, 5)
    assert reference["job_uid"] == first.return_values["submit"]["job_uid"]


def test_a_new_prompt_sends_every_row_and_the_old_prompt_gets_its_old_answers_back(
    warehouse: Path, server: LocalServer
) -> None:
    job = ClearedJob()
    job.run()
    before = answers(warehouse)
    job.clear(prompt="Shorter: {{ row.body }}")
    assert batch_sizes(server) == [5, 5]
    with_new_prompt = answers(warehouse)
    assert {row[1] for row in with_new_prompt.values()}.isdisjoint({row[1] for row in before.values()})

    job.clear()
    assert batch_sizes(server) == [5, 5]
    assert answers(warehouse) == before


def test_rows_that_were_retried_keep_their_answer(warehouse: Path, server: LocalServer) -> None:
    fails_once = f"[[fail:500:once]] {uuid4()}"
    change(warehouse, f"UPDATE tickets SET body = '{fails_once}' WHERE id = 'T-3'")
    job = ClearedJob()
    job.run(carry=["label"])
    before = answers(warehouse)
    assert before["T-3"][3] == 2
    change(warehouse, "UPDATE tickets SET label = 'corrected'", "UPDATE tickets SET body = 'new' WHERE id = 'T-1'")
    second = job.clear(carry=["label"])

    assert batch_sizes(server) == [5, 1, 1]
    after = answers(warehouse)
    assert {row for row in after if after[row] != before[row]} == {"T-1"}
    assert query(warehouse, "SELECT DISTINCT label FROM answers") == [("corrected",)]
    assert second.return_values["land"]["outcomes"] == {"succeeded": 5}


def test_a_duplicate_keeps_its_answer_when_the_row_that_was_sent_is_gone(warehouse: Path, server: LocalServer) -> None:
    change(warehouse, "UPDATE tickets SET title = 'Same', body = 'text' WHERE id IN ('T-1', 'T-2', 'T-3')")
    job = ClearedJob()
    job.run()
    assert batch_sizes(server) == [3]
    before = answers(warehouse)
    change(warehouse, "DELETE FROM tickets WHERE id = 'T-1'", "DELETE FROM answers")
    second = job.clear()

    assert batch_sizes(server) == [3]
    after = answers(warehouse)
    assert sorted(after) == ["T-2", "T-3", "T-4", "T-5"]
    assert all(after[row][:2] == before[row][:2] for row in after)
    assert second.return_values["land"]["outcomes"] == {"succeeded": 4}


def test_samples_of_one_prompt_each_keep_their_own_answer(warehouse: Path, server: LocalServer) -> None:
    change(warehouse, "UPDATE tickets SET title = 'Same', body = 'text'")
    job = ClearedJob()
    job.run(deduplicate=False)
    change(warehouse, "INSERT INTO tickets VALUES ('T-6', 'Same', 'text', 'new')")
    before = answers(warehouse)
    second = job.clear(deduplicate=False)

    assert batch_sizes(server) == [5, 1]
    assert {row: answer for row, answer in answers(warehouse).items() if row != "T-6"} == before
    assert second.return_values["land"]["outcomes"] == {"succeeded": 6}


def test_a_retry_continues_from_the_sealed_rows_even_if_the_warehouse_changed(
    warehouse: Path, server: LocalServer
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=400))
    job = ClearedJob()
    assert job.run().states["submit"] == "failed"
    change(warehouse, "UPDATE tickets SET body = 'changed'")
    server.set_faults()
    assert job.retry().state == "success"
    assert batch_sizes(server) == [5]

    change(warehouse, "UPDATE tickets SET body = 'text 1' WHERE id = 'T-1'")
    assert job.clear().state == "success"
    # T-1 has its sealed text again. The other four rows are still changed, so they are sent.
    assert batch_sizes(server) == [5, 4]


def test_a_clear_of_a_submit_that_failed_sends_the_new_request(warehouse: Path, server: LocalServer) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=400, message="Unknown parameter"))
    job = ClearedJob()
    assert job.run().states["submit"] == "failed"
    server.set_faults()
    second = job.clear(body={"temperature": 1})

    assert second.state == "success"
    assert batch_sizes(server) == [5]
    assert second.return_values["land"]["outcomes"] == {"succeeded": 5}


def test_a_batch_is_cancelled_when_none_of_its_rows_is_needed_any_more(
    warehouse: Path, slow_server: LocalServer, wait_until: Callable[..., None]
) -> None:
    """Of three shards, one is unchanged, one loses a row, and one has only changed rows."""
    job = ClearedJob()
    stop_after_submit = {"wait": {"deferrable": False, "trigger_rule": "all_failed"}, "limits": {"requests": 2}}
    job.run(**stop_after_submit)
    assert batch_sizes(slow_server) == [2, 2, 1]
    change(warehouse, "DELETE FROM tickets WHERE id = 'T-3'", "UPDATE tickets SET body = 'new' WHERE id = 'T-5'")

    def complete_all_batches() -> None:
        wait_until(lambda: len(batch_sizes(slow_server)) == 4)
        slow_server.advance(1000)

    with run_in_background(complete_all_batches):
        second = job.clear(limits={"requests": 2})

    assert second.state == "success"
    assert batch_sizes(slow_server) == [2, 2, 1, 1]
    assert statuses(slow_server) == ["completed", "completed", "cancelled", "completed"]
    assert second.return_values["land"]["outcomes"] == {"succeeded": 4}
    assert sorted(answers(warehouse)) == ["T-1", "T-2", "T-4", "T-5"]


@pytest.mark.parametrize("trigger", ["argument", "conf", "command"])
def test_resubmit_sends_every_row_again(warehouse: Path, server: LocalServer, trigger: str) -> None:
    job = ClearedJob({"batch_resubmit": True} if trigger == "conf" else None)
    arguments = {"resubmit": "true"} if trigger == "argument" else {}
    first = job.run(**arguments)
    assert batch_sizes(server) == [5]
    if trigger == "command":
        uid = first.return_values["submit"]["job_uid"]
        command = [sys.executable, "-m", "airflow_provider_batch.cli", "jobs", "resubmit", uid]
        assert subprocess.run(command, check=False, timeout=120, stdin=subprocess.DEVNULL).returncode == 1
        assert subprocess.run([*command, "--yes"], check=False, timeout=120).returncode == 0
    second = job.clear(**arguments)

    assert batch_sizes(server) == [5, 5]
    uids = [result.return_values["submit"]["job_uid"] for result in (first, second)]
    assert uids[0] != uids[1]
    assert {row[4] for row in answers(warehouse).values()} == {uids[1]}
    if trigger == "command":
        job.clear()
        assert batch_sizes(server) == [5, 5]


def test_resubmit_cancels_the_batches_that_are_still_running(warehouse: Path, slow_server: LocalServer) -> None:
    job = ClearedJob()
    stop_after_submit = {"wait": {"deferrable": False, "trigger_rule": "all_failed"}}
    job.run(**stop_after_submit)
    job.clear(**stop_after_submit, resubmit=True)

    assert statuses(slow_server)[0] in ("cancelling", "cancelled")
    assert batch_sizes(slow_server) == [5, 5]


def test_a_clear_that_the_canary_stopped_keeps_all_earlier_answers(warehouse: Path, server: LocalServer) -> None:
    job = ClearedJob()
    job.run(canary=1)
    before = query(warehouse, ANSWERS + " WHERE custom_id <> 'T-2' ORDER BY 1")
    change(warehouse, "UPDATE tickets SET body = 'another text' WHERE id = 'T-2'")
    server.set_faults(
        Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=400, code="unsupported_parameter")
    )
    assert job.clear(canary=1).states["submit"] == "failed"
    server.set_faults()

    result = job.clear(canary=1)

    assert result.state == "success", result.errors
    assert query(warehouse, ANSWERS + " WHERE custom_id <> 'T-2' ORDER BY 1") == before
    assert query(warehouse, "SELECT outcome FROM answers WHERE custom_id = 'T-2'") == [("succeeded",)]
    assert batch_sizes(server) == [4]
    assert server.calls()["synchronous"] == 3
