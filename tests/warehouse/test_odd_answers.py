"""Whatever an answer contains, every database stores it or the reason why not, and stores its neighbours unchanged."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from airflow_provider_batch.core.landing.columns import results_columns
from airflow_provider_batch.core.landing.landing import Landing
from airflow_provider_batch.core.ledger.fold import fold
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.core.answers.odd_lines import (
    COLUMNS,
    OBJECT,
    SCHEMA,
    good_line,
    odd_answer_line,
    odd_error_line,
    odd_line,
    odd_lines,
)
from tests.core.building import CHAT, EMBEDDINGS, NOW, manifest_of, request, seal_all, settle, temporary_folder
from tests.warehouse.conftest import Warehouse


def land_lines(
    warehouse: Warehouse,
    folder: Folder,
    lines: dict[str, bytes],
    *,
    endpoint: str = CHAT,
    columns: dict[str, str] | None = None,
    store_response: bool = True,
) -> Landing:
    """Land these result lines, by custom_id, in the table `results`, and return the landing."""
    (shard,) = seal_all(folder, [request(custom_id, text=custom_id) for custom_id in lines], endpoint=endpoint)
    manifest = manifest_of([shard], endpoint=endpoint, output_schema=SCHEMA if columns else None)
    arguments: dict[str, Any] = {"key": {}, "columns": columns or {}, "store_response": store_response}
    sink = open_sink(warehouse.hook, "results", results_columns(manifest, **arguments))
    assert isinstance(sink, TableSink)
    sink.prepare()
    state = fold(manifest, [settle(folder, shard, lines.values())])
    landing = Landing(folder, state, run_id="run", landed_at=NOW, limits=sink.limits, **arguments)
    assert sink.write(landing) == len(lines)
    return landing


def landed(warehouse: Warehouse, *columns: str) -> dict[str, tuple[Any, ...]]:
    names = ", ".join(warehouse.quote(name) for name in ("custom_id", *columns))
    return {key: tuple(values) for key, *values in warehouse.execute(f"SELECT {names} FROM results")}


@pytest.mark.usefixtures("decimals")
def test_odd_values_in_every_place_cost_their_rows_and_no_others(warehouse: Warehouse) -> None:
    lines: dict[str, bytes] = {}
    for number, (custom_id, line) in enumerate(odd_lines().items()):
        if number % 3 == 0:
            lines[f"good {number}"] = good_line(f"good {number}")
        lines[custom_id] = line
    with temporary_folder() as folder:
        landing = land_lines(warehouse, folder, lines, columns=COLUMNS)

    rows = landed(warehouse, "outcome", "output", "label", "count", "input_tokens", "error_code")
    assert rows.keys() == lines.keys()
    good_row = ("succeeded", json.dumps(OBJECT), "fine", 7, 1000, None)
    assert {row for custom_id, row in rows.items() if custom_id.startswith("good")} == {good_row}
    assert Counter(row[0] for row in rows.values()) == landing.outcomes
    assert all(row[-1] for row in rows.values() if row[0] != "succeeded")


def narrow_table(warehouse: Warehouse, **types: str) -> None:
    """Create a results table in which some columns have other types than those we create."""
    manifest = manifest_of([], output_schema=SCHEMA)
    columns = results_columns(manifest, key={}, columns={"label": "label", "count": "count"})
    sink = open_sink(warehouse.hook, "results", columns)
    assert isinstance(sink, TableSink)
    sink.prepare()
    for name, type_ in types.items():
        column = warehouse.quote(name)
        if warehouse.is_mysql:
            warehouse.execute(f"ALTER TABLE results MODIFY {column} {type_}")
        else:
            warehouse.execute(f"ALTER TABLE results ALTER COLUMN {column} TYPE {type_}")


@pytest.mark.parametrize("warehouse", ["psycopg", "mysqlclient"], indirect=True)
def test_names_are_cut_and_values_left_out_where_a_column_is_too_narrow(warehouse: Warehouse) -> None:
    narrow_table(
        warehouse,
        error_code="varchar(8)",
        error_message="varchar(30)",
        model="varchar(10)",
        input_tokens="smallint",
        label="varchar(5)",
        count="smallint",
    )
    lines = {
        "good": good_line("good"),
        "long": odd_answer_line("long", "label", '"too long"'),
        "large": odd_answer_line("large", "count", "40000"),
        "tokens": odd_line("tokens", ("response", "body", "usage", "prompt_tokens"), "40000"),
        "error": odd_error_line("error", ("response", "body", "error", "code"), '"a_long_error_code"'),
        "also good": good_line("also good"),
    }
    with temporary_folder() as folder:
        land_lines(warehouse, folder, lines, columns={"label": "label", "count": "count"}, store_response=False)

    rows = landed(warehouse, "outcome", "label", "count", "model", "input_tokens", "error_code")
    good_row = ("succeeded", "fine", 7, "gpt-5-mini", 1000, None)
    assert rows == {
        "good": good_row,
        "also good": good_row,
        "long": ("invalid_output", None, 7, "gpt-5-mini", 1000, "storage"),
        "large": ("invalid_output", "fine", None, "gpt-5-mini", 1000, "storage"),
        "tokens": ("succeeded", "fine", 7, "gpt-5-mini", None, None),
        "error": ("failed", None, None, "gpt-5-mini", 0, "a_long_e"),
    }


VECTORS = {
    "good": "[0.5, 1]",
    "short": "[0.5]",
    "long": "[0.5, 1, 2]",
    "large": "[0.5, 1e39]",
    "text": '[0.5, "1"]',
    "true": "[0.5, true]",
    "null": "[0.5, null]",
    "NaN": "[0.5, NaN]",
    "infinite": "[0.5, 1e400]",
    "nested": "[[0.5, 1]]",
    "several": '[0.5, 1]}, {"index": 1, "embedding": [2, 3]',
    "base64": '"AAAAPwAAgD8="',
    "broken base64": '"AAAAPwAAgD8"',
    "NaN in base64": '"AADAfwAAgD8="',
    "also good": "[0.5, 1]",
}


def vector_line(custom_id: str, raw: str) -> bytes:
    head = f'{{"custom_id": {json.dumps(custom_id)}, "response": {{"status_code": 200, "body": {{"model": "m", "data": '
    return f'{head}[{{"index": 0, "embedding": {raw}}}]}}}}, "error": null}}'.encode()


@pytest.mark.parametrize(
    ("warehouse", "type_"),
    [
        ("psycopg", "vector(2)"),
        ("psycopg", "halfvec(2)"),
        ("psycopg", ""),
        ("duckdb", "FLOAT[2]"),
        ("duckdb", ""),
        ("sqlite", ""),
        ("mysqlclient", ""),
    ],
    indirect=["warehouse"],
)
def test_a_vector_that_its_column_cannot_store_costs_its_row(warehouse: Warehouse, type_: str) -> None:
    columns = results_columns(manifest_of([], endpoint=EMBEDDINGS), key={}, columns={})
    sink = open_sink(warehouse.hook, "results", columns)
    if type_:
        if warehouse.is_postgres:
            warehouse.execute("CREATE EXTENSION IF NOT EXISTS vector")
        assert isinstance(sink, TableSink)
        statement = sink._target.create_statement()
        column = next(column for column in columns if column.name == "output")
        definition = sink._target.column_definition(column)
        warehouse.execute(statement.replace(definition, f'"output" {type_}'))
    lines = {custom_id: vector_line(custom_id, raw) for custom_id, raw in VECTORS.items()}
    with temporary_folder() as folder:
        land_lines(warehouse, folder, lines, endpoint=EMBEDDINGS, store_response=False)

    rows = landed(warehouse, "outcome", "output")
    outcomes = {custom_id: (outcome, output is not None) for custom_id, (outcome, output) in rows.items()}
    usable = {"good", "also good", "base64"} | (set() if type_ else {"short", "long"})
    assert {custom_id for custom_id, row in outcomes.items() if row == ("succeeded", True)} == usable
    assert {row for custom_id, row in outcomes.items() if custom_id not in usable} == {
        ("invalid_output", False),
        ("incomplete", False),
    }


def test_a_text_beyond_the_servers_packet_size_costs_its_row(mysql: Warehouse) -> None:
    lines = {
        "good": good_line("good", "fine"),
        "large": good_line("large", "x\n" * 9_000_000),
        "also good": good_line("also good", "fine"),
    }
    with temporary_folder() as folder:
        land_lines(mysql, folder, lines, store_response=True)

    rows = landed(mysql, "outcome", "output", "error_code")
    assert rows == {
        "good": ("succeeded", "fine", None),
        "also good": ("succeeded", "fine", None),
        "large": ("invalid_output", None, "storage"),
    }
    ((message,),) = mysql.execute("SELECT error_message FROM results WHERE custom_id = 'large'")
    assert "output: the value has 27,000,000 bytes" in message
