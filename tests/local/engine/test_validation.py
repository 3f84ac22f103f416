"""An invalid input file fails its batch, with OpenAI's codes and lines counted from 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_batch.local.answers.prompt import ENDPOINTS
from airflow_provider_batch.local.engine.validation import validate
from tests.local.conftest import Serve
from tests.local.driving import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    RESPONSES,
    chat,
    chats,
    failures,
    jsonl,
    problems,
    run,
    submit,
    upload,
    wait,
)

if TYPE_CHECKING:
    from openai import OpenAI


def line_without(name: str) -> dict[str, Any]:
    line = chat("bad", "x")
    del line[name]
    return line


def line_with_body(**body: Any) -> dict[str, Any]:
    line = chat("bad", "x")
    line["body"].update(body)
    return line


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("{not json", "invalid_json_line", None),
        ('["a", "list"]', "invalid_json_line", None),
        (line_without("custom_id"), "missing_required_parameter", "custom_id"),
        (line_without("method"), "missing_required_parameter", "method"),
        (line_without("url"), "missing_required_parameter", "url"),
        (line_without("body"), "missing_required_parameter", "body"),
        ({**chat("bad", "x"), "url": RESPONSES}, "invalid_url", "url"),
        ({**chat("bad", "x"), "method": "GET"}, "invalid_method", "method"),
        ({**chat("bad", "x"), "custom_id": 7}, "invalid_request", "custom_id"),
        ({**chat("bad", "x"), "body": "text"}, "invalid_request", "body"),
        (line_with_body(stream=True), "streaming_unsupported", "body.stream"),
        (line_with_body(model=None), "invalid_request", "body.model"),
        (line_with_body(messages=None), "invalid_request", "body.messages"),
        (line_with_body(model="gpt-5-nano"), "model_mismatch", "body.model"),
        (chat("good", "again"), "duplicate_custom_id", "custom_id"),
    ],
)
def test_one_bad_line_fails_the_whole_batch(
    client: OpenAI, line: dict[str, Any] | str, code: str, param: str | None
) -> None:
    batch = run(client, [chat("good", "hello"), line])

    assert batch.status == "failed"
    assert problems(batch) == [(code, param, 2)]
    assert batch.failed_at is not None
    assert batch.in_progress_at is None
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.total == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "This line is not parseable as valid JSON."),
        (line_without("custom_id"), "Missing required parameter: 'custom_id'."),
        (line_without("method"), "Missing required parameter: 'method'."),
        (line_without("url"), "Missing required parameter: 'url'."),
        (line_without("body"), "Missing required parameter: 'body'."),
        ({**chat("x", "x"), "url": RESPONSES}, "The URL provided for this request does not match the batch endpoint."),
        ({**chat("x", "x"), "method": "GET"}, "Invalid value: 'GET'. Supported values are: 'POST'"),
        (line_with_body(stream=True), "Chat Completions: Streaming is not supported in the Batch API."),
        (line_with_body(model=None), "Model parameter is required."),
        (line_with_body(messages=None), "Messages parameter is required."),
    ],
)
def test_problems_have_openais_documented_messages(tmp_path: Path, line: dict[str, Any] | str, message: str) -> None:
    (tmp_path / "input.jsonl").write_bytes(jsonl([line]))

    (error,) = validate(tmp_path / "input.jsonl", CHAT, frozenset()).errors
    assert error.message == message


def test_an_unknown_model_has_openais_documented_message(tmp_path: Path) -> None:
    (tmp_path / "input.jsonl").write_bytes(jsonl([chat("a", "x")]))

    (error,) = validate(tmp_path / "input.jsonl", CHAT, frozenset({"gpt-5"})).errors
    assert error.message == "The provided model 'gpt-5-mini' is not supported by the Batch API."


def test_a_line_that_lacks_several_parameters_has_one_problem(client: OpenAI) -> None:
    batch = run(client, [chat("a", "x"), '{"body": {}}', "{}"])

    assert problems(batch) == [
        ("missing_required_parameter", "custom_id", 2),
        ("missing_required_parameter", "custom_id", 3),
    ]


def test_a_line_with_several_mistakes_has_one_problem_for_each(client: OpenAI) -> None:
    batch = run(client, [chat("a", "x"), {**line_with_body(stream=True, model=None), "url": [], "custom_id": "a"}])

    assert problems(batch) == [
        ("duplicate_custom_id", "custom_id", 2),
        ("invalid_url", "url", 2),
        ("invalid_request", "body.model", 2),
        ("streaming_unsupported", "body.stream", 2),
    ]


def test_a_line_that_is_not_utf_8_is_unreadable(client: OpenAI) -> None:
    content = jsonl(chats(1)) + b'{"custom_id": "\xff"}\n'
    batch = client.batches.create(input_file_id=upload(client, content), endpoint=CHAT, completion_window="24h")

    assert problems(wait(client, batch)) == [("invalid_json_line", None, 2)]


def request(endpoint: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": "bad", "method": "POST", "url": endpoint, "body": body}


@pytest.mark.parametrize(
    ("endpoint", "body", "name"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x"}]}, "Chat Completions"),
        (RESPONSES, {"input": "x"}, "Responses"),
        (COMPLETIONS, {"prompt": "x"}, "Completions"),
    ],
)
def test_streaming_fails_the_batch_if_the_endpoint_supports_streaming(
    client: OpenAI, endpoint: str, body: dict[str, Any], name: str
) -> None:
    batch = run(client, [request(endpoint, model="m", stream=True, **body)], endpoint)

    assert problems(batch) == [("streaming_unsupported", "body.stream", 1)]
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].message == f"{name}: Streaming is not supported in the Batch API."


def test_streaming_fails_only_the_request_for_embeddings(client: OpenAI) -> None:
    batch = run(client, [request(EMBEDDINGS, model="text-embedding-3-small", input="x", stream=True)], EMBEDDINGS)

    assert batch.status == "completed"
    assert failures(client, batch)["bad"]["response"]["body"]["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("endpoint", "param"),
    [(CHAT, "messages"), (RESPONSES, "input"), (EMBEDDINGS, "input"), (COMPLETIONS, "prompt"), (MODERATIONS, "input")],
)
def test_a_request_without_input_names_the_missing_parameter(client: OpenAI, endpoint: str, param: str) -> None:
    batch = run(client, [request(endpoint, model="m")], endpoint)

    assert problems(batch) == [("invalid_request", f"body.{param}", 1)]


def test_all_problems_of_a_file_are_reported_together_with_their_lines(client: OpenAI) -> None:
    batch = run(
        client,
        [chat("a", "x"), "{oops", chat("b", "x"), line_without("url"), chat("a", "x"), line_with_body(stream=True)],
    )

    assert problems(batch) == [
        ("invalid_json_line", None, 2),
        ("missing_required_parameter", "url", 4),
        ("duplicate_custom_id", "custom_id", 5),
        ("streaming_unsupported", "body.stream", 6),
    ]


def test_blank_lines_are_skipped_but_counted(client: OpenAI) -> None:
    content = b"\n" + jsonl([chat("a", "x")]) + b"\r\n" + b"{bad\r\n"
    batch = client.batches.create(input_file_id=upload(client, content), endpoint=CHAT, completion_window="24h")

    assert problems(wait(client, batch)) == [("invalid_json_line", None, 4)]


def test_a_byte_order_mark_makes_line_1_unreadable(client: OpenAI) -> None:
    batch = client.batches.create(
        input_file_id=upload(client, b"\xef\xbb\xbf" + jsonl(chats(2))),
        endpoint=CHAT,
        completion_window="24h",
    )

    assert problems(wait(client, batch)) == [("invalid_json_line", None, 1)]


def test_a_file_of_blank_lines_is_empty(client: OpenAI) -> None:
    batch = client.batches.create(input_file_id=upload(client, b"\n\n"), endpoint=CHAT, completion_window="24h")

    assert problems(wait(client, batch)) == [("empty_file", None, None)]


def test_an_unknown_input_file_fails_the_batch_instead_of_the_create_call(client: OpenAI) -> None:
    batch = client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    assert batch.status == "validating"

    final = wait(client, batch)
    assert problems(final) == [("invalid_request", "file_id", None)]
    assert final.errors is not None
    assert final.errors.data is not None
    assert (final.errors.data[0].message or "").startswith("Cannot find file file-none, or organization")


def test_a_model_outside_the_configured_list_is_not_found(serve: Serve) -> None:
    _, client = serve(models=("gpt-5",))
    batch = run(client, chats(2))

    assert problems(batch) == [("model_not_found", "body.model", 1), ("model_not_found", "body.model", 2)]
    assert {model.id for model in client.models.list()} == {"gpt-5"}


def test_a_batch_that_exceeds_the_limit_on_enqueued_tokens_fails_until_others_have_ended(
    serve: Serve,
) -> None:
    _, client = serve(enqueued_token_limit=100, in_progress=30)
    first = wait(client, submit(client, chats(8)), lambda current: current.status == "in_progress")

    rejected = run(client, chats(8))
    assert rejected.status == "failed"
    assert problems(rejected) == [("token_limit_exceeded", None, None)]
    assert rejected.errors is not None
    assert rejected.errors.data is not None
    assert "gpt-5-mini" in (rejected.errors.data[0].message or "")
    assert "Limit: 100 enqueued tokens" in (rejected.errors.data[0].message or "")
    nano_line = chat("a", "x" * 300)
    nano_line["body"]["model"] = "gpt-5-nano"
    nano = wait(client, submit(client, [nano_line]), lambda current: current.status != "validating")
    assert nano.status == "in_progress", "each model has its own limit"

    client.batches.cancel(first.id)
    wait(client, first)
    retried = wait(client, submit(client, chats(8)), lambda current: current.status != "validating")
    assert retried.status == "in_progress"


def test_50_000_requests_are_accepted_and_50_001_are_rejected(tmp_path: Path) -> None:
    lines = [json.dumps(chat(str(number), "x")) + "\n" for number in range(50_001)]
    path = tmp_path / "input.jsonl"

    path.write_text("".join(lines[:-1]))
    assert validate(path, CHAT, frozenset()).errors == []
    path.write_text("".join(lines))
    (error,) = validate(path, CHAT, frozenset()).errors
    assert error.code == "too_many_tasks"
    assert "50,000" in error.message


def test_embedding_inputs_are_counted_over_all_lines(tmp_path: Path) -> None:
    def line(custom_id: str, inputs: int) -> dict[str, Any]:
        body = {"model": "text-embedding-3-small", "input": ["x"] * inputs}
        return {"custom_id": custom_id, "method": "POST", "url": EMBEDDINGS, "body": body}

    path = tmp_path / "input.jsonl"
    path.write_bytes(jsonl([line("a", 25_000), line("b", 25_000)]))
    assert validate(path, EMBEDDINGS, frozenset()).errors == []
    path.write_bytes(jsonl([line("a", 25_000), line("b", 25_001)]))
    (error,) = validate(path, EMBEDDINGS, frozenset()).errors
    assert "50,001" in error.message
    assert "50,000" in error.message


@pytest.mark.parametrize("garbage", ["", "5", '"text"', "[1]", "{}", '[{"role": 1}]', "[[]]", "null"])
def test_bodies_of_any_type_can_be_checked(tmp_path: Path, garbage: str) -> None:
    path = tmp_path / "input.jsonl"
    value = garbage or "0"
    body = f'{{"model": "m", "messages": {value}, "input": {value}, "prompt": {value}}}'
    for endpoint in ENDPOINTS:
        path.write_text(
            f'{{"custom_id": "a", "method": "POST", "url": "{endpoint}", "body": {body}}}\n', encoding="utf-8"
        )
        assert validate(path, endpoint, frozenset()).total == 1
