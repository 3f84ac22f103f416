"""Finds the wanted batches in the provider's list, several pages at a time.

Each page of the list is requested by the batch that it follows (`after=`), which any batch can be. So a sweep need not
start at the top. It walks down the list from several places at the same time:

* from the places that the previous sweep remembered: New batches are added at the top of the list, so the batches that
  follow a given one stay the same. Such a walk ends when it has shown the batches that are expected there.
* from the top, where batches that were never listed are expected.
* from wanted batches whose place is unknown, after the page at the top. Without them, the first sweep of a new
  triggerer would need one round trip after the other for each page.

A walk ends where another one has been, at the end of the list, and at a page that saves no single read. Each page shows
which batch follows which. So the walks of a sweep join into chains, and afterwards each chain is cut into as few pages
as possible. These are the places for the next sweep. They do not depend on the order of the list or on creation times.

The server is not trusted. It may ignore `after`, refuse some batches as a place to start, show the same page for ever,
or show fewer batches per page. A page costs one request and saves one for each wanted batch on it, and pages are wasted
as far as they cost more than they save. A sweep ends its walks when fewer than `BATCHES_PER_WASTED_PAGE` batches are
pending for each wasted page. The pages that have been requested by then still arrive. So a sweep of n batches sends at
most n + n / 50 + 1 requests, and one more for each concurrent page, which includes all single reads.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_batch.core.provider.batch import BatchView

#: batches per page of the list, the most that the API allows
PAGE_SIZE = 100
#: minimum number of wanted batches without a known place for which a sweep searches the list
MIN_FOR_SEARCH = 3
#: minimum number of such batches, after the page at the top, for which walks start at the batches themselves; fewer
#: are read singly in one round trip
MIN_FOR_STARTS = 16
#: minimum number of wanted batches that a known page must be expected to show
MIN_ON_PAGE = 2
#: a sweep ends its walks when fewer than this many batches are pending for each wasted page
BATCHES_PER_WASTED_PAGE = 50
#: number of wasted pages that an unusable answer counts for: it is not a list, or the top of an empty one. Further
#: answers will hardly be more useful
WASTE_OF_UNUSABLE_PAGE = 10


@dataclass(frozen=True)
class Page:
    """A page of the list."""

    views: list[BatchView]
    #: whether there may be further pages
    has_more: bool
    #: monotonic time before the page was requested
    requested_at: float


class _Start(NamedTuple):
    """A place in the list where a walk starts."""

    #: id of the batch that the page follows, or None for the top of the list
    after_id: str | None
    #: batches for which the walk looks
    expected: Collection[str]


class ListWalk:
    """The walks of one sweep.

    :param pending: batches that the sweep still has to read; `take_page` removes those that a page has shown.
    :param places: by batch id, the id of the batch after which a page shows it. Updated when the walks end.
    :param read_page: returns the page after a batch, or None if the answer is not a list.
    :param take_page: evaluates a page and returns the number of single reads that it saves.
    :param max_walks: maximum number of concurrent walks.
    :param search: whether to look for batches without a known place.
    """

    def __init__(
        self,
        pending: Collection[str],
        places: dict[str, str],
        read_page: Callable[[str | None], Awaitable[Page | None]],
        take_page: Callable[[Page], int],
        max_walks: int,
        *,
        search: bool,
    ) -> None:
        self._pending, self._places = pending, places
        self._read_page, self._take_page = read_page, take_page
        self._max_walks, self._search = max_walks, search
        #: pages that were requested to look for batches without a known place, and single reads that they saved
        self.searched_pages = self.saved_by_search = 0
        #: pending batches without a known place
        self._unplaced: dict[str, None] = {}
        self._starts = deque(self._known_starts())
        #: order in which walks start at batches without a known place
        self._candidates: Iterator[str] = iter(())
        #: whether the page at the top is still to come
        self._awaits_top = bool(self._starts) and self._starts[0].after_id is None
        #: batches after which a page was requested
        self._requested: set[str | None] = set()
        #: by batch id, the next batch in the list; None stands for the top
        self._next: dict[str | None, str] = {}
        #: running batches that were shown and may be read again
        self._running_ids: set[str] = set()
        self._wasted_pages = self._active_walks = 0
        self._page_size = 1

    def _known_starts(self) -> Iterator[_Start]:
        """Return the places to start at: the top first, and then known places, those with the most batches first."""
        expected: defaultdict[str, list[str]] = defaultdict(list)
        for batch_id in self._pending:
            if (place := self._places.get(batch_id)) is None:
                self._unplaced[batch_id] = None
            else:
                expected[place].append(batch_id)
        if self._search:
            yield _Start(None, self._unplaced)
        for place in sorted(expected, key=lambda place: len(expected[place]), reverse=True):
            yield _Start(place, expected[place])

    async def run(self) -> None:
        """Walk until everything has been found or further pages are not worth their cost."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._start_walks(tasks)
        finally:
            self._remember_places()

    def _start_walks(self, tasks: asyncio.TaskGroup) -> None:
        while self._active_walks < self._max_walks and (start := self._next_start()) is not None:
            self._active_walks += 1
            self._requested.add(start.after_id)
            tasks.create_task(self._walk(start, tasks))

    def _is_worthwhile(self) -> bool:
        return self._wasted_pages * BATCHES_PER_WASTED_PAGE <= len(self._pending)

    def _next_start(self) -> _Start | None:
        if not self._is_worthwhile():
            return None
        while self._starts:
            start = self._starts.popleft()
            expected_count = sum(batch_id in self._pending for batch_id in start.expected)
            if start.after_id not in self._requested and expected_count >= MIN_ON_PAGE:
                return start
        return self._unplaced_start() if self._is_search_worthwhile() else None

    def _is_search_worthwhile(self) -> bool:
        """Return whether another walk should start at a batch without a known place."""
        if not self._search or self._awaits_top or len(self._unplaced) < MIN_FOR_STARTS:
            return False
        # the active walks may turn out to be wasted as well
        pages_at_risk = self._wasted_pages + self._active_walks
        # with only a few pages left, another walk would mostly read what the active ones are about to read
        saved_per_page = max(1.0, self.saved_by_search / self.searched_pages)
        return len(self._unplaced) >= self._active_walks * saved_per_page and (
            len(self._unplaced) >= pages_at_risk * BATCHES_PER_WASTED_PAGE
        )

    def _unplaced_start(self) -> _Start | None:
        """Return a start at a batch without a known place that is probably far from all other walks."""
        for batch_id in self._candidates:
            if batch_id in self._unplaced and batch_id not in self._requested:
                return _Start(batch_id, self._unplaced)
        untried_ids = [batch_id for batch_id in self._unplaced if batch_id not in self._requested]
        self._candidates = _spread(untried_ids)
        return _Start(next(self._candidates), self._unplaced) if untried_ids else None

    async def _walk(self, start: _Start, tasks: asyncio.TaskGroup) -> None:
        after_id: str | None = start.after_id
        is_search = start.expected is self._unplaced
        while True:
            self._requested.add(after_id)
            try:
                page = await self._read_page(after_id)
            finally:
                self.searched_pages += is_search
            saved_reads = self._take(after_id, page)
            self.saved_by_search += saved_reads * is_search
            if after_id is None:
                self._awaits_top = False
            if not is_search and after_id == start.after_id:
                self._displace(start.expected)
            if page is None or not page.views or not page.has_more or saved_reads <= 0:
                break
            after_id = page.views[-1].id
            is_known = after_id in self._requested or after_id in self._next
            if is_known or not self._is_worthwhile() or not any(name in self._pending for name in start.expected):
                break
            self._start_walks(tasks)
        self._active_walks -= 1
        self._start_walks(tasks)

    def _take(self, after_id: str | None, page: Page | None) -> int:
        """Evaluate a page and record its order. Return the number of single reads that it saves."""
        if page is None or (after_id is None and not page.views):
            self._wasted_pages += WASTE_OF_UNUSABLE_PAGE
            return 0
        self._page_size = max(self._page_size, len(page.views))
        previous_id = after_id
        for view in page.views:
            self._next.setdefault(previous_id, view.id)
            previous_id = view.id
            if view.status.ended:
                self._places.pop(view.id, None)
            elif view.id in self._pending or view.id in self._places:
                self._running_ids.add(view.id)
            self._unplaced.pop(view.id, None)
        saved_reads = self._take_page(page)
        self._wasted_pages = max(0, self._wasted_pages + 1 - saved_reads)
        return saved_reads

    def _displace(self, expected: Collection[str]) -> None:
        """Forget the place of batches that were expected on a page and were not there."""
        for batch_id in expected:
            if batch_id in self._pending:
                self._places.pop(batch_id, None)
                self._unplaced[batch_id] = None

    def _remember_places(self) -> None:
        """Cut each chain into as few pages as possible, and remember which page shows which batch."""
        successors = set(self._next.values())
        for head in [batch_id for batch_id in self._next if batch_id not in successors]:
            previous_id, place, remaining = head, head, 0
            # a list that repeats itself makes a chain with a loop, so each batch is removed as it is passed
            while (batch_id := self._next.pop(previous_id, None)) is not None:
                if batch_id in self._running_ids:
                    if not remaining:
                        place, remaining = previous_id, self._page_size
                    if place is None:
                        self._places.pop(batch_id, None)
                    else:
                        self._places[batch_id] = place
                previous_id, remaining = batch_id, max(0, remaining - 1)


def _spread(names: Sequence[str]) -> Iterator[str]:
    """Yield the middle of a sequence, the middle of each half, of each quarter and so on, and in the end all names.

    Jobs often wait in the order in which their batches were created, and then these batches are spread over the list.
    """
    step = len(names)
    while step:
        yield from names[step // 2 :: step]
        step //= 2
