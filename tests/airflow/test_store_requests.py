"""How many requests a job makes to the object store that holds its staging. Stores charge for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_batch.staging.object_store import ObjectFolder
from tests.airflow.jobs import Ticket, run_job
from tests.staging.conftest import _conn_ids, _proxy, open_s3, s3
from tests.staging.store_proxy import StoreProxy, denies_access

__all__ = ["_conn_ids", "_proxy", "open_s3", "s3"]

SHARDS = 40


class TaskCounter:
    """An Airflow listener that counts the requests of each task, by kind, when the task has succeeded."""

    def __init__(self, store: StoreProxy) -> None:
        from airflow.providers.common.compat.sdk import hookimpl

        self.store = store
        self.earlier: Counter[str] = Counter()
        #: number of requests of each kind, by task_id
        self.counts: dict[str, Counter[str]] = {}
        # Airflow finds hooks by an attribute of the function, and must not be imported before AIRFLOW_HOME is set.
        type(self).on_task_instance_success = hookimpl(type(self).on_task_instance_success)  # type: ignore[method-assign]

    def on_task_instance_success(self, previous_state: Any, task_instance: Any) -> None:
        self.counts[task_instance.task_id] = self.store.counts - self.earlier
        self.earlier = self.store.counts.copy()


@pytest.fixture
def tasks(s3: StoreProxy) -> Iterator[TaskCounter]:
    from airflow.providers.common.compat.sdk import get_listener_manager

    counter = TaskCounter(s3)
    get_listener_manager().add_listener(counter)  # type: ignore[no-untyped-call]  # Airflow has no types here
    yield counter
    get_listener_manager().pm.unregister(counter)


@pytest.fixture
def tickets() -> list[Ticket]:
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(SHARDS)]


# The ceilings are about a tenth above what was measured.


@pytest.mark.parametrize(
    ("canary", "ceilings"),
    [
        # measured: 297, 174 and 86 requests
        (0, {"submit": 325, "wait": 190, "land": 95}),
        # measured: 274, 154 and 78 requests, for the canary and 35 other shards
        (5, {"submit": 300, "wait": 170, "land": 85}),
    ],
)
@pytest.mark.usefixtures("warehouse")
def test_a_job_of_many_shards(
    tasks: TaskCounter, open_s3: Callable[[], ObjectFolder], canary: int, ceilings: dict[str, int]
) -> None:
    result = run_job(staging=open_s3().uri, limits={"requests": 1}, canary=canary)

    assert result.state == "success", result.errors
    assert set(tasks.counts) == set(ceilings)
    requests = {task: counts.total() for task, counts in tasks.counts.items()}
    assert {task: requests[task] for task in ceilings if requests[task] > ceilings[task]} == {}
    # Each lists up to 1,000 names. Their number does not grow with the shards. Measured: 12, 7 and 2
    listings = {task: counts["LIST"] for task, counts in tasks.counts.items()}
    assert listings["submit"] <= 14
    assert listings["wait"] <= 9
    assert listings["land"] <= 3
    assert "HEAD" not in tasks.store.counts


@pytest.mark.parametrize(
    ("canary", "ceilings"),
    [
        # measured: 24, 17 and 11 requests
        (0, {"submit": 27, "wait": 19, "land": 13}),
        # measured: 36, 17 and 13 requests
        (5, {"submit": 40, "wait": 19, "land": 15}),
    ],
)
@pytest.mark.usefixtures("warehouse")
def test_a_small_job(
    tasks: TaskCounter, open_s3: Callable[[], ObjectFolder], canary: int, ceilings: dict[str, int]
) -> None:
    result = run_job(staging=open_s3().uri, canary=canary, max_rows=10)

    assert result.state == "success", result.errors
    assert set(tasks.counts) == set(ceilings)
    requests = {task: counts.total() for task, counts in tasks.counts.items()}
    assert {task: requests[task] for task in ceilings if requests[task] > ceilings[task]} == {}


@pytest.mark.usefixtures("warehouse")
def test_a_store_that_refuses_the_bundles_fails_no_task(
    s3: StoreProxy, open_s3: Callable[[], ObjectFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    s3.fault = lambda request, store: denies_access(request, store) if "/bundle." in request.path else store(request)

    result = run_job(staging=open_s3().uri, canary=5)

    assert result.state == "success", result.errors
    assert "not bundled, so the next task reads each of them" in capsys.readouterr().out
