"""The names that Airflow shows for the tasks of mapped jobs, instead of 0, 1, 2."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError
from tests.airflow.jobs import query, run_dag

ARGUMENTS: dict[str, Any] = {
    "sql": "SELECT id, body FROM tickets ORDER BY id",
    "custom_id": "{{ row.id }}",
    "prompt": "{{ row.body }}",
    "table": "answers",
    "history": True,
    "canary": 0,
}
MODELS = ["gpt-5-mini", "gpt-5-nano"]


def new_dag() -> Any:
    from airflow.sdk import DAG

    return DAG(f"names_{uuid4().hex[:8]}", schedule=None)


def names_of(dag: Any) -> dict[str, list[str | None]]:
    """Run a DAG and return the names of the tasks in the mapped group, by the last part of the task_id."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    result = run_dag(dag)
    assert result.state == "success", result.errors
    with create_session() as session:
        tasks = session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id, TaskInstance.map_index >= 0)
        names: dict[str, list[str | None]] = {}
        for task in tasks.order_by(TaskInstance.map_index):
            names.setdefault(task.task_id.rpartition(".")[2], []).append(task.rendered_map_index)
        return names


def in_each_task(*task_ids: str, names: list[Any]) -> dict[str, list[Any]]:
    return dict.fromkeys(task_ids, names)


@pytest.mark.usefixtures("warehouse")
def test_each_task_of_a_mapped_job_shows_the_mapped_value() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job.partial(**ARGUMENTS, approve_above_usd=1000).expand(model=MODELS)
    assert names_of(dag) == in_each_task("submit", "approve", "wait", "land", names=MODELS)


@pytest.mark.usefixtures("warehouse")
def test_a_template_can_use_the_mapped_values_and_all_that_airflow_offers() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job.partial(**ARGUMENTS, map_index_template="{{ model | upper }} in {{ dag.tags | length }}").expand(
            model=MODELS
        )
    assert names_of(dag) == in_each_task("submit", "wait", "land", names=["GPT-5-MINI in 0", "GPT-5-NANO in 0"])


@pytest.mark.usefixtures("warehouse")
def test_each_dict_of_expand_kwargs_is_a_job_with_its_own_key(warehouse: Path) -> None:
    from airflow_provider_batch.task_groups import batch_job

    jobs = [{"model": model, "key": {"variant": model}} for model in MODELS]
    with new_dag() as dag:
        batch_job.partial(**ARGUMENTS | {"history": False}).expand_kwargs(jobs)
    assert run_dag(dag).errors == {}
    rows = query(warehouse, "SELECT variant, model, count(*) FROM answers GROUP BY 1, 2 ORDER BY 1")
    assert rows == [(model, f"offline-responder/{model}", 5) for model in MODELS]


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("dicts", "message"),
    [
        ([{"model": "a"}, {"model": "b", "prompt": "c"}], "All dicts must have the same arguments"),
        ([{"model": "a", "sql": "SELECT 1"}], "sql is given to partial as well"),
        ([{"modle": "a"}], "has no argument 'modle'"),
        ([], "Expected a list of dicts in the DAG file"),
        ("model", "Expected a list of dicts in the DAG file"),
    ],
)
def test_a_wrong_argument_of_expand_kwargs_is_an_error_while_the_dag_is_parsed(dicts: Any, message: str) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError) as error:
        batch_job.partial(**ARGUMENTS).expand_kwargs(dicts)
    assert message in str(error.value)


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("template", "accepted"),
    [("{{ market }}", True), ("{{ ds }} {{ range(3) | list }} {{ team() }}", True), ("{{ markt }}", False)],
)
def test_a_misspelt_mapped_name_in_the_key_is_an_error_while_the_dag_is_parsed(template: str, accepted: bool) -> None:
    from airflow.sdk import DAG, task

    error = nullcontext() if accepted else pytest.raises(InputError, match="uses 'markt', but there are the mapped")
    with DAG("markets", schedule=None, user_defined_macros={"team": str}), error:

        @task.openai_batch(
            custom_id="{{ row.id }}",
            prompt="{{ row.id }}",
            model="gpt-5-mini",
            table="answers",
            key={"market": template},
        )
        def label(market: str) -> list[dict[str, Any]]:
            return [{"id": market}]

        label.expand(market=["DE", "FR"])


@pytest.mark.usefixtures("warehouse")
def test_a_job_in_a_mapped_group_of_the_author_shows_the_values_of_that_group() -> None:
    from airflow.sdk import task, task_group

    from airflow_provider_batch.task_groups import batch_job

    @task
    def find_markets() -> list[dict[str, Any]]:
        return [{"market": "DE", "rows": 1}, {"market": "FR", "rows": 2}]

    with new_dag() as dag:

        @task_group
        def label(market: str, rows: int) -> Any:
            return batch_job(
                **ARGUMENTS, model="gpt-5-mini", metadata={"market": market}, map_index_template="{{ market }}"
            )

        label.expand_kwargs(find_markets())
    assert names_of(dag) == in_each_task("submit", "wait", "land", names=["DE", "FR"])


@pytest.mark.usefixtures("warehouse")
def test_a_template_that_fails_costs_the_name_and_not_the_task(capfd: pytest.CaptureFixture[str]) -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag() as dag:
        batch_job.partial(**ARGUMENTS, map_index_template="{{ params.absent.name }}").expand(model=MODELS)
    assert names_of(dag) == in_each_task("submit", "wait", "land", names=["0", "1"])
    assert "Cannot render map_index_template, so the task keeps its number" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (["DE"], "DE"),
        (["DE", 5, date(2026, 1, 2)], "DE, 5, 2026-01-02"),
        ([("DE", {"rows": 5})], "DE"),
        (["{{ ti }}"], "{{ ti }}"),
        ([], ""),
        ([""], ""),
        ([None], ""),
        (["DE", {"rows": 5}], ""),
        (["two\nlines"], ""),
        (["SELECT id, body FROM tickets WHERE market = 'DE'"], ""),
    ],
)
def test_a_value_is_a_name_only_if_it_is_short_and_plain(values: list[Any], name: str) -> None:
    from airflow_provider_batch.worker.mapped_names import default_name

    assert default_name(values) == name


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ market }}", "uses 'market', but there are the mapped arguments model. Use one of these"),
        ("{{ model", "map_index_template: The template has a syntax error"),
        (5, "map_index_template: Expected text"),
    ],
)
def test_a_wrong_template_is_an_error_while_the_dag_is_parsed(template: Any, message: str) -> None:
    from airflow.sdk import task_group

    from airflow_provider_batch.task_groups import batch_job

    @task_group
    def label(model: str) -> None:
        batch_job(**ARGUMENTS, model=model, map_index_template=template)

    with new_dag(), pytest.raises(InputError) as error:
        label.expand(model=MODELS)
    assert message in str(error.value)


@pytest.mark.usefixtures("airflow_home")
def test_a_template_without_mapped_arguments_may_only_use_what_airflow_offers() -> None:
    from airflow_provider_batch.task_groups import batch_job

    with new_dag(), pytest.raises(InputError, match="uses 'model', but there are no mapped arguments"):
        batch_job(**ARGUMENTS, model="gpt-5-mini", map_index_template="{{ model }}")


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("file", "accepted"), [("/answers/{{ model }}.jsonl", True), ("/answers/{{ ds }}.jsonl", False)]
)
def test_a_mapped_value_in_a_template_keeps_the_results_of_jobs_apart(file: str, accepted: bool) -> None:
    from airflow.sdk import task_group

    from airflow_provider_batch.task_groups import batch_job

    @task_group
    def label(model: str) -> None:
        batch_job(**ARGUMENTS | {"table": None, "history": False, "results_file": file}, model=model)

    with new_dag(), nullcontext() if accepted else pytest.raises(InputError, match="is the same for all"):
        label.expand(model=MODELS)
