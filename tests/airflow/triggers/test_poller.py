"""One poller per connection and loop: who waits, what it asks for them, and how it ends."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.airflow.triggers.conftest import CONN
from tests.airflow.triggers.provider import Asked, Provider, Reply

Run = Callable[[Any], Any]


def trigger(*batch_ids: str, job: str = "0123456789", **changes: Any) -> Any:
    from airflow_provider_batch.triggers.batch import BatchTrigger

    arguments = {"deadline": None, "poll_interval": 0.1} | changes
    return BatchTrigger(openai_conn_id=CONN, job_uid=job, batch_ids=batch_ids, **arguments)


async def event_of(one: Any) -> dict[str, Any]:
    """The payload of a trigger's event."""
    async for event in one.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("the trigger ended without an event")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number}" for number in range(start, start + count)]


def test_a_thousand_triggers_that_start_together_cost_a_page_per_hundred_batches(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watching

    async def test(provider: Provider) -> None:
        provider.add(*names(3000))
        with ExitStack() as stack:
            watches = []
            for number in range(0, 3000, 3):
                (watch, _) = stack.enter_context(watching(CONN, names(3, number), 3600))
                watches.append(watch)
            await until(lambda: all(len(watch.latest) == 3 for watch in watches))
            assert (len(provider.lists), provider.singles) == (30, [])
            assert provider.most_at_once == 1

    with_provider(test)


def test_a_newcomers_batches_are_looked_at_soon_and_no_others_for_it(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watching

    async def test(provider: Provider) -> None:
        provider.add(*names(300))
        with watching(CONN, names(299), 3600) as (first, _):
            await until(lambda: len(first.latest) == 299)
            provider.asked.clear()
            with watching(CONN, ["batch_299"], 3600) as (newcomer, _):
                await until(lambda: len(newcomer.latest) == 1)
            assert [asked.batch_id for asked in provider.asked] == ["batch_299"]

    with_provider(test)


def test_one_client_serves_all_and_no_request_is_made_after_the_last_trigger_left(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.clients import _shared
    from airflow_provider_batch.triggers.poller import watching

    async def test(provider: Provider) -> None:
        provider.add(*names(8))
        # A read is under way when the last one leaves.
        provider.instead = lambda asked: None if len(provider.asked) < 30 else (200, b"x", {})
        with watching(CONN, names(4), 0.05) as (_, poller), watching(CONN, names(4, 4), 0.05) as (_, same):
            assert poller is same
            await until(lambda: len(provider.asked) > 10)
            shared = _shared[asyncio.get_running_loop()][CONN]
            client = await shared.get()
        await until(lambda: not _shared[asyncio.get_running_loop()])
        assert client.is_closed()
        asked = len(provider.asked)
        await asyncio.sleep(0.5)
        assert len(provider.asked) == asked

    with_provider(test)


def test_an_interval_of_nothing_hammers_no_server(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watching

    async def test(provider: Provider) -> None:
        provider.add("batch_0")
        with watching(CONN, ["batch_0"], 0):
            await asyncio.sleep(1)
        assert len(provider.asked) <= 100

    with_provider(test)


def test_the_poller_is_anew_there_for_who_comes_after_the_last_left(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add("batch_0", status="completed")
        for _ in range(3):
            assert await event_of(trigger("batch_0")) == {"reason": "ended"}

    with_provider(test)


def test_ended_batches_are_not_looked_at_again(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watching

    async def test(provider: Provider) -> None:
        provider.add("ended_1", "ended_2", status="completed")
        provider.add("running")
        with watching(CONN, ["ended_1", "ended_2", "running"], 0.02) as (watch, _):
            await until(lambda: len(watch.latest) == 3)
            provider.asked.clear()
            await until(lambda: len(provider.asked) > 5)
            assert set(provider.singles) == {"running"}
            assert provider.lists == []

    with_provider(test)


def test_retry_after_holds_up_every_look_at_that_connection(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(2), status="completed")
        limited = iter([True])

        def reply(asked: Asked) -> Reply | None:
            return (429, {"error": {"message": "slow down"}}, {"retry-after": "2"}) if next(limited, False) else None

        provider.instead = reply
        one, other = trigger("batch_0"), trigger("batch_1")
        assert list(await asyncio.gather(event_of(one), event_of(other))) == [{"reason": "ended"}] * 2
        # what was under way at the time could not know
        later = [asked.at - provider.asked[0].at for asked in provider.asked[2:]]
        assert all(seconds > 1.5 for seconds in later)

    with_provider(test)


@pytest.mark.parametrize(
    "reply",
    [(500, b"oh no", {}), (200, b"<html>wait</html>", {}), (200, {"id": "x"}, {}), (503, b"", {"retry-after": "x"})],
)
def test_answers_of_no_use_end_no_wait(with_provider: Run, reply: Reply) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), status="completed")
        provider.instead = lambda asked: reply if len(provider.asked) < 60 else None
        assert await event_of(trigger(*ids, poll_interval=0.02)) == {"reason": "ended"}

    with_provider(test)


def test_one_batch_that_is_gone_ends_no_wait_while_others_are_seen(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add("running")
        waiting = asyncio.ensure_future(event_of(trigger("running", "gone")))
        await until(lambda: provider.singles.count("gone") > 8)
        assert not waiting.done()
        provider.set("running", status="completed")
        # … but a wait for nothing else ends, and says why.
        assert (await waiting)["reason"] in ("refused", "ended")

    with_provider(test)


def test_a_rotated_key_is_picked_up(with_provider: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), status="completed")
        provider.instead = lambda asked: None if asked.key == "new" else (401, {"error": {"message": "no"}}, {})
        waiting = asyncio.ensure_future(event_of(trigger(*ids, poll_interval=0.3)))
        await until(lambda: len(provider.asked) == 1)
        conn = {"conn_type": "openai", "password": "new", "host": provider.base_url}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps(conn))
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def test_a_client_that_is_replaced_for_its_age_breaks_no_request_that_is_under_way(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.clients import MAX_AGE, shared_client
    from airflow_provider_batch.triggers.reading import Reader

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2))
        provider.latency = 0.3
        async with shared_client(CONN) as shared:
            told: dict[str, Any] = {}
            looking = asyncio.ensure_future(Reader(shared).read(ids, told.__setitem__))
            await until(lambda: len(provider.asked) == 2)
            old = await shared.get()
            shared._built -= 2 * MAX_AGE
            assert await shared.get() is not old
            assert await looking is None
            assert {view.status for view in told.values()} == {"running"}
        assert old.is_closed()

    with_provider(test)


def test_a_crash_reaches_every_waiting_trigger_and_the_poller_starts_anew(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.triggers import pace, poller

    told: dict[str, str] = {}

    def crashing(*arguments: Any) -> float:
        if len(told) < 2:
            raise ZeroDivisionError("a fault of our own")
        return pace.until_next_look(*arguments)

    monkeypatch.setattr(poller, "until_next_look", crashing)

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(4), status="completed")
        triggers = [trigger(*ids[:2], job="first"), trigger(*ids[2:], job="other")]

        def error(message: str, job: str, *, exc_info: Exception) -> None:
            told[job] = f"{message} {exc_info!r}"

        for one in triggers:
            monkeypatch.setattr(one.log, "error", error)
        assert await asyncio.gather(*map(event_of, triggers)) == [{"reason": "ended"}] * 2

    with_provider(test)
    assert set(told) == {"first", "other"}
    assert all("crashed; it starts anew" in line and "a fault of our own" in line for line in told.values())


def test_a_poller_that_somebody_ended_is_started_again(with_provider: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.triggers import batch

    monkeypatch.setattr(batch, "TELL_EVERY", 0.2)

    async def test(provider: Provider) -> None:
        provider.add("batch_0")
        waiting = asyncio.ensure_future(event_of(trigger("batch_0")))
        await until(lambda: len(provider.asked) > 1)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("batch poller")]
        task.cancel()
        provider.set("batch_0", status="completed")
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def test_the_same_trigger_twice_in_two_loops_fires_twice_and_cancels_nothing(with_provider: Run) -> None:
    """As when a triggerer that is thought dead goes on beside the one that took its triggers over."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(4))

        def other_loop() -> dict[str, Any]:
            return asyncio.run(event_of(trigger(*ids)))

        other = asyncio.ensure_future(asyncio.to_thread(other_loop))
        waiting = asyncio.ensure_future(event_of(trigger(*ids)))
        await until(lambda: len(provider.lists) > 4)
        for batch_id in ids:
            provider.set(batch_id, status="completed")
        assert [await waiting, await other] == [{"reason": "ended"}] * 2
        assert {asked.method for asked in provider.asked} == {"GET"}

    with_provider(test)


def test_two_hundred_batches_that_end_one_by_one_wake_the_worker_a_handful_of_times(with_provider: Run) -> None:
    async def test(provider: Provider) -> int:
        left = provider.add(*names(200))

        async def end_one_by_one() -> None:
            for batch_id in names(200):
                provider.set(batch_id, status="completed")
                await asyncio.sleep(0.02)

        ending = asyncio.ensure_future(end_one_by_one())
        wakes = 0
        while left:
            assert await event_of(trigger(*left, poll_interval=0.05)) == {"reason": "ended"}
            wakes += 1
            left = [batch_id for batch_id in left if provider.batches[batch_id]["status"] != "completed"]
        await ending
        return wakes

    assert 1 < with_provider(test) <= 10


def test_where_shards_wait_for_room_ends_are_gathered_for_one_interval_only(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(50), created_at=1)
        provider.set("batch_7", status="completed")
        # An old job would otherwise wait for half of its age.
        assert await event_of(trigger(*names(50), any_end=True)) == {"reason": "ended"}

    with_provider(test)


def test_importing_the_trigger_imports_no_sdk() -> None:
    """Airflow imports it in the triggerer's loop, where the half second that the SDK takes would stop every trigger."""
    program = """
import sys
import airflow.triggers.base
import airflow_provider_batch.triggers.batch
slow = {"openai", "httpx2", "genai_prices", "jsonschema_rs", "airflow.providers.openai.hooks"} & set(sys.modules)
print("slow:", sorted(slow))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "slow: []" in ran.stdout
