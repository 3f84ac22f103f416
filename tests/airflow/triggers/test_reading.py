"""Reading many batches: few requests are enough, and a misbehaving server cannot make the result wrong or endless."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.triggers.clients import SLOTS
from airflow_provider_batch.triggers.list_trust import CONFIRMED_ENDS
from airflow_provider_batch.triggers.walk import BATCHES_PER_WASTED_PAGE, MIN_FOR_STARTS
from tests.airflow.triggers.conftest import CONN
from tests.airflow.triggers.provider import Provider, ReceivedRequest, Reply, batch

Run = Callable[[Any], Any]


@asynccontextmanager
async def new_reader(trust: Any = None) -> AsyncIterator[Any]:
    from airflow_provider_batch.triggers.clients import shared_client
    from airflow_provider_batch.triggers.list_trust import ListTrust
    from airflow_provider_batch.triggers.reading import Reader

    async with shared_client(CONN) as shared:
        yield Reader(shared, trust or ListTrust())


async def read_all(
    *sweeps: list[str],
    trust: Any = None,
    after_sweep: Callable[[dict[str, Any]], None] = lambda results: None,
    on_result: Callable[[str, Any], None] = lambda batch_id, result: None,
) -> tuple[dict[str, Any], list[Any]]:
    """Read the batches of each sweep with one reader, except those that have ended, as the poller does.

    Return the last result for each batch, and for each sweep why it was cut short, or None.
    """
    results: dict[str, Any] = {}
    failures = []

    def report(batch_id: str, result: Any) -> None:
        results[batch_id] = result
        on_result(batch_id, result)

    def has_ended(batch_id: str) -> bool:
        result = results.get(batch_id)
        return isinstance(result, BatchView) and result.status.ended

    async with new_reader(trust) as reader:
        for batch_ids in sweeps:
            failures.append(await reader.read([name for name in batch_ids if not has_ended(name)], report))
            after_sweep(results)
    return results, failures


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number}" for number in range(start, start + count)]


def batches_in(results: dict[str, Any]) -> set[str]:
    return {batch_id for batch_id, result in results.items() if isinstance(result, BatchView)}


def test_a_thousand_batches_cost_some_ten_pages(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        results, failures = await read_all(ids)
        assert batches_in(results) == set(ids)
        assert failures == [None]
        assert 10 <= len(provider.lists) <= 1 + 1000 // BATCHES_PER_WASTED_PAGE + 10
        assert provider.singles == []

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
        assert len(provider.lists) <= 2 + 203 // 50
        assert set(provider.singles) >= set(oldest)
        assert len(provider.singles) < 3 + MIN_FOR_STARTS

    with_provider(test)


def test_batches_below_those_of_others_are_found_without_reading_the_pages_of_the_others(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ours = provider.add(*names(400))
        provider.add(*names(5000, start=1000))
        results, _ = await read_all(ours)
        assert batches_in(results) >= set(ours)
        assert len(provider.lists) <= 20
        assert len(provider.singles) < MIN_FOR_STARTS

    with_provider(test)


def test_the_first_sweep_walks_down_the_list_from_several_places_at_the_same_time(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2000))
        provider.latency = 0.05
        results, _ = await read_all(ids)
        assert batches_in(results) == set(ids)
        assert [request.query.get("after") for request in provider.lists].count(None) == 1
        assert SLOTS // 2 < provider.max_concurrent <= SLOTS
        assert len(provider.lists) <= 2 * 2000 / 100

    with_provider(test)


def test_later_sweeps_read_each_batch_on_one_page_and_all_pages_concurrently(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        sweeps: list[int] = []

        def count_pages(results: dict[str, Any]) -> None:
            sweeps.append(len(provider.lists))
            provider.requests.clear()

        await read_all(ids, ids, ids, after_sweep=count_pages)
        assert sweeps[1:] == [10, 10]
        assert provider.max_concurrent == 10

    with_provider(test)


def test_new_batches_at_the_top_of_the_list_cost_few_additional_requests(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))

        def add_batches(request: ReceivedRequest) -> None:
            provider.add(f"other_{len(provider.requests)}_a", f"other_{len(provider.requests)}_b")

        provider.override = add_batches
        results, _ = await read_all(*[ids] * 20)
        assert batches_in(results) >= set(ids)
        assert len(provider.lists) <= 20 * 500 / 50
        # half as many more, because single reads check the list
        assert len(provider.requests) <= 1.5 * 20 * 500 / 50

    with_provider(test)


def test_a_few_batches_deep_in_the_list_are_read_one_by_one_once_and_then_by_page(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        for number in range(10):
            provider.add(f"batch_{number}", created_at=1 + number // 3)
        provider.add(*(f"other_{number}" for number in range(2000)))
        await read_all(names(10))
        assert set(provider.singles) == set(names(10))
        provider.requests.clear()
        await read_all(*[names(10)] * 11)
        assert len(provider.requests) <= 10 + 1 + 10 * 5

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
        pytest.param(ignores_after, 4, id="ignores after"),
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
        assert len(provider.lists) <= 3 + 200 // BATCHES_PER_WASTED_PAGE
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


def test_after_a_rate_limit_the_next_sweep_sends_half_as_many_requests_at_a_time(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2500))
        provider.latency = 0.05
        concurrent: list[int] = []
        is_limited = False

        def reply(request: ReceivedRequest) -> Reply | None:
            return (429, {"error": {"message": "slow down"}}, {}) if is_limited else None

        def next_sweep(results: dict[str, Any]) -> None:
            nonlocal is_limited
            concurrent.append(provider.max_concurrent)
            provider.max_concurrent = 0
            is_limited = len(concurrent) == 1

        provider.override = reply
        _, failures = await read_all(ids, ids, ids, ids, after_sweep=next_sweep)
        assert [failure and failure.message for failure in failures] == [None, "HTTP 429", None, None]
        assert concurrent[2:] == [SLOTS // 2, SLOTS]

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


# A list that disagrees with single reads. `PATIENCE` sweeps are enough to notice that.
PATIENCE = 14


def lists_as(view: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Provider], Any]:
    """Return a misbehaviour: the list shows each batch as `view` makes it from the real one."""

    def misbehaviour(provider: Provider) -> Callable[[ReceivedRequest], Reply | None]:
        def reply(request: ReceivedRequest) -> Reply | None:
            if request.batch_id:
                return None
            status, body, headers = provider.default_reply(request)
            return status, body | {"data": [view(dict(entry)) for entry in body["data"]]}, headers

        return reply

    return misbehaviour


def counts(completed: int, total: int = 10) -> dict[str, Any]:
    return {"total": total, "completed": completed, "failed": 0}


def as_created(entry: dict[str, Any]) -> dict[str, Any]:
    return batch(entry["id"], "validating", request_counts=counts(0, 0))


def with_old_counts(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"request_counts": counts(1)}


def one_as_created(entry: dict[str, Any]) -> dict[str, Any]:
    return as_created(entry) if entry["id"] == "batch_3" else entry


@pytest.mark.parametrize("count", [3, 40, 250])
@pytest.mark.parametrize("view", [as_created, with_old_counts])
def test_if_the_list_never_moves_the_batches_are_read_one_by_one(
    with_provider: Run, view: Callable[[dict[str, Any]], dict[str, Any]], count: int
) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(count), request_counts=counts(5))
        provider.override = lists_as(view)(provider)
        results, _ = await read_all(*[ids] * PATIENCE)
        assert {result.completed for result in results.values()} == {5}

    with_provider(test)


def test_the_list_is_not_read_any_more_once_it_was_behind_twice(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        from airflow_provider_batch.triggers.list_trust import ListTrust

        ids = provider.add(*names(40), request_counts=counts(5))
        provider.override = lists_as(as_created)(provider)
        trust = ListTrust()
        await read_all(*[ids] * PATIENCE, trust=trust)
        evidence = trust.pop_evidence()
        assert "it shows batch batch_" in evidence
        assert "as 'validating', but the batch itself is 'in_progress' with 5 of 10 requests done" in evidence
        assert trust.pop_evidence() == ""
        provider.requests.clear()
        await read_all(ids, ids, trust=trust)
        assert (len(provider.lists), len(provider.singles)) == (0, 80)

    with_provider(test)


def test_one_batch_that_the_list_does_not_move_on_is_noticed_among_others(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(20))
        provider.override = lists_as(one_as_created)(provider)
        answered = iter(range(1_000_000))

        def progress(results: dict[str, Any]) -> None:
            for batch_id in ids:
                provider.set(batch_id, request_counts=counts(next(answered), 1_000_000))

        provider.set("batch_3", status="completed")
        results, _ = await read_all(*[ids] * PATIENCE, after_sweep=progress)
        assert results["batch_3"].status.ended

    with_provider(test)


def test_a_list_that_is_right_costs_at_most_half_as_many_single_reads_as_pages(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(250))
        await read_all(*[ids] * 30)
        assert 90 <= len(provider.lists) <= 95
        assert 10 < len(provider.singles) <= 48

    with_provider(test)


def test_a_batch_that_changes_between_the_page_and_the_single_read_is_no_evidence(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        from airflow_provider_batch.triggers.list_trust import ListTrust

        ids = provider.add(*names(5))
        answered = iter(range(1, 1000))

        def progress(request: ReceivedRequest) -> None:
            for batch_id in ids:
                provider.set(batch_id, request_counts=counts(next(answered), 1000))

        provider.override = progress
        trust = ListTrust()
        await read_all(*[ids] * 60, trust=trust)
        assert len(provider.singles) >= 10
        assert trust.is_relied_on
        assert trust.pop_evidence() == ""

    with_provider(test)


@pytest.mark.parametrize("delay", [2, 30])
def test_a_list_that_follows_with_a_delay_is_noticed_although_it_moves(with_provider: Run, delay: int) -> None:
    async def test(provider: Provider) -> None:
        from airflow_provider_batch.triggers.list_trust import ListTrust

        ids = provider.add(*names(5), request_counts=counts(100, 1000))
        sweeps = iter(range(1, 1000))

        def progress(results: dict[str, Any]) -> None:
            sweep = next(sweeps)
            for batch_id in ids:
                provider.set(batch_id, request_counts=counts(100 + sweep, 1000))

        def delayed(entry: dict[str, Any]) -> dict[str, Any]:
            completed = entry["request_counts"]["completed"]
            return entry | {"request_counts": counts(max(100, completed - delay), 1000)}

        provider.override = lists_as(delayed)(provider)
        trust = ListTrust()
        await read_all(*[ids] * 2 * PATIENCE, trust=trust, after_sweep=progress)
        assert not trust.is_relied_on

    with_provider(test)


def test_batches_that_move_on_only_when_they_are_retrieved_all_end(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(30), status="validating")
        next_status = {"validating": "in_progress", "in_progress": "finalizing", "finalizing": "completed"}

        def move_on(request: ReceivedRequest) -> None:
            if request.batch_id:
                status = provider.batches[request.batch_id]["status"]
                provider.set(request.batch_id, status=next_status.get(status, status))

        provider.override = move_on
        results, _ = await read_all(*[ids] * (PATIENCE + 4))
        assert all(result.status.ended for result in results.values())

    with_provider(test)


def test_an_end_that_only_the_list_shows_is_not_believed(with_provider: Run) -> None:
    """Otherwise it would wake the worker, which reads each batch singly, over and over."""

    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5))
        provider.override = lists_as(lambda entry: entry | {"status": "completed"})(provider)
        reported: list[Any] = []
        await read_all(*[ids] * 20, on_result=lambda batch_id, result: reported.append(result))
        assert len(reported) == 100
        assert not any(result.status.ended for result in reported)
        assert len(provider.requests) <= 20 * (5 + 1)

    with_provider(test)


def test_many_ends_cost_few_single_reads_once_the_list_was_right_about_some(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(100))

        def end_all(results: dict[str, Any]) -> None:
            for batch_id in ids:
                provider.set(batch_id, status="completed")

        for batch_id in ids[:CONFIRMED_ENDS]:
            provider.set(batch_id, status="completed")
        results, _ = await read_all(ids, ids, after_sweep=end_all)
        assert all(result.status.ended for result in results.values())
        assert sorted(provider.singles) == sorted(ids[:CONFIRMED_ENDS])

    with_provider(test)


def test_an_end_is_believed_from_the_list_only_once_and_no_further_one_after_it_was_wrong(with_provider: Run) -> None:
    """The worker has found that the batch still runs, and waits for it again."""

    async def test(provider: Provider) -> None:
        from airflow_provider_batch.triggers.list_trust import ListTrust

        ended, wrong = provider.add(*names(CONFIRMED_ENDS)), provider.add(*names(3, start=100))
        later = provider.add(*names(3, start=200))
        is_ahead = {*ended, *wrong}
        for batch_id in ended:
            provider.set(batch_id, status="completed")
        provider.override = lists_as(
            lambda entry: entry | {"status": "completed"} if entry["id"] in is_ahead else entry
        )(provider)
        trust = ListTrust()
        await read_all(ended, trust=trust)
        provider.requests.clear()

        results, _ = await read_all(wrong, trust=trust)
        assert all(results[batch_id].status.ended for batch_id in wrong)
        assert provider.singles == []

        results, _ = await read_all(wrong, trust=trust)
        assert not any(result.status.ended for result in results.values())
        assert sorted(provider.singles) == sorted(wrong)

        is_ahead.update(later)
        results, _ = await read_all(later, trust=trust)
        assert not any(result.status.ended for result in results.values())

    with_provider(test)


def test_an_end_is_confirmed_while_other_pages_are_still_to_come(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5000))
        reported: list[str] = []

        async with new_reader() as reader:
            await reader.read(ids, lambda batch_id, result: reported.append(batch_id))
            ended_id = reported[0]
            provider.set(ended_id, status="completed")
            provider.latency = 0.02
            reported.clear()
            await reader.read(ids, lambda batch_id, result: reported.append(batch_id))
        assert provider.singles == [ended_id]
        assert reported.index(ended_id) < 4000

    with_provider(test)


def test_an_ended_batch_costs_one_single_read(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(100))
        for batch_id in ids[:10]:
            provider.set(batch_id, status="completed")
        results, _ = await read_all(ids)
        assert sum(result.status.ended for result in results.values()) == 10
        assert len(provider.lists) == 1
        assert sorted(provider.singles) == sorted(ids[:10])

    with_provider(test)


def test_a_batch_that_the_list_shows_in_an_earlier_state_than_before_is_read_singly(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5), request_counts=counts(5))
        list_is_old = False

        def view(entry: dict[str, Any]) -> dict[str, Any]:
            return as_created(entry) if list_is_old else entry

        provider.override = lists_as(view)(provider)

        def age_the_list(results: dict[str, Any]) -> None:
            nonlocal list_is_old
            list_is_old = len(provider.lists) >= 9

        results, _ = await read_all(*[ids] * 11, after_sweep=age_the_list)
        assert {result.raw_status for result in results.values()} >= {"in_progress"}
        (batch_id,) = set(provider.singles[:1])
        assert results[batch_id].completed == 5

    with_provider(test)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_for_any_lag_of_the_list_every_end_is_noticed_and_the_requests_are_bounded(
    with_provider: Run, data: st.DataObject
) -> None:
    """The list shows each batch as it was some sweeps ago, or as it was at first."""
    ids = names(data.draw(st.integers(3, 12), label="batches"))
    lag = data.draw(st.sampled_from([0, 1, 3, 10, 10_000]), label="sweeps by which the list lags")
    ends = {batch_id: data.draw(st.integers(0, 25), label=f"end of {batch_id}") for batch_id in ids}
    sweep_count = 26 + 8 * 3 + 2 * len(ids)

    async def test(provider: Provider) -> None:
        sweep = 0

        def state(batch_id: str, at: int) -> dict[str, Any]:
            status = "completed" if at >= ends[batch_id] else "in_progress"
            return batch(batch_id, status, request_counts=counts(min(max(at, 0) // 4, 10)))

        def reply(request: ReceivedRequest) -> Reply | None:
            if request.batch_id:
                return 200, state(request.batch_id, sweep), {}
            page = [state(batch_id, sweep - lag) for batch_id in ids]
            return 200, {"data": page, "has_more": False}, {}

        def advance(results: dict[str, Any]) -> None:
            nonlocal sweep
            sweep += 1
            assert len(provider.requests) <= sweep * (len(ids) + 1)

        provider.override = reply
        results, _ = await read_all(*[ids] * sweep_count, after_sweep=advance)
        assert all(results[batch_id].status.ended for batch_id in ids)

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
        assert len(provider.requests) <= len(ids) + len(ids) // BATCHES_PER_WASTED_PAGE + 1 + SLOTS
        assert len(provider.singles) == len(set(provider.singles))

    with_provider(test)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(page_size=st.sampled_from([3, 20, 100]), offset=st.integers(0, 120), lost=st.integers(0, 40))
def test_each_batch_is_reported_once_per_sweep_even_if_pages_overlap(
    with_provider: Run, page_size: int, offset: int, lost: int
) -> None:
    async def test(provider: Provider) -> None:
        unlisted = provider.add(*names(lost, start=1000))
        ids = provider.add(*names(60)) + unlisted
        provider.add(*names(offset, start=2000))

        def reply(request: ReceivedRequest) -> Reply | None:
            if request.batch_id:
                return None
            _, body, headers = provider.default_reply(request)
            listed = [entry for entry in body["data"] if entry["id"] not in unlisted]
            return 200, {"data": listed[:page_size], "has_more": True}, headers

        provider.override = reply
        async with new_reader() as reader:
            for _ in range(3):
                reported: Counter[str] = Counter()
                await reader.read(ids, lambda batch_id, result, reported=reported: reported.update([batch_id]))
                assert {batch_id: reported[batch_id] for batch_id in ids} == dict.fromkeys(ids, 1)

    with_provider(test)
