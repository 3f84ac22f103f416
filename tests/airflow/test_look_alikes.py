"""A complete job against the dialect of each provider: rows that succeed, that are refused, and that are retried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batch.local.dialects import DIALECTS
from tests.airflow.jobs import Ticket, query, run_job

#: dialects whose error lines have no HTTP status, so that a permanent failure looks like one that may pass
WITHOUT_STATUS = ("doubleword", "ogx")


@pytest.fixture
def tickets() -> list[Ticket]:
    return [
        ("plain", "A ticket", "The invoice is wrong", "billing"),
        ("refused", "A ticket", "[[refuse]]", "other"),
        ("retried", "A ticket", "[[fail:429:once]]", "other"),
        ("invalid", "A ticket", "[[fail:400]]", "other"),
    ]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_row_lands_with_its_outcome(dialect: str, serve: Callable[..., object], warehouse: Path) -> None:
    serve(dialect, dialects=(dialect,))

    result = run_job(wait={"row_retry_delay": 0, "poke_interval": 0.2})

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT custom_id, outcome, attempt FROM answers ORDER BY 1") == [
        ("invalid", "failed", 3 if dialect in WITHOUT_STATUS else 1),
        ("plain", "succeeded", 1),
        ("refused", "refused", 1),
        ("retried", "succeeded", 2),
    ]
