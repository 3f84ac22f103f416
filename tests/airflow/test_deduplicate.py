"""Rows that ask the same: how many requests really reach the provider, and what lands for each of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, client_of, query, run_job

#: three different requests in seven rows
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
def asked(batch_server: LocalServer) -> Callable[[str], list[str]]:
    """custom_ids of the result lines that the server wrote for a job, retries included."""
    client = client_of(batch_server)

    def of(job_uid: str) -> list[str]:
        found = []
        for batch in client.batches.list(limit=100):
            if (batch.metadata or {}).get("job_uid") == job_uid:
                for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                    lines = client.files.content(file_id).content.splitlines()
                    found += [line.split(b'"custom_id":"')[1].split(b'"')[0].decode() for line in lines]
        return sorted(found)

    return of


def test_equal_requests_are_asked_once_and_land_for_each_row(
    warehouse: Path, asked: Callable[[str], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(carry=["label"])

    assert result.state == "success"
    reference, account = result.return_values["submit"], result.return_values["land"]
    assert asked(reference["job_uid"]) == ["T-1", "T-2", "T-6"]
    assert (reference["requests"], reference["sent"], reference["duplicates"]) == (7, 3, 4)
    assert (account["requests"], account["sent"], account["duplicates"]) == (7, 3, 4)
    assert account["outcomes"] == {"succeeded": 7}
    rows = query(warehouse, "SELECT custom_id, outcome, output, label, attempt FROM answers ORDER BY custom_id")
    assert [(row[0], row[1], row[3]) for row in rows] == [(t[0], "succeeded", t[3]) for t in TICKETS]
    outputs = {row[0]: row[2] for row in rows}
    assert outputs["T-1"] == outputs["T-3"] == outputs["T-4"] == outputs["T-7"] != outputs["T-2"] == outputs["T-5"]
    assert [row[4] for row in rows] == [1, 1, 0, 0, 0, 1, 0]
    assert float(query(warehouse, "SELECT sum(cost_usd) FROM answers")[0][0]) == pytest.approx(
        float(account["cost_usd"])
    )
    assert capfd.readouterr().out.count("7 rows: 3 sent, 4 duplicates") == 2


def test_only_what_is_asked_is_priced_and_held_against_the_budget(warehouse: Path) -> None:
    once = run_job(preview=True).return_values["submit"]
    each = run_job(preview=True, deduplicate=False).return_values["submit"]

    assert (once["requests"], each["requests"]) == (7, 7)
    assert (once["sent"], each["sent"]) == (3, 7)
    assert once["estimate"]["input_tokens"] * 2 < each["estimate"]["input_tokens"]
    between = (once["estimate"]["low_usd"] + each["estimate"]["low_usd"]) / 2
    assert run_job(max_cost_usd=between).state == "success"
    assert "Nothing was uploaded" in run_job(max_cost_usd=between, deduplicate=False).error()


@pytest.mark.parametrize("said", [False, "False"])
def test_who_wants_samples_asks_every_row(warehouse: Path, asked: Callable[[str], list[str]], said: bool | str) -> None:
    result = run_job(deduplicate=said)

    assert asked(result.return_values["submit"]["job_uid"]) == [ticket[0] for ticket in TICKETS]
    assert (result.return_values["land"]["sent"], result.return_values["land"]["duplicates"]) == (7, 0)
    assert query(warehouse, "SELECT DISTINCT attempt FROM answers") == [(1,)]


def test_what_failed_is_asked_again_once_for_all_its_rows(warehouse: Path, asked: Callable[[str], list[str]]) -> None:
    make = "CASE WHEN title = 'Invoice' THEN '[[fail:500:once]] ' || body ELSE body END"
    result = run_job(sql=f"SELECT id, title, {make} AS body FROM tickets ORDER BY id")

    assert asked(result.return_values["submit"]["job_uid"]) == ["T-1", "T-1", "T-2", "T-6"]
    assert result.return_values["land"]["outcomes"] == {"succeeded": 7}
    assert result.return_values["land"]["retried"] == 1


def test_a_refusal_lands_for_every_row_that_asked_for_it(warehouse: Path) -> None:
    make = "CASE WHEN title = 'Invoice' THEN '[[refuse]] ' || body ELSE body END"
    result = run_job(sql=f"SELECT id, title, {make} AS body FROM tickets ORDER BY id", land={"max_failure_rate": 0.5})

    assert result.states["land"] == "failed"
    assert "4 of 7 rows did not succeed" in result.error("land")
    assert dict(query(warehouse, "SELECT outcome, count(*) FROM answers GROUP BY 1")) == {"refused": 4, "succeeded": 3}


def test_rows_that_ask_the_same_are_spread_over_shards_and_still_asked_once(
    warehouse: Path, asked: Callable[[str], list[str]]
) -> None:
    result = run_job(limits={"requests": 1})

    assert asked(result.return_values["submit"]["job_uid"]) == ["T-1", "T-2", "T-6"]
    assert result.return_values["submit"]["shards"] == 3
    assert result.return_values["land"]["outcomes"] == {"succeeded": 7}


def test_landing_again_ends_in_the_same_table(warehouse: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator
    from tests.airflow.jobs import run_dag

    first = run_job()
    everything = "SELECT custom_id, outcome, output, cost_usd, attempt, batch_id FROM answers ORDER BY custom_id"
    before = query(warehouse, everything)
    with DAG("land_again", schedule=None) as dag:
        BatchResultsOperator(task_id="land", job=first.return_values["submit"], table="answers")
    assert run_dag(dag).state == "success"
    assert query(warehouse, everything) == before
