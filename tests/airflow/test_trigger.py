"""What makes the trigger fire, against the local batch server."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def slow_server(serve: Callable[..., LocalServer]) -> LocalServer:
    """A server whose batches run longer than any test."""
    return serve("slow", in_progress=600)


def create(server: LocalServer) -> str:
    client = client_of(server)
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    file = client.files.create(file=("a.jsonl", json.dumps(line).encode() + b"\n"), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


def trigger(*batch_ids: str, **changes: Any) -> Any:
    from airflow_provider_batch.triggers.batch import BatchTrigger

    arguments = {"deadline": None, "poll_interval": 0.05} | changes
    return BatchTrigger(openai_conn_id="openai_default", job_uid="0123456789", batch_ids=batch_ids, **arguments)


def event_of(*triggers: Any, timeout: float = 60.0) -> list[dict[str, Any]]:
    """Return the payload of each trigger's first event; fail if a trigger does not fire."""

    async def first(trigger: Any) -> dict[str, Any]:
        async for event in trigger.run():
            payload: dict[str, Any] = event.payload
            return payload
        raise AssertionError("the trigger ended without an event")

    async def all_events() -> list[dict[str, Any]]:
        return await asyncio.wait_for(asyncio.gather(*map(first, triggers)), timeout)

    return asyncio.run(all_events())


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_it_fires_once_every_batch_has_ended(batch_server: LocalServer) -> None:
    assert event_of(trigger(create(batch_server), create(batch_server))) == [{"reason": "ended"}]


def test_one_ended_batch_is_enough_if_shards_wait_for_queue_capacity(slow_server: LocalServer) -> None:
    client = client_of(slow_server)
    first, second = create(slow_server), create(slow_server)
    client.batches.cancel(first)

    assert event_of(trigger(first, second, any_end=True)) == [{"reason": "ended"}]


@pytest.mark.parametrize(("argument", "reason"), [("deadline", "deadline"), ("wake_at", "due")])
def test_it_fires_at_its_time_while_the_batch_is_still_running(
    slow_server: LocalServer, argument: str, reason: str
) -> None:
    time = ago(-0.5)

    assert event_of(trigger(create(slow_server), **{argument: time})) == [{"reason": reason}]
    assert datetime.now(UTC) >= datetime.fromisoformat(time)


def test_without_batches_it_waits_for_its_time(slow_server: LocalServer) -> None:
    assert event_of(trigger(wake_at=ago(-0.2))) == [{"reason": "due"}]


def test_a_provider_that_is_temporarily_unreachable_does_not_end_the_wait(
    batch_server: LocalServer, tmp_path: Path
) -> None:
    with LocalServer(tmp_path / "away", in_progress=0.5) as server:
        batch_id = create(server)
        server.stop()

        async def restart_server() -> dict[str, Any]:
            waiting = asyncio.ensure_future(anext(trigger(batch_id).run()))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await asyncio.to_thread(server.start)
            event = await asyncio.wait_for(waiting, 60)
            payload: dict[str, Any] = event.payload
            return payload

        with pytest.MonkeyPatch.context() as patch:
            conn = {"conn_type": "openai", "password": "local", "host": server.base_url}
            patch.setenv("AIRFLOW_CONN_OPENAI_DEFAULT", json.dumps(conn))
            assert asyncio.run(restart_server()) == {"reason": "ended"}


@pytest.mark.parametrize(("password", "batch_id", "code"), [("wrong", None, "401"), ("right", "batch_nowhere", "404")])
def test_five_consecutive_refused_sweeps_end_the_wait_with_the_reason(
    tmp_path: Path, connect: Callable[..., None], password: str, batch_id: str | None, code: str
) -> None:
    with LocalServer(tmp_path / "server", api_key="right") as server:
        connect("openai_default", conn_type="openai", password=password, host=server.base_url)

        (event,) = event_of(trigger(batch_id or "batch_any"))

    assert event["reason"] == "refused"
    assert f"HTTP {code}" in event["message"]


def test_triggers_of_a_connection_share_one_client_that_is_closed_with_the_last(slow_server: LocalServer) -> None:
    from airflow_provider_batch.triggers.clients import _shared, shared_client

    async def two_users() -> None:
        async with shared_client("openai_default") as first, shared_client("openai_default") as second:
            assert first is second
            client = await first.get()
            assert await second.get() is client
        assert client.is_closed()
        assert not _shared[asyncio.get_running_loop()]

    asyncio.run(two_users())


def test_after_a_refused_key_the_client_is_rebuilt(slow_server: LocalServer) -> None:
    from airflow_provider_batch.triggers.clients import shared_client

    async def renew() -> bool:
        async with shared_client("openai_default") as shared:
            client = await shared.get()
            await shared.renew(client)
            return await shared.get() is not client and client.is_closed()

    assert asyncio.run(renew())


def test_its_serialized_arguments_recreate_the_same_trigger() -> None:
    from airflow_provider_batch.triggers.batch import BatchTrigger

    original = trigger("batch_1", "batch_2", wake_at=ago(-60), any_end=True, cancel_on_kill=False)
    path, arguments = original.serialize()

    assert path == "airflow_provider_batch.triggers.batch.BatchTrigger"
    assert BatchTrigger(**arguments).serialize() == (path, arguments)


def test_progress_is_logged_when_it_changes_and_polls_are_not(tmp_path: Path, connect: Callable[..., None]) -> None:
    """Reads the output of a separate process, with Airflow's logging as a user sees it."""
    with LocalServer(tmp_path / "server", in_progress=1) as server:
        program = f"""
import asyncio
from airflow_provider_batch.triggers.batch import BatchTrigger
async def main():
    trigger = BatchTrigger(openai_conn_id="openai_default", job_uid="0123456789",
        batch_ids={[create(server), create(server), create(server)]},
        deadline=None, poll_interval=0.05)
    print([event.payload async for event in trigger.run()])
asyncio.run(main())
"""
        connect("openai_default", conn_type="openai", password="local", host=server.base_url)
        result = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
        )

    lines = [line.split("Job ", 1)[1].split(" [")[0] for line in result.stdout.splitlines() if "Job 01234567" in line]
    assert lines[-1] == "01234567: 3 of 3 requests done, 0 failed; 3 of 3 batches ended"
    assert len(lines) == len(set(lines)) < 10
    assert "HTTP Request: GET" not in result.stdout + result.stderr
    assert "[{'reason': 'ended'}]" in result.stdout
