"""Which requests are in the canary."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.result_files import read_rows
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.sealing import canary_rows
from airflow_provider_batch.core.sealing.canary_rows import CanaryRows, canary_size, lot_of
from airflow_provider_batch.core.sealing.deduplicate import DuplicateReader
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.staging.local import LocalFolder
from tests.core.building import CHAT, add_row, request


def seal(folder: LocalFolder, numbers: Any, canary: int, **arguments: Any) -> tuple[Sealer, dict[Shard, list[int]]]:
    """Seal a request per number, and return the numbers by shard."""
    sealer = Sealer(folder, "g001/b", CHAT, Limits(requests=100), canary=canary, **arguments)
    for position, number in enumerate(numbers, start=1):
        add_row(sealer, request(f"row-{number}", text=f"{number}"), [], position, 1)
    shards = sealer.finish()
    return sealer, {shard: [int(row.custom_id[4:]) for row in read_rows(folder, shard)] for shard in shards}


def canary_of(folder: LocalFolder, numbers: Any, canary: int) -> list[int]:
    _, rows = seal(folder, numbers, canary)
    return next(ids for shard, ids in rows.items() if shard.synchronous)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 8))
def test_the_lowest_lots_are_kept_and_every_request_comes_out_once(lots: list[int], maximum: int) -> None:
    rows: CanaryRows[tuple[int, int]] = CanaryRows(maximum)
    displaced = []
    for number, lot in enumerate(lots):
        request = (lot, number)
        out = rows.add(lot, request) if rows.admits(lot) else request
        displaced += [] if out is None else [out]
    canary, others = rows.finish()

    assert sorted([*canary, *others, *displaced]) == sorted((lot, number) for number, lot in enumerate(lots))
    assert len(canary) == canary_size(maximum, len(lots))
    assert sorted(lot for lot, _ in canary) == sorted(lots)[: len(canary)]
    assert canary == sorted(canary, key=lambda request: request[1])


def test_the_canary_comes_from_all_over_the_query(tmp_path: Any) -> None:
    numbers = canary_of(LocalFolder(tmp_path), range(10_000), 20)

    assert len(numbers) == 20
    assert numbers == sorted(numbers)
    assert sum(number < 5_000 for number in numbers) in range(4, 17)


def test_the_canary_is_the_same_in_any_order_of_the_rows(tmp_path: Any) -> None:
    shuffled = random.Random(1).sample(range(300), 300)

    first = canary_of(LocalFolder(tmp_path / "a"), range(300), 5)
    assert sorted(canary_of(LocalFolder(tmp_path / "b"), shuffled, 5)) == first


@pytest.mark.parametrize(
    ("requests", "size"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (17, 5), (20, 5), (1_000, 5)]
)
def test_at_most_a_quarter_of_a_small_job_is_its_canary(tmp_path: Any, requests: int, size: int) -> None:
    assert len(canary_of(LocalFolder(tmp_path), range(requests), 5)) == size


def test_copies_of_one_request_do_not_fill_the_canary() -> None:
    sha256 = "0" * 64
    assert len({lot_of(sha256, f"row-{number}") for number in range(1_000)}) == 1_000


def test_duplicates_of_a_displaced_request_follow_it_into_its_shard(tmp_path: Any) -> None:
    folder = LocalFolder(tmp_path)
    sealer = Sealer(folder, "g001/b", CHAT, Limits(requests=3), deduplicate=True, canary=2)
    for number in range(60):
        for copy in range(3):
            row = request(f"row-{number}-{copy}", text=f"{number}")
            add_row(sealer, row, [], number, 1)
    shards = sealer.finish()

    duplicates = DuplicateReader(folder, sealer.duplicate_files)
    for shard in shards:
        numbers = [row.number for row in read_rows(folder, shard)]
        assert sorted(row.number for row in duplicates.rows_of(shard.name)) == sorted(numbers * 2)
    assert sealer.duplicates == 120


def test_large_candidates_are_fewer_so_that_memory_is_bounded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_rows, "CANDIDATE_BYTES", 1_000)
    folder = LocalFolder(tmp_path)
    sealer = Sealer(folder, "g001/b", CHAT, Limits(), canary=20)
    for number in range(200):
        add_row(
            sealer, request(f"row-{number}", model=f"m{number % 2}", text="long " * 60 + f"{number}"), [], number, 1
        )
    shards = sealer.finish()

    canaries = [shard for shard in shards if shard.synchronous]
    assert [shard.model for shard in canaries] == ["m0", "m1"]
    assert sum(shard.bytes for shard in canaries) <= 1_000
    assert sum(shard.requests for shard in shards) == 200
