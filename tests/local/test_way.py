"""The complete lifecycle of a batch, with the real SDK over real HTTP."""

from __future__ import annotations

import asyncio
import json
import time

from openai import AsyncOpenAI, OpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from airflow_provider_batch.local.process import LocalServer
from tests.local.conftest import Serve
from tests.local.driving import (
    CHAT,
    EMBEDDINGS,
    RESPONSES,
    answers,
    chat,
    chats,
    failures,
    jsonl,
    results,
    run,
    submit,
    wait,
)


def test_every_chat_request_is_answered_under_its_own_custom_id(client: OpenAI) -> None:
    batch = run(client, chats(30))

    assert batch.status == "completed"
    bodies = answers(client, batch)
    assert set(bodies) == {f"row-{number}" for number in range(30)}
    for body in bodies.values():
        completion = ChatCompletion.model_validate(body)
        assert completion.model == "offline-responder/gpt-5-mini"
        assert completion.choices[0].finish_reason == "stop"
        assert completion.choices[0].message.content
        assert completion.usage is not None
        assert completion.usage.total_tokens == (completion.usage.prompt_tokens + completion.usage.completion_tokens)


def test_every_responses_request_is_answered_under_its_own_custom_id(client: OpenAI) -> None:
    lines = [
        {
            "custom_id": f"row-{number}",
            "method": "POST",
            "url": RESPONSES,
            "body": {"model": "gpt-5-mini", "instructions": "Be short.", "input": f"Question {number}"},
        }
        for number in range(5)
    ]
    batch = run(client, lines, RESPONSES)

    bodies = answers(client, batch)
    assert set(bodies) == {f"row-{number}" for number in range(5)}
    for body in bodies.values():
        response = Response.model_validate(body)
        assert response.status == "completed"
        assert response.output_text
        assert response.usage is not None
        assert response.usage.input_tokens > 0


def test_an_embeddings_request_can_have_several_inputs(client: OpenAI) -> None:
    body = {"model": "text-embedding-3-small", "input": ["red pump", "blue hub", "red hub"]}
    batch = run(client, [{"custom_id": "a", "method": "POST", "url": EMBEDDINGS, "body": body}], EMBEDDINGS)

    answer = CreateEmbeddingResponse.model_validate(answers(client, batch)["a"])
    assert [item.index for item in answer.data] == [0, 1, 2]
    assert [len(item.embedding) for item in answer.data] == [1536] * 3
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (answer.usage.prompt_tokens, 0)


def test_the_async_client_runs_a_batch(server: LocalServer) -> None:
    async def scenario() -> tuple[str, int]:
        async with AsyncOpenAI(base_url=server.base_url, api_key="local", max_retries=0) as client:
            file = await client.files.create(file=("a.jsonl", jsonl(chats(3))), purpose="batch")
            batch = await client.batches.create(
                input_file_id=file.id, endpoint=CHAT, completion_window="24h", metadata={"job": "x"}
            )
            while batch.status != "completed":
                await asyncio.sleep(0.01)
                batch = await client.batches.retrieve(batch.id)
            assert batch.metadata == {"job": "x"}
            content = await client.files.content(batch.output_file_id or "")
            return batch.status, content.content.count(b"\n")

    assert asyncio.run(asyncio.wait_for(scenario(), 60)) == ("completed", 3)


def test_states_follow_in_order_with_timestamps_and_growing_counts(serve: Serve) -> None:
    _, client = serve(validating=0.3, in_progress=1.0, finalizing=0.5)
    batch = submit(client, chats(40))
    assert batch.status == "validating"
    assert batch.expires_at == batch.created_at + 86_400

    snapshots = [batch]
    while snapshots[-1].status != "completed":
        time.sleep(0.01)
        snapshots.append(client.batches.retrieve(batch.id))

    order = list(dict.fromkeys(snapshot.status for snapshot in snapshots))
    assert order == ["validating", "in_progress", "finalizing", "completed"]
    for snapshot in snapshots:
        assert snapshot.request_counts is not None
        if snapshot.status == "validating":
            assert snapshot.request_counts.total == 0
            assert snapshot.in_progress_at is None
        else:
            assert snapshot.request_counts.total == 40
            assert snapshot.in_progress_at is not None
        if snapshot.status == "finalizing":
            assert snapshot.request_counts.completed == 40
            assert snapshot.finalizing_at is not None
        if snapshot.status != "completed":
            assert snapshot.output_file_id is None
            assert snapshot.completed_at is None
    counts = [snapshot.request_counts.completed for snapshot in snapshots if snapshot.request_counts]
    assert counts == sorted(counts)
    assert len(set(counts)) > 5, "the counts grow visibly while the batch is in progress"
    last = snapshots[-1]
    timestamps = (last.created_at, last.in_progress_at, last.finalizing_at, last.completed_at)
    present = [timestamp for timestamp in timestamps if timestamp is not None]
    assert len(present) == len(timestamps)
    assert present == sorted(present)


def test_the_batch_reports_the_resolved_model_and_the_sum_of_all_tokens(client: OpenAI) -> None:
    batch = run(client, chats(7))

    bodies = answers(client, batch).values()
    assert batch.model == "offline-responder/gpt-5-mini"
    assert batch.usage is not None
    assert batch.usage.input_tokens == sum(body["usage"]["prompt_tokens"] for body in bodies)
    assert batch.usage.output_tokens == sum(body["usage"]["completion_tokens"] for body in bodies)
    assert batch.usage.total_tokens == batch.usage.input_tokens + batch.usage.output_tokens


def test_the_seed_determines_the_order_of_the_output(serve: Serve) -> None:
    def order(seed: int) -> list[str]:
        _, client = serve(seed=seed)
        batch = run(client, chats(50))
        return [line["custom_id"] for line in results(client, batch.output_file_id)]

    first, repetition, different = order(1), order(1), order(2)
    assert first != sorted(first, key=lambda custom_id: int(custom_id[4:]))
    assert first == repetition
    assert first != different


def test_successes_and_failures_are_in_separate_files(client: OpenAI) -> None:
    batch = run(client, [chat("good", "hello"), chat("bad", "hello [[fail:429]]"), chat("bad2", "[[fail:500]]")])

    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 2)
    assert set(answers(client, batch)) == {"good"}
    errors = failures(client, batch)
    assert set(errors) == {"bad", "bad2"}
    assert errors["bad"]["error"] is None
    assert errors["bad"]["response"]["status_code"] == 429
    assert errors["bad"]["response"]["body"]["error"]["code"] == "rate_limit_exceeded"
    assert errors["bad2"]["response"]["status_code"] == 500


def test_without_failures_there_is_no_error_file(client: OpenAI) -> None:
    batch = run(client, chats(2))

    assert batch.output_file_id
    assert batch.error_file_id is None


def test_a_batch_with_only_failures_is_completed_without_an_output_file(client: OpenAI) -> None:
    batch = run(client, [chat("a", "[[fail:400]]"), chat("b", "[[fail:500]]")])

    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert set(failures(client, batch)) == {"a", "b"}
    assert batch.usage is not None
    assert batch.usage.total_tokens == 0


def test_unicode_line_separators_do_not_split_lines(client: OpenAI) -> None:
    prompt = 'a\u2028b\u2029c\u0085d \U0001f600 "quoted" \\ back'
    schema = {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}
    form = {"type": "json_schema", "json_schema": {"name": "echo", "schema": schema}}
    raw = json.dumps(chat("ключ-1", prompt, response_format=form), ensure_ascii=False)
    batch = run(client, [raw])

    body = answers(client, batch)["ключ-1"]
    assert "\U0001f600" in json.loads(body["choices"][0]["message"]["content"])["echo"]


def test_result_files_have_the_purpose_batch_output(client: OpenAI) -> None:
    batch = run(client, chats(1))

    file = client.files.retrieve(batch.output_file_id or "")
    assert file.purpose == "batch_output"
    assert file.filename == f"{batch.id}_output.jsonl"
    assert file.bytes == len(client.files.content(file.id).content)


def test_deleting_an_input_file_does_not_affect_its_batch(serve: Serve) -> None:
    _, client = serve(validating=0.3)
    batch = submit(client, chats(3))
    client.files.delete(batch.input_file_id)

    assert wait(client, batch).status == "completed"


def test_the_synchronous_endpoints_give_the_answers_of_a_batch(client: OpenAI) -> None:
    batch = run(client, [chat("a", "The same question")])
    completion = client.chat.completions.create(
        model="gpt-5-mini", messages=[{"role": "user", "content": "The same question"}]
    )

    assert completion.choices[0].message.content == (answers(client, batch)["a"]["choices"][0]["message"]["content"])
    assert client.responses.create(model="gpt-5-mini", input="hi").output_text
    assert len(client.embeddings.create(model="text-embedding-3-large", input="hi").data[0].embedding) == 3072
    assert "gpt-5-mini" in {model.id for model in client.models.list()}
    assert client.models.retrieve("any-name").id == "any-name"
