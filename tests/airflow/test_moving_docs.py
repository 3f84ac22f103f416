"""The code on the pages about moving from other operators runs, and lands an answer for each row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.airflow.jobs import query, run_dag

PAGES = Path(__file__).parents[2] / "docs" / "moving"


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("page", "dag_id", "table"),
    [
        ("openai-operator.md", "answer_tickets", "ticket_answers"),
        ("llm-batch-operator.md", "classify_reviews", "review_sentiments"),
    ],
)
def test_the_code_after_the_move_lands_each_row(
    tmp_path: Path, connect: Callable[..., None], page: str, dag_id: str, table: str
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (source,) = re.findall(r"^```python\n(.*?)^```$", (PAGES / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "moved.py").write_text(source, encoding="utf-8")
    warehouse = tmp_path / "warehouse.sqlite"
    connect("warehouse", conn_type="sqlite", host=str(warehouse))
    bag = DagBag(str(tmp_path / "dags"))
    assert bag.import_errors == {}

    assert run_dag(bag.dags[dag_id]).state == "success"

    assert query(warehouse, f"SELECT custom_id, outcome FROM {table} ORDER BY 1") == [
        ("1", "succeeded"),
        ("2", "succeeded"),
    ]
