"""The three operators on real Airflow, reading from and writing to one DuckDB file."""

from __future__ import annotations

import json
import re
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
        assert account == {"plan": "pro", "seats": [number]}
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


def test_the_answers_of_the_canary_show_that_a_table_takes_other_vectors(warehouse: Path) -> None:
    own_table(warehouse, output="FLOAT[7]")
    result = run_job(
        endpoint="/v1/embeddings", model="own-embedder", prompt="{{ row.title }}", canary=2, land={"table": "own"}
    )
    error = result.error("submit")
    assert "elements, but the results table takes 7." in error
    assert "Nothing was uploaded" in error


@pytest.mark.parametrize(
    ("types", "arguments", "phrase"),
    [
        (
            {"custom_id": "BIGINT"},
            {},
            "'custom_id': in the row with the custom_id 'T-1', the text is not a whole number",
        ),
        ({"outcome": "ENUM('succeeded', 'failed')"}, {}, "the values of the column 'outcome'"),
        ({"cost_usd": "DECIMAL(12,4)"}, {}, "the values of the column 'cost_usd'"),
    ],
)
def test_values_that_are_known_before_an_answer_are_compared_with_the_table(
    warehouse: Path, types: dict[str, str], arguments: dict[str, Any], phrase: str
) -> None:
    own_table(warehouse, **types)
    error = run_job(land={"table": "own"}, **arguments).error("submit")
    assert phrase in error
    assert "Nothing was uploaded" in error


def test_a_carried_value_that_the_table_would_round_is_refused_with_its_row(warehouse: Path) -> None:
    own_table(warehouse, custom_id="BIGINT")
    execute(warehouse, "ALTER TABLE own ADD COLUMN amount DECIMAL(12,2)")
    sql = "SELECT range AS id, 'a' AS title, 'b' AS body, 'c' AS label, {} AS amount FROM range(1, 4)"
    error = run_job(sql=sql.format("1234.567"), carry=["amount"], land={"table": "own"}).error("submit")
    assert "column 'amount': in the row with the custom_id '1', the number does not fit" in error
    result = run_job(sql=sql.format("1234.560"), carry=["amount"], land={"table": "own"})
    assert result.errors == {}
    assert execute(warehouse, "SELECT custom_id, amount FROM own ORDER BY 1") == [
        (number, Decimal("1234.56")) for number in (1, 2, 3)
    ]


def test_a_value_that_its_column_cannot_store_costs_its_row_and_fails_the_landing(warehouse: Path) -> None:
    arguments: dict[str, Any] = {"output_schema": SCHEMA, "land": {"columns": {"answer": "label"}, "table": "own"}}
    template = {**arguments, "land": {**arguments["land"], "table": "template"}}
    assert run_job(**template).errors == {}
    ((custom_id, answer),) = execute(warehouse, "SELECT custom_id, answer FROM template ORDER BY ALL LIMIT 1")
    other_label = {"bug": "billing", "billing": "bug"}[answer]
    own_table(warehouse, answer=f"ENUM('{other_label}')")

    result = run_job(**arguments)

    error = result.error("land")
    assert "The table 'own' does not take a value of " in error
    assert "answer: " in error
    assert re.search(rf"custom_id: .*\b{custom_id}\b", error)
    assert "clear this task: the rows land without being sent again" in error
    assert answer not in error
    assert execute(warehouse, "SELECT count(*) FROM own") == [(5,)]
    assert execute(warehouse, f"SELECT outcome, answer, error_code FROM own WHERE custom_id = '{custom_id}'") == [
        ("invalid_output", None, "storage")
    ]
