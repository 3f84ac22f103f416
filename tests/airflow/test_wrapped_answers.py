"""Answers of servers that do not enforce schemas: the JSON in them lands, and no row is sent again for its wrapping."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.local.faults import Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import query, run_job

SCHEMA = {"title": "Ticket", "type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
WRAPPED = '<think>Is it {"label": "bug"}? No.</think>\n```json\n{"label": "billing",}\n```'
MESSAGE = "response.body.choices.0.message"
CALL = {"id": "c", "type": "function", "function": {"name": "ticket", "arguments": '{"label": "billing"}'}}


@pytest.fixture
def server(faulty_server: LocalServer) -> LocalServer:
    """A server without faults so far. `openai_default` points to it, and `count_calls` counts its calls."""
    return faulty_server


@pytest.mark.parametrize(
    ("path", "value", "output"),
    [
        (f"{MESSAGE}.content", WRAPPED, WRAPPED),
        (MESSAGE, {"content": None, "tool_calls": [CALL]}, '{"label": "billing"}'),
    ],
    ids=["text", "tool call"],
)
def test_the_json_in_an_answer_fills_its_columns_and_a_later_job_reuses_it(
    warehouse: Path,
    server: LocalServer,
    count_calls: Callable[[], dict[str, int]],
    path: str,
    value: Any,
    output: str,
) -> None:
    server.set_faults(Fault(kind=Kind.LINE_FIELD, path=path, json=json.dumps(value)))
    arguments: dict[str, Any] = {"output_schema": SCHEMA, "reuse_from": "answers", "land": {"columns": ["label"]}}

    summary = run_job(**arguments).return_values["land"]

    assert (summary["outcomes"], summary["retried"]) == ({"succeeded": 5}, 0)
    assert query(warehouse, "SELECT DISTINCT label, output FROM answers") == [("billing", output)]
    assert count_calls()["create"] == 1

    summary = run_job(**arguments).return_values["land"]

    assert (summary["outcomes"], summary["reused"]) == ({"succeeded": 5}, 5)
    assert query(warehouse, "SELECT DISTINCT label, output FROM answers") == [("billing", output)]
    assert count_calls()["create"] == 0


def test_an_answer_with_two_different_values_is_an_invalid_output(warehouse: Path, server: LocalServer) -> None:
    content = '{"label": "billing"} or {"label": "bug"}'
    server.set_faults(Fault(kind=Kind.LINE_FIELD, path=f"{MESSAGE}.content", json=json.dumps(content)))

    run_job(output_schema=SCHEMA, wait={"max_attempts": 1}, land={"columns": ["label"]})

    rows = query(warehouse, "SELECT DISTINCT outcome, label, output, error_message FROM answers")
    assert rows == [
        ("invalid_output", None, content, "The answer contains 2 different JSON values that match the schema.")
    ]
