"""Reads the status of many batches in as few requests as possible, from a server that is not trusted.

One request for a page of the list returns a hundred batches. A sweep therefore works in three steps:

1. Read the pages that showed wanted batches last time. New batches are added at the top of the list, so the batches
   that follow a given one stay the same, and these pages can be read concurrently.
2. Read the list from the top, for as long as each page shows more wanted batches than it costs.
3. Read the remaining batches one by one, and those of which the list is not believed (`triggers.list_trust`).

This pages by hand, because some servers ignore `after`, have no `has_more`, or never end. Wherever a list is not as
expected, single reads make up for it. A sweep reads no batch singly more than once. Answers are decoded without the
SDK's models, which take so long to build that they would block the event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import openai
from openai import AsyncOpenAI

from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.hooks.guard import RedirectError
from airflow_provider_batch.triggers.clients import SLOTS, SharedClient
from airflow_provider_batch.triggers.list_trust import ListTrust
from airflow_provider_batch.triggers.pace import bounded_retry_after

#: batches per page of the list, the most that the API allows
PAGE_SIZE = 100
#: minimum number of wanted batches for which the list is read from the top
MIN_FOR_LIST = 3
#: minimum number of wanted batches that a page showed last time for it to be read again
MIN_ON_PAGE = 2
#: maximum number of such pages that are read concurrently; decoding one blocks the event loop for some milliseconds
CONCURRENT_PAGES = 8
#: number of sweeps with sparse pages after which one sweep reads the list from the top instead
SPARSE_SWEEPS = 10
#: maximum number of batches whose page is remembered
MAX_KNOWN_PAGES = 100_000
#: A sweep stops reading the list when fewer than this many batches are pending for each wasted page. A page costs one
#: request, and each wanted batch on it saves one; pages are wasted as far as they have cost more than they saved.
BATCHES_PER_WASTED_PAGE = 50
#: maximum number of sweeps that skip the list after it was not worth its cost
MAX_SKIPS = 32
#: consecutive failures of single reads after which the sweep is cut short
MAX_FAILURES = 20


@dataclass(frozen=True)
class Refusal:
    """The server refuses to show a batch: 401, 403, 404 or the like, or it redirects the read to another host."""

    message: str
    #: whether the server refused the key itself (401), so that it will show no batch at all
    key: bool = False


@dataclass(frozen=True)
class ReadFailure:
    """A read that failed for a transient reason."""

    message: str
    #: seconds that the server asked us to wait, or 0
    pause: float = 0.0


#: result of reading one batch
PollResult = BatchView | Refusal | ReadFailure
#: receives the id of a batch and the result of reading it
Report = Callable[[str, PollResult], None]


class _Sweep:
    """The batches that a sweep still has to read, and where it delivers results."""

    def __init__(self, batch_ids: Iterable[str], report: Report) -> None:
        self.report = report
        #: batches that no page has shown yet
        self.pending = dict.fromkeys(batch_ids)
        #: batches whose entry in the list is not believed, with the entry that a single read is compared with, if any
        self.doubtful: dict[str, BatchView | None] = {}

    def refuse_all(self, refusal: Refusal) -> None:
        """Report every batch that has not been read as refused."""
        for batch_id in [*self.pending, *self.doubtful]:
            self.report(batch_id, refusal)
        self.pending.clear()
        self.doubtful.clear()


class _CutShortError(Exception):
    """Raised to end a sweep early, because further reads would fail as well."""

    def __init__(self, failure: ReadFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Reader:
    """Reads batches through one shared client, and remembers where the list showed them and whether it is useful."""

    def __init__(self, shared: SharedClient, trust: ListTrust) -> None:
        self._shared, self._trust = shared, trust
        #: number of sweeps that will still skip the list, and number that will do so after its next failure
        self._skips, self._next_skips = 0, 1
        #: by batch id, the page that showed it last time, given by the id of the batch that the page follows
        self._pages: dict[str, str] = {}
        #: sweeps in which those pages showed few wanted batches
        self._sparse_sweeps = 0
        #: whether the last request for a page returned no list
        self._is_list_broken = False

    async def read(self, batch_ids: Iterable[str], report: Report) -> ReadFailure | None:
        """Read each batch once.

        :param report: called with the result for each batch, and also for other batches that a page happens to show.
        :return: why the sweep was cut short, or None. Batches that were not reported by then have not been read.
        """
        sweep = _Sweep(batch_ids, report)
        failure: ReadFailure | None = None
        try:
            if self._trust.is_relied_on:
                await self._read_known_pages(sweep)
                if len(sweep.pending) >= MIN_FOR_LIST and not self._skip_list():
                    await self._read_list(sweep)
            await self._read_singly(sweep)
        except* _CutShortError as errors:
            failure = _first_error(errors).failure
        return failure

    async def _read_known_pages(self, sweep: _Sweep) -> None:
        """Read the pages that showed pending batches last time, concurrently, the fullest first."""
        members: defaultdict[str, list[str]] = defaultdict(list)
        for batch_id in sweep.pending:
            if batch_id in self._pages:
                members[self._pages[batch_id]].append(batch_id)
        if len(members) > 1 + sum(map(len, members.values())) // BATCHES_PER_WASTED_PAGE:
            # over time these pages overlap and show fewer running batches, so the list is read from the top from time
            # to time
            self._sparse_sweeps += 1
        if (self._skips and self._is_list_broken) or (
            members and self._sparse_sweeps and self._sparse_sweeps % SPARSE_SWEEPS == 0
        ):
            self._sparse_sweeps += bool(self._sparse_sweeps)
            return
        pages = iter(sorted(members, key=lambda after_id: len(members[after_id]), reverse=True))

        async def work() -> None:
            for after_id in pages:
                if sum(batch_id in sweep.pending for batch_id in members[after_id]) < MIN_ON_PAGE:
                    continue
                requested_at = time.monotonic()
                page = await self._read_page(after_id, sweep)
                for batch_id in members[after_id]:
                    self._pages.pop(batch_id, None)
                if page is not None:
                    self._take_page(after_id, page[0], requested_at, sweep)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(CONCURRENT_PAGES, len(members))):
                workers.create_task(work())

    def _take_page(self, after_id: str | None, views: Sequence[BatchView], requested_at: float, sweep: _Sweep) -> int:
        """Take the batches on a page out of `pending`, report those that are believed, and remember their page.

        :param requested_at: monotonic time before the page was requested.
        :return: number of single reads that the page saves.
        """
        doubtful, ignored_ids = self._trust.sort_out(views, sweep.pending, requested_at)
        saved_reads = -len(doubtful.keys() - sweep.doubtful.keys())
        sweep.doubtful |= doubtful
        for view in views:
            if view.status.ended:
                self._pages.pop(view.id, None)
            elif after_id is not None and (view.id in sweep.pending or view.id in self._pages):
                self._pages[view.id] = after_id
            if view.id in sweep.pending:
                del sweep.pending[view.id]
                saved_reads += 1
            if view.id not in ignored_ids:
                sweep.report(view.id, view)
        return saved_reads

    def _skip_list(self) -> bool:
        skip, self._skips = self._skips > 0, max(0, self._skips - 1)
        return skip

    def _penalise_list(self) -> None:
        """Skip the list in the next sweeps, twice as many after each further failure."""
        self._skips, self._next_skips = self._next_skips, min(2 * self._next_skips, MAX_SKIPS)

    async def _read_list(self, sweep: _Sweep) -> None:
        """Read the list from the top, for as long as it is worth its cost."""
        listed_ids: set[str] = set()
        after_id: str | None = None
        hits = pages = wasted_pages = 0
        while sweep.pending and wasted_pages * BATCHES_PER_WASTED_PAGE <= len(sweep.pending):
            requested_at = time.monotonic()
            page = await self._read_page(after_id, sweep)
            if page is None:
                self._penalise_list()
                return
            views, last_id, has_more = page
            pages += 1
            new_views = {view.id: view for view in views if view.id not in listed_ids}
            listed_ids.update(new_views)
            page_hits = self._take_page(after_id, list(new_views.values()), requested_at, sweep)
            hits += page_hits
            # each page costs one request, and each pending batch on it that is believed saves one
            wasted_pages = max(0, wasted_pages + 1 - page_hits)
            if not new_views or not has_more or not last_id or last_id == after_id:
                break
            after_id = last_id
            # let the event loop run between two pages, as decoding a page blocks it
            await asyncio.sleep(0)
        if hits > pages:
            self._next_skips = 1
        elif hits < pages:
            self._penalise_list()

    async def _read_page(self, after_id: str | None, sweep: _Sweep) -> tuple[list[BatchView], str, bool] | None:
        """Return the batches of a page, the id of the last one, and whether there may be more pages.

        Return None if the answer is not a list. A key that is refused for the list is refused for every batch too, so
        all unread batches are then reported as refused.
        """
        self._is_list_broken = True
        async with self._shared.slots:
            client = await self._client()
            try:
                answer = await client.batches.with_raw_response.list(limit=PAGE_SIZE, after=after_id or openai.omit)
                page = _decode(answer.content)
            except openai.AuthenticationError as error:
                await self._shared.renew(client)
                sweep.refuse_all(Refusal(f"HTTP 401 for the list of batches: {error.message}", key=True))
                return None
            except (openai.APIConnectionError, openai.RateLimitError) as error:
                self._penalise_list()
                raise _CutShortError(_failure(error)) from error
            except openai.APIStatusError as error:
                if (failure := _failure(error)).pause:
                    raise _CutShortError(failure) from error
                return None
            except (openai.OpenAIError, ProviderError):
                return None
        entries = page.get("data") if isinstance(page, Mapping) else None
        if not isinstance(entries, list):
            return None
        self._is_list_broken = False
        views = [view for entry in entries if (view := _view(entry)) is not None]
        return views, views[-1].id if views else "", page.get("has_more") is not False

    async def _read_singly(self, sweep: _Sweep) -> None:
        """Read batches one by one, several concurrently. Cut the sweep short after many consecutive failures."""
        entries = sweep.doubtful | sweep.pending
        queue = iter(entries)
        failures = 0
        unlisted: list[BatchView] = []

        async def work() -> None:
            nonlocal failures
            for batch_id in queue:
                result = await self._read_single(batch_id)
                if isinstance(result, BatchView):
                    listed = entries[batch_id]
                    if listed is not None:
                        self._trust.compare(listed, result)
                    elif not result.status.ended:
                        unlisted.append(result)
                sweep.report(batch_id, result)
                if isinstance(result, Refusal) and result.key:
                    for unread_id in queue:
                        sweep.report(unread_id, result)
                failures = failures + 1 if isinstance(result, ReadFailure) else 0
                if isinstance(result, ReadFailure) and (result.pause or failures >= MAX_FAILURES):
                    raise _CutShortError(result)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(SLOTS, len(entries))):
                workers.create_task(work())
        self._guess_pages(unlisted)

    def _guess_pages(self, views: list[BatchView]) -> None:
        """Guess which pages show these batches, which were read one by one.

        The guess is that the page after a batch shows the batches that were created just before it. This locates
        batches deep in the list, below the batches of others. If a guess is wrong, they are read one by one again.
        """
        if len(self._pages) > MAX_KNOWN_PAGES:
            self._pages.clear()
        # any batch of the same second may be the newest, so the order is random: a later guess tries another one
        views.sort(key=lambda view: (view.created_at, random.random()), reverse=True)
        for start in range(0, len(views), PAGE_SIZE):
            after_id = views[start].id
            self._pages |= {view.id: after_id for view in views[start + 1 : start + PAGE_SIZE]}

    async def _read_single(self, batch_id: str) -> PollResult:
        async with self._shared.slots:
            client = await self._client()
            try:
                answer = await client.batches.with_raw_response.retrieve(batch_id)
                return read_batch(_decode(answer.content))
            except openai.AuthenticationError as error:
                await self._shared.renew(client)
                return Refusal(f"HTTP 401 for batch {batch_id}: {error.message}", key=True)
            except RedirectError as error:
                return Refusal(f"batch {batch_id} cannot be read: {error}")
            except (openai.OpenAIError, ProviderError) as error:
                if isinstance(error, openai.APIStatusError) and not is_transient(error.status_code):
                    return Refusal(f"HTTP {error.status_code} for batch {batch_id}: {error.message}")
                return _failure(error)

    async def _client(self) -> AsyncOpenAI:
        try:
            return await self._shared.get()
        except Exception as error:  # errors of a secrets backend or a token exchange may be transient
            message = (
                f"cannot create an OpenAI client from connection {self._shared.conn_id!r}: "
                f"{type(error).__name__}: {error}"
            )
            raise _CutShortError(ReadFailure(message)) from error


def _failure(error: Exception) -> ReadFailure:
    if isinstance(error, openai.APIStatusError):
        return ReadFailure(f"HTTP {error.status_code}", bounded_retry_after(error.response.headers.get("retry-after")))
    return ReadFailure(str(error) if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}")


def _decode(content: bytes) -> Any:
    """Return the decoded JSON of an answer.

    :raises ProviderError: if it is not JSON.
    """
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProviderError("The server's answer is not JSON.") from error


def _view(entry: Any) -> BatchView | None:
    try:
        return read_batch(entry)
    except ProviderError:
        return None


def _first_error(group: BaseExceptionGroup[_CutShortError]) -> _CutShortError:
    for error in group.exceptions:
        return _first_error(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one exception")
