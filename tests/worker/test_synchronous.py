"""The responses to synchronous requests are written as lines of a result file, so that one code reads both."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batch.core.answers.outcome import Answer, Outcome, read_line
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Usage
from airflow_provider_batch.hooks.calls import SynchronousResponse
from airflow_provider_batch.worker.synchronous import result_line

CHAT = "/v1/chat/completions"
COMPLETION = {
    "model": "gpt-5-mini",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "fine"}}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
}


def read(status: int, body: bytes, code: str | None = None) -> Answer:
    result = read_line(result_line("row-1", SynchronousResponse(status, "req_1", body, code)), CHAT, None)
    assert result is not None
    assert result[0] == "row-1"
    return result[1]


@pytest.mark.parametrize(
    "extra",
    [{}, {"score": float("nan")}, {"count": 10**400}, {"debug": "\ud800"}, {"trace": [[[[]]]]}],
    ids=["as usual", "NaN", "a huge number", "half a surrogate pair", "nested"],
)
def test_an_answer_with_an_odd_value_is_still_an_answer(extra: dict[str, Any]) -> None:
    answer = read(200, json.dumps(COMPLETION | extra).encode())
    assert (answer.outcome, answer.value) == (Outcome.SUCCEEDED, "fine")


@pytest.mark.parametrize("page", [b"<html>Bad gateway</html>", b"", b"upstream is gone", b"\xff\xfe"])
def test_a_page_of_a_gateway_with_status_200_is_no_answer_and_may_be_retried(page: bytes) -> None:
    answer = read(200, page)
    assert (answer.outcome, answer.error_code, answer.transient) == (Outcome.FAILED, "not_json", True)


@pytest.mark.parametrize("page", [b"<html>Bad gateway</html>", b"", b'{"choices": [{"mess'])
def test_what_came_with_status_200_and_is_no_answer_may_have_been_billed(page: bytes) -> None:
    assert read(200, page).usage == UNKNOWN_USAGE
    assert read(200, page).is_lost


@pytest.mark.parametrize("may_be_billed", [True, False])
@pytest.mark.parametrize(("status", "code"), [(0, "request_timeout"), (0, "APIConnectionError"), (504, None)])
def test_the_usage_of_a_request_without_an_answer_is_unknown_if_it_may_have_been_billed(
    status: int, code: str | None, may_be_billed: bool
) -> None:
    response = SynchronousResponse(status, "", b"Nothing came.", code, may_be_billed=may_be_billed)
    result = read_line(result_line("row-1", response), CHAT, None)
    assert result is not None
    assert result[1].usage == (UNKNOWN_USAGE if may_be_billed else Usage())


def test_an_http_error_keeps_its_code_and_message() -> None:
    answer = read(400, b'{"error": {"message": "No.", "code": "invalid_prompt"}}', "invalid_prompt")
    assert (answer.error_code, answer.error_message, answer.transient) == ("invalid_prompt", "No.", False)


def test_a_request_without_any_answer_is_described_by_the_client() -> None:
    answer = read(0, b"No answer within 120 seconds.", "request_timeout")
    assert (answer.outcome, answer.error_message) == (Outcome.EXPIRED, "No answer within 120 seconds.")
