"""`airflow-batch jobs`, run on the jobs of real DAG runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.cli import main
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import seal
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.staging.layout import job_folder
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, query, run_in_background, run_job
from tests.core.building import manifest_of

ROWS = 6


@pytest.fixture
def tickets() -> list[Ticket]:
    rows = [(f"T-{n}", f"Ticket {n}", f"secret text {uuid4()}", "bug") for n in range(1, ROWS)]
    return [*rows, (f"T-{ROWS}", "Refused", "[[refuse]]", "bug")]


def batches(server: LocalServer) -> list[Any]:
    return list(client_of(server).batches.list(limit=100))


def jobs(*arguments: str) -> int:
    return main.main(["jobs", *arguments])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert jobs(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_jobs_are_listed_with_the_newest_first(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uids = [run_job().return_values["submit"]["job_uid"] for _ in range(3)]

    summaries = as_json(capsys, "list", "--limit", "2")
    assert [job["job_uid"] for job in summaries] == uids[:0:-1]
    assert summaries[0]["outcomes"] == {"succeeded": ROWS - 1, "refused": 1}
    assert float(summaries[0]["cost_usd"]) > 0
    assert jobs("list", "--limit", "2") == 0
    text = capsys.readouterr().out
    assert f"{uids[2][:8]}  job_" in text
    assert "landed in answers; 5 succeeded, 1 refused; cost $0.0" in text
    assert "… and older jobs; --limit shows more." in text


def test_a_job_is_shown_in_full_by_its_uid_its_folder_or_its_dag_and_run(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = ClearedJob()
    reference = job.run(limits={"requests": 4}).return_values["submit"]
    uid, run_id = reference["job_uid"], job.run_id()

    run = ["--dag", job.dag_id, "--run", run_id]
    for words in ([uid], [uid[:10]], [reference["ledger"]], run, ["--run", run_id[:30]], [*run, "--task", "submit"]):
        job_summary = as_json(capsys, "show", *words)
        assert job_summary["job_uid"] == uid
    assert [(shard["name"], shard["requests"], shard["phase"]) for shard in job_summary["shards"]] == [
        ("s0001", 4, "settled"),
        ("s0002", 2, "settled"),
    ]
    assert jobs("show", uid) == 0
    text = capsys.readouterr().out
    for expected in (
        "state       landed in answers",
        "next        Nothing to do.",
        f"folder      {reference['ledger']}",
        f"submission 1  {job_summary['shards'][0]['submissions'][0]['batch_id']}  completed at ",
        "1 refused, refusal: the model's words are in the row's error_message and output",
    ):
        assert expected in text
    assert "secret text" not in text + json.dumps(job_summary)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert jobs(*arguments) == 1
    return capsys.readouterr().err


def test_a_job_that_does_not_exist_is_an_error(warehouse: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jobs("list") == 0
    assert "No jobs in file:" in capsys.readouterr().out
    assert "There is no job with a uid that starts with 'nothing' in file:" in error_of(capsys, "show", "nothing")
    assert "There is no job of DAG 'dag' of run 'run' in" in error_of(capsys, "show", "--dag", "dag", "--run", "run")
    assert "contains no sealed job" in error_of(capsys, "show", "a/folder")
    assert "Say which job: JOB, its uid" in error_of(capsys, "show")
    assert "--limit: Expected a number of jobs of at least 1" in error_of(capsys, "list", "--limit", "0")


def test_jobs_are_selected_by_dag_run_task_map_index_and_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], airflow_home: Path
) -> None:
    root = tmp_path.as_uri()
    uids = {
        (dag_id, run_id, map_index): seal_empty_job(root, JobKey(dag_id, "submit", run_id, map_index))
        for dag_id in ("label_tickets", "label tickets", "embed")
        for run_id in ("scheduled__2026-11-20T02:00:00+00:00", "scheduled__2026-11-21T02:00:00+00:00")
        for map_index in (0, 1)
    }

    def listed(*options: str) -> set[str]:
        return {job["job_uid"] for job in as_json(capsys, "list", "--staging", root, *options)}

    assert listed() == set(uids.values())
    assert listed("--dag", "label tickets") == {uid for key, uid in uids.items() if key[0] == "label tickets"}
    assert listed("--run", "scheduled__2026-11-20T") == {uid for key, uid in uids.items() if "-20T" in key[1]}
    assert listed("--map-index", "1", "--task", "submit") == {uid for key, uid in uids.items() if key[2] == 1}
    assert listed("--state", "answered", "--dag", "embed") == {uid for key, uid in uids.items() if key[0] == "embed"}
    assert listed("--state", "landed") == listed("--state", "withheld") == listed("--task", "submi") == set()
    assert len(listed("--limit", "3")) == 3

    def show_error(*options: str) -> str:
        return error_of(capsys, "show", "--staging", root, *options)

    several = show_error("--dag", "embed", "--run", "scheduled__2026-11-20")
    assert "There are 2 jobs of DAG 'embed' of run 'scheduled__2026-11-20'" in several
    assert "submit[1]  scheduled__2026-11-20T02:00:00+00:00  sealed 20" in several
    assert "Narrow it down with --map-index. Or give the uid of one of them." in several
    assert "Narrow it down with --dag or --run or --map-index." in show_error("--task", "submit")
    assert "Did you mean 'label_tickets'? The DAGs with jobs there are" in show_error("--dag", "label_ticket")
    assert "The runs of DAG 'embed' with jobs there are scheduled__2026-11-21" in show_error(
        "--dag", "embed", "--run", "manual"
    )
    assert "The tasks of DAG 'embed' with jobs there are submit." in show_error("--dag", "embed", "--task", "send")
    assert "`airflow-batch jobs list --dag embed` lists" in show_error("--dag", "embed", "--map-index", "7")
    uid = uids["embed", "scheduled__2026-11-21T02:00:00+00:00", 1]
    one = ["--dag", "embed", "--run", "scheduled__2026-11-21", "--map-index", "1"]
    assert as_json(capsys, "show", "--staging", root, *one)["job_uid"] == uid


def test_a_state_that_does_not_exist_is_refused_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        jobs("list", "--state", "sleeping")
    assert "invalid choice: 'sleeping'" in capsys.readouterr().err


def seal_empty_job(root: str, key: JobKey) -> str:
    """Seal a job without rows, and return its uid."""
    folder = job_folder(root, key)
    now = datetime.now(UTC)
    return seal(folder, manifest_of([], key=key, job_uid=uuid4().hex, sealed_at=now)).manifest.job_uid


def test_the_state_of_a_held_job_quotes_the_provider(
    warehouse: Path, slow_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    message = "Billing hard limit has been reached."
    slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=400, message=message))
    result = run_job()

    assert result.states["submit"] == "failed"
    job_summary = as_json(capsys, "list")[0]
    assert (job_summary["batches"], job_summary["outcomes"]) == (0, {"pending": ROWS})
    assert job_summary["state"].startswith("held: ")
    assert message in job_summary["state"]
    assert job_summary["next"].startswith("Fix the account or the connection")


def test_a_cancelled_job_lands_its_answers_and_a_clear_sends_the_remaining_rows(
    warehouse: Path, slow_server: LocalServer, capfd: pytest.CaptureFixture[str], wait_until: Callable[..., None]
) -> None:
    outputs: list[str] = []

    def cancel_the_job() -> None:
        wait_until(lambda: bool(batches(slow_server)) and batches(slow_server)[0].status == "in_progress")
        slow_server.advance(300)
        wait_until(lambda: 0 < batches(slow_server)[0].request_counts.completed < ROWS)
        uid = batches(slow_server)[0].metadata["job_uid"]
        command = [sys.executable, "-m", "airflow_provider_batch.cli", "jobs", "cancel", uid[:8]]
        for options in ([], ["--yes"]):
            completed = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=120)
            outputs.append(f"{completed.returncode} {completed.stdout} {completed.stderr}")

    job = ClearedJob()
    with run_in_background(cancel_the_job):
        first = job.run()

    assert "Nothing was done. Pass --yes to confirm without a terminal." in outputs[0]
    assert outputs[0].startswith("1 ")
    assert f"cancelling batch {batches(slow_server)[0].id} (person); its status is cancelling" in outputs[1]
    assert outputs[1].startswith("0 ")
    assert first.states == {"submit": "success", "wait": "success", "land": "success"}
    assert len(batches(slow_server)) == 1
    answers_before = query(warehouse, "SELECT custom_id, output, batch_id FROM answers WHERE output IS NOT NULL")
    assert 0 < len(answers_before) < ROWS
    assert first.return_values["land"]["outcomes"]["cancelled"] == ROWS - len(answers_before)

    job.clear("land")
    assert len(batches(slow_server)) == 1

    def complete_both_batches() -> None:
        wait_until(lambda: len(batches(slow_server)) == 2)
        slow_server.advance(1000)

    with run_in_background(complete_both_batches):
        second = job.clear("wait", "land")

    assert second.return_values["land"]["outcomes"] == {"succeeded": ROWS - 1, "refused": 1}
    assert batches(slow_server)[0].request_counts.total == ROWS - len(answers_before)
    assert set(answers_before) <= set(query(warehouse, "SELECT custom_id, output, batch_id FROM answers"))


def test_a_job_is_removed_when_it_has_landed_and_its_retention_has_passed(
    warehouse: Path, slow_server: LocalServer, capsys: pytest.CaptureFixture[str]
) -> None:
    slow_server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.RETRIEVE}), status=403))
    waiting_result = run_job(wait={"deferrable": False, "retries": 0})
    assert waiting_result.states["wait"] == "failed"
    running = waiting_result.return_values["submit"]
    landed = run_job(sql="SELECT id, title, body, label FROM tickets WHERE id = 'none'").return_values["submit"]
    capsys.readouterr()

    assert jobs("clean") == 0
    text = capsys.readouterr().out
    assert f"kept  {landed['job_uid'][:8]}" in text
    assert re.search(r"its last event was (just now|\d+ s ago), and its retention is 30 days", text)
    assert jobs("clean", "--older-than", "0", "--dry-run") == 0
    assert f"would remove  {landed['job_uid'][:8]}" in capsys.readouterr().out
    assert jobs("clean", "--older-than", "0", "--abandoned") == 0
    text = capsys.readouterr().out
    assert f"kept  {running['job_uid'][:8]}" in text
    assert "1 batch may still be running; `jobs cancel` cancels the job" in text
    assert "1 of 2 jobs removed." in text
    assert [job["job_uid"] for job in as_json(capsys, "list")] == [running["job_uid"]]


def test_a_job_that_never_landed_is_removed_only_with_abandoned(
    warehouse: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_job(land={"trigger_rule": "all_failed"})
    assert result.states["land"] == "skipped"
    capsys.readouterr()

    assert jobs("clean", "--older-than", "0") == 0
    assert "it never landed completely, so its answers exist only in staging" in capsys.readouterr().out
    assert as_json(capsys, "list")[0]["state"] == "answered, not landed yet"
    assert jobs("clean", "--older-than", "0", "--abandoned") == 0
    assert as_json(capsys, "list") == []
