"""The three operators with MariaDB or MySQL as source and target, with each of the two drivers."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import pytest

from tests.airflow.jobs import run_job
from tests.mysql import MySqlDatabase

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}


@pytest.fixture(params=["mysqlclient", "mysql-connector-python"])
def warehouse(
    request: pytest.FixtureRequest, mysql_database: MySqlDatabase, connect: Callable[..., None], offline: None
) -> MySqlDatabase:
    connect("warehouse", **json.loads(mysql_database.airflow_connection(client=request.param)))
    mysql_database.execute(
        "CREATE TABLE tickets (id varchar(20) COLLATE utf8mb4_bin PRIMARY KEY, title text, body text, "
        "label varchar(20), paid decimal(10, 2), opened datetime(6), raw blob) CHARACTER SET utf8mb4"
    )
    mysql_database.execute(
        "INSERT INTO tickets VALUES "
        "('T-1', 'Rechnung für 😀', 'The invoice is wrong', 'billing', 12.50, '2026-11-20 12:30:00.123456', x'00ff'), "
        "('t-1', 'Crash', 'It crashes at start', 'bug', NULL, NULL, NULL), "
        "('T-2', 'Crash', 'It crashes at 100 %', 'bug', 0.01, '2026-11-21', '')"
    )
    return mysql_database


def test_every_row_lands_with_its_own_key_and_carried_columns(warehouse: MySqlDatabase) -> None:
    result = run_job(
        sql="SELECT id, title, body, label, paid, opened, raw FROM tickets ORDER BY id",
        output_schema=SCHEMA,
        carry=["label", "paid", "opened", "raw"],
        land={"columns": {"answer": "label", "score": "score"}, "key": {"run": "{{ run_id }}"}},
    )

    assert result.state == "success", result.errors
    assert result.return_values["land"]["outcomes"] == {"succeeded": 3}
    rows = warehouse.execute(
        "SELECT custom_id, run, outcome, output, answer, score, label, paid, opened, raw, cost_usd FROM answers "
        "ORDER BY custom_id"
    )
    assert [row[0] for row in rows] == ["T-1", "T-2", "t-1"]
    for _, run, outcome, output, answer, score, *_, cost in rows:
        assert run.startswith("manual__")
        assert outcome == "succeeded"
        assert json.loads(output) == {"label": answer, "score": score}
        assert cost > 0
    assert [row[6:10] for row in rows] == [
        ("billing", Decimal("12.50"), datetime(2026, 11, 20, 12, 30, 0, 123456), b"\x00\xff"),
        ("bug", Decimal("0.01"), datetime(2026, 11, 21), b""),
        ("bug", None, None, None),
    ]


def test_a_second_run_replaces_the_rows_of_the_first_and_keeps_columns_that_are_not_ours(
    warehouse: MySqlDatabase,
) -> None:
    first = run_job()
    assert first.state == "success", first.errors
    warehouse.execute("ALTER TABLE answers ADD COLUMN note text")
    warehouse.execute("UPDATE answers SET note = 'checked by hand' WHERE custom_id = 'T-2'")

    second = run_job()

    assert second.state == "success", second.errors
    rows = warehouse.execute("SELECT custom_id, job_uid, note FROM answers ORDER BY custom_id")
    uid = second.return_values["submit"]["job_uid"]
    assert rows == [("T-1", uid, None), ("T-2", uid, "checked by hand"), ("t-1", uid, None)]
