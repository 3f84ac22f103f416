"""The server's clock: it runs as fast as asked, jumps when told to, and never goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from airflow_provider_batch.local import clock as clock_module
from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import make_client
from tests.local.driving import DEADLINE, answers, chats, failures, jsonl, submit, upload, wait

HOUR, DAY = 3_600, 86_400


class Computer:
    """The computer's own clock, set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shows = 1_000_000.0
        monkeypatch.setattr(clock_module, "time", SimpleNamespace(time=lambda: self.shows))


@pytest.fixture
def computer(monkeypatch: pytest.MonkeyPatch) -> Computer:
    return Computer(monkeypatch)


def test_it_shows_real_time_unless_it_is_told_otherwise(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    assert clock.now() == computer.shows
    computer.shows += 100

    assert clock.now() == computer.shows
    assert clock.seconds() == int(computer.shows)


def test_it_runs_so_much_faster(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", speed=1_000)
    start = clock.now()
    computer.shows += 3

    assert clock.now() == start + 3_000


def test_it_jumps_ahead_and_runs_on_from_there(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json", speed=10)
    start = clock.now()
    computer.shows += 1
    clock.advance(500)
    computer.shows += 1

    assert clock.now() == start + 10 + 500 + 10


def test_it_stands_still_while_the_computers_clock_is_behind(computer: Computer, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock.json")
    computer.shows += 50
    shown = clock.now()
    computer.shows -= 3_000

    assert clock.now() == shown
    clock.advance(7)
    assert clock.now() == shown + 7


@pytest.mark.parametrize("away", [0.0, 40.0, -5_000.0])
@pytest.mark.parametrize("clean", [True, False])
def test_started_again_it_never_goes_back(computer: Computer, tmp_path: Path, clean: bool, away: float) -> None:
    first = Clock(tmp_path / "clock.json", speed=100)
    first.advance(DAY)
    if clean:
        computer.shows += 10
        first.stop()
    shown = first.now()
    computer.shows += away

    assert Clock(tmp_path / "clock.json").now() >= shown


def test_while_the_server_is_away_real_time_passes(computer: Computer, tmp_path: Path) -> None:
    first = Clock(tmp_path / "clock.json", speed=1_000)
    computer.shows += 60
    first.stop()
    shown = first.now()
    computer.shows += DAY

    assert Clock(tmp_path / "clock.json", speed=1_000).now() == shown + DAY


def test_a_clock_that_was_behind_catches_up_with_real_time(computer: Computer, tmp_path: Path) -> None:
    Clock(tmp_path / "clock.json", speed=0.001)
    computer.shows += HOUR

    assert Clock(tmp_path / "clock.json").now() == computer.shows


def test_sleepers_wake_when_their_time_has_come_and_not_before(tmp_path: Path) -> None:
    async def go() -> None:
        clock = Clock(tmp_path / "clock.json")
        near, far = (asyncio.ensure_future(clock.sleep(hours * HOUR)) for hours in (1, 3))
        await asyncio.sleep(0)
        clock.advance(2 * HOUR)
        async with asyncio.timeout(DEADLINE):
            await near
        assert not far.done()
        clock.advance(HOUR)
        async with asyncio.timeout(DEADLINE):
            await far

    asyncio.run(go())


def test_a_fast_clocks_sleepers_sleep_less(tmp_path: Path) -> None:
    async def go() -> None:
        clock = Clock(tmp_path / "clock.json", speed=1_000_000)
        start = clock.now()
        async with asyncio.timeout(DEADLINE):
            await clock.sleep(DAY)
        assert clock.now() >= start + DAY

    asyncio.run(go())


# on a running server, whose batches take an hour and then ten minutes more


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("slow"), in_progress=HOUR, finalizing=600, admin=True) as running:
        yield running


@pytest.fixture
def client(slow: LocalServer) -> Iterator[OpenAI]:
    with make_client(slow) as opened:
        yield opened


def completed(batch: Batch) -> int:
    assert batch.request_counts is not None
    return batch.request_counts.completed


def test_a_jump_wakes_a_batch_that_waits(slow: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(10)), lambda seen: seen.status == "in_progress")
    assert completed(batch) == 0

    slow.advance(HOUR / 2)
    wait(client, batch, lambda seen: completed(seen) == 5)
    slow.advance(HOUR / 2)
    batch = wait(client, batch, lambda seen: seen.status == "finalizing")
    assert completed(batch) == 10
    slow.advance(600)
    batch = wait(client, batch)
    assert batch.status == "completed"
    assert batch.completed_at is not None
    assert HOUR + 600 <= batch.completed_at - batch.created_at < 2 * HOUR


def test_a_jump_over_the_window_expires_a_batch_with_what_it_has(slow: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(10)), lambda seen: seen.status == "in_progress")
    assert batch.expires_at == batch.created_at + DAY
    slow.advance(HOUR / 2)
    wait(client, batch, lambda seen: completed(seen) == 5)

    slow.advance(DAY)
    batch = wait(client, batch)
    assert batch.status == "expired"
    assert batch.expired_at is not None
    assert batch.expired_at >= batch.created_at + DAY
    assert len(answers(client, batch)) == 5
    assert [line["error"]["code"] for line in failures(client, batch).values()] == ["batch_expired"] * 5


def test_a_batch_input_file_is_gone_after_30_days(slow: LocalServer, client: OpenAI) -> None:
    file = client.files.retrieve(upload(client, jsonl(chats(1))))
    assert file.expires_at == file.created_at + 30 * DAY

    slow.advance(30 * DAY - HOUR)
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).content == jsonl(chats(1))
    assert file.id in {listed.id for listed in client.files.list()}
    slow.advance(HOUR)
    assert file.id not in {listed.id for listed in client.files.list()}
    for gone in (client.files.content, client.files.retrieve):
        with pytest.raises(openai.NotFoundError):
            gone(file.id)


def test_a_result_file_is_gone_after_30_days(slow: LocalServer, client: OpenAI) -> None:
    batch = wait(client, submit(client, chats(1)), lambda seen: seen.status == "in_progress")
    slow.advance(HOUR)
    wait(client, batch, lambda seen: seen.status == "finalizing")
    slow.advance(600)
    batch = wait(client, batch)
    assert len(answers(client, batch)) == 1

    slow.advance(30 * DAY)
    with pytest.raises(openai.NotFoundError):
        client.files.content(batch.output_file_id or "")
    assert client.batches.retrieve(batch.id) == batch, "the batch itself stays"


def test_a_killed_server_goes_on_from_what_its_clock_showed(slow: LocalServer, client: OpenAI) -> None:
    slow.advance(90 * DAY)
    batch = submit(client, chats(10))
    slow.kill()
    slow.start()

    later = submit(client, chats(1))
    assert later.created_at >= batch.created_at
    slow.advance(DAY)
    assert wait(client, batch).status == "expired"
