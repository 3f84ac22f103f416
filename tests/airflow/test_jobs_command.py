"""`airflow-batch jobs`, on jobs of real runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, query, run_in_background, run_job

ROWS = 6


@pytest.fixture
def tickets() -> list[Ticket]:
    rows = [(f"T-{n}", f"Ticket {n}", f"secret text {uuid4()}", "bug") for n in range(1, ROWS)]
    return [*rows, (f"T-{ROWS}", "Refused", "[[refuse]]", "bug")]


def batches(server: LocalServer) -> list[Any]:
    return list(client_of(server).batches.list(limit=100))


def jobs(*arguments: str) -> int:
    return main.main(["jobs", *arguments])


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert jobs("show", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_jobs_are_listed_the_newest_first(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uids = [run_job().return_values["submit"]["job_uid"] for _ in range(3)]

    listed = shown(capsys, "--limit", "2")
    assert [job["job_uid"] for job in listed] == uids[:0:-1]
    assert listed[0]["outcomes"] == {"succeeded": ROWS - 1, "refused": 1}
    assert float(listed[0]["cost_usd"]) > 0
    assert jobs("show", "--limit", "2") == 0
    text = capsys.readouterr().out
    assert f"{uids[2][:8]}  job_" in text
    assert "landed in answers; 5 succeeded, 1 refused; cost 0.0" in text
    assert "… and 1 older ones" in text


def test_everything_about_a_job_is_told_by_whatever_name_it_is_called(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    reference = job.run(limits={"requests": 4}).return_values["submit"]
    uid, run_id = reference["job_uid"], job.run_id()

    for named in ([uid], [uid[:10]], [reference["ledger"]], [job.dag_id, run_id], [job.dag_id, run_id, "submit"]):
        told = shown(capsys, *named)
        assert told["job_uid"] == uid
    assert [(shard["name"], shard["requests"], shard["phase"]) for shard in told["shards"]] == [
        ("s0001", 4, "settled"),
        ("s0002", 2, "settled"),
    ]
    assert jobs("show", uid) == 0
    text = capsys.readouterr().out
    for expected in (
        "state       landed in answers",
        "next        nothing.",
        f"folder      {reference['ledger']}",
        f"submission 1  {told['shards'][0]['submissions'][0]['batch_id']}  completed at ",
        "1 refused, refusal: what the model said is in the row's error_message and output",
    ):
        assert expected in text
    assert "secret text" not in text + json.dumps(told)


def test_a_job_that_is_not_there_is_said(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs("show") == 0
    assert "No jobs in file:" in capsys.readouterr().out
    assert jobs("show", "nothing") == 1
    assert "There is no job whose uid begins with 'nothing' in file:" in capsys.readouterr().err
    assert jobs("show", "dag", "run") == 1
    assert "There is no job of DAG 'dag' and run 'run'" in capsys.readouterr().err
    assert jobs("show", "a/folder") == 1
    assert "holds no sealed job" in capsys.readouterr().err


def test_a_held_job_says_so_in_the_providers_words(
    warehouse: Path, slow_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "Billing hard limit has been reached."
    slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=400, message=said))
    result = run_job()

    assert result.states["submit"] == "failed"
    told = shown(capsys)[0]
    assert (told["batches"], told["outcomes"]) == (0, {"pending": ROWS})
    assert told["state"].startswith("held: ")
    assert said in told["state"]
    assert told["next"].startswith("mend the account or the connection")


def test_a_cancelled_job_lands_what_was_answered_and_a_clear_asks_the_rest(
    warehouse: Path, slow_server: LocalServer, capfd: pytest.CaptureFixture[str], wait_until: Callable[..., None]
) -> None:
    told: list[str] = []

    def a_person() -> None:
        wait_until(lambda: bool(batches(slow_server)) and batches(slow_server)[0].status == "in_progress")
        slow_server.advance(300)
        wait_until(lambda: 0 < batches(slow_server)[0].request_counts.completed < ROWS)
        uid = batches(slow_server)[0].metadata["job_uid"]
        command = [sys.executable, "-m", "airflow_provider_batch.cli", "jobs", "cancel", uid[:8]]
        for more in ([], ["--yes"]):
            done = subprocess.run([*command, *more], capture_output=True, text=True, check=False, timeout=120)
            told.append(f"{done.returncode} {done.stdout} {done.stderr}")

    job = ClearedJob()
    with run_in_background(a_person):
        first = job.run()

    assert "Nothing was done: give --yes" in told[0]
    assert told[0].startswith("1 ")
    assert f"cancelling batch {batches(slow_server)[0].id} (person); its status is cancelling" in told[1]
    assert told[1].startswith("0 ")
    assert first.states == {"submit": "success", "wait": "success", "land": "success"}
    assert len(batches(slow_server)) == 1
    kept = query(warehouse, "SELECT custom_id, output, batch_id FROM answers WHERE output IS NOT NULL")
    assert 0 < len(kept) < ROWS
    assert first.return_values["land"]["outcomes"]["cancelled"] == ROWS - len(kept)

    job.clear("land")
    assert len(batches(slow_server)) == 1

    def end_once_both_are_there() -> None:
        wait_until(lambda: len(batches(slow_server)) == 2)
        slow_server.advance(1000)

    with run_in_background(end_once_both_are_there):
        second = job.clear("wait", "land")

    assert second.return_values["land"]["outcomes"] == {"succeeded": ROWS - 1, "refused": 1}
    assert batches(slow_server)[0].request_counts.total == ROWS - len(kept)
    assert set(kept) <= set(query(warehouse, "SELECT custom_id, output, batch_id FROM answers"))


def test_a_job_is_removed_when_it_is_landed_and_its_retention_over(
    warehouse: Path, slow_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=403))
    waits = run_job(wait={"deferrable": False, "retries": 0})
    assert waits.states["wait"] == "failed"
    running = waits.return_values["submit"]
    landed = run_job(sql="SELECT id, title, body, label FROM tickets WHERE id = 'none'").return_values["submit"]
    capsys.readouterr()

    assert jobs("clean") == 0
    text = capsys.readouterr().out
    assert f"kept  {landed['job_uid'][:8]}" in text
    assert "its last event is less than 30 days ago" in text
    assert jobs("clean", "--older-than", "0", "--dry-run") == 0
    assert f"would remove  {landed['job_uid'][:8]}" in capsys.readouterr().out
    assert jobs("clean", "--older-than", "0", "--abandoned") == 0
    text = capsys.readouterr().out
    assert f"kept  {running['job_uid'][:8]}" in text
    assert "1 batch(es) may be live; `jobs cancel` stops them" in text
    assert "1 of 2 jobs removed." in text
    assert [job["job_uid"] for job in shown(capsys)] == [running["job_uid"]]


def test_answers_that_never_landed_are_removed_only_on_purpose(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_job(land={"trigger_rule": "all_failed"})
    assert result.states["land"] == "skipped"
    capsys.readouterr()

    assert jobs("clean", "--older-than", "0") == 0
    assert "it never landed whole, and its answers are here alone" in capsys.readouterr().out
    assert shown(capsys)[0]["state"] == "answered, not landed yet"
    assert jobs("clean", "--older-than", "0", "--abandoned") == 0
    assert shown(capsys) == []
