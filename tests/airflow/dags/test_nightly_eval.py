"""`nightly_eval` from end to end: nightly runs on the local batch server."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.dags.conftest import blocks, page
from tests.airflow.dags.warehouses import KINDS, Warehouse
from tests.airflow.jobs import DagRunResult, client_of

ROOT = Path(__file__).parents[3]
#: The answers of the offline responder always contain "offline".
RIGHT_CASES = [(f"right-{number:02}", f"Question {number}?", "(?i)offline", "regex", "easy") for number in range(12)]
WRONG_CASES = [(f"wrong-{number}", f"Riddle {number}?", "42", "exact", "hard,number") for number in range(3)]
JUDGED_CASES = [("judged-1", "Tell a joke.", "a joke", "judge", "hard,text")]
CASES = [*RIGHT_CASES, *WRONG_CASES, *JUDGED_CASES]


def seed(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE eval_cases (case_id TEXT, input TEXT, expected TEXT, grader TEXT, tags TEXT)")
        connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", CASES)


@pytest.fixture
def warehouse(warehouse_of: Callable[..., Warehouse]) -> Warehouse:
    return warehouse_of("sqlite", seed)


@pytest.fixture
def night(
    run_example: Callable[..., DagRunResult], warehouse: Warehouse, server: LocalServer
) -> Callable[..., DagRunResult]:
    """Return a function that runs the DAG with these params."""
    return partial(run_example, "nightly_eval")


def files_and_batches(server: LocalServer) -> tuple[int, int]:
    client = client_of(server)
    return len(list(client.files.list())), len(list(client.batches.list(limit=100)))


def page_of(result: DagRunResult) -> str:
    return Path(unquote(urlsplit(result.return_values["report"]["report"]).path)).read_text(encoding="utf-8")


def test_the_first_night_has_no_history_and_the_second_is_compared_with_it(
    night: Callable[..., DagRunResult], warehouse: Warehouse
) -> None:
    first, second = night(), night()

    assert (first.state, second.state) == ("success", "success")
    runs = [name for (name,) in warehouse.execute("SELECT DISTINCT run FROM eval_answers ORDER BY run")]
    assert warehouse.execute(
        "SELECT run, variant, COUNT(*), COUNT(DISTINCT case_id) FROM eval_answers GROUP BY 1, 2 ORDER BY 1, 2",
    ) == [(run, model, len(CASES), len(CASES)) for run in runs for model in ("gpt-5-mini", "gpt-5-nano")]
    assert warehouse.execute("SELECT COUNT(*), COUNT(verdict), COUNT(reason) FROM eval_judgements") == [(4, 4, 4)]
    # An answer that stayed the same keeps its verdict, and no judge is paid again.
    assert warehouse.execute(
        "SELECT run, MAX(attempt), SUM(cost_usd) > 0 FROM eval_judgements GROUP BY run ORDER BY run"
    ) == [
        (runs[0], 1, 1),
        (runs[1], 0, 0),
    ]
    assert warehouse.execute(
        "SELECT run, baseline_run, cases, worse, verdict FROM eval_comparisons WHERE variant LIKE '%mini' "
        "AND tag = '' ORDER BY run",
    ) == [(runs[0], None, 0, 0, "no_history"), (runs[1], runs[0], len(CASES), 0, "same")]
    assert warehouse.execute("SELECT COUNT(*) FROM eval_accepted") == [(4,)]
    assert "nothing to compare with" in page_of(first)
    assert f"Compared with the accepted run <code>{runs[0]}</code>" in page_of(second)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("kind", KINDS)
def test_the_cases_of_the_first_eval_are_graded_and_reported_night_after_night(
    warehouse_of: Callable[..., Warehouse], run_example: Callable[..., DagRunResult], kind: str
) -> None:
    """None of them needs a judge. A SQLite warehouse then never has the table of the verdicts."""
    (script,) = re.findall(
        r"^```sql\n(.*?)^```$", (ROOT / "docs" / "start" / "first-eval.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )

    def seed_page(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)

    warehouse = warehouse_of(kind, seed_page)
    first, second = run_example("nightly_eval"), run_example("nightly_eval")

    assert (first.state, second.state) == ("success", "success"), (first.errors, second.errors)
    assert warehouse.execute("SELECT COUNT(*) FROM eval_grades") == [(12,)]


def test_several_judges_judge_each_answer(night: Callable[..., DagRunResult], warehouse: Warehouse) -> None:
    result = night(models=["gpt-5-mini"], judges=["gpt-5-mini", "gpt-5-nano", "gpt-5"])

    assert result.state == "success"
    assert warehouse.execute("SELECT custom_id, verdict IS NULL FROM eval_judgements ORDER BY custom_id") == [
        ("judged-1", 0),
        ("judged-1@gpt-5", 0),
        ("judged-1@gpt-5-nano", 0),
    ]
    ((reason,),) = warehouse.execute("SELECT reason FROM eval_grades WHERE case_id = 'judged-1'")
    assert "of 3 verdicts" in reason
    assert "No person has judged an answer yet" in page_of(result)


SIMILAR_CASES = [
    ("similar", "Say hello.", '["Offline responder: no model was called", "Hello!"]', "similar:0.3", ""),
    ("different", "Say hello.", "A quick brown fox", "similar:0.3", ""),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("server")
def test_answers_and_expected_texts_are_embedded_once_for_the_cases_that_compare_them(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], kind: str
) -> None:
    def seed_similar(path: Path) -> None:
        seed(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", SIMILAR_CASES)

    warehouse = warehouse_of(kind, seed_similar)
    first = run_example("nightly_eval", models=["gpt-5-mini"])
    assert first.state == "success", first.errors
    # Both cases have the same answer, so it is one of the four texts.
    assert warehouse.execute("SELECT COUNT(*), MIN(attempt) FROM eval_embeddings") == [(4, 1)]
    assert warehouse.execute(
        "SELECT case_id, passed FROM eval_grades WHERE case_id IN ('similar', 'different') ORDER BY case_id"
    ) == [("different", 0), ("similar", 1)]
    assert warehouse.execute("SELECT part FROM eval_costs ORDER BY part") == [
        ("answers",),
        ("embeddings",),
        ("judgements",),
    ]
    if kind == "sqlite":
        assert run_example("nightly_eval", models=["gpt-5-mini"]).state == "success"
        assert warehouse.execute("SELECT COUNT(*), SUM(attempt) FROM eval_embeddings") == [(8, 4)]


RUBRIC_CASES = [
    ("fact", "Say a fact.", "a fact", '["factuality", {"grader": "is-json", "weight": 2}]', ""),
    ("rubric", "Write a poem.", "It rhymes.", "llm-rubric:0.7", ""),
]


def test_each_grader_by_a_judge_gets_its_own_prompt_and_as_many_verdicts_as_the_form_says(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], server: LocalServer
) -> None:
    def seed_rubrics(path: Path) -> None:
        seed(path)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", RUBRIC_CASES)

    warehouse = warehouse_of("sqlite", seed_rubrics)
    first = run_example("nightly_eval", models=["gpt-5-mini"], verdicts=2)
    assert first.state == "success", first.errors
    assert warehouse.execute("SELECT custom_id FROM eval_judgements ORDER BY custom_id") == [
        (f"{case_id}{suffix}",) for case_id in ("fact", "judged-1", "rubric") for suffix in ("", "@gpt-5-mini@2")
    ]
    assert warehouse.execute("SELECT COUNT(score) FROM eval_judgements WHERE case_id = 'rubric'") == [(2,)]
    client = client_of(server)
    lines = "".join(client.files.content(file.id).text for file in client.files.list(purpose="batch"))
    assert {"# Rubric", "# Answer of the expert", "# What a correct answer", "# Verdict 2"} <= set(
        re.findall("# (?:Rubric|Answer of the expert|What a correct answer|Verdict 2)", lines)
    )

    assert run_example("nightly_eval", models=["gpt-5-mini"], verdicts=3).state == "success"
    # Of the second night, only the third verdict on each answer is new, because its prompt says that it is the third.
    assert warehouse.execute("SELECT attempt, COUNT(*) FROM eval_judgements GROUP BY 1 ORDER BY 1") == [(0, 6), (1, 9)]


def test_the_amount_of_the_form_is_the_total_of_the_run_over_all_models_and_the_judge(
    night: Callable[..., DagRunResult], warehouse: Warehouse
) -> None:
    from airflow_provider_batch.staging.layout import budget_folders, staging_root
    from airflow_provider_batch.worker.budget_log import read_newest

    assert night(max_cost_usd=5).state == "success"

    (account,) = [entry[1] for folder in budget_folders(staging_root()) if (entry := read_newest(folder)) is not None]
    costs = [Decimal(cost) for (cost,) in warehouse.execute("SELECT cost_usd FROM eval_costs")]
    assert len(costs) == 4
    assert account.budget.usd == 5
    assert {job.key.task_id for job in account.jobs.values()} == {"evaluate.answer.submit", "evaluate.judge.submit"}
    assert len(account.jobs) == len(costs)
    assert account.spent == pytest.approx(sum(costs))
    assert account.spent > 0
    assert account.reserved == 0


def test_a_regression_fails_the_gate_which_names_the_cases_and_the_run_is_not_accepted(
    night: Callable[..., DagRunResult], server: LocalServer, warehouse: Warehouse
) -> None:
    night(models=["gpt-5-mini"])
    server.set_faults(Fault(kind=Kind.REFUSAL, custom_ids=frozenset(case[0] for case in RIGHT_CASES[2:])))

    failed = night(models=["gpt-5-mini"])

    assert failed.state == "failed"
    assert (failed.states["gate"], failed.states["accept"]) == ("failed", "upstream_failed")
    error = failed.error("gate")
    # The canary sends some requests synchronously, without a custom_id, so the fault does not hit those.
    counts = re.search(r"of 16 cases, (\d+) got worse and 0 got better", error)
    assert counts is not None
    worse = int(counts[1])
    assert 5 <= worse <= 10
    assert re.search(rf"gpt-5-mini regressed by {worse / 16 * 100:.1f} points", error)
    assert "Worse: right-" in error
    assert '<section class="card bad">' in page_of(failed)
    assert page_of(failed).count('<details class="case">') == worse
    assert warehouse.execute("SELECT COUNT(*) FROM eval_accepted") == [(1,)]

    warning_run = night(models=["gpt-5-mini"], gate="warn")

    assert warning_run.state == "success"
    assert (warning_run.states["gate"], warning_run.states["accept"]) == ("skipped", "skipped")
    assert warehouse.execute("SELECT COUNT(*) FROM eval_accepted") == [(1,)]


@pytest.mark.parametrize("kind", KINDS)
def test_each_case_is_sent_as_often_as_repeats_says_in_any_warehouse(
    run_example: Callable[..., DagRunResult], warehouse_of: Callable[..., Warehouse], server: LocalServer, kind: str
) -> None:
    warehouse = warehouse_of(kind, seed)

    result = run_example("nightly_eval", models=["gpt-5-mini"], repeats=3)

    assert result.state == "success"
    assert warehouse.execute(
        "SELECT repeat, COUNT(*), MIN(custom_id), MAX(attempt) FROM eval_answers GROUP BY repeat ORDER BY repeat"
    ) == [(1, 16, "judged-1", 1), (2, 16, "judged-1~2", 1), (3, 16, "judged-1~3", 1)]
    assert warehouse.execute("SELECT COUNT(*), COUNT(DISTINCT repeat), COUNT(verdict) FROM eval_judgements") == [
        (3, 3, 3)
    ]
    assert warehouse.execute("SELECT cases, answers, unanswered FROM eval_summaries WHERE tag = ''") == [(16, 48, 0)]
    assert warehouse.execute("SELECT COUNT(*) FROM eval_costs WHERE cost_usd > 0 AND estimate_high_usd > 0") == [(2,)]
    assert page_of(result).count('<details class="case">') in (3, 4)


def test_a_night_is_reported_with_its_costs_and_grading_it_again_is_free(
    night: Callable[..., DagRunResult], server: LocalServer, warehouse: Warehouse
) -> None:
    from airflow_provider_batch.core.ledger.job import JobKey
    from airflow_provider_batch.links.batch import report_page
    from airflow_provider_batch.operators.evals import EvalGradeOperator
    from airflow_provider_batch.plugins.lookup import load_report

    result = night(models=["gpt-5-mini"])

    ((run,),) = warehouse.execute("SELECT DISTINCT run FROM eval_answers")
    report = result.return_values["report"]
    assert report["link"] == report_page("nightly_eval", run, "report")
    assert report["bytes"] == len(page_of(result).encode())
    assert load_report(JobKey("nightly_eval", "report", run)) == page_of(result).encode()
    assert load_report(JobKey("nightly_eval", "gate", run)) is None
    (costs,) = (block for block in blocks("nightly_eval", "sql") if "FROM eval_costs" in block)
    assert [row[:3] for row in warehouse.execute(costs)] == [
        (run, "gpt-5-mini", "answers"),
        (run, "gpt-5-mini", "judgements"),
    ]
    assert all(low <= float(cost) <= high for *_, low, high, cost, _, _, _ in warehouse.execute(costs))

    calls, correct = server.calls(), "SELECT correct FROM eval_summaries WHERE tag = 'number'"
    assert warehouse.execute(correct) == [(0,)]
    warehouse.execute("UPDATE eval_cases SET expected = '(?i)offline', grader = 'regex' WHERE case_id LIKE 'wrong-%'")

    EvalGradeOperator(task_id="grade", run=run, judgements="eval_judgements").execute({})

    assert warehouse.execute(correct) == [(3,)]
    assert server.calls() == calls

    (labels,) = (block for block in blocks("nightly_eval", "sql") if "INTO eval_labels" in block)
    warehouse.execute(labels)
    assert warehouse.execute("SELECT case_id, label FROM eval_labels") == [("tone-01", "incorrect")]


def test_the_cases_on_the_page_can_be_graded(warehouse: Warehouse, airflow_home: Path) -> None:
    from airflow_provider_batch.operators.evals import EvalCasesOperator

    warehouse.execute("DROP TABLE eval_cases")
    for statement in blocks("nightly_eval", "sql")[0].split(";\n"):
        warehouse.execute(statement)

    result = EvalCasesOperator(task_id="cases").execute({})

    assert (result["cases"], result["judged"]) == (3, 1)


def test_the_page_lists_all_tasks_and_links_to_existing_files(airflow_home: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    text = page("nightly_eval")
    tasks = set(DagBag(str(dags_folder() / "nightly_eval.py")).dags["nightly_eval"].task_ids)

    documented_tasks = re.findall(r"^\| `([\w.]+)` \|", text, flags=re.MULTILINE)
    assert {task for task in tasks for name in documented_tasks if f"{task}.".startswith(f"{name}.")} == tasks - {
        "models"
    }
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links
    assert [name for name in links if not (ROOT / "docs" / "dags" / name).exists()] == []


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("INSERT INTO eval_cases SELECT * FROM eval_cases WHERE case_id = 'right-03'", "'right-03'.*more than once"),
        ("UPDATE eval_cases SET grader = 'vibes' WHERE case_id = 'wrong-1'", "'wrong-1': there is no grader 'vibes'"),
    ],
)
def test_cases_that_cannot_be_graded_fail_the_run_before_anything_is_sent(
    night: Callable[..., DagRunResult], server: LocalServer, warehouse: Warehouse, sql: str, message: str
) -> None:
    warehouse.execute(sql)

    result = night()

    assert result.state == "failed"
    assert list(result.errors) == ["cases"]
    with pytest.raises(Exception, match=message):
        raise result.errors["cases"]
    assert server.calls()["synchronous"] == 0
    assert files_and_batches(server) == (0, 0)


def test_a_prompt_with_a_missing_column_fails_before_anything_is_sent(
    night: Callable[..., DagRunResult], server: LocalServer
) -> None:
    result = night({"nightly_eval.py": ("{{ row.input }}", "{{ row.question }}")})

    assert result.state == "failed"
    assert "prompt" in result.error("evaluate.answer.submit")
    assert "'question'" in result.error("evaluate.answer.submit")
    assert (result.states["grade"], result.states["accept"]) == ("upstream_failed", "upstream_failed")
    assert server.calls()["synchronous"] == 0
    assert files_and_batches(server) == (0, 0)


@pytest.mark.parametrize(
    ("model", "message"), [("gpt-5-nano", "The model does not exist"), ("gpt-17", "no price is known for gpt-17")]
)
def test_an_unknown_model_costs_nothing_and_the_other_model_is_still_graded(
    night: Callable[..., DagRunResult], server: LocalServer, warehouse: Warehouse, model: str, message: str
) -> None:
    # The first canary gets a 404. A model without a price fails even before its canary.
    not_found = Fault(kind=Kind.STATUS, calls=frozenset({Call.SYNCHRONOUS}), status=404, times=4)
    server.set_faults(*([not_found] if model == "gpt-5-nano" else []))

    result = night(models=["gpt-5-mini", model])

    error = result.error("evaluate.answer.submit")
    assert message in error
    assert "Nothing was uploaded" in error
    (unknown_model,) = (name for name in ("gpt-5-mini", model) if name in error)
    (graded_model,) = {"gpt-5-mini", model} - {unknown_model}
    assert warehouse.execute("SELECT graded, unanswered, variant FROM eval_summaries WHERE tag = '' ORDER BY 1") == [
        (0, 16, unknown_model),
        (16, 0, graded_model),
    ]
    assert f"{unknown_model}: 16 of 16 answers are missing" in result.error("gate")
    assert warehouse.execute("SELECT DISTINCT variant FROM eval_answers") == [(graded_model,)]
    assert warehouse.execute("SELECT COUNT(*) FROM eval_accepted") == [(0,)]


@pytest.mark.parametrize(
    "params",
    [
        {"models": []},
        {"models": ["gpt-5-mini", "gpt-5-mini"]},
        {"models": ["x' OR '1'='1"]},
        {"repeats": 0},
        {"max_cost_usd": -1},
        {"alpha": 0},
        {"gate": "maybe"},
    ],
    ids=str,
)
def test_the_form_rejects_invalid_values(night: Callable[..., DagRunResult], params: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=next(iter(params))):
        night(**params)
