"""Answers in staging -> rows of the results table.

The tries of a job are read from the newest attempt to the oldest. A row is given again only if an older answer is
better than what was given for it before; so the last row given for a custom_id is its best answer, and a writer that
lets the last one win needs no memory. What is kept is one byte per row of the job.

A row whose request was asked for another row gets that row's answers, whichever of them is given; a row whose answer
was known from an earlier job gets that. It cost nothing itself: its tokens, its cost and its attempt are 0; so sums
over the table are what was paid for the answers in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.answers.outcome import PENDING, WITHHELD, Answer, Outcome
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest, ReusedFile, RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Reason, Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission
from airflow_provider_batch.core.pricing.prices import Prices
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.judge import SchemaJudge, column_type, extractor
from airflow_provider_batch.core.sealing import carry
from airflow_provider_batch.core.sealing.deduplicate import FILE_ROWS, DuplicateReader
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers, to_answer
from airflow_provider_batch.exceptions import SchemaError

#: the columns of every results table after its key, in order; `output` gets its type from the endpoint
FIXED_COLUMNS = (
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


_NOTHING = Decimal(0)
#: ranks of rows that no answer came for
_UNANSWERED = frozenset({0, Outcome.WITHHELD.rank})


class _Source(NamedTuple):
    """Where the answer of a row comes from."""

    #: the model that was asked
    model: str | None
    attempt: int
    batch_id: str | None


def _sum(total: Decimal | None, more: Decimal | None) -> Decimal | None:
    """US dollars; unknown if one of them is."""
    return None if total is None or more is None else total + more


def _grouped(copies: Iterable[RowIndex]) -> Iterator[dict[str, list[RowIndex]]]:
    """Copies by request hash, so many of them at a time as may be held."""
    copies = iter(copies)
    while some := list(islice(copies, FILE_ROWS)):
        group: dict[str, list[RowIndex]] = {}
        for row in some:
            group.setdefault(row.sha256, []).append(row)
        yield group


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
    for column in FIXED_COLUMNS:
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
        self._store_response = store_response
        #: the fixed columns that are the same in every row, the last ones
        self._same = (manifest.job_uid, run_id, manifest.logical_date, manifest.sealed_at, landed_at)
        schema = manifest.output_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        typed = [(path, column_type(schema, path)) for path in columns.values()] if schema is not None else []
        self._paths = [(path, kind, extractor(path, kind)) for path, kind in typed]
        self._prices = Prices(manifest.prices)
        self._best = {shard.name: bytearray(shard.requests) for shard in manifest.shards}
        self._copies = DuplicateReader(folder, manifest.duplicate_files)
        #: copies by the rank of what was given for them last
        self._copied: Counter[int] = Counter()
        #: rows by the same rank that do not land themselves, though others take their answer
        self._silent: Counter[int] = Counter()
        self._reasons: Counter[tuple[Outcome, str, str]] = Counter()
        self.tokens: Counter[str] = Counter()
        #: US dollars for every answer collected, replaced ones included; None as soon as one price is unknown
        self.cost: Decimal | None = Decimal(0)
        #: what the same answers cost without batch
        self.standard_cost: Decimal | None = Decimal(0)
        #: requests of the attempts after the first
        self.retried = 0
        #: US dollars for the answers of those; None as soon as one price is unknown
        self.retried_cost: Decimal | None = Decimal(0)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for shard, submission, settled in reversed(self._state.settled_submissions()):
            yield from self._settled(shard, submission, settled)
        for known in self._manifest.reused_files:
            yield from self._known(known)
        for withheld in self._state.withheld_shards:
            for line, row in enumerate(read_rows(self._folder, withheld.spec)):
                self._improve(withheld.spec, row, line, Outcome.WITHHELD)
        for sealed in self._manifest.shards:
            if any(rank in self._best[sealed.name] for rank in _UNANSWERED):
                yield from self._unsettled(sealed)

    def _settled(self, state: ShardState, submission: Submission, settled: Settled) -> Iterator[tuple[Any, ...]]:
        """The rows of a try that have no better answer yet, each followed by its copies.

        Copies are held one group at a time; for each further group the answers are read once more.
        """
        shard = state.spec
        rows = read_rows(self._folder, shard)
        if shard.attempt > 1:
            self.retried += len(rows)
        groups = self._groups(rows, shard.name)
        group = next(groups, {})
        source = _Source(shard.model, shard.attempt, submission.batch_id or None)
        #: of rows whose answer is the best so far: the rank of the one before it
        improved: dict[int, int] = {}
        for line, answer in self._answers(shard, settled, rows):
            answer, values = self._columns(answer)
            cost = self._account(shard, answer)
            if shard.attempt > 1:
                self.retried_cost = _sum(self.retried_cost, cost)
            before = self._improve(shard, rows[line], line, answer.outcome)
            if before is not None:
                if rows[line].lands:
                    self._note(answer)
                    yield self._row(rows[line], answer, values, source, cost)
                if self._copies:
                    improved[line] = before
                    yield from self._copied_rows(group.get(rows[line].sha256, ()), answer, values, source, before)
        for group in groups:
            for line, answer in self._answers(shard, settled, rows):
                if line in improved and rows[line].sha256 in group:
                    answer, values = self._columns(answer)
                    yield from self._copied_rows(group[rows[line].sha256], answer, values, source, improved[line])

    def _known(self, known: ReusedFile) -> Iterator[tuple[Any, ...]]:
        """The rows that get the answers which an earlier job landed."""
        for group in _grouped(self._copies.rows_of(known.name)):
            for one in read_reused_answers(self._folder, known):
                answer = to_answer(one, self._manifest.endpoint, self._judge) if one.sha256 in group else None
                if answer is not None:
                    answer, values = self._columns(answer)
                    source = _Source(one.model, 0, one.batch_id)
                    yield from self._copied_rows(group[one.sha256], answer, values, source, 0)

    def _unsettled(self, sealed: Shard) -> Iterator[tuple[Any, ...]]:
        """The rows of a shard that no answer came for yet, and their copies."""
        best, batch = self._best[sealed.name], self._state.shards[sealed.name].latest
        source = _Source(sealed.model, 0, (batch.batch_id or None) if batch else None)
        nothing: list[Any] = [None] * len(self._paths)
        unanswered: dict[str, Answer] = {}
        for line, row in enumerate(read_rows(self._folder, sealed)):
            if best[line] in _UNANSWERED and row.needed:
                before, why = best[line], WITHHELD if best[line] else PENDING
                best[line] = why.outcome.rank
                unanswered[row.sha256] = why
                if row.lands:
                    self._note(why)
                    yield self._row(row, why, nothing, source, None)
                elif not before:
                    self._silent[why.outcome.rank] += 1
        for row in self._copies.rows_of(sealed.name):
            if row.sha256 in unanswered:
                yield from self._copied_rows([row], unanswered[row.sha256], nothing, source, 0)

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

    def _groups(self, rows: list[RowIndex], shard: str) -> Iterator[dict[str, list[RowIndex]]]:
        """The copies of these rows of a shard; those that are asked again were sealed in another."""
        if self._copies:
            hashes, sealed_in = {row.sha256 for row in rows}, {row.origin or shard for row in rows}
            copies = chain.from_iterable(map(self._copies.rows_of, sorted(sealed_in)))
            yield from _grouped(row for row in copies if row.sha256 in hashes)

    def _copied_rows(
        self, copies: Sequence[RowIndex], answer: Answer, values: Sequence[Any], source: _Source, before: int
    ) -> Iterator[tuple[Any, ...]]:
        for row in copies:
            self._copied[before] -= 1
            self._copied[answer.outcome.rank] += 1
            self._note(answer)
            yield self._row(row, answer, values, source, _NOTHING, copy=True)

    def _note(self, answer: Answer) -> None:
        if answer.error_code:
            self._reasons[(answer.outcome, answer.error_code, _told(answer))] += 1

    @property
    def outcomes(self) -> dict[str, int]:
        """Rows by outcome, best first; they add up to the job's requests once every row was given."""
        counts = Counter(rank for ranks in self._best.values() for rank in ranks)
        counts.update(self._copied)
        counts.subtract(self._silent)
        return {outcome.value: counts[outcome.rank] for outcome in Outcome if counts[outcome.rank]}

    def most_common_reasons(self, count: int) -> list[Reason]:
        """Why rows did not succeed: outcome, code and the first 200 characters of the message, the commonest first."""
        return [
            Reason(outcome.value, code, said, rows) for (outcome, code, said), rows in self._reasons.most_common(count)
        ]

    def _improve(self, shard: Shard, row: RowIndex, line: int, outcome: Outcome) -> int | None:
        """The rank of the row's best answer before this one; None if this one is no better."""
        ranks, place = (self._best.get(row.origin), row.line) if row.origin else (self._best[shard.name], line)
        if ranks is None or not row.needed:
            return None
        before = ranks[place]
        if outcome.rank <= before:
            return None
        ranks[place] = outcome.rank
        if not row.lands:
            self._silent[before] -= 1
            self._silent[outcome.rank] += 1
        return before

    def _columns(self, answer: Answer) -> tuple[Answer, list[Any]]:
        """The caller's columns; an answer whose value does not fit its column's type is an invalid output."""
        if answer.outcome is not Outcome.SUCCEEDED or not self._paths:
            return answer, [None] * len(self._paths)
        values = []
        for path, kind, cut in self._paths:
            try:
                values.append(cut(answer.value))
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
        cost = self._prices.cost(shard.model, usage, answered_by=answer.model, batch=not shard.synchronous)
        standard = self._prices.standard_cost(shard.model, usage, answered_by=answer.model)
        self.cost = _sum(self.cost, cost)
        self.standard_cost = _sum(self.standard_cost, standard)
        return cost

    def _row(
        self,
        row: RowIndex,
        answer: Answer,
        values: Sequence[Any],
        source: _Source,
        cost: Decimal | None,
        *,
        copy: bool = False,
    ) -> tuple[Any, ...]:
        usage, outcome = answer.usage, answer.outcome
        spent: tuple[Any, ...]
        if outcome in (Outcome.PENDING, Outcome.WITHHELD):
            spent = (None, None, None, None, None, 0)
        elif copy:
            spent = (0, 0, 0, 0, cost, 0)
        else:
            spent = (
                usage.input_tokens,
                usage.cached_tokens,
                usage.reasoning_tokens,
                usage.output_tokens,
                cost,
                source.attempt,
            )
        output = answer.text if answer.text is not None else answer.value
        if self._manifest.several_inputs and row.inputs == 1 and output is not None:
            output = [output]
        return (
            *self._key,
            row.custom_id,
            outcome.value,
            output,
            answer.finish_reason,
            answer.error_code,
            answer.error_message,
            answer.model or source.model,
            *spent,
            row.sha256,
            source.batch_id,
            *self._same,
            *[carry.from_json(value, column) for value, column in zip(row.carry, self._manifest.carry, strict=True)],
            *values,
            *((answer.body,) if self._store_response else ()),
        )
