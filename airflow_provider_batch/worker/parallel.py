"""Runs work on several items in threads and hands the results to the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_concurrently(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    on_result: Callable[[Item, Result], None],
    limit: int,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Process the items, at most `limit` at the same time. Return how many were processed.

    No further item is started once one fails or `stop` returns True. Items already running are awaited, so that
    `on_result` receives every result. The first error is raised after that.

    :param work: runs in its own thread.
    :param on_result: receives each item and its result as soon as it is available, in the calling thread.
    """
    stopped = Event()

    def start(item: Item) -> Result:
        if stopped.is_set() or stop():
            raise _SkippedError
        return work(item)

    first_error: Exception | None = None
    count = 0
    with ThreadPoolExecutor(limit, thread_name_prefix="batch") as pool:
        try:
            futures = {pool.submit(start, item): item for item in items}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except _SkippedError:
                    continue
                except Exception as error:  # noqa: BLE001  # raised below, once nothing is running
                    stopped.set()
                    first_error = first_error or error
                    continue
                on_result(futures[future], result)
                count += 1
        finally:
            stopped.set()  # before the pool waits for its threads: the caller may have been interrupted
    if first_error is not None:
        raise first_error
    return count


class _SkippedError(Exception):
    """The item was not started."""
