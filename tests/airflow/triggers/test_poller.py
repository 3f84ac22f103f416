"""The poller: which requests it sends for its triggers, how it ends, and how it recovers from errors."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_batch.triggers.walk import MIN_FOR_STARTS
from tests.airflow.triggers.conftest import CONN
from tests.airflow.triggers.provider import Provider, ReceivedRequest, Reply, batch

Run = Callable[[Any], Any]


def trigger(*batch_ids: str, job: str = "0123456789", **changes: Any) -> Any:
    from airflow_provider_batch.triggers.batch import BatchTrigger

    arguments = {"deadline": None, "poll_interval": 0.1} | changes
    return BatchTrigger(openai_conn_id=CONN, job_uid=job, batch_ids=batch_ids, **arguments)


async def event_of(trigger: Any) -> dict[str, Any]:
    """Return the payload of a trigger's event."""
    async for event in trigger.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("the trigger ended without an event")


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number}" for number in range(start, start + count)]


def test_a_thousand_triggers_that_start_together_cost_few_pages(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        provider.add(*names(3000))
        with ExitStack() as stack:
            watches = []
            for number in range(0, 3000, 3):
                (watch, _) = stack.enter_context(watch_batches(CONN, names(3, number), 3600))
                watches.append(watch)
            await until(lambda: all(len(watch.latest) == 3 for watch in watches))
            assert 30 <= len(provider.lists) <= 60
            assert len(provider.singles) < MIN_FOR_STARTS

    with_provider(test)


def test_the_batches_of_a_new_trigger_are_read_soon_without_reading_the_others(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        provider.add(*names(300))
        with watch_batches(CONN, names(299), 3600) as (first, _):
            await until(lambda: len(first.latest) == 299)
            provider.requests.clear()
            with watch_batches(CONN, ["batch_299"], 3600) as (newcomer, _):
                await until(lambda: len(newcomer.latest) == 1)
            assert [request.batch_id for request in provider.requests] == ["batch_299"]

    with_provider(test)


def test_all_triggers_share_one_client_and_no_request_follows_the_last_trigger(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.clients import _shared
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        provider.add(*names(8))
        # A read is in progress when the last trigger leaves.
        provider.override = lambda request: None if len(provider.requests) < 30 else (200, b"x", {})
        with (
            watch_batches(CONN, names(4), 0.05) as (_, poller),
            watch_batches(CONN, names(4, 4), 0.05) as (_, second_poller),
        ):
            assert poller is second_poller
            await until(lambda: len(provider.requests) > 10)
            shared = _shared[asyncio.get_running_loop()][CONN]
            client = await shared.get()
        await until(lambda: not _shared[asyncio.get_running_loop()])
        assert client.is_closed()
        count = len(provider.requests)
        await asyncio.sleep(0.5)
        assert len(provider.requests) == count

    with_provider(test)


def test_an_interval_of_zero_does_not_flood_the_server(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        provider.add("batch_0")
        with watch_batches(CONN, ["batch_0"], 0):
            await asyncio.sleep(1)
        assert len(provider.requests) <= 100

    with_provider(test)


def test_a_trigger_that_comes_after_the_last_one_left_gets_a_new_poller(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add("batch_0", status="completed")
        for _ in range(3):
            assert await event_of(trigger("batch_0")) == {"reason": "ended"}

    with_provider(test)


def test_ended_batches_are_not_read_again(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        provider.add("ended_1", "ended_2", status="completed")
        provider.add("running")
        with watch_batches(CONN, ["ended_1", "ended_2", "running"], 0.02) as (watch, _):
            await until(lambda: len(watch.latest) == 3)
            provider.requests.clear()
            await until(lambda: len(provider.requests) > 5)
            assert set(provider.singles) == {"running"}
            assert provider.lists == []

    with_provider(test)


def test_retry_after_delays_every_read_of_the_connection(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(2), status="completed")
        limits = iter([True])

        def reply(request: ReceivedRequest) -> Reply | None:
            return (429, {"error": {"message": "slow down"}}, {"retry-after": "2"}) if next(limits, False) else None

        provider.override = reply
        first, second = trigger("batch_0"), trigger("batch_1")
        assert list(await asyncio.gather(event_of(first), event_of(second))) == [{"reason": "ended"}] * 2
        # The second request may have been sent before the answer to the first one arrived.
        started_at = provider.requests[0].received_at
        delays = [request.received_at - started_at for request in provider.requests[2:]]
        assert all(seconds > 1.5 for seconds in delays)

    with_provider(test)


@pytest.mark.parametrize(
    "reply",
    [
        (500, b"oh no", {}),
        (200, b"<html>wait</html>", {}),
        (200, b"[" * 100_000, {}),
        (200, {"id": "x"}, {}),
        (503, b"", {"retry-after": "x"}),
    ],
)
def test_unusable_answers_do_not_end_the_wait(with_provider: Run, reply: Reply) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), status="completed")
        provider.override = lambda request: reply if len(provider.requests) < 60 else None
        assert await event_of(trigger(*ids, poll_interval=0.02)) == {"reason": "ended"}

    with_provider(test)


def test_a_batch_that_is_gone_does_not_end_the_wait_while_others_are_read(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add("running")
        waiting = asyncio.ensure_future(event_of(trigger("running", "gone")))
        await until(lambda: provider.singles.count("gone") > 8)
        assert not waiting.done()
        provider.set("running", status="completed")
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def test_a_refused_batch_does_not_end_the_wait_while_there_is_other_work(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        now = datetime.now(UTC)
        times = {
            "wake_at": (now + timedelta(seconds=2)).isoformat(),
            "deadline": (now + timedelta(hours=1)).isoformat(),
        }
        assert await event_of(trigger("gone", poll_interval=0.05, **times)) == {"reason": "due"}
        assert provider.singles.count("gone") > 8
        times["wake_at"] = times["deadline"]
        assert (await event_of(trigger("gone", poll_interval=0.05, **times)))["reason"] == "refused"

    with_provider(test)


def test_refusals_count_only_if_they_follow_one_another(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add("batch_0")

        def refuse_four_of_five(request: ReceivedRequest) -> Reply | None:
            return (404, {"error": {"message": "not here"}}, {}) if len(provider.requests) % 5 else None

        provider.override = refuse_four_of_five
        waiting = asyncio.ensure_future(event_of(trigger("batch_0", poll_interval=0.05)))
        await until(lambda: len(provider.requests) > 22)
        provider.set("batch_0", status="completed")
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def lists_as_created(provider: Provider) -> Callable[[ReceivedRequest], Reply | None]:
    """Return a reply for lists that show every batch as it was at first."""

    def reply(request: ReceivedRequest) -> Reply | None:
        if request.batch_id:
            return None
        page = [batch(batch_id, "validating") for batch_id in provider.batches]
        return 200, {"data": page, "has_more": False}, {}

    return reply


def test_a_list_that_never_moves_holds_up_only_the_first_wait_of_its_connection(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(provider: Provider) -> None:
        warnings: list[str] = []
        ids = provider.add(*names(9), status="in_progress")
        provider.override = lists_as_created(provider)
        first = trigger(*ids, poll_interval=0.05)
        monkeypatch.setattr(first.log, "warning", lambda message, *values: warnings.append(message % values))
        waiting = asyncio.ensure_future(event_of(first))
        await until(lambda: len(warnings) > 0)
        for batch_id in ids:
            provider.set(batch_id, status="completed")
        assert await waiting == {"reason": "ended"}
        (warning,) = warnings
        assert "Job 01234567: The provider's list of batches is out of date" in warning
        assert "are read one by one" in warning

        provider.requests.clear()
        assert await event_of(trigger(*ids, poll_interval=0.05)) == {"reason": "ended"}
        assert provider.lists == []
        assert sorted(provider.singles) == sorted(ids)

    with_provider(test)


def test_a_batch_that_has_ended_does_not_run_again_because_a_page_shows_it_as_running(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.poller import watch_batches

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), status="in_progress")
        provider.set("batch_0", status="completed")
        with watch_batches(CONN, ids, 0.05) as (watch, _):
            await until(lambda: len(watch.latest) == 5)
            assert watch.latest["batch_0"].status.ended
            provider.override = lists_as_created(provider)
            provider.requests.clear()
            await until(lambda: len(provider.lists) > 3)
            assert watch.latest["batch_0"].status.ended
            assert "batch_0" not in provider.singles

    with_provider(test)


def test_a_rotated_key_is_picked_up(with_provider: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), status="completed")
        provider.override = lambda request: None if request.key == "new" else (401, {"error": {"message": "no"}}, {})
        waiting = asyncio.ensure_future(event_of(trigger(*ids, poll_interval=0.3)))
        await until(lambda: len(provider.requests) == 1)
        conn = {"conn_type": "openai", "password": "new", "host": provider.base_url}
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps(conn))
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def test_replacing_an_old_client_does_not_break_requests_in_progress(with_provider: Run) -> None:
    from airflow_provider_batch.triggers.clients import MAX_AGE, shared_client
    from airflow_provider_batch.triggers.list_trust import ListTrust
    from airflow_provider_batch.triggers.reading import Reader

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2))
        provider.latency = 0.3
        async with shared_client(CONN) as shared:
            results: dict[str, Any] = {}
            reading = asyncio.ensure_future(Reader(shared, ListTrust()).read(ids, results.__setitem__))
            await until(lambda: len(provider.requests) == 2)
            client = await shared.get()
            shared._built_at -= 2 * MAX_AGE
            assert await shared.get() is not client
            assert await reading is None
            assert {view.status for view in results.values()} == {"running"}
        assert client.is_closed()

    with_provider(test)


def test_a_crash_is_logged_by_every_waiting_trigger_and_the_poller_restarts(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_batch.triggers import pace, poller

    errors: dict[str, str] = {}

    def crash_at_first(*arguments: Any) -> float:
        if len(errors) < 2:
            raise ZeroDivisionError("a bug in the poller")
        return pace.seconds_until_next_read(*arguments)

    monkeypatch.setattr(poller, "seconds_until_next_read", crash_at_first)

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(4), status="completed")
        triggers = [trigger(*ids[:2], job="first"), trigger(*ids[2:], job="other")]

        def error(message: str, job: str, *, exc_info: Exception) -> None:
            errors[job] = f"{message} {exc_info!r}"

        for waiting in triggers:
            monkeypatch.setattr(waiting.log, "error", error)
        assert await asyncio.gather(*map(event_of, triggers)) == [{"reason": "ended"}] * 2

    with_provider(test)
    assert set(errors) == {"first", "other"}
    assert all("crashed and is being restarted" in line and "a bug in the poller" in line for line in errors.values())


def test_a_poller_that_was_cancelled_is_restarted(with_provider: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_batch.triggers import batch

    monkeypatch.setattr(batch, "REPORT_INTERVAL", 0.2)

    async def test(provider: Provider) -> None:
        provider.add("batch_0")
        waiting = asyncio.ensure_future(event_of(trigger("batch_0")))
        await until(lambda: len(provider.requests) > 1)
        (task,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("batch poller")]
        task.cancel()
        provider.set("batch_0", status="completed")
        assert await waiting == {"reason": "ended"}

    with_provider(test)


def test_the_same_trigger_in_two_loops_fires_twice_and_cancels_nothing(with_provider: Run) -> None:
    """As happens when a triggerer that is considered dead keeps running next to the one that took over."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(4))

        def other_loop() -> dict[str, Any]:
            return asyncio.run(event_of(trigger(*ids)))

        second_event = asyncio.ensure_future(asyncio.to_thread(other_loop))
        waiting = asyncio.ensure_future(event_of(trigger(*ids)))
        await until(lambda: len(provider.lists) > 4)
        for batch_id in ids:
            provider.set(batch_id, status="completed")
        assert [await waiting, await second_event] == [{"reason": "ended"}] * 2
        assert {request.method for request in provider.requests} == {"GET"}

    with_provider(test)


def test_two_hundred_batches_that_end_one_by_one_wake_the_worker_a_handful_of_times(with_provider: Run) -> None:
    async def test(provider: Provider) -> int:
        pending = provider.add(*names(200))

        async def end_one_by_one() -> None:
            for batch_id in names(200):
                provider.set(batch_id, status="completed")
                await asyncio.sleep(0.02)

        ending = asyncio.ensure_future(end_one_by_one())
        wakes = 0
        while pending:
            assert await event_of(trigger(*pending, poll_interval=0.05)) == {"reason": "ended"}
            wakes += 1
            pending = [batch_id for batch_id in pending if provider.batches[batch_id]["status"] != "completed"]
        await ending
        return wakes

    assert 1 < with_provider(test) <= 10


def test_if_shards_wait_for_queue_capacity_the_trigger_fires_within_one_interval(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(50), created_at=1)
        provider.set("batch_7", status="completed")
        # Without `any_end`, a job this old would wait for half of its age.
        assert await event_of(trigger(*names(50), any_end=True)) == {"reason": "ended"}

    with_provider(test)


def test_importing_the_trigger_does_not_import_the_sdk() -> None:
    """Airflow imports it in the triggerer's event loop, which the half second of importing the SDK would block."""
    program = """
import sys
import airflow.triggers.base
import airflow_provider_batch.triggers.batch
slow = {"openai", "httpx2", "genai_prices", "jsonschema_rs", "airflow.providers.openai.hooks"} & set(sys.modules)
print("slow:", sorted(slow))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert "slow: []" in result.stdout
