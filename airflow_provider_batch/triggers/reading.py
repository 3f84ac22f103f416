"""One look at many batches, in as few requests as can be, at a server that is not trusted.

Pages of the list show a hundred batches for one request. First those are read that showed wanted batches before: new
batches come at the top, so what follows a batch stays the same, and such pages can be read side by side. Then the list
is read from its top while that shows more of the wanted batches than it costs; what is left is read singly.

Paged by hand: servers are known that ignore `after`, have no `has_more`, or never end. Wherever a list is not as
expected, single reads make up for it. Read without the SDK's models, whose building would hold up the loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import openai
from openai import AsyncOpenAI

from airflow_provider_batch.core.provider.batch import BatchView, read_batch
from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.triggers.clients import SLOTS, SharedClient
from airflow_provider_batch.triggers.pace import retry_after

#: batches on a page of the list: the most that the API allows
PAGE = 100
#: below this many wanted batches no list is read from its top
FROM = 3
#: a page that showed so many of the wanted batches before is read again
AGAIN_FOR = 2
#: such pages under way at once; each holds up the loop for some milliseconds when it comes
PAGES_AT_ONCE = 8
#: so often they may show fewer batches each than a page has to before the list is read from its top instead
THIN = 10
#: so many batches are remembered with the page that showed them
MOST_PLACES = 100_000
#: one page may be read in vain for each so many batches that are still wanted
A_PAGE_FOR = 50
#: for at most so many looks the list is left alone after it did not pay
LONGEST_REST = 32
#: single reads that fail in a row before the rest is left for later
GIVE_UP = 20


@dataclass(frozen=True)
class Refusal:
    """The server refuses to show a batch: 401, 403 or 404."""

    message: str
    #: it is the key that is refused (401): with it no batch will be shown
    key: bool = False


@dataclass(frozen=True)
class ReadFailure:
    """A read that failed for a passing reason."""

    message: str
    #: seconds that the server asked to wait, or 0
    pause: float = 0.0


#: what came of looking at a batch
PollResult = BatchView | Refusal | ReadFailure


class _CutShortError(Exception):
    """The rest of this look is of no use now."""

    def __init__(self, failed: ReadFailure) -> None:
        super().__init__(failed.message)
        self.failed = failed


class Reader:
    """Looks at batches through one shared client, and remembers whether its list is of any use."""

    def __init__(self, shared: SharedClient) -> None:
        self._shared = shared
        #: looks for which the list is still left alone, and how many it will be the next time
        self._resting, self._rest = 0, 1
        #: by batch, the batch that its page follows: the page after that one showed it the last time
        self._places: dict[str, str] = {}
        #: how often those pages held few
        self._thin = 0
        #: the last page was none
        self._no_list = False

    async def read(self, wanted: Iterable[str], tell: Callable[[str, PollResult], None]) -> ReadFailure | None:
        """Look once at each batch.

        :param tell: is told what came of each; of batches that were not wanted too, if a page shows them.
        :return: why the look was cut short, or None. What was not told of then was not looked at.
        """
        left = dict.fromkeys(wanted)
        failed: ReadFailure | None = None
        try:
            await self._known_pages(left, tell)
            if len(left) >= FROM and not self._rested():
                await self._pages(left, tell)
            await self._singles(left, tell)
        except* _CutShortError as cut:
            failed = _first(cut).failed
        return failed

    async def _known_pages(self, left: dict[str, None], tell: Callable[[str, PollResult], None]) -> None:
        """Read the pages, several at once, that showed wanted batches before; those with most of them first."""
        members: defaultdict[str, list[str]] = defaultdict(list)
        for batch_id in left:
            if batch_id in self._places:
                members[self._places[batch_id]].append(batch_id)
        if len(members) > 1 + sum(map(len, members.values())) // A_PAGE_FOR:
            # In the course of time pages overlap, and hold ever fewer that still run: find out anew, now and then.
            self._thin += 1
        if (self._resting and self._no_list) or (members and self._thin and self._thin % THIN == 0):
            self._thin += bool(self._thin)
            return
        pages = iter(sorted(members, key=lambda after: len(members[after]), reverse=True))

        async def work() -> None:
            for after in pages:
                if sum(batch_id in left for batch_id in members[after]) < AGAIN_FOR:
                    continue
                page = await self._page(after, left, tell)
                for batch_id in members[after]:
                    self._places.pop(batch_id, None)
                if page is not None:
                    self._show(after, page[0], left, tell)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(PAGES_AT_ONCE, len(members))):
                workers.create_task(work())

    def _show(
        self,
        after: str | None,
        views: Iterable[BatchView],
        left: dict[str, None],
        tell: Callable[[str, PollResult], None],
    ) -> None:
        """Tell of the batches on a page, which are then no longer left, and remember which page it was."""
        for view in views:
            if view.status.ended:
                self._places.pop(view.id, None)
            elif after is not None and (view.id in left or view.id in self._places):
                self._places[view.id] = after
            left.pop(view.id, None)
            tell(view.id, view)

    def _rested(self) -> bool:
        resting, self._resting = self._resting > 0, max(0, self._resting - 1)
        return resting

    def _leave_lists(self) -> None:
        self._resting, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)

    async def _pages(self, left: dict[str, None], tell: Callable[[str, PollResult], None]) -> None:
        """Read the list from its top while that pays."""
        known: set[str] = set()
        after: str | None = None
        found = pages = vain = 0
        while left and vain * A_PAGE_FOR <= len(left):
            page = await self._page(after, left, tell)
            if page is None:
                self._leave_lists()
                return
            views, last, more = page
            pages += 1
            before = len(left)
            fresh = {view.id: view for view in views if view.id not in known}
            known.update(fresh)
            self._show(after, fresh.values(), left, tell)
            gain = before - len(left)
            found += gain
            # Each page costs a request, each batch that it shows saves one.
            vain = max(0, vain + 1 - gain)
            if not fresh or not more or not last or last == after:
                break
            after = last
            # A page may be decoded in one go; the next one waits for its turn in the loop.
            await asyncio.sleep(0)
        if found > pages:
            self._rest = 1
        elif found < pages:
            self._leave_lists()

    async def _page(
        self, after: str | None, left: dict[str, None], tell: Callable[[str, PollResult], None]
    ) -> tuple[list[BatchView], str, bool] | None:
        """Batches of a page, the id of its last entry, and whether there may be more; None if there is no list.

        A key that opens no list opens no batch: then every batch left counts as refused.
        """
        self._no_list = True
        async with self._shared.slots:
            client = await self._client()
            try:
                answer = await client.batches.with_raw_response.list(limit=PAGE, after=after or openai.omit)
                page = _decoded(answer.content)
            except openai.AuthenticationError as error:
                await self._shared.renew(client)
                refused = Refusal(f"HTTP 401 for the list of batches: {error.message}", key=True)
                for batch_id in left:
                    tell(batch_id, refused)
                left.clear()
                return None
            except (openai.APIConnectionError, openai.RateLimitError) as error:
                self._leave_lists()
                raise _CutShortError(_failed(error)) from error
            except openai.APIStatusError as error:
                if (failed := _failed(error)).pause:
                    raise _CutShortError(failed) from error
                return None
            except (openai.OpenAIError, ProviderError):
                return None
        entries = page.get("data") if isinstance(page, Mapping) else None
        if not isinstance(entries, list):
            return None
        self._no_list = False
        views = [view for entry in entries if (view := _view(entry)) is not None]
        return views, views[-1].id if views else "", page.get("has_more") is not False

    async def _singles(self, left: dict[str, None], tell: Callable[[str, PollResult], None]) -> None:
        """Read one by one, some at the same time; after many failures in a row the rest is left for later."""
        waiting = iter(list(left))
        in_a_row = 0
        seen: list[BatchView] = []

        async def work() -> None:
            nonlocal in_a_row
            for batch_id in waiting:
                answer = await self._single(batch_id)
                tell(batch_id, answer)
                if isinstance(answer, BatchView) and not answer.status.ended:
                    seen.append(answer)
                if isinstance(answer, Refusal) and answer.key:
                    for other in waiting:
                        tell(other, answer)
                in_a_row = in_a_row + 1 if isinstance(answer, ReadFailure) else 0
                if isinstance(answer, ReadFailure) and (answer.pause or in_a_row >= GIVE_UP):
                    raise _CutShortError(answer)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(SLOTS, len(left))):
                workers.create_task(work())
        self._guess_pages(seen)

    def _guess_pages(self, singly: list[BatchView]) -> None:
        """Take it that a page after one of these shows the ones created before it; if not, they are read singly anew.

        So batches are found that lie deep in the list, below those of others.
        """
        if len(self._places) > MOST_PLACES:
            self._places.clear()
        # Of one second any may be the newest: another one is tried the next time.
        singly.sort(key=lambda view: (view.created_at, random.random()), reverse=True)
        for start in range(0, len(singly), PAGE):
            top = singly[start].id
            self._places |= {view.id: top for view in singly[start + 1 : start + PAGE]}

    async def _single(self, batch_id: str) -> PollResult:
        async with self._shared.slots:
            client = await self._client()
            try:
                answer = await client.batches.with_raw_response.retrieve(batch_id)
                return read_batch(_decoded(answer.content))
            except openai.AuthenticationError as error:
                await self._shared.renew(client)
                return Refusal(f"HTTP 401 for batch {batch_id}: {error.message}", key=True)
            except (openai.PermissionDeniedError, openai.NotFoundError) as error:
                return Refusal(f"HTTP {error.status_code} for batch {batch_id}: {error.message}")
            except (openai.OpenAIError, ProviderError) as error:
                return _failed(error)

    async def _client(self) -> AsyncOpenAI:
        try:
            return await self._shared.get()
        except Exception as error:  # a secrets backend, a token exchange: whatever it raises may pass
            message = f"connection {self._shared.conn_id!r} makes no client: {type(error).__name__}: {error}"
            raise _CutShortError(ReadFailure(message)) from error


def _failed(error: Exception) -> ReadFailure:
    if isinstance(error, openai.APIStatusError):
        return ReadFailure(f"HTTP {error.status_code}", retry_after(error.response.headers.get("retry-after")))
    return ReadFailure(str(error) if isinstance(error, ProviderError) else f"{type(error).__name__}: {error}")


def _decoded(content: bytes) -> Any:
    """The JSON of an answer.

    :raises ProviderError: if it is none.
    """
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProviderError("The server answered with something that is no JSON.") from error


def _view(entry: Any) -> BatchView | None:
    try:
        return read_batch(entry)
    except ProviderError:
        return None


def _first(group: BaseExceptionGroup[_CutShortError]) -> _CutShortError:
    for error in group.exceptions:
        return _first(error) if isinstance(error, BaseExceptionGroup) else error
    raise AssertionError("a group holds at least one exception")
