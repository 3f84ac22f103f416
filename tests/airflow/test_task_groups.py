"""The task group `batch_job`: on its own, mapped, and with assets."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError
from tests.airflow.jobs import make_tickets, query, run_dag

ARGUMENTS: dict[str, Any] = {
    "sql": "SELECT id, title, body, label FROM tickets ORDER BY id",
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.title }}: {{ row.body }}",
    "table": "answers",
    "canary": 0,
}


@pytest.fixture
def path(tmp_path: Path, connect: Callable[..., None]) -> Path:
    path = tmp_path / "warehouse.sqlite"
    make_tickets(path, [(f"t{n}", f"title {n}", f"body {n}", "x") for n in range(3)])
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def new_dag() -> Any:
    from airflow.sdk import DAG

    return DAG(f"group_{uuid4().hex[:8]}", schedule=None)


@pytest.mark.usefixtures("offline")
def test_it_sends_every_row_and_returns_the_summary_of_the_landing(path: Path) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    @task
    def describe(summary: dict[str, Any]) -> str:
        return f"{summary['requests']} rows for {summary['cost_usd']}, at most {summary['estimate']['high_usd']}"

    with new_dag() as dag:
        landing: Any = batch_job(**ARGUMENTS, max_attempts=1, carry=["label"])
        describe(landing)

    result = run_dag(dag)

    assert result.states == dict.fromkeys(
        ["batch_job.submit", "batch_job.wait", "batch_job.land", "describe"], "success"
    )
    assert query(path, "SELECT custom_id, outcome, label FROM answers ORDER BY 1") == [
        (f"t{n}", "succeeded", "x") for n in range(3)
    ]
    summary = result.return_values["batch_job.land"]
    assert 0 < float(summary["cost_usd"]) <= summary["estimate"]["high_usd"]
    assert result.return_values["describe"].startswith("3 rows for 0.0")


@pytest.mark.usefixtures("offline")
def test_the_answers_can_land_in_another_warehouse(path: Path, tmp_path: Path, connect: Callable[..., None]) -> None:
    from airflow_provider_batch.task_groups import batch_job

    elsewhere = tmp_path / "elsewhere.sqlite"
    connect("elsewhere", conn_type="sqlite", host=str(elsewhere))
    with new_dag() as dag:
        batch_job.override(group_id="label")(**ARGUMENTS, results_conn_id="elsewhere")

    assert run_dag(dag).states == dict.fromkeys(["label.submit", "label.wait", "label.land"], "success")
    assert query(elsewhere, "SELECT count(*) FROM answers") == [(3,)]
    assert query(path, "SELECT count(*) FROM sqlite_master WHERE name = 'answers'") == [(0,)]


@pytest.mark.usefixtures("offline")
def test_answers_in_another_warehouse_are_reused_from_there(
    path: Path, tmp_path: Path, connect: Callable[..., None]
) -> None:
    from airflow_provider_batch.task_groups import batch_job

    connect("elsewhere", conn_type="sqlite", host=str(tmp_path / "elsewhere.sqlite"))
    reused = []
    for _ in range(2):
        with new_dag() as dag:
            batch_job(**ARGUMENTS, results_conn_id="{{ 'elsewhere' }}", reuse_from=ARGUMENTS["table"])
        reused.append(run_dag(dag).return_values["batch_job.submit"]["reused"])
    assert reused == [0, 3]


@pytest.mark.usefixtures("airflow_home")
def test_upstream_tasks_run_before_submit_and_downstream_tasks_after_land() -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import chain

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        first, second, third, last = (EmptyOperator(task_id=name) for name in ("first", "second", "third", "last"))
        group = batch_job(**ARGUMENTS)
        first >> group >> last
        group << second
        chain(third, group)

    assert dag.get_task("batch_job.submit").upstream_task_ids == {"first", "second", "third"}
    assert dag.get_task("batch_job.land").upstream_task_ids == {"batch_job.wait", "batch_job.submit"}
    assert dag.get_task("last").upstream_task_ids == {"batch_job.land"}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("nested", [False, True])
def test_a_mapped_group_creates_one_job_and_one_summary_per_value(path: Path, nested: bool) -> None:
    from airflow.sdk import task, task_group

    from airflow_provider_batch.task_groups import batch_job

    models = ["gpt-5-mini", "gpt-5-nano"]

    @task
    def total(summaries: Any) -> int:
        return sum(summary["requests"] for summary in summaries)

    with new_dag() as dag:
        if nested:

            @task_group
            def label(model: str) -> Any:
                return batch_job(**ARGUMENTS | {"model": model}, key={"variant": model})

            landings = label.expand(model=models)
        else:
            fixed = {name: value for name, value in ARGUMENTS.items() if name != "model"}
            landings = batch_job.partial(**fixed, key={"variant": "{{ ti.map_index }}"}).expand(model=models)
        total(landings)

    result = run_dag(dag)

    assert result.state == "success"
    assert result.return_values["total"] == 6
    assert query(path, "SELECT count(*), count(DISTINCT job_uid), count(DISTINCT variant) FROM answers") == [(6, 2, 2)]
    assert query(path, "SELECT count(DISTINCT model) FROM answers") == [(2,)]
    if nested:
        assert query(path, "SELECT DISTINCT variant FROM answers ORDER BY 1") == [(model,) for model in models]


@pytest.mark.usefixtures("offline")
def test_the_event_of_each_outlet_asset_carries_the_summary(path: Path) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.sdk import Asset
    from airflow.utils.session import create_session

    from airflow_provider_batch.task_groups import batch_job

    name = f"answers_{uuid4().hex[:8]}"
    with new_dag() as dag:
        batch_job(**ARGUMENTS, outlets=[Asset(name)])

    result = run_dag(dag)

    summary = result.return_values["batch_job.land"]
    with create_session() as session:
        (event,) = [event for event in session.query(AssetEvent) if event.asset.name == name]
        assert event.extra == {key: value for key, value in summary.items() if key != "reasons"}
    assert summary["outcomes"] == {"succeeded": 3}
    assert summary["job_uid"]


@pytest.mark.usefixtures("offline")
def test_an_outlet_alias_stands_for_the_asset_with_the_name_of_the_table(path: Path) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.sdk import AssetAlias
    from airflow.utils.session import create_session

    from airflow_provider_batch.task_groups import batch_job

    table = f"answers_{uuid4().hex[:8]}"
    with new_dag() as dag:
        batch_job(**ARGUMENTS | {"table": "{{ params.table }}"}, outlets=AssetAlias(f"alias of {table}"))

    run_dag(dag, conf={"table": table})

    with create_session() as session:
        (event,) = [event for event in session.query(AssetEvent) if event.asset.name == table]
        assert event.extra["table"] == table
        assert event.extra["outcomes"] == {"succeeded": 3}


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"promt": "x"}, "no argument 'promt'. Did you mean 'prompt'?"),
        ({"retries": 3}, "default_args"),
        ({"job": "x"}, "no argument 'job'"),
        ({"task_id": "x"}, "no argument 'task_id'"),
        ({"system_prompt": "x"}, "no argument 'system_prompt'. Did you mean 'system'?"),
        ({"temperature": 0}, "no argument 'temperature'. A parameter of the request belongs in the body"),
        ({"results_conn_id": 5}, "results_conn_id: Expected text"),
        ({"deadline": 30}, "deadline: Expected a duration"),
        ({"history": "maybe"}, "history: Expected true or false"),
    ],
)
def test_an_unknown_argument_is_rejected_when_the_dag_is_parsed(arguments: dict[str, Any], message: str) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError) as error:
        batch_job(**ARGUMENTS, **arguments)
    assert message in str(error.value)


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("value", ["Be brief.", {"tone": "brief"}])
def test_mapping_over_a_text_or_a_dict_is_refused(value: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator
    from airflow_provider_batch.task_groups import batch_job

    submit = {name: ARGUMENTS[name] for name in ("sql", "custom_id", "model", "prompt")}
    refused = r"expand\(system=.*\) makes one task for each .*expand\(system=\["

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was never mapped")
        with new_dag(), pytest.raises(InputError, match=refused):
            batch_job.partial(**ARGUMENTS, history=True).expand(system=value)
        with new_dag(), pytest.raises(InputError, match=refused):
            BatchSubmitOperator.partial(task_id="submit", **submit).expand(system=value)


@pytest.mark.usefixtures("airflow_home")
def test_a_group_is_not_named_like_a_task() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError, match=r"no argument 'task_id'.*group_id="):
        batch_job(**ARGUMENTS, task_id="labels")


@pytest.mark.usefixtures("airflow_home")
def test_mapped_jobs_that_would_overwrite_each_others_rows_are_rejected() -> None:
    from airflow_provider_batch.task_groups import batch_job

    fixed = {name: value for name, value in ARGUMENTS.items() if name != "model"}
    with pytest.warns(UserWarning, match="was never mapped"):
        with new_dag(), pytest.raises(InputError, match="overwrite the rows of the one before"):
            batch_job.partial(**fixed).expand(model=["a", "b"])
    with pytest.warns(UserWarning, match="was never mapped"):
        with new_dag(), pytest.raises(InputError, match="replace the file of the one before"):
            batch_job.partial(**fixed, history=True, results_file="/data/a.parquet").expand(model=["a", "b"])
    # Different rows, a table per job, or the job_uid in the key keep them apart.
    for mapped in ({"sql": ["SELECT 1 AS id"]}, {"table": ["a", "b"]}):
        rest = {name: value for name, value in ARGUMENTS.items() if name not in mapped}
        with new_dag():
            batch_job.partial(**rest).expand(**mapped)
    with new_dag():
        batch_job.partial(**fixed, history=True).expand(model=["a", "b"])
    with new_dag():
        file = "/data/{{ ti.map_index }}.parquet"
        batch_job.partial(**fixed | {"table": None}, results_file=file).expand(model=["a", "b"])


@pytest.mark.usefixtures("airflow_home")
def test_an_argument_that_is_needed_while_parsing_cannot_be_mapped() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with pytest.warns(UserWarning, match="was never mapped"):
        with new_dag(), pytest.raises(InputError, match="'max_attempts' must be known when the DAG is parsed"):
            batch_job.partial(**ARGUMENTS, key={"v": "{{ ti.map_index }}"}).expand(max_attempts=[1, 2])


# The approval


def test_with_a_threshold_a_person_approves_between_submit_and_wait() -> None:
    from airflow_provider_batch.operators.approval import JobApprovalOperator
    from airflow_provider_batch.task_groups import batch_job

    user = {"id": "1", "name": "admin"}
    with new_dag() as dag:
        batch_job(**ARGUMENTS, approve_above_usd=0.5, approvers=[user])

    approve = dag.get_task("batch_job.approve")
    assert isinstance(approve, JobApprovalOperator)
    assert (approve.upstream_task_ids, approve.downstream_task_ids) == ({"batch_job.submit"}, {"batch_job.wait"})
    assert (approve.defaults, approve.assigned_users) == (["Reject"], [user])
    assert dag.get_task("batch_job.submit").stop_after_canary


@pytest.mark.usefixtures("offline")
def test_a_job_below_the_threshold_needs_no_approval(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(**ARGUMENTS, approve_above_usd="0.5")

    result = run_dag(dag)

    assert set(result.states.values()) == {"success"}
    assert query(path, "SELECT count(*) FROM answers WHERE outcome = 'succeeded'") == [(3,)]
    assert "No approval is necessary: the job costs at most about " in capfd.readouterr().out


@pytest.mark.usefixtures("offline")
def test_a_job_whose_canary_sends_everything_needs_no_approval(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(**ARGUMENTS | {"max_rows": 1, "canary": 5}, approve_above_usd=0)

    result = run_dag(dag)

    assert set(result.states.values()) == {"success"}
    assert query(path, "SELECT count(*) FROM answers WHERE outcome = 'succeeded'") == [(1,)]
    assert "because no requests of the job are left to send" in capfd.readouterr().out


@pytest.mark.usefixtures("offline")
def test_a_preview_needs_no_approval(path: Path) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job(**ARGUMENTS, approve_above_usd=0, preview=True)

    assert [run_dag(dag).states[f"batch_job.{task}"] for task in ("submit", "approve", "wait", "land")] == [
        "success",
        "skipped",
        "skipped",
        "skipped",
    ]


@pytest.mark.parametrize("amount", ["a lot", -1])
def test_a_threshold_that_is_not_an_amount_is_rejected_when_the_dag_is_parsed(amount: Any) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError, match="above_usd"):
        batch_job(**ARGUMENTS, approve_above_usd=amount)
