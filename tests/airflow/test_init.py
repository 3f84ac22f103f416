"""`airflow-batch init`: the DAG that it writes runs, is formatted, and contains each answer as a literal only."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.cli import main
from airflow_provider_batch.cli.init.dag_file import literal
from tests.airflow.jobs import query, run_dag

NASTY = """it's "quoted" '''triple''' \\ {x} {{ row.body }} {% raw\n); import os #"""
TASKS: dict[str, Sequence[str]] = {
    "classify": ["--labels", 'billing,login,it\'s "x"'],
    "extract": ["--fields", "product=name of the product,urgency"],
    "translate": ["--to", "German"],
    "summarize": [],
    "embed": [],
    "prompt": ["--prompt", 'Is this "urgent"? {{ row.title }}\n{{ row.body }}'],
}

pytestmark = pytest.mark.usefixtures("airflow_home")


def init(path: Path, *arguments: str) -> int:
    return main.main(["init", str(path), "--yes", *arguments])


def dags_of(path: Path) -> Any:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(path))
    assert bag.import_errors == {}
    return bag.dags


@pytest.mark.parametrize("task", TASKS)
def test_the_dag_is_formatted_and_airflow_can_load_it(task: str, tmp_path: Path) -> None:
    path = tmp_path / f"my_{task}.py"
    assert init(path, "--task", task, "--source", "tickets", *TASKS[task]) == 0

    dag = dags_of(path)[f"my_{task}"]
    assert sorted(dag.task_ids) == ["batch_job.land", "batch_job.submit", "batch_job.wait"]
    for check in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--no-cache", str(path)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr


@pytest.mark.parametrize(("task", "columns"), [("classify", "label IS NOT NULL"), ("prompt", "output IS NOT NULL")])
def test_the_dag_runs_and_its_answers_land(
    task: str, columns: str, warehouse: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dags" / "first.py"
    assert init(path, "--task", task, "--source", "tickets", "--table", "answers", *TASKS[task]) == 0
    output = capsys.readouterr().out
    assert "airflow-batch doctor --conn-id openai_default --warehouse-conn-id warehouse --table answers" in output
    assert "airflow dags unpause first" in output

    assert run_dag(dags_of(path)["first"]).state == "success"
    rows = query(warehouse, f"SELECT outcome, {columns}, count(*) FROM answers GROUP BY 1, 2")
    assert rows == [("succeeded", 1, 5)]


def test_a_file_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.py"
    path.write_text("mine")
    assert init(path, "--task", "summarize", "--source", "tickets") == 1

    assert path.read_text() == "mine"
    assert "exists already, and was not changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Pass --source."),
        (["--source", "tickets"], "Pass --labels."),
        (["--source", "tickets", "--task", "extract"], "Pass --fields."),
        (["--source", "tickets", "--task", "translate"], "Pass --to."),
        (["--source", "tickets", "--task", "prompt"], "Pass --prompt."),
        (["--source", "tickets", "--task", "summarize", "--max-cost-usd", "a lot"], "must be an amount"),
        (["--source", "tickets", "--task", "summarize", "--dag-id", "a b"], "cannot be the id of a DAG"),
        (["--source", "tickets", "--task", "summarize", "--schedule", "every day"], "is neither a cron expression"),
        (["--source", "tickets", "--task", "summarize", "--key", "{{ id }}"], "cannot be the name of a column"),
        (["--source", "a{% b %}", "--task", "summarize"], "cannot be the name of a table"),
        (["--source", "tickets", "--labels", "one,one"], "Nothing was written."),
        (["--source", "tickets", "--task", "prompt", "--prompt", "{{ row.body"], "Nothing was written."),
    ],
)
def test_a_wrong_answer_is_reported_and_nothing_is_written(
    arguments: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / "dag.py", *arguments) == 1

    output = capsys.readouterr().err
    assert problem in output
    assert "Traceback" not in output
    assert not list(tmp_path.iterdir())


def test_answers_cannot_become_code(tmp_path: Path) -> None:
    path = tmp_path / "nasty.py"
    arguments = ["--source", f"SELECT 1 AS id, {NASTY!r} AS body", "--table", 'a"b', "--warehouse-conn-id", "w'\"h"]
    assert init(path, "--task", "prompt", "--prompt", NASTY.replace("{% raw", ""), *arguments) == 0

    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert sorted(ast.unparse(call.func) for call in calls) == ["DAG", "batch_job"]
    job = next(call for call in calls if ast.unparse(call.func) == "batch_job")
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in job.keywords}
    assert values["prompt"] == NASTY.replace("{% raw", "")
    assert values["warehouse_conn_id"] == "w'\"h"
    process = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", "--isolated", "--no-cache", str(path)], check=False
    )
    assert process.returncode == 0


@given(st.text())
def test_a_literal_is_the_text_itself(text: str) -> None:
    assert ast.literal_eval(literal(text)) == text


def test_the_questions_are_asked_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    responses = iter(["translate", "", "reviews", "review_id", "text", "French", "", "2.5", ""])
    questions: list[str] = []

    def answer(question: str) -> str:
        questions.append(question)
        return next(responses)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main.main(["init", str(tmp_path / "french.py")]) == 0

    source = (tmp_path / "french.py").read_text()
    assert 'sql="SELECT review_id, text FROM reviews"' in source
    assert 'to="French"' in source
    assert "max_cost_usd=2.5" in source
    assert 'table="reviews_translate_results"' in source
    assert "schedule=None" in source
    assert len(questions) == 9


def test_the_end_of_the_input_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(question: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", end)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    assert main.main(["init", str(tmp_path / "dag.py")]) == 1
    assert "Nothing was written." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labels", "labels.txt"])
def test_the_file_gets_the_ending_without_which_airflow_does_not_load_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert init(tmp_path / name, "--task", "translate", "--source", "tickets", *TASKS["translate"]) == 0

    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.py"]
    assert f"{name}.py" in capsys.readouterr().out
