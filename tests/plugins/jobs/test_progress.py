"""How far running jobs are, from real ledgers in staging."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from fastapi.testclient import TestClient

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger, seal
from airflow_provider_batch.core.ledger.records import Deadline
from airflow_provider_batch.links.batch import LEDGER_KEY
from airflow_provider_batch.plugins import ledgers
from airflow_provider_batch.plugins.job.live import Live, LiveBatch
from airflow_provider_batch.plugins.jobs.progress import add_live, progress_of
from airflow_provider_batch.plugins.ledgers import LedgerCache
from airflow_provider_batch.staging.layout import job_folder
from tests.plugins.ledgers import create_batch, seal_job, settle
from tests.plugins.rows import NOON, Run, Task, add_runs

Progress = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def key(airflow_home: Any) -> JobKey:
    return JobKey(f"progress_{uuid4().hex[:8]}", "submit", "run|1")


@pytest.fixture
def ledger(key: JobKey, staging: str) -> Ledger:
    """A job of two batches that run."""
    ledger = seal_job(staging, key)
    add_runs([Run(key.dag_id, key.run_id, [Task("submit", xcoms={LEDGER_KEY: ledger.folder.uri})])])
    ledger.add(Deadline(NOON + timedelta(hours=30), NOON))
    for shard in ("s0001", "s0002"):
        create_batch(ledger, shard)
    return ledger


@pytest.fixture
def progress(airflow_api: Any, login: Callable[..., dict[str, str]]) -> Progress:
    """Return a function that requests the progress of jobs."""

    def get(*jobs: str) -> list[dict[str, Any]]:
        response = TestClient(airflow_api).get("/batch/api/progress", params={"job": jobs}, headers=login())
        assert response.status_code == 200, response.text
        answer: list[dict[str, Any]] = response.json()["jobs"]
        return answer

    return get


def test_the_bar_of_a_job_moves_with_each_batch_that_is_collected(
    key: JobKey, ledger: Ledger, progress: Progress
) -> None:
    job = f"{key.dag_id}|run%7C1|submit|-1"

    def counts() -> list[Any]:
        (answer,) = progress(job)
        return [answer[name] for name in ("done", "failed", "waiting", "cost_usd")]

    assert counts() == [0, 0, 200, 0.0]
    settle(ledger, "s0001", succeeded=90, refused=10)
    assert counts() == [90, 10, 100, 0.25]
    settle(ledger, "s0002", cost=None, succeeded=100)
    assert counts() == [190, 10, 0, None]
    (answer,) = progress(job)
    identity = {"dag_id": key.dag_id, "run_id": "run|1", "task_id": "submit", "map_index": -1}
    assert answer.items() >= (identity | {"deadline": "2026-11-21T18:00:00Z", "problem": None}).items()


def test_what_the_provider_does_not_tell_of_batches_that_run_is_said(
    key: JobKey, ledger: Ledger, progress: Progress
) -> None:
    (answer,) = progress(f"{key.dag_id}|run%7C1|submit|-1")
    assert answer["waiting"] == 200
    assert "openai_default" in answer["problem"]


def test_the_bar_of_a_job_moves_while_its_batches_run(key: JobKey, ledger: Ledger) -> None:
    settle(ledger, "s0001", succeeded=90, refused=10)
    by_ledger = progress_of(key, ledger.state())

    def with_live(*batches: LiveBatch, problem: str | None = None) -> tuple[Any, ...]:
        progress = add_live(by_ledger, Live(list(batches), problem))
        return progress.done_rows, progress.failed, progress.waiting, progress.problem

    running = LiveBatch(batch_id="batch_s0002", shard="s0002", total=100, completed=40, failed=5)
    assert with_live(running) == (130, 10, 60, None)
    assert with_live(msgspec.structs.replace(running, completed=None, problem="It hangs.")) == (
        90,
        10,
        100,
        "It hangs.",
    )
    assert with_live(msgspec.structs.replace(running, completed=10**6)) == (190, 10, 0, None)
    assert with_live(running, problem="2 more batches were not read.")[3] == "2 more batches were not read."


def test_a_job_that_cannot_be_read_has_a_problem_and_no_numbers(
    key: JobKey, ledger: Ledger, progress: Progress, staging: str
) -> None:
    add_runs([Run(key.dag_id, "broken", [Task("submit", xcoms={LEDGER_KEY: broken_job(staging, key.dag_id)})])])
    missing, broken, unreadable, fine = progress(
        f"{key.dag_id}|nowhere|submit|-1",
        f"{key.dag_id}|broken|submit|-1",
        "no_such_dag|run|submit|-1",
        f"{key.dag_id}|run%7C1|submit|-1",
    )
    assert missing["problem"].startswith("No job was found for this task instance.")
    assert unreadable["problem"] == missing["problem"]
    assert "seal.json as a record of a job" in broken["problem"]
    assert (missing["done"], broken["waiting"]) == (None, None)
    assert fine["waiting"] == 200


def broken_job(root: str, dag_id: str) -> str:
    """Return the address of a job whose seal is not JSON."""
    folder = job_folder(root, JobKey(dag_id, "submit", "broken"))
    folder.create("g001/seal.json", b"{")
    return folder.uri


@pytest.mark.parametrize("job", ["", "a|b|c", "a|b|c|d|e", "a|b|c|x", "|b|c|-1", "a|%00|c|-1", "a|b|c|" + "9" * 30])
def test_a_job_that_is_written_differently_gets_a_sentence(
    airflow_api: Any, login: Callable[..., dict[str, str]], job: str
) -> None:
    answer = TestClient(airflow_api).get("/batch/api/progress", params={"job": job}, headers=login())
    assert answer.status_code == 400
    assert ": Give " in answer.json()["detail"]


def test_a_request_names_at_most_50_jobs(airflow_api: Any, login: Callable[..., dict[str, str]]) -> None:
    client = TestClient(airflow_api)
    params = {"job": ["a|b|c|-1"] * 51}
    assert client.get("/batch/api/progress", params=params, headers=login()).status_code == 400
    assert client.get("/batch/api/progress", headers=login()).json() == {"jobs": []}
    assert client.get("/batch/api/progress").status_code == 401
    assert client.get("/batch/api/progress", headers=login(None)).status_code == 403


def test_a_ledger_that_was_read_before_reads_only_what_is_new(key: JobKey, ledger: Ledger) -> None:
    cache = LedgerCache()
    first = cache.open(ledger.folder)
    assert first is not None
    assert len(first.state().live_submissions()) == 2
    settle(ledger, "s0001", succeeded=100)
    second = cache.open(ledger.folder)
    assert second is first
    assert len(second.state().live_submissions()) == 1


def test_a_new_generation_replaces_the_ledger_that_was_read_before(key: JobKey, ledger: Ledger) -> None:
    cache = LedgerCache()
    cache.open(ledger.folder)
    seal(ledger.folder, msgspec.structs.replace(ledger.manifest, generation=2))
    newest = cache.open(ledger.folder)
    assert newest is not None
    assert newest.manifest.generation == 2


def test_ledgers_that_were_viewed_long_ago_are_dropped(
    key: JobKey, staging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_SHARDS", 5)
    cache = LedgerCache()
    folders = [seal_job(staging, JobKey("dag", "submit", run)).folder for run in ("one", "two", "three")]
    one, two, *_ = [cache.open(folder) for folder in folders[:2]]
    assert cache.open(folders[0]) is one
    cache.open(folders[2])  # drops "two", which was viewed before "one"
    assert cache.open(folders[0]) is one
    assert cache.open(folders[1]) is not two
