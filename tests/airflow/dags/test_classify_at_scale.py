"""`classify_at_scale` labels texts with two models in one job, and reports their cost and agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo import tickets
from tests.airflow.dags.conftest import blocks, check_costs
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult

WITH_TEXT = [ticket for ticket in tickets.load() if (ticket.title + ticket.body).strip()]


def seed(path: Path) -> None:
    tickets.seed(path, tickets.load())


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", seed)


def check(landing: dict[str, Any], rows: list[tuple[Any, ...]], summary: list[tuple[Any, ...]]) -> None:
    """Check what must hold in every warehouse.

    :param rows: ticket, opinion, size, model, outcome, category, cost, gold category.
    """
    second_opinions = [ticket.id for number, ticket in enumerate(WITH_TEXT, 1) if number % 10 == 0]
    assert Counter(row[1] for row in rows) == {"first": len(WITH_TEXT), "second": len(second_opinions)}
    assert sorted(row[0] for row in rows if row[1] == "second") == second_opinions
    assert {row[4] for row in rows} == {"succeeded"}
    long_tickets = {ticket.id for ticket in WITH_TEXT if len(ticket.title) + len(ticket.body) > 250}
    for ticket, opinion, size, model, *_ in rows:
        assert size == ("large" if (ticket in long_tickets) == (opinion == "first") else "small")
        assert model.endswith({"large": "gpt-5-mini", "small": "gpt-5-nano"}[size])

    # The local server counts tokens differently, and the canary costs the standard price.
    assert 0.9 * landing["estimate"]["low_usd"] < float(landing["cost_usd"]) < 1.1 * landing["estimate"]["high_usd"]
    assert [row[2] for row in summary] == ["large", "small"]
    assert {row[0] for row in summary} == {landing["job_uid"]}
    for _, _, size, _, answers, succeeded, cost, accuracy, opinion_count, agreement in summary:
        size_rows = [row for row in rows if row[2] == size]
        assert answers == succeeded == len(size_rows)
        assert float(cost) == pytest.approx(sum(float(row[6]) for row in size_rows))
        assert float(accuracy) == pytest.approx(sum(row[5] == row[7] for row in size_rows) / answers, abs=1e-4)
        # The offline responder gives the same answer for every model.
        assert (opinion_count, float(agreement)) == (len(second_opinions), 1)
    assert sum(float(row[6]) for row in summary) == pytest.approx(float(landing["cost_usd"]))


ROWS_SQL = "SELECT ticket, opinion, size, model, outcome, category, cost_usd, gold_category FROM ticket_categories"
SUMMARY_SQL = "SELECT * FROM label_summary ORDER BY size"


@pytest.mark.parametrize("kind", KINDS)
def test_each_ticket_is_sent_to_its_model_and_every_tenth_to_both(
    kind: str,
    warehouse_of: Callable[..., Warehouse],
    run_example: Callable[..., DagRunResult],
    count_calls: Callable[[], dict[str, int]],
) -> None:
    warehouse = warehouse_of(kind, seed)

    result = run_example("classify_at_scale")

    assert result.errors == {}
    assert count_calls() == {"upload": 2, "create": 2, "synchronous": 10}
    landing = result.return_values["batch_job.land"]
    check(landing, warehouse.execute(ROWS_SQL), warehouse.execute(SUMMARY_SQL))
    check_costs("classify_at_scale", landing)
    (sql,) = blocks("classify_at_scale", "sql")
    assert [row[0] for row in warehouse.execute(sql)] == ["large", "small"]


@pytest.mark.usefixtures("warehouse")
@pytest.mark.parametrize(
    ("changes", "conf", "words"),
    [
        ({"sql/classify.sql": ("WITH texts", "DELETE FROM tickets; WITH texts")}, {}, "it begins with DELETE"),
        ({"classify_at_scale.py": ("row.title", "row.titel")}, {}, "Did you mean 'title'?"),
        ({}, {"large": "gpt-99"}, "no price is known for gpt-99"),
        ({}, {"table": "labels; DROP TABLE tickets"}, "table"),
        ({}, {"table": 'labels"'}, "table"),
        ({}, {"long_text": "1 OR 1=1"}, "long_text"),
    ],
    ids=["SQL that writes", "missing column", "unknown model", "semicolon", "quote", "SQL for a number"],
)
def test_invalid_input_is_rejected_before_anything_is_sent(
    changes: dict[str, tuple[str, str]], conf: dict[str, object], words: str, run_rejected: Callable[..., str]
) -> None:
    assert words in run_rejected("classify_at_scale", changes, **conf)
