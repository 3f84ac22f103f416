"""A row on its way into a shard."""

from __future__ import annotations

from typing import Any

import msgspec

from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.requests.request import Request


# gc=False here and in `Line`: objects that the garbage collector tracks make it run, which costs more than they do.
class RenderedRow(msgspec.Struct, frozen=True, gc=False):
    """A row that was rendered into a request."""

    request: Request
    #: request hash, hex
    sha256: str
    #: values of the carried columns
    carry: list[Any]
    #: number of the row in the result of the query, from 1
    number: int

    def to_index(self) -> RowIndex:
        """Return the row as a line of an index, without its tokens."""
        return RowIndex(self.request.custom_id, self.sha256, self.carry, self.number, self.request.inputs)
