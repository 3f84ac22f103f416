"""`batch_job`: submit, wait and land as one call, alone, mapped, and with assets."""

from __future__ import annotations

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
def test_it_asks_every_row_and_returns_the_account_of_the_landing(path: Path) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.task_groups import batch_job

    @task
    def told(account: dict[str, Any]) -> str:
        return f"{account['requests']} rows for {account['cost_usd']}, at most {account['estimate']['high_usd']}"

    with new_dag() as dag:
        landed: Any = batch_job(**ARGUMENTS, max_attempts=1, carry=["label"])
        told(landed)

    result = run_dag(dag)

    assert result.states == dict.fromkeys(["batch_job.submit", "batch_job.wait", "batch_job.land", "told"], "success")
    assert query(path, "SELECT custom_id, outcome, label FROM answers ORDER BY 1") == [
        (f"t{n}", "succeeded", "x") for n in range(3)
    ]
    account = result.return_values["batch_job.land"]
    assert 0 < float(account["cost_usd"]) <= account["estimate"]["high_usd"]
    assert result.return_values["told"].startswith("3 rows for 0.0")


@pytest.mark.usefixtures("offline")
def test_the_answers_may_land_elsewhere(path: Path, tmp_path: Path, connect: Callable[..., None]) -> None:
    from airflow_provider_batch.task_groups import batch_job

    elsewhere = tmp_path / "elsewhere.sqlite"
    connect("elsewhere", conn_type="sqlite", host=str(elsewhere))
    with new_dag() as dag:
        batch_job.override(group_id="ask")(**ARGUMENTS, results_conn_id="elsewhere")

    assert run_dag(dag).states == dict.fromkeys(["ask.submit", "ask.wait", "ask.land"], "success")
    assert query(elsewhere, "SELECT count(*) FROM answers") == [(3,)]
    assert query(path, "SELECT count(*) FROM sqlite_master WHERE name = 'answers'") == [(0,)]


@pytest.mark.usefixtures("airflow_home")
def test_what_comes_before_it_comes_before_submit_and_what_follows_it_after_land() -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.sdk import chain

    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        first, second, third, last = (EmptyOperator(task_id=name) for name in ("first", "second", "third", "last"))
        landed = batch_job(**ARGUMENTS)
        first >> landed >> last
        landed << second
        chain(third, landed)

    assert dag.get_task("batch_job.submit").upstream_task_ids == {"first", "second", "third"}
    assert dag.get_task("batch_job.land").upstream_task_ids == {"batch_job.wait", "batch_job.submit"}
    assert dag.get_task("last").upstream_task_ids == {"batch_job.land"}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("nested", [False, True])
def test_mapped_it_is_one_job_of_each_value_with_an_account_each(path: Path, nested: bool) -> None:
    from airflow.sdk import task, task_group

    from airflow_provider_batch.task_groups import batch_job

    models = ["gpt-5-mini", "gpt-5-nano"]

    @task
    def total(accounts: Any) -> int:
        return sum(account["requests"] for account in accounts)

    with new_dag() as dag:
        if nested:

            @task_group
            def ask(model: str) -> Any:
                return batch_job(**ARGUMENTS | {"model": model}, key={"variant": model})

            landed = ask.expand(model=models)
        else:
            fixed = {name: value for name, value in ARGUMENTS.items() if name != "model"}
            landed = batch_job.partial(**fixed, key={"variant": "{{ ti.map_index }}"}).expand(model=models)
        total(landed)

    result = run_dag(dag)

    assert result.state == "success"
    assert result.return_values["total"] == 6
    assert query(path, "SELECT count(*), count(DISTINCT job_uid), count(DISTINCT variant) FROM answers") == [(6, 2, 2)]
    assert query(path, "SELECT count(DISTINCT model) FROM answers") == [(2,)]
    if nested:
        assert query(path, "SELECT DISTINCT variant FROM answers ORDER BY 1") == [(model,) for model in models]


@pytest.mark.usefixtures("offline")
def test_each_outlet_asset_hears_of_what_was_landed(path: Path) -> None:
    from airflow.models.asset import AssetEvent
    from airflow.sdk import Asset
    from airflow.utils.session import create_session

    from airflow_provider_batch.task_groups import batch_job

    name = f"answers_{uuid4().hex[:8]}"
    with new_dag() as dag:
        batch_job(**ARGUMENTS, outlets=[Asset(name)])

    result = run_dag(dag)

    account = result.return_values["batch_job.land"]
    with create_session() as session:
        (event,) = [event for event in session.query(AssetEvent) if event.asset.name == name]
        assert event.extra == {key: value for key, value in account.items() if key != "reasons"}
    assert account["outcomes"] == {"succeeded": 3}
    assert account["job_uid"]


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"promt": "x"}, "no argument 'promt'. Did you mean 'prompt'?"),
        ({"retries": 3}, "default_args"),
        ({"job": "x"}, "no argument 'job'"),
        ({"task_id": "x"}, "no argument 'task_id'"),
    ],
)
def test_an_argument_that_nobody_takes_is_refused_while_the_dag_is_parsed(arguments: dict[str, Any], told: str) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError) as refused:
        batch_job(**ARGUMENTS, **arguments)
    assert told in str(refused.value)


@pytest.mark.usefixtures("airflow_home")
def test_mapped_jobs_that_would_land_over_each_other_are_refused() -> None:
    from airflow_provider_batch.task_groups import batch_job

    fixed = {name: value for name, value in ARGUMENTS.items() if name != "model"}
    with pytest.warns(UserWarning, match="was never mapped"):
        with new_dag(), pytest.raises(InputError, match="overwrite the rows of the one before"):
            batch_job.partial(**fixed).expand(model=["a", "b"])
    # Rows, a table, or a job_uid of their own tell them apart.
    for apart in ({"sql": ["SELECT 1 AS id"]}, {"table": ["a", "b"]}):
        rest = {name: value for name, value in ARGUMENTS.items() if name not in apart}
        with new_dag():
            batch_job.partial(**rest).expand(**apart)
    with new_dag():
        batch_job.partial(**fixed, history=True).expand(model=["a", "b"])


@pytest.mark.usefixtures("airflow_home")
def test_what_has_to_be_known_when_the_dag_is_parsed_cannot_be_mapped() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with pytest.warns(UserWarning, match="was never mapped"):
        with new_dag(), pytest.raises(InputError, match="'max_attempts' must be known when the DAG is parsed"):
            batch_job.partial(**ARGUMENTS, key={"v": "{{ ti.map_index }}"}).expand(max_attempts=[1, 2])
