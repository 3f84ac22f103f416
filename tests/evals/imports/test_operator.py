"""`EvalImportOperator` imports a file as a task, with the same rules as the command."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.operators.evals import EvalCasesOperator, EvalImportOperator
from tests.evals.conftest import Evals
from tests.evals.imports.conftest import SAMPLES, Write

FILE = str(SAMPLES / "openai" / "evals" / "shared-borders.yaml")


def run_import(**arguments: Any) -> dict[str, int]:
    return EvalImportOperator(task_id="import", **arguments).execute({})


def test_imported_cases_can_be_graded(evals_anywhere: Evals) -> None:
    result = run_import(file=FILE, format="openai")
    assert result == {"cases": 6, "added": 6, "changed": 0, "unchanged": 0, "left_out": 0}
    assert EvalCasesOperator(task_id="cases").execute({}) == {
        "cases": 6,
        "judged": 0,
        "tags": {"shared-borders": 6},
    }
    assert run_import(file=FILE, format="openai")["unchanged"] == 6


def test_answers_to_cases_of_three_tools_are_graded_in_one_run(evals: Evals, write: Write) -> None:
    run_import(file=str(SAMPLES / "openai" / "evals" / "game-theory.yaml"), format="openai")
    columns = {"input": "question", "target": "answer"}
    biology = str(SAMPLES / "inspect" / "biology_qa.jsonl")
    run_import(file=biology, format="inspect", scorer="includes", columns=columns)
    config = "prompts: ['Capital of {{c}}?']\ntests:\n- {vars: {c: Peru}, assert: [{type: icontains, value: Lima}]}\n"
    run_import(file=str(write("pf.yaml", config)), format="promptfoo")

    cases = evals.table("eval_cases", "case_id, expected", order="1")
    assert len(cases) == 4 + 20 + 1
    evals.land("night-1", "right", [(case_id, f"It is {expected.upper()}.") for case_id, expected in cases])
    evals.land("night-1", "wrong", [(case_id, "No idea.") for case_id, _ in cases])
    results = evals.grade("night-1")["variants"]
    assert {name: result["accuracy"] for name, result in results.items()} == {"right": 1.0, "wrong": 0.0}


def test_a_file_in_an_object_store_and_the_files_that_it_names(evals: Evals) -> None:
    attach(protocol="memory", fs=MemoryFileSystem())
    ObjectStoragePath("memory://evals/pf/promptfooconfig.yaml").write_text(
        "prompts: ['{{ q }}?']\ntests: file://tests.csv\n"
    )
    ObjectStoragePath("memory://evals/pf/tests.csv").write_text("q,__expected\nA,1\nB,contains:2\n")
    result = run_import(file="memory://evals/pf/promptfooconfig.yaml", format="promptfoo", name="pf")
    assert result["added"] == 2
    assert sorted(evals.table("eval_cases", "input, expected, grader")) == [
        ("A?", "1", "exact"),
        ("B?", "2", "contains"),
    ]


def test_a_test_that_cannot_be_imported_fails_the_task_unless_a_partial_import_is_allowed(
    evals: Evals, write: Write
) -> None:
    path = str(write("x.csv", "input,expected,grader\nA?,1,exact\nB?,2,exactly\n"))
    with pytest.raises(AirflowFailException, match=r"x\.csv, line 3: there is no grader 'exactly'"):
        run_import(file=path, format="csv")
    assert run_import(file=path, format="csv", allow_partial="yes")["left_out"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"file": "cases.csv"}, "Task 'import': Expected the address of a file"),
        ({"format": "excel"}, "format: Expected "),
        ({"columns": ["input"]}, "columns: Expected a dict"),
        ({"columns": {"input": 3}}, "Expected text that is not empty, got 3"),
        ({"allow_partial": "perhaps"}, "allow_partial: Expected true or false"),
        ({"table": ""}, "table: Expected text that is not empty"),
        ({"fiel": "x"}, "fiel"),
    ],
)
def test_arguments_are_checked_while_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EvalImportOperator(task_id="import", **{"file": "/data/cases.csv", "format": "csv", **arguments})
