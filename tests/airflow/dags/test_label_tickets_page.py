"""What the page of `label_tickets` says is so: its query, and its table of costs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_batch.demo import tickets
from tests.airflow.dags.conftest import blocks, check_costs


def test_the_query_counts_right_labels_and_the_run_costs_what_the_page_says(
    warehouse_of: Callable[..., Any], run_ready: Callable[..., Any], billed: Callable[[], dict[str, int]]
) -> None:
    def seed(path: Path) -> None:
        tickets.seed(path, tickets.load())

    warehouse = warehouse_of("sqlite", seed)

    ran = run_ready("label_tickets")

    assert ran.state == "success"
    check_costs("label_tickets", ran.returned["land"])
    (query,) = blocks("label_tickets", "sql")
    ((labelled, right),) = warehouse.execute(query)
    assert labelled == ran.returned["land"]["sent"]
    assert 0 < right < 1
