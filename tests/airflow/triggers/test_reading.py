"""One look at many batches: few requests, and nothing that a server does makes it wrong or endless."""

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
from tests.airflow.triggers.provider import Asked, Provider, Reply, batch

Run = Callable[[Any], Any]


async def look(*wanted: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """Look at each of these in turn, with one reader: what was told last of each batch, and why looks were cut."""
    from airflow_provider_batch.triggers.clients import shared_client
    from airflow_provider_batch.triggers.reading import Reader

    told: dict[str, Any] = {}
    async with shared_client(CONN) as shared:
        reader = Reader(shared)
        cuts = [await reader.read(ids, told.__setitem__) for ids in wanted]
    return told, cuts


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number}" for number in range(start, start + count)]


def seen(told: dict[str, Any]) -> set[str]:
    return {batch_id for batch_id, answer in told.items() if isinstance(answer, BatchView)}


def test_a_thousand_batches_cost_ten_pages(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        told, cuts = await look(ids)
        assert seen(told) == set(ids)
        assert cuts == [None]
        assert (len(provider.lists), provider.singles) == (10, [])

    with_provider(test)


def test_few_batches_are_read_singly(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        provider.add(*names(500))
        told, _ = await look(names(2))
        assert seen(told) == set(names(2))
        assert provider.lists == []

    with_provider(test)


def test_pages_stop_where_they_show_less_than_they_cost(with_provider: Run) -> None:
    """Two hundred of ours are the newest, three lie below ten thousand of others."""

    async def test(provider: Provider) -> None:
        old = provider.add(*names(3))
        provider.add(*names(10_000, start=1000))
        new = provider.add(*names(200, start=20_000))
        told, _ = await look(old + new)
        assert seen(told) >= set(old + new)
        assert len(provider.lists) == 3
        assert sorted(provider.singles) == old

    with_provider(test)


def test_some_pages_of_others_batches_keep_nobody_from_the_list(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ours = provider.add(*names(400))
        provider.add(*names(600, start=1000))
        await look(ours)
        assert (len(provider.lists), provider.singles) == (10, [])

    with_provider(test)


def test_pages_that_showed_our_batches_before_are_read_side_by_side(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(1000))
        await look(ids)
        assert provider.most_at_once == 1
        provider.asked.clear()
        await look(ids, ids)
        assert len(provider.lists) == 20
        assert provider.singles == []
        assert 1 < provider.most_at_once <= 16

    with_provider(test)


def test_batches_that_come_in_meanwhile_move_ours_down_the_list_and_are_not_in_the_way(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))

        def more(asked: Asked) -> None:
            provider.add(f"other_{len(provider.asked)}_a", f"other_{len(provider.asked)}_b")

        provider.instead = more
        told, _ = await look(*[ids] * 20)
        assert seen(told) >= set(ids)
        assert len(provider.asked) <= 20 * 500 / 50

    with_provider(test)


def test_batches_deep_below_those_of_others_are_read_singly_once_and_by_pages_from_then_on(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = []
        for hundred in range(3):
            for number in range(1000 * hundred, 1000 * hundred + 100):
                ids += provider.add(f"batch_{number}", created_at=1 + number // 3)
            provider.add(*(f"other_{hundred}_{number}" for number in range(50)))
        provider.add(*(f"other_{number}" for number in range(2000)))
        await look(ids)
        at_first = len(provider.asked)
        assert set(provider.singles) == set(ids)
        provider.asked.clear()
        await look(*[ids] * 11)
        assert len(provider.asked) - at_first <= 10 * 300 / 20

    with_provider(test)


def ignores_after(provider: Provider) -> Callable[[Asked], Reply | None]:
    def reply(asked: Asked) -> Reply | None:
        if asked.batch_id:
            return None
        return 200, {"data": list(provider.batches.values())[:100], "has_more": True}, {}

    return reply


def never_ends(provider: Provider) -> Callable[[Asked], Reply | None]:
    def reply(asked: Asked) -> Reply | None:
        page = [batch(f"other_{len(provider.asked)}_{number}") for number in range(100)]
        return None if asked.batch_id else (200, {"data": page, "has_more": True}, {})

    return reply


def says(status: int, body: Any) -> Callable[[Provider], Callable[[Asked], Reply | None]]:
    return lambda provider: lambda asked: None if asked.batch_id else (status, body, {})


@pytest.mark.parametrize(
    ("misbehaves", "most_pages"),
    [
        pytest.param(ignores_after, 2, id="ignores after"),
        pytest.param(never_ends, 5, id="never ends"),
        pytest.param(says(404, {"error": {"message": "no such route"}}), 1, id="has no list"),
        pytest.param(says(403, {"error": {"message": "lists are for admins"}}), 1, id="forbids the list"),
        pytest.param(says(500, b"oh no"), 1, id="500"),
        pytest.param(says(200, b"<html>please wait</html>"), 1, id="a page of HTML"),
        pytest.param(says(200, b'{"data": \xff'), 1, id="broken JSON"),
        pytest.param(says(200, ["batch_1"]), 1, id="a bare list"),
        pytest.param(says(200, {"data": None}), 1, id="no data"),
        pytest.param(says(200, {"data": []}), 1, id="an empty list"),
        pytest.param(says(200, {"data": [None, "x", {"id": 5}, {"id": "", "status": "s"}]}), 1, id="no batches in it"),
    ],
)
def test_what_the_list_does_not_show_is_read_singly(with_provider: Run, misbehaves: Any, most_pages: int) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(150))
        provider.instead = misbehaves(provider)
        told, cuts = await look(ids)
        assert seen(told) >= set(ids)
        assert cuts == [None]
        assert len(provider.lists) <= most_pages
        assert len(provider.singles) == len(set(provider.singles)) <= 150

    with_provider(test)


def test_a_list_of_no_use_is_left_alone_for_some_time_and_tried_again(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(5))
        provider.instead = says(404, {"error": {"message": "no such route"}})(provider)
        await look(*[ids] * 12)
        assert 2 <= len(provider.lists) <= 8
        assert len(provider.singles) == 60

    with_provider(test)


def test_a_server_without_has_more_is_read_until_a_page_is_empty(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(200))
        provider.add(*names(1))

        def without(asked: Asked) -> Reply | None:
            status, body, headers = provider.usual(asked)
            return status, {"data": body["data"]} if not asked.batch_id else body, headers

        provider.instead = without
        told, _ = await look([*ids, "batch_gone"])
        assert seen(told) == set(ids)
        assert len(provider.lists) == 3
        assert provider.singles == ["batch_gone"]

    with_provider(test)


def test_a_refused_key_is_asked_for_once_however_many_batches_there_are(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        provider.instead = lambda asked: (401, {"error": {"message": "wrong key"}}, {})
        told, _ = await look(ids)
        (said,) = {answer.message for answer in told.values()}
        assert said.startswith("HTTP 401 for the list of batches")
        assert "wrong key" in said
        assert len(told) == 500
        assert len(provider.asked) == 1

    with_provider(test)


def test_a_batch_that_is_gone_is_refused_and_the_others_are_seen(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(120))
        told, _ = await look([*ids, "batch_gone"])
        assert seen(told) == set(ids)
        assert told["batch_gone"].message.startswith("HTTP 404 for batch batch_gone: ")

    with_provider(test)


@pytest.mark.parametrize("count", [2, 300])
def test_retry_after_cuts_a_look_short(with_provider: Run, count: int) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(count))
        provider.instead = lambda asked: (429, {"error": {"message": "slow down"}}, {"retry-after": "17"})
        _, (cut,) = await look(ids)
        assert cut.pause == 17
        assert len(provider.asked) <= 2

    with_provider(test)


def test_a_server_that_fails_every_read_is_not_asked_for_every_batch(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(500))
        provider.instead = lambda asked: (500, b"oh no", {})
        told, (cut,) = await look(ids)
        assert cut.message == "HTTP 500"
        assert seen(told) == set()
        assert len(provider.asked) < 50

    with_provider(test)


def test_one_batch_that_cannot_be_read_holds_up_no_other(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(2))
        provider.instead = lambda asked: (500, b"oh no", {}) if asked.batch_id == "batch_0" else None
        told, cuts = await look(ids)
        assert (seen(told), told["batch_0"].message) == ({"batch_1"}, "HTTP 500")
        assert cuts == [None]

    with_provider(test)


def test_at_most_sixteen_reads_are_under_way_at_once(with_provider: Run) -> None:
    async def test(provider: Provider) -> None:
        ids = provider.add(*names(200))
        provider.instead = says(404, {})(provider)
        await look(ids)
        assert 2 < provider.most_at_once <= 16

    with_provider(test)


def test_a_connection_that_cannot_be_looked_up_is_a_failure_that_passes(
    with_provider: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(provider: Provider) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{CONN.upper()}", json.dumps({"conn_type": "openai", "extra": "no JSON"}))
        _, (cut,) = await look(names(5))
        assert f"connection {CONN!r} makes no client" in cut.message
        assert provider.asked == []

    with_provider(test)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_pages_are_each_batch_is_told_once_and_the_requests_are_bounded(
    with_provider: Run, data: st.DataObject
) -> None:
    ids = names(data.draw(st.integers(1, 300), label="wanted"))
    shown = st.lists(st.sampled_from([*ids, *names(50, start=1000)]), max_size=100)
    pages = data.draw(st.lists(st.tuples(shown, st.sampled_from([True, False, None])), max_size=8), label="pages")

    async def test(provider: Provider) -> None:
        provider.add(*ids)
        left = iter(pages)

        def reply(asked: Asked) -> Reply | None:
            if asked.batch_id:
                return None
            shown, more = next(left, ([], None))
            return 200, {"data": [batch(batch_id) for batch_id in shown], "has_more": more}, {}

        provider.instead = reply
        told, _ = await asyncio.wait_for(look(ids), 60)
        assert seen(told) >= set(ids)
        assert len(provider.asked) <= len(ids) + len(ids) // 50 + 1
        assert len(provider.singles) == len(set(provider.singles))

    with_provider(test)
