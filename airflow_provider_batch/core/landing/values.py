"""The values of answers as a results table can store them. A value that does not fit costs its row, never another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome
from airflow_provider_batch.core.landing.columns import output_type
from airflow_provider_batch.core.landing.storage_limits import (
    LIMITED_NAMES,
    StorageLimits,
    fit_names,
    storage_problems,
    without_values,
)
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.paths import Path, column_type, describe, extractor


def output_of(answer: Answer) -> Any:
    """Return the value of the column `output`."""
    return answer.text if answer.text is not None else answer.value


class AnswerValues:
    """Reads the values of `columns` from answers, and leaves out what the table cannot store."""

    def __init__(
        self, manifest: Manifest, columns: Mapping[str, Path], limits: StorageLimits, *, store_response: bool
    ) -> None:
        schema = manifest.author_schema or {}
        self._paths = [
            (describe(path), column_type(schema, path), extractor(schema, path)) for path in columns.values()
        ]
        self._limits = limits
        self._store_response = store_response
        # the vectors of several inputs are JSON, but they were checked when they were read
        is_vector = manifest.endpoint.endswith("/embeddings")
        #: names and types of what an answer stores: the output, the values of `columns`, the response
        self._names = ["output", *columns]
        self._types = [ColumnType.VECTOR if is_vector else output_type(manifest), *(kind for _, kind, _ in self._paths)]
        if store_response:
            self._names.append("response")
            self._types.append(ColumnType.JSON)
        self._checks_every_row = ColumnType.JSON in self._types or not limits.columns.keys().isdisjoint(self._names)
        self._fits_names = not limits.columns.keys().isdisjoint(LIMITED_NAMES)

    def read(self, answers: Sequence[Answer]) -> tuple[list[Answer], list[list[Any]]]:
        """Return the answers as the table can store them, and the values of each of `columns`."""
        answers, values = self._extract(answers)
        stored = [[output_of(answer) for answer in answers], *values]
        if self._store_response:
            stored.append([answer.body for answer in answers])
        if self._may_not_fit(stored):
            for index, row in enumerate(zip(*stored, strict=True)):
                problems = storage_problems(zip(self._names, self._types, row, strict=True), self._limits)
                if problems:
                    answers[index] = without_values(answers[index], problems)
                    for name, column in zip(self._names[1:], values, strict=False):
                        column[index] = None if name in problems else column[index]
        if self._fits_names:
            answers = [fit_names(answer, self._limits) for answer in answers]
        return answers, values

    def none(self, count: int) -> list[list[Any]]:
        """Return the values of each of `columns` for rows without an answer."""
        return [[None] * count for _ in self._paths]

    def _may_not_fit(self, stored: Sequence[Sequence[Any]]) -> bool:
        """Return whether a value may exceed a limit. Texts have none of their own if all of them fit into one row."""
        if self._checks_every_row or self._limits.row_bytes is None:
            return self._checks_every_row
        texts = (column for column, type_ in zip(stored, self._types, strict=True) if type_ is ColumnType.TEXT)
        return 4 * sum(sum(map(len, filter(None, column))) for column in texts) > self._limits.row_bytes

    def _extract(self, answers: Sequence[Answer]) -> tuple[list[Answer], list[list[Any]]]:
        """Return the values of each of `columns`, None for answers that did not succeed.

        An answer with a value that does not fit its type becomes an invalid output.
        """
        documents = [answer.value if answer.outcome is Outcome.SUCCEEDED else None for answer in answers]
        try:
            return list(answers), [list(map(extract, documents)) for _, _, extract in self._paths]
        except ValueError:
            return self._extract([self._check_types(answer) for answer in answers])

    def _check_types(self, answer: Answer) -> Answer:
        """Return the answer, as an invalid output if one of its values does not fit its type."""
        if answer.outcome is not Outcome.SUCCEEDED:
            return answer
        for path, kind, extract in self._paths:
            try:
                extract(answer.value)
            except ValueError as error:
                return msgspec.structs.replace(
                    answer,
                    outcome=Outcome.INVALID_OUTPUT,
                    error_code="column_type",
                    error_message=f"{path} is not of type {kind.value}: {error}",
                )
        return answer
