"""The log of a shared budget: no interleaving of workers exceeds the limit, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.lifecycle.shared_budget import (
    Balance,
    Change,
    Per,
    SharedBudget,
    apply_changes,
    reserve,
)
from airflow_provider_batch.exceptions import LedgerError
from airflow_provider_batch.worker.budget_log import KEPT_ENTRIES, BudgetLog

LIMIT = Decimal(10)
BUDGET = SharedBudget(LIMIT, Per.DAY, "openai_default")
PERIOD = "2026-11-29"
KEY = JobKey("label", "submit", "manual__1")


class MemoryFolder(Folder):
    """A folder in memory that counts its requests and lets others act before each of them."""

    def __init__(self) -> None:
        self.uri = "memory://budget"
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        #: what others do before the next requests, one per request
        self.interruptions: list[Callable[[], None]] = []

    def _interrupt(self, request: str) -> None:
        self.requests.append(request)
        if self.interruptions:
            self.interruptions.pop(0)()

    def create(self, name: str, data: bytes) -> bool:
        self._interrupt("create")
        return self.files.setdefault(name, data) is data

    def read(self, name: str) -> bytes | None:
        self._interrupt("read")
        return self.files.get(name)

    def read_all(self, names: Sequence[str]) -> list[bytes | None]:
        raise NotImplementedError

    def names(self, subfolder: str) -> list[str]:
        self._interrupt("list")
        return sorted(self.files)

    def folders(self, subfolder: str) -> list[str]:
        return []

    def writer(self, name: str) -> AbstractContextManager[BinaryIO]:
        raise NotImplementedError

    def reader(self, name: str) -> AbstractContextManager[BinaryIO]:
        raise NotImplementedError

    def remove(self, name: str) -> None:
        self._interrupt("remove")
        self.files.pop(name, None)


@pytest.fixture
def folder() -> MemoryFolder:
    return MemoryFolder()


def log_of(folder: Folder) -> BudgetLog:
    log = BudgetLog(folder, BUDGET, PERIOD)
    log.read()
    return log


def reserve_in(log: BudgetLog, job_uid: str, name: str, usd: Decimal) -> bool:
    return log.update(lambda balance: reserve(balance, LIMIT, job_uid, KEY, name, usd))


def settle_in(log: BudgetLog, job_uid: str, name: str, usd: Decimal) -> bool:
    return log.update(lambda balance: apply_changes(balance, job_uid, KEY, [Change(name, None, usd)]))


def newest(folder: MemoryFolder) -> Balance:
    return log_of(folder).balance


def test_workers_see_what_the_others_reserved(folder: MemoryFolder) -> None:
    first, second = log_of(folder), log_of(folder)
    assert reserve_in(first, "a", "s0001.1", Decimal(6))
    assert not reserve_in(second, "b", "s0001.1", Decimal(6))
    assert reserve_in(second, "b", "s0001.1", Decimal(4))
    assert settle_in(first, "a", "s0001.1", Decimal(1))
    assert reserve_in(second, "b", "s0002.1", Decimal(5))
    assert newest(folder).remaining(LIMIT) == 0


operations = st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["s1", "s2", "s3"]), st.integers(1, 7), st.integers(0, 9)
)


@given(st.lists(st.tuples(operations, st.lists(operations | st.none(), max_size=4)), max_size=25))
def test_no_interleaving_of_two_workers_exceeds_the_limit(
    rounds: list[tuple[Any, list[Any]]],
) -> None:
    """While one worker reserves or settles, the other one does so as well, before any of its requests."""
    folder = MemoryFolder()
    first, second = log_of(folder), log_of(folder)
    spent: dict[tuple[str, str], Decimal] = {}
    reserved: dict[tuple[str, str], Decimal] = {}
    total = Decimal(0)

    def operate(log: BudgetLog, operation: Any) -> None:
        job_uid, name, usd, cost = operation
        key = (job_uid, name)
        if key in reserved:
            # remembered by the job: it settles what it reserved, maybe in both workers at the same time
            paid = spent.setdefault(key, min(Decimal(cost), reserved[key]))
            settle_in(log, job_uid, name, paid)
        elif key not in spent and reserve_in(log, job_uid, name, Decimal(usd)):
            reserved.setdefault(key, log.balance.jobs[job_uid].reservations.get(name, Decimal(usd)))
        check()

    def check() -> None:
        balance = newest_balance(folder)
        assert balance.spent + balance.reserved <= LIMIT

    def act(operation: Any) -> Callable[[], None]:
        return lambda: None if operation is None else operate(second, operation)

    for operation, interruptions in rounds:
        folder.interruptions = [act(interruption) for interruption in interruptions]
        operate(first, operation)
        folder.interruptions = []
    for (job_uid, name), paid in spent.items():
        settle_in(first, job_uid, name, paid)
        total += paid
    assert newest_balance(folder).spent == total


def newest_balance(folder: MemoryFolder) -> Balance:
    interruptions, folder.interruptions = folder.interruptions, []
    try:
        return newest(folder)
    finally:
        folder.interruptions = interruptions


def test_a_worker_whose_entry_was_written_although_the_store_reported_a_failure_reserves_once(
    folder: MemoryFolder,
) -> None:
    """A client that repeats a conditional put can be refused because of its own first try."""
    log = log_of(folder)

    def write_entry() -> None:
        reserve_in(log_of(folder), "a", "s0001.1", Decimal(6))

    folder.interruptions = [write_entry]
    assert reserve_in(log, "a", "s0001.1", Decimal(6))
    assert newest(folder).reserved == 6


def test_a_reservation_takes_one_create_and_one_read_and_no_listing(folder: MemoryFolder) -> None:
    log = log_of(folder)
    assert reserve_in(log, "a", "s0000.1", Decimal("0.01"))
    for number in range(1, KEPT_ENTRIES - 1):
        folder.requests.clear()
        assert reserve_in(log, "a", f"s{number:04d}.1", Decimal("0.01"))
        assert folder.requests == ["create", "read"]


def test_old_entries_are_removed(folder: MemoryFolder) -> None:
    log = log_of(folder)
    for number in range(5 * KEPT_ENTRIES):
        assert reserve_in(log, "a", f"s{number}.1", Decimal("0.001"))
    assert len(folder.files) <= 2 * KEPT_ENTRIES
    assert newest(folder).reserved == Decimal("0.001") * 5 * KEPT_ENTRIES


@pytest.mark.parametrize("entries", [0, 1, 5])
def test_a_worker_that_was_suspended_until_its_number_was_removed_decides_again(
    folder: MemoryFolder, entries: int
) -> None:
    suspended = log_of(folder)
    for number in range(entries):
        assert reserve_in(suspended, "a", f"s{number}.1", Decimal("0.001"))
    other = log_of(folder)
    assert reserve_in(other, "b", "s0001.1", LIMIT - Decimal("0.5"))
    for _ in range(2 * KEPT_ENTRIES):
        assert reserve_in(other, "b", "s0002.1", Decimal("0.1"))
        assert settle_in(other, "b", "s0002.1", Decimal(0))
    assert "00000001.json" not in folder.files
    assert not reserve_in(suspended, "a", "s9999.1", Decimal(1))
    assert newest(folder).remaining(LIMIT) > 0
    assert sorted(folder.files)[0] > f"{KEPT_ENTRIES:08d}.json"


def test_an_entry_that_cannot_be_read_is_an_error_that_names_it(folder: MemoryFolder) -> None:
    folder.files["00000001.json"] = b"{"
    with pytest.raises(LedgerError, match=r"memory://budget/00000001\.json"):
        log_of(folder)
