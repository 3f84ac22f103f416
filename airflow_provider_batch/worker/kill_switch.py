"""What a task does when Airflow tells it to end: no paid call any more, and a cancel only if a person wants one.

Airflow calls `on_kill` of a running task when it was marked failed, skipped or successful, when it was cleared or its
run was deleted, when its worker is drained, when it ran out of time and when its heartbeat was not taken. What was
meant is told by the task's state alone, so that is what is asked for:

    failed, skipped, removed, or no such run      its batches are cancelled
    running                                       a worker that ends: the next attempt goes on with them
    restarting, queued, scheduled, success        a clear, or the wish to let them run: they go on
    cannot be read                                they go on

A signal may come between any two instructions of the task's thread, also while that one talks to Airflow, which a
second message from the same thread would block for ever. So the handler only leaves a word for a thread that was
started before. Airflow gives a task five seconds from the signal to its end by SIGKILL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.core.ledger.records import KILLED
from airflow_provider_batch.hooks.batch import BatchHook
from airflow_provider_batch.worker.cancel import cancel_job
from airflow_provider_batch.worker.log import Log
from airflow_provider_batch.worker.task_state import is_stopped, task_state

#: cancels on their way at the same time: all of them have to be through within seconds
AT_ONCE = 16
#: seconds that a task waits for its batches to be cancelled before it ends
PATIENCE = 30.0


class KillSwitch:
    """Between the `on_kill` of an operator and the batches of its job. One for each operator.

    :param cancel: False never cancels; `asked` is set all the same.
    """

    def __init__(self, *, cancel: bool = True) -> None:
        #: whether Airflow told the task to end: no paid call is made any more
        self.asked = False
        self._cancel = cancel
        self._words: SimpleQueue[bool] | None = None

    def pull(self) -> None:
        """Airflow called `on_kill`. Safe in a signal handler, and as often as it likes."""
        self.asked = True
        words = self._words
        if words is not None:
            words.put(True)

    @contextmanager
    def watching(self, ti: Any, find: Callable[[], Ledger | None], log: Log) -> Iterator[None]:
        """Meanwhile `pull` cancels what the job has running, if a person ended the task.

        What the block is just creating is cancelled when the block is left.

        :param find: the ledger of the task's job; None if there is none yet. Called once it is needed.
        """
        if not self._cancel:
            yield
            return
        words: SimpleQueue[bool] = SimpleQueue()
        thread = Thread(target=_watch, args=(words, ti, find, log), name="batch-kill", daemon=True)
        thread.start()
        self._words = words
        if self.asked:
            words.put(True)
        try:
            yield
        finally:
            self._words = None
            words.put(False)
            thread.join(PATIENCE)


def _watch(words: SimpleQueue[bool], ti: Any, find: Callable[[], Ledger | None], log: Log) -> None:
    """For each word that the task was killed ask what is meant; the word False ends it."""
    stopped = False
    while words.get():
        if stopped:
            continue
        stopped = is_stopped(task_state(ti, log), log)
        if stopped:
            _cancel_live(find, log)
    if stopped:
        _cancel_live(find, log)


def _cancel_live(find: Callable[[], Ledger | None], log: Log) -> None:
    """Cancel every batch that is recorded as running. Never raises."""
    try:
        ledger = find()
        if ledger is not None:
            hook = BatchHook(conn_id=ledger.manifest.openai_conn_id)
            cancel_job(ledger, hook, KILLED, log.warning, concurrency=AT_ONCE)
    except Exception as error:  # noqa: BLE001  # the task ends in any case; the batches are found again by a clear
        log.warning("The batches could not be cancelled (%s: %s). They may go on.", type(error).__name__, error)
