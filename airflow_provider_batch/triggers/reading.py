"""Reads the status of many batches in as few requests as possible, from a server that is not trusted.

One request for a page of the list returns a hundred batches. So a sweep first walks the list (`triggers.walk`). Then it
reads the remaining batches one by one, and those of which the list is not believed (`triggers.list_trust`).

This pages by hand, because some servers ignore `after`, have no `has_more`, or never end. Wherever a list is not as
expected, single reads make up for it. A sweep reads no batch singly more than once. Answers are decoded without the
SDK's models, which take so long to build that they would block the event loop, and at most one page is decoded per turn
of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import openai
from openai import AsyncOpenAI

from airflow_provider_batch.core.lifecycle.metrics import Kind
from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.hooks.guard import RedirectError
from airflow_provider_batch.triggers.clients import SLOTS, SharedClient
from airflow_provider_batch.triggers.list_trust import ListTrust
from airflow_provider_batch.triggers.pace import bounded_retry_after
from airflow_provider_batch.triggers.walk import MIN_FOR_SEARCH, PAGE_SIZE, ListWalk, Page
from airflow_provider_batch.worker.metrics import send

#: maximum number of batches whose place in the list is remembered
MAX_PLACES = 100_000
#: maximum number of sweeps that do not search the list after that was not worth its cost
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
    """The batches that a sweep still has to read, and where it delivers results.

    :param concurrency: maximum number of concurrent reads.
    """

    def __init__(self, batch_ids: Iterable[str], report: Report, concurrency: int) -> None:
        self.report, self.concurrency = report, concurrency
        #: batches that have not been read, except those that a page showed and that are being read singly
        self.pending = dict.fromkeys(batch_ids)
        #: ids of all batches that a page has shown
        self.listed_ids: set[str] = set()
        self.slots = asyncio.Semaphore(concurrency)
        #: consecutive failures of single reads
        self.failures = 0

    def refuse_all(self, refusal: Refusal) -> None:
        """Report every pending batch as refused."""
        for batch_id in self.pending:
            self.report(batch_id, refusal)
        self.pending.clear()


class _CutShortError(Exception):
    """Raised to end a sweep early, because further reads would fail as well."""

    def __init__(self, failure: ReadFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Reader:
    """Reads batches through one shared client, and remembers where the list showed them and whether it is useful."""

    def __init__(self, shared: SharedClient, trust: ListTrust) -> None:
        self._shared, self._trust = shared, trust
        #: number of sweeps that will still not search the list, and number that will do so after its next failure
        self._skips, self._next_skips = 0, 0
        #: by batch id, the id of the batch after which the list showed it last time
        self._places: dict[str, str] = {}
        #: whether the last answer to a request for a page was not a list
        self._is_list_broken = False
        #: maximum number of concurrent reads of a sweep
        self._concurrency = SLOTS
        #: held while a page is decoded
        self._decoding = asyncio.Lock()

    async def read(self, batch_ids: Iterable[str], report: Report) -> ReadFailure | None:
        """Read each batch once.

        :param report: called with the result for each batch, and also for other batches that a page happens to show.
        :return: why the sweep was cut short, or None. Batches that were not reported by then have not been read.
        """
        sweep = _Sweep(batch_ids, report, self._concurrency)
        failure: ReadFailure | None = None
        try:
            if self._trust.is_relied_on:
                await self._walk_list(sweep)
            views = await self._read_singly(sweep.pending, sweep)
            if not self._is_list_broken:
                self._guess_places([view for view in views if not view.status.ended])
        except* _CutShortError as errors:
            failure = _first_error(errors).failure
        # the server may have limited the rate, so the next sweep begins with fewer concurrent reads
        self._concurrency = max(1, self._concurrency // 2) if failure else min(SLOTS, 2 * self._concurrency)
        return failure

    async def _walk_list(self, sweep: _Sweep) -> None:
        """Read batches from the list, for as long as it is worth its cost."""
        if len(self._places) > MAX_PLACES:
            self._places.clear()

        unplaced_count = sum(batch_id not in self._places for batch_id in sweep.pending)
        async with asyncio.TaskGroup() as single_reads:
            walk = ListWalk(
                sweep.pending,
                self._places,
                lambda after_id: self._read_page(after_id, sweep),
                lambda page: self._take_page(page, sweep, single_reads),
                sweep.concurrency,
                search=unplaced_count >= MIN_FOR_SEARCH and not self._skip_search(),
            )
            try:
                await walk.run()
            finally:
                self._judge_search(walk)

    def _skip_search(self) -> bool:
        skip, self._skips = self._skips > 0, max(0, self._skips - 1)
        return skip

    def _judge_search(self, walk: ListWalk) -> None:
        """Search the list in fewer sweeps after a search that cost more than it saved.

        The first such search may have had a transient reason, so the next sweep searches again. After each further one,
        twice as many sweeps do not search.
        """
        if walk.saved_by_search > walk.searched_pages:
            self._next_skips = 0
        elif walk.saved_by_search < walk.searched_pages:
            self._skips, self._next_skips = self._next_skips, min(max(1, 2 * self._next_skips), MAX_SKIPS)

    def _take_page(self, page: Page, sweep: _Sweep, single_reads: asyncio.TaskGroup) -> int:
        """Take the batches on a page out of `pending`. Report those that are believed, and read the others singly.

        The single reads run while the walks go on, so that an end is not reported later than necessary.

        :return: number of single reads that the page saves.
        """
        views = {view.id: view for view in page.views if view.id not in sweep.listed_ids}
        sweep.listed_ids |= views.keys()
        doubtful, ignored_ids = self._trust.sort_out(views.values(), sweep.pending, page.requested_at)
        if doubtful:
            single_reads.create_task(self._read_singly(doubtful, sweep))
        for view in views.values():
            if view.id not in ignored_ids:
                sweep.report(view.id, view)
        shown_ids = sweep.pending.keys() & views.keys()
        for batch_id in shown_ids:
            del sweep.pending[batch_id]
        return len(shown_ids) - len(doubtful)

    async def _read_page(self, after_id: str | None, sweep: _Sweep) -> Page | None:
        """Return the page that follows a batch, or None if the answer is not a list.

        A key that is refused for the list is refused for every batch too, so all unread batches are then reported as
        refused.
        """
        requested_at = time.monotonic()
        self._is_list_broken = True
        async with sweep.slots, self._shared.slots:
            client = await self._client()
            try:
                with self._measured():
                    answer = await client.batches.with_raw_response.list(limit=PAGE_SIZE, after=after_id or openai.omit)
            except openai.AuthenticationError as error:
                await self._shared.renew(client)
                sweep.refuse_all(Refusal(f"HTTP 401 for the list of batches: {error.message}", key=True))
                return None
            except (openai.APIConnectionError, openai.RateLimitError) as error:
                raise _CutShortError(_failure(error)) from error
            except openai.APIStatusError as error:
                if (failure := _failure(error)).pause:
                    raise _CutShortError(failure) from error
                return None
            except openai.OpenAIError:
                return None
        async with self._decoding:
            # several pages may arrive in the same turn of the event loop, and decoding one takes some milliseconds
            await asyncio.sleep(0)
            page = _parse_page(answer.content, requested_at)
        self._is_list_broken = page is None
        return page

    async def _read_singly(self, entries: Mapping[str, BatchView | None], sweep: _Sweep) -> list[BatchView]:
        """Read batches one by one, several concurrently. Cut the sweep short after many consecutive failures.

        :param entries: by batch id, the entry of the list that the batch is compared with, or None.
        :return: the batches that could be read.
        """
        queue = iter(list(entries))
        views: list[BatchView] = []

        async def work() -> None:
            for batch_id in queue:
                result = await self._read_single(batch_id, sweep)
                if isinstance(result, BatchView):
                    views.append(result)
                    if (listed := entries[batch_id]) is not None:
                        self._trust.compare(listed, result)
                sweep.report(batch_id, result)
                if isinstance(result, Refusal) and result.key:
                    for unread_id in queue:
                        sweep.report(unread_id, result)
                sweep.failures = sweep.failures + 1 if isinstance(result, ReadFailure) else 0
                if isinstance(result, ReadFailure) and (result.pause or sweep.failures >= MAX_FAILURES):
                    raise _CutShortError(result)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(sweep.concurrency, len(entries))):
                workers.create_task(work())
        return views

    def _guess_places(self, views: list[BatchView]) -> None:
        """Guess where the list shows these batches, which were read one by one.

        The guess is that the page after a batch shows the batches that were created just before it. This locates
        batches deep in the list, below the batches of others. If a guess is wrong, they are read one by one again.
        """
        # any batch of the same second may be the newest, so the order is random: a later guess tries another one
        views.sort(key=lambda view: (view.created_at, random.random()), reverse=True)
        for start in range(0, len(views), PAGE_SIZE):
            after_id = views[start].id
            self._places |= {view.id: after_id for view in views[start + 1 : start + PAGE_SIZE]}

    async def _read_single(self, batch_id: str, sweep: _Sweep) -> PollResult:
        async with sweep.slots, self._shared.slots:
            client = await self._client()
            try:
                with self._measured():
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

    @contextlib.contextmanager
    def _measured(self) -> Iterator[None]:
        """Send the metrics of a request."""
        start = time.monotonic()
        try:
            yield
        except openai.OpenAIError:
            send(Kind.COUNTER, "poll.failed", 1, conn_id=self._shared.conn_id)
            raise
        send(Kind.TIMER, "poll.latency", round((time.monotonic() - start) * 1000), conn_id=self._shared.conn_id)

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


def _parse_page(content: bytes, requested_at: float) -> Page | None:
    """Return a page of the list, or None if the answer is not a list.

    :param requested_at: monotonic time before the page was requested.
    """
    try:
        answer = _decode(content)
    except ProviderError:
        return None
    entries = answer.get("data") if isinstance(answer, Mapping) else None
    if not isinstance(entries, list):
        return None
    views = [view for entry in entries if (view := _view(entry)) is not None]
    return Page(views, answer.get("has_more") is not False, requested_at)


def _view(entry: Any) -> BatchView | None:
    try:
        return read_batch(entry)
    except ProviderError:
        return None


def _first_error(group: BaseExceptionGroup[_CutShortError]) -> _CutShortError:
    for error in group.exceptions:
        return _first_error(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one exception")
