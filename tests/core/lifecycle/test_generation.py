"""Whether a task that runs again continues, compares or starts over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.job import Estimate
from airflow_provider_batch.core.ledger.records import (
    CanaryVerdict,
    Record,
    ResubmitRequested,
    Submitted,
    Task,
    TaskStarted,
)
from airflow_provider_batch.core.lifecycle.generation import RULES, Action, Decision, Start, choose_generation
from tests.core.building import NOW, manifest_of, plain_shard

#: max_tries of a task with two retries: as it was first scheduled, and after a clear
FIRST, CLEARED = 2, 5

STARTED = TaskStarted(Task.SUBMIT, FIRST, NOW)
SUBMITTED = Submitted(NOW + timedelta(minutes=5))
STOPPED_BY_CANARY = CanaryVerdict(Estimate(), NOW, void="the model does not exist")
RESUBMIT_REQUESTED = ResubmitRequested(NOW + timedelta(hours=1))
WAIT_STARTED = TaskStarted(Task.WAIT, CLEARED, NOW)


@pytest.mark.parametrize(
    ("records", "clear_epoch", "resubmit", "action"),
    [
        pytest.param([], FIRST, False, Action.CONTINUE, id="a worker died between the seal and its record"),
        pytest.param([STARTED], FIRST, False, Action.CONTINUE, id="a retry"),
        pytest.param([STARTED], FIRST, True, Action.CONTINUE, id="a retry never sends every row again"),
        pytest.param([STARTED, WAIT_STARTED], FIRST, False, Action.CONTINUE, id="a clear of the wait alone"),
        pytest.param([STARTED], CLEARED, False, Action.COMPARE, id="a clear before submit returned"),
        pytest.param([STARTED, SUBMITTED], CLEARED, False, Action.COMPARE, id="a clear after submit returned"),
        pytest.param([STARTED, SUBMITTED], FIRST, False, Action.COMPARE, id="a clear that left max_tries as it was"),
        pytest.param([STARTED, SUBMITTED], CLEARED, True, Action.START_OVER, id="a clear with resubmit"),
        pytest.param(
            [STARTED, SUBMITTED, RESUBMIT_REQUESTED],
            CLEARED,
            False,
            Action.START_OVER,
            id="jobs resubmit, then a clear",
        ),
        pytest.param([STARTED, RESUBMIT_REQUESTED], FIRST, False, Action.START_OVER, id="jobs resubmit, then a retry"),
        pytest.param(
            [STARTED, STOPPED_BY_CANARY], FIRST, False, Action.COMPARE_WITH_VALID, id="a retry after the canary"
        ),
        pytest.param(
            [STARTED, STOPPED_BY_CANARY], CLEARED, False, Action.COMPARE_WITH_VALID, id="a clear after the canary"
        ),
        pytest.param(
            [STARTED, STOPPED_BY_CANARY], CLEARED, True, Action.START_OVER, id="a clear with resubmit after the canary"
        ),
        pytest.param(
            [STARTED, CanaryVerdict(Estimate(), NOW)], FIRST, False, Action.CONTINUE, id="a canary that passed"
        ),
    ],
)
def test_the_action_of_a_start_of_submit(
    records: list[Record], clear_epoch: int, resubmit: bool, action: Action
) -> None:
    state = fold(manifest_of([plain_shard("s0001")]), records)
    decision = choose_generation(state, clear_epoch, resubmit=resubmit)
    assert decision.action is action
    assert decision.generation == (1 if action is Action.CONTINUE else 2)


@pytest.mark.parametrize("resubmit", [True, False])
def test_the_first_start_seals_the_first_generation(resubmit: bool) -> None:
    assert choose_generation(None, FIRST, resubmit=resubmit) == Decision(Action.SEAL, 1, reuse=not resubmit)


@pytest.mark.parametrize(
    ("records", "resubmit", "reuse"),
    [
        ([STARTED, SUBMITTED], False, True),
        ([STARTED, SUBMITTED], True, False),
        ([STARTED, RESUBMIT_REQUESTED], False, False),
    ],
)
def test_earlier_answers_are_reused_unless_every_row_is_sent_again(
    records: list[Record], resubmit: bool, reuse: bool
) -> None:
    state = fold(manifest_of([plain_shard("s0001")]), records)
    assert choose_generation(state, CLEARED, resubmit=resubmit).reuse is reuse


def test_every_rule_decides_some_start() -> None:
    """A rule that no start reaches is dead code."""
    histories: list[list[Record]] = [
        [STARTED],
        [STARTED, SUBMITTED],
        [STARTED, STOPPED_BY_CANARY],
        [STARTED, RESUBMIT_REQUESTED],
    ]
    starts = [
        Start(fold(manifest_of([plain_shard("s0001")]), records), epoch, resubmit)
        for records in histories
        for epoch in (FIRST, CLEARED)
        for resubmit in (True, False)
    ]
    deciding_rules = {next(rule.condition_text for rule in RULES if rule.condition(start)) for start in starts}
    assert deciding_rules == {rule.condition_text for rule in RULES}
