"""Invalid input is reported before anything is uploaded, with the row, column or connection that causes it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from airflow_provider_batch.exceptions import InputError, SchemaError
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import Ticket, query, run_dag, run_job, submit_arguments

if TYPE_CHECKING:
    import openai

ROWS = [("T-1", "One", "first", "a"), ("T-2", "Two", "second", "b"), ("T-3", "Three", "third", "c")]


@pytest.fixture
def tickets() -> list[Ticket]:
    return ROWS


@pytest.fixture
def submit_error(warehouse: Path, client: openai.OpenAI) -> Callable[..., str]:
    """Run a job that must fail in submit, check that it uploaded nothing, and return the error."""

    def run(**submit: Any) -> str:
        files, batches = len(list(client.files.list())), len(list(client.batches.list(limit=100)))
        result = run_job(**submit)
        assert result.states["submit"] == "failed"
        assert result.states["land"] == "upstream_failed"
        assert (len(list(client.files.list())), len(list(client.batches.list(limit=100)))) == (files, batches)
        return result.error("submit")

    return run


def update(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(sql)


def test_a_template_with_an_unknown_column_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(prompt="{{ row.titel }}")

    assert "prompt" in error
    assert "'titel'" in error
    assert "Did you mean 'title'?" in error


def test_an_unknown_carried_column_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(carry=["labels"])

    assert error.startswith("InputError: carry: There is no column 'labels'")
    assert "Did you mean 'label'?" in error


def test_a_query_with_a_duplicate_column_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(sql="SELECT id, title, body, label AS title FROM tickets")

    assert "title" in error
    assert "more than once" in error


def test_a_custom_id_of_two_rows_is_rejected(submit_error: Callable[..., str], warehouse: Path) -> None:
    update(warehouse, "INSERT INTO tickets SELECT id, title, body, label FROM tickets WHERE id = 'T-2'")

    error = submit_error()

    assert "1 custom_id is used by more than one row: 'T-2' (rows 2, 3)" in error
    assert "Nothing was uploaded" in error


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("''", "The value is ''"),
        ("'   '", "The value is '   '"),
        ("NULL", "The value is NULL"),
        ("X'00ff'", "column 'id': The value is binary"),
    ],
)
def test_an_unusable_custom_id_is_rejected(
    submit_error: Callable[..., str], warehouse: Path, value: str, words: str
) -> None:
    update(warehouse, f"UPDATE tickets SET id = {value}, title = 'moved' WHERE id = 'T-2'")

    error = submit_error(sql="SELECT id, title, body FROM tickets ORDER BY title DESC")

    assert error.startswith("CustomIdError: Row 1, custom_id")
    assert words in error


def test_bytes_in_a_prompt_are_rejected(submit_error: Callable[..., str], warehouse: Path) -> None:
    update(warehouse, "UPDATE tickets SET body = X'89504e47' WHERE id = 'T-3'")

    error = submit_error()

    assert "Row 3" in error
    assert "T-3" in error
    assert "bytes" in error
    assert "prompt" in error


def test_an_empty_prompt_is_rejected(submit_error: Callable[..., str], warehouse: Path) -> None:
    update(warehouse, "UPDATE tickets SET body = '' WHERE id = 'T-2'")

    error = submit_error(prompt="{{ row.body }}")

    assert "Row 2" in error
    assert "T-2" in error
    assert "WHERE" in error


def test_a_row_larger_than_an_input_file_is_rejected(submit_error: Callable[..., str], warehouse: Path) -> None:
    update(warehouse, "UPDATE tickets SET body = hex(zeroblob(3000)) WHERE id = 'T-2'")

    error = submit_error(limits={"bytes": 5_000})

    assert "Row 2 (custom_id 'T-2') makes a request of 6," in error
    assert "an input file may have at most 5,000" in error


def test_a_sql_error_is_reported_with_its_connection(submit_error: Callable[..., str]) -> None:
    error = submit_error(sql="SELECT * FROM nowhere")

    assert "no such table: nowhere" in error
    assert "warehouse" in error


def test_a_statement_other_than_a_query_is_rejected(submit_error: Callable[..., str], warehouse: Path) -> None:
    error = submit_error(sql="DELETE FROM tickets")

    assert "SELECT" in error
    assert query(warehouse, "SELECT count(*) FROM tickets") == [(3,)]


def test_a_missing_warehouse_connection_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(warehouse_conn_id="nowhere")

    assert "'nowhere'" in error


def test_a_missing_openai_connection_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(openai_conn_id="no_openai")

    assert "openai_conn_id: There is no connection 'no_openai'" in error


def test_a_warehouse_connection_without_a_sql_hook_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(warehouse_conn_id="openai_default")

    assert "'openai_default'" in error
    assert "openai" in error


def test_staging_that_cannot_be_written_is_rejected(
    submit_error: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").write_text("")

    error = submit_error(staging=(tmp_path / "a-file").as_uri())

    assert "Staging: cannot" in error
    assert str(tmp_path / "a-file") in error


def test_local_staging_is_rejected_if_tasks_may_run_on_other_machines(
    submit_error: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,CeleryExecutor")

    error = submit_error()

    assert "CeleryExecutor may run the next task on another machine" in error
    assert "allow_local_staging=True" in error


def test_a_job_over_its_ceiling_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(max_cost_usd="0.0000001")

    assert error.startswith("BudgetError")
    assert "Nothing was uploaded" in error


def test_a_ceiling_for_a_model_with_an_unknown_price_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(model="our-own-model", max_cost_usd=5)

    assert "no price is known for our-own-model" in error
    assert "prices=" in error


def test_a_parameter_of_a_row_whose_result_cannot_land_is_rejected(submit_error: Callable[..., str]) -> None:
    error = submit_error(body={"n": "{{ row.id | length }}"})

    assert "Row 1 (custom_id 'T-1'), body.n: Remove 'n' from the body" in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"body": {"messages": []}}, ["body", "messages", "prompt"]),
        ({"body": {"stream": True}}, ["stream"]),
        ({"body": {"n": 3}}, ["body", "'n'", "deduplicate=False"]),
        ({"body": {"response_format": {"type": "json_schema", "json_schema": {}}}}, ["body", "output_schema"]),
        ({"endpoint": "/v1/chat"}, ["/v1/chat"]),
        ({"prompt": "{{ row.title"}, ["prompt"]),
        ({"prompt": ...}, ["prompt"]),
    ],
)
def test_contradictory_arguments_are_rejected_when_the_dag_is_parsed(
    arguments: dict[str, Any], words: list[str]
) -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    with pytest.raises(InputError) as error_info:
        BatchSubmitOperator(**submit_arguments(**arguments))

    assert all(word in str(error_info.value) for word in words)


def test_a_schema_that_strict_output_cannot_express_is_rejected_when_the_dag_is_parsed() -> None:
    from airflow_provider_batch.operators.batch import BatchSubmitOperator

    class Tags(BaseModel):
        tags: dict[str, int]

    with pytest.raises(SchemaError, match="tags"):
        BatchSubmitOperator(**submit_arguments(output_schema=Tags))
    with pytest.raises(SchemaError, match="tags"):
        BatchSubmitOperator.partial(**submit_arguments(output_schema=Tags, model=...))


def test_a_results_table_with_another_key_is_rejected_before_anything_is_paid_for(
    submit_error: Callable[..., str], warehouse: Path
) -> None:
    update(warehouse, "CREATE TABLE other (custom_id TEXT, outcome TEXT)")

    error = submit_error(land={"table": "other"})

    assert error.startswith("ResultsTableError: Task 'land' cannot land this job")
    assert "other" in error
    assert "custom_id" in error
    assert "ALTER TABLE" in error
    assert error.endswith("Nothing was uploaded.")


LABEL = {"type": "object", "properties": {"label": {"type": "string"}}}


def test_a_results_column_missing_from_the_schema_is_rejected_before_anything_is_paid_for(warehouse: Path) -> None:
    from airflow.sdk import DAG, task

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG("schema_of_another_task", schedule=None) as dag:
        schema = task(task_id="schema")(lambda: LABEL)()
        submit = BatchSubmitOperator(**submit_arguments(output_schema=schema))
        wait = BatchSensor(task_id="wait", job=submit.output)
        wait >> BatchResultsOperator(task_id="land", job=submit.output, table="answers", columns=["lable"])
    result = run_dag(dag)

    assert result.states["submit"] == "failed"
    assert result.error("submit") == (
        "SchemaError: Task 'land' cannot land this job: column path 'lable': The output schema has no 'lable'. "
        "Did you mean 'label'? Nothing was uploaded."
    )


@pytest.mark.parametrize(
    ("schema", "columns", "problem"),
    [
        (LABEL, ["lable"], "column path 'lable': The output schema has no 'lable'. Did you mean 'label'?"),
        (LABEL, {"x": ["label", 0]}, "In the output schema, 'label' has no 0"),
        (None, ["label"], "columns= names label, but the job has no output_schema"),
        (LABEL, {"Outcome": "label"}, "two columns named 'outcome'"),
        (LABEL, {"label"}, "columns: Expected names of fields"),
    ],
    ids=str,
)
def test_wrong_columns_are_rejected_when_the_dag_is_parsed(schema: Any, columns: Any, problem: str) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator

    with DAG("wrong_columns", schedule=None):
        submit = BatchSubmitOperator(**submit_arguments(output_schema=schema))
        with pytest.raises(InputError) as error_info:
            BatchResultsOperator(task_id="land", job=submit.output, table="answers", columns=columns)
    assert problem in str(error_info.value)


@pytest.mark.parametrize("columns", [["label"], "label", {"label": "label"}, {"label": ["label"]}], ids=str)
def test_columns_of_the_schema_are_accepted_when_the_dag_is_parsed(columns: Any) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator

    with DAG("right_columns", schedule=None):
        submit = BatchSubmitOperator(**submit_arguments(output_schema=LABEL))
        land = BatchResultsOperator(task_id="land", job=submit.output, table="answers", columns=columns)
        from_another_dag = BatchResultsOperator(task_id="other", job="{{ params.job }}", table="a", columns=["any"])
    assert list(land.columns) == ["label"]
    assert list(from_another_dag.columns) == ["any"]


def test_a_results_table_named_by_another_task_is_checked_when_the_job_lands(warehouse: Path) -> None:
    from airflow.sdk import DAG, task

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    update(warehouse, "CREATE TABLE other (custom_id TEXT, outcome TEXT)")
    with DAG("late_table", schedule=None) as dag:

        @task
        def table() -> str:
            return "other"

        submit = BatchSubmitOperator(**submit_arguments())
        wait = BatchSensor(task_id="wait", job=submit.output)
        table_name: Any = table()
        submit >> wait >> BatchResultsOperator(task_id="land", job=submit.output, table=table_name)

    result = run_dag(dag)

    assert result.states["land"] == "failed"
    assert "ALTER TABLE" in result.error("land")
    assert result.error("land").endswith(
        "The answers are kept in staging. Fix the table or the arguments, then clear this task."
    )


def test_an_invalid_deadline_is_rejected_when_the_dag_is_parsed() -> None:
    from airflow_provider_batch.sensors.batch import BatchSensor

    with pytest.raises(InputError, match=r"deadline: Expected a duration .* or a date and time .*, got 'seven'"):
        BatchSensor(task_id="wait", job={}, deadline="seven")


@pytest.mark.parametrize("deadline", ["2020-01-01T06:00", "{{ '2020-01-01' }}"])
def test_a_deadline_that_has_passed_is_refused_before_anything_is_sent(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], deadline: str
) -> None:
    result = run_job(wait={"deadline": deadline}, canary=5)

    assert result.states == {"submit": "failed", "wait": "upstream_failed", "land": "upstream_failed"}
    assert "Task 'wait' cannot wait for this job: deadline: 2020-01-01" in result.error()
    assert "has passed, so the wait would cancel the job before it is answered" in result.error()
    assert count_calls() == {"upload": 0, "create": 0, "synchronous": 0}


@pytest.mark.parametrize("prompt", ["{{ row.title }}: {body}", "{{ row.title }}: ${body}"])
def test_a_placeholder_with_the_name_of_a_column_is_refused_before_anything_is_sent(
    warehouse: Path, count_calls: Callable[[], dict[str, int]], prompt: str
) -> None:
    result = run_job(prompt=prompt, canary=5)

    assert result.states["submit"] == "failed"
    assert "Did you mean '{{ row.body }}'?" in result.error()
    assert count_calls() == {"upload": 0, "create": 0, "synchronous": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"soft_fail": True}, "hide a job"),
        ({"timeout": 60}, "Use deadline instead"),
        ({"retry_on": ["refused"]}, "retry_on: Expected a list of names out of cancelled, .*, got 'refused'"),
        ({"max_attempts": 0}, "at least 1"),
    ],
)
def test_nonsensical_arguments_of_the_sensor_are_rejected(arguments: dict[str, Any], words: str) -> None:
    from airflow_provider_batch.sensors.batch import BatchSensor

    with pytest.raises(InputError, match=words):
        BatchSensor(task_id="wait", job={}, **arguments)


def test_invalid_input_is_not_retried(warehouse: Path) -> None:
    result = run_job(prompt="{{ row.titel }}", retries=3)

    assert result.states["submit"] == "failed"


def test_no_api_key_appears_in_the_log_or_the_reference(
    warehouse: Path, connect: Callable[..., None], batch_server: LocalServer, capfd: pytest.CaptureFixture[str]
) -> None:
    connect("openai_default", conn_type="openai", password="sk-very-secret-key", host=batch_server.base_url)

    result = run_job()

    assert result.state == "success"
    assert "sk-very-secret-key" not in str(result.return_values)
    assert "sk-very-secret-key" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("submit", "words"),
    [
        ({"max_rows": "{{ 'many' }}"}, "max_rows: Expected a whole number of at least 0, got 'many'"),
        ({"deduplicate": "{{ 'maybe' }}"}, "deduplicate: Expected true or false, got 'maybe'"),
        ({"canary": "{{ 99 }}"}, "canary: Expected a whole number from 0 to 20, got '99'"),
        ({"wait": {"deadline": "{{ 'soon' }}"}}, "Task 'wait' cannot wait for this job: deadline: Expected a duration"),
        ({"land": {"table": "{{ '' }}"}}, "Task 'land' cannot land this job: There is nowhere to land the rows"),
    ],
    ids=str,
)
def test_a_template_that_renders_to_a_wrong_value_is_rejected_before_anything_is_sent(
    submit_error: Callable[..., str], submit: dict[str, Any], words: str
) -> None:
    assert words in submit_error(**submit)


def test_the_deadline_may_be_text_that_a_template_renders(warehouse: Path) -> None:
    assert run_job(wait={"deadline": "{{ 'x' and '2 h' }}"}).state == "success"
