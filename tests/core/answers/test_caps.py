"""Raising the output cap of a request."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_batch.core.answers.caps import is_cut_off, raise_cap
from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.lifecycle.attempts import final_pass_policy, is_retryable, retryable_rows
from airflow_provider_batch.core.lifecycle.budget import BudgetTracker
from airflow_provider_batch.core.lifecycle.steps import Policy
from tests.core.building import NOW, manifest_of, plain_shard


def line(**body: Any) -> bytes:
    request = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", **body}}
    return json.dumps(request).encode() + b"\n"


@pytest.mark.parametrize("key", ["max_completion_tokens", "max_output_tokens", "max_tokens"])
def test_the_cap_is_doubled_and_nothing_else_changes(key: str) -> None:
    sealed_line = line(**{key: 50, "messages": [{"role": "user", "content": 'É \u2028 "x"'}], "temperature": 0.10})
    changed_line = raise_cap(sealed_line)
    assert changed_line is not None
    assert changed_line.endswith(b"\n")
    sealed, changed = json.loads(sealed_line), json.loads(changed_line)
    assert changed["body"].pop(key) == 2 * sealed["body"].pop(key)
    assert changed == sealed
    assert list(changed["body"]) == list(sealed["body"])


@pytest.mark.parametrize("cap", [None, 0, -1, "50", 1.5, True])
def test_a_request_without_a_valid_cap_is_not_changed(cap: Any) -> None:
    assert raise_cap(line(max_tokens=cap)) is None
    assert raise_cap(line()) is None


@pytest.mark.parametrize(
    ("answer", "cut_off"),
    [
        (Answer(Outcome.INCOMPLETE, error_code="length"), True),
        (Answer(Outcome.INCOMPLETE, error_code="max_output_tokens"), True),
        (Answer(Outcome.INCOMPLETE, error_code="empty"), False),
        (Answer(Outcome.INCOMPLETE, error_code="vectors"), False),
        (Answer(Outcome.REFUSED, error_code="content_filter"), False),
        (Answer(Outcome.SUCCEEDED), False),
    ],
)
def test_an_answer_cut_off_at_the_cap_is_retried_only_if_raise_cap_is_set(answer: Answer, cut_off: bool) -> None:
    assert is_cut_off(answer) is cut_off
    settled = Settled("s0001", 1, "b", "completed", NOW, outcomes={answer.outcome.value: 1}, cut_off=int(cut_off))
    raising, default = Policy(raise_cap=True), Policy()
    assert is_retryable(answer, settled, raising) is cut_off
    assert retryable_rows(settled, raising) == cut_off
    for policy in (default, final_pass_policy(raising)):
        assert not is_retryable(answer, settled, policy)
        assert retryable_rows(settled, policy) == 0


def test_the_budget_reserves_the_raised_cap() -> None:
    shard = plain_shard("s0001", requests=10)
    raised_shard = msgspec.structs.replace(shard, cap_factor=4)
    prices = {shard.model: {"input": 0, "output": 1_000_000}}
    manifest = manifest_of([shard], prices=prices, output_tokens_high={shard.model: 100.0})
    answered = Settled("s0001", 1, "b", "completed", NOW, answers=10, output_tokens=100, cost_usd="100")
    budget = BudgetTracker(fold(manifest, [answered]))
    assert budget.reservation(shard) < Decimal(10 * 100)
    assert budget.reservation(raised_shard) == Decimal(10 * 100 * 4)
