"""The threads in which the API server reads for the page, and the time that a request waits for them.

Airflow's own routes share 40 threads. A store that does not answer would occupy them one after the other, until Airflow
itself stops answering. So the page has threads of its own, and few of them. A request waits for its result without a
thread, and not for ever. A thread that waits for a store cannot be stopped. It is left alone until the store answers.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import HTTPException

_Result = TypeVar("_Result")

#: seconds after which a browser may try again
RETRY_AFTER = 5


class ThreadBudget:
    """A number of threads that read from one source, such as the store of the jobs.

    :param source: name of the source, at the start of a sentence.
    :param threads: maximum number of reads at the same time.
    :param queued: maximum number of reads that wait for a thread.
    :param seconds: maximum time that a request waits for its result.
    """

    def __init__(self, source: str, *, threads: int, queued: int, seconds: float) -> None:
        self.source = source
        self.seconds = seconds
        self._threads = threads
        self._started = 0
        self._lock = threading.Lock()
        self._calls: queue.Queue[tuple[Future[Any], Callable[[], Any]]] = queue.Queue(queued)

    async def run(self, read: Callable[[], _Result]) -> _Result:
        """Return what a function returns that runs in one of the threads.

        :raises HTTPException: 503 if too many reads wait already, or if the result takes too long. A read that has
            started then continues, and its result is dropped.
        """
        future: Future[_Result] = Future()
        try:
            self._calls.put_nowait((future, read))
        except queue.Full:
            raise _unavailable(f"{self.source} is slow, and too many requests wait for it. Try again later.") from None
        self._start_thread()
        try:
            async with asyncio.timeout(self.seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if future.done() and not future.cancelled():  # the read itself raised it
                raise
            raise _unavailable(f"{self.source} did not answer within {self.seconds:g} s. Try again later.") from None

    def _start_thread(self) -> None:
        with self._lock:
            if self._started == self._threads:
                return
            self._started += 1
        # Unlike the threads of an executor, daemon threads do not keep the API server from stopping.
        threading.Thread(target=self._work, name=f"LLM batch: {self.source}", daemon=True).start()

    def _work(self) -> None:
        while True:
            future, read = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(read())
            except BaseException as error:  # noqa: BLE001 - the request raises it
                future.set_exception(error)
            del future, read


def _unavailable(message: str) -> HTTPException:
    return HTTPException(503, message, headers={"Retry-After": str(RETRY_AFTER)})


#: reads from Airflow's metadata database
DATABASE = ThreadBudget("Airflow's metadata database", threads=4, queued=32, seconds=10)
#: reads from staging
STORE = ThreadBudget("The store", threads=8, queued=32, seconds=10)
