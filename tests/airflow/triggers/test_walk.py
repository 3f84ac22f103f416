"""Walking down the provider's list: few pages are enough, and an odd list costs only a few requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.batch import BatchView, Status
from airflow_provider_batch.triggers.walk import (
    BATCHES_PER_WASTED_PAGE,
    MIN_FOR_STARTS,
    ListWalk,
    Page,
)

#: maximum number of concurrent walks
WALKS = 16


class ListServer:
    """A simulated server with a list of batches, which may differ from OpenAI's list in many ways."""

    def __init__(
        self, cursors: str = "all", page_size: int = 100, has_more: bool | None = None, order: str = "newest first"
    ) -> None:
        #: what the server does with `after`: "all", "ignored", "refused", "some refused" or "some are the top"
        self.cursors = cursors
        self.page_size, self.has_more, self.order = page_size, has_more, order
        #: newest first
        self.ids: list[str] = []
        #: ids of batches that can be retrieved and are not listed
        self.unlisted: set[str] = set()
        #: batches after which a page was requested
        self.requests: list[str | None] = []
        #: each answer takes another number of turns of the event loop
        self.delays: Sequence[int] = [1]
        self.max_concurrent = self._concurrent = 0

    def listed(self) -> list[str]:
        ids = [batch_id for batch_id in self.ids if batch_id not in self.unlisted]
        return {"newest first": ids, "oldest first": ids[::-1], "by id": sorted(ids)}[self.order]

    async def page(self, after_id: str | None) -> Page | None:
        self.requests.append(after_id)
        self._concurrent += 1
        self.max_concurrent = max(self.max_concurrent, self._concurrent)
        for _ in range(self.delays[len(self.requests) % len(self.delays)]):
            await asyncio.sleep(0)
        self._concurrent -= 1
        ids = self.listed()
        is_odd = after_id is not None and sum(after_id.encode()) % 3 == 0
        if after_id is not None:
            if after_id not in ids or self.cursors == "refused" or (self.cursors == "some refused" and is_odd):
                return None
            if self.cursors == "ignored" or (self.cursors == "some are the top" and is_odd):
                after_id = None
        start = 0 if after_id is None else ids.index(after_id) + 1
        views = [BatchView(name, Status.RUNNING, "in_progress") for name in ids[start : start + self.page_size]]
        has_more = start + self.page_size < len(ids) if self.has_more is None else self.has_more
        return Page(views, has_more, requested_at=0.0)


def names(count: int, start: int = 0) -> list[str]:
    return [f"batch_{number:05}" for number in range(start, start + count)]


def walk(server: ListServer, wanted: Sequence[str], places: dict[str, str], **options: Any) -> tuple[int, set[str]]:
    """Walk once. Return the number of pages, and the wanted batches that no page has shown."""
    pending = dict.fromkeys(wanted)
    server.requests.clear()

    def take(page: Page) -> int:
        shown = {view.id for view in page.views} & pending.keys()
        for batch_id in shown:
            del pending[batch_id]
        return len(shown)

    options = {"max_walks": WALKS, "search": True} | options
    list_walk = ListWalk(pending, places, server.page, take, **options)
    asyncio.run(list_walk.run())
    return len(server.requests), set(pending)


def test_the_first_walk_reads_ten_thousand_batches_from_several_places_and_the_next_one_reads_each_once() -> None:
    server, places = ListServer(), dict[str, str]()
    server.ids = names(10_000)
    pages, missed = walk(server, server.ids, places)
    assert (missed, server.max_concurrent) == (set(), WALKS)
    assert 100 <= pages <= 130
    assert walk(server, server.ids, places) == (100, set())


def test_an_empty_list_costs_one_request() -> None:
    server = ListServer()
    assert walk(server, names(400), {}) == (1, set(names(400)))
    assert server.requests == [None]


def test_batches_below_those_of_others_are_found_without_reading_the_pages_of_the_others() -> None:
    server, places = ListServer(), dict[str, str]()
    ours = names(400, start=5000)
    server.ids = names(5000) + ours
    pages, missed = walk(server, ours, places)
    assert pages <= 20
    assert len(missed) < MIN_FOR_STARTS
    assert walk(server, ours, places)[0] <= 6


def test_sparse_batches_are_covered_by_as_few_pages_as_possible() -> None:
    server, places = ListServer(), dict[str, str]()
    server.ids = names(2000)
    wanted = [batch_id for block in range(0, 2000, 400) for batch_id in server.ids[block + 50 : block + 150]]
    walk(server, wanted, places)
    pages, missed = walk(server, wanted, places)
    assert pages + len(missed) <= 5 + 5 + MIN_FOR_STARTS


def test_a_batch_that_left_its_place_is_found_again() -> None:
    server, places = ListServer(), dict[str, str]()
    server.ids = names(1000)
    walk(server, server.ids, places)
    server.ids = server.ids[500:] + server.ids[:500]
    walk(server, server.ids, places)
    pages, missed = walk(server, server.ids, places)
    assert pages == 10
    assert len(missed) < MIN_FOR_STARTS


def test_batches_without_a_known_place_are_not_looked_for_if_the_list_was_not_worth_it() -> None:
    server, places = ListServer(), dict[str, str]()
    server.ids = names(1000)
    assert walk(server, server.ids, places, search=False) == (0, set(server.ids))


def test_a_walk_with_one_place_at_a_time_reads_one_page_after_the_other() -> None:
    server = ListServer()
    server.ids = names(1000)
    assert walk(server, server.ids, {}, max_walks=1) == (10, set())
    assert server.max_concurrent == 1


@settings(max_examples=300, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.booleans(), st.sampled_from([1, 2, 10, 60, 250])), min_size=1, max_size=8),
    new_blocks=st.lists(st.tuples(st.booleans(), st.sampled_from([1, 40, 150])), max_size=2),
    cursors=st.sampled_from(["all", "ignored", "refused", "some refused", "some are the top"]),
    page_size=st.sampled_from([100, 20, 1]),
    has_more=st.sampled_from([None, True, False]),
    order=st.sampled_from(["newest first", "oldest first", "by id"]),
    unlisted_count=st.sampled_from([0, 0, 30, 500]),
    delays=st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
@example([(True, 250)] * 4, [], "ignored", 100, True, "newest first", 0, [1])
def test_for_any_list_the_walks_end_and_the_requests_are_bounded(
    blocks: list[tuple[bool, int]],
    new_blocks: list[tuple[bool, int]],
    cursors: str,
    page_size: int,
    has_more: bool | None,
    order: str,
    unlisted_count: int,
    delays: list[int],
) -> None:
    """Wanted batches and those of others are in any order. New ones are added, and others leave the list."""
    server = ListServer(cursors, page_size, has_more, order)
    server.delays = delays
    wanted: list[str] = []
    places: dict[str, str] = {}

    def add(blocks: list[tuple[bool, int]]) -> None:
        for is_wanted, count in blocks:
            ids = names(count, start=len(server.ids))
            server.ids = ids[::-1] + server.ids
            wanted.extend(ids if is_wanted else [])

    def check_walk() -> None:
        pages, missed = walk(server, wanted, places)
        # the batches that no page has shown are read one by one
        assert pages + len(missed) <= len(wanted) + len(wanted) // BATCHES_PER_WASTED_PAGE + 1 + WALKS
        assert len(server.requests) == len(set(server.requests))
        assert server.max_concurrent <= WALKS

    add(blocks)
    check_walk()
    check_walk()
    add(new_blocks)
    server.unlisted = set(server.ids[-unlisted_count:]) if unlisted_count else set()
    check_walk()
    check_walk()
