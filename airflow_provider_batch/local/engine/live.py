"""A batch that has not ended, as the engine keeps it in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from airflow_provider_batch.local.api.objects import Batch, Status
from airflow_provider_batch.local.api.tokens import Tokens
from airflow_provider_batch.local.faults import Kind
from airflow_provider_batch.local.storage.journal import Ending, Journal
from airflow_provider_batch.local.storage.record import Record


class LiveBatch:
    """A batch that has not ended: its record, its journal, and the counts from the journal."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.record = record
        self.input = folder / "input.jsonl"
        self.journal = Journal(folder / "answers")
        #: done as soon as a client has cancelled the batch
        self.cancellation: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if record.batch.status is Status.CANCELLING:
            self.cancellation.set_result(None)
        #: the numbers of the input lines that have an answer
        self.answered_lines: set[int] = set()
        self.completed = 0
        self.failed = 0
        self.tokens = Tokens()

    def count_journal(self) -> None:
        """Count the answers that the journal already contains."""
        for entry in self.journal.entries():
            self.count(entry.line, entry.ending, entry.tokens)

    def count(self, line: int, ending: Ending, tokens: Tokens) -> None:
        """Add one answered line to the counts."""
        self.answered_lines.add(line)
        self.completed += ending is Ending.SUCCEEDED
        self.failed += ending is Ending.FAILED
        self.tokens = self.tokens.plus(tokens)

    @property
    def batch(self) -> Batch:
        """The batch with its current counts."""
        batch = self.record.batch
        counts = msgspec.structs.replace(batch.request_counts, completed=self.completed, failed=self.failed)
        return msgspec.structs.replace(batch, request_counts=counts)

    def has_fault(self, kind: Kind) -> bool:
        """Return whether a fault of this kind hits the whole batch."""
        return self.record.fault is not None and self.record.fault.kind is kind

    @property
    def cancelled(self) -> bool:
        """Whether a client has cancelled the batch."""
        return self.cancellation.done()
