"""`classify_at_scale`: two models in one job, each for the texts that suit it, their cost and how far they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo import tickets
from tests.airflow.dags.conftest import blocks, check_costs
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import Ran

WITH_TEXT = [ticket for ticket in tickets.load() if (ticket.title + ticket.body).strip()]


def seed(path: Path) -> None:
    tickets.seed(path, tickets.load())


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", seed)


def check(account: dict[str, Any], landed: list[tuple[Any, ...]], summary: list[tuple[Any, ...]]) -> None:
    """What must hold in every warehouse; the rows are ticket, opinion, size, model, outcome, category, cost, gold."""
    second = [ticket.id for number, ticket in enumerate(WITH_TEXT, 1) if number % 10 == 0]
    assert Counter(row[1] for row in landed) == {"first": len(WITH_TEXT), "second": len(second)}
    assert sorted(row[0] for row in landed if row[1] == "second") == second
    assert {row[4] for row in landed} == {"succeeded"}
    long = {ticket.id for ticket in WITH_TEXT if len(ticket.title) + len(ticket.body) > 250}
    for ticket, opinion, size, model, *_ in landed:
        assert size == ("large" if (ticket in long) == (opinion == "first") else "small")
        assert model.endswith({"large": "gpt-5-mini", "small": "gpt-5-nano"}[size])

    # the local server counts tokens in its own way, and the canary costs the standard price
    assert 0.9 * account["estimate"]["low_usd"] < float(account["cost_usd"]) < 1.1 * account["estimate"]["high_usd"]
    assert [row[2] for row in summary] == ["large", "small"]
    assert {row[0] for row in summary} == {account["job_uid"]}
    for _, _, size, _, answers, succeeded, cost, right, twice, agree in summary:
        of_size = [row for row in landed if row[2] == size]
        assert answers == succeeded == len(of_size)
        assert float(cost) == pytest.approx(sum(float(row[6]) for row in of_size))
        assert float(right) == pytest.approx(sum(row[5] == row[7] for row in of_size) / answers, abs=1e-4)
        # offline, whichever model is asked the same text answers the same
        assert (twice, float(agree)) == (len(second), 1)
    assert sum(float(row[6]) for row in summary) == pytest.approx(float(account["cost_usd"]))


LANDED = "SELECT ticket, opinion, size, model, outcome, category, cost_usd, gold_category FROM ticket_categories"
SUMMARY = "SELECT * FROM label_summary ORDER BY size"


@pytest.mark.parametrize("kind", KINDS)
def test_each_ticket_is_asked_of_its_model_and_every_tenth_of_both(
    kind: str,
    warehouse_of: Callable[..., Warehouse],
    run_ready: Callable[..., Ran],
    billed: Callable[[], dict[str, int]],
) -> None:
    warehouse = warehouse_of(kind, seed)

    ran = run_ready("classify_at_scale")

    assert ran.errors == {}
    assert billed() == {"upload": 2, "create": 2, "synchronous": 4}
    account = ran.returned["batch_job.land"]
    check(account, warehouse.execute(LANDED), warehouse.execute(SUMMARY))
    check_costs("classify_at_scale", account)
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
def test_bad_input_is_told_and_nothing_is_paid(
    changes: dict[str, tuple[str, str]], conf: dict[str, object], words: str, refused: Callable[..., str]
) -> None:
    assert words in refused("classify_at_scale", changes, **conf)
