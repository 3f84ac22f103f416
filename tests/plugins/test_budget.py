"""A store that does not answer: Airflow itself keeps answering, and the page says what is wrong."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.links.batch import LEDGER_KEY, plugin_url
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.budget import ThreadBudget
from airflow_provider_batch.staging.layout import job_folder
from airflow_provider_batch.staging.local import LocalFolder
from tests.plugins.rows import Run, Task, add_runs

Headers = Callable[..., dict[str, str]]


@pytest.fixture
def hanging_job(airflow_home: Any, staging: str) -> Iterator[JobKey]:
    """A job whose seal is a FIFO: whoever opens it waits for somebody who writes into it."""
    key = JobKey(f"hangs_{uuid4().hex[:8]}", "submit", "run")
    folder = job_folder(staging, key)
    assert isinstance(folder, LocalFolder)
    add_runs([Run(key.dag_id, key.run_id, [Task("submit", xcoms={LEDGER_KEY: folder.uri})])])
    seal = folder.path / "g001" / "seal.json"
    seal.parent.mkdir(parents=True)
    os.mkfifo(seal)
    yield key
    with suppress(OSError):  # nobody reads it any more
        os.close(os.open(seal, os.O_WRONLY | os.O_NONBLOCK))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> ThreadBudget:
    """The budget for staging, with few threads, all of them free, and a short deadline."""
    store = ThreadBudget("The store", threads=2, queued=3, seconds=2)
    monkeypatch.setattr(budget, "STORE", store)
    return store


def test_airflow_answers_while_the_store_hangs(
    airflow_api: Any, login: Headers, hanging_job: JobKey, store: ThreadBudget
) -> None:
    identity = {"dag_id": hanging_job.dag_id, "run_id": hanging_job.run_id, "task_id": hanging_job.task_id}
    page = str(httpx.URL(plugin_url("/api/job"), params=identity))

    async def look() -> tuple[list[httpx.Response], list[httpx.Response]]:
        transport = httpx.ASGITransport(airflow_api)
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow", headers=login()) as client:
            views = [asyncio.create_task(client.get(page)) for _ in range(60)]
            await asyncio.wait(views, return_when=asyncio.FIRST_COMPLETED)
            versions = [await client.get("/api/v2/version") for _ in range(10)]
            assert [view for view in views if not view.done()], "the store answered"
            return versions, await asyncio.gather(*views)

    versions, views = asyncio.run(look())

    assert [version.status_code for version in versions] == [200] * 10
    assert {view.status_code for view in views} == {503}
    assert {view.headers["Retry-After"] for view in views} == {"5"}
    details = Counter(view.json()["detail"] for view in views)
    assert details == {
        "The store did not answer within 2 s. Try again later.": 5,
        "The store is slow, and too many requests wait for it. Try again later.": 55,
    }


def test_the_progress_of_jobs_in_a_store_that_hangs_is_unknown_after_one_deadline(
    airflow_api: Any, login: Headers, hanging_job: JobKey, store: ThreadBudget
) -> None:
    params = {"job": [f"{hanging_job.dag_id}|run|submit|-1"] * 50}
    jobs = TestClient(airflow_api).get("/batch/api/progress", params=params, headers=login()).json()["jobs"]
    assert len(jobs) == 50
    assert {job["problem"] for job in jobs} == {"The store did not answer within 2 s. Try again later."}
    assert {job["done"] for job in jobs} == {None}


def test_a_read_that_nobody_waits_for_any_more_does_not_start() -> None:
    threads = ThreadBudget("The store", threads=1, queued=2, seconds=0.05)
    answered, reads = threading.Event(), []

    async def read() -> None:
        hanging = asyncio.create_task(threads.run(answered.wait))
        dropped = asyncio.create_task(threads.run(lambda: reads.append("dropped")))
        for result in await asyncio.gather(hanging, dropped, return_exceptions=True):
            assert isinstance(result, HTTPException)
            assert result.status_code == 503
        answered.set()
        await threads.run(lambda: reads.append("later"))

    asyncio.run(read())

    assert reads == ["later"]


def test_the_error_of_a_read_reaches_the_request() -> None:
    async def fail() -> None:
        await ThreadBudget("The store", threads=1, queued=1, seconds=60).run(lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
