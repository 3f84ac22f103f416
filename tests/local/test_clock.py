"""The server's clock: it runs at the configured speed, jumps ahead on request, and never goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import openai
import pytest
from openai import OpenAI

from airflow_provider_batch.local import clock as clock_module
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import make_client
from tests.local.driving import DEADLINE, answers, chats, failures, jsonl, submit, upload, wait

if TYPE_CHECKING:
    from openai.types import Batch

HOUR, DAY = 3_600, 86_400


class Computer:
    """The computer's clock, which the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1_000_000.0
        monkeypatch.setattr(clock_module, "time", SimpleNamespace(time=lambda: self.time))


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(monkeypatch)


def test_it_shows_real_time_by_default(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    assert clock.now() == computer.time
    computer.time += 100

    assert clock.now() == computer.time
    assert clock.seconds() == int(computer.time)


def test_it_runs_at_the_given_speed(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", speed=1_000)
    start = clock.now()
    computer.time += 3

    assert clock.now() == start + 3_000


def test_it_jumps_ahead_and_continues_from_there(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", speed=10)
    start = clock.now()
    computer.time += 1
    clock.advance(500)
    computer.time += 1

    assert clock.now() == start + 10 + 500 + 10


def test_it_stands_still_while_the_computers_clock_is_behind_it(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    computer.time += 50
    previous = clock.now()
    computer.time -= 3_000

    assert clock.now() == previous
    clock.advance(7)
    assert clock.now() == previous + 7


@pytest.mark.parametrize("away", [0.0, 40.0, -5_000.0])
@pytest.mark.parametrize("clean", [True, False])
def test_it_never_goes_back_after_a_restart(computer: Computer, tmp_path: Path, clean: bool, away: float) -> None:
    first = Clock(tmp_path / "clock.json", speed=100)
    first.advance(DAY)
    if clean:
        computer.time += 10
        first.stop()
    previous = first.now()
    computer.time += away

    assert Clock(tmp_path / "clock.json").now() >= previous


def test_it_runs_at_real_time_speed_while_the_server_is_stopped(computer: Computer, tmp_path: Path) -> None:
    first = Clock(tmp_path / "clock.json", speed=1_000)
    computer.time += 60
    first.stop()
    previous = first.now()
    computer.time += DAY

    assert Clock(tmp_path / "clock.json", speed=1_000).now() == previous + DAY


def test_a_clock_that_is_behind_real_time_catches_up_at_a_restart(computer: Computer, tmp_path: Path) -> None:
    Clock(tmp_path / "clock.json", speed=0.001)
    computer.time += HOUR

    assert Clock(tmp_path / "clock.json").now() == computer.time


def test_a_sleep_ends_when_it_is_due_and_not_before(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock(tmp_path / "clock.json")
        first, second = (asyncio.ensure_future(clock.sleep(hours * HOUR)) for hours in (1, 3))
        await asyncio.sleep(0)
        clock.advance(2 * HOUR)
        async with asyncio.timeout(DEADLINE):
            await first
        assert not second.done()
        clock.advance(HOUR)
        async with asyncio.timeout(DEADLINE):
            await second

    asyncio.run(scenario())


def test_a_sleep_on_a_fast_clock_is_shorter(tmp_path: Path) -> None:
    async def scenario() -> None:
        clock = Clock(tmp_path / "clock.json", speed=1_000_000)
        start = clock.now()
        async with asyncio.timeout(DEADLINE):
            await clock.sleep(DAY)
        assert clock.now() >= start + DAY

    asyncio.run(scenario())


# with a server whose batches are in progress for an hour and in finalizing for ten minutes


@pytest.fixture(scope="module")
def slow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("slow"), in_progress=HOUR, finalizing=600, admin=True) as server:
        yield server


@pytest.fixture
def client(slow_server: LocalServer) -> Iterator[OpenAI]:
    with make_client(slow_server) as client:
        yield client


def completed(batch: Batch) -> int:
    assert batch.request_counts is not None
    return batch.request_counts.completed


def test_a_jump_advances_a_running_batch(slow_server: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(10)), lambda batch: batch.status == "in_progress")
    assert completed(batch) == 0

    slow_server.advance(HOUR / 2)
    wait(client, batch, lambda batch: completed(batch) == 5)
    slow_server.advance(HOUR / 2)
    batch = wait(client, batch, lambda batch: batch.status == "finalizing")
    assert completed(batch) == 10
    slow_server.advance(600)
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert batch.completed_at is not None
    assert HOUR + 600 <= batch.completed_at - batch.created_at < 2 * HOUR


def test_a_jump_past_the_window_expires_a_batch_and_keeps_its_answers(slow_server: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(10)), lambda batch: batch.status == "in_progress")
    assert batch.expires_at == batch.created_at + DAY
    slow_server.advance(HOUR / 2)
    wait(client, batch, lambda batch: completed(batch) == 5)

    slow_server.advance(DAY)
    batch = wait(client, batch)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert batch.expired_at >= batch.created_at + DAY
    assert len(answers(client, batch)) == 5
    assert [line["error"]["code"] for line in failures(client, batch).values()] == ["batch_expired"] * 5


def test_a_batch_input_file_expires_after_30_days(slow_server: LocalServer, client: OpenAI) -> None:
    file = client.files.retrieve(upload(client, jsonl(chats(1))))
    assert file.expires_at == file.created_at + 30 * DAY

    slow_server.advance(30 * DAY - HOUR)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == jsonl(chats(1))
    assert file.id in {file.id for file in client.files.list()}
    slow_server.advance(HOUR)
    assert file.id not in {file.id for file in client.files.list()}
    for call in (client.files.content, client.files.retrieve):
        with pytest.raises(openai.NotFoundError):
            call(file.id)


def test_a_result_file_expires_after_30_days(slow_server: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(1)), lambda batch: batch.status == "in_progress")
    slow_server.advance(HOUR)
    wait(client, batch, lambda batch: batch.status == "finalizing")
    slow_server.advance(600)
    batch = wait(client, batch)
    assert len(answers(client, batch)) == 1

    slow_server.advance(30 * DAY)
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id or "")
    assert client.batches.retrieve(batch.id) == batch, "the batch itself does not expire"


def test_the_clock_of_a_killed_server_continues_after_its_last_time(slow_server: LocalServer, client: OpenAI) -> None:
    slow_server.advance(90 * DAY)
    batch = submit(client, chats(10))
    slow_server.kill()
    slow_server.start()

    later = submit(client, chats(1))
    assert later.created_at >= batch.created_at
    slow_server.advance(DAY)
    assert wait(client, batch).status == "expired"
