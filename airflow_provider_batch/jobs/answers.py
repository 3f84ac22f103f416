"""The collected files of a settled try, read as one answer per row of its shard.

Every row of the shard gets exactly one answer, in any order: a line that names a row twice counts once, a line that
names no row of the shard is passed over, and a row without a readable line is `missing`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from airflow_provider_batch.jobs.folder import Folder
from airflow_provider_batch.jobs.job import RowIndex, Shard
from airflow_provider_batch.jobs.ledger import Settled
from airflow_provider_batch.jobs.outcome import MISSING, Answer, Outcome, read_line
from airflow_provider_batch.jobs.schema import SchemaJudge

_CHUNK = 1 << 20


def read_rows(folder: Folder, shard: Shard) -> list[RowIndex]:
    """The index of a shard, in the order of its input file: at most one shard's worth in memory."""
    decoder = msgspec.json.Decoder(RowIndex)
    with folder.reader(shard.rows) as index:
        return [decoder.decode(line) for line in lines(index)]


def read_answers(
    folder: Folder,
    shard: Shard,
    settled: Settled,
    rows: list[RowIndex],
    endpoint: str,
    judge: SchemaJudge | None,
) -> Iterator[tuple[int, Answer]]:
    """(line in the shard, its answer) for every row of the shard, each once."""
    if settled.failure is not None:
        yield from _failed_validation(settled, len(rows))
        return
    waiting = {row.custom_id: line for line, row in enumerate(rows)}
    for file in settled.files:
        with folder.reader(file.name) as stream:
            for text in lines(stream):
                found = read_line(text, endpoint, judge)
                line = waiting.pop(found[0], None) if found else None
                if found and line is not None:
                    yield line, found[1]
    for line in waiting.values():
        yield line, MISSING


def lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines of a file, split on \\n only (JSON text may hold U+2028, U+0085 and the like), blank ones left out."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _failed_validation(settled: Settled, count: int) -> Iterator[tuple[int, Answer]]:
    """Nothing of the batch ran: the lines at fault failed, and the rest was never asked.

    The rest may be asked again only if some line of the shard is to blame, so that every such wave is smaller than
    the one before; a provider that names lines which do not exist would be asked the same for ever.
    """
    blamed = {line: message for line, message in settled.lines.items() if 0 <= line < count}
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
