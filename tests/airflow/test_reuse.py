"""Answers of last night's job, landed again without asking."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

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
    """Three tickets, labelled last night in `labels`, and three that came since then.

    Two of the new ones are duplicates, of an old ticket or of each other; one is new.
    """
    labelled = [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(1, 4)]
    return [
        *labelled,
        ("T-4", "Ticket 1", "The invoice is wrong", "again"),
        ("T-5", "Ticket 5", "It does not start", "bug"),
        ("T-6", "Ticket 5", "It does not start", None),
    ]


@pytest.fixture
def asked(batch_server: LocalServer) -> Callable[[str], int]:
    """How many requests the server was given for a job."""
    client = client_of(batch_server)

    def of(job_uid: str) -> int:
        batches = [b for b in client.batches.list(limit=100) if (b.metadata or {}).get("job_uid") == job_uid]
        return sum(counts_of(batch).total for batch in batches)

    return of


def last_night(**arguments: Any) -> None:
    result = run_job(sql=TODAY.replace("ORDER", "WHERE id < 'T-4' ORDER"), land={"table": "labels"}, **arguments)
    assert result.state == "success"


def test_rows_that_an_earlier_job_answered_are_not_asked(
    warehouse: Path, asked: Callable[[str], int], capfd: pytest.CaptureFixture[str]
) -> None:
    last_night(output_schema=SCHEMA)
    capfd.readouterr()
    land = {"columns": {"answer": "label", "score": "score"}}
    result = run_job(sql=TODAY, reuse_from="labels", output_schema=SCHEMA, carry=["label"], land=land)

    assert result.state == "success"
    reference, account = result.return_values["submit"], result.return_values["land"]
    assert asked(reference["job_uid"]) == 1
    assert [(told["sent"], told["duplicates"], told["reused"]) for told in (reference, account)] == [(1, 1, 4)] * 2
    assert account["outcomes"] == {"succeeded": 6}
    assert capfd.readouterr().out.count("6 rows: 1 sent, 1 duplicate, 4 reused from labels") == 2
    old = {row[0]: row[1:] for row in query(warehouse, "SELECT custom_id, output, model, batch_id FROM labels")}
    new = query(
        warehouse,
        "SELECT custom_id, output, model, batch_id, attempt, input_tokens, answer, score, label, job_uid FROM answers "
        "ORDER BY custom_id",
    )
    assert [row[0] for row in new] == ["T-1", "T-2", "T-3", "T-4", "T-5", "T-6"]
    for custom_id, *answer, attempt, tokens, label, score, carried, job_uid in new:
        assert job_uid == reference["job_uid"]
        assert json.loads(answer[0]) == {"label": label, "score": score}
        if custom_id < "T-5":
            assert tuple(answer) == old["T-1" if custom_id == "T-4" else custom_id]
            assert (attempt, tokens) == (0, 0)
        assert carried == {"T-4": "again", "T-5": "bug", "T-6": None}.get(custom_id, "billing")
    paid = query(warehouse, "SELECT sum(cost_usd) FROM answers")[0][0]
    assert float(paid) == pytest.approx(float(account["cost_usd"]))


def test_a_job_of_which_everything_is_known_asks_nothing_and_lands(
    warehouse: Path, asked: Callable[[str], int]
) -> None:
    last_night()
    result = run_job(sql=TODAY.replace("ORDER", "WHERE id < 'T-5' ORDER"), reuse_from="labels")

    assert result.state == "success"
    assert asked(result.return_values["submit"]["job_uid"]) == 0
    assert (result.return_values["submit"]["shards"], result.return_values["submit"]["estimate"]["high_usd"]) == (0, 0)
    assert result.return_values["land"]["outcomes"] == {"succeeded": 4}
    assert result.return_values["land"]["cost_usd"] == "0"


def test_a_job_may_reuse_the_table_that_it_lands_in(warehouse: Path, asked: Callable[[str], int]) -> None:
    last_night()
    first = run_job(sql=TODAY, reuse_from="labels", land={"table": "labels"})
    second = run_job(sql=TODAY, reuse_from="labels", land={"table": "labels"})

    assert [asked(result.return_values["submit"]["job_uid"]) for result in (first, second)] == [1, 0]
    assert second.return_values["land"]["reused"] == 6
    assert query(warehouse, "SELECT count(*), sum(outcome = 'succeeded') FROM labels") == [(6, 6)]


def test_in_the_first_night_the_table_is_not_there_and_every_row_is_asked(
    warehouse: Path, asked: Callable[[str], int], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    nightly: dict[str, Any] = {"sql": TODAY, "reuse_from": "labels", "land": {"table": "labels"}}
    first = run_job(**nightly)
    second = run_job(**nightly)

    assert (first.state, second.state) == ("success", "success")
    assert (
        caplog.text.count("the table 'labels' (connection 'warehouse') does not exist yet, so no answers are reused")
        == 1
    )
    assert "6 rows: 4 sent, 2 duplicates, 0 reused from labels" in capfd.readouterr().out
    assert [asked(result.return_values["submit"]["job_uid"]) for result in (first, second)] == [4, 0]
    assert first.return_values["land"]["reused"] == 0


def test_what_did_not_succeed_is_asked(warehouse: Path, asked: Callable[[str], int]) -> None:
    make = "'[[refuse]] ' || body AS body"
    refused = f"SELECT id, title, {make}, label FROM tickets WHERE id < 'T-4'"
    run_job(sql=refused, land={"table": "labels"})
    result = run_job(sql=refused, reuse_from="labels")

    assert asked(result.return_values["submit"]["job_uid"]) == 3
    assert result.return_values["land"]["outcomes"] == {"refused": 3}


def test_another_model_is_another_question(warehouse: Path, asked: Callable[[str], int]) -> None:
    last_night()
    result = run_job(sql=TODAY, reuse_from="labels", model="gpt-5-nano")
    assert asked(result.return_values["submit"]["job_uid"]) == 4
    assert result.return_values["land"]["reused"] == 0


def test_vectors_are_reused(warehouse: Path, asked: Callable[[str], int]) -> None:
    embed: dict[str, Any] = {"endpoint": "/v1/embeddings", "model": "text-embedding-3-small", "body": {"dimensions": 4}}
    last_night(**embed)
    result = run_job(sql=TODAY, reuse_from="labels", **embed)

    assert asked(result.return_values["submit"]["job_uid"]) == 1
    old = dict(query(warehouse, "SELECT custom_id, output FROM labels"))
    new = dict(query(warehouse, "SELECT custom_id, output FROM answers"))
    assert {name: json.loads(new[name]) for name in old} == {name: json.loads(old[name]) for name in old}


def test_the_table_may_be_on_another_connection(
    warehouse: Path, asked: Callable[[str], int], connect: Callable[..., None]
) -> None:
    last_night()
    connect("archive", conn_type="sqlite", host=str(warehouse))
    result = run_job(sql=TODAY, reuse_from={"conn_id": "archive", "table": "{{ 'labels' }}"})
    assert asked(result.return_values["submit"]["job_uid"]) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("tickets", "has no column 'outcome', so it is not a results table"),
        ({"conn_id": "warehouse"}, "Expected a table"),
        ({"table": "labels", "connection": "warehouse"}, "Expected a table"),
        ({"conn_id": "nobody", "table": "labels"}, "There is no Airflow connection 'nobody'"),
    ],
)
def test_a_table_that_cannot_be_reused_is_told_before_anything_is_built(
    warehouse: Path, tmp_path: Path, given: object, said: str
) -> None:
    result = run_job(sql=TODAY, reuse_from=given)
    assert result.states["submit"] == "failed"
    assert said in result.error()
    assert not list(tmp_path.glob("staging/**/build-*"))


def test_no_value_of_the_table_is_in_any_log(warehouse: Path, capfd: pytest.CaptureFixture[str]) -> None:
    last_night(output_schema=SCHEMA)
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE labels SET output = 'hush hush'")
    result = run_job(sql=TODAY, reuse_from="labels", output_schema=SCHEMA)
    assert result.return_values["land"]["reused"] == 0
    out, err = capfd.readouterr()
    assert "hush" not in out + err
