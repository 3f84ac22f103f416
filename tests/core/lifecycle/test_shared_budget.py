"""Budgets that several jobs share: periods, reservations, and what a job may still reserve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.records import (
    Created,
    DuplicateBatch,
    Failure,
    Intent,
    Record,
    Refused,
    Settled,
    Uploaded,
)
from airflow_provider_batch.core.ledger.state import JobState
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.next_steps import next_steps
from airflow_provider_batch.core.lifecycle.shared_budget import (
    MAX_SETTLED_JOBS,
    Allowance,
    Balance,
    Change,
    Per,
    SharedBudget,
    allowance_of,
    apply_changes,
    changes_of,
    describe,
    parse_connection_budget,
    period_at,
    release,
    reserve,
    unreserved_batches,
)
from airflow_provider_batch.core.lifecycle.steps import Finish, Policy, Reseal, SendSynchronously, Wait
from airflow_provider_batch.core.provider.lane import Lane
from airflow_provider_batch.exceptions import InputError
from tests.core.building import NOW, manifest_of, plain_shard

BUDGET = SharedBudget(Decimal(10), Per.DAY, "openai_default")
KEY = JobKey("label", "submit", "manual__1")
EMPTY = Balance(BUDGET, "2026-11-29")
PRICES = {"m": {"input": 0, "output": 2}}


def reserved(balance: Balance, name: str, usd: float, job_uid: str = "a") -> Balance:
    changed = reserve(balance, BUDGET.usd, job_uid, KEY, name, Decimal(str(usd)))
    assert changed is not None
    return changed


def settled(balance: Balance, name: str, usd: str | None, job_uid: str = "a") -> Balance:
    return apply_changes(balance, job_uid, KEY, [Change(name, None, None if usd is None else Decimal(usd))])


def amounts(balance: Balance) -> tuple[float, float]:
    """Return the US dollars spent and reserved."""
    return float(balance.spent), float(balance.reserved)


@pytest.mark.parametrize(
    ("per", "name", "ends_at"),
    [
        (Per.HOUR, "2026-12-31T23", datetime(2027, 1, 1, tzinfo=UTC)),
        (Per.DAY, "2026-12-31", datetime(2027, 1, 1, tzinfo=UTC)),
        (Per.WEEK, "2026-W53", datetime(2027, 1, 4, tzinfo=UTC)),
        (Per.MONTH, "2026-12", datetime(2027, 1, 1, tzinfo=UTC)),
        (Per.RUN, "run", None),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(per: Per, name: str, ends_at: datetime | None) -> None:
    # 2027-01-01 in Berlin
    time = datetime.fromisoformat("2027-01-01T00:30:00+01:00")
    assert period_at(per, time) == (name, ends_at)


@given(st.sampled_from([Per.HOUR, Per.DAY, Per.WEEK, Per.MONTH]), st.datetimes(timezones=st.just(UTC)))
def test_a_period_ends_where_the_next_one_starts(per: Per, time: datetime) -> None:
    period = period_at(per, time)
    assert period.ends_at is not None
    assert time < period.ends_at
    assert period_at(per, period.ends_at - timedelta(microseconds=1)) == period
    assert period_at(per, period.ends_at).name > period.name


def test_a_reservation_that_exceeds_what_is_left_is_refused() -> None:
    balance = reserved(EMPTY, "s0001.1", 6)
    assert reserve(balance, BUDGET.usd, "b", KEY, "s0001.1", Decimal("4.01")) is None
    assert reserve(balance, BUDGET.usd, "b", KEY, "s0001.1", Decimal(4)) is not None


def test_an_amount_that_is_unknown_is_never_reserved_and_holds_up_no_other_job() -> None:
    assert reserve(EMPTY, BUDGET.usd, "a", KEY, "s0001.1", Decimal("Infinity")) is None
    assert reserved(EMPTY, "s0001.1", 10, "b").reserved == 10


def test_a_reservation_is_made_once_and_settled_once() -> None:
    balance = reserved(EMPTY, "s0001.1", 6)
    assert reserved(balance, "s0001.1", 6) is balance
    balance = settled(balance, "s0001.1", "2.5")
    assert amounts(balance) == (2.5, 0)
    assert settled(balance, "s0001.1", "2.5") is balance


def test_a_reservation_whose_cost_is_unknown_counts_as_spent() -> None:
    balance = settled(reserved(EMPTY, "s0001.1", 6), "s0001.1", None)
    assert amounts(balance) == (6, 0)


def test_release_frees_the_reservations_of_a_job_and_keeps_what_it_has_spent() -> None:
    balance = settled(reserved(reserved(EMPTY, "s0001.1", 3), "s0002.1", 4), "s0001.1", "1")
    released = release(balance, "a")
    assert amounts(released) == (1, 0)
    assert release(released, "a") is released
    assert release(released, "unknown") is released


def test_many_settled_jobs_are_added_up_and_nothing_of_what_they_spent_is_lost() -> None:
    balance = reserved(EMPTY, "s0001.1", 1, "running")
    for number in range(MAX_SETTLED_JOBS + 50):
        balance = settled(reserved(balance, "s0001.1", 0.01, f"job-{number}"), "s0001.1", "0.01", f"job-{number}")
    assert len(balance.jobs) == MAX_SETTLED_JOBS + 1
    assert balance.settled_jobs == 50
    assert balance.spent == Decimal("1.50")
    assert balance.reserved == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.integers(0, 6), st.integers(0, 9)), max_size=40))
def test_reservations_never_exceed_the_limit_if_costs_stay_below_them(
    operations: list[tuple[str, int, int, int]],
) -> None:
    balance = EMPTY
    for job_uid, number, amount, cost in operations:
        name = f"s{number}"
        account = balance.jobs.get(job_uid)
        amount_now = account.reservations.get(name) if account else None
        if amount_now is None:
            balance = reserve(balance, BUDGET.usd, job_uid, KEY, name, Decimal(amount)) or balance
        else:
            balance = settled(balance, name, str(min(Decimal(cost), amount_now)), job_uid)
        assert balance.spent + balance.reserved <= BUDGET.usd


def test_requests_that_may_have_been_paid_for_twice_are_counted_twice() -> None:
    balance = reserve(reserved(EMPTY, "c0001.1", 3), BUDGET.usd, "a", KEY, "c0001.1", Decimal(2), is_repeated=True)
    assert balance is not None
    assert amounts(balance) == (3, 2)
    assert reserve(balance, BUDGET.usd, "a", KEY, "c0001.1", Decimal(6), is_repeated=True) is None


# What happened to a job, and what it changes


def job(*records: Record, **shard: Any) -> JobState:
    manifest = manifest_of(
        [plain_shard("s0001", model="m", requests=100, tokens=100_000, **shard)],
        job_uid="a",
        key=KEY,
        prices=PRICES,
        output_tokens_high={"m": 1_000.0},
        output_caps={"m": 1_000},
    )
    return fold(manifest, records)


UPLOADED, INTENT = Uploaded("s0001", 1, "f", NOW), Intent("s0001", 1, "x", "f", NOW)
CREATED = Created("s0001", 1, "b1", NOW)


def test_records_settle_a_reservation() -> None:
    balance = reserved(EMPTY, "s0001.1", 3)

    def changes(*records: Record, **shard: Any) -> list[Change]:
        return changes_of(balance, job(UPLOADED, INTENT, *records, **shard), lambda _: Decimal(2))

    def settle(cost: str | None) -> Settled:
        return Settled("s0001", 1, "b1", "completed", NOW, cost_usd=cost)

    def refuse(failure: Failure) -> Refused:
        return Refused("s0001", 1, failure, "no", NOW)

    # an unconfirmed creation and a running batch may cost money
    assert changes() == changes(CREATED) == []
    assert changes(refuse(Failure.CAPACITY)) == changes(refuse(Failure.LOST)) == [Change("s0001.1", None, Decimal(0))]
    assert changes(CREATED, settle("1.25")) == [Change("s0001.1", None, Decimal("1.25"))]
    assert changes(CREATED, settle(None)) == [Change("s0001.1", None, Decimal(2))]
    # a creation that was taken for lost, although it had succeeded
    assert changes(CREATED, refuse(Failure.LOST)) == []
    # synchronous requests of a worker that died may have been paid for
    assert changes(refuse(Failure.LOST), lane=Lane.STANDARD) == [Change("s0001.1", None, Decimal(2))]
    assert changes(DuplicateBatch("b1", "s0001", "cancelled", True, 0, NOW), CREATED) == [
        Change("s0001.1", None, Decimal(0))
    ]
    assert changes(DuplicateBatch("b1", "s0001", "cancelled", True, 7, NOW), CREATED) == [
        Change("s0001.1", None, Decimal(2))
    ]


def test_a_reservation_that_the_state_does_not_explain_stays() -> None:
    assert changes_of(reserved(EMPTY, "s0009.1", 3), job(UPLOADED, INTENT), lambda _: Decimal(3)) == []


def test_a_reservation_grows_with_the_estimate_and_never_shrinks() -> None:
    balance, state = reserved(EMPTY, "s0001.1", 3), job(UPLOADED, INTENT, CREATED)
    assert changes_of(balance, state, lambda _: Decimal(5)) == [Change("s0001.1", Decimal(5))]
    assert changes_of(balance, state, lambda _: Decimal(2)) == []
    assert changes_of(balance, state, lambda _: Decimal("Infinity")) == []


def test_a_canary_that_a_worker_did_not_finish_counts_as_spent() -> None:
    balance = reserved(EMPTY, "s0001.1", 3)
    assert changes_of(balance, job(lane=Lane.STANDARD), lambda _: Decimal(3)) == [Change("s0001.1", None, Decimal(3))]
    assert changes_of(balance, job(), lambda _: Decimal(3)) == []


def test_a_running_batch_without_a_reservation_is_noticed() -> None:
    state = job(UPLOADED, INTENT, CREATED)
    assert [shard.name for shard, _ in unreserved_batches(EMPTY, state)] == ["s0001"]
    assert unreserved_batches(reserved(EMPTY, "s0001.1", 3), state) == []
    # its creator may be about to reserve
    assert unreserved_batches(EMPTY, job(UPLOADED, INTENT)) == []
    assert unreserved_batches(EMPTY, job(UPLOADED, INTENT, CREATED, Settled("s0001", 1, "b1", "completed", NOW))) == []


# What a job may still reserve


def test_the_scarcest_budget_decides() -> None:
    run = SharedBudget(Decimal(5), Per.RUN, dag_id="label", run_id="manual__1")
    pairs = [(BUDGET, reserved(EMPTY, "s0001.1", 6)), (run, Balance(run, "run"))]
    allowance = allowance_of(pairs, "a", NOW, timedelta(minutes=5))
    assert allowance is not None
    assert allowance.usd == 4
    assert allowance_of([], "a", NOW, timedelta(minutes=5)) is None


def test_more_is_free_when_the_period_ends_or_others_settle() -> None:
    recheck, run = timedelta(minutes=5), SharedBudget(Decimal(5), Per.RUN, dag_id="label", run_id="manual__1")

    def free_at(budget: SharedBudget, balance: Balance) -> datetime | None:
        allowance = allowance_of([(budget, balance)], "a", NOW, recheck)
        assert allowance is not None
        return allowance.free_at

    assert free_at(BUDGET, EMPTY) == period_at(Per.DAY, NOW).ends_at
    assert free_at(BUDGET, reserved(EMPTY, "s0001.1", 6, "b")) == NOW + recheck
    assert free_at(run, reserved(EMPTY, "s0001.1", 6, "b")) == NOW + recheck
    # its own batches are waited for anyway, and what is spent stays spent
    assert free_at(run, reserved(EMPTY, "s0001.1", 6, "a")) is None
    assert free_at(run, settled(reserved(EMPTY, "s0001.1", 6, "b"), "s0001.1", "6", "b")) is None


def test_the_description_names_the_budget_the_holders_and_the_next_period() -> None:
    balance = reserved(settled(reserved(EMPTY, "s0001.1", 6, "b" * 32), "s0001.1", "2", "b" * 32), "s0001.1", 3)
    assert describe(BUDGET, balance, datetime(2026, 11, 30, tzinfo=UTC)) == (
        "The budget of connection 'openai_default' ($10.00 per day) has $5.00 left: $2.00 is spent and $3.00 is "
        "reserved. Of this, job a (label.submit in run manual__1) holds $3.00, job bbbbbbbb (label.submit in run "
        "manual__1) holds $2.00. The next period starts at 2026-11-30 00:00 UTC."
    )


def allowance(usd: float, *, free_in: timedelta | None = timedelta(minutes=5)) -> Allowance:
    return Allowance(Decimal(str(usd)), None if free_in is None else NOW + free_in, "Other jobs hold $9.")


def test_a_job_waits_until_more_of_a_shared_budget_is_free() -> None:
    # the shard reserves $0.20
    assert next_steps(job(), {}, Policy(), NOW, allowance(0.2))[0]
    steps, pause = next_steps(job(), {}, Policy(), NOW, allowance(0.001))
    assert (steps, pause) == ([], Wait([], NOW + timedelta(minutes=5), any_end=False, withheld=("s0001",)))
    assert next_steps(job(), {}, Policy(), NOW, allowance(0.001, free_in=None)) == ([], Finish(("s0001",)))


def test_a_shard_is_divided_if_a_shared_budget_covers_a_part_of_it() -> None:
    (step,), _ = next_steps(job(), {}, Policy(), NOW, allowance(0.05))
    assert isinstance(step, Reseal)
    # a tenth of what is left, as long as no answer shows what requests cost
    assert step.first_part == 2
    # a single request costs $0.002
    (step,), _ = next_steps(job(), {}, Policy(), NOW, allowance(0.002))
    assert isinstance(step, Reseal)
    assert step.first_part == 1


def test_once_there_are_answers_at_most_twice_the_expected_cost_is_reserved() -> None:
    shards = [plain_shard(name, model="m", requests=100, tokens=100_000) for name in ("s0001", "s0002")]
    manifest = manifest_of(
        shards, prices={"m": {"input": 1, "output": 0}}, output_tokens_high={"m": 1_000.0}, output_caps={"m": 1_000}
    )
    assert BudgetTracker(fold(manifest, [])).shared_reservation(shards[1]) > 20
    answers: dict[str, Any] = {
        "answers": 2,
        "output_tokens": 20,
        "input_tokens": 4_000,
        "estimated_input_tokens": 2_000,
    }
    settled_canary = Settled("s0001", 1, "b1", "completed", NOW, outcomes={"succeeded": 2}, **answers)
    tracker = BudgetTracker(fold(manifest, [UPLOADED, INTENT, CREATED, settled_canary]))
    # the provider reported twice the input
    assert tracker.expected_cost(shards[1]) == Decimal("0.2")
    assert tracker.shared_reservation(shards[1]) == Decimal("0.4")
    assert tracker.requests_within(shards[1], Decimal("0.1")) == 25
    assert tracker.requests_within(shards[1], Decimal("0.01")) == 0


def test_a_canary_waits_for_a_shared_budget() -> None:
    (step,), _ = next_steps(job(lane=Lane.STANDARD), {}, Policy(), NOW, allowance(0.4))
    assert isinstance(step, SendSynchronously)
    _, pause = next_steps(job(lane=Lane.STANDARD), {}, Policy(), NOW, allowance(0.1))
    assert isinstance(pause, Wait)
    assert pause.withheld == ("s0001",)


# The setting of a connection


@pytest.mark.parametrize("value", [{"usd": 50, "per": "day"}, '{"usd": 50.0, "per": "day"}'])
def test_a_budget_is_an_amount_and_a_period(value: Any) -> None:
    budget = parse_connection_budget("extra", value, "openai_default")
    assert budget is not None
    assert str(budget) == "the budget of connection 'openai_default' ($50.00 per day)"


@pytest.mark.parametrize("value", [None, "", "  ", "null", {}])
def test_without_a_setting_there_is_no_budget(value: Any) -> None:
    assert parse_connection_budget("extra", value, "openai_default") is None


@pytest.mark.parametrize(
    "value",
    [
        50,
        "50 per day",
        [],
        {"usd": 50},
        {"per": "day"},
        {"usd": -1, "per": "day"},
        {"usd": True, "per": "day"},
        {"usd": float("nan"), "per": "day"},
        {"usd": float("inf"), "per": "day"},
        {"usd": "50", "per": "day"},
        {"usd": 50, "per": "run"},
        {"usd": 50, "per": "year"},
        {"usd": 50, "per": ["day"]},
        {"usd": 50, "per": "day", "reset": "monthly"},
    ],
)
def test_any_other_setting_is_an_error_that_names_its_source(value: Any) -> None:
    with pytest.raises(InputError, match=r"^extra: Expected an object such as .* got .*Nothing was sent\.$"):
        parse_connection_budget("extra", value, "openai_default")
