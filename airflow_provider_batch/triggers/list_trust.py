"""Decides how far the provider's list of batches is believed. Pure bookkeeping: no network.

A list is not the batches. A gateway may keep it in a database of its own that lags by minutes or for ever. Some servers
move a batch on only when it is retrieved. Lists were seen with right statuses and old counts, with a batch that stays
`validating`, and with an ended batch that runs again. A worker acts only on what a single read shows, so the triggerer
must not rely on a list that disagrees with single reads. Four rules follow:

1. An end is believed only from a single read, until `CONFIRMED_ENDS` ends in a row have been confirmed in this way.
   Then many batches that end together do not cost one request each. But the end of each batch is believed from the
   list only once, because a list that is ahead would otherwise wake the worker again and again. One end that is not
   confirmed makes all ends doubtful again.
2. For every `PAGES_PER_COMPARISON` pages, one batch is read singly and compared: the one that the list has shown
   unchanged for longest, if the list has shown it at least `COMPARE_AFTER` times since it was last compared. So the
   comparisons cost at most half as many requests as the pages.
3. A batch that the list shows in an earlier state than a single read did before is read singly. An ended batch never
   runs again.
4. If two of the last `COMPARISONS` comparisons showed that the list was behind, nothing is read from it for
   `DISTRUST_SECONDS`. Then every batch is read singly when it is due, at most 16 at a time.

A batch that changes between the page and the single read is not evidence against the list. So a comparison counts as
evidence only if the list had shown the batch unchanged for many sweeps, or if an earlier single read, which ended
before the page was requested, had already shown more than the page. By chance, that hardly ever happens twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Container, Iterable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from airflow_provider_batch.core.provider.batch import BatchView

#: number of ends in a row that single reads must confirm before further ends are believed from the list
CONFIRMED_ENDS = 8
#: maximum number of batches of which it is remembered that their end was believed from the list
MAX_BELIEVED_ENDS = 100_000
#: number of times that the list shows a batch before it is compared with a single read
COMPARE_AFTER = 8
#: number of pages for which one batch is compared
PAGES_PER_COMPARISON = 2
#: number of recent comparisons that count
COMPARISONS = 20
#: number of these comparisons that must show that the list was behind before it is no longer relied on
MAX_STALE = 2
#: seconds for which the list is then not read
DISTRUST_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class _Record:
    """What the list and single reads have shown of one batch."""

    listed: BatchView
    #: number of times in a row that the list has shown this state
    repeats: int = 0
    #: number of times that the list has shown the batch since it was last compared
    listings: int = 0
    #: result of the last single read, and monotonic time at which it ended
    single: BatchView | None = None
    single_at: float = 0.0

    def contradicts(self, listed: BatchView) -> bool:
        """Return whether a single read has already shown more than this entry of the list."""
        return self.single is not None and listed.is_behind(self.single)


class ListTrust:
    """What is known about the list of one connection."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        #: number of pages since a batch was last chosen for a comparison
        self._pages = 0
        #: the last comparisons: whether the list was behind
        self._comparisons: deque[bool] = deque(maxlen=COMPARISONS)
        #: monotonic time until which the list is not read
        self._distrusted_until = float("-inf")
        self._evidence = ""
        #: number of ends in a row that single reads have confirmed
        self._confirmed_ends = 0
        #: ids of the batches whose end was believed from the list
        self._believed_ends: set[str] = set()

    @property
    def is_relied_on(self) -> bool:
        """Whether the list may be read."""
        return time.monotonic() >= self._distrusted_until

    def pop_evidence(self) -> str:
        """Return, only once, why the list is no longer relied on; an empty text if nothing has changed."""
        evidence, self._evidence = self._evidence, ""
        return evidence

    def forget(self, batch_id: str) -> None:
        """Forget a batch that nobody waits for any more."""
        self._records.pop(batch_id, None)

    def sort_out(
        self, views: Iterable[BatchView], pending: Container[str], requested_at: float
    ) -> tuple[dict[str, BatchView | None], set[str]]:
        """Return the entries of a page that are not believed: those to read singly now, and the ids of all of them.

        :param pending: ids of the batches that the sweep reads.
        :param requested_at: monotonic time before the page was requested.
        :return: the entries to read singly by batch id, or None where the page is older than the last single read; and
            the ids of all entries that must not be reported.
        """
        doubtful: dict[str, BatchView | None] = {}
        ignored_ids: set[str] = set()
        candidate: _Record | None = None
        for view in views:
            record = self._add(view, is_awaited=view.id in pending)
            contradicts = record is not None and record.contradicts(view)
            if contradicts or (view.status.ended and not self._believes_end(view.id, is_awaited=view.id in pending)):
                ignored_ids.add(view.id)
                if view.id in pending:
                    is_older = contradicts and record is not None and requested_at <= record.single_at
                    doubtful[view.id] = None if is_older else view
            elif not view.status.ended and record is not None and record.listings >= COMPARE_AFTER:
                candidate = max(candidate or record, record, key=lambda entry: entry.repeats)
        self._pages += 1
        if candidate is not None and self._pages >= PAGES_PER_COMPARISON:
            self._pages = candidate.listings = 0
            doubtful[candidate.listed.id] = candidate.listed
        return doubtful, ignored_ids | doubtful.keys()

    def _believes_end(self, batch_id: str, *, is_awaited: bool) -> bool:
        if not is_awaited or self._confirmed_ends < CONFIRMED_ENDS or batch_id in self._believed_ends:
            return False
        if len(self._believed_ends) >= MAX_BELIEVED_ENDS:
            self._believed_ends.clear()
        self._believed_ends.add(batch_id)
        return True

    def _add(self, view: BatchView, *, is_awaited: bool) -> _Record | None:
        """Record an entry of a page. Return the record of its batch, or None if nobody waits for the batch."""
        record = self._records.get(view.id)
        if record is None:
            if not is_awaited or view.status.ended:
                return None
            record = self._records[view.id] = _Record(view)
        is_unchanged = (view.raw_status, view.answered) == (record.listed.raw_status, record.listed.answered)
        record.repeats = record.repeats + 1 if is_unchanged else 1
        record.listings += 1
        record.listed = view
        return record

    def compare(self, listed: BatchView, single: BatchView) -> None:
        """Compare an entry of the list with the single read of the batch that followed it."""
        record = self._records.setdefault(listed.id, _Record(listed))
        if listed.status.ended:
            self._confirmed_ends = self._confirmed_ends + 1 if single.status.ended else 0
        if not listed.is_behind(single):
            self._comparisons.append(False)
        elif record.repeats >= COMPARE_AFTER or record.contradicts(listed):
            self._comparisons.append(True)
        if sum(self._comparisons) >= MAX_STALE and self.is_relied_on:
            self._comparisons.clear()
            self._distrusted_until = time.monotonic() + DISTRUST_SECONDS
            self._evidence = (
                f"The provider's list of batches is out of date: it shows batch {listed.id} as {_describe(listed)}, "
                f"but the batch itself is {_describe(single)}. For {DISTRUST_SECONDS / 3600:.0f} hours, the batches of "
                "this connection are read one by one instead."
            )
        record.single, record.single_at = single, time.monotonic()


def _describe(view: BatchView) -> str:
    """Return the status and, if known, the counts of a batch."""
    counts = f" with {view.answered:,} of {view.total:,} requests done" if view.total else ""
    return f"{view.raw_status!r}{counts}"


_trusts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, ListTrust]] = WeakKeyDictionary()


def list_trust(conn_id: str) -> ListTrust:
    """Return what this event loop knows about the list of a connection. It outlives the triggers that wait."""
    return _trusts.setdefault(asyncio.get_running_loop(), {}).setdefault(conn_id, ListTrust())
