"""What the tests of the peers share: a DAG of one's own, and what happens on the server while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from openai.types import Batch

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of


def a_dag() -> Any:
    """A DAG of its own."""
    from airflow.sdk import DAG

    return DAG(f"peer_{uuid4().hex[:8]}", schedule=None)


class Platform:
    """A server with admin routes as one test sees it: its batches are those created since."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.client = client_of(server)
        self._before = {batch.id for batch in self.client.batches.list(limit=100)}

    def batches(self) -> list[Batch]:
        """The batches of this test."""
        return [batch for batch in self.client.batches.list(limit=100) if batch.id not in self._before]

    def batch(self, *, status: str, completed: int | None = None) -> Batch:
        """The only batch of this test, once it is in this state and has so many answers."""
        end = time.monotonic() + 60
        while True:
            batches = self.batches()
            assert len(batches) < 2, f"more than one batch: {batches}"
            for batch in batches:
                answered = batch.request_counts.completed if batch.request_counts else 0
                if batch.status == status and completed in (None, answered):
                    return batch
            assert time.monotonic() < end, f"waited 60 s for a batch that is {status}: {batches}"
            time.sleep(0.02)

    def answer_half(self) -> Batch:
        """On a slow server: let two of four requests be answered."""
        self.batch(status="in_progress")
        self.server.advance(2500)
        return self.batch(status="in_progress", completed=2)

    def expire_half_done(self) -> None:
        """On a slow server: let the window end when two of four requests are answered."""
        self.answer_half()
        self.server.advance(400)
        self.batch(status="expired")

    def cancel_half_done(self) -> None:
        """On a slow server: cancel when two of four requests are answered."""
        self.client.batches.cancel(self.answer_half().id)
        self.batch(status="cancelled")


@contextmanager
def meanwhile(act: Callable[[], object]) -> Iterator[None]:
    """Let something happen to the server while a DAG runs; if it cannot, the test fails."""
    with ThreadPoolExecutor(1) as beside:
        acting = beside.submit(act)
        yield
        acting.result()
