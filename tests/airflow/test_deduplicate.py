"""Duplicates: how many requests reach the provider, and what lands for each row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, client_of, query, run_job

#: three distinct requests in seven rows
TICKETS = [
    ("T-1", "Invoice", "It is wrong", "billing"),
    ("T-2", "Crash", "It does not start", "bug"),
    ("T-3", "Invoice", "It is wrong", "other"),
    ("T-4", "Invoice", "It is wrong", None),
    ("T-5", "Crash", "It does not start", "bug"),
    ("T-6", "Login", "It is refused", "bug"),
    ("T-7", "Invoice", "It is wrong", "billing"),
]


@pytest.fixture
def tickets() -> list[Ticket]:
    return TICKETS


@pytest.fixture
def sent_ids(batch_server: LocalServer) -> Callable[[str], list[str]]:
    """Return the custom_ids of all land_result lines that the server wrote for a job, including retries."""
    client = client_of(batch_server)

    def read_ids(job_uid: str) -> list[str]:
        custom_ids = []
        for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get("job_uid") == job_uid:
                for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                    lines = client.files.content(file_id).content.splitlines()
                    custom_ids += [line.split(b'"custom_id":"')[1].split(b'"')[0].decode() for line in lines]
        return sorted(custom_ids)

    return read_ids


def test_equal_requests_are_sent_once_and_land_for_every_row(
    warehouse: Path, sent_ids: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(carry=["label"])

    assert result.state == "success"
    reference, land_result = result.return_values["submit"], result.return_values["land"]
    assert sent_ids(reference["job_uid"]) == ["T-1", "T-2", "T-6"]
    assert (reference["requests"], reference["sent"], reference["duplicates"]) == (7, 3, 4)
    assert (land_result["requests"], land_result["sent"], land_result["duplicates"]) == (7, 3, 4)
    assert land_result["outcomes"] == {"succeeded": 7}
    rows = query(warehouse, "SELECT custom_id, outcome, output, label, attempt FROM answers ORDER BY custom_id")
    assert [(row[0], row[1], row[3]) for row in rows] == [(t[0], "succeeded", t[3]) for t in TICKETS]
    outputs = {row[0]: row[2] for row in rows}
    assert outputs["T-1"] == outputs["T-3"] == outputs["T-4"] == outputs["T-7"] != outputs["T-2"] == outputs["T-5"]
    assert [row[4] for row in rows] == [1, 1, 0, 0, 0, 1, 0]
    assert float(query(warehouse, "SELECT sum(cost_usd) FROM answers")[0][0]) == pytest.approx(
        float(land_result["cost_usd"])
    )
    assert capfd.readouterr().out.count("7 rows: 3 sent, 4 duplicates") == 2


def test_only_requests_that_are_sent_count_towards_the_estimate_and_the_budget(warehouse: Path) -> None:
    deduplicated = run_job(preview=True).return_values["submit"]
    complete = run_job(preview=True, deduplicate=False).return_values["submit"]

    assert (deduplicated["requests"], complete["requests"]) == (7, 7)
    assert (deduplicated["sent"], complete["sent"]) == (3, 7)
    assert deduplicated["estimate"]["input_tokens"] * 2 < complete["estimate"]["input_tokens"]
    budget = (deduplicated["estimate"]["low_usd"] + complete["estimate"]["low_usd"]) / 2
    assert run_job(max_cost_usd=budget).state == "success"
    assert "Nothing was uploaded" in run_job(max_cost_usd=budget, deduplicate=False).error()


@pytest.mark.parametrize("deduplicate", [False, "False"])
def test_without_deduplication_every_row_is_sent(
    warehouse: Path, sent_ids: Callable[[str], list[str]], deduplicate: bool | str
) -> None:
    result = run_job(deduplicate=deduplicate)

    assert sent_ids(result.return_values["submit"]["job_uid"]) == [ticket[0] for ticket in TICKETS]
    assert (result.return_values["land"]["sent"], result.return_values["land"]["duplicates"]) == (7, 0)
    assert query(warehouse, "SELECT DISTINCT attempt FROM answers") == [(1,)]


def test_a_failed_request_is_retried_once_for_all_its_rows(
    warehouse: Path, sent_ids: Callable[[str], list[str]]
) -> None:
    body = "CASE WHEN title = 'Invoice' THEN '[[fail:500:once]] ' || body ELSE body END"
    result = run_job(sql=f"SELECT id, title, {body} AS body FROM tickets ORDER BY id")

    assert sent_ids(result.return_values["submit"]["job_uid"]) == ["T-1", "T-1", "T-2", "T-6"]
    assert result.return_values["land"]["outcomes"] == {"succeeded": 7}
    assert result.return_values["land"]["retried"] == 1


def test_a_refusal_lands_for_every_row_with_the_request(warehouse: Path) -> None:
    body = "CASE WHEN title = 'Invoice' THEN '[[refuse]] ' || body ELSE body END"
    result = run_job(sql=f"SELECT id, title, {body} AS body FROM tickets ORDER BY id", land={"max_failure_rate": 0.5})

    assert result.states["land"] == "failed"
    assert "4 of 7 rows did not succeed" in result.error("land")
    assert dict(query(warehouse, "SELECT outcome, count(*) FROM answers GROUP BY 1")) == {"refused": 4, "succeeded": 3}


def test_duplicates_are_sent_once_across_shards(warehouse: Path, sent_ids: Callable[[str], list[str]]) -> None:
    result = run_job(limits={"requests": 1})

    assert sent_ids(result.return_values["submit"]["job_uid"]) == ["T-1", "T-2", "T-6"]
    assert result.return_values["submit"]["shards"] == 3
    assert result.return_values["land"]["outcomes"] == {"succeeded": 7}


def test_landing_twice_gives_the_same_table(warehouse: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator
    from tests.airflow.jobs import run_dag

    first = run_job()
    select = "SELECT custom_id, outcome, output, cost_usd, attempt, batch_id FROM answers ORDER BY custom_id"
    rows = query(warehouse, select)
    with DAG("land_again", schedule=None) as dag:
        BatchResultsOperator(task_id="land", job=first.return_values["submit"], table="answers")
    assert run_dag(dag).state == "success"
    assert query(warehouse, select) == rows
