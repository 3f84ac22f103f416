"""Turns the answers in staging into rows of the results table.

`Landing` is an iterator of rows. It may yield several rows with the same custom_id; the last of them has the best
answer. A writer that lets the last row win therefore ends up with the right table, and no answers are held in memory.
The rows come in this order:

1. The answers of settled submissions, from the newest attempt to the oldest. An older answer is yielded only if it is
   better than the newer ones (`Outcome.rank`). `_best_ranks` holds one byte for each row: the rank of its best answer
   so far. A retried row counts where it was first sealed (`RowIndex.origin` and `line`), so that all its attempts are
   compared with each other.
2. Answers reused from earlier jobs.
3. Rows that could not be sent, because a file that they name is missing or cannot be used.
4. Rows without any answer: `withheld` if the budget held them back, else `pending`. Their tokens and cost are NULL.

The tokens and the cost of a row cover all its attempts (`row_spending`). Each answer is also yielded for the duplicates
of its row. Neither a duplicate nor a reused answer costs anything, so tokens, cost and attempt of these rows are 0.
Sums over the table are therefore what was paid.

After a clear, a row may have disappeared from the query while a duplicate still needs its answer. Such a row has
`RowIndex.lands` False: its answers are compared like those of other rows, but it is not yielded itself.

Iterate once and to the end. After that, `outcomes`, `tokens`, `cost` and the other attributes hold the totals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import PENDING, Answer, Outcome, withheld_by
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.landing.refusals import RefusalGroup
from airflow_provider_batch.core.landing.row_spending import (
    RowSpending,
    Spending,
    has_unusable_paid_answers,
    superseded_submissions,
)
from airflow_provider_batch.core.landing.storage_limits import (
    STORAGE,
    StorageLimits,
    StoredValue,
    fit_names,
    storage_problems,
    storage_reasons,
    without_values,
)
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, ReusedFile, RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Reason, Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission
from airflow_provider_batch.core.lifecycle.collection import held_batches
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Prices, Usage
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.paths import Path, column_type, describe, extractor
from airflow_provider_batch.core.sealing import carry
from airflow_provider_batch.core.sealing.deduplicate import FILE_ROWS, DuplicateReader
from airflow_provider_batch.core.sealing.invalid_rows import read_invalid_rows
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers, to_answer
from airflow_provider_batch.exceptions import SchemaError

#: the columns of every results table after its key, in order; `output` gets its type from the endpoint
FIXED_COLUMNS = (
    Column("outcome", ColumnType.TEXT),
    Column("output", ColumnType.TEXT, may_be_null=True),
    Column("finish_reason", ColumnType.TEXT, may_be_null=True),
    Column("error_code", ColumnType.TEXT, may_be_null=True),
    Column("error_message", ColumnType.TEXT, may_be_null=True),
    Column("model", ColumnType.TEXT),
    Column("input_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("cached_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("reasoning_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("output_tokens", ColumnType.INTEGER, may_be_null=True),
    Column("cost_usd", ColumnType.NUMERIC, may_be_null=True),
    Column("attempt", ColumnType.INTEGER),
    Column("request_sha256", ColumnType.TEXT),
    Column("batch_id", ColumnType.TEXT, may_be_null=True),
    Column("job_uid", ColumnType.TEXT),
    Column("run_id", ColumnType.TEXT),
    Column("logical_date", ColumnType.TIMESTAMP, may_be_null=True),
    Column("sealed_at", ColumnType.TIMESTAMP),
    Column("landed_at", ColumnType.TIMESTAMP),
)


_FREE = Spending(Usage(), Decimal(0))
_UNKNOWN = Spending(UNKNOWN_USAGE, None)
#: ranks of rows without an answer
_UNANSWERED_RANKS = frozenset({0, Outcome.WITHHELD.rank})


class _Source(NamedTuple):
    """Where the answer of a row comes from."""

    #: the requested model
    model: str | None
    attempt: int
    batch_id: str | None


def _add_costs(total: Decimal | None, cost: Decimal | None) -> Decimal | None:
    """Return the sum in US dollars, or None (unknown) if one of them is unknown."""
    return None if total is None or cost is None else total + cost


def _group_by_request(duplicates: Iterable[RowIndex]) -> Iterator[dict[str, list[RowIndex]]]:
    """Yield the duplicates by request hash, in groups that are small enough to hold in memory."""
    duplicates = iter(duplicates)
    while portion := list(islice(duplicates, FILE_ROWS)):
        group: dict[str, list[RowIndex]] = {}
        for row in portion:
            group.setdefault(row.sha256, []).append(row)
        yield group


def results_columns(
    manifest: Manifest,
    *,
    key: Mapping[str, Any],
    columns: Mapping[str, Path],
    history: bool = False,
    store_response: bool = False,
) -> list[Column]:
    """Return the columns that a landing writes, in the order of the values in its rows.

    :param key: extra key columns, with the value that every row of this landing gets.
    :param columns: path in the structured output, by column name; the types come from the schema.
    :param history: whether the table keeps the answers of every job, so that `job_uid` is part of the key.
    :param store_response: whether to add a `response` column with the body of each answer.
    :raises SchemaError: if two columns have the same name, the schema has no such path, there are `columns` but no
        schema, or no column type can hold a key value.
    """
    if columns and manifest.author_schema is None:
        raise no_schema_error(columns)
    result_columns = [_key_column(name, value) for name, value in key.items()]
    result_columns.append(Column("custom_id", ColumnType.TEXT, key=True))
    for column in FIXED_COLUMNS:
        if column.name == "output":
            column = Column("output", _output_type(manifest), may_be_null=True, elements=manifest.dimensions)
        elif column.name == "job_uid" and history:
            column = Column("job_uid", ColumnType.TEXT, key=True)
        result_columns.append(column)
    result_columns.extend(manifest.carry)
    result_columns.extend(
        Column(name, column_type(manifest.author_schema or {}, path), may_be_null=True)
        for name, path in columns.items()
    )
    if store_response:
        result_columns.append(Column("response", ColumnType.JSON, may_be_null=True))
    check_names(column.name for column in result_columns)
    return result_columns


def check_names(names: Iterable[str]) -> None:
    """Raise SchemaError if two columns of a results table have the same name. Case does not count."""
    counts = Counter(name.lower() for name in names)
    repeated_names = [name for name, count in counts.items() if count > 1]
    if repeated_names:
        raise SchemaError(
            f"The results table would have two columns named {repeated_names[0]!r}: key=, carry=, columns= and the "
            "table's own columns must all have different names. Rename one of them (a carried column with AS in the "
            f'SQL, a field with columns={{"another_name": "{repeated_names[0]}"}}).'
        )


def no_schema_error(columns: Iterable[str]) -> SchemaError:
    """Return the error for columns that answers without a schema cannot fill."""
    return SchemaError(
        f"columns= names {', '.join(columns)}, but the job has no output_schema, so its answers have no fields. Pass "
        "an output_schema to BatchSubmitOperator, or remove columns=."
    )


def _key_column(name: str, value: Any) -> Column:
    try:
        return Column(name, carry.type_of(value), key=True)
    except TypeError as error:
        raise SchemaError(
            f"key= sets column {name!r} to {value!r}, but a value of type {error} cannot be part of a key. Use text, a "
            "number or a date."
        ) from None


def _loggable_message(answer: Answer) -> str:
    """Return what logs and job summaries may say about a failed row: the provider's words, never the model's."""
    if answer.outcome in (Outcome.REFUSED, Outcome.INVALID_OUTPUT) and answer.error_code != STORAGE:
        return "the model's words are in the row's error_message and output"
    return (answer.error_message or "")[:200]


def _output_type(manifest: Manifest) -> ColumnType:
    if manifest.endpoint.endswith("/embeddings"):
        return ColumnType.JSON if manifest.several_inputs else ColumnType.VECTOR
    return ColumnType.JSON if manifest.endpoint.endswith("/moderations") else ColumnType.TEXT


def _output(answer: Answer) -> Any:
    return answer.text if answer.text is not None else answer.value


class Landing:
    """One landing of a job: an iterator of rows that also adds up their totals."""

    def __init__(
        self,
        folder: Folder,
        state: JobState,
        *,
        key: Mapping[str, Any],
        columns: Mapping[str, Path],
        store_response: bool,
        run_id: str,
        landed_at: datetime,
        limits: StorageLimits | None = None,
    ) -> None:
        """:param limits: what the table can store; by default, what any table can."""
        manifest = state.manifest
        self._folder, self._state, self._manifest = folder, state, manifest
        self._key = tuple(key.values())
        self._store_response = store_response
        #: values of the last fixed columns, which are the same in every row
        self._constants = (manifest.job_uid, run_id, manifest.logical_date, manifest.sealed_at, landed_at)
        schema = manifest.author_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        self._paths = [
            (describe(path), column_type(schema or {}, path), extractor(schema or {}, path))
            for path in columns.values()
        ]
        self._limits = limits or StorageLimits()
        #: columns of the extracted values
        self._extracted = [(name, kind) for name, (_, kind, _) in zip(columns, self._paths, strict=True)]
        output_type = _output_type(manifest)
        # the vectors of several inputs are JSON, but they were checked when they were read
        self._output_type = ColumnType.VECTOR if manifest.endpoint.endswith("/embeddings") else output_type
        self._prices = Prices(manifest.prices, manifest.price_list)
        #: by shard: the rank of the best answer to each of its rows so far, 0 for none
        self._best_ranks = {shard.name: bytearray(shard.requests) for shard in manifest.shards}
        #: by shard: the answer of its rows while its batch is held for a person
        self._pending_answers = {
            shard.name: msgspec.structs.replace(
                PENDING, error_code="held", error_message=f"{failure.message} The batch is held for a person."
            )
            for shard, failure in held_batches(state)
        }
        self._duplicates = DuplicateReader(folder, manifest.duplicate_files)
        #: number of duplicates by the rank of the last row yielded for them
        self._duplicate_ranks: Counter[int] = Counter()
        #: number of rows by rank that do not land themselves, although their answer may be needed
        self._omitted_ranks: Counter[int] = Counter()
        self._reasons: Counter[tuple[Outcome, str, str]] = Counter()
        #: by error code: the message of the first row that could not be sent
        self._invalid_messages: dict[str, str] = {}
        self._spending = RowSpending()
        self._superseded = superseded_submissions(state)
        #: rows with a value that the table cannot store, by reason
        self.misfits: dict[str, RefusalGroup] = {}
        self.tokens: Counter[str] = Counter()
        #: number of requests whose cost is unknown, because the answer does not report its usage or never arrived
        self.without_usage = 0
        #: number of collected answers that used tokens, by lane
        self.lanes: Counter[str] = Counter()
        #: US dollars for every collected answer, including those replaced by a better one; None if a price or a usage
        #: is unknown
        self.cost: Decimal | None = Decimal(0)
        #: the same if cached input has every discount that it may have
        self.lowest_cost: Decimal | None = Decimal(0)
        #: US dollars that the same answers would cost at standard prices; None if a price or a usage is unknown
        self.standard_cost: Decimal | None = Decimal(0)
        #: number of requests in attempts after the first
        self.retried = 0
        #: US dollars for their answers; None if a price or a usage is unknown
        self.retried_cost: Decimal | None = Decimal(0)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._add_earlier_attempts()
        for shard, submission, settled in reversed(self._state.settled_submissions()):
            yield from self._settled_rows(shard, submission, settled)
        for reused_file in self._manifest.reused_files:
            yield from self._reused_rows(reused_file)
        yield from self._invalid_rows()
        for withheld_shard in self._state.withheld_shards:
            for line, row in enumerate(read_rows(self._folder, withheld_shard.spec)):
                self._update_best_rank(withheld_shard.spec, row, line, Outcome.WITHHELD)
        for sealed_shard in self._manifest.shards:
            if any(rank in self._best_ranks[sealed_shard.name] for rank in _UNANSWERED_RANKS):
                yield from self._unanswered_rows(sealed_shard)

    @property
    def deadline(self) -> datetime | None:
        """The deadline of the wait; None if no wait has started."""
        return self._state.deadline

    @property
    def answered_at(self) -> datetime | None:
        """When the last answers were collected; None if there are none."""
        times = [settled.time for _, _, settled in self._state.settled_submissions() if settled.answers]
        return max(times, default=None)

    def _add_earlier_attempts(self) -> None:
        """Read what was paid for answers after which their rows were sent again."""
        for shard, _, settled in self._state.settled_submissions():
            if self._is_read_first(shard.spec, settled):
                rows = read_rows(self._folder, shard.spec)
                for line, answer in self._answers(shard.spec, settled, rows):
                    if answer.outcome is not Outcome.SUCCEEDED and not answer.usage.is_zero:
                        spending = Spending(answer.usage, self._cost(shard.spec, answer))
                        self._spending.add(shard.spec, rows[line], line, spending)

    def _settled_rows(self, state: ShardState, submission: Submission, settled: Settled) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a submission that have no better answer yet, each followed by its duplicates.

        The duplicates are held one group at a time. For each further group the answers are read again.
        """
        shard = state.spec
        rows = read_rows(self._folder, shard)
        if shard.attempt > 1:
            self.retried += len(rows)
        groups = self._duplicate_groups(rows, shard.name)
        group = next(groups, {})
        source = _Source(shard.model, shard.attempt, submission.batch_id or None)
        #: by line of the rows whose answer is the best so far: the rank of the best answer before it
        earlier_ranks: dict[int, int] = {}
        for line, answer in self._answers(shard, settled, rows):
            answer, values = self._read_values(answer)
            spending = Spending(answer.usage, self._add_to_totals(shard, answer))
            if shard.attempt > 1:
                self.retried_cost = _add_costs(self.retried_cost, spending.cost)
            total = self._total_spending(shard, settled, rows[line], line, answer, spending)
            earlier_rank = self._update_best_rank(shard, rows[line], line, answer.outcome)
            if earlier_rank is not None:
                if rows[line].lands:
                    self._count_reason(answer)
                    yield self._row(rows[line], answer, values, source, total)
                if self._duplicates:
                    earlier_ranks[line] = earlier_rank
                    duplicates = group.get(rows[line].sha256, ())
                    yield from self._duplicate_rows(duplicates, answer, values, source, earlier_rank)
        for group in groups:
            for line, answer in self._answers(shard, settled, rows):
                if line in earlier_ranks and rows[line].sha256 in group:
                    answer, values = self._read_values(answer)
                    duplicates = group[rows[line].sha256]
                    yield from self._duplicate_rows(duplicates, answer, values, source, earlier_ranks[line])

    def _reused_rows(self, reused_file: ReusedFile) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that reuse the answers of an earlier job."""
        for group in _group_by_request(self._duplicates.rows_of(reused_file.name)):
            for reused in read_reused_answers(self._folder, reused_file):
                answer = to_answer(reused, self._manifest.endpoint, self._judge) if reused.sha256 in group else None
                if answer is not None:
                    answer, values = self._read_values(answer)
                    source = _Source(reused.model, 0, reused.batch_id)
                    yield from self._duplicate_rows(group[reused.sha256], answer, values, source, 0)

    def _invalid_rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows that could not be sent."""
        if self._manifest.invalid_file is None:
            return
        values: list[Any] = [None] * len(self._paths)
        for invalid in read_invalid_rows(self._folder, self._manifest.invalid_file):
            answer = fit_names(
                Answer(Outcome.INVALID_INPUT, error_code=invalid.code, error_message=invalid.message), self._limits
            )
            self._count_reason(answer)
            yield self._row(invalid.row, answer, values, _Source(invalid.model, 0, None), _FREE)

    def _unanswered_rows(self, shard: Shard) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a shard that have no answer yet, and their duplicates."""
        ranks, submission = self._best_ranks[shard.name], self._state.shards[shard.name].latest
        pending = self._pending_answers.get(shard.name, PENDING)
        withheld = withheld_by(self._state.finished.shared_budget if self._state.finished else "")
        source = _Source(shard.model, 0, (submission.batch_id or None) if submission else None)
        values: list[Any] = [None] * len(self._paths)
        unanswered: dict[str, Answer] = {}
        for line, row in enumerate(read_rows(self._folder, shard)):
            if ranks[line] in _UNANSWERED_RANKS and row.needed:
                earlier_rank, answer = ranks[line], withheld if ranks[line] else pending
                ranks[line] = answer.outcome.rank
                unanswered[row.sha256] = answer
                if row.lands:
                    self._count_reason(answer)
                    yield self._row(row, answer, values, source, _UNKNOWN)
                elif not earlier_rank:
                    self._omitted_ranks[answer.outcome.rank] += 1
        for row in self._duplicates.rows_of(shard.name):
            if row.sha256 in unanswered:
                yield from self._duplicate_rows([row], unanswered[row.sha256], values, source, 0)

    def _answers(self, shard: Shard, settled: Settled, rows: list[RowIndex]) -> Iterator[tuple[int, Answer]]:
        return read_answers(
            self._folder,
            shard,
            settled,
            rows,
            self._manifest.endpoint,
            self._judge,
            bodies=self._store_response,
        )

    def _total_spending(
        self, shard: Shard, settled: Settled, row: RowIndex, line: int, answer: Answer, spending: Spending
    ) -> Spending:
        """Return what a row used in this attempt and in all others that are known so far."""
        is_unusable = answer.outcome is not Outcome.SUCCEEDED and not answer.usage.is_zero
        is_added = is_unusable and self._is_read_first(shard, settled)
        total = self._spending.total(shard, row, line, spending, is_added=is_added)
        if is_unusable and not is_added and shard.attempt > 1:
            # an older answer may be better and land in its place
            self._spending.add(shard, row, line, spending)
        return total

    def _is_read_first(self, shard: Shard, settled: Settled) -> bool:
        return (shard.name, settled.number) in self._superseded and has_unusable_paid_answers(settled)

    def _duplicate_groups(self, rows: list[RowIndex], shard: str) -> Iterator[dict[str, list[RowIndex]]]:
        """Yield the duplicates of these rows, in groups. Those of a retried row wait for the shard it was sealed in."""
        if self._duplicates:
            hashes, shards = {row.sha256 for row in rows}, {row.origin or shard for row in rows}
            duplicates = chain.from_iterable(map(self._duplicates.rows_of, sorted(shards)))
            yield from _group_by_request(row for row in duplicates if row.sha256 in hashes)

    def _duplicate_rows(
        self,
        duplicates: Sequence[RowIndex],
        answer: Answer,
        values: Sequence[Any],
        source: _Source,
        earlier_rank: int,
    ) -> Iterator[tuple[Any, ...]]:
        spending = _UNKNOWN if answer.outcome in (Outcome.PENDING, Outcome.WITHHELD) else _FREE
        for row in duplicates:
            self._duplicate_ranks[earlier_rank] -= 1
            self._duplicate_ranks[answer.outcome.rank] += 1
            self._count_reason(answer)
            yield self._row(row, answer, values, source._replace(attempt=0), spending)

    def _count_reason(self, answer: Answer) -> None:
        if answer.error_code:
            message = _loggable_message(answer)
            if answer.outcome is Outcome.INVALID_INPUT:
                # each message names another file, so that one stands for all of them
                message = self._invalid_messages.setdefault(answer.error_code, message)
            self._reasons[(answer.outcome, answer.error_code, message)] += 1

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of rows by outcome, best first. After the last row they add up to the rows of the job."""
        counts = Counter(rank for ranks in self._best_ranks.values() for rank in ranks)
        counts.update(self._duplicate_ranks)
        counts.subtract(self._omitted_ranks)
        counts[Outcome.INVALID_INPUT.rank] += self._manifest.invalid
        return {outcome.value: counts[outcome.rank] for outcome in Outcome if counts[outcome.rank]}

    def most_common_reasons(self, count: int) -> list[Reason]:
        """Return why rows did not succeed, most frequent first, with the first 200 characters of each message."""
        return [
            Reason(outcome.value, code, message, rows)
            for (outcome, code, message), rows in self._reasons.most_common(count)
        ]

    def _update_best_rank(self, shard: Shard, row: RowIndex, line: int, outcome: Outcome) -> int | None:
        """Return the rank of the best answer to the row before this one, or None if this one is no better."""
        ranks, index = (
            (self._best_ranks.get(row.origin), row.line) if row.origin else (self._best_ranks[shard.name], line)
        )
        if ranks is None or not row.needed:
            return None
        earlier_rank = ranks[index]
        if outcome.rank <= earlier_rank:
            return None
        ranks[index] = outcome.rank
        if not row.lands:
            self._omitted_ranks[earlier_rank] -= 1
            self._omitted_ranks[outcome.rank] += 1
        return earlier_rank

    def _read_values(self, answer: Answer) -> tuple[Answer, list[Any]]:
        """Return the answer as the table can store it, with the values of `columns`."""
        answer, values = self._extract_columns(answer)
        problems = storage_problems(self._stored_values(answer, values), self._limits)
        if problems:
            extracted = zip(self._extracted, values, strict=True)
            values = [None if name in problems else value for (name, _), value in extracted]
            answer = without_values(answer, problems)
        return fit_names(answer, self._limits), values

    def _stored_values(self, answer: Answer, values: Sequence[Any]) -> Iterator[StoredValue]:
        yield StoredValue("output", self._output_type, _output(answer))
        for (name, kind), value in zip(self._extracted, values, strict=True):
            yield StoredValue(name, kind, value)
        if self._store_response:
            yield StoredValue("response", ColumnType.JSON, answer.body)

    def _extract_columns(self, answer: Answer) -> tuple[Answer, list[Any]]:
        """Return the values of `columns`. If one does not fit its type, the answer becomes an invalid output."""
        if answer.outcome is not Outcome.SUCCEEDED or not self._paths:
            return answer, [None] * len(self._paths)
        values = []
        for path, kind, extract in self._paths:
            try:
                values.append(extract(answer.value))
            except ValueError as error:
                invalid_answer = msgspec.structs.replace(
                    answer,
                    outcome=Outcome.INVALID_OUTPUT,
                    error_code="column_type",
                    error_message=f"{path} is not of type {kind.value}: {error}",
                )
                return invalid_answer, [None] * len(self._paths)
        return answer, values

    def _add_to_totals(self, shard: Shard, answer: Answer) -> Decimal | None:
        """Add an answer to the totals and return its cost in US dollars, or None if its price or usage is unknown."""
        usage = answer.usage
        self.tokens["input"] += usage.input_tokens or 0
        self.tokens["cached"] += usage.cached_tokens or 0
        self.tokens["reasoning"] += usage.reasoning_tokens or 0
        self.tokens["output"] += usage.output_tokens or 0
        cost = self._cost(shard, answer)
        if cost is None and not usage.is_known:
            self.without_usage += 1
        self.cost = _add_costs(self.cost, cost)
        if not usage.is_zero:
            if not answer.is_lost:
                self.lanes[shard.lane.of_answer(answer.service_tier).value] += 1
            lowest_cost = self._prices.lowest_cost(
                shard.model, usage, answered_by=answer.model, lane=shard.lane.of_answer(answer.service_tier)
            )
            self.lowest_cost = _add_costs(self.lowest_cost, lowest_cost)
            standard_cost = self._prices.standard_cost(shard.model, usage, answered_by=answer.model)
            self.standard_cost = _add_costs(self.standard_cost, standard_cost)
        return cost

    def _cost(self, shard: Shard, answer: Answer) -> Decimal | None:
        """Return the cost of an answer in US dollars, or None if its price or usage is unknown."""
        if answer.usage.is_zero:
            return Decimal(0)
        return self._prices.cost(
            shard.model, answer.usage, answered_by=answer.model, lane=shard.lane.of_answer(answer.service_tier)
        )

    def _row(
        self, row: RowIndex, answer: Answer, values: Sequence[Any], source: _Source, spending: Spending
    ) -> tuple[Any, ...]:
        usage = spending.usage
        if answer.error_code == STORAGE and answer.outcome is Outcome.INVALID_OUTPUT:
            reasons = storage_reasons(answer.error_message or "")
            self.misfits.setdefault(reasons, RefusalGroup()).add(row.custom_id)
        output = _output(answer)
        if self._manifest.several_inputs and row.inputs == 1 and output is not None:
            output = [output]
        return (
            *self._key,
            row.custom_id,
            answer.outcome.value,
            output,
            answer.finish_reason,
            answer.error_code,
            answer.error_message,
            answer.model or source.model,
            usage.input_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            usage.output_tokens,
            spending.cost,
            source.attempt,
            row.sha256,
            source.batch_id,
            *self._constants,
            *[carry.from_json(value, column) for value, column in zip(row.carry, self._manifest.carry, strict=True)],
            *values,
            *((answer.body,) if self._store_response else ()),
        )
