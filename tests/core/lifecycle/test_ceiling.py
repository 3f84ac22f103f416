"""The ceiling of a job whose requests cost something else than was estimated, simulated from seal to finish.

A provider answers the batches in a random order. Before and after each of them, the real cost of everything that was
sent is compared with the ceiling: see the guarantee in `core.lifecycle.budget`.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Shard
from airflow_provider_batch.core.ledger.records import (
    CanaryVerdict,
    Created,
    Intent,
    Record,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.steps import Create, Finish, Policy, Reseal, Upload
from airflow_provider_batch.core.provider.batch import BatchView
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.worker.reseal import spread
from tests.core.building import NOW, manifest_of, plain_shard

#: a token costs $1, so that costs are numbers of tokens
PRICES = {"input": 1_000_000, "output": 0}


class Row(NamedTuple):
    model: str
    estimated: int
    #: the tokens that the provider reports
    real: int


class Simulation:
    """A job and its provider."""

    def __init__(self, rows: list[Row], *, ceiling: float, shard_size: int, canary: int, **more: Any) -> None:
        self.rows: dict[str, list[Row]] = {}
        self.records: list[Record] = []
        shards = list[Shard]()
        for model in dict.fromkeys(row.model for row in rows):
            of_model = [row for row in rows if row.model == model]
            if canary:
                shards.append(self.shard(f"c{len(shards):04d}", of_model[:canary], lane=Lane.STANDARD))
            for start in range(canary, len(of_model), shard_size):
                shards.append(self.shard(f"s{len(shards):04d}", of_model[start : start + shard_size]))
        models = {row.model for row in rows}
        more = {"prices": dict.fromkeys(models, PRICES), "output_tokens_high": dict.fromkeys(models, 0.0), **more}
        self.manifest = manifest_of(shards, max_cost_usd=ceiling, **more)
        for shard in shards:
            if shard.synchronous:
                self.records.append(self.settled(shard.name))
        if canary:
            self.records.append(CanaryVerdict(self.manifest.estimate, NOW))
        self.sent = {shard.name for shard in shards if shard.synchronous}
        self.batches = 0

    def shard(self, name: str, rows: list[Row], **more: Any) -> Shard:
        self.rows[name] = rows
        tokens = sum(row.estimated for row in rows)
        return plain_shard(name, model=rows[0].model, requests=len(rows), tokens=tokens, **more)

    def settled(self, name: str) -> Settled:
        rows = self.rows[name]
        real, estimated = sum(row.real for row in rows), sum(row.estimated for row in rows)
        return Settled(
            name,
            1,
            f"b-{name}",
            "completed",
            NOW,
            outcomes={"succeeded": len(rows)},
            answers=len(rows),
            input_tokens=real,
            estimated_input_tokens=estimated,
            cost_usd=str(real),
        )

    @property
    def state(self) -> JobState:
        return fold(self.manifest, self.records)

    @property
    def real_cost(self) -> int:
        """Real cost of everything that was sent, answered or not."""
        return sum(row.real for name in self.sent for row in self.rows[name])

    @property
    def answered_rows(self) -> int:
        return sum(len(self.rows[name]) for name in self.sent)

    def run(self, random: Random) -> int:
        """Run the job to completion. Return the highest real cost of what was sent at any time."""
        while True:
            steps, pause = next_steps(self.state, dict[str, BatchView](), Policy(), NOW)
            for step in steps:
                assert isinstance(step, Upload | Create | Reseal)
                name = step.shard.name
                if isinstance(step, Upload):
                    self.records.append(Uploaded(name, 1, f"f-{name}", NOW))
                elif isinstance(step, Create):
                    self.records += [Intent(name, 1, "nonce", "f", NOW), Created(name, 1, f"b-{name}", NOW)]
                    self.sent.add(name)
                    self.batches += 1
                else:
                    self.reseal(step)
            if steps:
                continue
            live = self.state.live_submissions()
            if not live:
                assert isinstance(pause, Finish)
                return self.real_cost
            self.records.append(self.settled(random.choice(live)[0].name))

    def reseal(self, step: Reseal) -> None:
        rows, number = self.rows[step.shard.name], len(self.state.retry_rounds) + 1
        first = spread(step.first_part, len(rows))
        parts = [[row for line, row in enumerate(rows) if (line in first) is in_first] for in_first in (True, False)]
        shards = [self.shard(f"r{number:03d}-{part:04d}", part_rows) for part, part_rows in enumerate(parts)]
        self.records.append(Intent(step.shard.name, 1, "claim", "", NOW))
        self.records.append(RetryRound(number, [(step.shard.name, 1)], shards, NOW))


@given(
    data=st.data(),
    factors=st.lists(st.floats(0.1, 100), min_size=1, max_size=3),
    canary=st.integers(0, 3),
    shard_size=st.integers(1, 40),
    share=st.floats(0.01, 3),
    random=st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=60)
def test_a_wrong_estimate_costs_at_most_one_request_beyond_the_ceiling(
    data: st.DataObject, factors: list[float], canary: int, shard_size: int, share: float, random: Random
) -> None:
    estimates = st.lists(st.integers(1, 2_000), min_size=4, max_size=60)
    rows = [
        Row(f"m{number}", estimated, max(round(estimated * factor), 1))
        for number, factor in enumerate(factors)
        for estimated in data.draw(estimates)
    ]
    ceiling = sum(row.real for row in rows) * share
    simulation = Simulation(rows, ceiling=ceiling, shard_size=shard_size, canary=canary)
    canary_cost = simulation.real_cost
    largest_request = max(row.real for row in rows)
    assert simulation.run(random) <= max(ceiling, canary_cost) + largest_request


@pytest.mark.parametrize("canary", [0, 2])
@pytest.mark.parametrize("headroom", [0.1, 0.5, 1.2, 3, 15, 40])
def test_images_after_a_canary_that_saw_only_text_stay_within_the_ceiling(canary: int, headroom: float) -> None:
    rows = [Row("m", 1_000, 1_000)] * 2 + [Row("m", 1_000, 25_000)] * 398
    ceiling = headroom * sum(row.estimated for row in rows)
    simulation = Simulation(rows, ceiling=ceiling, shard_size=1_000, canary=canary, media_models=["m"])
    assert simulation.run(Random(0)) <= ceiling


@pytest.mark.parametrize("canary", [0, 2])
@pytest.mark.parametrize("headroom", [1.2, 3, 15])
def test_rows_with_images_among_rows_of_text_rarely_exceed_the_ceiling(canary: int, headroom: float) -> None:
    excesses = []
    for seed in range(20):
        random = Random(seed)
        rows = [Row("m", 1_000, 25_000 if number >= 2 and random.random() < 0.5 else 1_000) for number in range(400)]
        ceiling = headroom * sum(row.estimated for row in rows)
        simulation = Simulation(rows, ceiling=ceiling, shard_size=1_000, canary=canary, media_models=["m"])
        excesses.append(simulation.run(random) / ceiling)
    assert sum(excess <= 1 for excess in excesses) >= 15
    assert max(excesses) <= 2


@pytest.mark.parametrize(
    ("media_models", "headroom", "batches"),
    [([], 1.05, 2), ([], 1.5, 2), ([], 3, 1), (["m"], 1.05, 3), (["m"], 1.5, 2), (["m"], 3, 2), (["m"], 30, 1)],
)
def test_a_right_estimate_needs_few_batches_to_send_everything(
    media_models: list[str], headroom: float, batches: int
) -> None:
    rows = [Row("m", 1_000, 1_000)] * 2_000
    simulation = Simulation(rows, ceiling=headroom * 2_000_000, shard_size=50_000, canary=2, media_models=media_models)
    simulation.run(Random(0))
    assert simulation.answered_rows == len(rows)
    assert simulation.batches == batches


def test_a_factor_of_earlier_jobs_that_the_canary_confirms_needs_no_first_part() -> None:
    rows = [Row("m", 1_000, 3_000)] * 2_000
    simulation = Simulation(rows, ceiling=9e6, shard_size=50_000, canary=2, input_factors={"m": 2.9})
    simulation.run(Random(0))
    assert (simulation.answered_rows, simulation.batches) == (len(rows), 1)


def test_a_factor_of_earlier_jobs_is_no_reason_to_send_everything_before_an_answer_confirms_it() -> None:
    # last night the rows were text, and tonight they are images
    rows = [Row("m", 1_000, 25_000)] * 400
    simulation = Simulation(rows, ceiling=2e6, shard_size=50_000, canary=0, input_factors={"m": 1.0})
    assert 1e6 <= simulation.run(Random(0)) <= 2e6


@pytest.mark.parametrize("factor", [0.05, 1.0, 10_000.0])
def test_a_factor_of_earlier_jobs_never_withholds_everything(factor: float) -> None:
    rows = [Row("m", 1_000, 1_000)] * 400
    simulation = Simulation(rows, ceiling=1e6, shard_size=50_000, canary=0, input_factors={"m": factor})
    simulation.run(Random(0))
    assert simulation.answered_rows == len(rows)


def test_two_models_without_answers_are_tried_at_the_same_time() -> None:
    rows = [Row(model, 1_000, 4_000) for model in ("a", "b") for _ in range(200)]
    simulation = Simulation(rows, ceiling=2e6, shard_size=50_000, canary=0)
    steps = next_steps(simulation.state, {}, Policy(), NOW)[0]
    assert [step.first_part for step in steps if isinstance(step, Reseal)] == [4, 4]
    assert simulation.run(Random(0)) <= 2e6
    assert simulation.answered_rows == len(rows)


def test_a_single_request_is_sent_alone_if_no_smaller_part_is_possible() -> None:
    rows = [Row("m", 1_000, 1_000)] * 3
    simulation = Simulation(rows, ceiling=5_000, shard_size=1, canary=0)
    steps = next_steps(simulation.state, {}, Policy(), NOW)[0]
    assert [step.shard.name for step in steps if isinstance(step, Upload)] == ["s0000"]
    simulation.run(Random(0))
    assert simulation.answered_rows == 3


def test_nothing_is_sent_if_the_input_of_one_request_alone_exceeds_the_ceiling() -> None:
    simulation = Simulation([Row("m", 1_000, 1_000)] * 3, ceiling=999, shard_size=10, canary=0)
    assert simulation.run(Random(0)) == 0
    assert BudgetTracker(simulation.state).spent == 0
