"""Rows of the results table, made from answers column by column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import repeat
from typing import Any, NamedTuple, TypeVar

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.landing.values import output_of
from airflow_provider_batch.core.ledger.job import Manifest, RowIndex
from airflow_provider_batch.core.pricing.prices import Usage
from airflow_provider_batch.core.sealing import carry

_Value = TypeVar("_Value")

_OUTCOMES = {outcome: outcome.value for outcome in Outcome}


class Source(NamedTuple):
    """Where the answer of a row comes from."""

    #: the requested model
    model: str | None
    attempt: int
    batch_id: str | None


class RowChunk(NamedTuple):
    """Some rows of the results table, by columns: every sequence has an element for each row."""

    rows: Sequence[RowIndex]
    answers: Sequence[Answer]
    sources: Sequence[Source]
    usages: Sequence[Usage]
    #: US dollars; None if unknown
    costs: Sequence[Decimal | None]
    #: the values of each of `columns`
    values: Sequence[Sequence[Any]]

    def take(self, positions: Sequence[int]) -> RowChunk:
        """Return the rows at these positions."""
        if positions == list(range(len(self.rows))):
            return self

        def pick(column: Sequence[_Value]) -> list[_Value]:
            return [column[position] for position in positions]

        rows, answers, sources, usages, costs, values = self
        return RowChunk(
            pick(rows), pick(answers), pick(sources), pick(usages), pick(costs), [pick(column) for column in values]
        )


class TableRows:
    """Makes rows of the results table. Their values are in the order of `columns.results_columns`."""

    def __init__(
        self, manifest: Manifest, key: Mapping[str, Any], run_id: str, landed_at: datetime, *, store_response: bool
    ) -> None:
        self._key = list(key.values())
        #: values of the last fixed columns, which are the same in every row
        self._constants = (manifest.job_uid, run_id, manifest.logical_date, manifest.sealed_at, landed_at)
        self._carry = manifest.carry
        self._has_several_inputs = manifest.several_inputs
        self._store_response = store_response

    def make(self, chunk: RowChunk) -> Iterable[tuple[Any, ...]]:
        """Return the rows of a chunk."""
        rows, answers, sources, usages, costs, values = chunk
        outputs = [output_of(answer) for answer in answers]
        if self._has_several_inputs:
            outputs = [
                [output] if row.inputs == 1 and output is not None else output
                for row, output in zip(rows, outputs, strict=True)
            ]
        columns = (
            *map(repeat, self._key),
            [row.custom_id for row in rows],
            [_OUTCOMES[answer.outcome] for answer in answers],
            outputs,
            [answer.finish_reason for answer in answers],
            [answer.error_code for answer in answers],
            [answer.error_message for answer in answers],
            [answer.model or source.model for answer, source in zip(answers, sources, strict=True)],
            [usage.input_tokens for usage in usages],
            [usage.cached_tokens for usage in usages],
            [usage.reasoning_tokens for usage in usages],
            [usage.output_tokens for usage in usages],
            costs,
            [source.attempt for source in sources],
            [row.sha256 for row in rows],
            [source.batch_id for source in sources],
            *map(repeat, self._constants),
            *(
                carry.all_from_json([row.carry[index] for row in rows], column)
                for index, column in enumerate(self._carry)
            ),
            *values,
            *([[answer.body for answer in answers]] if self._store_response else []),
        )
        return zip(*columns, strict=False)  # the repeated values never end
