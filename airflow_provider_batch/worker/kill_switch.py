"""What a running task does when Airflow kills it: it stops making paid calls, and cancels only if a person wants that.

Airflow calls `on_kill` in many situations: the task was marked failed, skipped or successful, it was cleared, its run
was deleted, its worker is being drained, it ran out of time, or its heartbeat was refused. Only the state of the task
tells these apart, so the task asks Airflow for its own state:

    failed, skipped, removed, or the run is gone    a person stopped the work: cancel the batches
    running                                         the worker is ending: the next attempt continues with the batches
    restarting, queued, scheduled, success          a clear, or the batches are meant to finish: leave them alone
    the state cannot be read                        leave them alone

The signal can interrupt the task's thread at any instruction, even while that thread is talking to Airflow. A second
request from the same thread would then deadlock. So the signal handler only puts a message into a queue, and a thread
that was started earlier does the rest. Airflow sends SIGKILL five seconds after the signal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import KILLED
from airflow_provider_batch.hooks.open import open_hook
from airflow_provider_batch.worker.cancel import cancel_job
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.task_state import is_stopped, task_state

#: cancel requests sent at the same time; all of them must get through within seconds
MAX_CONCURRENT_CANCELS = 16
#: seconds that a task waits for its batches to be cancelled before it ends
CANCEL_TIMEOUT = 30.0


class KillSwitch:
    """Connects the `on_kill` of an operator with the batches of its job. Each operator has one.

    :param cancel: whether to cancel batches at all. If False, `is_pulled` is still set.
    """

    def __init__(self, *, cancel: bool = True) -> None:
        #: whether Airflow has killed the task, after which no paid call is made
        self.is_pulled = False
        self._cancel = cancel
        self._kills: SimpleQueue[bool] | None = None

    def pull(self) -> None:
        """Handle a call of `on_kill`. Safe in a signal handler, and safe to call repeatedly."""
        self.is_pulled = True
        kills = self._kills
        if kills is not None:
            kills.put(True)

    @contextmanager
    def watching(self, ti: Any, find_ledger: Callable[[], Ledger | None], log: Log) -> Iterator[None]:
        """While the block runs, let `pull` cancel the batches of the job if a person stopped the task.

        A batch that is being created when `pull` is called is cancelled when the block ends.

        :param find_ledger: returns the ledger of the task's job, or None if there is none yet. Called only when needed.
        """
        if not self._cancel:
            yield
            return
        kills: SimpleQueue[bool] = SimpleQueue()
        thread = Thread(target=_watch, args=(kills, ti, find_ledger, log), name="batch-kill", daemon=True)
        thread.start()
        self._kills = kills
        if self.is_pulled:
            kills.put(True)
        try:
            yield
        finally:
            self._kills = None
            kills.put(False)
            thread.join(CANCEL_TIMEOUT)


def _watch(kills: SimpleQueue[bool], ti: Any, find_ledger: Callable[[], Ledger | None], log: Log) -> None:
    """Ask for the state of the task after each kill, until the queue yields False."""
    stopped = False
    while kills.get():
        if stopped:
            continue
        stopped = is_stopped(task_state(ti, log), log)
        if stopped:
            _cancel_live(find_ledger, log)
    if stopped:
        _cancel_live(find_ledger, log)


def _cancel_live(find_ledger: Callable[[], Ledger | None], log: Log) -> None:
    """Cancel every batch that is recorded as running. Never raises."""
    try:
        ledger = find_ledger()
        if ledger is not None:
            hook = open_hook(ledger.manifest.openai_conn_id)
            cancel_job(ledger, hook, KILLED, log.warning, concurrency=MAX_CONCURRENT_CANCELS)
    except Exception as error:  # noqa: BLE001  # the task ends anyway; a clear finds the batches again
        log.warning("Could not cancel the batches (%s: %s). They may keep running.", type(error).__name__, error)
