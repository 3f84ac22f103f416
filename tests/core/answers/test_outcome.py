"""Every shape of a result line, and the outcome it has."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.outcome import MISSING, PENDING, Answer, Outcome, read_line
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Usage
from airflow_provider_batch.core.schema.author_schema import strict_schema
from airflow_provider_batch.core.schema.judge import SchemaJudge
from tests.core.building import CHAT, EMBEDDINGS, MODERATIONS, RESPONSES

COMPLETIONS = "/v1/completions"
LABEL = strict_schema(
    {"type": "object", "properties": {"label": {"type": "string", "enum": ["bug", "question"]}}, "required": ["label"]}
)
JUDGE = SchemaJudge(LABEL)


def read(line: dict[str, Any], endpoint: str = CHAT, judge: SchemaJudge | None = None) -> Answer:
    result = read_line(json.dumps({"custom_id": "row-1", **line}).encode(), endpoint, judge)
    assert result is not None
    assert result[0] == "row-1"
    return result[1]


def ok(body: Any, endpoint: str = CHAT, judge: SchemaJudge | None = None) -> Answer:
    return read(
        {"id": "batch_req_1", "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None},
        endpoint,
        judge,
    )


def http(status: Any, body: Any, error: Any = None) -> Answer:
    return read({"response": {"status_code": status, "request_id": "r", "body": body}, "error": error})


def chat(content: Any = None, *, finish_reason: Any = "stop", **message: Any) -> dict[str, Any]:
    return {
        "model": "gpt-5-mini-2025-08-07",
        "choices": [{"index": 0, "message": {"content": content, **message}, "finish_reason": finish_reason}],
    }


def message(*texts: str) -> dict[str, Any]:
    return {"type": "message", "content": [{"type": "output_text", "text": text} for text in texts]}


def response(*output: Any, status: str = "completed", **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-5-mini", "status": status, "error": None, "output": list(output), **fields}


REASONING = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "let me think"}]}


# The order of outcomes


def test_outcomes_are_ranked_in_the_order_of_the_documentation() -> None:
    best_first = [
        "succeeded",
        "incomplete",
        "refused",
        "invalid_output",
        "failed",
        "expired",
        "cancelled",
        "missing",
        "invalid_input",
        "withheld",
        "pending",
    ]
    assert sorted(Outcome, key=lambda outcome: outcome.rank, reverse=True) == best_first
    assert len({outcome.rank for outcome in Outcome}) == len(Outcome)
    assert min(outcome.rank for outcome in Outcome) > 0


def test_missing_and_pending_answers_have_their_outcome() -> None:
    assert (MISSING.outcome, MISSING.error_code) == (Outcome.MISSING, "no_result_line")
    assert (PENDING.outcome, PENDING.value) == (Outcome.PENDING, None)


# Unreadable lines


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"not json",
        b"null",
        b"[]",
        b"{}",
        b'"row-1"',
        b'{"custom_id": null}',
        b'{"custom_id": 7.5, "response": null}',
        b'{"custom_id": true, "response": null}',
        b'{"custom_id": "row-1"',
        b'{"custom_id": "row-1", "response": {"status_code": 200, "body": {"choices": [{"mess',
        b"[" * 100_000,
    ],
    ids=range(13),
)
def test_an_unreadable_line_gives_none(line: bytes) -> None:
    assert read_line(line, CHAT, None) is None


def test_the_custom_id_is_returned_unchanged() -> None:
    for custom_id in ("", " a ", "ä/ö", "\u2028", 'quote"', "x" * 5000):
        line = json.dumps({"custom_id": custom_id, "response": None, "error": None}).encode()
        result = read_line(line, CHAT, None)
        assert result
        assert result[0] == custom_id


# Requests that never ran


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("batch_expired", Outcome.EXPIRED),
        ("request_timeout", Outcome.EXPIRED),
        ("batch_cancelled", Outcome.CANCELLED),
    ],
)
def test_a_line_without_a_response_has_the_reason_why_the_request_never_ran(code: str, outcome: Outcome) -> None:
    answer = read({"response": None, "error": {"code": code, "message": "This request could not be executed."}})
    assert (answer.outcome, answer.error_code) == (outcome, code)
    assert answer.error_message == "This request could not be executed."
    assert answer.value is None


@pytest.mark.parametrize(
    ("line", "code", "message_part"),
    [
        ({"response": None, "error": {"code": "server_error", "message": "try again"}}, "server_error", "try again"),
        ({"response": None, "error": "the worker died"}, "no_response", "the worker died"),
        ({"response": None, "error": None}, "no_response", "neither a response nor an error"),
        ({"error": {"code": "server_error", "message": "no"}}, "server_error", "no"),
        ({"response": {}, "error": None}, "no_response", "neither a response nor an error"),
        ({"response": "oops"}, "no_response", "neither a response nor an error"),
        ({}, "no_response", "neither a response nor an error"),
    ],
)
def test_a_line_without_a_response_and_with_another_error_failed_and_may_be_retried(
    line: dict[str, Any], code: str, message_part: str
) -> None:
    answer = read(line)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, code, True)
    assert message_part in (answer.error_message or "")


def test_an_empty_response_does_not_hide_that_the_request_expired() -> None:
    assert read({"response": {}, "error": {"code": "batch_expired", "message": ""}}).outcome is Outcome.EXPIRED


# HTTP failures


@pytest.mark.parametrize(
    ("status", "transient"),
    [
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (413, False),
        (422, False),
        (408, True),
        (409, True),
        (429, True),
        (500, True),
        (502, True),
        (503, True),
        (504, True),
        (529, True),
        (0, True),
    ],
)
def test_an_http_error_fails_the_row_and_only_a_transient_one_may_be_retried(status: int, transient: bool) -> None:
    error = {"message": "Something.", "type": "invalid_request_error", "param": None, "code": "some_code"}
    answer = http(status, {"error": error})
    assert (answer.outcome, answer.transient) == (Outcome.FAILED, transient)
    assert (answer.error_code, answer.error_message) == ("some_code", "Something.")


def test_an_error_line_with_a_null_error_never_succeeds() -> None:
    answer = http(500, chat("a whole answer"))
    assert (answer.outcome, answer.value, answer.error_code) == (Outcome.FAILED, None, "http_500")


def test_a_numeric_custom_id_is_read_as_its_digits() -> None:
    result = read_line(b'{"custom_id": 42, "response": null, "error": null}', CHAT, None)
    assert result
    assert result[0] == "42"


@pytest.mark.parametrize("status", [None, "200", 200.0, 0, True, 201, 204, -1, 200.5])
def test_a_complete_answer_counts_even_if_its_status_is_odd(status: str | float | None) -> None:
    assert http(status, chat("fine")).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("status", [None, 0, -1, 200.5])
@pytest.mark.parametrize("body", [None, {}, {"choices": []}, {"error": None}])
def test_without_a_status_only_a_complete_answer_shows_that_the_request_ran(
    status: float | None, body: dict[str, Any] | None
) -> None:
    answer = http(status, body)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "http_0", True)


@pytest.mark.parametrize("status", [300, 302, 400, 404, 429, 500, 599])
def test_an_answer_with_an_error_status_never_succeeds(status: int) -> None:
    assert http(status, chat("fine")).outcome is Outcome.FAILED


def as_text(value: Any) -> str:
    return json.dumps(value)


@pytest.mark.parametrize(
    "response",
    [
        {"status_code": 200, "body": as_text(chat("fine"))},
        {"status_code": 200, "body": as_text(as_text(chat("fine")))},
        {"status_code": 200, "body": "\n " + as_text(chat("fine"))},
        {"status_code": 200, "body": [chat("fine")]},
        {"status_code": 200, **chat("fine")},
        {"body": chat("fine")},
        chat("fine"),
        as_text({"status_code": 200, "body": chat("fine")}),
        as_text({"status_code": 200, "body": as_text(chat("fine"))}),
        as_text(chat("fine")),
    ],
    ids=range(10),
)
def test_an_answer_is_read_in_whatever_form_it_is_written(response: Any) -> None:
    """Llama Stack and OGX write the body as JSON text, Nebius the completion as the response."""
    answer = read({"response": response, "error": None})
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, "fine")


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (CHAT, {"choices": [{"message": "fine", "finish_reason": "stop"}]}),
        (CHAT, {"choices": [{"text": "fine", "finish_reason": "stop"}]}),
        (CHAT, {"choices": [{"message": {"content": [{"type": "text", "text": "fine"}]}}]}),
        (CHAT, {"output": [message("fine")], "status": "completed"}),
        (RESPONSES, {"output": [{"type": "message", "content": "fine"}], "status": "completed"}),
        (RESPONSES, {"output": [{"role": "assistant", "content": [{"text": "fine"}]}], "status": "completed"}),
        (RESPONSES, {"output": [], "output_text": "fine", "status": "completed"}),
        (RESPONSES, {"output": "fine", "status": "completed"}),
        (RESPONSES, chat("fine")),
    ],
    ids=range(9),
)
def test_a_text_is_found_in_the_shapes_of_other_servers(endpoint: str, body: dict[str, Any]) -> None:
    answer = ok(body, endpoint)
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, "fine")


def test_an_error_written_as_text_in_the_body_is_read_too() -> None:
    answer = http(429, as_text({"error": {"message": "Slow down.", "code": "rate_limit_exceeded"}}))
    assert (answer.error_code, answer.error_message, answer.transient) == ("rate_limit_exceeded", "Slow down.", True)


def test_a_status_of_zero_may_be_retried_even_without_an_error() -> None:
    answer = http(0, None)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "http_0", True)


@pytest.mark.parametrize(
    ("error", "code", "message_part"),
    [
        ("Input validation failed", "http_400", "Input validation failed"),
        ({"object": "error", "message": "bad", "type": "BadRequestError", "code": 400}, "400", "bad"),
        ({"message": "bad", "type": "BadRequestError"}, "BadRequestError", "bad"),
        ({"error": {"message": "bad", "type": "BadRequestError", "code": 400}}, "400", "bad"),
        ({"error": {}}, "http_400", "HTTP status 400"),
        (["bad"], "http_400", "bad"),
    ],
)
def test_an_error_of_vllm_with_a_null_body_may_be_text_or_an_object(
    error: str | dict[str, Any] | list[str], code: str, message_part: str
) -> None:
    answer = http(400, None, error)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, code, False)
    assert message_part in (answer.error_message or "")


def test_an_error_that_is_text_in_the_body_is_the_message() -> None:
    answer = http(503, {"error": "overloaded"})
    assert (answer.error_code, answer.error_message) == ("http_503", "overloaded")


def test_a_complete_answer_counts_even_if_its_line_also_has_an_error() -> None:
    answer = http(200, chat("fine"), {"code": "server_error", "message": "lost on the way"})
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, "fine")


@pytest.mark.parametrize("body", [None, {}, chat(None)])
def test_an_error_with_status_200_fails_a_row_without_a_complete_answer(body: dict[str, Any] | None) -> None:
    answer = http(200, body, {"code": "server_error", "message": "lost on the way"})
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "server_error", True)


@pytest.mark.parametrize("error", [None, {}, "", {"code": None, "message": None}, {"code": "", "message": ""}])
def test_an_empty_error_does_not_fail_a_complete_answer(error: dict[str, str | None] | str | None) -> None:
    assert http(200, chat("fine"), error).outcome is Outcome.SUCCEEDED


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS, MODERATIONS])
def test_a_200_whose_body_is_an_error_failed_and_may_be_retried(endpoint: str) -> None:
    answer = ok({"error": {"message": "upstream is gone", "code": 502}}, endpoint)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "502", True)
    assert answer.error_message == "upstream is gone"


@pytest.mark.parametrize(
    ("code", "transient"),
    [
        ("server_error", True),
        ("rate_limit_exceeded", True),
        ("vector_store_timeout", True),
        (503, True),
        (400, False),
        ("invalid_prompt", False),
        ("invalid_image_url", False),
        ("image_too_large", False),
        ("failed_to_download_image", False),
        ("unsupported_image_media_type", False),
    ],
)
def test_an_error_in_the_body_of_a_200_is_retried_only_if_a_retry_can_change_it(
    code: str | int, transient: bool
) -> None:
    answer = ok({"error": {"message": "No.", "code": code}}, RESPONSES)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, str(code), transient)


@pytest.mark.parametrize("body", ["text", [], 7, [1, 2], "{broken"])
def test_a_200_whose_body_is_not_an_object_failed_and_is_not_retried(body: str | int | list[Any]) -> None:
    answer = http(200, body)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "unreadable_body", False)
    assert answer.body == body


@pytest.mark.parametrize("body", [None, ""])
def test_a_200_without_a_body_is_incomplete_and_is_not_retried(body: str | None) -> None:
    answer = http(200, body)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.INCOMPLETE, "empty", False)


# Chat completions


def test_a_complete_chat_answer_succeeds_with_its_text_reason_and_model() -> None:
    answer = ok(chat("It is a bug."))
    assert (answer.outcome, answer.value, answer.text) == (Outcome.SUCCEEDED, "It is a bug.", "It is a bug.")
    assert (answer.finish_reason, answer.model) == ("stop", "gpt-5-mini-2025-08-07")
    assert (answer.error_code, answer.error_message, answer.transient) == (None, None, False)


def test_the_response_may_be_the_completion_itself_as_with_nebius() -> None:
    answer = read({"response": chat("fine")})
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, "fine")


def test_a_line_without_error_and_request_id_succeeds_as_with_doubleword() -> None:
    assert read({"response": {"status_code": 200, "body": chat("fine")}}).outcome is Outcome.SUCCEEDED


def test_an_azure_endpoint_without_v1_is_read_like_the_one_of_openai() -> None:
    assert ok(chat("fine"), "/chat/completions").value == "fine"
    assert ok(response(message("fine")), "/responses").value == "fine"


@pytest.mark.parametrize(
    ("body", "outcome", "code"),
    [
        (chat("It is a", finish_reason="length"), Outcome.INCOMPLETE, "length"),
        (chat("", finish_reason="length"), Outcome.INCOMPLETE, "length"),
        (chat(None, finish_reason="content_filter"), Outcome.REFUSED, "content_filter"),
        (chat("half", finish_reason="content_filter"), Outcome.REFUSED, "content_filter"),
        (chat(None, refusal="I cannot help with that."), Outcome.REFUSED, "refusal"),
        (chat(""), Outcome.INCOMPLETE, "empty"),
        (chat(None), Outcome.INCOMPLETE, "empty"),
        ({"choices": []}, Outcome.INCOMPLETE, "empty"),
        ({"choices": None}, Outcome.INCOMPLETE, "empty"),
        ({"choices": [None]}, Outcome.INCOMPLETE, "empty"),
        ({"choices": [{"message": None}]}, Outcome.INCOMPLETE, "empty"),
        ({}, Outcome.INCOMPLETE, "empty"),
    ],
)
def test_an_incomplete_chat_answer_does_not_succeed(body: dict[str, Any], outcome: Outcome, code: str) -> None:
    answer = ok(body)
    assert (answer.outcome, answer.error_code, answer.transient) == (outcome, code, False)
    assert answer.error_message


def test_a_cut_off_answer_keeps_its_text() -> None:
    assert ok(chat("It is a", finish_reason="length")).text == "It is a"


def test_the_error_message_of_a_refused_row_is_the_refusal() -> None:
    assert ok(chat(None, refusal="I cannot help with that.")).error_message == "I cannot help with that."


CALL = {"id": "call_1", "type": "function", "function": {"name": "label", "arguments": '{"label":"bug"}'}}


@pytest.mark.parametrize("content", [None, "", "Let me look that up."])
def test_without_a_schema_tool_calls_are_the_answer(content: str | None) -> None:
    answer = ok(chat(content, finish_reason="tool_calls", tool_calls=[CALL]))
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, [CALL])
    assert json.loads(answer.text or "") == [CALL]


LEGACY_CALL = {"name": "label", "arguments": '{"label":"bug"}'}
PARSED_CALL = {"type": "function", "function": {"name": "label", "arguments": {"label": "bug"}}}


@pytest.mark.parametrize("content", [None, "", "Let me label that."])
@pytest.mark.parametrize(
    "message", [{"tool_calls": [CALL]}, {"tool_calls": [PARSED_CALL]}, {"function_call": LEGACY_CALL}]
)
def test_with_a_schema_the_arguments_of_the_only_tool_call_are_the_answer(
    content: str | None, message: dict[str, Any]
) -> None:
    answer = ok(chat(content, finish_reason="tool_calls", **message), judge=JUDGE)
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, {"label": "bug"})
    assert json.loads(answer.text or "") == {"label": "bug"}


def test_the_arguments_of_a_function_call_of_a_response_are_the_answer() -> None:
    call = {"type": "function_call", "name": "label", "arguments": '{"label":"bug"}', "call_id": "c"}
    assert ok(response(REASONING, call), RESPONSES, JUDGE).value == {"label": "bug"}


@pytest.mark.parametrize(
    ("calls", "complaint"),
    [
        ([{"function": {"name": "search", "arguments": '{"query":"x"}'}}], "The model called a tool and did not"),
        ([CALL, CALL], "The model called 2 tools and did not"),
        ([{"type": "function"}], "The model called a tool and did not"),
    ],
)
def test_with_a_schema_other_tool_calls_are_invalid_and_land_as_they_are(
    calls: list[dict[str, Any]], complaint: str
) -> None:
    answer = ok(chat(None, finish_reason="tool_calls", tool_calls=calls), judge=JUDGE)
    assert (answer.outcome, answer.value) == (Outcome.INVALID_OUTPUT, None)
    assert complaint in (answer.error_message or "")
    assert json.loads(answer.text or "") == calls


def test_a_valid_text_counts_before_a_tool_call() -> None:
    answer = ok(chat('{"label":"question"}', finish_reason="stop", tool_calls=[CALL]), judge=JUDGE)
    assert answer.value == {"label": "question"}


@pytest.mark.parametrize(
    "message",
    [
        {"parsed": {"label": "bug"}},
        {"reasoning_content": '{"label": "bug"}'},
        {"reasoning": '{"label": "bug"}'},
        {"parsed": {"label": "bug"}, "content": "Done."},
    ],
)
def test_an_answer_in_another_field_counts_if_the_schema_accepts_all_of_it(message: dict[str, Any]) -> None:
    answer = ok(chat(**message), judge=JUDGE)
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, {"label": "bug"})
    assert ok(chat(**message)).value == message.get("content")


def test_json_within_reasoning_is_not_an_answer() -> None:
    message = {"reasoning_content": 'Perhaps {"label": "bug"}?'}
    assert ok(chat(None, **message), judge=JUDGE).outcome is Outcome.INCOMPLETE
    assert ok(chat("Done.", **message), judge=JUDGE).outcome is Outcome.INVALID_OUTPUT


def test_a_part_with_reasoning_is_not_part_of_the_text() -> None:
    parts = [{"type": "reasoning", "text": '{"label": "question"}'}, {"type": "text", "text": '{"label": "bug"}'}]
    assert ok(chat(parts), judge=JUDGE).value == {"label": "bug"}


def test_json_inside_a_text_is_found_and_the_text_is_kept() -> None:
    text = '<think>bug?</think>\n```json\n{"label": "bug"}\n```'
    answer = ok(chat(text), judge=JUDGE)
    assert (answer.outcome, answer.value, answer.text) == (Outcome.SUCCEEDED, {"label": "bug"}, text)


def test_a_legacy_function_call_is_an_answer() -> None:
    call = {"name": "label", "arguments": "{}"}
    assert ok(chat(None, finish_reason="function_call", function_call=call)).value == call


def test_tool_calls_that_were_cut_off_are_incomplete() -> None:
    assert ok(chat(None, finish_reason="length", tool_calls=[CALL])).outcome is Outcome.INCOMPLETE


def test_an_empty_list_of_tool_calls_is_not_an_answer() -> None:
    assert ok(chat(None, tool_calls=[])).outcome is Outcome.INCOMPLETE


def test_content_in_parts_is_joined() -> None:
    parts = [
        {"type": "text", "text": "It is "},
        {"type": "text", "text": None},
        None,
        {"type": "text", "text": "a bug."},
    ]
    assert ok(chat(parts)).value == "It is a bug."


def test_content_that_the_server_already_parsed_is_checked_as_json() -> None:
    answer = ok(chat({"label": "bug"}), judge=JUDGE)
    assert (answer.outcome, answer.value, answer.text) == (Outcome.SUCCEEDED, {"label": "bug"}, '{"label":"bug"}')


def test_the_value_of_a_completion_is_its_text() -> None:
    body: dict[str, Any] = {"model": "gpt-3.5-turbo-instruct", "choices": [{"text": "a bug", "finish_reason": "stop"}]}
    assert ok(body, COMPLETIONS).value == "a bug"
    body["choices"][0]["finish_reason"] = "length"
    assert ok(body, COMPLETIONS).outcome is Outcome.INCOMPLETE


# Structured output


def test_output_that_fits_the_schema_is_parsed() -> None:
    answer = ok(chat('{"label":"bug"}'), judge=JUDGE)
    assert (answer.outcome, answer.value, answer.text) == (Outcome.SUCCEEDED, {"label": "bug"}, '{"label":"bug"}')


@pytest.mark.parametrize("content", ['{"label":"spam"}', '{"label":', "bug", "[]", '{"label":"bug","more":1}', "null"])
def test_output_that_does_not_fit_the_schema_is_invalid_and_keeps_its_text(content: str) -> None:
    answer = ok(chat(content), judge=JUDGE)
    assert (answer.outcome, answer.error_code, answer.value) == (Outcome.INVALID_OUTPUT, "schema", None)
    assert answer.text == content
    assert answer.error_message


def test_output_that_was_cut_off_is_incomplete_rather_than_invalid() -> None:
    assert ok(chat('{"label":', finish_reason="length"), judge=JUDGE).outcome is Outcome.INCOMPLETE


def test_a_refusal_is_not_checked_against_the_schema() -> None:
    assert ok(chat("I cannot.", refusal="I cannot."), judge=JUDGE).outcome is Outcome.REFUSED


# Responses


def test_reasoning_before_the_message_is_not_part_of_the_answer() -> None:
    answer = ok(response(REASONING, message("It is a bug.")), RESPONSES)
    assert (answer.outcome, answer.value, answer.finish_reason) == (Outcome.SUCCEEDED, "It is a bug.", "completed")


def test_the_text_that_fits_the_schema_counts() -> None:
    """557 of 233,124 recorded lines had several texts; in all of them the first was cut-off JSON."""
    for output in (
        [REASONING, message('{"label":"qu'), REASONING, message('{"label":"question"}')],
        [message('{"label":"qu', '{"label":"question"}')],
        [message('{"label":"question"}'), message("")],
        [message('{"label":"question"}'), message("That is all.")],
    ):
        answer = ok(response(*output), RESPONSES, JUDGE)
        assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, {"label": "question"})
        assert answer.text == '{"label":"question"}'


def test_the_last_of_several_complete_texts_counts() -> None:
    answer = ok(response(message('{"label":"bug"}'), message('{"label":"question"}')), RESPONSES, JUDGE)
    assert answer.value == {"label": "question"}


def test_several_texts_that_do_not_fit_the_schema_are_invalid() -> None:
    answer = ok(response(message('{"label":"qu'), message('{"label":"spam"}')), RESPONSES, JUDGE)
    assert (answer.outcome, answer.text) == (Outcome.INVALID_OUTPUT, '{"label":"spam"}')


def test_without_a_schema_the_parts_of_a_message_are_joined() -> None:
    assert ok(response(message("It is ", "a bug.")), RESPONSES).value == "It is a bug."


@pytest.mark.parametrize(
    ("body", "outcome", "code"),
    [
        (
            response(message("It is"), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            Outcome.INCOMPLETE,
            "max_output_tokens",
        ),
        (
            response(message("It"), status="incomplete", incomplete_details={"reason": "content_filter"}),
            Outcome.REFUSED,
            "content_filter",
        ),
        (response(message("It is"), status="incomplete"), Outcome.INCOMPLETE, "incomplete"),
        (response(message("It is"), status="cancelled"), Outcome.INCOMPLETE, "cancelled"),
        (response(message("It is"), status="in_progress"), Outcome.INCOMPLETE, "in_progress"),
        (
            response({"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}),
            Outcome.REFUSED,
            "refusal",
        ),
        (response(REASONING), Outcome.INCOMPLETE, "empty"),
        (response(message("")), Outcome.INCOMPLETE, "empty"),
        (response(), Outcome.INCOMPLETE, "empty"),
        ({"status": "completed", "output": None}, Outcome.INCOMPLETE, "empty"),
        ({"status": "completed", "output": 7}, Outcome.INCOMPLETE, "empty"),
        (
            {"status": "completed", "output": [None, "x", {"type": "message", "content": 7}]},
            Outcome.INCOMPLETE,
            "empty",
        ),
    ],
)
def test_an_incomplete_response_does_not_succeed(body: dict[str, Any], outcome: Outcome, code: str) -> None:
    answer = ok(body, RESPONSES)
    assert (answer.outcome, answer.error_code, answer.transient) == (outcome, code, False)
    assert answer.error_message


def test_a_failed_response_may_be_retried() -> None:
    body = response(status="failed") | {"error": {"code": "server_error", "message": "The model broke."}}
    answer = ok(body, RESPONSES)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "server_error", True)
    assert answer.error_message == "The model broke."
    assert ok(response(message("half"), status="failed"), RESPONSES).outcome is Outcome.FAILED


def test_a_function_call_of_a_response_is_an_answer() -> None:
    call = {"type": "function_call", "name": "label", "arguments": "{}", "call_id": "c"}
    answer = ok(response(REASONING, message("One moment."), call), RESPONSES)
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, [call])


@pytest.mark.parametrize("kind", ["web_search_call", "file_search_call", "code_interpreter_call", "mcp_call"])
def test_a_call_that_the_provider_made_does_not_replace_the_text(kind: str) -> None:
    answer = ok(response({"type": kind, "status": "completed"}, message('{"label":"bug"}')), RESPONSES, JUDGE)
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, {"label": "bug"})
    assert ok(response({"type": kind}, message("nothing to see")), RESPONSES, JUDGE).outcome is Outcome.INVALID_OUTPUT


def test_a_call_that_the_provider_made_is_the_answer_if_there_is_no_text() -> None:
    image = {"type": "image_generation_call", "result": "aGk="}
    assert ok(response(image), RESPONSES).value == [image]


# Embeddings and moderations


def floats(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def vectors(*embeddings: Any) -> dict[str, Any]:
    return {
        "model": "text-embedding-3-small",
        "data": [{"object": "embedding", "index": i, "embedding": e} for i, e in enumerate(embeddings)],
    }


def test_an_embedding_is_a_list_of_floats_in_every_encoding() -> None:
    assert ok(vectors([0.5, -1.25, 0.0]), EMBEDDINGS).value == [0.5, -1.25, 0.0]
    assert ok(vectors(floats(0.5, -1.25, 0.0)), EMBEDDINGS).value == [0.5, -1.25, 0.0]


def test_the_vectors_are_in_the_order_of_the_inputs() -> None:
    body = vectors([0.0], [1.0], floats(2.0))
    body["data"].reverse()
    assert ok(body, EMBEDDINGS).value == [[0.0], [1.0], [2.0]]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": None},
        {"data": []},
        {"data": "x"},
        vectors([]),
        vectors(None),
        vectors(""),
        vectors("!!!"),
        vectors("AAA="),
        vectors([1.0], []),
    ],
)
def test_an_embedding_without_a_vector_is_incomplete(body: dict[str, Any]) -> None:
    answer = ok(body, EMBEDDINGS)
    assert (answer.outcome, answer.error_code, answer.value) == (Outcome.INCOMPLETE, "empty", None)


def test_invalid_indexes_of_vectors_are_tolerated() -> None:
    body = {"data": [{"index": "1", "embedding": [1.0]}, {"index": None, "embedding": [2.0]}]}
    assert ok(body, EMBEDDINGS).outcome is Outcome.SUCCEEDED


def test_the_value_of_a_moderation_is_its_results() -> None:
    results = [{"flagged": False, "categories": {"hate": False}}]
    answer = ok({"id": "modr-1", "model": "omni-moderation-latest", "results": results}, MODERATIONS)
    assert (answer.outcome, answer.value, answer.model) == (Outcome.SUCCEEDED, results, "omni-moderation-latest")


@pytest.mark.parametrize("body", [{}, {"results": []}, {"results": None}])
def test_a_moderation_without_results_is_incomplete(body: dict[str, list[Any] | None]) -> None:
    assert ok(body, MODERATIONS).outcome is Outcome.INCOMPLETE


# Tokens


@pytest.mark.parametrize(
    ("endpoint", "usage", "expected"),
    [
        (
            CHAT,
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 30, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 12},
            },
            Usage(100, 64, 12, 20, 30),
        ),
        (
            RESPONSES,
            {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 64},
                "output_tokens": 20,
                "output_tokens_details": {"reasoning_tokens": 12},
                "total_tokens": 120,
            },
            Usage(100, 64, 12, 20),
        ),
        (EMBEDDINGS, {"prompt_tokens": 8, "total_tokens": 8}, Usage(8, 0, 0, 0)),
        (COMPLETIONS, {"prompt_tokens": 5, "completion_tokens": 7}, Usage(5, 0, 0, 7)),
        (EMBEDDINGS, {"prompt_tokens": 8, "completion_tokens": "many"}, Usage(8, 0, 0, None)),
        (CHAT, {"prompt_tokens": 5, "prompt_tokens_details": None, "completion_tokens": None}, Usage(5, 0, 0, None)),
        (CHAT, {"prompt_tokens": None, "input_tokens": 5}, Usage(5, 0, 0, None)),
        (CHAT, {"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        (CHAT, {"prompt_tokens": "5", "completion_tokens": 7.0}, Usage(5, 0, 0, 7)),
        (
            CHAT,
            {"prompt_tokens": 5, "completion_tokens": -2, "prompt_tokens_details": [1]},
            Usage(5, None, 0, None, None),
        ),
        (
            CHAT,
            {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2**70}},
            Usage(5, None, 0, 7),
        ),
        (CHAT, {"prompt_tokens": 2**31 - 1, "completion_tokens": 2**31}, Usage(2**31 - 1, 0, 0, None)),
        (CHAT, {"prompt_tokens": 2**70, "completion_tokens": 10**400}, Usage(None, 0, 0, None)),
        (CHAT, {"prompt_tokens": True, "completion_tokens": 1.5}, Usage(None, 0, 0, None)),
        (CHAT, {"prompt_tokens": float("nan"), "completion_tokens": float("inf")}, Usage(None, 0, 0, None)),
        (CHAT, {"prompt_tokens": "9" * 5000, "completion_tokens": "seven"}, Usage(None, 0, 0, None)),
        (CHAT, {"total_tokens": 12}, Usage(None, 0, 0, None)),
        (CHAT, None, UNKNOWN_USAGE),
        (CHAT, "7 tokens", UNKNOWN_USAGE),
        (CHAT, [7], UNKNOWN_USAGE),
    ],
)
def test_tokens_are_read_under_the_names_of_every_endpoint(
    endpoint: str, usage: dict[str, Any] | str | None, expected: Usage
) -> None:
    bodies = {CHAT: chat("x"), RESPONSES: response(message("x")), EMBEDDINGS: vectors([1.0])}
    body = bodies.get(endpoint, {"choices": [{"text": "x", "finish_reason": "stop"}]})
    assert ok({**body, "usage": usage}, endpoint).usage == expected


def test_tokens_of_answers_that_did_not_succeed_are_counted_too() -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 20}
    for body in (chat("x", finish_reason="length"), chat(None, refusal="no"), chat("{}")):
        assert ok({**body, "usage": usage}, judge=JUDGE).usage == Usage(100, 0, 0, 20)


# What always holds


leaves = (
    st.none()
    | st.booleans()
    | st.integers(-3, 600)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)
WORDS = """error code message type status status_code body choices text content refusal tool_calls finish_reason output
incomplete_details reason data index embedding results usage prompt_tokens model response"""
names = st.sampled_from(WORDS.split())
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5),
    max_leaves=20,
)


@given(
    st.dictionaries(names, json_values),
    st.sampled_from([CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS, MODERATIONS]),
    st.sampled_from([None, JUDGE]),
    st.booleans(),
)
def test_every_possible_line_has_an_outcome_that_can_be_recorded(
    line: dict[str, Any], endpoint: str, judge: SchemaJudge | None, as_body: bool
) -> None:
    if as_body:
        line = {"response": {"status_code": 200, "body": line}}
    answer = read(line, endpoint, judge)
    assert answer.outcome in set(Outcome) - {Outcome.MISSING, Outcome.PENDING, Outcome.WITHHELD}
    assert (answer.error_code is None) == (answer.outcome is Outcome.SUCCEEDED)
    assert answer.error_message or answer.outcome is Outcome.SUCCEEDED
    assert not answer.transient or answer.outcome is Outcome.FAILED
    msgspec.json.encode(answer)
