"""Answers in staging -> rows of the results table.

The tries of a job are read from the newest attempt to the oldest. A row is given again only if an older answer is
better than what was given for it before; so the last row given for a custom_id is its best answer, and a writer that
lets the last one win needs no memory. What is kept is one byte per row of the job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_batch.exceptions import SchemaError
from airflow_provider_batch.jobs import carry
from airflow_provider_batch.jobs.answers import read_answers, read_rows
from airflow_provider_batch.jobs.columns import Column, ColumnType
from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import Manifest, RowIndex, Shard
from airflow_provider_batch.jobs.ledger import JobState, Reason, Try
from airflow_provider_batch.jobs.outcome import PENDING, Answer, Outcome
from airflow_provider_batch.jobs.price import Prices
from airflow_provider_batch.jobs.schema import SchemaJudge, column_type, convert, value_at

#: the columns of every results table after its key, in order; `output` gets its type from the endpoint
FIXED = (
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT),
    Column("finish_reason", ColumnType.TEXT),
    Column("error_code", ColumnType.TEXT),
    Column("error_message", ColumnType.TEXT),
    Column("model", ColumnType.TEXT),
    Column("input_tokens", ColumnType.INTEGER),
    Column("cached_tokens", ColumnType.INTEGER),
    Column("reasoning_tokens", ColumnType.INTEGER),
    Column("output_tokens", ColumnType.INTEGER),
    Column("cost_usd", ColumnType.NUMERIC),
    Column("attempt", ColumnType.INTEGER),
    Column("request_sha256", ColumnType.TEXT),
    Column("batch_id", ColumnType.TEXT),
    Column("job_uid", ColumnType.TEXT),
    Column("run_id", ColumnType.TEXT),
    Column("logical_date", ColumnType.TIMESTAMP),
    Column("sealed_at", ColumnType.TIMESTAMP),
    Column("landed_at", ColumnType.TIMESTAMP),
)


def results_columns(
    manifest: Manifest,
    *,
    key: Mapping[str, Any],
    columns: Mapping[str, str],
    history: bool = False,
    store_response: bool = False,
) -> list[Column]:
    """The columns a landing writes, in the order of its rows.

    :param key: extra key columns with the value every row of this landing gets.
    :param columns: column <- path in the structured output; types come from the schema.
    :param history: keep the answers of every job: `job_uid` joins the key.
    :raises SchemaError: for a column given twice, a path the schema does not have, `columns` without a schema, or a key
        value that no column type stands for.
    """
    if columns and manifest.output_schema is None:
        raise SchemaError(
            f"columns= names {', '.join(columns)}, but the job has no output_schema to take them from. "
            "Give BatchSubmitOperator an output_schema, or leave columns= out."
        )
    found = [_key_column(name, value) for name, value in key.items()]
    found.append(Column("custom_id", ColumnType.TEXT, key=True))
    for column in FIXED:
        if column.name == "output":
            column = Column("output", _output_type(manifest))
        elif column.name == "job_uid" and history:
            column = Column("job_uid", ColumnType.TEXT, key=True)
        found.append(column)
    found.extend(manifest.carry)
    found.extend(Column(name, column_type(manifest.output_schema or {}, path)) for name, path in columns.items())
    if store_response:
        found.append(Column("response", ColumnType.JSON))
    names = Counter(column.name.lower() for column in found)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise SchemaError(
            f"The results table would have column {twice[0]!r} twice: key=, carry=, columns= and the table's own "
            "columns share one set of names. Rename it (in the SQL with AS for a carried column)."
        )
    return found


def _key_column(name: str, value: Any) -> Column:
    try:
        return Column(name, carry.type_of(value), key=True)
    except TypeError as error:
        raise SchemaError(
            f"key= gives column {name!r} {value!r}, and a {error} names no row. Give text, a number or a date."
        ) from None


def _told(answer: Answer) -> str:
    """What may be told of a failed row in logs and accounts: the provider's words, never the model's."""
    if answer.outcome in (Outcome.REFUSED, Outcome.INVALID_OUTPUT):
        return "what the model said is in the row's error_message and output"
    return (answer.error_message or "")[:200]


def _output_type(manifest: Manifest) -> ColumnType:
    if manifest.endpoint.endswith("/embeddings"):
        return ColumnType.JSON if manifest.several_inputs else ColumnType.VECTOR
    return ColumnType.JSON if manifest.endpoint.endswith("/moderations") else ColumnType.TEXT


class Landing:
    """One landing of a job: an iterator of rows, and afterwards the account of what was landed."""

    def __init__(
        self,
        folder: Folder,
        state: JobState,
        *,
        key: Mapping[str, Any],
        columns: Mapping[str, str],
        store_response: bool,
        run_id: str,
        landed_at: datetime,
    ) -> None:
        manifest = state.manifest
        self._folder, self._state, self._manifest = folder, state, manifest
        self._key = tuple(key.values())
        self._store_response, self._run_id, self._landed_at = store_response, run_id, landed_at
        schema = manifest.output_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        self._paths = [(path, column_type(schema, path)) for path in columns.values()] if schema is not None else []
        self._prices = Prices(manifest.prices)
        self._best = {shard.name: bytearray(shard.requests) for shard in manifest.shards}
        self._reasons: Counter[tuple[Outcome, str, str]] = Counter()
        self.tokens: Counter[str] = Counter()
        #: US dollars for every answer collected, replaced ones included; None as soon as one price is unknown
        self.cost: Decimal | None = Decimal(0)
        #: what the same answers cost without batch
        self.standard_cost: Decimal | None = Decimal(0)
        self.asked_again = 0

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for shard, tried, settled in reversed(self._state.settled()):
            rows = read_rows(self._folder, shard.shard)
            if shard.shard.attempt > 1:
                self.asked_again += len(rows)
            for line, answer in read_answers(
                self._folder, shard.shard, settled, rows, self._manifest.endpoint, self._judge
            ):
                answer, values = self._columns(answer)
                cost = self._account(shard.shard, answer)
                if self._better(shard.shard, rows[line], line, answer.outcome):
                    if answer.error_code:
                        self._reasons[(answer.outcome, answer.error_code, _told(answer))] += 1
                    yield self._row(shard.shard, tried, rows[line], answer, values, cost)
        for sealed in self._manifest.shards:
            best = self._best[sealed.name]
            if 0 in best:
                batch = self._state.shards[sealed.name].last
                for line, row in enumerate(read_rows(self._folder, sealed)):
                    if not best[line]:
                        best[line] = Outcome.PENDING.rank
                        yield self._row(sealed, batch, row, PENDING, [None] * len(self._paths), None)

    @property
    def outcomes(self) -> dict[str, int]:
        """Rows by outcome, best first; they add up to the job's requests once every row was given."""
        counts = Counter(rank for ranks in self._best.values() for rank in ranks)
        return {outcome.value: counts[outcome.rank] for outcome in Outcome if counts[outcome.rank]}

    def most_common_reasons(self, count: int) -> list[Reason]:
        """Why rows did not succeed: outcome, code and the first 200 characters of the message, the commonest first."""
        return [
            Reason(outcome.value, code, said, rows) for (outcome, code, said), rows in self._reasons.most_common(count)
        ]

    def _better(self, shard: Shard, row: RowIndex, line: int, outcome: Outcome) -> bool:
        ranks, place = (self._best[row.origin], row.line) if row.origin else (self._best[shard.name], line)
        if outcome.rank <= ranks[place]:
            return False
        ranks[place] = outcome.rank
        return True

    def _columns(self, answer: Answer) -> tuple[Answer, list[Any]]:
        """The caller's columns; an answer whose value does not fit its column's type is an invalid output."""
        if answer.outcome is not Outcome.SUCCEEDED or not self._paths:
            return answer, [None] * len(self._paths)
        values = []
        for path, kind in self._paths:
            try:
                values.append(convert(value_at(answer.value, path), kind))
            except ValueError as error:
                bad = msgspec.structs.replace(
                    answer,
                    outcome=Outcome.INVALID_OUTPUT,
                    error_code="column_type",
                    error_message=f"{path} is no {kind.value}: {error}",
                )
                return bad, [None] * len(self._paths)
        return answer, values

    def _account(self, shard: Shard, answer: Answer) -> Decimal | None:
        usage = answer.usage
        self.tokens["input"] += usage.input_tokens
        self.tokens["cached"] += usage.cached_tokens
        self.tokens["reasoning"] += usage.reasoning_tokens
        self.tokens["output"] += usage.output_tokens
        if not (usage.input_tokens or usage.output_tokens):
            return Decimal(0)
        cost = self._prices.cost(shard.model, usage, answered_by=answer.model)
        standard = self._prices.standard_cost(shard.model, usage, answered_by=answer.model)
        self.cost = None if self.cost is None or cost is None else self.cost + cost
        self.standard_cost = None if self.standard_cost is None or standard is None else self.standard_cost + standard
        return cost

    def _row(
        self,
        shard: Shard,
        tried: Try | None,
        row: RowIndex,
        answer: Answer,
        values: Sequence[Any],
        cost: Decimal | None,
    ) -> tuple[Any, ...]:
        manifest, usage = self._manifest, answer.usage
        carried = [carry.read(v, c) for v, c in zip(row.carry, manifest.carry, strict=True)]
        settled = answer.outcome is not Outcome.PENDING
        output = answer.text if answer.text is not None else answer.value
        if manifest.several_inputs and row.inputs == 1 and output is not None:
            output = [output]
        fixed = (
            answer.outcome.value,
            output,
            answer.finish_reason,
            answer.error_code,
            answer.error_message,
            answer.model or shard.model,
            usage.input_tokens if settled else None,
            usage.cached_tokens if settled else None,
            usage.reasoning_tokens if settled else None,
            usage.output_tokens if settled else None,
            cost,
            shard.attempt if settled else 0,
            row.sha256,
            tried.batch_id or None if tried else None,
            manifest.job_uid,
            self._run_id,
            manifest.logical_date,
            manifest.sealed_at,
            self._landed_at,
        )
        response = (answer.body,) if self._store_response else ()
        return (*self._key, row.custom_id, *fixed, *carried, *values, *response)
