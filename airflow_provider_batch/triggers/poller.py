"""One poller per connection and event loop: looks at every batch that any trigger of the loop waits for.

A trigger says what it waits for with `watching`, and is woken when something of it changed. The poller lives while
somebody waits; when the last one leaves, it ends and makes no further request.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from weakref import WeakKeyDictionary

import msgspec

from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.triggers.clients import shared_client
from airflow_provider_batch.triggers.pace import TOGETHER, backoff, spread, until_first_look, until_next_look
from airflow_provider_batch.triggers.reading import PollResult, Reader, ReadFailure, Refusal

#: seconds after which a poller that crashed starts anew, at most
CRASH_PAUSE = 30.0
#: seconds between two looks at a batch, at least, whatever interval an author chose
SHORTEST = 0.05


class Watch:
    """What one trigger waits for, and what was seen of it so far."""

    def __init__(self, batch_ids: Iterable[str], interval: float) -> None:
        #: each batch at most once
        self.batch_ids = tuple(dict.fromkeys(batch_ids))
        #: the longest that a batch is not looked at, in seconds
        self.interval = max(interval, SHORTEST)
        #: each batch as it was last seen
        self.latest: dict[str, BatchView] = {}
        #: sweeps in a row that were refused with nothing seen, and the last refusal
        self.refusals, self.refusal = 0, ""
        #: why batches could not be looked at the last time; empty if they could
        self.trouble = ""
        #: what crashed the poller since this was last read
        self.crash: Exception | None = None
        self._round: list[PollResult] = []
        self._changed = False
        self._woken = asyncio.Event()

    async def changed(self, within: float) -> None:
        """Return once something changed, or after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._woken.wait()
        self._woken.clear()

    def take(self, batch_id: str, answer: PollResult) -> None:
        """What came of looking at one of its batches."""
        self._round.append(answer)
        if isinstance(answer, BatchView) and self.latest.get(batch_id) != answer:
            self.latest[batch_id] = answer
            self._changed = True

    def end_round(self) -> None:
        """All of its batches that this sweep looks at were looked at."""
        answers, self._round = self._round, []
        seen = any(isinstance(answer, BatchView) for answer in answers)
        refusal = next((answer.message for answer in answers if isinstance(answer, Refusal)), "")
        failure = next((answer.message for answer in answers if isinstance(answer, ReadFailure)), "")
        self.refusals = self.refusals + 1 if refusal and not seen else 0
        changed = self._changed or refusal or (refusal or failure) != self.trouble
        self.refusal, self.trouble, self._changed = refusal, refusal or failure, False
        if changed:
            self._woken.set()

    def disturb(self, trouble: str, crash: Exception | None = None) -> None:
        """Its batches cannot be looked at just now."""
        self._round.clear()
        if crash is not None or trouble != self.trouble:
            self.trouble, self.crash = trouble, crash or self.crash
            self._woken.set()


class _Batch:
    """A batch that somebody waits for."""

    __slots__ = ("busy", "due", "ended", "failures", "id", "interval", "watches")

    def __init__(self, batch_id: str, due: float) -> None:
        self.id = batch_id
        #: time of the loop at which it is looked at
        self.due = due
        self.busy = False
        self.ended = False
        #: looks in a row that failed for a passing reason
        self.failures = 0
        self.interval = 0.0
        self.watches: list[Watch] = []


class Poller:
    """Looks at the batches of one connection."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._batches: dict[str, _Batch] = {}
        self._watches: dict[Watch, None] = {}
        #: sweeps in a row that saw nothing, and the time of the loop before which none is begun
        self._failures, self._not_before = 0, 0.0
        #: when the next sweep begins, and what makes that earlier
        self._next = 0.0
        self._sooner = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def add(self, watch: Watch) -> None:
        """Look at these batches too, within seconds."""
        due = self._loop.time() + until_first_look(watch.interval)
        for batch_id in watch.batch_ids:
            batch = self._batches.setdefault(batch_id, _Batch(batch_id, due))
            batch.watches.append(watch)
            batch.interval = min(one.interval for one in batch.watches)
            batch.due, batch.ended = min(batch.due, due), False
        self._watches[watch] = None
        if due < self._next:
            self._sooner.set()
        self.ensure()

    def remove(self, watch: Watch) -> bool:
        """Look no longer for this one; whether it was the last, and the poller has ended."""
        self._watches.pop(watch, None)
        for batch_id in watch.batch_ids:
            batch = self._batches[batch_id]
            batch.watches.remove(watch)
            if batch.watches:
                batch.interval = min(one.interval for one in batch.watches)
            else:
                del self._batches[batch_id]
        if self._watches:
            return False
        if self._task is not None:
            self._task.cancel()
        return True

    def ensure(self) -> None:
        """Start the poller if it does not run."""
        if self._task is None or self._task.done():
            # In a context of its own: whatever it logs belongs to no trigger.
            self._task = self._loop.create_task(
                self._live(), name=f"batch poller of {self.conn_id}", context=contextvars.Context()
            )

    async def _live(self) -> None:
        """Poll; after a crash, which every trigger is told of, anew."""
        while True:
            for batch in self._batches.values():
                # A crash may have come between an answer and those who wait for it.
                batch.busy = batch.ended = False
            try:
                await self._poll()
            except Exception as crash:  # noqa: BLE001  # told to every trigger, never a silent end
                self._failures += 1
                for watch in list(self._watches):
                    watch.disturb(watch.trouble, crash)
                await asyncio.sleep(min(backoff(self._failures, self._interval()), CRASH_PAUSE))

    async def _poll(self) -> None:
        async with shared_client(self.conn_id) as shared, asyncio.TaskGroup() as sweeps:
            reader = Reader(shared)
            while True:
                idle = [batch for batch in self._batches.values() if not batch.busy and not batch.ended]
                now = self._loop.time()
                self._next = max(min((batch.due for batch in idle), default=float("inf")), self._not_before)
                if self._next <= now:
                    due = [batch for batch in idle if batch.due - TOGETHER * batch.interval <= now]
                    for batch in due:
                        batch.busy = True
                    sweeps.create_task(self._sweep(reader, due))
                    continue
                self._sooner.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._next - now if self._next < float("inf") else None):
                        await self._sooner.wait()

    async def _sweep(self, reader: Reader, due: list[_Batch]) -> None:
        """Look once at each of these batches, and tell those who wait for them."""
        #: how many batches each trigger still waits for in this sweep
        open_of = Counter(watch for batch in due for watch in batch.watches)
        looked: set[str] = set()
        factor = spread()
        saw = False

        def tell(batch_id: str, answer: PollResult) -> None:
            nonlocal saw
            batch = self._batches.get(batch_id)
            if batch is None:
                return
            saw = saw or not isinstance(answer, ReadFailure)
            swept = batch_id in wanted and batch_id not in looked
            looked.add(batch_id)
            if isinstance(answer, BatchView):
                answer = msgspec.structs.replace(answer, problems=[], metadata={})
            self._schedule(batch, answer, factor)
            for watch in batch.watches:
                watch.take(batch_id, answer)
                open_of[watch] -= swept
                if open_of[watch] <= 0:
                    watch.end_round()

        wanted = {batch.id for batch in due}
        cut = await reader.read(wanted, tell)
        for batch in due:
            batch.busy = False
        self._failures = 0 if saw else self._failures + 1
        if cut is not None:
            now = self._loop.time()
            pause = max(cut.pause, backoff(max(1, self._failures), self._interval())) * spread()
            self._not_before = max(self._not_before, now + pause)
            for watch, still_open in open_of.items():
                if still_open > 0:
                    watch.disturb(cut.message)
        # A sweep that ends changes what is due next.
        self._sooner.set()

    def _schedule(self, batch: _Batch, answer: PollResult, factor: float) -> None:
        pause = batch.interval
        batch.failures = batch.failures + 1 if isinstance(answer, ReadFailure) else 0
        if isinstance(answer, BatchView):
            batch.ended = answer.status.ended
            pause = until_next_look(answer, time.time(), batch.interval)
        elif isinstance(answer, ReadFailure):
            pause = backoff(batch.failures, batch.interval)
        batch.due = self._loop.time() + pause * factor

    def _interval(self) -> float:
        return min((watch.interval for watch in self._watches), default=1.0)


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


@contextlib.contextmanager
def watching(conn_id: str, batch_ids: Iterable[str], interval: float) -> Iterator[tuple[Watch, Poller]]:
    """Have batches looked at, at least every `interval` seconds, for as long as the block lasts."""
    of_loop = _pollers.setdefault(asyncio.get_running_loop(), {})
    poller = of_loop.get(conn_id) or of_loop.setdefault(conn_id, Poller(conn_id))
    watch = Watch(batch_ids, interval)
    poller.add(watch)
    try:
        yield watch, poller
    finally:
        if poller.remove(watch) and of_loop.get(conn_id) is poller:
            del of_loop[conn_id]
