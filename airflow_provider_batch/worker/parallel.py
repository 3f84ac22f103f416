"""Work on several things at once, in threads, with the results used by the caller's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(
    items: Sequence[Item],
    work: Callable[[Item], Result],
    done: Callable[[Item, Result], None],
    limit: int,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Work on the items, at most `limit` of them at the same time; how many were worked on.

    Once one fails, or `stop` says so, no further one is begun. Those under way are waited for, so that nothing is done
    without `done` being told of it; then the first error is raised.

    :param work: runs in a thread of its own.
    :param done: is told each item and its result as soon as there is one, by the calling thread.
    """
    over = Event()

    def begin(item: Item) -> Result:
        if over.is_set() or stop():
            raise _NotBegunError
        return work(item)

    failed: Exception | None = None
    count = 0
    with ThreadPoolExecutor(limit, thread_name_prefix="batch") as pool:
        try:
            futures = {pool.submit(begin, item): item for item in items}
            for future in as_completed(futures):
                try:
                    result = future.result()
                except _NotBegunError:
                    continue
                except Exception as error:  # noqa: BLE001  # raised below, when nothing runs any more
                    over.set()
                    failed = failed or error
                    continue
                done(futures[future], result)
                count += 1
        finally:
            over.set()  # before the pool waits for its threads: the caller may have been interrupted
    if failed is not None:
        raise failed
    return count


class _NotBegunError(Exception):
    """The item was not worked on."""
