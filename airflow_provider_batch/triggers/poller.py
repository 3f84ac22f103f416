"""One poller per connection and event loop, which reads every batch that any trigger in the loop waits for.

A trigger calls `watch_batches` with the batches it waits for, and is woken when one of them changes. The poller runs as
long as any trigger waits. When the last one leaves, it stops and sends no further request.

The poller works in sweeps: it collects the batches that are due, reads each of them once with a `Reader`, and passes
the results to the watches. Each batch then gets a new due time, so that every sweep reads only what is due. Sweeps may
overlap, but no batch is in two of them at a time.
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

from airflow_provider_batch.core.lifecycle.metrics import Kind
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.triggers.clients import shared_client
from airflow_provider_batch.triggers.list_trust import list_trust
from airflow_provider_batch.triggers.pace import (
    EARLY_FRACTION,
    backoff,
    jitter,
    seconds_until_first_read,
    seconds_until_next_read,
)
from airflow_provider_batch.triggers.reading import PollResult, Reader, ReadFailure, Refusal
from airflow_provider_batch.worker.metrics import send

#: maximum seconds until a poller restarts after a crash
MAX_CRASH_PAUSE = 30.0
#: minimum seconds between two reads of a batch, even if an author chose a shorter interval
MIN_INTERVAL = 0.05


class Watch:
    """The batches that one trigger waits for, and what is known about them."""

    def __init__(self, batch_ids: Iterable[str], interval: float) -> None:
        #: without duplicates
        self.batch_ids = tuple(dict.fromkeys(batch_ids))
        #: maximum seconds between two reads of a batch
        self.interval = max(interval, MIN_INTERVAL)
        #: last state of each batch that has been read
        self.latest: dict[str, BatchView] = {}
        #: consecutive refused reads of each batch that was not readable last time, and the message of the last one
        self.refusals: dict[str, int] = {}
        self.refusal = ""
        #: why the last read of a batch failed; empty if it succeeded
        self.trouble = ""
        #: error that crashed the poller; the trigger that reports it resets it to None
        self.crash: Exception | None = None
        #: why batches are read in another way from now on; the trigger that reports it resets it to ""
        self.notice = ""
        self._results: list[PollResult] = []
        self._has_changed = False
        self._wake_up = asyncio.Event()

    async def wait_for_change(self, timeout: float) -> None:
        """Return once something has changed, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._wake_up.wait()
        self._wake_up.clear()

    def add_result(self, batch_id: str, result: PollResult) -> None:
        """Receive the result of reading one of the batches."""
        self._results.append(result)
        if isinstance(result, Refusal):
            self.refusals[batch_id] = self.refusals.get(batch_id, 0) + 1
        else:
            self.refusals.pop(batch_id, None)
        latest = self.latest.get(batch_id)
        if isinstance(result, BatchView) and latest != result and not (latest and latest.status.ended):
            self.latest[batch_id] = result
            self._has_changed = True

    def notify(self, notice: str) -> None:
        """Let the trigger report something that it should know."""
        self.notice = notice
        self._wake_up.set()

    def end_sweep(self) -> None:
        """Evaluate a sweep, once it has read all of its batches that belong to this watch."""
        results, self._results = self._results, []
        refusal = next((result.message for result in results if isinstance(result, Refusal)), "")
        failure = next((result.message for result in results if isinstance(result, ReadFailure)), "")
        has_changed = self._has_changed or refusal or (refusal or failure) != self.trouble
        self.refusal = refusal or self.refusal
        self.trouble, self._has_changed = refusal or failure, False
        if has_changed:
            self._wake_up.set()

    def abort_sweep(self, trouble: str, crash: Exception | None = None) -> None:
        """Discard the results of a sweep that could not read all of its batches."""
        self._results.clear()
        if crash is not None or trouble != self.trouble:
            self.trouble, self.crash = trouble, crash or self.crash
            self._wake_up.set()


class _Batch:
    """A batch that at least one trigger waits for."""

    __slots__ = ("created_at", "due", "failures", "has_ended", "id", "interval", "is_in_sweep", "watches")

    def __init__(self, batch_id: str, due: float) -> None:
        self.id = batch_id
        #: loop time of the next read
        self.due = due
        self.is_in_sweep = False
        #: whether it has ended, so that it need not be read again
        self.has_ended = False
        #: when the provider created it, in Unix seconds; 0 if unknown
        self.created_at = 0
        #: consecutive reads that failed for a transient reason
        self.failures = 0
        self.interval = 0.0
        self.watches: list[Watch] = []


class Poller:
    """Reads the batches of one connection."""

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._trust = list_trust(conn_id)
        self._batches: dict[str, _Batch] = {}
        self._watches: dict[Watch, None] = {}
        #: consecutive sweeps that read nothing, and the loop time before which no sweep starts
        self._failures, self._not_before = 0, 0.0
        #: loop time of the next sweep, and the event that is set when it may have to start earlier
        self._next_sweep = 0.0
        self._reschedule = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def add(self, watch: Watch) -> None:
        """Start reading the batches of a watch within seconds."""
        due = self._loop.time() + seconds_until_first_read(watch.interval)
        for batch_id in watch.batch_ids:
            batch = self._batches.setdefault(batch_id, _Batch(batch_id, due))
            batch.watches.append(watch)
            batch.interval = min(watch.interval for watch in batch.watches)
            batch.due, batch.has_ended = min(batch.due, due), False
        self._watches[watch] = None
        if due < self._next_sweep:
            self._reschedule.set()
        self.ensure_running()

    def remove(self, watch: Watch) -> bool:
        """Stop reading for a watch. Return True if it was the last one, which stops the poller."""
        self._watches.pop(watch, None)
        for batch_id in watch.batch_ids:
            batch = self._batches[batch_id]
            batch.watches.remove(watch)
            if batch.watches:
                batch.interval = min(watch.interval for watch in batch.watches)
            else:
                del self._batches[batch_id]
                self._trust.forget(batch_id)
        if self._watches:
            return False
        self._send_metrics()
        if self._task is not None:
            self._task.cancel()
        return True

    def ensure_running(self) -> None:
        """Start the poller unless it is running."""
        if self._task is None or self._task.done():
            # a fresh context keeps the poller's log lines out of the log of the trigger that happens to start it
            self._task = self._loop.create_task(
                self._run(), name=f"batch poller of {self.conn_id}", context=contextvars.Context()
            )

    async def _run(self) -> None:
        """Poll. After a crash, report it to every trigger and poll again."""
        while True:
            for batch in self._batches.values():
                # the crash may have come after a batch was read and before its watches received the result
                batch.is_in_sweep = batch.has_ended = False
            try:
                await self._poll()
            except Exception as crash:  # noqa: BLE001  # every trigger reports it, so that polling never ends silently
                self._failures += 1
                for watch in list(self._watches):
                    watch.abort_sweep(watch.trouble, crash)
                await asyncio.sleep(min(backoff(self._failures, self._min_interval()), MAX_CRASH_PAUSE))

    async def _poll(self) -> None:
        async with shared_client(self.conn_id) as shared, asyncio.TaskGroup() as sweeps:
            reader = Reader(shared, self._trust)
            while True:
                idle = [batch for batch in self._batches.values() if not batch.is_in_sweep and not batch.has_ended]
                now = self._loop.time()
                self._next_sweep = max(min((batch.due for batch in idle), default=float("inf")), self._not_before)
                if self._next_sweep <= now:
                    due = [batch for batch in idle if batch.due - EARLY_FRACTION * batch.interval <= now]
                    for batch in due:
                        batch.is_in_sweep = True
                    sweeps.create_task(self._sweep(reader, due))
                    continue
                self._reschedule.clear()
                with contextlib.suppress(TimeoutError):
                    timeout = self._next_sweep - now if self._next_sweep < float("inf") else None
                    async with asyncio.timeout(timeout):
                        await self._reschedule.wait()

    async def _sweep(self, reader: Reader, due: list[_Batch]) -> None:
        """Read each of these batches once and pass the results to the watches."""
        # in the order in which their triggers started
        due_ids = dict.fromkeys(batch.id for batch in due)
        read_ids: set[str] = set()
        #: number of batches of this sweep that each watch still waits for
        unread = Counter(watch for batch in due for watch in batch.watches)
        factor = jitter()
        has_result = False

        def report(batch_id: str, result: PollResult) -> None:
            nonlocal has_result
            batch = self._batches.get(batch_id)
            if batch is None:
                return
            has_result = has_result or not isinstance(result, ReadFailure)
            is_first_result = batch_id in due_ids and batch_id not in read_ids
            read_ids.add(batch_id)
            if isinstance(result, BatchView):
                result = msgspec.structs.replace(result, problems=[], metadata={})
            self._schedule(batch, result, factor)
            for watch in batch.watches:
                watch.add_result(batch_id, result)
                unread[watch] -= is_first_result
                if unread[watch] <= 0:
                    watch.end_sweep()

        failure = await reader.read(due_ids, report)
        if notice := self._trust.pop_evidence():
            for watch in self._watches:
                watch.notify(notice)
        for batch in due:
            batch.is_in_sweep = False
        self._send_metrics()
        self._failures = 0 if has_result else self._failures + 1
        if failure is not None:
            now = self._loop.time()
            pause = max(failure.pause, backoff(max(1, self._failures), self._min_interval())) * jitter()
            self._not_before = max(self._not_before, now + pause)
            for watch, count in unread.items():
                if count > 0:
                    watch.abort_sweep(failure.message)
        # the end of a sweep changes when the next one is due
        self._reschedule.set()

    def _send_metrics(self) -> None:
        live = [batch.created_at for batch in self._batches.values() if not batch.has_ended]
        send(Kind.GAUGE, "batches.live", len(live), conn_id=self.conn_id)
        # A gauge keeps its last value, so it is 0 without a batch.
        now = round(time.time())
        age = max(now - min(filter(None, live), default=now), 0)
        send(Kind.GAUGE, "batches.oldest", age, conn_id=self.conn_id)

    def _schedule(self, batch: _Batch, result: PollResult, factor: float) -> None:
        pause = batch.interval
        batch.failures = batch.failures + 1 if isinstance(result, ReadFailure) else 0
        if isinstance(result, BatchView):
            batch.has_ended = batch.has_ended or result.status.ended
            batch.created_at = result.created_at
            pause = seconds_until_next_read(result, time.time(), batch.interval)
        elif isinstance(result, ReadFailure):
            pause = backoff(batch.failures, batch.interval)
        batch.due = self._loop.time() + pause * factor

    def _min_interval(self) -> float:
        return min((watch.interval for watch in self._watches), default=1.0)


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Poller]] = WeakKeyDictionary()


@contextlib.contextmanager
def watch_batches(conn_id: str, batch_ids: Iterable[str], interval: float) -> Iterator[tuple[Watch, Poller]]:
    """Read batches, at least every `interval` seconds, for as long as the block lasts."""
    pollers = _pollers.setdefault(asyncio.get_running_loop(), {})
    poller = pollers.get(conn_id) or pollers.setdefault(conn_id, Poller(conn_id))
    watch = Watch(batch_ids, interval)
    poller.add(watch)
    try:
        yield watch, poller
    finally:
        if poller.remove(watch) and pollers.get(conn_id) is poller:
            del pollers[conn_id]
