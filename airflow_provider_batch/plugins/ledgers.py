"""Keeps the ledgers of the jobs that were viewed last.

Records are never rewritten, and a ledger reads each of its records once. So to look at the same ledger again takes only
a listing and the records that are new. That also holds for a request that was too slow: the next one continues where
it is.
"""

from __future__ import annotations

import threading

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.ledger import Ledger, open_ledger

#: maximum number of shards of all ledgers that are kept; each has about four records, of about 1 kB of memory
MAX_SHARDS = 10_000
#: maximum number of ledgers that are kept
MAX_LEDGERS = 200


class LedgerCache:
    """Ledgers by the address of their folder, the one that was viewed last at the end."""

    def __init__(self) -> None:
        self._ledgers: dict[str, Ledger] = {}
        self._lock = threading.Lock()

    def open(self, folder: Folder) -> Ledger | None:
        """Return the ledger of the newest generation in a folder, or None if nothing is sealed. Add nothing to it.

        :raises LedgerError: if the seal cannot be read or has another format.
        """
        ledger = open_ledger(folder)
        if ledger is None:
            return None
        with self._lock:
            cached = self._ledgers.pop(folder.uri, None)
            if cached is not None and cached.manifest == ledger.manifest:
                ledger = cached
            self._ledgers[folder.uri] = ledger
            self._drop_oldest()
        return ledger

    def _drop_oldest(self) -> None:
        shards = sum(len(ledger.manifest.shards) for ledger in self._ledgers.values())
        while len(self._ledgers) > 1 and (shards > MAX_SHARDS or len(self._ledgers) > MAX_LEDGERS):
            oldest = next(iter(self._ledgers))
            shards -= len(self._ledgers.pop(oldest).manifest.shards)


LEDGERS = LedgerCache()
