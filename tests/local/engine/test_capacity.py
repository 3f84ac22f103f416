"""The limits of the server: batches per hour, uploads per minute, and enqueued tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import OpenAI

from airflow_provider_batch.local.clock import Clock
from airflow_provider_batch.local.engine.capacity import RateLimit, TokenQueue
from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import CHAT, chats, jsonl, problems, run, submit, upload, wait

if TYPE_CHECKING:
    from openai.types import Batch

HOUR = 3_600


def frozen_clock(folder: Path) -> Clock:
    """Return a clock that moves only when it is advanced."""
    return Clock(folder / "clock.json", speed=1e-12)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return frozen_clock(tmp_path)


# rate limits


def test_every_call_is_allowed_without_a_limit(clock: Clock) -> None:
    rate = RateLimit(clock, None, 60)

    assert {rate.acquire() for _ in range(1_000)} == {0}


def test_a_rejected_call_is_not_counted_and_gets_the_time_to_wait(clock: Clock) -> None:
    rate = RateLimit(clock, 2, 60)
    assert rate.acquire() == 0
    clock.advance(20)
    assert rate.acquire() == 0

    assert [rate.acquire() for _ in range(5)] == pytest.approx([40] * 5, abs=1e-3)
    clock.advance(40.001)
    assert rate.acquire() == 0
    assert rate.acquire() == pytest.approx(20, abs=0.01)


def test_a_lowered_limit_applies_to_restored_calls(clock: Clock) -> None:
    now = clock.now()
    rate = RateLimit(clock, 2, 60)
    rate.restore([now - 50, now - 40, now - 30, now - 20])

    # The next call is allowed when the second-newest call has left the period.
    assert rate.acquire() == pytest.approx(30, abs=1e-3)
    clock.advance(30.001)
    assert rate.acquire() == 0


@given(st.integers(1, 5), st.lists(st.floats(0, 40), max_size=40))
def test_a_call_is_rejected_exactly_when_its_period_is_full(limit: int, gaps: list[float]) -> None:
    with TemporaryDirectory() as folder:
        clock = frozen_clock(Path(folder))
        rate = RateLimit(clock, limit, 60)
        calls: list[float] = []
        for gap in gaps:
            clock.advance(gap)
            now = clock.now()
            recent = [call for call in calls if call > now - 60]
            wait = rate.acquire()
            assert (wait == 0) == (len(recent) < limit)
            if wait:
                clock.advance(wait + 0.001)
                assert rate.acquire() == 0, "the call is allowed after the returned time"
            calls.append(clock.now())


# enqueued tokens


def test_tokens_count_per_model_from_the_start_of_a_batch_to_its_end(clock: Clock) -> None:
    queue = TokenQueue(clock, 100, 0)
    queue.add("a", 60)

    assert queue.fits("a", 40)
    assert not queue.fits("a", 41)
    assert queue.fits("b", 100)
    queue.release("a", 60, clock.now())
    assert queue.fits("a", 100)


def test_tokens_of_an_ended_batch_count_until_they_are_released(clock: Clock) -> None:
    queue = TokenQueue(clock, 100, 600)
    queue.add("a", 60)
    queue.release("a", 60, clock.now())

    clock.advance(599)
    assert queue.enqueued_tokens("a") == 60
    clock.advance(1.001)
    assert queue.enqueued_tokens("a") == 0


@given(st.lists(st.tuples(st.floats(0, 1_000), st.sampled_from("ab"), st.integers(1, 50)), max_size=20))
def test_batches_are_released_in_time_if_they_are_added_in_any_order(
    batches: list[tuple[float, str, int]],
) -> None:
    with TemporaryDirectory() as folder:
        clock = frozen_clock(Path(folder))
        start = clock.now()
        queue = TokenQueue(clock, None, 100)
        for ended_at, model, tokens in batches:
            queue.add(model, tokens)
            queue.release(model, tokens, start + ended_at)

        for _ in range(12):
            now = clock.now()
            for model in "ab":
                assert queue.enqueued_tokens(model) == sum(
                    tokens for ended_at, name, tokens in batches if name == model and start + ended_at + 100 > now
                )
            clock.advance(100)


# on a running server


def rate_limit_error(call: Callable[[], object]) -> openai.RateLimitError:
    with pytest.raises(openai.RateLimitError) as error:
        call()
    assert error.value.code == "rate_limit_exceeded"
    assert error.value.type == "requests"
    return error.value


def retry_after(error: openai.RateLimitError) -> int:
    return int(error.response.headers["retry-after"])


def test_creates_beyond_the_hourly_limit_are_rejected_also_after_a_restart(serve: Serve) -> None:
    server, client = serve(creates_per_hour=3, admin=True)
    file = upload(client, jsonl(chats(1)))

    def create() -> Batch:
        return client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h")

    create()
    server.advance(HOUR / 2)
    create()
    create()
    first = rate_limit_error(create)
    assert "Limit: 3." in first.message
    assert HOUR / 4 < retry_after(first) <= HOUR / 2
    server.kill()
    server.start()
    assert retry_after(rate_limit_error(create)) <= HOUR / 2
    assert len(client.batches.list().data) == 3

    server.advance(HOUR / 2)
    create()
    assert retry_after(rate_limit_error(create)) <= HOUR / 2, "only the first create is older than an hour"
    server.advance(HOUR)
    for _ in range(3):
        create()
    rate_limit_error(create)


def test_the_wait_after_too_many_uploads_is_given_in_real_seconds(serve: Serve) -> None:
    server, client = serve(uploads_per_minute=2, speed=0.01, admin=True)
    for _ in range(2):
        upload(client, jsonl(chats(1)))

    # A minute of this server's clock takes 100 minutes of real time.
    assert 60 < retry_after(rate_limit_error(lambda: upload(client, jsonl(chats(1))))) <= 6_000
    server.advance(60)
    upload(client, jsonl(chats(1)))


def fails_for_tokens(client: OpenAI, lines: int) -> bool:
    """Run a batch with this many lines. Return whether it fails because of the token limit."""
    batch = run(client, chats(lines))
    if batch.status == "completed":
        return False
    assert problems(batch) == [("token_limit_exceeded", None, None)]
    return True


def test_tokens_of_ended_batches_still_count_after_a_restart(serve: Serve) -> None:
    server, client = serve(enqueued_token_limit=100, release_after=HOUR, admin=True)
    assert run(client, chats(6)).status == "completed"

    assert fails_for_tokens(client, 6), "the tokens of the first batch still count although it has ended"
    assert not fails_for_tokens(client, 1)
    server.kill()
    server.start()
    assert fails_for_tokens(client, 6)
    server.advance(HOUR)
    assert not fails_for_tokens(client, 6)


def test_a_cancelled_batch_releases_its_tokens(serve: Serve) -> None:
    server: LocalServer
    server, client = serve(enqueued_token_limit=100, in_progress=HOUR, admin=True)
    batch = wait(client, submit(client, chats(6)), lambda current: current.status == "in_progress")
    assert fails_for_tokens(client, 6)

    client.batches.cancel(batch.id)
    assert wait(client, batch).status == "cancelled"
    later = wait(client, submit(client, chats(6)), lambda current: current.status != "validating")
    assert later.status == "in_progress"
    server.kill()
    server.start()
    assert fails_for_tokens(client, 6), "a batch that continues after the restart still counts"
