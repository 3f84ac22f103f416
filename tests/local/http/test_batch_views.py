"""Batches that a fault hides when they are retrieved, or that lists show late."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.api.objects import Status
from airflow_provider_batch.local.faults import Fault, Kind
from tests.local.driving import chat, chats
from tests.local.in_process import STATE, InProcess, in_process


@pytest.fixture
def server(tmp_path: Path) -> Iterator[InProcess]:
    with in_process(tmp_path, admin=True) as running:
        yield running


def set_fault(server: InProcess, kind: Kind, **fields: Any) -> None:
    server.server.faults.replace([Fault(kind=kind, **fields)])


def listed(server: InProcess) -> dict[str, Any]:
    """Return the listed batches by id."""
    return {batch["id"]: batch for batch in server.get("/v1/batches")["data"]}


def let_pass(server: InProcess, seconds: float) -> None:
    """Move the clock in small steps, so that every state is reached at its time."""
    for _ in range(int(seconds / (STATE / 4))):
        server.server.clock.advance(STATE / 4)
        server.pause()


# hidden


def test_a_hidden_batch_is_not_found_the_first_times(server: InProcess) -> None:
    set_fault(server, Kind.HIDDEN, retrieves=2, times=1)
    hidden, visible = server.create(chats(1))["id"], server.create(chats(1))["id"]

    assert server.call("GET", f"/v1/batches/{visible}").status_code == 200
    assert [server.call("GET", f"/v1/batches/{hidden}").status_code for _ in range(4)] == [404, 404, 200, 200]
    error = server.call("GET", "/v1/batches/batch_1").json()["error"]
    assert error["message"] == "No batch found with id 'batch_1'."


def test_a_hidden_batch_is_in_lists_and_can_be_cancelled(server: InProcess) -> None:
    set_fault(server, Kind.HIDDEN)
    batch_id = server.create(chats(1))["id"]

    assert set(listed(server)) == {batch_id}
    assert server.call("POST", f"/v1/batches/{batch_id}/cancel").json()["status"] == "cancelling"


# late


def test_a_late_list_shows_a_batch_as_it_was_some_time_ago(server: InProcess) -> None:
    set_fault(server, Kind.LATE_IN_LIST, seconds=10 * STATE)
    batch_id = server.create([chat("good", "hello"), chat("bad", "[[fail:500]]")])["id"]
    final = server.advance_until(batch_id, Status.COMPLETED)

    assert listed(server) == {}, "the batch is younger than the lists"
    statuses: list[str | None] = []
    while not statuses or statuses[-1] != "completed":
        let_pass(server, STATE / 4)
        batch = listed(server).get(batch_id)
        statuses.append(batch and batch["status"])
        if batch and batch["status"] == "in_progress":
            assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
        if batch and batch["status"] != "completed":
            assert (batch["output_file_id"], batch["error_file_id"], batch["completed_at"]) == (None, None, None)
    assert list(dict.fromkeys(statuses)) == [None, "validating", "in_progress", "finalizing", "completed"]
    assert listed(server) == {batch_id: final}


def test_batches_that_a_list_does_not_show_yet_take_no_place_on_its_pages(server: InProcess) -> None:
    old = [server.create(chats(1))["id"] for _ in range(3)]
    set_fault(server, Kind.LATE_IN_LIST, seconds=1e6)
    for _ in range(5):
        server.create(chats(1))

    first = server.get("/v1/batches", limit=2)
    second = server.get("/v1/batches", limit=2, after=first["last_id"])
    assert [batch["id"] for page in (first, second) for batch in page["data"]] == old[::-1]
    assert (first["has_more"], second["has_more"]) == (True, False)


# stale


def test_a_stale_list_shows_a_batch_as_it_was_when_it_was_last_retrieved(server: InProcess) -> None:
    set_fault(server, Kind.STALE_IN_LIST)
    created = server.create(chats(2))
    batch_id = created["id"]

    let_pass(server, STATE * 1.5)
    assert server.server.engine.batch(batch_id).status is Status.IN_PROGRESS
    assert listed(server) == {batch_id: created}
    retrieved = server.get(f"/v1/batches/{batch_id}")
    server.server.clock.advance(10 * STATE)
    server.advance_until(batch_id, Status.COMPLETED)  # retrieves the batch
    assert retrieved["status"] == "in_progress"
    assert listed(server)[batch_id]["status"] == "completed"


def test_a_stale_list_never_moves_on_by_itself(server: InProcess) -> None:
    set_fault(server, Kind.STALE_IN_LIST, times=1)
    stale, other = server.create(chats(1))["id"], server.create(chats(1))["id"]

    server.advance_until(other, Status.COMPLETED)
    let_pass(server, 5 * STATE)
    statuses = {batch_id: batch["status"] for batch_id, batch in listed(server).items()}
    assert statuses == {stale: "validating", other: "completed"}
