"""`compare_prompts` from end to end: two variants answer the same cases, and a judge compares their answers."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult, client_of

pytestmark = pytest.mark.usefixtures("server")

CASES = [(f"c{number}", f"What is {number} plus 1?", str(number + 1), "numeric", "sums") for number in range(3)]
CASES.append(("c3", "What is 3 plus 1?", "4", "judge", "sums"))


def seed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE eval_cases (case_id TEXT, input TEXT, expected TEXT, grader TEXT, tags TEXT)")
        connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", CASES)


def variant(name: str, system: str = "", **body: Any) -> dict[str, Any]:
    return {"name": name, "model": "gpt-5-mini", "system": system, "body": body}


@pytest.mark.parametrize("kind", KINDS)
def test_each_variant_answers_each_case_and_a_judge_compares_them_in_both_orders(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], kind: str
) -> None:
    warehouse = warehouse_of(kind, seed)

    result = run_example("compare_prompts")

    assert result.state == "success", result.errors
    assert warehouse.execute("SELECT variant, COUNT(*) FROM eval_answers GROUP BY variant ORDER BY variant") == [
        ("careful", 4),
        ("plain", 4),
    ]
    pairs = warehouse.execute("SELECT case_id, first_variant, second_variant FROM eval_preferences ORDER BY 1, 2")
    assert pairs == [
        (case_id, *order) for case_id, *_ in CASES for order in (("careful", "plain"), ("plain", "careful"))
    ]
    assert warehouse.execute(
        "SELECT variant, case_id, COUNT(verdict) FROM eval_judgements GROUP BY 1, 2 ORDER BY 1"
    ) == [
        ("careful", "c3", 1),
        ("plain", "c3", 1),
    ]
    report = Path(unquote(urlsplit(result.return_values["report"]["report"]).path)).read_text(encoding="utf-8")
    assert "careful against plain" in report


def test_a_variant_sends_its_own_system_prompt_and_parameters(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], server: LocalServer
) -> None:
    warehouse_of("sqlite", seed)
    result = run_example("compare_prompts", variants=[variant("a"), variant("b", "Be short.", reasoning_effort="low")])
    assert result.state == "success", result.errors
    client = client_of(server)
    lines = [
        line for file in client.files.list(purpose="batch") for line in client.files.content(file.id).text.splitlines()
    ]
    bodies = [json.loads(line)["body"] for line in lines]
    answered = [body for body in bodies if "plus 1?" in body["messages"][-1]["content"] and "# First" not in str(body)]
    sent = {
        (body["messages"][0]["content"] if len(body["messages"]) > 1 else "", body.get("reasoning_effort"))
        for body in answered
    }
    assert sent == {("", None), ("Be short.", "low")}


def test_two_variants_with_one_name_fail_the_run_before_anything_is_sent(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse]
) -> None:
    warehouse_of("sqlite", seed)
    result = run_example("compare_prompts", variants=[variant("a"), variant("a")])
    assert "needs a name of its own" in result.error("variants")
    assert "evaluate.answer.submit" not in {task for task, state in result.states.items() if state == "success"}
