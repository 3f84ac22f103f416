"""Compares rendered rows with the answers of an earlier job before they are sealed.

The needed answers are known only after every row is rendered, and a row without an answer still has to be sent. The
rendered rows therefore wait in a file in staging while the results table is read once. Neither is held in memory. The
file is as large as all shards together. It is removed when its rows have been read back or the build has failed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from itertools import islice
from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.requests.request import Problem, Request
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.rendered_row import RenderedRow
from airflow_provider_batch.core.sealing.reused_answers import ReusedAnswer, ReusedAnswerWriter
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.warehouse.reused_table import ReusedTable


class _StoredRow(msgspec.Struct, array_like=True):
    """A rendered row as a line of the file."""

    custom_id: str
    model: str
    body: msgspec.Raw
    inputs: int
    sha256: str
    carry: list[Any]
    number: int
    files: tuple[str, ...] = ()
    problem: Problem | None = None


_decoder = msgspec.json.Decoder(_StoredRow)


def with_reused_answers(
    chunks: Iterable[list[RenderedRow]],
    table: ReusedTable,
    sealer: Sealer,
    folder: Folder,
    prefix: str,
    judge: SchemaJudge | None,
) -> Generator[list[RenderedRow]]:
    """Yield the chunks of rows unchanged, once the sealer knows which rows have an answer in the table."""
    name = f"{prefix}/rendered.jsonl"
    #: number of rows of each chunk
    sizes: list[int] = []
    try:
        with folder.writer(name) as file:
            for rows in chunks:
                sealer.register(rows)
                file.write(b"".join(map(_encode, rows)))
                sizes.append(len(rows))
        writer = ReusedAnswerWriter(folder, prefix, sealer.request_index, sealer.endpoint, judge, sealer.reused_files)
        for sha256, output, finish_reason, model, batch_id in table:
            if isinstance(sha256, str):
                writer.add(ReusedAnswer(sha256, output, _text(finish_reason), _text(model), _text(batch_id)))
        sealer.reuse(writer.finish())
        with folder.reader(name) as lines:
            for size in sizes:
                yield list(map(_decode, islice(lines, size)))
    finally:
        folder.remove(name)


def _encode(row: RenderedRow) -> bytes:
    request = row.request
    stored_row = _StoredRow(
        request.custom_id,
        request.model,
        msgspec.Raw(request.body),
        request.inputs,
        row.sha256,
        row.carry,
        row.number,
        request.files,
        request.problem,
    )
    return msgspec.json.encode(stored_row) + b"\n"


def _decode(line: bytes) -> RenderedRow:
    row = _decoder.decode(line)
    request = Request(row.custom_id, row.model, bytes(row.body), row.inputs, files=row.files, problem=row.problem)
    return RenderedRow(request, row.sha256, row.carry, row.number)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
