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
    Failure,
    Finished,
    Intent,
    Record,
    Refused,
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
from airflow_provider_batch.core.provider.lane import Lane
from tests.core.building import NOW, manifest_of, plain_shard

#: $1 per million tokens: 100 requests of 1,000 tokens cost $0.10, and their answers of 100 tokens each $0.01
PRICES = {"m": {"input": 1, "output": 1}}


def job(ceiling: float | None, *records: Record, shards: int = 3, requests: int = 100, **more: Any) -> JobState:
    """Return a job whose shards reserve $0.20 each: 1,000 tokens in and at most 1,000 out for each request."""
    sealed = [
        plain_shard(f"s{n:04d}", model="m", requests=requests, tokens=1_000 * requests) for n in range(1, shards + 1)
    ]
    caps = {"m": 1_000.0}
    more = {"prices": PRICES, "output_tokens_high": caps, "output_caps": caps, **more}
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


def test_the_high_end_is_expected_until_there_are_answers() -> None:
    shard = plain_shard("s", model="m", requests=100, tokens=100_000)
    assert BudgetTracker(job(1.0)).expected_cost(shard) == Decimal("0.2")


def test_without_any_answers_the_input_is_reserved_226_times() -> None:
    shard = plain_shard("s", model="m", requests=100, tokens=100_000)
    assert BudgetTracker(job(1.0)).reservation(shard) == Decimal("22.6") + Decimal("0.1")
    # an answer without an output cap can be longer than the high end
    assert BudgetTracker(job(1.0, output_caps={})).reservation(shard) == Decimal("22.6") + Decimal("2.5")


def test_shards_that_fit_are_sent_and_the_others_wait_until_any_batch_ends() -> None:
    answered = settled_records("s0001")
    # 1,000 tokens in and 100 out, and a fifth more, for each of 100 requests: $0.132
    assert plan(job(0.4, *answered, shards=4))[0] == ["Upload s0002", "Upload s0003"]
    assert plan(job(0.4, *answered, *live_records("s0002"), shards=4))[0] == ["Upload s0003"]
    steps, pause = plan(job(0.4, *answered, *live_records("s0002"), *live_records("s0003"), shards=4))
    assert steps == []
    assert pause == Wait(["b-s0002", "b-s0003"], None, any_end=True)


@pytest.mark.parametrize(
    ("answers", "margin"), [(1, 56.25), (2, 25), (5, 6.25), (10, 1.86), (30, 0.365), (100, 0.2), (1_000, 0.063)]
)
def test_the_margin_shrinks_with_the_number_of_answers(answers: int, margin: float) -> None:
    state = job(1.0, *settled_records("s0001", output=100 * answers, answers=answers))
    assert max(BudgetTracker(state).margins("m")) == pytest.approx(margin, abs=0.005)
    assert BudgetTracker(state).margins("another") == (225, 0)


def test_the_input_of_text_is_known_well_once_there_are_answers() -> None:
    shard = plain_shard("s", model="m", requests=1_000, tokens=1_000_000)
    budget = BudgetTracker(job(1.0, *settled_records("s0001", output=0, answers=4)))
    assert budget.reservation(shard) == Decimal("2")


def test_a_short_request_may_have_an_image_as_long_as_few_answers_are_known() -> None:
    shard = plain_shard("s", model="m", requests=1_000, tokens=10_000)
    budget = BudgetTracker(job(1.0, *settled_records("s0001", output=0, answers=2), media_models=["m"]))
    # 10 tokens, and 25 times 1,000, for each of 1,000 requests
    assert budget.reservation(shard) == Decimal("25.01")


def test_answers_that_report_no_usage_count_as_answers() -> None:
    assert max(BudgetTracker(job(1.0, *settled_records("s0001", answers=0, output=0))).margins("m")) == pytest.approx(
        0.2
    )


def test_failed_rows_do_not_count_as_answers() -> None:
    failed = Settled("s0001", 1, "b-s0001", "completed", NOW, outcomes={"failed": 60, "expired": 40})
    assert BudgetTracker(job(1.0, *live_records("s0001"), failed)).margins("m") == (225, 0)


def test_once_there_are_answers_their_mean_is_reserved_with_the_margin() -> None:
    state = job(1.0, *settled_records("s0001"))
    shard = plain_shard("s", model="m", requests=100, tokens=100_000)
    # 1,000 tokens in and 100 out, and a fifth more
    assert BudgetTracker(state).reservation(shard) == Decimal("0.132")
    assert BudgetTracker(state).expected_cost(shard) == Decimal("0.11")


def test_the_reported_input_corrects_what_is_reserved() -> None:
    (settled,) = settled_records("s0001")[-1:]
    assert isinstance(settled, Settled)
    images = msgspec.structs.replace(settled, input_tokens=2_500_000, estimated_input_tokens=100_000)
    state = job(1.0, *live_records("s0001"), images)
    # 25,000 tokens in, and 100 out, for each of 100 requests
    assert BudgetTracker(state).expected_cost(plain_shard("s", model="m", requests=100, tokens=100_000)) == Decimal(
        "2.51"
    )


def test_what_earlier_jobs_learned_corrects_the_input_until_there_are_answers() -> None:
    shard = plain_shard("s", model="m", requests=100, tokens=100_000)
    state = job(1.0, input_factors={"m": 3.0}, output_tokens_high={"m": 0.0})
    assert BudgetTracker(state).expected_cost(shard) == Decimal("0.3")
    assert BudgetTracker(state).margins("m")[0] == 25
    (settled,) = settled_records("s0001", output=4, answers=2)[-1:]
    assert isinstance(settled, Settled)
    for reported, margin in ((2_500, 0.198), (300_000, 25)):
        answered = msgspec.structs.replace(settled, input_tokens=reported, estimated_input_tokens=1_000)
        budget = BudgetTracker(job(1.0, *live_records("s0001"), answered, input_factors={"m": 3.0}))
        assert max(budget.margins("m")) == pytest.approx(margin, abs=0.001)


def test_the_margin_never_raises_the_output_above_the_cap() -> None:
    state = job(1.0, *settled_records("s0001", output=990 * 100))
    shard = plain_shard("s", model="m", requests=100, tokens=100_000)
    assert BudgetTracker(state).reservation(shard) == Decimal("0.12") + Decimal("0.1")
    uncapped = job(1.0, *settled_records("s0001", output=990 * 100), output_caps={})
    assert BudgetTracker(uncapped).reservation(shard) == Decimal("0.12") + Decimal("0.1188")


def test_the_real_cost_of_a_settled_batch_replaces_its_reservation() -> None:
    budget = BudgetTracker(job(0.4, *settled_records("s0001"), *live_records("s0002")))
    assert (budget.spent, budget.reserved, budget.remaining) == (Decimal("0.11"), Decimal("0.132"), Decimal("0.158"))
    assert plan(job(0.4, *settled_records("s0001"), *live_records("s0002")))[0] == ["Upload s0003"]


def test_an_answer_without_a_known_price_counts_with_its_expected_cost() -> None:
    state = job(0.4, *settled_records("s0001", cost=None, answers=0))
    assert BudgetTracker(state).spent == Decimal("0.2")


def test_requests_that_a_worker_was_sending_when_it_died_count_with_their_expected_cost() -> None:
    shard = plain_shard("s0001", model="m", requests=4, tokens=4_000, lane=Lane.FLEX)
    high = {"m": 1_000.0}
    manifest = manifest_of([shard], max_cost_usd=1.0, prices=PRICES, output_tokens_high=high, output_caps=high)
    lost: list[Record] = [
        Intent("s0001", 1, "x", "", NOW),
        Refused("s0001", 1, Failure.LOST, "No response was recorded.", NOW),
    ]
    cost = BudgetTracker(fold(manifest, [])).expected_cost(shard)

    assert BudgetTracker(fold(manifest, lost)).spent == cost > 0
    assert fold(manifest, lost).lost_requests == 4
    batch = manifest_of([plain_shard("s0001", model="m", requests=4)], prices=PRICES)
    assert BudgetTracker(fold(batch, lost)).spent == 0


def test_shards_that_exceed_the_budget_are_withheld_at_the_end() -> None:
    steps, pause = plan(job(0.12, *settled_records("s0001")))
    assert steps == []
    assert pause == Finish(("s0002", "s0003"))


def test_a_shard_without_a_known_price_is_withheld_under_a_ceiling() -> None:
    assert plan(job(9.0, prices={}, shards=1))[1] == Finish(("s0001",))


@pytest.mark.parametrize(("ceiling", "requests"), [(0.01, 1), (0.05, 1), (2.3, 10), (22, 96)])
def test_without_any_answers_a_part_of_a_shard_that_fits_is_sent_first(ceiling: float, requests: int) -> None:
    (step,), _ = next_steps(job(ceiling, shards=1), {}, Policy(), NOW)
    assert isinstance(step, Reseal)
    assert step.first_part == requests


def test_a_shard_is_not_divided_while_a_batch_is_running() -> None:
    assert plan(job(0.25, *live_records("s0001")))[0] == []


def test_a_shard_is_not_divided_for_less_than_a_tenth_of_it() -> None:
    assert plan(job(0.11 + 0.010, *settled_records("s0001"), shards=2)) == ([], Finish(("s0002",)))
    assert plan(job(0.11 + 0.012, *settled_records("s0001"), shards=2))[0] == ["Reseal s0002"]


def test_a_retry_round_that_exceeds_the_budget_is_withheld() -> None:
    retried_shard = plain_shard("r01-0001", model="m", requests=100, tokens=100_000, attempt=2)
    state = job(0.12, *settled_records("s0001"), RetryRound(1, [("s0001", 1)], [retried_shard], NOW), shards=1)
    assert plan(state)[1] == Finish(("r01-0001",))


def test_a_raised_ceiling_lets_the_job_continue() -> None:
    records = [*settled_records("s0001"), Finished(1, NOW, ["s0002", "s0003"])]
    assert outcomes_so_far(job(0.22, *records)) == {"succeeded": 100, "withheld": 200}
    assert plan(job(0.22, *records, Budget(1, 0.25, NOW)))[0] == ["Upload s0002"]
    assert plan(job(0.22, *records, Budget(1, 0.25, NOW), Budget(2, None, NOW)))[0] == ["Upload s0002", "Upload s0003"]
    continued_state = job(0.22, *records, Budget(1, 0.25, NOW), *live_records("s0002"))
    assert outcomes_so_far(continued_state) == {"succeeded": 100, "withheld": 100, "pending": 100}


def test_after_the_deadline_unsent_shards_are_pending_and_not_withheld() -> None:
    assert plan(job(0.22, *settled_records("s0001"), Deadline(NOW, NOW)))[1] == Finish()


@pytest.mark.parametrize("ceiling", [0.2, 0.4, 0.61])
def test_no_plan_reserves_more_than_the_ceiling(ceiling: float) -> None:
    state = job(ceiling, *settled_records("s0001"), shards=5)
    steps, _ = next_steps(state, {}, Policy(), NOW)
    budget = BudgetTracker(state)
    assert (
        sum(budget.reservation(step.shard.spec) for step in steps if isinstance(step, Upload))
        <= Decimal(str(ceiling)) - budget.spent
    )


def test_without_any_answers_a_shared_budget_covers_one_request_that_is_expected_to_fit() -> None:
    budget = BudgetTracker(job(None))
    # $0.002 a request is expected, and $0.226 would be reserved
    assert budget.requests_within(plain_shard("s", model="m", requests=100, tokens=100_000), Decimal("0.003")) == 1
    assert budget.requests_within(plain_shard("s", model="m", requests=100, tokens=100_000), Decimal("0.001")) == 0
    assert budget.shared_reservation(plain_shard("s", model="m", requests=1, tokens=1_000)) == Decimal("0.002")
