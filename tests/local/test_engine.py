"""The engine with responders that the offline one is not: slow, or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_batch.local.engine import Engine
from airflow_provider_batch.local.records import ENDED, Batch, FileObject, Status, new_batch_id
from airflow_provider_batch.local.responder import Ask, Reply
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.store import Store
from tests.local.driving import CHAT, DEADLINE, chats, jsonl


class Scripted:
    """A responder that does what it is told for each custom_id."""

    def __init__(self, script: Callable[[str], Coroutine[Any, Any, Reply]]) -> None:
        self.asked: list[str] = []
        self._script = script

    def model_name(self, asked: str) -> str:
        return asked

    async def answer(self, ask: Ask) -> Reply:
        assert ask.custom_id is not None
        self.asked.append(ask.custom_id)
        return await self._script(ask.custom_id)


def _submit(store: Store, engine: Engine, rows: int) -> str:
    content = jsonl(chats(rows))
    now = store.clock.seconds()
    store.path("file-1").write_bytes(content)
    store.add_file(
        FileObject(
            id="file-1",
            bytes=len(content),
            created_at=now,
            expires_at=None,
            filename="a.jsonl",
            purpose="batch",
        )
    )
    batch = Batch(
        id=new_batch_id(),
        endpoint=CHAT,
        input_file_id="file-1",
        completion_window="24h",
        created_at=now,
        expires_at=now + 86_400,
    )
    return engine.submit(batch, output_lifetime=3600).id


async def _ended(engine: Engine, batch_id: str) -> Batch:
    async with asyncio.timeout(DEADLINE):
        while engine.batch(batch_id).status not in ENDED:
            await asyncio.sleep(0.005)
    return engine.batch(batch_id)


def test_a_line_that_breaks_the_responder_is_a_500_line_and_the_rest_is_answered(tmp_path: Path) -> None:
    async def script(custom_id: str) -> Reply:
        if custom_id == "row-1":
            raise ZeroDivisionError("on purpose")
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, Scripted(script), Settings())
        batch = await _ended(engine, _submit(store, engine, 3))

        assert batch.status is Status.COMPLETED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
        line = msgspec.json.decode(store.path(batch.error_file_id or "").read_bytes())
        assert (line["custom_id"], line["response"]["status_code"]) == ("row-1", 500)
        await engine.close()
        store.close()

    asyncio.run(go())


@pytest.mark.parametrize("row", [1, 2])
def test_a_request_in_flight_when_its_batch_is_cancelled_is_answered_and_the_rest_is_not(
    tmp_path: Path, row: int
) -> None:
    async def go() -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def script(custom_id: str) -> Reply:
            if custom_id == f"row-{row}":
                reached.set()
                await go_on.wait()
            return Reply(200, {})

        store = Store(tmp_path)
        responder = Scripted(script)
        engine = Engine(store, responder, Settings())
        batch_id = _submit(store, engine, 3)
        async with asyncio.timeout(DEADLINE):
            await reached.wait()
        assert engine.cancel(batch_id).status is Status.CANCELLING
        go_on.set()
        batch = await _ended(engine, batch_id)

        assert batch.status is Status.CANCELLED
        assert batch.finalizing_at is None
        assert batch.request_counts.completed == row + 1
        assert responder.asked == [f"row-{number}" for number in range(row + 1)]
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_whose_state_is_damaged_fails_and_says_so(tmp_path: Path) -> None:
    async def go() -> None:
        async def script(_: str) -> Reply:
            return Reply(200, {})

        store = Store(tmp_path)
        engine = Engine(store, Scripted(script), Settings(in_progress=0.5))
        batch_id = _submit(store, engine, 3)
        async with asyncio.timeout(DEADLINE):
            while engine.batch(batch_id).status is not Status.IN_PROGRESS:
                await asyncio.sleep(0.005)
        (tmp_path / "work" / batch_id / "answers").unlink()
        batch = await _ended(engine, batch_id)

        assert batch.status is Status.FAILED
        assert batch.errors is not None
        assert batch.errors.data[0].code == "server_error"
        await engine.close()
        store.close()

    asyncio.run(go())


def test_bytes_without_a_record_are_swept_when_the_state_is_opened(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / "files" / "file-half").write_bytes(b"half an upload")
    (tmp_path / "work" / "batch_gone").mkdir()

    store = Store(tmp_path)
    assert list(store.files.iterdir()) == []
    assert list(store.work.iterdir()) == []
    store.close()


def test_an_expired_file_is_gone_with_its_bytes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path("file-1").write_bytes(b"{}")
    store.add_file(FileObject(id="file-1", bytes=2, created_at=0, expires_at=1, filename="a", purpose="batch"))

    assert store.file("file-1") is None
    assert not store.path("file-1").exists()
    store.close()
