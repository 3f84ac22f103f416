"""Helpers for the tests of other providers' operators: a new DAG, and control over the server while the DAG runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of

if TYPE_CHECKING:
    from openai.types import Batch


def new_dag() -> Any:
    """Return a DAG with a unique id."""
    from airflow.sdk import DAG

    return DAG(f"peer_{uuid4().hex[:8]}", schedule=None)


class Platform:
    """A server with admin routes, and the batches that one test created on it."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.client = client_of(server)
        self._earlier_ids = {batch.id for batch in self.client.batches.list(limit=100)}

    def batches(self) -> list[Batch]:
        """Return the batches that were created since the start of this test."""
        return [batch for batch in self.client.batches.list(limit=100) if batch.id not in self._earlier_ids]

    def batch(self, *, status: str, completed: int | None = None) -> Batch:
        """Wait until the only batch of this test has this status and number of answers, and return it."""
        deadline = time.monotonic() + 60
        while True:
            batches = self.batches()
            assert len(batches) < 2, f"There is more than one batch: {batches}"
            for batch in batches:
                answer_count = batch.request_counts.completed if batch.request_counts else 0
                if batch.status == status and completed in (None, answer_count):
                    return batch
            assert time.monotonic() < deadline, f"Waited 60 s for a batch with status {status}: {batches}"
            time.sleep(0.02)

    def answer_half(self) -> Batch:
        """Advance a slow server until two of four requests are answered."""
        self.batch(status="in_progress")
        self.server.advance(2500)
        return self.batch(status="in_progress", completed=2)

    def expire_half_done(self) -> None:
        """Advance a slow server until the window has ended with two of four requests answered."""
        self.answer_half()
        self.server.advance(400)
        self.batch(status="expired")

    def cancel_half_done(self) -> None:
        """Cancel the batch on a slow server when two of four requests are answered."""
        self.client.batches.cancel(self.answer_half().id)
        self.batch(status="cancelled")
