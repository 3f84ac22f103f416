"""The estimate of a job while its batches settle."""

from __future__ import annotations

from math import log

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate, Shard
from airflow_provider_batch.core.ledger.records import Created, Intent, Record, Settled
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.running_estimate import running_estimate
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.building import NOW, manifest_of, plain_shard

#: US dollars per million tokens; the batch price is half of it
PRICES = {"m": {"input": 0, "output": 10}}
BATCHES = 5


def shards() -> list[Shard]:
    canary = plain_shard("c0001", model="m", requests=5, lane=Lane.STANDARD)
    return [canary, *(plain_shard(f"s{n:04d}", model="m", requests=100) for n in range(1, BATCHES + 1))]


def answered(name: str, answers: int, tokens: int, cost: float | None = 0.0) -> list[Record]:
    """The records of a shard whose answers have this many tokens each."""
    settled = Settled(
        name,
        1,
        f"b-{name}",
        "completed",
        NOW,
        answers=answers,
        output_tokens=answers * tokens,
        output_squares=answers * tokens**2,
        output_logs=answers * log(tokens),
        cost_usd=None if cost is None else f"{answers * tokens * 10 / 1e6:.6f}",
    )
    if name.startswith("c"):
        return [settled]
    return [Intent(name, 1, "nonce", "file", NOW), Created(name, 1, f"b-{name}", NOW), settled]


def job(*records: Record) -> JobState:
    return fold(manifest_of(shards(), prices=PRICES, estimate=Estimate(low_usd=0.0, high_usd=9.0)), records)


def test_the_range_becomes_narrower_with_every_batch_and_ends_at_the_bill() -> None:
    records = answered("c0001", 5, 100)
    assert running_estimate(job(*records)) is None
    widths = []
    for number in range(1, BATCHES + 1):
        records += answered(f"s{number:04d}", 100, 100)
        estimate = running_estimate(job(*records))
        assert estimate is not None
        assert estimate.low_usd is not None
        assert estimate.high_usd is not None
        bill = (5 + 100 * BATCHES) * 100 * 10 / 1e6
        assert estimate.low_usd <= bill <= estimate.high_usd
        assert estimate.likely_usd == pytest.approx(bill)
        widths.append(estimate.high_usd - estimate.low_usd)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] == 0


def test_a_batch_of_short_answers_does_not_hide_that_the_canary_had_longer_ones() -> None:
    # rows sorted by length: the first batch has answers of 100 tokens, the others of up to 2,000
    records = [*answered("c0001", 5, 1_000), *answered("s0001", 100, 100)]

    estimate = running_estimate(job(*records))

    assert estimate is not None
    spent = (5 * 1_000 + 100 * 100) * 10 / 1e6
    assert estimate.likely_usd == pytest.approx(spent + 400 * 1_000 * 10 / 1e6)


def test_an_unknown_cost_of_a_batch_stays_unknown() -> None:
    assert running_estimate(job(*answered("s0001", 100, 100, cost=None))) is None
