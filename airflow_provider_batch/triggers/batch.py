"""A trigger that waits for batches and only watches their status.

It downloads nothing, does not touch staging, makes no paid call and starts no thread per poll. Its arguments hold ids
and times, never data or keys. It may therefore be restarted, moved to another triggerer or run twice: the job does not
depend on how many times it runs.

Airflow imports this module in the triggerer's event loop, so this module must not import anything slow. The OpenAI SDK,
and what depends on it, is imported in a thread by the first trigger.

When the worker is woken
------------------------
Each wake-up starts a worker, so a job with hundreds of batches must not wake it once per batch. After the first batch
has ended, the trigger waits a while for others:

* one poll interval, and at most a minute, if shards wait for queue capacity (`any_end`), because they can be submitted
  as soon as a batch ends;
* otherwise at least ten poll intervals and half the age of the job. The waits therefore grow longer with the age of the
  job, and its worker wakes about ten times a day even if its batches end one after another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.triggers.imports import import_in_thread
from airflow_provider_batch.worker.task_state import STOPPED_STATES, is_stopped, task_state

if TYPE_CHECKING:
    from airflow_provider_batch.triggers.poller import Poller, Watch

__all__ = ["BatchTrigger"]

#: maximum number of batch ids of a trigger; the metadata database stores them in one text column
MAX_BATCHES = 500
#: consecutive reads of a batch that the provider may refuse (401, 403, 404) before the batch is given up
MAX_REFUSALS = 5
#: Minimum seconds until the event. A worker may take some seconds to exit after it deferred (Airflow's supervisor
#: checks every 5 s). If the task is queued again during that time, the scheduler mistakes the exit for that of the new
#: worker and fails the task.
_MIN_WAIT = 10.0
#: maximum seconds from the end of a batch to the event if shards wait for queue capacity
_MAX_CAPACITY_WAIT = 60.0
#: minimum wait from the end of a batch to the event in all other cases: in poll intervals, and as a fraction of the
#: job's age
_COLLECT_INTERVALS, _COLLECT_AGE_FRACTION = 10, 0.5
#: maximum seconds between two progress lines in the log
REPORT_INTERVAL = 300.0
#: progress is logged earlier if the answered requests changed by this fraction of the total
_REPORT_STEP = 0.05
#: key of the XCom in which the sensor leaves the id of the task instance that deferred last
ATTEMPT_KEY = "batch_attempt"
#: running cancellations; the event loop keeps only weak references to its tasks
_cancellations: set[asyncio.Task[None]] = set()


class BatchTrigger(BaseTrigger):
    """Fires once, with the reason to wake the worker.

    The event is `{"reason": ..., "message": ...}` with one of the reasons

    * `ended`: every batch has ended; or some have ended, and the trigger has waited long enough for others;
    * `due`: `wake_at` has passed, so rows can be retried or shards submitted;
    * `deadline`: the job's deadline has passed;
    * `refused`: the provider refused five consecutive reads of every batch, and nothing else is left to do. The message
      is that of the last refusal. While other batches are readable, the wait continues for them.

    :param openai_conn_id: connection of type openai.
    :param job_uid: id of the job, for the log.
    :param batch_ids: ids of running batches, at most 500.
    :param deadline: ISO time at which batches are cancelled, or None.
    :param wake_at: ISO time at which there is other work for the worker, or None.
    :param any_end: fire within a minute of the first end, because shards wait for queue capacity.
    :param poll_interval: maximum seconds between two reads of a batch.
    :param cancel_on_kill: cancel the batches if a person marks the task as failed or skipped, or deletes the run.
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
        self._started_at = 0.0
        #: monotonic time at which this run first saw a batch that had ended
        self._first_end: float | None = None
        self._progress_log = _ProgressLog(job_uid, self.log.info, self.log.warning)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, for the metadata database."""
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
        self._started_at = time.monotonic()
        if self.batch_ids:
            poller_module = await import_in_thread("airflow_provider_batch.triggers.poller")
            with poller_module.watch_batches(self.openai_conn_id, self.batch_ids, self.poll_interval) as (
                watch,
                poller,
            ):
                event = await self._wait(watch, poller)
        else:
            self.log.info("Job %s: no batch is running. The next step is due at %s.", self.job_uid[:8], self.wake_at)
            event = await self._wait_for_time()
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self, watch: Watch, poller: Poller) -> dict[str, Any]:
        while True:
            self._report(watch)
            event, pause = self._next_event(watch)
            if event is not None and pause <= 0:
                return event
            poller.ensure_running()
            await watch.wait_for_change(max(0.01, min(pause, self._progress_log.seconds_until_due())))

    async def _wait_for_time(self) -> dict[str, Any]:
        while True:
            event, pause = self._next_timed_event()
            if event is not None and pause <= 0:
                return event
            await asyncio.sleep(max(0.01, min(pause, REPORT_INTERVAL)))

    def _next_event(self, watch: Watch) -> tuple[dict[str, Any] | None, float]:
        """Return the next event in the current state, if there is one, and the seconds until it."""
        event, pause = self._next_timed_event()
        ended_count = sum(view.status.ended for view in watch.latest.values())
        refused_count = sum(count >= MAX_REFUSALS for count in watch.refusals.values())
        if not ended_count:
            if refused_count == len(watch.batch_ids) and not self._has_other_work():
                return {"reason": "refused", "message": watch.refusal}, self._remaining_min_wait()
            return event, pause
        now = time.monotonic()
        if self._first_end is None:
            self._first_end = now
        if ended_count + refused_count == len(watch.batch_ids):
            wait = 0.0
        elif self.any_end:
            wait = self._first_end + min(_MAX_CAPACITY_WAIT, self.poll_interval) - now
        else:
            age = _age(watch.latest.values())
            collect_wait = max(_COLLECT_INTERVALS * self.poll_interval, _COLLECT_AGE_FRACTION * age)
            wait = self._first_end + collect_wait - now
        wait = max(wait, self._remaining_min_wait())
        return ({"reason": "ended"}, wait) if event is None or wait < pause else (event, pause)

    def _has_other_work(self) -> bool:
        """Return whether there is a time at which the worker continues even if no batch ends."""
        return self.wake_at is not None and self.wake_at != self.deadline

    def _next_timed_event(self) -> tuple[dict[str, Any] | None, float]:
        """Return the next event that depends on the clock alone, if there is one, and the seconds until it."""
        event, pause = None, float("inf")
        for reason, timestamp in (("deadline", self.deadline), ("due", self.wake_at)):
            remaining = _seconds_until(timestamp)
            if remaining < pause:
                event, pause = {"reason": reason}, remaining
        return event, max(pause, self._remaining_min_wait())

    def _remaining_min_wait(self) -> float:
        return self._started_at + min(self.poll_interval, _MIN_WAIT) - time.monotonic()

    def _report(self, watch: Watch) -> None:
        crash, watch.crash = watch.crash, None
        if crash is not None:
            self.log.error(
                "Job %s: the poller crashed and is being restarted. The batches are not affected.",
                self.job_uid[:8],
                exc_info=crash,
            )
        notice, watch.notice = watch.notice, ""
        if notice:
            self.log.warning("Job %s: %s", self.job_uid[:8], notice)
        self._progress_log.update(watch.latest, len(watch.batch_ids), watch.trouble)

    async def on_kill(self) -> None:
        """Cancel the batches if a person ended the task. Airflow also calls this on a takeover and on a clear.

        Airflow 3.3 cancels this coroutine again in each round of its loop, about every second, so the coroutine rarely
        completes. The work therefore runs in a separate task, which continues after this coroutine is cancelled.
        """
        if not self.cancel_on_kill or not self.batch_ids:
            return
        work = asyncio.create_task(self._cancel_if_stopped())
        _cancellations.add(work)
        work.add_done_callback(_cancellations.discard)
        await asyncio.shield(work)

    async def _cancel_if_stopped(self) -> None:
        if not is_stopped(await self._task_state(), self.log):
            return
        cancel = await import_in_thread("airflow_provider_batch.triggers.cancel")
        cancelled = await cancel.cancel_batches(self.openai_conn_id, self.batch_ids, self._warn_not_cancelled)
        self.log.info("%d of %d batches were cancelled or had already ended", cancelled, len(self.batch_ids))

    def _warn_not_cancelled(self, batch_id: str, reason: str) -> None:
        self.log.warning("Batch %s could not be cancelled and may still be running: %s", batch_id, reason)

    async def _task_state(self) -> str:
        """Return the state of this try of the task; 'removed' if its run is gone, 'unknown' if in doubt."""
        from airflow.sdk.execution_time.xcom import XCom

        ti = self.task_instance
        state = await asyncio.to_thread(task_state, ti, self.log)
        if ti is None or state not in STOPPED_STATES or state == "removed":
            return state
        # The state may be that of a later try, which started after a clear and has failed on its own since. When a try
        # starts, Airflow deletes the XComs of the previous one.
        try:
            attempt = await asyncio.to_thread(
                XCom.get_one,
                key=ATTEMPT_KEY,
                dag_id=ti.dag_id,
                task_id=ti.task_id,
                run_id=ti.run_id,
                map_index=-1 if ti.map_index is None else ti.map_index,
            )
        except Exception as error:  # noqa: BLE001  # if in doubt, do not cancel
            self.log.warning(
                "Could not read which try of the task deferred last, so its batches keep running: %s", error
            )
            return "unknown"
        return state if attempt == str(ti.id) else f"{state} in a later try"


class _ProgressLog:
    """Logs progress when something has changed, and every few minutes anyway. Logs counts only, no data."""

    def __init__(self, job_uid: str, info: Callable[..., Any], warning: Callable[..., Any]) -> None:
        self._job, self._info, self._warning = job_uid[:8], info, warning
        self._last_state: tuple[Any, ...] = ()
        self._last_answered, self._logged_at = 0, 0.0
        self._unknown_statuses: set[str] = set()
        self._trouble_logged_at = -REPORT_INTERVAL

    def seconds_until_due(self) -> float:
        """Return the seconds until progress is logged even if nothing changes."""
        return self._logged_at + REPORT_INTERVAL - time.monotonic() if self._logged_at else REPORT_INTERVAL

    def update(self, latest: Mapping[str, BatchView], batch_count: int, trouble: str) -> None:
        """Log what has changed since the last line."""
        now = time.monotonic()
        if trouble and now - self._trouble_logged_at >= REPORT_INTERVAL:
            self._trouble_logged_at = now
            self._warning(
                "Job %s: the status of batches could not be read (%s). The batches keep running, and their status is "
                "read again later.",
                self._job,
                trouble,
            )
        if not latest:
            return
        for view in latest.values():
            if not view.has_known_status and view.raw_status not in self._unknown_statuses:
                self._unknown_statuses.add(view.raw_status)
                self._warning("Batch %s has the unknown status %r, which counts as running.", view.id, view.raw_status)
        running = [view for view in latest.values() if not view.status.ended]
        failed = sum(view.failed for view in latest.values())
        answered_count = sum(view.completed for view in latest.values()) + failed
        total = sum(view.total for view in latest.values())
        statuses = sorted({view.raw_status for view in running})
        state = (len(latest) - len(running), bool(failed), total, statuses)
        has_advanced = abs(answered_count - self._last_answered) >= max(1, _REPORT_STEP * total)
        if state == self._last_state and not has_advanced and now - self._logged_at < REPORT_INTERVAL:
            return
        self._last_state, self._last_answered, self._logged_at = state, answered_count, now
        self._info(
            "Job %s: %s of %s requests done, %s failed; %d of %d batches ended%s%s",
            self._job,
            f"{answered_count:,}",
            f"{total:,}" if total else "?",
            f"{failed:,}",
            len(latest) - len(running),
            batch_count,
            f" ({', '.join(statuses)})" if statuses else "",
            _forecast(running, answered_count, total, has_all_batches=len(latest) == batch_count),
        )


def _forecast(running: Sequence[BatchView], answered_count: int, total: int, *, has_all_batches: bool) -> str:
    """Return how long the oldest batch has been running, and when all requests will be done at the pace so far."""
    age = _age(running)
    if not age:
        return ""
    text = f"; the oldest batch has been running for {_format_duration(age)}"
    if has_all_batches and 0 < answered_count < total:
        remaining = timedelta(seconds=min(age * (total - answered_count) / answered_count, 10 * 86_400))
        text += f"; at this pace, all requests will be done by {datetime.now(UTC) + remaining:%Y-%m-%d %H:%M} UTC"
    return text


def _age(views: Iterable[BatchView]) -> float:
    """Return the seconds since the oldest batch was created, or 0 if no creation time is known."""
    created_at = min((view.created_at for view in views if view.created_at), default=0)
    return max(0.0, time.time() - created_at) if created_at else 0.0


def _format_duration(seconds: float) -> str:
    minutes = int(seconds // 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _seconds_until(timestamp: str | None) -> float:
    if timestamp is None:
        return float("inf")
    return (datetime.fromisoformat(timestamp) - datetime.now(UTC)).total_seconds()
