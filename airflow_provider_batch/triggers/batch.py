"""Waits for batches in the triggerer: reads their status, and nothing else.

No download, no staging, no paid call, no thread for a poll; the arguments hold ids and times, never data or keys. So
it may be restarted, moved to another triggerer, or run twice: nothing depends on how often it runs.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import openai
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_batch.exceptions import ProviderError
from airflow_provider_batch.jobs.batch import BatchView, read_batch
from airflow_provider_batch.triggers.clients import SharedClient, shared_client

#: most batch ids that a trigger carries; the metadata database keeps them in one text column
MAX_BATCHES = 500
#: sweeps in a row that may be refused (401, 403, 404) before the wait ends in a failure
MAX_REFUSALS = 5
#: seconds before the first sweep. A worker may take some seconds to end after it deferred (Airflow's supervisor looks
#: every 5); if the task is queued again just then, the scheduler takes that end for the new worker's and fails the task
FIRST_PAUSE = 10.0
#: seconds before each try to cancel a batch: nobody comes back to it later
CANCEL_PAUSES = (0, 1, 2, 4, 8, 16)
#: seconds after which progress is told even if nothing changed
TELL_EVERY = 300.0
#: task states in which a person, or the run's end, wants the work stopped
_STOPPED_STATES = frozenset({"failed", "skipped", "removed"})
#: cancels under way; the event loop alone would not keep them from being collected
_at_work: set[asyncio.Task[None]] = set()


class BatchTrigger(BaseTrigger):
    """Fires once, with the reason to wake the worker.

    The event is `{"reason": ..., "message": ...}` with one of the reasons

    * `ended`: every batch ended, or with `any_end` at least one;
    * `due`: `wake_at` is over: rows may be asked again, or shards sent;
    * `deadline`: the job's deadline is over;
    * `refused`: five sweeps in a row were refused with the same kind of answer, which the message tells.

    :param openai_conn_id: connection of type openai.
    :param job_uid: the job, for the log.
    :param batch_ids: live batches, at most 500.
    :param deadline: ISO time at which the wait is over, or None.
    :param wake_at: ISO time at which there is other work for the worker, or None.
    :param any_end: fire at the first batch that ends, because shards wait for room.
    :param poll_interval: seconds between two sweeps.
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
        self._progress: tuple[Any, ...] = ()
        self._told_at = 0.0
        self._unknown: set[str] = set()

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
        """Sweep over the batches until there is a reason to wake the worker."""
        async with shared_client(self.openai_conn_id) as shared:
            event = await self._wait(shared)
        yield TriggerEvent(event)  # type: ignore[no-untyped-call]

    async def _wait(self, shared: SharedClient) -> dict[str, Any]:
        #: each batch as it was last seen
        latest: dict[str, BatchView] = {}
        refusals = 0
        await asyncio.sleep(min(self.poll_interval, FIRST_PAUSE))
        while True:
            if _over(self.deadline):
                return {"reason": "deadline"}
            if _over(self.wake_at):
                return {"reason": "due"}
            running = [batch_id for batch_id in self.batch_ids if not _ended(latest.get(batch_id))]
            answers = await asyncio.gather(*(self._poll(shared, batch_id) for batch_id in running))
            seen = {b: a for b, a in zip(running, answers, strict=True) if isinstance(a, BatchView)}
            refused = [answer for answer in answers if isinstance(answer, str)]
            refusals = refusals + 1 if refused and not seen else 0
            if refusals >= MAX_REFUSALS:
                return {"reason": "refused", "message": refused[0]}
            latest.update(seen)
            self._tell(latest)
            ended = sum(_ended(view) for view in latest.values())
            if ended and (self.any_end or ended == len(self.batch_ids)):
                return {"reason": "ended"}
            await asyncio.sleep(self._pause())

    async def _poll(self, shared: SharedClient, batch_id: str) -> BatchView | str | None:
        """A batch; the refusal if the server refuses to show it; None if this sweep tells nothing."""
        async with shared.slots:
            client = await shared.get()
            try:
                return read_batch(await client.batches.retrieve(batch_id))
            except openai.AuthenticationError as error:
                await shared.renew(client)
                return f"HTTP 401 for batch {batch_id}: {error.message}"
            except (openai.PermissionDeniedError, openai.NotFoundError) as error:
                return f"HTTP {error.status_code} for batch {batch_id}: {error.message}"
            except (openai.OpenAIError, ProviderError) as error:
                self.log.info("Batch %s could not be read (%s); it goes on, and is read again.", batch_id, error)
                return None

    def _pause(self) -> float:
        pause = self.poll_interval * random.uniform(0.9, 1.1)
        for moment in (self.deadline, self.wake_at):
            if moment is not None:
                pause = min(pause, (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds())
        return max(pause, 0.05)

    def _tell(self, latest: Mapping[str, BatchView]) -> None:
        """One line when something changed, and every few minutes anyway; counts only, no data."""
        if not self.batch_ids:
            if not self._told_at:
                self.log.info("Job %s: no batch is running; the next step is due at %s", self.job_uid[:8], self.wake_at)
                self._told_at = time.monotonic()
            return
        for view in latest.values():
            if not view.known and view.said not in self._unknown:
                self._unknown.add(view.said)
                self.log.warning("Batch %s has the unknown status %r; it counts as running.", view.id, view.said)
        done = sum(view.completed for view in latest.values())
        failed = sum(view.failed for view in latest.values())
        total = sum(view.total for view in latest.values())
        ended = sum(_ended(view) for view in latest.values())
        said = sorted({view.said for view in latest.values() if not _ended(view)})
        progress = (ended, done, failed, total, said)
        if progress == self._progress and time.monotonic() - self._told_at < TELL_EVERY:
            return
        self._progress, self._told_at = progress, time.monotonic()
        self.log.info(
            "Job %s: %s of %s requests done, %s failed; %d of %d batches ended%s",
            self.job_uid[:8],
            f"{done + failed:,}",
            f"{total:,}" if total else "?",
            f"{failed:,}",
            ended,
            len(self.batch_ids),
            f" ({', '.join(said)})" if said else "",
        )

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
        state = await self._task_state()
        if state not in _STOPPED_STATES:
            self.log.info("Task state is %s: the batches go on, and a later attempt goes on with them.", state)
            return
        self.log.warning("Task state is %s: cancelling %d batches.", state, len(self.batch_ids))
        async with shared_client(self.openai_conn_id) as shared:
            await asyncio.gather(*(self._cancel(shared, batch_id) for batch_id in self.batch_ids))

    async def _cancel(self, shared: SharedClient, batch_id: str) -> None:
        said: openai.OpenAIError | None = None
        for pause in CANCEL_PAUSES:
            await asyncio.sleep(pause)
            async with shared.slots:
                client = await shared.get()
                try:
                    await client.batches.cancel(batch_id)
                except openai.ConflictError:
                    return
                except openai.OpenAIError as error:
                    said = error
                else:
                    return
        self.log.warning("Batch %s was not cancelled: %s", batch_id, said)

    async def _task_state(self) -> str:
        """State of this trigger's task as Airflow has it; 'removed' if its run is gone, 'unknown' if unsure."""
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        ti = self.task_instance
        if ti is None:
            return "unknown"
        try:
            states = await asyncio.to_thread(
                RuntimeTaskInstance.get_task_states,
                dag_id=ti.dag_id,
                task_ids=[ti.task_id],
                run_ids=[ti.run_id],
                map_index=ti.map_index,
            )
        except Exception as error:  # noqa: BLE001  # unsure means: do not cancel
            self.log.warning("The task's state cannot be read (%s).", error)
            return "unknown"
        of_run = states.get(ti.run_id)
        if not of_run:
            return "removed"
        index = -1 if ti.map_index is None else ti.map_index
        return str(of_run.get(ti.task_id if index < 0 else f"{ti.task_id}_{index}", "unknown") or "none")


def _ended(view: BatchView | None) -> bool:
    return view is not None and view.status.ended


def _over(moment: str | None) -> bool:
    return moment is not None and datetime.now(UTC) >= datetime.fromisoformat(moment)
