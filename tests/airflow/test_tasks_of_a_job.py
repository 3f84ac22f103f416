"""How the tasks of a job refer to each other: `job`, mapped operators, and a wait between submit and land."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_batch.exceptions import InputError
from tests.airflow.test_wrong_arguments import REFERENCE, SUBMIT, operators, other_task

pytestmark = pytest.mark.usefixtures("airflow_home")


@pytest.fixture
def tasks() -> Iterator[dict[str, Any]]:
    """Build tasks in a DAG that stays open: submit, submit that is mapped, and another task."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with DAG("jobs", schedule=None):
        mapped = BatchSubmitOperator.partial(**{**SUBMIT, "task_id": "mapped"}).expand(max_rows=[1, 2])
        yield {"submit": BatchSubmitOperator(**SUBMIT), "mapped": mapped, "other": other_task()}


@pytest.mark.parametrize("task_id", ["wait", "land"])
def test_a_submit_task_stands_for_its_output(tasks: dict[str, Any], task_id: str) -> None:
    operator, arguments = operators()[task_id]

    task: Any = operator(**{**arguments, "job": tasks["submit"]})

    assert task.job == tasks["submit"].output
    assert task.upstream_task_ids == {"submit"}


@pytest.mark.parametrize("task_id", ["wait", "land"])
@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (lambda tasks: "submit", "got 'submit'"),
        (lambda tasks: None, "got None"),
        (lambda tasks: {}, "got {} (dict)"),
        (lambda tasks: {"job_uid": "j"}, "got {'job_uid': 'j'} (dict)"),
        (lambda tasks: tasks["other"], "got <Task(EmptyOperator): other>"),
        (lambda tasks: tasks["other"].output, "got the output of the task 'other', which is not a BatchSubmitOperator"),
        (lambda tasks: tasks["submit"].output["ledger"], "got the item 'ledger' of the output of the task 'submit'"),
        (lambda tasks: tasks["mapped"], "the task 'mapped' is mapped"),
        (lambda tasks: tasks["mapped"].output, ".expand(job=mapped.output)"),
        (lambda tasks: [tasks["submit"].output], "got a list that contains such a value"),
    ],
)
def test_another_job_than_the_output_of_submit_is_refused(
    tasks: dict[str, Any], task_id: str, job: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    operator, arguments = operators()[task_id]

    with pytest.raises(InputError, match=r"\ATask '\w+': job: Expected the output of ") as error:
        operator(**{**arguments, "job": job(tasks)})
    assert problem in str(error.value)


def test_a_mapped_sensor_takes_the_outputs_of_a_mapped_submit(tasks: dict[str, Any]) -> None:
    from airflow_provider_batch.sensors.batch import BatchSensor

    wait = BatchSensor.partial(task_id="wait").expand(job=tasks["mapped"].output)

    assert wait.upstream_task_ids == {"mapped"}


@pytest.mark.parametrize(
    "text",
    [
        "{'job_uid': 'j', 'ledger': 'l', 'openai_conn_id': 'c', 'requests': 1, 'shards': 1, 'estimate': %s}",
        '{"job_uid": "j", "ledger": "l", "openai_conn_id": "c", "requests": 1, "shards": 1, "estimate": %s}',
    ],
)
def test_a_reference_that_a_template_turned_into_text_is_read(text: str) -> None:
    from airflow_provider_batch.worker.airflow_arguments import read_reference

    assert read_reference("job", text % repr(REFERENCE["estimate"])).job_uid == "j"


# Mapped operators


@pytest.mark.parametrize(
    ("task_id", "changes", "mapped", "problem"),
    [
        ("submit", {"canary": "maybe"}, {"max_rows": [1, 2]}, "canary: Expected a whole number"),
        ("submit", {"prompt": "row.body"}, {"max_rows": [1]}, "prompt: 'row.body' is plain text"),
        ("submit", {"temperature": 0}, {"max_rows": [1]}, "BatchSubmitOperator has no argument 'temperature'"),
        ("submit", {"output_schema": 5}, {"max_rows": [1]}, "output_schema: Expected a pydantic model"),
        ("submit", {}, {"max_rows": [1, "many"]}, "max_rows: Expected a whole number of at least 0, got 'many'"),
        ("submit", {}, {"temperature": [0, 1]}, "BatchSubmitOperator has no argument 'temperature'"),
        ("submit", {"prompt": ...}, {"prompt": ["{{ row.id }}", "{row.id}"]}, "prompt: '{row.id}' is plain text"),
        ("submit", {}, [{"max_rows": 1}, {"max_rows": "many"}], "max_rows: Expected a whole number"),
        ("submit", {}, [{"max_row": 1}], "BatchSubmitOperator has no argument 'max_row'"),
        ("wait", {"deadline": "soon"}, {"job": [REFERENCE]}, "deadline: Expected a duration"),
        ("wait", {"soft_fail": True}, {"job": [REFERENCE]}, "soft_fail and never_fail are not supported"),
        ("wait", {}, {"job": ["submit"]}, "job: Expected the output of BatchSubmitOperator"),
        ("land", {"max_failure_rate": "5%"}, {"job": [REFERENCE]}, "max_failure_rate: Expected a number from 0 to 1"),
        ("land", {"table": ...}, {"job": [REFERENCE], "table": ["a", 5]}, "table: Expected text"),
    ],
)
def test_a_mapped_operator_is_checked_when_the_dag_is_parsed(
    tasks: dict[str, Any], task_id: str, changes: dict[str, Any], mapped: Any, problem: str
) -> None:
    operator, arguments = operators()[task_id]
    arguments = {"task_id": "m"} | {name: value for name, value in arguments.items() if name not in ("job", "task_id")}
    arguments = {name: value for name, value in {**arguments, **changes}.items() if value is not ...}

    def build() -> None:
        partial: Any = operator.partial(**arguments)  # type: ignore[attr-defined]
        partial.expand(**mapped) if isinstance(mapped, dict) else partial.expand_kwargs(mapped)

    with pytest.raises(InputError) as error:
        build()
    assert str(error.value).startswith(f"Task 'm': {problem}")


def test_a_mapped_operator_with_values_of_the_run_is_accepted(tasks: dict[str, Any]) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator

    other = tasks["other"].output
    BatchSubmitOperator.partial(**{**SUBMIT, "task_id": "a"}).expand(max_rows=other)
    BatchSubmitOperator.partial(**{**SUBMIT, "task_id": "b"}).expand(carry=other)
    BatchSubmitOperator.partial(task_id="c").expand_kwargs(other)
    BatchResultsOperator.partial(task_id="d", table="t").expand(job=[REFERENCE], columns=other)
    BatchResultsOperator.partial(task_id="e", table="t").expand(job=other)


@pytest.mark.parametrize(
    ("output", "problem"),
    [
        (lambda tasks: tasks["submit"].output, "the task 'submit' is not mapped, so its output is one job"),
        (lambda tasks: _mapped_wait(tasks).output, "the task 'wait', which is not a BatchSubmitOperator"),
    ],
)
def test_an_operator_mapped_over_another_output_than_that_of_a_mapped_submit_is_refused(
    tasks: dict[str, Any], output: Callable[[dict[str, Any]], Any], problem: str
) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    with pytest.raises(InputError, match=problem):
        BatchResultsOperator.partial(task_id="land", table="t").expand(job=output(tasks))


def _mapped_wait(tasks: dict[str, Any]) -> Any:
    from airflow_provider_batch.sensors.batch import BatchSensor

    return BatchSensor.partial(task_id="wait").expand(job=tasks["mapped"].output)


def _map_landing(tasks: dict[str, Any], *, after: Any = None, **arguments: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    landing = BatchResultsOperator.partial(task_id="land", table="t", **arguments).expand(job=tasks["mapped"].output)
    if after is not None:
        after >> landing
    landing.dag.resolve_template_files()


def test_a_mapped_landing_without_a_wait_is_refused_when_the_dag_is_parsed(tasks: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no BatchSensor waits for the job"):
        _map_landing(tasks)


def test_a_mapped_landing_after_a_mapped_wait_is_accepted(tasks: dict[str, Any]) -> None:
    _map_landing(tasks, after=_mapped_wait(tasks))


def test_a_mapped_landing_of_what_exists_needs_no_wait(tasks: dict[str, Any]) -> None:
    _map_landing(tasks, partial=True)


def test_columns_of_a_mapped_landing_must_be_in_the_schema_of_its_job(tasks: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Task 'land': columns= names score, but the job has no output_schema"):
        _map_landing(tasks, columns=["score"])


@pytest.mark.parametrize(
    ("mapped", "problem"),
    [
        ({"canary": [1, "maybe"]}, "Task 'batch_job.submit': canary: Expected a whole number"),
        ({"deadline": ["1h", "soon"]}, "Task 'batch_job.wait': deadline: Expected a duration"),
        ({"table": ["a", 5]}, "Task 'batch_job.land': table: Expected text"),
        ({"prompt": ["{{ row.id }}", "row.id"]}, "Task 'batch_job.submit': prompt: 'row.id' is plain text"),
    ],
)
def test_the_values_that_batch_job_is_mapped_to_are_checked(
    tasks: dict[str, Any], mapped: dict[str, Any], problem: str
) -> None:
    from airflow_provider_batch.task_groups import batch_job

    arguments = {**SUBMIT, "table": "t", "history": True}
    arguments = {name: value for name, value in arguments.items() if name not in ("task_id", *mapped)}

    factory = batch_job.partial(**arguments)
    factory._task_group_created = True  # otherwise it warns that its group was never mapped
    with pytest.raises(InputError) as error:
        factory.expand(**mapped)
    assert str(error.value).startswith(problem)


# Between submit and land


def order(tasks: dict[str, Any], *, waits_for: Any = None, **land: Any) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    landing = BatchResultsOperator(task_id="land", table="t", job=tasks["submit"].output, **land)
    if waits_for is not None:
        BatchSensor(task_id="wait", job=waits_for) >> landing
    landing.dag.resolve_template_files()  # type: ignore[no-untyped-call]  # Airflow has no types here


def test_landing_without_a_wait_is_refused_when_the_dag_is_parsed(tasks: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no BatchSensor waits for the job"):
        order(tasks)


def test_landing_after_a_wait_for_another_job_is_refused(tasks: dict[str, Any]) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    second = BatchSubmitOperator(**{**SUBMIT, "task_id": "second"})
    with pytest.raises(InputError, match="no BatchSensor waits for the job"):
        order(tasks, waits_for=second.output)


def test_landing_the_job_in_a_template_needs_a_wait_too(tasks: dict[str, Any]) -> None:
    from airflow_provider_batch.operators.batch import BatchResultsOperator

    landing = BatchResultsOperator(task_id="land", table="t", job="{{ ti.xcom_pull(task_ids='submit') }}")
    with pytest.raises(InputError, match="no BatchSensor waits for the job"):
        landing.dag.resolve_template_files()  # type: ignore[no-untyped-call]  # Airflow has no types here


def test_landing_after_a_wait_or_with_partial_is_accepted(tasks: dict[str, Any]) -> None:
    order(tasks, waits_for=tasks["submit"])


def test_landing_what_exists_needs_no_wait(tasks: dict[str, Any]) -> None:
    order(tasks, partial=True)
