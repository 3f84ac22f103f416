"""The three operators on real Airflow, reading from and writing to one DuckDB file."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.airflow.jobs import run_job

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None], offline: None) -> Path:
    path = tmp_path / "warehouse.duckdb"
    execute(path, "CREATE SCHEMA analytics")
    execute(
        path,
        """
        CREATE TABLE tickets AS SELECT
            'T-' || range AS id, 'Ticket ' || range AS title, 'The invoice is wrong' AS body, 'billing' AS label,
            {'plan': 'pro', 'seats': [range]} AS account, '{"vip": true}'::JSON AS flags,
            9.90::DECIMAL(10,2) AS price, TIMESTAMPTZ '2026-11-20 12:00:00+00' AS opened_at
        FROM range(1, 6)
        """,
    )
    connect("warehouse", conn_type="duckdb", host=str(path))
    return path


def execute(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(duckdb.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def test_rows_from_duckdb_land_in_duckdb_with_their_own_keys_and_types(warehouse: Path) -> None:
    job: dict[str, Any] = {
        "sql": "SELECT * FROM tickets ORDER BY id",
        "prompt": "{{ row.title }} of a {{ row.account.plan }} plan, vip: {{ row.flags.vip }}: {{ row.body }}",
        "output_schema": SCHEMA,
        "carry": ["label", "account", "flags", "price", "opened_at"],
        "land": {"table": "analytics.answers", "columns": {"answer": "label", "score": "score"}},
    }

    result = run_job(**job)

    assert result.errors == {}
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    rows = execute(
        warehouse,
        "SELECT custom_id, outcome, output, answer, score, label, account, flags, price, epoch(opened_at), "
        "cost_usd > 0 FROM analytics.answers ORDER BY custom_id",
    )
    assert [row[0] for row in rows] == ["T-1", "T-2", "T-3", "T-4", "T-5"]
    for number, (_, outcome, output, answer, score, label, account, flags, price, opened_at, has_cost) in enumerate(
        rows, 1
    ):
        assert (outcome, label) == ("succeeded", "billing")
        assert json.loads(output) == {"label": answer, "score": score}
        assert json.loads(account) == {"plan": "pro", "seats": [number]}
        assert json.loads(flags) == {"vip": True}
        assert price == Decimal("9.90")
        assert opened_at == 1795176000
        assert has_cost

    execute(warehouse, "ALTER TABLE analytics.answers ADD COLUMN reviewed_by VARCHAR")
    execute(warehouse, "UPDATE analytics.answers SET reviewed_by = 'night shift'")
    second = run_job(**job)

    assert second.state == "success"
    assert execute(warehouse, "SELECT count(*), any_value(reviewed_by), any_value(job_uid) FROM analytics.answers") == [
        (5, "night shift", second.return_values["land"]["job_uid"])
    ]


def test_embeddings_land_as_lists_of_doubles(warehouse: Path) -> None:
    result = run_job(
        endpoint="/v1/embeddings", model="text-embedding-3-small", prompt="{{ row.body }}", body={"dimensions": 8}
    )

    assert result.errors == {}
    assert execute(warehouse, "SELECT DISTINCT typeof(output), len(output) FROM answers") == [("DOUBLE[]", 8)]
    assert execute(
        warehouse, "SELECT count(*) FROM answers WHERE abs(list_inner_product(output, output) - 1) < 0.001"
    ) == [(5,)]


def own_table(path: Path, **types: str) -> None:
    """Create the table `own` with the columns of a results table, some of them with other types."""
    run_job(land={"table": "template"})
    changes = ", ".join(f"CAST(NULL AS {type_}) AS {name}" for name, type_ in types.items())
    execute(path, f"CREATE TABLE own AS SELECT * REPLACE ({changes}) FROM template LIMIT 0")
    execute(path, "ALTER TABLE own ADD PRIMARY KEY (custom_id)")


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": "text-embedding-3-large"},
        {"model": "text-embedding-3-small", "body": {"dimensions": 256}},
        {"model": "{{ 'text-embedding-3-large' }}"},
    ],
)
def test_a_table_for_vectors_of_another_length_is_refused_before_anything_is_sent(
    warehouse: Path, arguments: dict[str, Any]
) -> None:
    own_table(warehouse, output="FLOAT[1536]")
    result = run_job(endpoint="/v1/embeddings", prompt="{{ row.body }}", land={"table": "own"}, **arguments)
    error = result.error("submit")
    assert "Task 'land' cannot land this job" in error
    assert "'output' as FLOAT[1536], but it gets vector values, with " in error
    assert "Nothing was uploaded" in error
