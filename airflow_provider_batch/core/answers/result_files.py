r"""Reads the collected files of a settled submission as one answer per row of its shard.

Every row of the shard gets exactly one answer, in no particular order. If several lines have the same custom_id, the
best outcome counts, in whichever file it is, and the first of equal ones. Lines whose custom_id is not in the shard are
ignored. A row without a readable line is `missing`.

A succeeded answer cannot be improved on, so it is yielded as soon as it is read. For every other row, the worker that
collects the files writes down where its best line is (`FirstReading`), so that whoever reads them later can yield that
line as soon as it is read, too. Without these positions, those of the best lines so far are kept, and the lines are
read again at the end. So the memory does not depend on the size of the answers.

Files are read as bytes, because Python splits bytes at \n only: JSON text may contain U+2028, U+0085 and other
characters at which it would split text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import msgspec

from airflow_provider_batch.core.answers.fast_lines import line_reader
from airflow_provider_batch.core.answers.outcome import MISSING, Answer, Outcome
from airflow_provider_batch.core.answers.unsuccessful import load_unsuccessful, without_texts
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import CollectedFile, Settled
from airflow_provider_batch.core.ledger.sealed_file import changed_file_error, read_entries
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import StagingError


def read_rows(folder: Folder, shard: Shard) -> list[RowIndex]:
    """Return the index of a shard, one entry per line of its input file, in that order.

    :raises StagingError: if the index is not the one that was sealed.
    """
    rows = list(read_entries(folder, shard.index_file, shard.index_sha256, RowIndex))
    if len(rows) != shard.requests:
        raise changed_file_error(
            folder, shard.index_file, f"it has {format_count(len(rows), 'row')} instead of {shard.requests:,}"
        )
    return rows


def read_answers(
    folder: Folder,
    shard: Shard,
    settled: Settled,
    rows: list[RowIndex],
    endpoint: str,
    judge: SchemaJudge | None,
    *,
    bodies: bool = False,
) -> Iterator[tuple[int, Answer]]:
    """Yield the answer of every row of the shard, with the row's line in the input file (from 0).

    :param rows: index of the shard.
    :param bodies: whether every answer needs its body; if not, most have none.
    :raises StagingError: at the end of a file that differs from the one that was collected.
    """
    if settled.failure is not None:
        yield from _failed_validation(settled, len(rows))
        return
    read = row_reader(rows, endpoint, judge, bodies=bodies)
    recorded = {
        row.line: (row.file, row.text_line)
        for row in load_unsuccessful(folder, settled, len(rows)) or ()
        if row.file >= 0
    }
    unanswered = set(range(len(rows)))
    best: dict[int, _Position] = {}
    for number, file in enumerate(settled.files):
        for text_line, text in enumerate(verified_lines(folder, file, settled)):
            result = read(text)
            if result is None or result[0] not in unanswered:
                continue
            line, answer = result
            if answer.outcome is Outcome.SUCCEEDED or recorded.get(line) == (number, text_line):
                unanswered.remove(line)
                best.pop(line, None)
                yield line, answer
            elif line not in best or answer.outcome.rank > best[line].rank:
                best[line] = _Position(answer.outcome.rank, number, text_line)
    for number, file in enumerate(settled.files):
        text_lines = {position.text_line for position in best.values() if position.file == number}
        for text in _lines_at(folder, file, text_lines):
            result = read(text)
            assert result is not None
            yield result
    for line in unanswered - best.keys():
        yield line, MISSING


def read_unsuccessful(
    folder: Folder, shard: Shard, settled: Settled, rows: list[RowIndex], endpoint: str, judge: SchemaJudge | None
) -> Iterator[tuple[int, Answer]]:
    """Yield every answer of a submission except the successes, without its texts, with the row's line.

    The result files are read only if the file of these rows cannot be.

    :raises StagingError: if they have to be read and one of them differs from the one that was collected.
    """
    recorded = load_unsuccessful(folder, settled, len(rows)) if settled.failure is None else None
    if recorded is not None:
        yield from ((row.line, row.answer) for row in recorded)
        return
    for line, answer in read_answers(folder, shard, settled, rows, endpoint, judge):
        if answer.outcome is not Outcome.SUCCEEDED:
            yield line, without_texts(answer)


def read_unsuccessful_with_texts(
    folder: Folder, shard: Shard, settled: Settled, rows: list[RowIndex], endpoint: str, judge: SchemaJudge | None
) -> Iterator[tuple[int, Answer]]:
    """Yield the same answers as `read_unsuccessful`, with their texts and messages.

    Only the lines of these rows are parsed. Files that hold none of them are not read.

    :raises StagingError: if every line has to be read, and a file differs from the one that was collected.
    """
    recorded = load_unsuccessful(folder, settled, len(rows)) if settled.failure is None else None
    if recorded is None:
        for line, answer in read_answers(folder, shard, settled, rows, endpoint, judge):
            if answer.outcome is not Outcome.SUCCEEDED:
                yield line, answer
        return
    read = row_reader(rows, endpoint, judge, bodies=False)
    for number, file in reversed(list(enumerate(settled.files))):  # the error file, which is small, comes last
        for text in _lines_at(folder, file, {row.text_line for row in recorded if row.file == number}):
            result = read(text)
            if result is not None:
                yield result
    yield from ((row.line, MISSING) for row in recorded if row.file < 0)


class _Position(NamedTuple):
    """Where the best line of a row is, and the rank of its outcome."""

    rank: int
    #: number of the file, and of the text line in it, both from 0
    file: int
    text_line: int


def row_reader(
    rows: list[RowIndex], endpoint: str, judge: SchemaJudge | None, *, bodies: bool
) -> Callable[[bytes], tuple[int, Answer] | None]:
    """Return a function that reads the row and the answer of a text line, or None if the line is of no row."""
    read_text, embeddings = line_reader(endpoint, judge, bodies=bodies), endpoint.endswith("/embeddings")
    lines = {row.custom_id: line for line, row in enumerate(rows)}

    def read(text: bytes) -> tuple[int, Answer] | None:
        result = read_text(text) if text.strip() else None
        line = lines.get(result[0]) if result is not None else None
        if result is None or line is None:
            return None
        return line, _check_vector_count(result[1], rows[line].inputs) if embeddings else result[1]

    return read


def verified_lines(folder: Folder, file: CollectedFile, settled: Settled) -> Iterator[bytes]:
    """Yield the lines of a collected file.

    :raises StagingError: after the last line, if the file differs from the one that was collected.
    """
    digest = hashlib.sha256()
    with folder.reader(file.name) as stream:
        for text in stream:
            digest.update(text)
            yield text
    if digest.hexdigest() != file.sha256:
        raise StagingError(
            f"{folder.uri}/{file.name} is not the file that was collected from batch {settled.batch_id}: its "
            "checksum differs. None of its answers were used. Restore the file if you have a backup of staging."
        )


def _lines_at(folder: Folder, file: CollectedFile, numbers: set[int]) -> Iterator[bytes]:
    if numbers:
        with folder.reader(file.name) as stream:
            lines = islice(stream, max(numbers) + 1)
            yield from (text for number, text in enumerate(lines) if number in numbers)


def _check_vector_count(answer: Answer, inputs: int) -> Answer:
    """Return the answer, as incomplete if it does not have one vector for each input."""
    if answer.outcome is not Outcome.SUCCEEDED:
        return answer
    vectors = len(answer.value) if isinstance(answer.value[0], list) else 1
    if vectors == inputs:
        return answer
    return msgspec.structs.replace(
        answer,
        value=None,
        outcome=Outcome.INCOMPLETE,
        error_code="vectors",
        error_message=f"The answer has {format_count(vectors, 'vector')} for {format_count(inputs, 'input')}.",
    )


def _failed_validation(settled: Settled, count: int) -> Iterator[tuple[int, Answer]]:
    """Yield answers for a batch that failed validation, which means that none of its requests ran.

    The lines that the provider rejected have failed for good. The others may be retried, but only if at least one
    rejected line is in the shard. Every retry round is then smaller than the one before. Otherwise a provider that
    names lines which do not exist would get the same batch forever.
    """
    rejected_lines = {line: message for line, message in settled.line_errors.items() if 0 <= line < count}
    unsent_answer = Answer(
        Outcome.FAILED,
        error_code="batch_failed",
        error_message=f"The batch failed validation, so this request did not run: {settled.message}",
        transient=bool(rejected_lines),
    )
    for line in range(count):
        message = rejected_lines.get(line)
        yield (
            line,
            Answer(Outcome.FAILED, error_code="invalid_line", error_message=message) if message else unsent_answer,
        )
