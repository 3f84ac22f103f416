"""A batch that has not ended, as the engine holds it in memory."""

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
    """A batch that has not ended: its record, its journal, and what is counted from it."""

    def __init__(self, record: Record, folder: Path) -> None:
        self.record = record
        self.input = folder / "input.jsonl"
        self.journal = Journal(folder / "answers")
        #: done when a person cancels
        self.stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if record.batch.status is Status.CANCELLING:
            self.stop.set_result(None)
        self.answered_lines: set[int] = set()
        self.completed = 0
        self.failed = 0
        self.tokens = Tokens()

    def recall(self) -> None:
        """Count what the journal already holds."""
        for entry in self.journal.entries():
            self.count(entry.line, entry.ending, entry.tokens)

    def count(self, line: int, ending: Ending, tokens: Tokens) -> None:
        """Take one answered line into the counts."""
        self.answered_lines.add(line)
        self.completed += ending is Ending.SUCCEEDED
        self.failed += ending is Ending.FAILED
        self.tokens = self.tokens.plus(tokens)

    @property
    def batch(self) -> Batch:
        """The batch with its counts as of now."""
        batch = self.record.batch
        counts = msgspec.structs.replace(batch.request_counts, completed=self.completed, failed=self.failed)
        return msgspec.structs.replace(batch, request_counts=counts)

    def suffers(self, kind: Kind) -> bool:
        """Whether this goes wrong with the whole batch, on request."""
        return self.record.fault is not None and self.record.fault.kind is kind

    @property
    def stopped(self) -> bool:
        """Whether a person has cancelled."""
        return self.stop.done()
