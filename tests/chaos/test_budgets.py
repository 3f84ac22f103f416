"""Jobs that share a budget never spend more than its limit, whenever their workers are killed, stopped or doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.chaos.budgets import STEPS, BudgetChaos, BudgetCount, BudgetRound

ROUNDS = [BudgetRound.draw(number) for number in range(len(STEPS))]


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BudgetChaos]:
    with BudgetChaos(tmp_path_factory.mktemp("budget-chaos")) as chaos:
        yield chaos


@pytest.fixture(scope="module")
def total() -> BudgetCount:
    return BudgetCount()


@pytest.mark.parametrize("round_", ROUNDS, ids=[f"{round_.number}: {round_.workers[0].label}" for round_ in ROUNDS])
def test_two_jobs_under_one_budget_never_exceed_it_if_a_worker_dies_at_any_step(
    chaos: BudgetChaos, total: BudgetCount, round_: BudgetRound
) -> None:
    count = chaos.play(round_)
    total.add(count)

    assert not count.violations, str(round_)


def test_money_was_spent_and_withheld_in_these_rounds(
    total: BudgetCount, record_property: Callable[[str, object], None]
) -> None:
    record_property("measurements", f"chaos: {total.summary()}")

    assert total.rounds == len(ROUNDS)
    assert total.answered
    assert total.withheld
    assert total.kills
