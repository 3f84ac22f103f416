"""Compares rendered rows with the answers of an earlier job before they are sealed.

The needed answers are known only after every row is rendered, and a row without an answer still has to be sent. The
rendered rows therefore wait in a file in staging while the results table is read once. Neither is held in memory. The
file is as large as all shards together. It is removed when its rows have been read back or the build has failed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.requests.render import Problem, Request
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.reused_answers import ReusedAnswer, ReusedAnswerWriter
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.warehouse.reused_table import ReusedTable


class RenderedRow(NamedTuple):
    """A row on its way into a shard."""

    request: Request
    #: values of the carried columns
    carry: list[Any]
    #: number of the row, from 1
    number: int


class _StoredRow(msgspec.Struct, array_like=True):
    """A rendered row as a line of the file."""

    custom_id: str
    model: str
    body: msgspec.Raw
    inputs: int
    carry: list[Any]
    number: int
    files: tuple[str, ...] = ()
    problem: Problem | None = None


def with_reused_answers(
    rows: Iterable[RenderedRow],
    table: ReusedTable,
    sealer: Sealer,
    folder: Folder,
    prefix: str,
    judge: SchemaJudge | None,
) -> Generator[RenderedRow]:
    """Yield the rows unchanged, once the sealer knows which of them have an answer in the table."""
    name = f"{prefix}/rendered.jsonl"
    try:
        with folder.writer(name) as file:
            for request, carry, number in rows:
                if request.problem is None:
                    sealer.register(request)
                row = _StoredRow(
                    request.custom_id,
                    request.model,
                    msgspec.Raw(request.body),
                    request.inputs,
                    carry,
                    number,
                    request.files,
                    request.problem,
                )
                file.write(msgspec.json.encode(row) + b"\n")
        writer = ReusedAnswerWriter(folder, prefix, sealer.request_index, sealer.endpoint, judge, sealer.reused_files)
        for sha256, output, finish_reason, model, batch_id in table:
            if isinstance(sha256, str):
                writer.add(ReusedAnswer(sha256, output, _text(finish_reason), _text(model), _text(batch_id)))
        sealer.reuse(writer.finish())
        decoder = msgspec.json.Decoder(_StoredRow)
        with folder.reader(name) as lines:
            for line in lines:
                row = decoder.decode(line)
                request = Request(
                    row.custom_id, row.model, bytes(row.body), row.inputs, files=row.files, problem=row.problem
                )
                yield RenderedRow(request, row.carry, row.number)
    finally:
        folder.remove(name)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
