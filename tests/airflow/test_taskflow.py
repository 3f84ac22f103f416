"""`@task.openai_batch`: functions whose rows become jobs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from airflow_provider_batch.presets import classify
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import client_of, counts_of, query, run_dag, save_dag

JOB: dict[str, Any] = {
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.body }}",
    "table": "answers",
    "canary": 0,
}
SUCCESS = {"load.submit": "success", "load.wait": "success", "load.land": "success"}
NIGHT = datetime(2026, 11, 20, tzinfo=UTC)


def new_dag(**options: Any) -> Any:
    from airflow.sdk import DAG

    return DAG(f"taskflow_{uuid4().hex[:8]}", schedule=None, **options)


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None], offline: None) -> Path:
    path = tmp_path / "warehouse.sqlite"
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def test_the_rows_that_a_function_yields_become_a_job(warehouse: Path) -> None:
    from airflow.sdk import task

    @task
    def count(summary: Any) -> Any:
        return summary["requests"]

    with new_dag() as dag:

        @task.openai_batch(
            custom_id="{{ row.id }}",
            table="answers",
            carry="id",
            **classify("{{ row.body }}", labels=["billing", "login"]),
        )
        def load() -> Iterator[dict[str, Any]]:
            for n in range(3):
                yield {"id": n, "body": "{{ not a template }} The invoice is wrong"}

        count(load())

    result = run_dag(dag)

    assert result.states == {**SUCCESS, "count": "success"}
    assert result.return_values["count"] == 3
    assert query(warehouse, "SELECT custom_id, id, label FROM answers ORDER BY 1") == [
        (str(n), n, "billing") for n in range(3)
    ]
    assert dag.get_task("count").upstream_task_ids == {"load.land"}


def test_the_arguments_may_be_outputs_of_tasks_templates_and_the_context(warehouse: Path, tmp_path: Path) -> None:
    from airflow.sdk import task

    from airflow_provider_batch.decorators import openai_batch_task

    (tmp_path / "body.sql").write_text("not to be read by Airflow")

    @task
    def find_market() -> str:
        return "{{ DE }}"

    with new_dag(params={"word": "plain"}, template_searchpath=[str(tmp_path)]) as dag:

        @openai_batch_task(**JOB)
        def load(market: Any, *, name: str, file: str, ds: str = "", params: Any = None, **others: Any) -> Any:
            return [{"id": f"{market} {name} {file} {ds} {params['word']} {others['run_id'][:6]}", "body": "text"}]

        load(find_market(), name="{{ params.word | upper }}", file="body.sql")

    result = run_dag(dag, logical_date=NIGHT)

    assert result.states == {"find_market": "success", **SUCCESS}
    assert query(warehouse, "SELECT custom_id FROM answers") == [("{{ DE }} PLAIN body.sql 2026-11-20 plain manual",)]


def test_each_value_that_a_function_is_mapped_over_has_a_job_named_by_it(warehouse: Path) -> None:
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    from airflow_provider_batch.decorators import openai_batch_task

    with new_dag() as dag:

        @openai_batch_task(**JOB, key={"market": "{{ market }}"})
        def load(market: str, count: int = 2, ds: Any = None) -> Any:
            return [{"id": n, "body": f"text {market}"} for n in range(count)]

        # the function's other arguments have their defaults
        load.expand_kwargs([{"market": "DE"}, {"market": "FR"}])

    assert run_dag(dag).state == "success"

    assert query(warehouse, "SELECT market, custom_id FROM answers ORDER BY 1, 2") == [
        ("DE", "0"),
        ("DE", "1"),
        ("FR", "0"),
        ("FR", "1"),
    ]
    with create_session() as session:
        tasks = session.query(TaskInstance).filter(TaskInstance.dag_id == dag.dag_id)
        names = {(task.task_id, task.rendered_map_index) for task in tasks}
    assert names == {(task_id, market) for task_id in SUCCESS for market in ("DE", "FR")}


def test_a_function_may_return_the_address_of_files_or_yield_nothing(warehouse: Path, tmp_path: Path) -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    file = tmp_path / "rows.jsonl"
    file.write_text('{"id": 1, "body": "a"}\n{"id": 2, "body": "b"}\n')

    with new_dag() as dag:

        @openai_batch_task(**JOB)
        def load() -> Path:
            return file

        @openai_batch_task(**JOB)
        def nothing() -> Iterator[dict[str, Any]]:
            yield from ()

        load()
        nothing()

    result = run_dag(dag)

    assert result.state == "success"
    assert [result.return_values[f"{name}.land"]["requests"] for name in ("load", "nothing")] == [2, 0]
    assert query(warehouse, "SELECT custom_id FROM answers ORDER BY 1") == [("1",), ("2",)]


class ClearedFunction(ClearedJob):
    """A job whose rows come from a function, to be cleared and retried."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self._function = function

    def dag(self, **_: Any) -> Any:
        from airflow.sdk import DAG

        from airflow_provider_batch.decorators import openai_batch_task

        with DAG(self.dag_id, schedule=None) as dag:
            openai_batch_task(**JOB, task_id="load")(self._function)()
        return dag


def test_a_retry_does_not_call_the_function_again_and_a_clear_sends_what_is_new(
    warehouse: Path, server: LocalServer
) -> None:
    texts = ["a", "b"]
    row_counts: list[int] = []

    def load() -> Iterator[dict[str, Any]]:
        row_counts.append(len(texts))
        yield from ({"id": n, "body": text} for n, text in enumerate(texts))

    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=400))
    job = ClearedFunction(load)
    assert job.run().states["load.submit"] == "failed"

    server.set_faults()
    texts.append("c")
    assert job.retry().states == SUCCESS
    assert row_counts == [2]

    assert job.clear().states == SUCCESS
    assert row_counts == [2, 3]
    assert [counts_of(batch).total for batch in client_of(server).batches.list()] == [1, 2]
    assert query(warehouse, "SELECT custom_id FROM answers ORDER BY 1") == [("0",), ("1",), ("2",)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "The function load returned None. Return the rows"),
        (5, "rows: Expected a list of dicts"),
        ({"id": 1, "body": "x"}, "rows: Expected a list of dicts, one for each row, but got a single dict"),
    ],
)
def test_a_function_that_returns_no_rows_is_an_error_and_nothing_is_sent(
    warehouse: Path, server: LocalServer, value: Any, message: str
) -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    with new_dag() as dag:

        @openai_batch_task(**JOB)
        def load() -> Any:
            return value

        load()

    result = run_dag(dag)

    assert result.states["load.submit"] == "failed"
    assert message in result.error("load.submit")
    assert not any(server.calls().values())


def test_an_error_of_the_function_fails_the_task_as_usual(warehouse: Path, server: LocalServer) -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    with new_dag() as dag:

        @openai_batch_task(**JOB)
        def load() -> Iterator[dict[str, Any]]:
            yield {"id": 1, "body": "text"}
            raise ConnectionError("the shop is closed")

        load()

    result = run_dag(dag)

    assert isinstance(result.errors["load.submit"], ConnectionError)
    assert not any(server.calls().values())


# Without running the DAG


@pytest.mark.usefixtures("airflow_home")
def test_several_calls_and_overrides_have_groups_of_their_own() -> None:
    from airflow.providers.standard.operators.empty import EmptyOperator

    from airflow_provider_batch.decorators import openai_batch_task

    with new_dag(default_args={"retries": 1}) as dag:

        @openai_batch_task(**JOB, retries=3, pool="llm", trigger_rule="all_done")
        def load() -> Any:
            """Load tickets."""

        EmptyOperator(task_id="first") >> load() >> EmptyOperator(task_id="last")
        load()
        load.override(task_id="other", max_cost_usd=5, retries=0, tooltip="Other tickets")()

    groups = [f"{name}.{step}" for name in ("load", "load__1", "other") for step in ("submit", "wait", "land")]
    assert set(dag.task_ids) == {"first", "last", *groups}
    assert dag.get_task("load.submit").upstream_task_ids == {"first"}
    assert dag.get_task("last").upstream_task_ids == {"load.land"}
    assert [dag.get_task(f"load.{step}").retries for step in ("submit", "wait", "land")] == [3, 3, 3]
    assert [dag.get_task(f"load.{step}").trigger_rule for step in ("submit", "land")] == ["all_done", "all_success"]
    assert dag.get_task("load.wait").pool == "llm"
    assert (dag.get_task("other.submit").max_cost_usd, dag.get_task("other.land").retries) == (5, 0)
    groups_by_id = dag.task_group.get_task_group_dict()
    assert (groups_by_id["load"].tooltip, groups_by_id["other"].tooltip) == ("Load tickets.", "Other tickets")
    assert load.function() is None


@pytest.mark.usefixtures("airflow_home")
def test_the_serialized_dag_does_not_change_from_parse_to_parse() -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    from airflow_provider_batch.decorators import openai_batch_task

    def parse() -> str:
        with new_dag() as dag:

            @openai_batch_task(**JOB)
            def load(market: str) -> Any: ...

            load(market="DE")
        save_dag(dag)
        return str(DagSerialization.to_dict(dag)["dag"]["tasks"]).replace(dag.dag_id, "")

    assert parse() == parse()
    assert "the function load" in parse()


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"promt": "x"}, "@task.openai_batch has no argument 'promt'. Did you mean 'prompt'?"),
        ({"sql": "SELECT 1"}, "The function returns the rows, so there is no argument 'sql'"),
        ({"rows": []}, "The function returns the rows, so there is no argument 'rows'"),
        (
            {"multiple_outputs": True},
            "The landing returns a single summary, so there is no argument 'multiple_outputs'",
        ),
        ({"deadline": 30}, "deadline: Expected a duration"),
        ({"custom_id": "id"}, "custom_id"),
        ({"columns": ["absent"]}, "absent"),
        ({"default_args": 5}, "default_args: Expected a dict"),
        ({"do_xcom_push": False}, "so there is no argument 'do_xcom_push'"),
    ],
)
def test_a_wrong_option_is_an_error_while_the_dag_is_parsed(options: dict[str, Any], message: str) -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    @openai_batch_task(**JOB | options)
    def load() -> Any: ...

    with new_dag(), pytest.raises(InputError) as error:
        load()
    assert message in str(error.value)


@pytest.mark.usefixtures("airflow_home")
def test_wrong_arguments_of_the_function_are_errors_while_the_dag_is_parsed() -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    @openai_batch_task(**JOB)
    def typed(market: str, ds: str, count: int = 5) -> Any: ...

    load: Any = typed
    with new_dag():
        load("DE")
        with pytest.raises(InputError, match=r"typed\(.*\) -> 'Any' was called without market\."):
            load(count=5)
        with pytest.raises(InputError, match="unexpected keyword argument 'country'"):
            load("DE", country="Germany")
        with pytest.raises(InputError, match="unexpected keyword argument 'country'"):
            load.expand_kwargs([{"market": "DE"}, {"country": "FR"}])


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize("thing", [None, "load", [{"id": 1}], functools.partial(print)])
def test_only_functions_can_be_decorated(thing: Any) -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    with pytest.raises(InputError, match="expects a function that returns rows, got"):
        openai_batch_task(**JOB)(thing)


@pytest.mark.usefixtures("airflow_home")
def test_an_asynchronous_function_a_positional_argument_and_a_lambda_without_a_name_are_refused() -> None:
    from airflow_provider_batch.decorators import openai_batch_task

    with pytest.raises(InputError, match="The function load is asynchronous"):

        @openai_batch_task(**JOB)
        async def load() -> Any: ...

    with pytest.raises(InputError, match="takes no positional arguments"):

        @openai_batch_task  # type: ignore[arg-type]
        def rows() -> Any: ...

    with new_dag() as dag:
        openai_batch_task(**JOB, task_id="load")(lambda: [{}])()
        with pytest.raises(InputError, match="A lambda has no name"):
            openai_batch_task(**JOB)(lambda: [{}])()
    assert set(dag.task_ids) == set(SUCCESS)


@pytest.mark.usefixtures("airflow_home")
def test_mapped_jobs_of_a_function_that_overwrite_each_others_rows_are_refused() -> None:
    from airflow.sdk import task_group

    from airflow_provider_batch.decorators import openai_batch_task

    @openai_batch_task(**JOB)
    def load() -> Any: ...

    @task_group
    def for_each(market: str) -> None:
        load()

    with new_dag(), pytest.raises(InputError, match=r"^@task.openai_batch is mapped.*overwrite the rows"):
        for_each.expand(market=["DE", "FR"])


@pytest.mark.usefixtures("airflow_home")
def test_airflow_finds_the_decorator_among_those_of_the_providers() -> None:
    from airflow.sdk import task
    from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

    from airflow_provider_batch.decorators import openai_batch_task

    providers = ProvidersManagerTaskRuntime()  # type: ignore[no-untyped-call]  # Airflow has no types here
    assert providers.taskflow_decorators["openai_batch"] is openai_batch_task
    assert task.openai_batch is openai_batch_task


@pytest.mark.usefixtures("airflow_home")
@pytest.mark.parametrize(("page", "group"), [("taskflow.md", "label_reviews"), ("presets.md", "batch_job")])
def test_the_example_of_a_page_is_a_dag(page: str, group: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / page).read_text(encoding="utf-8")
    source = text.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {}
    exec(compile(source.replace("):\n", ") as dag:\n", 1), page, "exec"), names)
    assert set(names["dag"].task_ids) == {f"{group}.{step}" for step in ("submit", "wait", "land")}
