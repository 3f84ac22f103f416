"""`OpenAITriggerBatchOperator` of the OpenAI provider: its example, and every way in which a batch can end."""

from __future__ import annotations

import json
from tempfile import NamedTemporaryFile
from typing import Any

import openai
import pytest

from tests.airflow.jobs import DagRunResult, run_dag, run_in_background
from tests.airflow.peers.driving import Platform, new_dag

CHAT = "/v1/chat/completions"


def upload(lines: list[dict[str, Any]]) -> str:
    """Upload an input file with the provider's hook, and return its id.

    As in the provider's own example, it is a temporary file without an extension.
    """
    from airflow.providers.openai.hooks.openai import OpenAIHook

    with NamedTemporaryFile("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        return OpenAIHook(conn_id="openai_default").upload_file(file.name, purpose="batch").id


def line(custom_id: str, content: str = "Who is Pikachu?") -> dict[str, Any]:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], "max_tokens": 1000}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


def run_operator(lines: list[dict[str, Any]], **arguments: Any) -> DagRunResult:
    with new_dag() as dag:
        from airflow.providers.openai.operators.openai import OpenAITriggerBatchOperator

        OpenAITriggerBatchOperator(
            task_id="batch",
            file_id=upload(lines),
            endpoint=CHAT,
            **({"poll_interval": 0.2, "wait_seconds": 0.2} | arguments),
        )
    return run_dag(dag)


FOUR_LINES = [line(name) for name in "abcd"]


def test_the_example_of_its_documentation_gets_its_answers(quick: Platform, deferrable: bool) -> None:
    from airflow.providers.openai.hooks.openai import OpenAIHook
    from airflow.providers.openai.operators.openai import OpenAITriggerBatchOperator
    from airflow.sdk import task

    with new_dag() as dag:

        @task
        def generate_messages(pokemon: str) -> str:
            return f"Describe the info about {pokemon}?"

        @task
        def batch_upload(messages: Any) -> str:
            return upload([line(f"pokemon-{number}", message) for number, message in enumerate(messages)])

        @task
        def read_batch_output_file(batch_id: str) -> dict[str, str]:
            hook = OpenAIHook(conn_id="openai_default")
            output = hook.get_batch(batch_id).output_file_id
            assert output is not None
            content = hook.conn.files.content(output).text
            answers = [json.loads(line) for line in content.splitlines()]
            return {
                answer["custom_id"]: answer["response"]["body"]["choices"][0]["message"]["content"]
                for answer in answers
            }

        @task
        def cleanup_batch_output_file(batch_id: str) -> None:
            hook = OpenAIHook(conn_id="openai_default")
            output = hook.get_batch(batch_id).output_file_id
            assert output is not None
            hook.delete_file(output)

        file_id: Any = batch_upload(generate_messages.expand(pokemon=["pikachu", "charmander", "bulbasaur"]))
        batch = OpenAITriggerBatchOperator(
            task_id="batch",
            conn_id="openai_default",
            file_id=file_id,
            endpoint=CHAT,
            deferrable=deferrable,
        )
        batch_id: Any = batch.output
        read_batch_output_file(batch_id) >> cleanup_batch_output_file(batch_id)

    result = run_dag(dag)

    assert result.state == "success"
    completed_batch = quick.batch(status="completed", completed=3)
    assert result.return_values["batch"] == completed_batch.id
    answers = result.return_values["read_batch_output_file"]
    assert set(answers) == {"pokemon-0", "pokemon-1", "pokemon-2"}
    assert all(answers.values())
    with pytest.raises(openai.NotFoundError):
        quick.client.files.content(completed_batch.output_file_id or "")


def test_it_sends_metadata_and_an_expiry_for_the_results(quick: Platform) -> None:
    result = run_operator(
        FOUR_LINES,
        metadata={"team": "{{ dag.dag_id }}"},
        batch_kwargs={"output_expires_after": {"anchor": "created_at", "seconds": 7200}},
    )

    batch = quick.batch(status="completed")
    assert result.return_values["batch"] == batch.id
    assert (batch.metadata or {})["team"].startswith("peer_")
    output = quick.client.files.retrieve(batch.output_file_id or "")
    assert output.expires_at == output.created_at + 7200


def test_without_waiting_it_returns_the_id_of_a_running_batch(slow: Platform) -> None:
    result = run_operator(FOUR_LINES, wait_for_completion=False)

    assert result.return_values["batch"] == slow.batch(status="in_progress").id


def test_a_batch_that_fails_validation_fails_the_task(quick: Platform, deferrable: bool) -> None:
    from airflow.providers.openai.exceptions import OpenAIBatchJobException

    result = run_operator([line("same"), line("same")], deferrable=deferrable)

    assert type(result.errors["batch"]) is OpenAIBatchJobException
    batch = quick.batch(status="failed")
    assert batch.id in result.error("batch")
    assert batch.errors is not None
    assert [error.code for error in batch.errors.data or []] == ["duplicate_custom_id"]


def test_a_batch_whose_window_ended_fails_the_task(slow: Platform, deferrable: bool) -> None:
    from airflow.providers.openai.exceptions import OpenAIBatchJobException

    with run_in_background(slow.expire_half_done):
        result = run_operator(FOUR_LINES, deferrable=deferrable)

    assert type(result.errors["batch"]) is OpenAIBatchJobException
    assert "couldn't be completed within its completion window" in result.error("batch")


def test_a_cancelled_batch_raises_an_exception_of_its_own_class(slow: Platform, deferrable: bool) -> None:
    from airflow.providers.openai.exceptions import OpenAIBatchCancelled

    with run_in_background(slow.cancel_half_done):
        result = run_operator(FOUR_LINES, deferrable=deferrable)

    assert type(result.errors["batch"]) is OpenAIBatchCancelled


def test_after_its_timeout_it_cancels_its_batch(slow: Platform, deferrable: bool) -> None:
    from airflow.providers.openai.exceptions import OpenAIBatchTimeout

    result = run_operator(FOUR_LINES, deferrable=deferrable, timeout=1)

    assert type(result.errors["batch"]) is OpenAIBatchTimeout
    slow.batch(status="cancelled")
