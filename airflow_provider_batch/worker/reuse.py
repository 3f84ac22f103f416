"""Rendered rows, before they are sealed, against the answers of an earlier job.

Which answers are wanted is known only when every row is rendered, and a row that has none must then be asked; so the
rows wait in a file in staging while the results table is read once. Neither is held in memory. The file, as large as
all shards together, is removed once its rows have passed, or the build has failed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.requests.render import Request
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.sealing.reused_answers import ReusedAnswer, ReusedAnswerWriter
from airflow_provider_batch.core.sealing.sealer import Sealer
from airflow_provider_batch.warehouse.reused_table import ReusedTable


class Rendered(NamedTuple):
    """A row on its way into a shard."""

    request: Request
    #: values of the carried columns
    carry: list[Any]
    #: of the row in the result of the SQL, from 1
    number: int


class _Waiting(msgspec.Struct, array_like=True):
    """A rendered row as it lies in the file."""

    custom_id: str
    model: str
    body: msgspec.Raw
    inputs: int
    carry: list[Any]
    number: int


def with_reused_answers(
    rendered: Iterable[Rendered],
    table: ReusedTable,
    sealer: Sealer,
    folder: Folder,
    prefix: str,
    judge: SchemaJudge | None,
) -> Generator[Rendered]:
    """The rows as they came, once the sealer knows which of them have an answer in the table."""
    name = f"{prefix}/rendered.jsonl"
    try:
        with folder.writer(name) as file:
            for request, carry, number in rendered:
                sealer.register(request)
                waiting = _Waiting(
                    request.custom_id, request.model, msgspec.Raw(request.body), request.inputs, carry, number
                )
                file.write(msgspec.json.encode(waiting) + b"\n")
        known = ReusedAnswerWriter(folder, prefix, sealer.request_index, sealer.endpoint, judge, sealer.reused_files)
        for sha256, output, finish_reason, model, batch_id in table:
            if isinstance(sha256, str):
                known.add(ReusedAnswer(sha256, output, _text(finish_reason), _text(model), _text(batch_id)))
        sealer.reuse(known.finish())
        decoder = msgspec.json.Decoder(_Waiting)
        with folder.reader(name) as rows:
            for line in rows:
                row = decoder.decode(line)
                yield Rendered(Request(row.custom_id, row.model, bytes(row.body), row.inputs), row.carry, row.number)
    finally:
        folder.remove(name)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
