r"""Reads the collected files of a settled submission as one answer per row of its shard.

Every row of the shard gets exactly one answer, in no particular order. If several lines have the same custom_id, the
first one counts. Lines whose custom_id is not in the shard are ignored. A row without a readable line is `missing`.

Files are read as bytes, because Python splits bytes at \n only: JSON text may contain U+2028, U+0085 and other
characters at which it would split text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from airflow_provider_batch.core.answers.fast_lines import line_reader
from airflow_provider_batch.core.answers.outcome import MISSING, Answer, Outcome
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import StagingError


def read_rows(folder: Folder, shard: Shard) -> list[RowIndex]:
    """Return the index of a shard, one entry per line of its input file, in that order."""
    decoder = msgspec.json.Decoder(RowIndex)
    with folder.reader(shard.index_file) as index:
        return [decoder.decode(line) for line in index]


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
    lines = {row.custom_id: line for line, row in enumerate(rows)}
    read, embeddings = line_reader(endpoint, judge, bodies=bodies), endpoint.endswith("/embeddings")
    for file in settled.files:
        digest = hashlib.sha256()
        with folder.reader(file.name) as stream:
            for text in stream:
                digest.update(text)
                result = read(text) if text.strip() else None
                if result is None:
                    continue
                custom_id, answer = result
                line = lines.pop(custom_id, None)
                if line is not None:
                    yield line, _check_vector_count(answer, rows[line].inputs) if embeddings else answer
        if digest.hexdigest() != file.sha256:
            raise StagingError(
                f"{folder.uri}/{file.name} is not the file that was collected from batch {settled.batch_id}: its "
                "checksum differs. None of its answers were used. Restore the file if you have a backup of staging."
            )
    for line in lines.values():
        yield line, MISSING


def _check_vector_count(answer: Answer, inputs: int) -> Answer:
    """Return the answer, as incomplete if it does not have one vector for each input."""
    if answer.outcome is not Outcome.SUCCEEDED:
        return answer
    vectors = len(answer.value) if isinstance(answer.value[0], list) else 1
    if vectors == inputs:
        return answer
    return msgspec.structs.replace(
        answer,
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
