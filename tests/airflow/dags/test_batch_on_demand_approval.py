"""A person approves or rejects a run of batch_on_demand, on a full Airflow, through the REST API of its UI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.airflow.demo_airflow import DemoAirflow, await_approval_request, demo_airflow
from tests.airflow.jobs import query
from tests.airflow.standalone import Run

pytestmark = pytest.mark.standalone


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoAirflow]:
    with demo_airflow(tmp_path_factory.mktemp("on-demand"), "batch_on_demand") as airflow:
        yield airflow


def decide(run: Run, decision: str) -> None:
    """Do what the buttons *Approve* and *Reject* do."""
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/batch_job.approve/-1/hitlDetails"
    answer = run.airflow.client.patch(path, json={"chosen_options": [decision], "params_input": {}})
    answer.raise_for_status()


def test_after_a_rejection_nothing_is_uploaded_and_the_report_says_what_was_spent(demo: DemoAirflow) -> None:
    run = demo.airflow.trigger("batch_on_demand", approve_above_usd=0, table="rejected")
    await_approval_request(run)
    decide(run, "Reject")

    assert run.await_end() == "success"
    assert {task: run.task(f"batch_job.{task}")["state"] for task in ("submit", "wait", "land")} == {
        "submit": "success",
        "wait": "skipped",
        "land": "skipped",
    }
    assert run.xcom("report").startswith("Rejected: only 5 requests were sent, to see their answers. Their cost: ")
    assert demo.count_calls() == [0, 0, 5]
    assert query(demo.warehouse, "SELECT count(*) FROM rejected") == [(0,)]


def test_the_approval_shows_the_estimate_and_the_first_answers_and_then_the_rows_land(demo: DemoAirflow) -> None:
    sql = "SELECT id, '```' AS title, '# Free of charge ' || id AS body FROM tickets ORDER BY id"
    run = demo.airflow.trigger("batch_on_demand", approve_above_usd=0, table="approved", sql=sql, max_rows=5)
    details = await_approval_request(run)

    calls_before = demo.count_calls()
    assert re.fullmatch(r"batch_on_demand: 5 rows, .*\$0\.\d+.*\. Send the other 3 requests\?", details["subject"])
    decision = details["body"]
    links, _, facts = decision.partition("\n\n")
    targets = dict(re.findall(r"\[(.+?)\]\((/.+?)\)", links))
    assert "batch_job.submit" in targets["The job"]
    assert quote(run.run_id, safe="") in targets["The job"]
    assert targets["Its first requests in full"] == (
        f"/dags/batch_on_demand/runs/{quote(run.run_id, safe='')}/tasks/batch_job.submit/xcom"
    )
    assert facts.startswith("- **Cost: ")
    assert "- This range is by the usage of 2 answers. Before that, it was " in facts
    assert "**, ceiling $1.00" in decision
    assert "- **Requests: 5** in 2 shards" in decision
    assert "- **Table:** ` approved `" in decision
    assert sql in decision
    assert decision.count("\nAnswer to ` ") == 2
    assert "There are more rows, which will not be sent" in decision
    assert "2 requests were sent already, to see what comes back: 2 succeeded. That cost " in decision
    assert "Its answer: **succeeded**, " not in decision
    assert "Its answer: **succeeded**, " in run.xcom("batch_job.submit", key="preview_text")
    assert "````text\n" in run.xcom("batch_job.submit", key="preview_text")
    assert run.task("batch_job.wait").get("state") is None
    decide(run, "Approve")

    assert run.await_end() == "success"
    assert query(demo.warehouse, "SELECT count(*), min(outcome), max(outcome) FROM approved") == [
        (5, "succeeded", "succeeded")
    ]
    assert run.xcom("report").startswith("Landed in approved: 5 succeeded. The cost was $0.0")
    assert demo.count_calls() != calls_before
