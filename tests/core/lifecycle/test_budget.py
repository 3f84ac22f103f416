"""The budget while a job runs: what is spent, what is reserved, and which shards are withheld."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import (
    Budget,
    Created,
    Deadline,
    Finished,
    Intent,
    Record,
    RetryRound,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.progress import outcomes_so_far
from airflow_provider_batch.core.lifecycle.steps import (
    FinalPass,
    Finish,
    JudgeCanary,
    Policy,
    Reseal,
    Retry,
    Upload,
    Wait,
)
from tests.core.building import NOW, manifest_of, plain_shard

#: $1 per million tokens: 100 requests of 1,000 tokens cost $0.10, and their answers of 100 tokens each $0.01
PRICES = {"m": {"input": 1, "output": 1}}


def job(ceiling: float | None, *records: Record, shards: int = 3, requests: int = 100, **more: Any) -> JobState:
    """Return a job whose shards reserve $0.20 each: 1,000 tokens in and at most 1,000 out for each request."""
    sealed = [
        plain_shard(f"s{n:04d}", model="m", requests=requests, tokens=1_000 * requests) for n in range(1, shards + 1)
    ]
    more = {"prices": PRICES, "output_tokens_high": {"m": 1_000.0}, **more}
    return fold(manifest_of(sealed, max_cost_usd=ceiling, **more), records)


def live_records(name: str) -> list[Record]:
    return [
        Uploaded(name, 1, "f", NOW),
        Intent(name, 1, "x", "f", NOW),
        Created(name, 1, f"b-{name}", NOW),
    ]


def settled_records(name: str, *, cost: str | None = "0.11", output: int = 10_000, answers: int = 100) -> list[Record]:
    settled = Settled(
        name,
        1,
        f"b-{name}",
        "completed",
        NOW,
        outcomes={"succeeded": 100},
        answers=answers,
        output_tokens=output,
        cost_usd=cost,
    )
    return [*live_records(name), settled]


def plan(state: JobState) -> tuple[list[str], Any]:
    steps, pause = next_steps(state, {}, Policy(), NOW)
    shard_steps = [step for step in steps if not isinstance(step, JudgeCanary | Retry | FinalPass)]
    assert len(shard_steps) == len(steps)
    return [f"{type(step).__name__} {step.shard.name}" for step in shard_steps], pause


def test_without_a_ceiling_every_shard_is_sent() -> None:
    assert plan(job(None))[0] == ["Upload s0001", "Upload s0002", "Upload s0003"]


def test_the_high_end_is_reserved_until_there_are_answers() -> None:
    assert BudgetTracker(job(1.0)).reservation(plain_shard("s", model="m", requests=100, tokens=100_000)) == Decimal(
        "0.2"
    )


def test_shards_that_fit_are_sent_and_the_others_wait_until_any_batch_ends() -> None:
    assert plan(job(0.4))[0] == ["Upload s0001", "Upload s0002"]
    assert plan(job(0.4, *live_records("s0001")))[0] == ["Upload s0002"]
    steps, pause = plan(job(0.4, *live_records("s0001"), *live_records("s0002")))
    assert steps == []
    assert pause == Wait(["b-s0001", "b-s0002"], None, any_end=True)


def test_once_there_are_answers_their_mean_is_reserved_with_a_margin_that_shrinks() -> None:
    state = job(1.0, *settled_records("s0001"))
    # 100 tokens on average over 100 answers, and a tenth more
    assert BudgetTracker(state).reservation(plain_shard("s", model="m", requests=100, tokens=100_000)) == Decimal(
        "0.1111"
    )
    state_with_four_answers = job(1.0, *settled_records("s0001", output=400, answers=4))
    assert BudgetTracker(state_with_four_answers).reservation(
        plain_shard("s", model="m", requests=100, tokens=100_000)
    ) == Decimal("0.115")


def test_the_reported_input_corrects_what_is_reserved() -> None:
    (settled,) = settled_records("s0001")[-1:]
    assert isinstance(settled, Settled)
    images = msgspec.structs.replace(settled, input_tokens=2_500_000, estimated_input_tokens=100_000)
    state = job(1.0, *live_records("s0001"), images)
    # 25,000 tokens in, and 111 out, for each of 100 requests
    assert BudgetTracker(state).reservation(plain_shard("s", model="m", requests=100, tokens=100_000)) == Decimal(
        "2.5111"
    )


def test_the_margin_never_raises_a_measured_mean_above_the_output_cap() -> None:
    state = job(1.0, *settled_records("s0001", output=990 * 4, answers=4))
    assert BudgetTracker(state).reservation(plain_shard("s", model="m", requests=100, tokens=100_000)) == Decimal("0.2")


def test_the_real_cost_of_a_settled_batch_replaces_its_reservation() -> None:
    budget = BudgetTracker(job(0.4, *settled_records("s0001"), *live_records("s0002")))
    assert (budget.spent, budget.reserved, budget.remaining) == (Decimal("0.11"), Decimal("0.1111"), Decimal("0.1789"))
    assert plan(job(0.4, *settled_records("s0001"), *live_records("s0002")))[0] == ["Upload s0003"]


def test_an_answer_without_a_known_price_counts_with_its_reservation() -> None:
    state = job(0.4, *settled_records("s0001", cost=None, answers=0))
    assert BudgetTracker(state).spent == Decimal("0.2")


def test_shards_that_exceed_the_budget_are_withheld_at_the_end() -> None:
    steps, pause = plan(job(0.12, *settled_records("s0001")))
    assert steps == []
    assert pause == Finish(("s0002", "s0003"))


def test_a_shard_without_a_known_price_is_withheld_under_a_ceiling() -> None:
    assert plan(job(9.0, prices={}, shards=1))[1] == Finish(("s0001",))


def test_without_any_answers_a_part_of_a_shard_that_fits_is_sent_first() -> None:
    (step,), _ = next_steps(job(0.05, shards=1), {}, Policy(), NOW)
    assert isinstance(step, Reseal)
    assert step.requests == 25


def test_a_shard_is_not_divided_while_a_batch_is_running() -> None:
    assert plan(job(0.25, *live_records("s0001")))[0] == []


def test_a_shard_is_not_divided_for_less_than_a_tenth_of_it() -> None:
    assert plan(job(0.019, shards=1)) == ([], Finish(("s0001",)))


def test_a_retry_round_that_exceeds_the_budget_is_withheld() -> None:
    retried_shard = plain_shard("r01-0001", model="m", requests=100, tokens=100_000, attempt=2)
    state = job(0.12, *settled_records("s0001"), RetryRound(1, [("s0001", 1)], [retried_shard], NOW), shards=1)
    assert plan(state)[1] == Finish(("r01-0001",))


def test_a_raised_ceiling_lets_the_job_continue() -> None:
    records = [*settled_records("s0001"), Finished(1, NOW, ["s0002", "s0003"])]
    assert outcomes_so_far(job(0.22, *records)) == {"succeeded": 100, "withheld": 200}
    assert plan(job(0.22, *records, Budget(1, 0.23, NOW)))[0] == ["Upload s0002"]
    assert plan(job(0.22, *records, Budget(1, 0.23, NOW), Budget(2, None, NOW)))[0] == ["Upload s0002", "Upload s0003"]
    continued_state = job(0.22, *records, Budget(1, 0.23, NOW), *live_records("s0002"))
    assert outcomes_so_far(continued_state) == {"succeeded": 100, "withheld": 100, "pending": 100}


def test_after_the_deadline_unsent_shards_are_pending_and_not_withheld() -> None:
    assert plan(job(0.22, *settled_records("s0001"), Deadline(NOW, NOW)))[1] == Finish()


@pytest.mark.parametrize("ceiling", [0.2, 0.4, 0.61])
def test_no_plan_reserves_more_than_the_ceiling(ceiling: float) -> None:
    state = job(ceiling, shards=5)
    steps, _ = next_steps(state, {}, Policy(), NOW)
    budget = BudgetTracker(state)
    assert sum(budget.reservation(step.shard.spec) for step in steps if isinstance(step, Upload)) <= Decimal(
        str(ceiling)
    )
