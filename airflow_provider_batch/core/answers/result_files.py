r"""The collected files of a settled try, read as one answer per row of its shard.

Every row of the shard gets exactly one answer, in any order: a line that names a row twice counts once, a line that
names no row of the shard is passed over, and a row without a readable line is `missing`. Files are read as bytes, which
Python splits on \n only: JSON text may hold U+2028, U+0085 and the like.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from airflow_provider_batch.core.answers.fast_lines import line_reader
from airflow_provider_batch.core.answers.outcome import MISSING, Answer, Outcome
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import RowIndex, Shard
from airflow_provider_batch.core.ledger.records import Settled
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import StagingError


def read_rows(folder: Folder, shard: Shard) -> list[RowIndex]:
    """The index of a shard, in the order of its input file: at most one shard's worth in memory."""
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
    """(line in the shard, its answer) for every row of the shard, each once.

    :param bodies: whether answers hold their body; else most do without.
    :raises StagingError: at the end of a file that is not what was collected.
    """
    if settled.failure is not None:
        yield from _failed_validation(settled, len(rows))
        return
    waiting = {row.custom_id: line for line, row in enumerate(rows)}
    read, embeddings = line_reader(endpoint, judge, bodies=bodies), endpoint.endswith("/embeddings")
    for file in settled.files:
        digest = hashlib.sha256()
        with folder.reader(file.name) as stream:
            for text in stream:
                digest.update(text)
                found = read(text) if text.strip() else None
                line = waiting.pop(found[0], None) if found else None
                if found and line is not None:
                    yield line, _of_inputs(found[1], rows[line].inputs) if embeddings else found[1]
        if digest.hexdigest() != file.sha256:
            raise StagingError(
                f"{folder.uri}/{file.name} is not the file that was collected from batch {settled.batch_id}: its "
                "checksum differs. Nothing of it was landed. Put back the file if you have a copy of staging."
            )
    for line in waiting.values():
        yield line, MISSING


def _of_inputs(answer: Answer, inputs: int) -> Answer:
    """An embedding answer that does not hold one vector for each input is incomplete."""
    if answer.outcome is not Outcome.SUCCEEDED:
        return answer
    vectors = len(answer.value) if isinstance(answer.value[0], list) else 1
    if vectors == inputs:
        return answer
    return msgspec.structs.replace(
        answer,
        outcome=Outcome.INCOMPLETE,
        error_code="vectors",
        error_message=f"{vectors} vectors came back for {inputs} inputs.",
    )


def _failed_validation(settled: Settled, count: int) -> Iterator[tuple[int, Answer]]:
    """Nothing of the batch ran: the lines at fault failed, and the rest was never asked.

    The rest may be asked again only if some line of the shard is to blame, so that every such wave is smaller than
    the one before; a provider that names lines which do not exist would be asked the same for ever.
    """
    blamed = {line: message for line, message in settled.line_errors.items() if 0 <= line < count}
    never_asked = Answer(
        Outcome.FAILED,
        error_code="batch_failed",
        error_message=f"The batch failed validation, so this row was never asked: {settled.message}",
        transient=bool(blamed),
    )
    for line in range(count):
        message = blamed.get(line)
        yield (
            line,
            Answer(Outcome.FAILED, error_code="invalid_line", error_message=message) if message else never_asked,
        )
