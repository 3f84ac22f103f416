"""Waits for batches in the triggerer: has their status read, and nothing else.

No download, no staging, no paid call, no thread for a poll; the arguments hold ids and times, never data or keys. So
it may be restarted, moved to another triggerer, or run twice: nothing depends on how often it runs.

Airflow imports this module in the triggerer's event loop, so it imports nothing that is slow to import: the OpenAI SDK
and what needs it are imported in a thread, by the first trigger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.worker.task_state import STOPPED_STATES, is_stopped, task_state

if TYPE_CHECKING:
    from airflow_provider_batch.triggers.poller import Poller, Watch

__all__ = ["BatchTrigger"]

#: most batch ids that a trigger carries; the metadata database keeps them in one text column
MAX_BATCHES = 500
#: sweeps in a row that may be refused (401, 403, 404) before the wait ends in a failure
_MAX_REFUSALS = 5
#: seconds before the first event. A worker may take some seconds to end after it deferred (Airflow's supervisor looks
#: every 5); if the task is queued again just then, the scheduler takes that end for the new worker's and fails the task
_FIRST_PAUSE = 10.0
#: seconds from an end until the worker is woken, as others may end meanwhile, where shards wait for room …
_ROOM_WITHIN = 60.0
#: … and where there are only rows to collect: at least so many intervals, and as long as this part of the job's age.
#: So a job's waits get longer, and however many batches end one after the other, its worker wakes about ten times a day
COLLECT_AFTER, PART_OF_AGE = 10, 0.5
#: seconds after which progress is told even if nothing changed
TELL_EVERY = 300.0
#: progress of the requests alone is told when it is this part of them all
_TELL_STEP = 0.05
#: the XCom in which the sensor leaves the id of the task instance that deferred last
ATTEMPT_KEY = "batch_attempt"
#: cancels under way; the event loop alone would not keep them from being collected
_at_work: set[asyncio.Task[None]] = set()


class BatchTrigger(BaseTrigger):
    """Fires once, with the reason to wake the worker.

    The event is `{"reason": ..., "message": ...}` with one of the reasons

    * `ended`: every batch ended; or some did, and others that may end soon after were waited for;
    * `due`: `wake_at` is over: rows may be asked again, or shards sent;
    * `deadline`: the job's deadline is over;
    * `refused`: five sweeps in a row were refused with the same kind of answer, which the message tells.

    :param openai_conn_id: connection of type openai.
    :param job_uid: the job, for the log.
    :param batch_ids: live batches, at most 500.
    :param deadline: ISO time at which the wait is over, or None.
    :param wake_at: ISO time at which there is other work for the worker, or None.
    :param any_end: fire within a minute of the first end, because shards wait for room.
    :param poll_interval: seconds between two looks at a batch, at most.
    :param cancel_on_kill: cancel the batches once a person marks the task failed or skipped, or deletes the run.
    """

    def __init__(
        self,
        *,
        openai_conn_id: str,
        job_uid: str,
        batch_ids: Sequence[str],
        deadline: str | None,
        wake_at: str | None = None,
        any_end: bool = False,
        poll_interval: float = 60.0,
        cancel_on_kill: bool = True,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.openai_conn_id = openai_conn_id
        self.job_uid = job_uid
        self.batch_ids = list(batch_ids)
        self.deadline = deadline
        self.wake_at = wake_at
        self.any_end = any_end
        self.poll_interval = poll_interval
        self.cancel_on_kill = cancel_on_kill
        self._began = 0.0
        #: when this run first saw a batch that had ended, by the monotonic clock
        self._first_end: float | None = None
        self._teller = _Teller(job_uid, self.log.info, self.log.warning)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Class path and arguments, for the metadata database."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "openai_conn_id": self.openai_conn_id,
                "job_uid": self.job_uid,
                "batch_ids": self.batch_ids,
                "deadline": self.deadline,
                "wake_at": self.wake_at,
                "any_end": self.any_end,
                "poll_interval": self.poll_interval,
                "cancel_on_kill": self.cancel_on_kill,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait until there is a reason to wake the worker."""
        self._began = time.monotonic()
        if self.batch_ids:
            watching = await _imported_watching()
            with watching(self.openai_conn_id, self.batch_ids, self.poll_interval) as (watch, poller):
                event = await self._wait(watch, poller)
        else:
            self.log.info("Job %s: no batch is running; the next step is due at %s", self.job_uid[:8], self.wake_at)
            event = await self._wait_for_time()
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self, watch: Watch, poller: Poller) -> dict[str, Any]:
        while True:
            self._report(watch)
            event, pause = self._event(watch)
            if event is not None and pause <= 0:
                return event
            poller.ensure()
            await watch.changed(max(0.01, min(pause, self._teller.due_in())))

    async def _wait_for_time(self) -> dict[str, Any]:
        while True:
            event, pause = self._time_event()
            if event is not None and pause <= 0:
                return event
            await asyncio.sleep(max(0.01, min(pause, TELL_EVERY)))

    def _event(self, watch: Watch) -> tuple[dict[str, Any] | None, float]:
        """The event that is next as things stand, if any, and the seconds until it is."""
        event, pause = self._time_event()
        if watch.refusals >= _MAX_REFUSALS:
            return {"reason": "refused", "message": watch.refusal}, self._first_pause()
        ended = sum(view.status.ended for view in watch.latest.values())
        if not ended:
            return event, pause
        now = time.monotonic()
        if self._first_end is None:
            self._first_end = now
        if ended == len(watch.batch_ids):
            wait = 0.0
        elif self.any_end:
            wait = self._first_end + min(_ROOM_WITHIN, self.poll_interval) - now
        else:
            patience = max(COLLECT_AFTER * self.poll_interval, PART_OF_AGE * _age(watch.latest.values()))
            wait = self._first_end + patience - now
        wait = max(wait, self._first_pause())
        return ({"reason": "ended"}, wait) if event is None or wait < pause else (event, pause)

    def _time_event(self) -> tuple[dict[str, Any] | None, float]:
        """The same of the clock alone."""
        event, pause = None, float("inf")
        for reason, moment in (("deadline", self.deadline), ("due", self.wake_at)):
            left = _until(moment)
            if left < pause:
                event, pause = {"reason": reason}, left
        return event, max(pause, self._first_pause())

    def _first_pause(self) -> float:
        return self._began + min(self.poll_interval, _FIRST_PAUSE) - time.monotonic()

    def _report(self, watch: Watch) -> None:
        crash, watch.crash = watch.crash, None
        if crash is not None:
            self.log.error(
                "Job %s: looking at the batches crashed; it starts anew, and the batches go on.",
                self.job_uid[:8],
                exc_info=crash,
            )
        self._teller.tell(watch.latest, len(watch.batch_ids), watch.trouble)

    async def on_kill(self) -> None:
        """Cancel the batches if a person's decision ended the task; Airflow also calls this on takeover and clear.

        Airflow 3.3 cancels this coroutine anew with each round of its loop, about every second, so it rarely gets to
        its end. The work is therefore a task of its own, which lives on when this is over.
        """
        if not self.cancel_on_kill or not self.batch_ids:
            return
        work = asyncio.create_task(self._cancel_if_stopped())
        _at_work.add(work)
        work.add_done_callback(_at_work.discard)
        await asyncio.shield(work)

    async def _cancel_if_stopped(self) -> None:
        if not is_stopped(await self._task_state(), self.log):
            return
        cancel_batches = await asyncio.to_thread(_import_cancel_batches)
        cancelled = await cancel_batches(self.openai_conn_id, self.batch_ids, self._not_cancelled)
        self.log.info("%d of %d batches are cancelled or had ended.", cancelled, len(self.batch_ids))

    def _not_cancelled(self, batch_id: str, said: str) -> None:
        self.log.warning("Batch %s was not cancelled: %s", batch_id, said)

    async def _task_state(self) -> str:
        """State of this attempt of the task as Airflow has it; 'removed' if its run is gone, 'unknown' if unsure."""
        from airflow.sdk.execution_time.xcom import XCom

        ti = self.task_instance
        state = await asyncio.to_thread(task_state, ti, self.log)
        if ti is None or state not in STOPPED_STATES or state == "removed":
            return state
        # The state may be that of a later attempt, which began after a clear and has failed by itself since. An
        # attempt that begins deletes the XComs of the one before.
        try:
            attempt = await asyncio.to_thread(
                XCom.get_one,
                key=ATTEMPT_KEY,
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=-1 if ti.map_index is None else ti.map_index,
            )
        except Exception as error:  # noqa: BLE001  # unsure means: do not cancel
            self.log.warning("Which attempt the task is in cannot be read (%s).", error)
            return "unknown"
        return state if attempt == str(ti.id) else f"{state}, of a later attempt"


class _Teller:
    """Tells progress: when something changed, and every few minutes anyway; counts only, no data."""

    def __init__(self, job_uid: str, info: Callable[..., Any], warning: Callable[..., Any]) -> None:
        self._job, self._info, self._warning = job_uid[:8], info, warning
        self._told: tuple[Any, ...] = ()
        self._answered, self._told_at = 0, 0.0
        self._unknown: set[str] = set()
        self._trouble_at = -TELL_EVERY

    def due_in(self) -> float:
        """Seconds until progress is told even if nothing changes."""
        return self._told_at + TELL_EVERY - time.monotonic() if self._told_at else TELL_EVERY

    def tell(self, latest: Mapping[str, BatchView], batches: int, trouble: str) -> None:
        """Say what is new."""
        now = time.monotonic()
        if trouble and now - self._trouble_at >= TELL_EVERY:
            self._trouble_at = now
            self._warning(
                "Job %s: batches could not be looked at (%s). They go on, and are looked at again.", self._job, trouble
            )
        if not latest:
            return
        for view in latest.values():
            if not view.has_known_status and view.raw_status not in self._unknown:
                self._unknown.add(view.raw_status)
                self._warning("Batch %s has the unknown status %r; it counts as running.", view.id, view.raw_status)
        running = [view for view in latest.values() if not view.status.ended]
        done = sum(view.completed for view in latest.values())
        failed = sum(view.failed for view in latest.values())
        total = sum(view.total for view in latest.values())
        said = sorted({view.raw_status for view in running})
        state = (len(latest) - len(running), bool(failed), total, said)
        moved = abs(done + failed - self._answered) >= max(1, _TELL_STEP * total)
        if state == self._told and not moved and now - self._told_at < TELL_EVERY:
            return
        self._told, self._answered, self._told_at = state, done + failed, now
        self._info(
            "Job %s: %s of %s requests done, %s failed; %d of %d batches ended%s%s",
            self._job,
            f"{done + failed:,}",
            f"{total:,}" if total else "?",
            f"{failed:,}",
            len(latest) - len(running),
            batches,
            f" ({', '.join(said)})" if said else "",
            _outlook(running, done + failed, total, len(latest) == batches),
        )


def _outlook(running: Sequence[BatchView], done: int, total: int, all_seen: bool) -> str:
    """How long the oldest batch runs, and when all requests would be done at the pace so far."""
    age = _age(running)
    if not age:
        return ""
    told = f"; the oldest runs for {_duration(age)}"
    if all_seen and 0 < done < total:
        left = timedelta(seconds=min(age * (total - done) / done, 10 * 86_400))
        told += f", at this pace all is done at {datetime.now(UTC) + left:%Y-%m-%d %H:%M} UTC"
    return told


def _age(views: Iterable[BatchView]) -> float:
    """Seconds since the oldest of these was created; 0 if none says so."""
    created = min((view.created_at for view in views if view.created_at), default=0)
    return max(0.0, time.time() - created) if created else 0.0


def _duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _until(moment: str | None) -> float:
    if moment is None:
        return float("inf")
    return (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()


#: what the first trigger of a process has imported
_watching: Callable[..., AbstractContextManager[tuple[Watch, Poller]]] | None = None


async def _imported_watching() -> Callable[..., AbstractContextManager[tuple[Watch, Poller]]]:
    global _watching
    if _watching is None:
        _watching = await asyncio.to_thread(_import_watching)
    return _watching


def _import_watching() -> Callable[..., AbstractContextManager[tuple[Watch, Poller]]]:
    from airflow_provider_batch.triggers.poller import watching

    return watching


def _import_cancel_batches() -> Callable[[str, Sequence[str], Callable[[str, str], None]], Any]:
    from airflow_provider_batch.triggers.cancel import cancel_batches

    return cancel_batches
