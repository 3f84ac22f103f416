"""Turns the answers in staging into rows of the results table.

`Landing` is an iterator of rows. It may yield several rows with the same custom_id; the last of them has the best
answer. A writer that lets the last row win therefore ends up with the right table, and no answers are held in memory.
The rows come in this order:

1. The answers of settled submissions, from the newest attempt to the oldest. An older answer is yielded only if it is
   better than the newer ones (`Outcome.rank`, see `best_ranks`).
2. Answers reused from earlier jobs.
3. Rows that could not be sent, because a file that they name is missing or cannot be used.
4. Rows without any answer: `withheld` if the budget held them back, else `pending`. Their tokens and cost are NULL.

The tokens and the cost of a row cover all its attempts (`row_spending`). Each answer is also yielded for the duplicates
of its row. Neither a duplicate nor a reused answer costs anything, so tokens, cost and attempt of these rows are 0.
Sums over the table are therefore what was paid.

After a clear, a row may have disappeared from the query while a duplicate still needs its answer. Such a row has
`RowIndex.lands` False: its answers are compared like those of other rows, but it is not yielded itself.

Answers are read, priced and turned into rows in chunks, column by column. An odd answer costs its own row alone: what
cannot be done for a whole chunk is done for each of its answers.

Iterate once and to the end. After that, `outcomes` and `totals` are complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec

from airflow_provider_batch.core.answers.outcome import PENDING, STORAGE, Answer, Outcome, withheld_by
from airflow_provider_batch.core.answers.result_files import read_answers, read_rows, read_unsuccessful
from airflow_provider_batch.core.landing.best_ranks import BestRanks
from airflow_provider_batch.core.landing.refusals import RefusalGroup
from airflow_provider_batch.core.landing.row_spending import (
    RowSpending,
    Spending,
    has_unusable_paid_answers,
    superseded_submissions,
)
from airflow_provider_batch.core.landing.rows import RowChunk, Source, TableRows
from airflow_provider_batch.core.landing.storage_limits import StorageLimits, storage_reasons
from airflow_provider_batch.core.landing.totals import Totals
from airflow_provider_batch.core.landing.values import AnswerValues
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import ReusedFile, RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.ledger.state import JobState, ShardState, Submission
from airflow_provider_batch.core.lifecycle.collection import held_batches
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Usage
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.paths import Path
from airflow_provider_batch.core.sealing.deduplicate import FILE_ROWS, DuplicateReader
from airflow_provider_batch.core.sealing.invalid_rows import read_invalid_rows
from airflow_provider_batch.core.sealing.reused_answers import read_reused_answers, to_answer

#: answers held in memory at a time
CHUNK_ROWS = 128

_FREE = Spending(Usage(), Decimal(0))
_UNKNOWN = Spending(UNKNOWN_USAGE, None)

#: rows of the results table
_Rows = Iterable[tuple[Any, ...]]
_Item = TypeVar("_Item")


def _chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


def _group_by_request(duplicates: Iterable[RowIndex]) -> Iterator[dict[str, list[RowIndex]]]:
    """Yield the duplicates by request hash, in groups that are small enough to hold in memory."""
    for portion in _chunks(duplicates, FILE_ROWS):
        group: dict[str, list[RowIndex]] = {}
        for row in portion:
            group.setdefault(row.sha256, []).append(row)
        yield group


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
        chunk_rows: int = CHUNK_ROWS,
    ) -> None:
        """Read where the duplicates are.

        :param limits: what the table can store; by default, what any table can.
        :param chunk_rows: number of answers to read at a time.
        """
        manifest = state.manifest
        self._folder, self._state, self._manifest = folder, state, manifest
        self._chunk_rows = chunk_rows
        self._store_response = store_response
        schema = manifest.author_schema
        self._judge = SchemaJudge(schema) if schema is not None else None
        self._values = AnswerValues(manifest, columns, limits or StorageLimits(), store_response=store_response)
        self._rows = TableRows(manifest, key, run_id, landed_at, store_response=store_response)
        self._ranks = BestRanks(manifest)
        #: by shard: the answer of its rows while its batch is held for a person
        self._pending_answers = {
            shard.name: msgspec.structs.replace(
                PENDING, error_code="held", error_message=f"{failure.message} The batch is held for a person."
            )
            for shard, failure in held_batches(state)
        }
        self._duplicates = DuplicateReader(folder, manifest.duplicate_files)
        self._spending = RowSpending()
        self._superseded = superseded_submissions(state)
        #: rows with a value that the table cannot store, by reason
        self.misfits: dict[str, RefusalGroup] = {}
        self.totals = Totals(manifest)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return chain.from_iterable(self._chunks_of_rows())

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of rows by outcome, best first. After the last row they add up to the rows of the job."""
        return self._ranks.outcomes

    @property
    def deadline(self) -> datetime | None:
        """The deadline of the wait; None if no wait has started."""
        return self._state.deadline

    @property
    def answered_at(self) -> datetime | None:
        """When the last answers were collected; None if there are none."""
        times = [settled.time for _, _, settled in self._state.settled_submissions() if settled.answers]
        return max(times, default=None)

    def _chunks_of_rows(self) -> Iterator[_Rows]:
        self._add_earlier_attempts()
        for shard, submission, settled in reversed(self._state.settled_submissions()):
            yield from self._settled_rows(shard, submission, settled)
        for reused_file in self._manifest.reused_files:
            yield from self._reused_rows(reused_file)
        yield from self._invalid_rows()
        withheld = withheld_by(self._state.finished.shared_budget if self._state.finished else "")
        for withheld_shard in self._state.withheld_shards:
            rows = read_rows(self._folder, withheld_shard.spec)
            self._ranks.update(withheld_shard.spec.name, rows, range(len(rows)), [withheld] * len(rows))
        for sealed_shard in self._manifest.shards:
            if self._ranks.has_unanswered(sealed_shard.name):
                yield from self._unanswered_rows(sealed_shard, withheld)

    def _add_earlier_attempts(self) -> None:
        """Read what was paid for answers after which their rows were sent again."""
        for shard, _, settled in self._state.settled_submissions():
            if self._is_read_first(shard.spec, settled):
                rows = read_rows(self._folder, shard.spec)
                endpoint = self._manifest.endpoint
                for line, answer in read_unsuccessful(self._folder, shard.spec, settled, rows, endpoint, self._judge):
                    if not answer.usage.is_zero:
                        spending = Spending(answer.usage, self.totals.cost_of(shard.spec, answer))
                        self._spending.add(shard.spec, rows[line], line, spending)

    def _settled_rows(self, state: ShardState, submission: Submission, settled: Settled) -> Iterator[_Rows]:
        """Yield the rows of a submission that have no better answer yet, each chunk followed by its duplicates.

        The duplicates are held one group at a time. For each further group the answers are read again.
        """
        shard = state.spec
        rows = read_rows(self._folder, shard)
        if shard.attempt > 1:
            self.totals.retried += len(rows)
        groups = self._duplicate_groups(rows, shard.name)
        group = next(groups, {})
        source = Source(shard.model, shard.attempt, submission.batch_id or None)
        #: by line of the rows whose answer is the best so far: the rank of the best answer before it
        earlier_ranks: dict[int, int] = {}
        for lines, answers in self._answers(shard, settled, rows):
            answers, values = self._values.read(answers)
            sent = [rows[line] for line in lines]
            usages, costs = self._total_spending(shard, settled, sent, lines, answers, self.totals.add(shard, answers))
            answered = RowChunk(sent, answers, [source] * len(sent), usages, costs, values)
            improved = self._ranks.update(shard.name, sent, lines, answers)
            yield self._make_rows(answered.take([index for index in improved if sent[index].lands]))
            if self._duplicates:
                earlier_ranks |= {lines[index]: rank for index, rank in improved.items()}
                yield self._duplicate_rows(answered.take(list(improved)), group, list(improved.values()))
        self.totals.complete(shard)
        for group in groups:
            for lines, answers in self._answers(shard, settled, rows):
                needed = [index for index, line in enumerate(lines) if line in earlier_ranks]
                answers, values = self._values.read([answers[index] for index in needed])
                sent, ranks = (
                    [rows[lines[index]] for index in needed],
                    [earlier_ranks[lines[index]] for index in needed],
                )
                answered = self._chunk_of(sent, answers, [source] * len(sent), _FREE, values)
                yield self._duplicate_rows(answered, group, ranks)

    def _reused_rows(self, reused_file: ReusedFile) -> Iterator[_Rows]:
        """Yield the rows that reuse the answers of an earlier job."""
        for group in _group_by_request(self._duplicates.rows_of(reused_file.name)):
            entries = (entry for entry in read_reused_answers(self._folder, reused_file) if entry.sha256 in group)
            read_entries = ((entry, to_answer(entry, self._manifest.endpoint, self._judge)) for entry in entries)
            usable_entries = ((entry, answer) for entry, answer in read_entries if answer is not None)
            for chunk in _chunks(usable_entries, self._chunk_rows):
                answers, values = self._values.read([answer for _, answer in chunk])
                sources = [Source(entry.model, 0, entry.batch_id) for entry, _ in chunk]
                # the first row with the request stands for the one that was sent
                sent = [group[entry.sha256][0] for entry, _ in chunk]
                yield self._duplicate_rows(
                    self._chunk_of(sent, answers, sources, _FREE, values), group, [0] * len(sent)
                )

    def _invalid_rows(self) -> Iterator[_Rows]:
        """Yield the rows that could not be sent."""
        if self._manifest.invalid_file is None:
            return
        for chunk in _chunks(read_invalid_rows(self._folder, self._manifest.invalid_file), self._chunk_rows):
            answers, values = self._values.read(
                [Answer(Outcome.INVALID_INPUT, error_code=row.code, error_message=row.message) for row in chunk]
            )
            sources = [Source(row.model, 0, None) for row in chunk]
            yield self._make_rows(self._chunk_of([row.row for row in chunk], answers, sources, _FREE, values))

    def _unanswered_rows(self, shard: Shard, withheld: Answer) -> Iterator[_Rows]:
        """Yield the rows of a shard that have no answer yet, and their duplicates."""
        submission = self._state.shards[shard.name].latest
        source = Source(shard.model, 0, (submission.batch_id or None) if submission else None)
        pending = self._pending_answers.get(shard.name, PENDING)
        unanswered: dict[str, Answer] = {}
        rows = self._ranks.answer_unanswered(shard.name, read_rows(self._folder, shard), withheld, pending)
        for chunk in _chunks(rows, self._chunk_rows):
            unanswered |= {row.sha256: answer for row, answer in chunk}
            landing = [(row, answer) for row, answer in chunk if row.lands]
            yield self._make_rows(self._unanswered_chunk(landing, source))
        duplicates = (row for row in self._duplicates.rows_of(shard.name) if row.sha256 in unanswered)
        for chunk in _chunks(((row, unanswered[row.sha256]) for row in duplicates), self._chunk_rows):
            for _, answer in chunk:
                self._ranks.replace_duplicate(0, answer.outcome)
            yield self._make_rows(self._unanswered_chunk(chunk, source))

    def _unanswered_chunk(self, pairs: Sequence[tuple[RowIndex, Answer]], source: Source) -> RowChunk:
        rows, answers = [row for row, _ in pairs], [answer for _, answer in pairs]
        return self._chunk_of(rows, answers, [source] * len(rows), _UNKNOWN, self._values.none(len(rows)))

    def _chunk_of(
        self,
        rows: Sequence[RowIndex],
        answers: Sequence[Answer],
        sources: Sequence[Source],
        spending: Spending,
        values: Sequence[Sequence[Any]],
    ) -> RowChunk:
        """Return a chunk of rows that all used the same."""
        return RowChunk(rows, answers, sources, [spending.usage] * len(rows), [spending.cost] * len(rows), values)

    def _answers(
        self, shard: Shard, settled: Settled, rows: list[RowIndex]
    ) -> Iterator[tuple[list[int], list[Answer]]]:
        """Yield the answers of a submission in chunks, each with the lines of their rows."""
        answers = read_answers(
            self._folder,
            shard,
            settled,
            rows,
            self._manifest.endpoint,
            self._judge,
            bodies=self._store_response,
        )
        for chunk in _chunks(answers, self._chunk_rows):
            yield [line for line, _ in chunk], [answer for _, answer in chunk]

    def _total_spending(
        self,
        shard: Shard,
        settled: Settled,
        rows: Sequence[RowIndex],
        lines: Sequence[int],
        answers: Sequence[Answer],
        costs: list[Decimal | None],
    ) -> tuple[list[Usage], list[Decimal | None]]:
        """Return what rows used in this attempt and in all others that are known so far.

        :param costs: what each answer of this attempt cost.
        """
        usages = [answer.usage for answer in answers]
        if shard.attempt == 1 and not self._spending:
            return usages, costs
        is_read_first = self._is_read_first(shard, settled)
        for index, (row, line, answer) in enumerate(zip(rows, lines, answers, strict=True)):
            spending = Spending(usages[index], costs[index])
            is_unusable = answer.outcome is not Outcome.SUCCEEDED and not answer.usage.is_zero
            is_added = is_unusable and is_read_first
            usages[index], costs[index] = self._spending.total(shard, row, line, spending, is_added=is_added)
            if is_unusable and not is_added and shard.attempt > 1:
                # an older answer may be better and land in its place
                self._spending.add(shard, row, line, spending)
        return usages, costs

    def _is_read_first(self, shard: Shard, settled: Settled) -> bool:
        return (shard.name, settled.number) in self._superseded and has_unusable_paid_answers(settled)

    def _duplicate_groups(self, rows: list[RowIndex], shard: str) -> Iterator[dict[str, list[RowIndex]]]:
        """Yield the duplicates of these rows, in groups. Those of a retried row wait for the shard it was sealed in."""
        if self._duplicates:
            hashes, shards = {row.sha256 for row in rows}, {row.origin or shard for row in rows}
            duplicates = chain.from_iterable(map(self._duplicates.rows_of, sorted(shards)))
            yield from _group_by_request(row for row in duplicates if row.sha256 in hashes)

    def _duplicate_rows(
        self, answered: RowChunk, group: Mapping[str, list[RowIndex]], earlier_ranks: Sequence[int]
    ) -> _Rows:
        """Return the rows of the duplicates of these rows.

        :param earlier_ranks: by answered row, the rank of the best answer before.
        """
        pairs = [
            (index, duplicate) for index, row in enumerate(answered.rows) for duplicate in group.get(row.sha256, ())
        ]
        for index, _ in pairs:
            self._ranks.replace_duplicate(earlier_ranks[index], answered.answers[index].outcome)
        copies = answered.take([index for index, _ in pairs])
        sources = [source._replace(attempt=0) for source in copies.sources]
        duplicates = [duplicate for _, duplicate in pairs]
        return self._make_rows(self._chunk_of(duplicates, copies.answers, sources, _FREE, copies.values))

    def _make_rows(self, chunk: RowChunk) -> _Rows:
        """Return the rows of a chunk, and count those that did not succeed."""
        for row, answer in zip(chunk.rows, chunk.answers, strict=True):
            if answer.error_code:
                self.totals.add_reason(answer)
                if answer.error_code == STORAGE and answer.outcome is Outcome.INVALID_OUTPUT:
                    reasons = storage_reasons(answer.error_message or "")
                    self.misfits.setdefault(reasons, RefusalGroup()).add(row.custom_id)
        return self._rows.make(chunk)
