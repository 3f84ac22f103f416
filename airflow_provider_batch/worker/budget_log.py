"""The log of a shared budget in one period: numbered entries in a folder of staging.

Entry N+1 is created exclusively, by a worker that has read entry N; see `core.lifecycle.shared_budget`. As a rule, a
reservation takes one create and one small read, and no listing.

Old entries are removed, oldest first, so that the folder stays small. A worker that was suspended after it read entry N
could therefore find the number N+1 free although the log has moved on. So after it has created entry N+1, it checks
that entry N still exists: entries are removed in order, so as long as N exists, no N+1 was removed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.lifecycle.shared_budget import Balance, SharedBudget
from airflow_provider_batch.exceptions import LedgerError

#: number of entries that are left when old ones are removed
KEPT_ENTRIES = 64


class BudgetLog:
    """The account of a shared budget in one period."""

    def __init__(self, folder: Folder, budget: SharedBudget, period: str) -> None:
        self._folder, self._budget = folder, budget
        #: number of the newest entry that was read or written; 0 if there is none
        self._number = 0
        #: its content
        self.balance = Balance(budget, period)

    def read(self) -> Balance:
        """Return the balance of the newest entry.

        :raises LedgerError: if the entry cannot be read.
        """
        newest = read_newest(self._folder, self._number)
        if newest is not None:
            self._number, self.balance = newest
        return self.balance

    def update(self, change: Callable[[Balance], Balance | None]) -> bool:
        """Change the balance. If another worker changes it at the same time, compute the change again.

        :param change: returns the new balance, the same one if nothing changes, or None to refuse.
        :return: False if the change was refused.
        """
        while True:
            changed = change(self.balance)
            if changed is None or changed is self.balance:
                # the balance in memory may be out of date
                if self.balance is self.read():
                    return changed is not None
            elif self._append(changed):
                return True
            else:
                self.read()

    def _append(self, balance: Balance) -> bool:
        """Create the next entry. Return False if another worker has written an entry since the newest one was read."""
        balance = msgspec.structs.replace(balance, budget=self._budget, time=datetime.now(UTC))
        number = self._number + 1
        if not self._folder.create(_file_name(number), msgspec.json.encode(balance)):
            return False
        if self._is_overtaken(number):
            self._folder.remove(_file_name(number))
            return False
        self._number, self.balance = number, balance
        if number % KEPT_ENTRIES == 0:
            for old_number in sorted(_numbers(self._folder)):
                if old_number <= number - KEPT_ENTRIES:
                    self._folder.remove(_file_name(old_number))
        return True

    def _is_overtaken(self, number: int) -> bool:
        """Return whether this number was free only because its entry had been removed."""
        if number == 1:
            return max(_numbers(self._folder)) > KEPT_ENTRIES
        return self._folder.read(_file_name(number - 1)) is None


def read_newest(folder: Folder, known_number: int = 0) -> tuple[int, Balance] | None:
    """Return the number and the balance of the newest entry, or None if there is none after the known one.

    :raises LedgerError: if the entry cannot be read.
    """
    while (number := max(_numbers(folder), default=0)) > known_number:
        data = folder.read(_file_name(number))
        if data is not None:
            return number, _decode(data, f"{folder.uri}/{_file_name(number)}")
        # it was removed after it was listed, so there are many newer ones
    return None


def _decode(data: bytes, location: str) -> Balance:
    try:
        return msgspec.json.decode(data, type=Balance)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LedgerError(
            f"Cannot read {location} as an entry of a shared budget: {error}. Nothing more is sent by jobs with this "
            "budget, and what they did is kept. Restore the file. If that is impossible, remove it: the entry before "
            "it then counts, which lacks one reservation or settlement."
        ) from error


def _numbers(folder: Folder) -> list[int]:
    stems = (name.removesuffix(".json") for name in folder.names(""))
    return [int(stem) for stem in stems if stem.isdigit()]


def _file_name(number: int) -> str:
    return f"{number:08d}.json"
