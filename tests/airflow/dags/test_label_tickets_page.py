"""The query and the cost table on the page of `label_tickets` are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from airflow_provider_batch.demo import tickets
from tests.airflow.dags.conftest import blocks, check_costs


def test_the_query_on_the_page_works_and_the_run_costs_what_the_page_says(
    warehouse_of: Callable[..., Any], run_example: Callable[..., Any], count_calls: Callable[[], dict[str, int]]
) -> None:
    def seed(path: Path) -> None:
        tickets.seed(path, tickets.load())

    warehouse = warehouse_of("sqlite", seed)

    result = run_example("label_tickets")

    assert result.state == "success"
    check_costs("label_tickets", result.return_values["land"])
    (query,) = blocks("label_tickets", "sql")
    ((label_count, accuracy),) = warehouse.execute(query)
    assert label_count == result.return_values["land"]["sent"]
    assert 0 < accuracy < 1
