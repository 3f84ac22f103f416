"""The routes of the evals: only reports of DAGs that the user may read, and only files below the staging root."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from airflow_provider_batch.evals.matrix import Case, CaseAnswer, CaseChange, Matrix, encode
from airflow_provider_batch.evals.page import matrix_name, report_folder, report_name
from airflow_provider_batch.evals.report import Accuracy, RunView
from tests.plugins.rows import NOON, Run, Task, add_runs

HOSTILE = "<script>alert(1)</script>\u202e"
TASK = {"task_id": "report", "map_index": -1}


@pytest.fixture
def api(airflow_api: Any, login: Callable[..., dict[str, str]], staging: str) -> Iterator[Callable[..., Any]]:
    """Return a function that reads a route as a user with a role."""
    with TestClient(airflow_api) as client:

        def read(path: str, role: str | None = "viewer", status: int = 200, **parameters: Any) -> Any:
            response = client.get(f"/batch/api/{path}", params=parameters, headers=login(role) if role else {})
            assert response.status_code == status, response.text
            return response.json()

        yield read


def answer(model: str, text: str | None, score: float) -> CaseAnswer:
    return CaseAnswer(
        model=model,
        repeat=1,
        text=text,
        score=score,
        passed=score == 1,
        answered=text is not None,
        outcome="succeeded" if text else "expired",
        grader="exact",
        reason=None if score else "wrong",
    )


def run_view(run: str, model: str, share: float, day: int) -> RunView:
    return RunView(
        run=run,
        sealed_at=datetime(2026, 11, day, tzinfo=UTC),
        name=model,
        number=0,
        accuracy=Accuracy(share, share - 0.1, share + 0.1),
        verdict="same",
        baseline_run=None,
        cost_usd=0.5,
        cost_per_right_usd=0.25,
        estimate_usd=(0.4, 0.6),
        input_tokens=1,
        output_tokens=1,
        unanswered=0,
    )


def matrix(run: str, is_right: bool, day: int) -> Matrix:
    return Matrix(
        title="nightly",
        run=run,
        sealed_at=datetime(2026, 11, day, tzinfo=UTC),
        stub_answers=2,
        models=["a", "b"],
        runs=[run_view(run, "a", 0.75, day), run_view(run, "b", 0.5, day)],
        changes=[
            CaseChange(
                case_id="c1", model="a", change="worse", score_before=1, score_now=0, runs_before=3, right_before=3
            )
        ],
        cases=[
            Case(
                case_id="c1",
                tags=["dates"],
                prompt=HOSTILE,
                expected="42",
                answers=[answer("a", "42" if is_right else "41", float(is_right)), answer("b", "42", 1)],
            ),
            Case(
                case_id="c2",
                tags=[],
                prompt="Why?",
                expected=None,
                answers=[answer("a", "so", 1), answer("b", None, 0)],
            ),
        ],
        cases_total=2,
    )


def write(
    dag_id: str, run_id: str, day: int, *, is_right: bool = True, name: str | None = None, cleared: int = 0
) -> str:
    """Write a report as the operator does, and return its name. Write it `cleared` days later than at first."""
    content = encode(matrix(run_id, is_right, day))
    report = report_name(b"page", content)
    report_folder(dag_id, run_id, "report", -1).create(matrix_name(report), content)
    xcoms = {"batch_report": report if name is None else name}
    time = NOON + timedelta(days=day)
    task = Task("report", "EvalReportOperator", xcoms=xcoms, end=time + timedelta(days=cleared))
    add_runs([Run(dag_id, run_id, [task], run_after=time)])
    return report


@pytest.fixture
def dag(staging: str, airflow_home: Path) -> str:
    """A DAG with two reports: in the newer run, the model a got worse."""
    dag_id = f"eval_{uuid4().hex[:8]}"
    write(dag_id, "night 1", 1)
    write(dag_id, "night 2", 2, is_right=False)
    return dag_id


def test_a_report_that_was_written_again_is_not_the_newest(
    api: Callable[..., Any], staging: str, airflow_home: Path
) -> None:
    dag_id = f"eval_{uuid4().hex[:8]}"
    write(dag_id, "night 1", 1, cleared=9)
    write(dag_id, "night 2", 2)
    answer = api("evals", dag_id=dag_id)
    assert [report["run_id"] for report in answer["reports"]] == ["night 2", "night 1"]
    assert answer["eval"]["run"] == "night 2"


def test_the_newest_run_comes_with_its_history_and_what_changed(api: Callable[..., Any], dag: str) -> None:
    answer = api("evals", dag_id=dag)

    assert dag in answer["dags"]
    assert [report["run_id"] for report in answer["reports"]] == ["night 2", "night 1"]
    newest = answer["eval"]
    assert (newest["run"], newest["stub_answers"], newest["models"]) == ("night 2", 2, ["a", "b"])
    run = newest["runs"][0]
    assert run["cost_per_right_usd"] == 0.25
    assert (run["model"], run["accuracy"], run["low"], run["high"], run["cost_usd"]) == ("a", 0.75, 0.65, 0.85, 0.5)
    assert (newest["worse"]["total"], newest["better"]["total"]) == (1, 0)
    assert newest["worse"]["cases"][0] | {"prompt": ""} == {
        "case_id": "c1", "model": "a", "change": "worse", "score_before": 1, "score_now": 0,
        "runs_before": 3, "right_before": 3, "prompt": "",
    }  # fmt: skip


def test_every_answer_is_in_the_matrix_and_can_be_searched(api: Callable[..., Any], dag: str) -> None:
    key = {"dag_id": dag, "run_id": "night 2", **TASK}

    def found(**filters: Any) -> list[str]:
        return [case["case_id"] for case in api("evals/cases", **key, **filters)["cases"]]

    case = api("evals/cases", **key)["cases"][0]
    assert case["prompt"] == HOSTILE
    assert case["models"]["a"] == {
        "score": 0, "change": "worse",
        "answers": [{"model": "a", "repeat": 1, "text": "41", "score": 0, "passed": False, "answered": True,
                     "outcome": "succeeded", "grader": "exact", "reason": "wrong"}],
    }  # fmt: skip
    assert found() == ["c1", "c2"]
    assert found(text="SCRIPT") == found(text="dates") == found(only="worse") == found(only="wrong") == ["c1"]
    assert found(only="unanswered") == found(only="unanswered", model="b") == ["c2"]
    assert found(only="unanswered", model="a") == []
    assert found(offset=1) == ["c2"]


def test_two_runs_are_compared_case_by_case(api: Callable[..., Any], dag: str) -> None:
    key = {"dag_id": dag, "run_id": "night 2", "before_run_id": "night 1", **TASK}

    answer = api("evals/comparison", **key)

    assert answer["counts"]["a"] == {"better": 0, "worse": 1, "same": 1, "unanswered": 0}
    (case,) = answer["cases"]
    assert (case["case_id"], case["model"], case["change"]) == ("c1", "a", "worse")
    assert (case["before"][0]["text"], case["now"][0]["text"]) == ("42", "41")
    assert api("evals/comparison", **key, only="unanswered")["cases"][0]["case_id"] == "c2"
    assert api("evals/comparison", **key, model="b")["total"] == 0


def test_an_xcom_with_another_name_opens_nothing(api: Callable[..., Any], staging: str, airflow_home: Path) -> None:
    dag_id = f"eval_{uuid4().hex[:8]}"
    for number, name in enumerate(
        ("../../secret.json.z", "/etc/passwd", "report-0.html", "report-0123456789abcdef.html\n")
    ):
        write(dag_id, f"run {number}", 1, name=name)

    assert api("evals", dag_id=dag_id)["reports"] == []
    for number in range(4):
        api("evals/cases", status=404, dag_id=dag_id, run_id=f"run {number}", **TASK)


def test_a_report_without_its_answers_is_said_and_not_shown_as_empty(
    api: Callable[..., Any], staging: str, airflow_home: Path
) -> None:
    dag_id = f"eval_{uuid4().hex[:8]}"
    write(dag_id, "run", 1, name="report-0123456789abcdef.html")

    answer = api("evals", dag_id=dag_id)

    assert answer["eval"] is None
    assert "no eval report here" in answer["problem"]
    assert len(answer["reports"]) == 1


def test_without_a_login_or_with_senseless_parameters_nothing_is_read(api: Callable[..., Any], dag: str) -> None:
    key = {"dag_id": dag, "run_id": "night 2", **TASK}
    for path in ("evals", "evals/cases", "evals/comparison"):
        api(path, role=None, status=401, before_run_id="night 1", **key)
    api("evals/cases", status=400, **key, only="nonsense")
    api("evals/cases", status=400, **key, limit=1_000_000)
    api("evals/comparison", status=400, **key, before_run_id="")
    api("evals/comparison", status=404, **key, before_run_id="night 3")
