"""A bad input file fails its batch later, with OpenAI's codes and lines counted from 1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

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


def without(name: str) -> dict[str, Any]:
    line = chat("bad", "x")
    del line[name]
    return line


def with_body(**body: Any) -> dict[str, Any]:
    line = chat("bad", "x")
    line["body"].update(body)
    return line


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        ("{not json", "invalid_json_line", None),
        ('["a", "list"]', "invalid_json_line", None),
        (without("custom_id"), "missing_required_parameter", "custom_id"),
        (without("method"), "missing_required_parameter", "method"),
        (without("url"), "missing_required_parameter", "url"),
        (without("body"), "missing_required_parameter", "body"),
        ({**chat("bad", "x"), "url": RESPONSES}, "invalid_url", "url"),
        ({**chat("bad", "x"), "method": "GET"}, "invalid_method", "method"),
        ({**chat("bad", "x"), "custom_id": 7}, "invalid_request", "custom_id"),
        ({**chat("bad", "x"), "body": "text"}, "invalid_request", "body"),
        (with_body(stream=True), "streaming_unsupported", "body.stream"),
        (with_body(model=None), "invalid_request", "body.model"),
        (with_body(messages=None), "invalid_request", "body.messages"),
        (with_body(model="gpt-5-nano"), "model_mismatch", "body.model"),
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
        (without("custom_id"), "Missing required parameter: 'custom_id'."),
        (without("method"), "Missing required parameter: 'method'."),
        (without("url"), "Missing required parameter: 'url'."),
        (without("body"), "Missing required parameter: 'body'."),
        ({**chat("x", "x"), "url": RESPONSES}, "The URL provided for this request does not match the batch endpoint."),
        ({**chat("x", "x"), "method": "GET"}, "Invalid value: 'GET'. Supported values are: 'POST'"),
        (with_body(stream=True), "Chat Completions: Streaming is not supported in the Batch API."),
        (with_body(model=None), "Model parameter is required."),
        (with_body(messages=None), "Messages parameter is required."),
    ],
)
def test_problems_are_worded_as_openais_are_on_record(tmp_path: Path, line: dict[str, Any] | str, message: str) -> None:
    (tmp_path / "input.jsonl").write_bytes(jsonl([line]))

    (error,) = validate(tmp_path / "input.jsonl", CHAT, frozenset()).errors
    assert error.message == message


def test_a_model_that_is_not_known_is_worded_as_openais_is_on_record(tmp_path: Path) -> None:
    (tmp_path / "input.jsonl").write_bytes(jsonl([chat("a", "x")]))

    (error,) = validate(tmp_path / "input.jsonl", CHAT, frozenset({"gpt-5"})).errors
    assert error.message == "The provided model 'gpt-5-mini' is not supported by the Batch API."


def test_a_line_that_lacks_several_parameters_is_one_problem(client: OpenAI) -> None:
    batch = run(client, [chat("a", "x"), '{"body": {}}', "{}"])

    assert problems(batch) == [
        ("missing_required_parameter", "custom_id", 2),
        ("missing_required_parameter", "custom_id", 3),
    ]


def test_a_line_with_several_mistakes_is_as_many_problems(client: OpenAI) -> None:
    batch = run(client, [chat("a", "x"), {**with_body(stream=True, model=None), "url": [], "custom_id": "a"}])

    assert problems(batch) == [
        ("duplicate_custom_id", "custom_id", 2),
        ("invalid_url", "url", 2),
        ("invalid_request", "body.model", 2),
        ("streaming_unsupported", "body.stream", 2),
    ]


def test_a_line_that_is_no_utf_8_is_unreadable(client: OpenAI) -> None:
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
def test_streaming_fails_the_batch_where_the_endpoint_could_stream(
    client: OpenAI, endpoint: str, body: dict[str, Any], name: str
) -> None:
    batch = run(client, [request(endpoint, model="m", stream=True, **body)], endpoint)

    assert problems(batch) == [("streaming_unsupported", "body.stream", 1)]
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert batch.errors.data[0].message == f"{name}: Streaming is not supported in the Batch API."


def test_streaming_embeddings_fails_the_request_alone(client: OpenAI) -> None:
    batch = run(client, [request(EMBEDDINGS, model="text-embedding-3-small", input="x", stream=True)], EMBEDDINGS)

    assert batch.status == "completed"
    assert failures(client, batch)["bad"]["response"]["body"]["error"]["param"] == "stream"


@pytest.mark.parametrize(
    ("endpoint", "param"),
    [(CHAT, "messages"), (RESPONSES, "input"), (EMBEDDINGS, "input"), (COMPLETIONS, "prompt"), (MODERATIONS, "input")],
)
def test_every_endpoint_names_what_it_cannot_do_without(client: OpenAI, endpoint: str, param: str) -> None:
    batch = run(client, [request(endpoint, model="m")], endpoint)

    assert problems(batch) == [("invalid_request", f"body.{param}", 1)]


def test_all_problems_of_a_file_are_reported_together_with_their_lines(client: OpenAI) -> None:
    batch = run(
        client,
        [chat("a", "x"), "{oops", chat("b", "x"), without("url"), chat("a", "x"), with_body(stream=True)],
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


def test_an_unknown_input_file_is_reported_late(client: OpenAI) -> None:
    batch = client.batches.create(input_file_id="file-none", endpoint=CHAT, completion_window="24h")
    assert batch.status == "validating"

    ended = wait(client, batch)
    assert problems(ended) == [("invalid_request", "file_id", None)]
    assert ended.errors is not None
    assert ended.errors.data is not None
    assert (ended.errors.data[0].message or "").startswith("Cannot find file file-none, or organization")


def test_a_model_outside_the_configured_list_is_not_found(serve: Serve) -> None:
    _, client = serve(models=("gpt-5",))
    batch = run(client, chats(2))

    assert problems(batch) == [("model_not_found", "body.model", 1), ("model_not_found", "body.model", 2)]
    assert {model.id for model in client.models.list()} == {"gpt-5"}


def test_more_enqueued_tokens_than_the_limit_of_a_model_fail_the_batch_until_others_have_ended(
    serve: Serve,
) -> None:
    _, client = serve(enqueued_token_limit=100, in_progress=30)
    first = wait(client, submit(client, chats(8)), lambda seen: seen.status == "in_progress")

    refused = run(client, chats(8))
    assert refused.status == "failed"
    assert problems(refused) == [("token_limit_exceeded", None, None)]
    assert refused.errors is not None
    assert refused.errors.data is not None
    assert "gpt-5-mini" in (refused.errors.data[0].message or "")
    assert "Limit: 100 enqueued tokens" in (refused.errors.data[0].message or "")
    other = chat("a", "x" * 300)
    other["body"]["model"] = "gpt-5-nano"
    nano = wait(client, submit(client, [other]), lambda seen: seen.status != "validating")
    assert nano.status == "in_progress", "another model has a queue of its own"

    client.batches.cancel(first.id)
    wait(client, first)
    again = wait(client, submit(client, chats(8)), lambda seen: seen.status != "validating")
    assert again.status == "in_progress"


def test_50_000_requests_are_accepted_and_one_more_is_not(tmp_path: Path) -> None:
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
def test_bodies_of_any_shape_are_checked_without_breaking(tmp_path: Path, garbage: str) -> None:
    path = tmp_path / "input.jsonl"
    given = garbage or "0"
    body = f'{{"model": "m", "messages": {given}, "input": {given}, "prompt": {given}}}'
    for endpoint in ENDPOINTS:
        path.write_text(
            f'{{"custom_id": "a", "method": "POST", "url": "{endpoint}", "body": {body}}}\n', encoding="utf-8"
        )
        assert validate(path, endpoint, frozenset()).total == 1
