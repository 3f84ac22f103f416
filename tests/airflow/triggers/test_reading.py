"""Reading many batches: few requests are enough, and a misbehaving server cannot make the result wrong or endless."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.batch import BatchView
from tests.airflow.triggers.conftest import CONN
from tests.airflow.triggers.provider import Provider, ReceivedRequest, Reply, batch

Run = Callable[[Any], Any]


async def read_all(*sweeps: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """Read the batches of each sweep with one reader.

    Return the last result for each batch, and for each sweep why it was cut short, or None.
    """
    from airflow_provider_batch.triggers.clients import shared_client
    from airflow_provider_batch.triggers.reading import Reader

    results: dict[str, Any] = {}
    async with shared_client(CONN) as shared:
        reader = Reader(shared)
        failures = [await reader.read(batch_ids, results.__setitem__) for batch_ids in sweeps]
    return results, failures


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number}" for number in range(start, start + count)]


def batches_in(results: dict[str, Any]) -> set[str]:
    return {batch_id for batch_id, result in results.items() if isinstance(result, BatchView)}


def test_a_thousand_batches_cost_ten_pages(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        results, failures = await read_all(ids)
        assert batches_in(results) == set(ids)
        assert failures == [None]
        assert (len(provider.lists), provider.singles) == (10, [])

    with_provider(test)


def test_a_few_batches_are_read_one_by_one(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(500))
        results, _ = await read_all(names(2))
        assert batches_in(results) == set(names(2))
        assert provider.lists == []

    with_provider(test)


def test_the_list_is_read_only_as_long_as_it_saves_requests(with_provider: Run) -> None:
    """The newest two hundred batches are ours, and three more lie below ten thousand of others."""

    async def test(provider: Provider) -> None:
        oldest = provider.add(*names(3))
        provider.add(*names(10_000, start=1000))
        newest = provider.add(*names(200, start=20_000))
        results, _ = await read_all(oldest + newest)
        assert batches_in(results) >= set(oldest + newest)
        assert len(provider.lists) == 3
        assert sorted(provider.singles) == oldest

    with_provider(test)


def test_some_pages_with_batches_of_others_do_not_stop_the_reading_of_the_list(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ours = provider.add(*names(400))
        provider.add(*names(600, start=1000))
        await read_all(ours)
        assert (len(provider.lists), provider.singles) == (10, [])

    with_provider(test)


def test_pages_that_showed_our_batches_last_time_are_read_concurrently(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        await read_all(ids)
        assert provider.max_concurrent == 1
        provider.requests.clear()
        await read_all(ids, ids)
        assert len(provider.lists) == 20
        assert provider.singles == []
        assert 1 < provider.max_concurrent <= 16

    with_provider(test)


def test_new_batches_at_the_top_of_the_list_cost_few_additional_requests(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))

        def add_batches(request: ReceivedRequest) -> None:
            provider.add(f"other_{len(provider.requests)}_a", f"other_{len(provider.requests)}_b")

        provider.override = add_batches
        results, _ = await read_all(*[ids] * 20)
        assert batches_in(results) >= set(ids)
        assert len(provider.requests) <= 20 * 500 / 50

    with_provider(test)


def test_batches_deep_in_the_list_are_read_one_by_one_once_and_then_by_page(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = []
        for hundred in range(3):
            for number in range(1000 * hundred, 1000 * hundred + 100):
                ids += provider.add(f"batch_{number}", created_at=1 + number // 3)
            provider.add(*(f"other_{hundred}_{number}" for number in range(50)))
        provider.add(*(f"other_{number}" for number in range(2000)))
        await read_all(ids)
        initial_requests = len(provider.requests)
        assert set(provider.singles) == set(ids)
        provider.requests.clear()
        await read_all(*[ids] * 11)
        assert len(provider.requests) - initial_requests <= 10 * 300 / 20

    with_provider(test)


def ignores_after(provider: Provider) -> Callable[[ReceivedRequest], Reply | None]:
    def reply(request: ReceivedRequest) -> Reply | None:
        if request.batch_id:
            return None
        return 200, {"data": list(provider.batches.values())[:100], "has_more": True}, {}

    return reply


def never_ends(provider: Provider) -> Callable[[ReceivedRequest], Reply | None]:
    def reply(request: ReceivedRequest) -> Reply | None:
        page = [batch(f"other_{len(provider.requests)}_{number}") for number in range(100)]
        return None if request.batch_id else (200, {"data": page, "has_more": True}, {})

    return reply


def always_answers(status: int, body: Any) -> Callable[[Provider], Callable[[ReceivedRequest], Reply | None]]:
    return lambda provider: lambda request: None if request.batch_id else (status, body, {})


@pytest.mark.parametrize(
    ("misbehaviour", "max_pages"),
    [
        pytest.param(ignores_after, 2, id="ignores after"),
        pytest.param(never_ends, 5, id="never ends"),
        pytest.param(always_answers(404, {"error": {"message": "no such route"}}), 1, id="has no list"),
        pytest.param(always_answers(403, {"error": {"message": "lists are for admins"}}), 1, id="forbids the list"),
        pytest.param(always_answers(500, b"oh no"), 1, id="500"),
        pytest.param(always_answers(200, b"<html>please wait</html>"), 1, id="a page of HTML"),
        pytest.param(always_answers(200, b'{"data": \xff'), 1, id="broken JSON"),
        pytest.param(always_answers(200, ["batch_1"]), 1, id="a plain list"),
        pytest.param(always_answers(200, {"data": None}), 1, id="no data"),
        pytest.param(always_answers(200, {"data": []}), 1, id="an empty list"),
        pytest.param(
            always_answers(200, {"data": [None, "x", {"id": 5}, {"id": "", "status": "s"}]}), 1, id="no batches in it"
        ),
    ],
)
def test_batches_that_the_list_does_not_show_are_read_one_by_one(
    with_provider: Run, misbehaviour: Any, max_pages: int
) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(150))
        provider.override = misbehaviour(provider)
        results, failures = await read_all(ids)
        assert batches_in(results) >= set(ids)
        assert failures == [None]
        assert len(provider.lists) <= max_pages
        assert len(provider.singles) == len(set(provider.singles)) <= 150

    with_provider(test)


def test_a_useless_list_is_skipped_for_some_sweeps_and_then_tried_again(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5))
        provider.override = always_answers(404, {"error": {"message": "no such route"}})(provider)
        await read_all(*[ids] * 12)
        assert 2 <= len(provider.lists) <= 8
        assert len(provider.singles) == 60

    with_provider(test)


def test_a_server_without_has_more_is_read_until_a_page_is_empty(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(200))
        provider.add(*names(1))

        def without_has_more(request: ReceivedRequest) -> Reply | None:
            status, body, headers = provider.default_reply(request)
            return status, {"data": body["data"]} if not request.batch_id else body, headers

        provider.override = without_has_more
        results, _ = await read_all([*ids, "batch_gone"])
        assert batches_in(results) == set(ids)
        assert len(provider.lists) == 3
        assert provider.singles == ["batch_gone"]

    with_provider(test)


def test_a_refused_key_costs_one_request_for_any_number_of_batches(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        provider.override = lambda request: (401, {"error": {"message": "wrong key"}}, {})
        results, _ = await read_all(ids)
        (message,) = {result.message for result in results.values()}
        assert message.startswith("HTTP 401 for the list of batches")
        assert "wrong key" in message
        assert len(results) == 500
        assert len(provider.requests) == 1

    with_provider(test)


def test_a_batch_that_is_gone_is_reported_as_refused_and_the_others_are_read(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(120))
        results, _ = await read_all([*ids, "batch_gone"])
        assert batches_in(results) == set(ids)
        assert results["batch_gone"].message.startswith("HTTP 404 for batch batch_gone: ")

    with_provider(test)


@pytest.mark.parametrize("count", [2, 300])
def test_retry_after_cuts_a_sweep_short(with_provider: Run, count: int) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(count))
        provider.override = lambda request: (429, {"error": {"message": "slow down"}}, {"retry-after": "17"})
        _, (failure,) = await read_all(ids)
        assert failure.pause == 17
        assert len(provider.requests) <= 2

    with_provider(test)


def test_a_server_that_fails_every_read_is_not_called_for_every_batch(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        provider.override = lambda request: (500, b"oh no", {})
        results, (failure,) = await read_all(ids)
        assert failure.message == "HTTP 500"
        assert batches_in(results) == set()
        assert len(provider.requests) < 50

    with_provider(test)


def test_a_batch_that_cannot_be_read_does_not_stop_the_others(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2))
        provider.override = lambda request: (500, b"oh no", {}) if request.batch_id == "batch_0" else None
        results, failures = await read_all(ids)
        assert (batches_in(results), results["batch_0"].message) == ({"batch_1"}, "HTTP 500")
        assert failures == [None]

    with_provider(test)


def test_at_most_sixteen_reads_run_concurrently(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(200))
        provider.override = always_answers(404, {})(provider)
        await read_all(ids)
        assert 2 < provider.max_concurrent <= 16

    with_provider(test)


def test_a_connection_without_a_usable_client_is_a_transient_failure(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(provider: Provider) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps({"conn_type": "openai", "extra": "no JSON"}))
        _, (failure,) = await read_all(names(5))
        assert f"cannot create an OpenAI client from connection {CONN!r}" in failure.message
        assert provider.requests == []

    with_provider(test)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_for_any_pages_each_batch_is_reported_and_the_requests_are_bounded(
    with_provider: Run, data: st.DataObject
) -> None:
    ids = names(data.draw(st.integers(1, 300), label="wanted"))
    page_ids = st.lists(st.sampled_from([*ids, *names(50, start=1000)]), max_size=100)
    pages = data.draw(st.lists(st.tuples(page_ids, st.sampled_from([True, False, None])), max_size=8), label="pages")

    async def test(provider: Provider) -> None:
        provider.add(*ids)
        remaining_pages = iter(pages)

        def reply(request: ReceivedRequest) -> Reply | None:
            if request.batch_id:
                return None
            batch_ids, has_more = next(remaining_pages, ([], None))
            return 200, {"data": [batch(batch_id) for batch_id in batch_ids], "has_more": has_more}, {}

        provider.override = reply
        results, _ = await asyncio.wait_for(read_all(ids), 60)
        assert batches_in(results) >= set(ids)
        assert len(provider.requests) <= len(ids) + len(ids) // 50 + 1
        assert len(provider.singles) == len(set(provider.singles))

    with_provider(test)
