"""`airflow-batch evals import` prints what it finds and writes the cases to the warehouse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_batch.cli.main import main
from tests.evals.conftest import Evals
from tests.evals.imports.conftest import SAMPLES, Write

FILE = str(SAMPLES / "openai" / "evals" / "game-theory.yaml")


def test_a_file_is_imported_once_however_often_the_command_runs(
    evals: Evals, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evals", "import", FILE, "--format", "openai"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "4 of 4 tests can be imported.",
        "    CASES  GRADER",
        "        4  icontains",
        "In the table eval_cases, 4 cases were added and 0 changed; 0 are already there.",
    ]
    assert main(["evals", "import", FILE, "--format", "openai"]) == 0
    assert "0 cases were added and 0 changed; 4 are already there." in capsys.readouterr().out
    assert len(evals.table("eval_cases")) == 4


def test_a_case_with_several_graders_is_listed_by_their_names(
    evals: Evals, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"input": "A?", "expected": "1", "grader": '["exact", {"grader": "judge", "weight": 2}, {"threshold": 0.7}]'}
    path = str(write("x.jsonl", json.dumps(row)))
    assert main(["evals", "import", path, "--format", "jsonl", "--dry-run"]) == 0
    assert "        1  exact + judge, from a score of 0.7" in capsys.readouterr().out.splitlines()


def test_a_dry_run_writes_nothing(evals: Evals, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evals", "import", FILE, "--format", "openai", "--dry-run"]) == 0
    assert "4 cases would be added and 0 changed" in capsys.readouterr().out
    assert evals.warehouse.execute("SELECT name FROM sqlite_master") == []


def test_nothing_is_imported_unless_the_file_is_understood_as_a_whole(
    evals: Evals, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write("x.csv", "input,expected,grader\nA?,1,exact\nB?,2,exactly\n"))
    assert main(["evals", "import", path, "--format", "csv"]) == 1
    output = capsys.readouterr()
    assert "x.csv, line 3: there is no grader 'exactly'" in output.out
    assert "1 of 2 tests of" in output.err
    assert output.err.endswith(
        "Nothing was imported. To import the others, use `--partial`, or `allow_partial=True` of the task.\n"
    )
    assert evals.warehouse.execute("SELECT name FROM sqlite_master") == []

    assert main(["evals", "import", path, "--format", "csv", "--partial"]) == 0
    assert len(evals.table("eval_cases")) == 1


def test_columns_are_mapped_and_a_relative_path_is_found(
    evals: Evals, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("qa.csv", "question,answer\nA?,1\n")
    monkeypatch.chdir(Path(path).parent)
    options = ["--column", "input=question", "--column", "expected=answer", "--grader", "exact", "--table", "other"]
    assert main(["evals", "import", "qa.csv", "--format", "csv", *options]) == 0
    ((case_id, *values),) = evals.table("other")
    assert (case_id[:3], values) == ("qa-", ["A?", "1", "exact", ""])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.csv", "--format", "csv"], "There is no file"),
        (["none.csv", "--format", "csv", "--column", "input"], "--column: Expected NAME=VALUE, got 'input'."),
        (["nowhere://a/b.csv", "--format", "csv"], "cannot open 'nowhere://a/b.csv'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evals", "import", *arguments]) == 1
    assert message in capsys.readouterr().err
