"""Submit, wait and land together, on a real Airflow, with the local batch server and SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pendulum
import pytest
from pydantic import BaseModel, Field

from airflow_provider_batch.local.process import LocalServer
from tests.airflow.jobs import client_of, make_tickets, query, run_dag, run_job, submit_arguments

if TYPE_CHECKING:
    import openai

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["bug", "billing"]}, "score": {"type": "integer"}},
}


def batches_of(client: openai.OpenAI, job_uid: str) -> list[Any]:
    return [b for b in client.batches.list(limit=100) if (b.metadata or {}).get("job_uid") == job_uid]


def test_every_row_lands_under_its_own_key_with_its_usage_and_cost(warehouse: Path) -> None:
    result = run_job(
        output_schema=SCHEMA,
        carry=["label"],
        land={"columns": {"answer": "label", "score": "score"}, "key": {"run": "{{ run_id }}"}},
    )

    assert result.state == "success"
    summary = result.return_values["land"]
    assert summary["requests"] == 5
    assert summary["outcomes"] == {"succeeded": 5}
    assert float(summary["cost_usd"]) * 2 == pytest.approx(float(summary["standard_cost_usd"]))
    rows = query(
        warehouse,
        'SELECT "run", custom_id, outcome, output, label, answer, score, model, attempt, job_uid, input_tokens, '
        "cost_usd FROM answers ORDER BY custom_id",
    )
    assert [row[1] for row in rows] == ["T-1", "T-2", "T-3", "T-4", "T-5"]
    for run, _, outcome, output, label, answer, score, model, attempt, job_uid, tokens, cost in rows:
        assert run.startswith("manual__")
        assert outcome == "succeeded"
        assert json.loads(output) == {"label": answer, "score": score}
        assert label == "billing"
        assert "offline-responder" in model
        assert attempt == 1
        assert job_uid == summary["job_uid"]
        assert tokens > 0
        assert float(cost) > 0


def test_the_logical_date_of_the_run_lands_in_every_row(warehouse: Path) -> None:
    result = run_job(
        logical_date=pendulum.datetime(2026, 3, 1, tz="Europe/Berlin"),
        prompt="{{ logical_date }} {{ ds }} {{ row.body }}",
        wait={"deadline": pendulum.now("Europe/Berlin").add(hours=1)},
    )

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT DISTINCT logical_date FROM answers") == [("2026-02-28T23:00:00.000000+00:00",)]


def test_a_job_that_exceeds_the_limits_is_split_into_several_batches(warehouse: Path, client: openai.OpenAI) -> None:
    result = run_job(limits={"requests": 2})

    assert result.state == "success"
    batches = batches_of(client, result.return_values["submit"]["job_uid"])
    assert sorted(b.metadata["shard"] for b in batches) == ["s0001", "s0002", "s0003"]
    assert len({b.metadata["nonce"] for b in batches}) == 3
    assert query(warehouse, "SELECT count(*), count(DISTINCT batch_id) FROM answers") == [(5, 3)]


def test_each_model_gets_its_own_input_files(warehouse: Path, client: openai.OpenAI) -> None:
    result = run_job(
        sql="SELECT id, title, body, CASE WHEN id < 'T-3' THEN 'gpt-5-nano' ELSE 'gpt-5-mini' END AS m FROM tickets",
        model="{{ row.m }}",
    )

    assert result.state == "success"
    assert len(batches_of(client, result.return_values["submit"]["job_uid"])) == 2
    models = dict(query(warehouse, "SELECT custom_id, model FROM answers"))
    assert models["T-1"].endswith("gpt-5-nano")
    assert models["T-5"].endswith("gpt-5-mini")


def test_the_responses_endpoint_lands_structured_output(warehouse: Path) -> None:
    result = run_job(
        endpoint="/v1/responses", system="Label it.", output_schema=SCHEMA, land={"columns": {"answer": "label"}}
    )

    assert result.state == "success"
    assert {row[0] for row in query(warehouse, "SELECT answer FROM answers")} <= {"bug", "billing"}
    assert query(warehouse, "SELECT count(*) FROM answers WHERE outcome = 'succeeded'") == [(5,)]


def test_columns_are_filled_from_fields_of_any_name(warehouse: Path) -> None:
    class Scores(BaseModel):
        version: float = Field(alias="v1.0")
        model: Literal["mini", "nano"] = Field(alias="gpt-4.1")
        example: bool = Field(alias="e.g.")
        metric: int = Field(alias="Metric A", ge=3, le=3)

    columns = {"version": "v1.0", "by_list": ["gpt-4.1"], "e.g.": "e.g.", "Metric A": "Metric A"}
    assert run_job(output_schema=Scores, land={"columns": columns}).state == "success"
    rows = query(warehouse, 'SELECT version, by_list, "e.g.", "Metric A" FROM answers WHERE outcome = \'succeeded\'')
    assert len(rows) == 5
    for version, by_list, example, metric in rows:
        assert isinstance(version, float)
        assert by_list in ("mini", "nano")
        assert example in (0, 1)
        assert metric == 3

    assert run_job(output_schema=Scores, land={"table": "short", "columns": ["v1.0", "Metric A"]}).state == "success"
    assert set(query(warehouse, 'SELECT "Metric A" FROM short')) == {(3,)}


def test_embeddings_land_as_vectors(warehouse: Path) -> None:
    result = run_job(
        endpoint="/v1/embeddings", model="text-embedding-3-small", prompt="{{ row.body }}", body={"dimensions": 8}
    )

    assert result.state == "success"
    for (output,) in query(warehouse, "SELECT output FROM answers"):
        vector = json.loads(output)
        assert len(vector) == 8
        assert sum(x * x for x in vector) == pytest.approx(1.0, abs=1e-3)


def test_embeddings_of_several_inputs_land_as_lists_of_vectors(warehouse: Path) -> None:
    update(warehouse, 'UPDATE tickets SET title = \'["one", "two", "three"]\' WHERE id = \'T-1\'')
    update(warehouse, "UPDATE tickets SET title = '[\"only\"]' WHERE id <> 'T-1'")

    result = run_job(
        endpoint="/v1/embeddings",
        model="text-embedding-3-small",
        prompt=...,
        body={"input": "{{ row.title | fromjson }}", "dimensions": 4},
    )

    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    shapes = {
        custom_id: [len(vector) for vector in json.loads(output)]
        for custom_id, output in query(warehouse, "SELECT custom_id, output FROM answers")
    }
    assert shapes == {"T-1": [4, 4, 4], "T-2": [4], "T-3": [4], "T-4": [4], "T-5": [4]}


def test_only_rows_that_fail_for_a_transient_reason_are_retried(warehouse: Path, client: openai.OpenAI) -> None:
    set_bodies(warehouse, {"T-2": "[[fail:500:once]]", "T-4": "[[fail:429:once]]"})

    result = run_job()

    assert result.state == "success"
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    summary = result.return_values["land"]
    assert summary["retried"] == 2
    assert Decimal(summary["retried_cost_usd"]) == sum(
        Decimal(str(cost)) for (cost,) in query(warehouse, "SELECT cost_usd FROM answers WHERE attempt = 2")
    )
    attempts = dict(query(warehouse, "SELECT custom_id, attempt FROM answers"))
    assert attempts == {"T-1": 1, "T-2": 2, "T-3": 1, "T-4": 2, "T-5": 1}
    batches = batches_of(client, result.return_values["submit"]["job_uid"])
    assert sorted(b.request_counts.total for b in batches) == [2, 5]


def test_a_row_is_sent_at_most_max_attempts_times(warehouse: Path, client: openai.OpenAI) -> None:
    set_bodies(warehouse, {"T-2": "[[fail:500]]"})

    result = run_job(wait={"max_attempts": 2})

    assert query(warehouse, "SELECT custom_id, outcome, attempt FROM answers WHERE outcome <> 'succeeded'") == [
        ("T-2", "failed", 2)
    ]
    assert len(batches_of(client, result.return_values["submit"]["job_uid"])) == 2


def test_each_kind_of_failure_lands_with_its_outcome(warehouse: Path) -> None:
    set_bodies(
        warehouse,
        {
            "T-1": "[[refuse]]",
            "T-2": "[[cutoff]]",
            "T-3": "[[filter]]",
            "T-4": "[[invalid-json]]",
            "T-5": "[[fail:400]]",
        },
    )

    result = run_job(output_schema=SCHEMA, wait={"max_attempts": 1})

    assert dict(query(warehouse, "SELECT custom_id, outcome FROM answers")) == {
        "T-1": "refused",
        "T-2": "incomplete",
        "T-3": "refused",
        "T-4": "invalid_output",
        "T-5": "failed",
    }
    assert result.return_values["land"]["outcomes"] == {"incomplete": 1, "refused": 2, "invalid_output": 1, "failed": 1}


def test_too_many_failures_fail_the_landing_after_all_rows_have_landed(warehouse: Path) -> None:
    set_bodies(warehouse, {"T-3": "[[refuse]]"})

    result = run_job(land={"max_failure_rate": 0.1})

    assert result.states["land"] == "failed"
    assert "1 of 5 rows did not succeed (20.0%, max_failure_rate is 10.0%)" in result.error("land")
    assert query(warehouse, "SELECT count(*) FROM answers") == [(5,)]
    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "refused": 1}


def test_a_value_that_the_table_refuses_costs_its_row_and_fails_the_landing(warehouse: Path) -> None:
    assert run_job().state == "success"
    ((create,),) = query(warehouse, "SELECT sql FROM sqlite_master WHERE name = 'answers'")
    query(warehouse, "DROP TABLE answers")
    query(warehouse, create.strip()[:-1] + ", CHECK (custom_id <> 'T-3' OR output IS NULL))")

    result = run_job()

    assert result.states["land"] == "failed"
    error = result.error("land")
    for phrase in (
        "The table 'answers' does not take a value of 1 row out of 5.",
        "column 'output': CHECK constraint failed: ",
        "custom_id: T-3.",
        "All other rows landed. 1 refused row landed without the value, with the code storage.",
        "All answers are kept in staging.",
        "clear this task: the rows land without being sent again",
    ):
        assert phrase in error, phrase
    rows = query(warehouse, "SELECT custom_id, outcome, output IS NULL, error_code FROM answers ORDER BY custom_id")
    assert rows == [
        (f"T-{n}", "invalid_output", 1, "storage") if n == 3 else (f"T-{n}", "succeeded", 0, None) for n in range(1, 6)
    ]
    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "invalid_output": 1}
    (reason,) = result.return_values["land"]["reasons"]
    assert (reason["rows"], reason["code"]) == (1, "storage")


def test_the_text_of_a_refusal_is_in_the_table_but_not_in_the_log_or_the_summary(
    warehouse: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    set_bodies(warehouse, {"T-3": "[[refuse]]"})

    result = run_job()

    ((refusal,),) = query(warehouse, "SELECT error_message FROM answers WHERE outcome = 'refused'")
    assert "can't help" in refusal
    assert refusal not in "".join(capfd.readouterr())
    assert refusal not in str(result.return_values)


def test_zero_rows_succeed_and_the_table_is_created(warehouse: Path, client: openai.OpenAI) -> None:
    before = len(list(client.batches.list(limit=100)))

    result = run_job(sql="SELECT id, title, body, label FROM tickets WHERE 1 = 0")

    assert result.state == "success"
    assert result.return_values["submit"]["requests"] == 0
    assert query(warehouse, "SELECT count(*) FROM answers") == [(0,)]
    assert len(list(client.batches.list(limit=100))) == before


@pytest.mark.parametrize(("on_empty", "state"), [("skip", "skipped"), ("fail", "failed")])
def test_zero_rows_skip_or_fail_the_task_as_on_empty_says(warehouse: Path, on_empty: str, state: str) -> None:
    result = run_job(sql="SELECT id, title, body, label FROM tickets WHERE 1 = 0", on_empty=on_empty)

    assert result.states["submit"] == state


@pytest.mark.parametrize("preview", [True, "True"])
def test_a_preview_uploads_and_seals_nothing(
    warehouse: Path, client: openai.OpenAI, tmp_path: Path, preview: Any
) -> None:
    before = len(list(client.files.list()))

    result = run_job(preview=preview)

    reference = result.return_values["submit"]
    assert (reference["preview"], reference["requests"], reference["shards"]) == (True, 5, 1)
    assert 0 < reference["estimate"]["low_usd"] <= reference["estimate"]["high_usd"]
    assert result.states == {"submit": "success", "wait": "skipped", "land": "skipped"}
    assert len(list(client.files.list())) == before
    assert not (tmp_path / "staging").exists()


def test_a_preview_that_is_switched_off_in_a_form_is_off(warehouse: Path) -> None:
    assert run_job(preview="False").return_values["land"]["requests"] == 5


def test_row_arguments_can_come_from_other_tasks_params_and_files(warehouse: Path, client: openai.OpenAI) -> None:
    from airflow.sdk import DAG, task

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    (warehouse.parent / "system.md").write_text("You read tickets of {{ params.team }}.\n")
    with DAG("arguments", schedule=None, params={"team": "north"}, template_searchpath=[str(warehouse.parent)]) as dag:

        @task
        def prompt() -> str:
            return "Ticket {{ row.id }} says {{ row.title }}"

        submit = BatchSubmitOperator(
            **submit_arguments(
                prompt=prompt(),
                system="system.md",
                model=dag.param("model", "gpt-5-nano"),
                endpoint=dag.param("endpoint", "/v1/chat/completions"),
                metadata=dag.param("metadata", {"night": "shift"}),
            )
        )
        wait_task = BatchSensor(task_id="wait", job=submit.output)
        submit >> wait_task >> BatchResultsOperator(task_id="land", job=submit.output, table="answers")

    result = run_dag(dag, conf={"model": "gpt-4.1-nano"})

    assert result.state == "success"
    (batch,) = batches_of(client, result.return_values["submit"]["job_uid"])
    assert batch.metadata["night"] == "shift"
    lines = [json.loads(line) for line in client.files.content(batch.input_file_id).content.splitlines()]
    assert {line["body"]["model"] for line in lines} == {"gpt-4.1-nano"}
    assert lines[0]["body"]["messages"] == [
        {"role": "system", "content": "You read tickets of north."},
        {"role": "user", "content": "Ticket T-1 says Ticket 1"},
    ]


def test_mapped_submit_tasks_create_separate_jobs(warehouse: Path) -> None:
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG("mapped", schedule=None) as dag:
        submit = BatchSubmitOperator.partial(**submit_arguments(model=..., output_schema=SCHEMA)).expand(
            model=["gpt-5-nano", "gpt-5-mini"]
        )
        wait_task = BatchSensor.partial(task_id="wait").expand(job=submit.output)
        landed = BatchResultsOperator.partial(task_id="land", table="answers", history=True).expand(job=submit.output)
        submit >> wait_task >> landed

    result = run_dag(dag)

    assert result.state == "success"
    assert result.return_values["submit[0]"]["job_uid"] != result.return_values["submit[1]"]["job_uid"]
    assert query(warehouse, "SELECT count(*), count(DISTINCT job_uid), count(DISTINCT model) FROM answers") == [
        (10, 2, 2)
    ]


def test_jobs_in_a_mapped_task_group_receive_its_argument(warehouse: Path) -> None:
    from airflow.sdk import DAG, task_group

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor

    with DAG("mapped_group", schedule=None) as dag:

        @task_group
        def label(model: str) -> None:
            submit = BatchSubmitOperator(**submit_arguments(model=model, body={"user": model}))
            wait_task = BatchSensor(task_id="wait", job=submit.output)
            landed = BatchResultsOperator(task_id="land", job=submit.output, table="answers", history=True)
            submit >> wait_task >> landed

        label.expand(model=["gpt-5-nano", "gpt-5-mini"])

    assert run_dag(dag).state == "success"
    models = query(warehouse, "SELECT DISTINCT model FROM answers ORDER BY model")
    assert [model.rsplit("/", 1)[-1] for (model,) in models] == ["gpt-5-mini", "gpt-5-nano"]


def test_a_later_job_replaces_the_row_of_an_earlier_one_whatever_its_outcome(warehouse: Path) -> None:
    run_job()
    set_bodies(warehouse, {"T-2": "[[refuse]]"})

    run_job()

    assert query(warehouse, "SELECT outcome FROM answers WHERE custom_id = 'T-2'") == [("refused",)]
    assert query(warehouse, "SELECT count(*) FROM answers") == [(5,)]


def test_keep_last_success_keeps_a_succeeded_row_of_an_earlier_job(warehouse: Path) -> None:
    first = run_job()
    set_bodies(warehouse, {"T-2": "[[refuse]]"})

    run_job(land={"keep_last_success": True})

    kept = query(warehouse, "SELECT outcome, job_uid FROM answers WHERE custom_id = 'T-2'")
    assert kept == [("succeeded", first.return_values["submit"]["job_uid"])]


def test_history_keeps_the_answers_of_every_job(warehouse: Path) -> None:
    run_job(land={"history": True})
    run_job(land={"history": True})

    assert query(warehouse, "SELECT custom_id, count(*) FROM answers GROUP BY custom_id HAVING count(*) <> 2") == []


def test_foreign_columns_of_the_results_table_are_left_alone(warehouse: Path) -> None:
    run_job()
    update(warehouse, "ALTER TABLE answers ADD COLUMN reviewed_by TEXT")
    update(warehouse, "UPDATE answers SET reviewed_by = 'night shift'")

    run_job()

    assert query(warehouse, "SELECT DISTINCT reviewed_by FROM answers") == [("night shift",)]


@pytest.mark.parametrize("wait", [{"deferrable": False}, {"deferrable": False, "mode": "reschedule"}, {}])
def test_the_wait_works_the_same_in_every_mode(warehouse: Path, wait: dict[str, Any]) -> None:
    assert run_job(wait=wait).return_values["land"]["outcomes"] == {"succeeded": 5}


def test_at_the_deadline_running_batches_are_cancelled_and_the_wait_succeeds(
    warehouse: Path, connect: Callable[..., None], tmp_path: Path
) -> None:
    with LocalServer(tmp_path / "slow", in_progress=600) as slow_server:
        connect("openai_default", conn_type="openai", password="local", host=slow_server.base_url)

        result = run_job(wait={"deadline": timedelta(seconds=3)})

        (batch,) = client_of(slow_server).batches.list()
    assert batch.status == "cancelled"
    assert result.states == {"submit": "success", "wait": "success", "land": "success"}
    assert result.return_values["land"]["outcomes"]["cancelled"] > 0
    assert sum(result.return_values["land"]["outcomes"].values()) == 5


def test_a_full_queue_delays_shards_but_fails_nothing(
    warehouse: Path, connect: Callable[..., None], tmp_path: Path
) -> None:
    result = run_job(preview=True)
    all_tokens = result.return_values["submit"]["estimate"]["input_tokens"]
    with LocalServer(tmp_path / "full", in_progress=1, enqueued_token_limit=int(all_tokens * 0.7)) as full_server:
        connect("openai_default", conn_type="openai", password="local", host=full_server.base_url)

        result = run_job(limits={"requests": 3})

        batches = list(client_of(full_server).batches.list())
    assert result.return_values["land"]["outcomes"] == {"succeeded": 5}
    assert result.return_values["land"]["retried"] == 0
    assert query(warehouse, "SELECT DISTINCT attempt FROM answers") == [(1,)]
    statuses = sorted(batch.status for batch in batches)
    assert statuses.count("completed") == 2
    assert "failed" in statuses


def test_an_api_key_that_the_provider_refuses_fails_submit_without_showing_the_key(
    warehouse: Path, connect: Callable[..., None], tmp_path: Path
) -> None:
    with LocalServer(tmp_path / "locked", api_key="the-right-key") as locked_server:
        connect("openai_default", conn_type="openai", password="the-wrong-key", host=locked_server.base_url)

        result = run_job()

    assert result.states["submit"] == "failed"
    assert "HTTP 401" in result.error("submit")
    assert "No batch was created" in result.error("submit")
    assert "the-wrong-key" not in result.error("submit")


def test_store_response_lands_the_whole_response(warehouse: Path) -> None:
    run_job(land={"store_response": True})

    for (response,) in query(warehouse, "SELECT response FROM answers"):
        assert json.loads(response)["object"] == "chat.completion"


def test_unusual_texts_land_unchanged_under_their_own_key(warehouse: Path) -> None:
    texts = [
        "",
        "line\u2028separator\u0085",
        "\"quoted\" \\ 'single'",
        "😀" * 50,
        "{{ row.id }} {% raw %}",
        "x" * 20_000,
    ]
    rows = [(f"N {n} é\n\u2028", f"t{n}", text, None) for n, text in enumerate(texts)]
    (warehouse.parent / "nasty.sqlite").unlink(missing_ok=True)
    make_tickets(warehouse.parent / "nasty.sqlite", rows)
    warehouse.write_bytes((warehouse.parent / "nasty.sqlite").read_bytes())

    run_job(carry=["body", "label"])

    landed = {row[0]: row[1:] for row in query(warehouse, "SELECT custom_id, outcome, body, label FROM answers")}
    assert landed == {row[0]: ("succeeded", row[2], None) for row in rows}


def set_bodies(warehouse: Path, bodies: dict[str, str]) -> None:
    for custom_id, body in bodies.items():
        update(warehouse, f"UPDATE tickets SET body = '{body}' WHERE id = '{custom_id}'")


def update(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(sql)
