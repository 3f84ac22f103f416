"""The engine with slow and failing responders, which the offline responder is not."""

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
from airflow_provider_batch.local.engine.lines import never_ran_line
from airflow_provider_batch.local.settings import Settings
from airflow_provider_batch.local.storage.journal import Ending, Journal
from airflow_provider_batch.local.storage.store import Store
from tests.local.conftest import Serve
from tests.local.driving import CHAT, DEADLINE, chats, jsonl, upload, wait


class ScriptedResponder:
    """A responder that runs a script for each custom_id and records the requests."""

    def __init__(self, script: Callable[[str], Coroutine[Any, Any, Reply]]) -> None:
        self.custom_ids: list[str] = []
        self._script = script

    def model_name(self, model: str) -> str:
        return model

    async def answer(self, request: ModelRequest) -> Reply:
        assert request.custom_id is not None
        self.custom_ids.append(request.custom_id)
        return await self._script(request.custom_id)


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


async def _wait_until_ended(engine: Engine, batch_id: str) -> Batch:
    async with asyncio.timeout(DEADLINE):
        while engine.batch(batch_id).status not in FINAL_STATUSES:
            await asyncio.sleep(0.005)
    return engine.batch(batch_id)


def test_an_error_in_the_responder_fails_only_its_line_with_500(tmp_path: Path) -> None:
    async def script(custom_id: str) -> Reply:
        if custom_id == "row-1":
            raise ZeroDivisionError("on purpose")
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, ScriptedResponder(script), Settings())
        batch = await _wait_until_ended(engine, _submit(store, engine, 3))

        assert batch.status is Status.COMPLETED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
        line = msgspec.json.decode(store.path(batch.error_file_id or "").read_bytes())
        assert (line["custom_id"], line["response"]["status_code"]) == ("row-1", 500)
        await engine.close()
        store.close()

    asyncio.run(go())


@pytest.mark.parametrize("exception", [ZeroDivisionError, TimeoutError, asyncio.CancelledError])
def test_a_batch_completes_although_the_responder_raises_on_every_other_line(
    tmp_path: Path, exception: type[BaseException]
) -> None:
    async def script(custom_id: str) -> Reply:
        await asyncio.sleep(0)
        if int(custom_id[4:]) % 2:
            raise exception("on purpose")
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, ScriptedResponder(script), Settings(concurrency=4))
        batch = await _wait_until_ended(engine, _submit(store, engine, 20))

        assert batch.status is Status.COMPLETED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (10, 10)
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_uses_all_of_its_allowed_concurrency_and_never_more(tmp_path: Path) -> None:
    async def go() -> None:
        in_flight, max_in_flight, all_started = 0, 0, asyncio.Event()

        async def script(_: str) -> Reply:
            nonlocal in_flight, max_in_flight
            in_flight += 1
            max_in_flight = max(max_in_flight, in_flight)
            if in_flight == 8:
                all_started.set()
            await all_started.wait()
            await asyncio.sleep(0)
            in_flight -= 1
            return Reply(200, {})

        store = Store(tmp_path)
        responder = ScriptedResponder(script)
        engine = Engine(store, responder, Settings(concurrency=8))
        batch_id = _submit(store, engine, 100)
        batch = await _wait_until_ended(engine, batch_id)

        assert max_in_flight == 8
        assert sorted(responder.custom_ids) == sorted(f"row-{number}" for number in range(100)), (
            "each line is sent once"
        )
        lines = store.path(batch.output_file_id or "").read_bytes().splitlines()
        custom_ids = [msgspec.json.decode(line)["custom_id"] for line in lines]
        assert sorted(custom_ids) == sorted(responder.custom_ids)
        assert batch.request_counts.completed == 100
        await engine.close()
        store.close()

    asyncio.run(go())


def test_an_answered_request_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    async def go() -> None:
        last_started = asyncio.Event()

        async def first_script(custom_id: str) -> Reply:
            if int(custom_id[4:]) % 10 == 7:
                if custom_id == "row-77":
                    last_started.set()
                await asyncio.Event().wait()
            return Reply(200, {})

        async def second_script(_: str) -> Reply:
            await asyncio.sleep(0)
            return Reply(200, {})

        store = Store(tmp_path)
        first = ScriptedResponder(first_script)
        engine = Engine(store, first, Settings(concurrency=8))
        batch_id = _submit(store, engine, 100)
        async with asyncio.timeout(DEADLINE):
            await last_started.wait()
        await engine.close()
        unanswered = {f"row-{number}" for number in range(7, 80, 10)}
        answered_rows = set(first.custom_ids) - unanswered

        second = ScriptedResponder(second_script)
        engine = Engine(store, second, Settings(concurrency=8))
        await engine.resume()
        batch = await _wait_until_ended(engine, batch_id)
        all_rows = {f"row-{number}" for number in range(100)}
        assert sorted(second.custom_ids) == sorted(all_rows - answered_rows)
        assert len(answered_rows) > 60
        lines = store.path(batch.output_file_id or "").read_bytes().splitlines()
        assert sorted(msgspec.json.decode(line)["custom_id"] for line in lines) == sorted(all_rows)
        assert batch.request_counts.completed == 100
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_that_expired_when_the_server_was_killed_stays_expired(tmp_path: Path) -> None:
    """All lines that never ran can be in the journal before the batch is stored as ended."""

    async def script(_: str) -> Reply:
        return Reply(200, {})

    async def go() -> None:
        store = Store(tmp_path)
        engine = Engine(store, ScriptedResponder(script), Settings(in_progress=10**6))
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

        engine = Engine(store, ScriptedResponder(script), Settings())
        await engine.resume()
        batch = await _wait_until_ended(engine, batch_id)
        assert batch.status is Status.EXPIRED
        assert (batch.request_counts.completed, batch.request_counts.failed) == (0, 0)
        assert batch.output_file_id is None
        await engine.close()
        store.close()

    asyncio.run(go())


@pytest.mark.parametrize("row", [1, 2])
def test_only_requests_in_flight_are_answered_when_their_batch_is_cancelled(tmp_path: Path, row: int) -> None:
    async def go() -> None:
        row_started, row_may_finish = asyncio.Event(), asyncio.Event()

        async def script(custom_id: str) -> Reply:
            if custom_id == f"row-{row}":
                row_started.set()
                await row_may_finish.wait()
            return Reply(200, {})

        store = Store(tmp_path)
        responder = ScriptedResponder(script)
        engine = Engine(store, responder, Settings())
        batch_id = _submit(store, engine, 3)
        async with asyncio.timeout(DEADLINE):
            await row_started.wait()
        assert engine.cancel(batch_id).status is Status.CANCELLING
        row_may_finish.set()
        batch = await _wait_until_ended(engine, batch_id)

        assert batch.status is Status.CANCELLED
        assert batch.finalizing_at is None
        assert batch.request_counts.completed == row + 1
        assert responder.custom_ids == [f"row-{number}" for number in range(row + 1)]
        await engine.close()
        store.close()

    asyncio.run(go())


def test_a_batch_whose_journal_is_missing_fails_with_a_server_error(tmp_path: Path) -> None:
    async def go() -> None:
        async def script(_: str) -> Reply:
            return Reply(200, {})

        store = Store(tmp_path)
        engine = Engine(store, ScriptedResponder(script), Settings(in_progress=0.5))
        batch_id = _submit(store, engine, 3)
        async with asyncio.timeout(DEADLINE):
            while engine.batch(batch_id).status is not Status.IN_PROGRESS:
                await asyncio.sleep(0.005)
        (tmp_path / "work" / batch_id / "answers").unlink()
        batch = await _wait_until_ended(engine, batch_id)

        assert batch.status is Status.FAILED
        assert batch.errors is not None
        assert batch.errors.data[0].code == "server_error"
        await engine.close()
        store.close()

    asyncio.run(go())


def test_files_without_a_record_are_deleted_when_the_state_is_opened(tmp_path: Path) -> None:
    Store(tmp_path).close()
    (tmp_path / "files" / "file-half").write_bytes(b"half an upload")
    (tmp_path / "work" / "batch_gone").mkdir()

    store = Store(tmp_path)
    assert list(store.files.iterdir()) == []
    assert list(store.work.iterdir()) == []
    store.close()


def test_an_expired_file_is_deleted_from_the_disk(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.path("file-1").write_bytes(b"{}")
    store.add_file(FileObject(id="file-1", bytes=2, created_at=0, expires_at=1, filename="a", purpose="batch"))

    assert store.file("file-1") is None
    assert not store.path("file-1").exists()
    store.close()


def test_more_batches_can_run_than_files_may_be_open(serve: Serve) -> None:
    server, client = serve(in_progress=600)
    file_id = upload(client, jsonl(chats(3)))
    process = psutil.Process(server.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (64, 64))

    batch_ids = [
        client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h").id for _ in range(100)
    ]

    for batch_id in batch_ids:
        batch = wait(client, client.batches.retrieve(batch_id), lambda current: current.status != "validating")
        assert batch.status == "in_progress"
