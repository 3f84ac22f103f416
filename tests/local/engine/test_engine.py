"""The engine with responders that the offline one is not: slow, or broken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from airflow_provider_batch.local.answers.responder import ModelRequest, Reply
from airflow_provider_batch.local.api.objects import FINAL_STATUSES, Batch, FileObject, Status, new_batch_id
from airflow_provider_batch.local.api.tokens import Tokens
from airflow_provider_batch.local.engine.engine import Engine
from airflow_provider_batch.local.engine.results import never_ran_line
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.journal import Ending, Journal
from airflow_provider_batch.local.storage.store import Store
from tests.local.conftest import Serve
from tests.local.driving import CHAT, DEADLINE, chats, jsonl, upload, wait


class Scripted:
    """A responder that does what it is told for each custom_id."""

    def __init__(self, script: Callable[[str], Coroutine[Any, Any, Reply]]) -> None:
        self.asked: list[str] = []
        self._script = script

    def model_name(self, asked: str) -> str:
        return asked

    async def answer(self, ask: ModelRequest) -> Reply:
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
        while engine.batch(batch_id).status not in FINAL_STATUSES:
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


@pytest.mark.parametrize("broken", [ZeroDivisionError, TimeoutError, asyncio.CancelledError])
def test_a_responder_that_breaks_on_every_other_line_ends_no_batch(tmp_path: Path, broken: type[BaseException]) -> None:
    async def script(custom_id: str) -> Reply:
        await asyncio.sleep(0)
        if int(custom_id[4:]) % 2:
            raise broken("on purpose")
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, Scripted(script), Settings(concurrency=4))
        batch = await _ended(engine, _submit(store, engine, 20))

        assert batch.status is Status.COMPLETED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 10)
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_has_as_many_requests_in_flight_as_allowed_and_never_more(tmp_path: Path) -> None:
    async def go() -> None:
        flying, seen, full = 0, 0, asyncio.Event()

        async def script(_: str) -> Reply:
            nonlocal flying, seen
            flying += 1
            seen = max(seen, flying)
            if flying == 8:
                full.set()
            await full.wait()
            await asyncio.sleep(0)
            flying -= 1
            return Reply(200, {})

        store = Store(tmp_path)
        responder = Scripted(script)
        engine = Engine(store, responder, Settings(concurrency=8))
        batch_id = _submit(store, engine, 100)
        batch = await _ended(engine, batch_id)

        assert seen == 8
        assert sorted(responder.asked) == sorted(f"row-{number}" for number in range(100)), "each line once"
        lines = store.path(batch.output_file_id or "").read_bytes().splitlines()
        answered = [msgspec.json.decode(line)["custom_id"] for line in lines]
        assert sorted(answered) == sorted(responder.asked)
        assert batch.request_counts.completed == 100
        await engine.close()
        store.close()

    asyncio.run(go())


def test_after_a_restart_no_request_that_was_answered_is_asked_again(tmp_path: Path) -> None:
    async def go() -> None:
        reached = asyncio.Event()

        async def first_life(custom_id: str) -> Reply:
            if int(custom_id[4:]) % 10 == 7:
                if custom_id == "row-77":
                    reached.set()
                await asyncio.Event().wait()
            return Reply(200, {})

        async def second_life(_: str) -> Reply:
            await asyncio.sleep(0)
            return Reply(200, {})

        store = Store(tmp_path)
        before = Scripted(first_life)
        engine = Engine(store, before, Settings(concurrency=8))
        batch_id = _submit(store, engine, 100)
        async with asyncio.timeout(DEADLINE):
            await reached.wait()
        await engine.close()
        hanging = {f"row-{number}" for number in range(7, 80, 10)}
        answered = set(before.asked) - hanging

        after = Scripted(second_life)
        engine = Engine(store, after, Settings(concurrency=8))
        await engine.resume()
        batch = await _ended(engine, batch_id)
        everything = {f"row-{number}" for number in range(100)}
        assert sorted(after.asked) == sorted(everything - answered)
        assert len(answered) > 60
        lines = store.path(batch.output_file_id or "").read_bytes().splitlines()
        assert sorted(msgspec.json.decode(line)["custom_id"] for line in lines) == sorted(everything)
        assert batch.request_counts.completed == 100
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_that_expired_while_the_server_was_killed_stays_expired(tmp_path: Path) -> None:
    """The lines that never ran may all be in the journal before the batch is recorded as ended."""

    async def script(_: str) -> Reply:
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, Scripted(script), Settings(in_progress=10**6))
        batch_id = _submit(store, engine, 3)
        async with asyncio.timeout(DEADLINE):
            while engine.batch(batch_id).status is not Status.IN_PROGRESS:
                await asyncio.sleep(0.005)
        await engine.close()
        journal = Journal(tmp_path / "work" / batch_id / "answers")
        for number in range(3):
            line = never_ran_line(f"row-{number}", Status.EXPIRED)
            journal.append(number + 1, Ending.NEVER_RAN, Tokens(), line)
        journal.close()
        store.clock.advance(86_400)

        engine = Engine(store, Scripted(script), Settings())
        await engine.resume()
        batch = await _ended(engine, batch_id)
        assert batch.status is Status.EXPIRED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 0)
        assert batch.output_file_id is None
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


def test_more_batches_run_at_once_than_files_may_be_open(serve: Serve) -> None:
    server, client = serve(in_progress=600)
    file_id = upload(client, jsonl(chats(3)))
    process = psutil.Process(server.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (64, 64))

    made = [client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id for _ in range(100)]

    for batch_id in made:
        batch = wait(client, client.batches.retrieve(batch_id), lambda seen: seen.status != "validating")
        assert batch.status == "in_progress"
