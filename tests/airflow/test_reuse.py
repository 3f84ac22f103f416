"""Answers of last night's job that are reused without sending the requests."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, client_of, counts_of, query, run_job

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}
TODAY = "SELECT id, title, body, label FROM tickets ORDER BY id"


@pytest.fixture
def tickets() -> list[Ticket]:
    """Three tickets with labels of last night in `labels`, and three that were added since then.

    Two of the new ones are duplicates, of an earlier_answers ticket or of each other; one is new.
    """
    labelled_tickets = [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(1, 4)]
    return [
        *labelled_tickets,
        ("T-4", "Ticket 1", "The invoice is wrong", "again"),
        ("T-5", "Ticket 5", "It does not start", "bug"),
        ("T-6", "Ticket 5", "It does not start", None),
    ]


@pytest.fixture
def sent_requests(batch_server: LocalServer) -> Callable[[str], int]:
    """Return the number of requests that the server received for a job."""
    client = client_of(batch_server)

    def count(job_uid: str) -> int:
        batches = [b for b in client.batches.list(limit=100) if (b.metadata or {}).get("job_uid") == job_uid]
        return sum(counts_of(batch).total for batch in batches)

    return count


def run_last_night(**arguments: Any) -> None:
    result = run_job(sql=TODAY.replace("ORDER", "WHERE id < 'T-4' ORDER"), land={"table": "labels"}, **arguments)
    assert result.state == "success"


def test_rows_that_an_earlier_job_answered_are_not_sent(
    warehouse: Path, sent_requests: Callable[[str], int], capfd: pytest.CaptureFixture[str]
) -> None:
    run_last_night(output_schema=SCHEMA)
    capfd.readouterr()
    land = {"columns": {"answer": "label", "score": "score"}}
    result = run_job(sql=TODAY, reuse_from="labels", output_schema=SCHEMA, carry=["label"], land=land)

    assert result.state == "success"
    reference, land_result = result.return_values["submit"], result.return_values["land"]
    assert sent_requests(reference["job_uid"]) == 1
    assert [(counts["sent"], counts["duplicates"], counts["reused"]) for counts in (reference, land_result)] == [
        (1, 1, 4)
    ] * 2
    assert land_result["outcomes"] == {"succeeded": 6}
    assert capfd.readouterr().out.count("6 rows: 1 sent, 1 duplicate, 4 reused from labels") == 2
    earlier_answers = {
        row[0]: row[1:] for row in query(warehouse, "SELECT custom_id, output, model, batch_id FROM labels")
    }
    rows = query(
        warehouse,
        "SELECT custom_id, output, model, batch_id, attempt, input_tokens, answer, score, label, job_uid FROM answers "
        "ORDER BY custom_id",
    )
    assert [row[0] for row in rows] == ["T-1", "T-2", "T-3", "T-4", "T-5", "T-6"]
    for custom_id, *answer, attempt, tokens, label, score, ticket_label, job_uid in rows:
        assert job_uid == reference["job_uid"]
        assert json.loads(answer[0]) == {"label": label, "score": score}
        if custom_id < "T-5":
            assert tuple(answer) == earlier_answers["T-1" if custom_id == "T-4" else custom_id]
            assert (attempt, tokens) == (0, 0)
        assert ticket_label == {"T-4": "again", "T-5": "bug", "T-6": None}.get(custom_id, "billing")
    paid = query(warehouse, "SELECT sum(cost_usd) FROM answers")[0][0]
    assert float(paid) == pytest.approx(float(land_result["cost_usd"]))


def test_a_job_that_reuses_every_answer_sends_nothing_and_lands(
    warehouse: Path, sent_requests: Callable[[str], int]
) -> None:
    run_last_night()
    result = run_job(sql=TODAY.replace("ORDER", "WHERE id < 'T-5' ORDER"), reuse_from="labels")

    assert result.state == "success"
    assert sent_requests(result.return_values["submit"]["job_uid"]) == 0
    assert (result.return_values["submit"]["shards"], result.return_values["submit"]["estimate"]["high_usd"]) == (0, 0)
    assert result.return_values["land"]["outcomes"] == {"succeeded": 4}
    assert result.return_values["land"]["cost_usd"] == "0"


def test_a_job_may_reuse_the_table_that_it_lands_in(warehouse: Path, sent_requests: Callable[[str], int]) -> None:
    run_last_night()
    first = run_job(sql=TODAY, reuse_from="labels", land={"table": "labels"})
    second = run_job(sql=TODAY, reuse_from="labels", land={"table": "labels"})

    assert [sent_requests(result.return_values["submit"]["job_uid"]) for result in (first, second)] == [1, 0]
    assert second.return_values["land"]["reused"] == 6
    assert query(warehouse, "SELECT count(*), sum(outcome = 'succeeded') FROM labels") == [(6, 6)]


def test_on_the_first_run_the_table_does_not_exist_and_every_row_is_sent(
    warehouse: Path,
    sent_requests: Callable[[str], int],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    nightly: dict[str, Any] = {"sql": TODAY, "reuse_from": "labels", "land": {"table": "labels"}}
    first = run_job(**nightly)
    second = run_job(**nightly)

    assert (first.state, second.state) == ("success", "success")
    assert (
        caplog.text.count("The table 'labels' (connection 'warehouse') does not exist yet, so no answers are reused")
        == 1
    )
    assert "6 rows: 4 sent, 2 duplicates, 0 reused from labels" in capfd.readouterr().out
    assert [sent_requests(result.return_values["submit"]["job_uid"]) for result in (first, second)] == [4, 0]
    assert first.return_values["land"]["reused"] == 0


def test_rows_that_did_not_succeed_are_sent(warehouse: Path, sent_requests: Callable[[str], int]) -> None:
    body = "'[[refuse]] ' || body AS body"
    sql = f"SELECT id, title, {body}, label FROM tickets WHERE id < 'T-4'"
    run_job(sql=sql, land={"table": "labels"})
    result = run_job(sql=sql, reuse_from="labels")

    assert sent_requests(result.return_values["submit"]["job_uid"]) == 3
    assert result.return_values["land"]["outcomes"] == {"refused": 3}


def test_answers_of_another_model_are_not_reused(warehouse: Path, sent_requests: Callable[[str], int]) -> None:
    run_last_night()
    result = run_job(sql=TODAY, reuse_from="labels", model="gpt-5-nano")
    assert sent_requests(result.return_values["submit"]["job_uid"]) == 4
    assert result.return_values["land"]["reused"] == 0


def test_vectors_are_reused(warehouse: Path, sent_requests: Callable[[str], int]) -> None:
    embed: dict[str, Any] = {"endpoint": "/v1/embeddings", "model": "text-embedding-3-small", "body": {"dimensions": 4}}
    run_last_night(**embed)
    result = run_job(sql=TODAY, reuse_from="labels", **embed)

    assert sent_requests(result.return_values["submit"]["job_uid"]) == 1
    earlier_answers = dict(query(warehouse, "SELECT custom_id, output FROM labels"))
    new_answers = dict(query(warehouse, "SELECT custom_id, output FROM answers"))
    assert {name: json.loads(new_answers[name]) for name in earlier_answers} == {
        name: json.loads(earlier_answers[name]) for name in earlier_answers
    }


def test_the_table_may_be_on_another_connection(
    warehouse: Path, sent_requests: Callable[[str], int], connect: Callable[..., None]
) -> None:
    run_last_night()
    connect("archive", conn_type="sqlite", host=str(warehouse))
    result = run_job(sql=TODAY, reuse_from={"conn_id": "archive", "table": "{{ 'labels' }}"})
    assert sent_requests(result.return_values["submit"]["job_uid"]) == 1


@pytest.mark.parametrize("reuse_from", [{"conn_id": "warehouse"}, {"table": "labels", "connection": "warehouse"}])
def test_a_reuse_from_that_is_no_table_is_an_error_while_the_dag_is_parsed(reuse_from: object) -> None:
    with pytest.raises(InputError, match="reuse_from: Expected a table"):
        run_job(sql=TODAY, reuse_from=reuse_from)


@pytest.mark.parametrize(
    ("reuse_from", "message"),
    [
        ("tickets", "has no column 'outcome', so it is not a results table"),
        ({"conn_id": "nobody", "table": "labels"}, "There is no Airflow connection 'nobody'"),
    ],
)
def test_a_table_that_cannot_be_reused_is_an_error_before_anything_is_built(
    warehouse: Path, tmp_path: Path, reuse_from: object, message: str
) -> None:
    result = run_job(sql=TODAY, reuse_from=reuse_from)
    assert result.states["submit"] == "failed"
    assert message in result.error()
    assert not list(tmp_path.glob("staging/**/build-*"))


def test_values_of_the_table_are_never_logged(warehouse: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_last_night(output_schema=SCHEMA)
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE labels SET output = 'hush hush'")
    result = run_job(sql=TODAY, reuse_from="labels", output_schema=SCHEMA)
    assert result.return_values["land"]["reused"] == 0
    out, err = capfd.readouterr()
    assert "hush" not in out + err
