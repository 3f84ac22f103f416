"""What a person decides about a run of batch_on_demand, on a whole Airflow, through the REST API of its UI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.airflow.demo_airflow import DemoAirflow, demo_airflow, question
from tests.airflow.jobs import query
from tests.airflow.standalone import Run

pytestmark = pytest.mark.standalone


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoAirflow]:
    with demo_airflow(tmp_path_factory.mktemp("on-demand"), "batch_on_demand") as started:
        yield started


def decide(run: Run, decision: str) -> None:
    """Press *Approve* or *Reject*."""
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/approve/-1/hitlDetails"
    answer = run.airflow.client.patch(path, json={"chosen_options": [decision], "params_input": {}})
    answer.raise_for_status()


def test_a_refusal_asks_nothing_and_the_run_says_so(demo: DemoAirflow) -> None:
    run = demo.airflow.trigger("batch_on_demand", approve_above_usd=0, table="refused")
    question(run)
    decide(run, "Reject")

    assert run.await_end() == "success"
    assert {task: run.task(f"batch_job.{task}")["state"] for task in ("submit", "wait", "land")} == {
        "submit": "skipped",
        "wait": "skipped",
        "land": "skipped",
    }
    assert run.xcom("report") == "Refused: nothing was asked, nothing is billed."
    assert demo.paid() == [0, 0, 0]
    assert query(demo.warehouse, "SELECT name FROM sqlite_master WHERE name = 'refused'") == []


def test_an_approval_follows_on_the_estimate_and_the_first_requests_and_the_rows_land(demo: DemoAirflow) -> None:
    sql = "SELECT id, '```' AS title, '# Free of charge' AS body FROM tickets ORDER BY id"
    run = demo.airflow.trigger("batch_on_demand", approve_above_usd=0, table="approved", sql=sql, max_rows=5)
    asked = question(run)

    before = demo.paid()
    assert asked["body"].startswith("**1 request** in 1 shard")
    assert "**, ceiling $1.00" in asked["body"]
    assert "The query returns more rows, which will not be sent" in asked["body"]
    assert "````text\n" in asked["body"]
    assert run.task("batch_job.submit").get("state") is None
    decide(run, "Approve")

    assert run.await_end() == "success"
    assert query(demo.warehouse, "SELECT count(*), min(outcome), max(outcome) FROM approved") == [
        (5, "succeeded", "succeeded")
    ]
    assert run.xcom("report").startswith("Landed in approved: 5 succeeded. It cost 0.0")
    assert demo.paid() != before
