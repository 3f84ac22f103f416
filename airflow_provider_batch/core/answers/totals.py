"""The totals of a settled submission: its rows by outcome, their tokens and their cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from math import log

import msgspec

from airflow_provider_batch.core.answers.caps import is_cut_off
from airflow_provider_batch.core.answers.outcome import FLEX_UNAVAILABLE, Answer, Outcome
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.pricing.prices import Prices


def with_totals(
    settled: Settled, shard: Shard, rows: list[RowIndex], answers: Iterable[tuple[int, Answer]], prices: Prices
) -> Settled:
    """Return the record with the outcomes, tokens and cost of the answers.

    :param rows: index of the shard.
    :param answers: one answer per row, with the row's line in the input file (from 0).
    """
    outcomes: Counter[Outcome] = Counter()
    transient = cut_off = flex_refused = with_output = output_tokens = 0
    with_input = input_tokens = estimated_input_tokens = 0
    output_squares = output_logs = input_squares = 0.0
    cost: Decimal | None = Decimal(0)
    for line, answer in answers:
        outcomes[answer.outcome] += 1
        transient += answer.outcome is Outcome.FAILED and answer.transient
        cut_off += is_cut_off(answer)
        flex_refused += answer.error_code == FLEX_UNAVAILABLE
        usage = answer.usage
        if usage.is_zero:
            continue
        if usage.output_tokens is not None:
            with_output += 1
            output_tokens += usage.output_tokens
            output_squares += usage.output_tokens**2
            output_logs += log(max(usage.output_tokens, 1))
        if usage.input_tokens:
            with_input += 1
            input_tokens += usage.input_tokens
            estimated_input_tokens += rows[line].tokens
            input_squares += usage.input_tokens**2 / max(rows[line].tokens, 1)
        lane = shard.lane.of_answer(answer.service_tier)
        price = prices.cost(shard.model, usage, answered_by=answer.model, lane=lane)
        cost = None if cost is None or price is None else cost + price
    return msgspec.structs.replace(
        settled,
        outcomes={outcome.value: outcomes[outcome] for outcome in Outcome if outcomes[outcome]},
        transient=transient,
        cut_off=cut_off,
        flex_refused=flex_refused,
        answers=with_output,
        output_tokens=output_tokens,
        output_squares=output_squares,
        output_logs=output_logs,
        input_tokens=input_tokens,
        estimated_input_tokens=estimated_input_tokens,
        input_answers=with_input,
        input_squares=input_squares,
        cost_usd=None if cost is None else str(cost),
    )
