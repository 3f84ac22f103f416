"""The fast reader of ordinary result lines gives the same answers as the tolerant one."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.fast_lines import fast_reader, line_reader
from airflow_provider_batch.core.answers.outcome import Answer, Outcome, read_line
from airflow_provider_batch.core.schema.author_schema import strict_schema
from airflow_provider_batch.core.schema.judge import SchemaJudge
from tests.core.building import CHAT, EMBEDDINGS, RESPONSES

JUDGE = SchemaJudge(strict_schema({"type": "object", "properties": {"label": {"enum": ["bug", "other"]}}}))
FITS = '{"label": "bug"}'

CHAT_BODY: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-5-mini-2025-08-07",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": FITS, "refusal": None, "tool_calls": []},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
}
RESPONSE_BODY: dict[str, Any] = {
    "id": "resp_1",
    "model": "gpt-5-mini",
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "output": [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": FITS, "annotations": []}]},
    ],
    "usage": {
        "input_tokens": 10,
        "output_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 5},
        "output_tokens_details": {"reasoning_tokens": 3},
    },
}
BODIES = {CHAT: CHAT_BODY, RESPONSES: RESPONSE_BODY}


def line_of(body: Any) -> dict[str, Any]:
    """Return a result line as OpenAI writes it."""
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": "row-1", "response": response, "error": None}


def read_fast(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    read = fast_reader(endpoint, judge)
    assert read is not None
    return read(line)


def read_tolerantly(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    result = read_line(line, endpoint, judge)
    return None if result is None else (result[0], msgspec.structs.replace(result[1], body=None))


@pytest.mark.parametrize("judge", [None, JUDGE])
@pytest.mark.parametrize("endpoint", BODIES)
def test_a_line_as_openai_writes_it_is_read_fast_with_the_same_answer(endpoint: str, judge: SchemaJudge | None) -> None:
    line = json.dumps(line_of(BODIES[endpoint])).encode()
    result = read_fast(line, endpoint, judge)
    assert result is not None
    assert result == read_tolerantly(line, endpoint, judge)
    assert result[1].outcome is Outcome.SUCCEEDED
    assert (result[1].usage.cached_tokens, result[1].usage.reasoning_tokens) == (4, 3)


def test_embeddings_have_no_fast_reader() -> None:
    assert fast_reader(EMBEDDINGS, None) is None


def test_answers_have_their_body_if_bodies_are_needed() -> None:
    line = json.dumps(line_of(CHAT_BODY)).encode()
    result = line_reader(CHAT, None, bodies=True)(line)
    assert result is not None
    assert result[1].body == CHAT_BODY


def test_a_line_that_the_fast_reader_rejects_is_read_tolerantly() -> None:
    cut_off = copy.deepcopy(CHAT_BODY)
    cut_off["choices"][0]["finish_reason"] = "length"
    line = json.dumps(line_of(cut_off)).encode()
    result = line_reader(CHAT, None, bodies=False)(line)
    assert result is not None
    assert result[1].outcome is Outcome.INCOMPLETE


@pytest.mark.parametrize("broken_text", [b"chatcmpl-1", b"assistant", b"finish_reason"])
def test_the_fast_reader_rejects_lines_that_are_not_utf_8(broken_text: bytes) -> None:
    line = json.dumps(line_of(CHAT_BODY)).encode().replace(broken_text, b"\xff", 1)
    assert read_fast(line, CHAT, None) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("usage",), {"prompt_tokens": 0, "input_tokens": 5, "completion_tokens": 7}),
        (("usage",), {"prompt_tokens": 5, "completion_tokens": 7, "input_tokens_details": {"cached_tokens": 2}}),
        (("usage",), {"prompt_tokens": 5, "completion_tokens": -7}),
        (("error",), "overloaded"),
        (("choices", 0, "message", "refusal"), "no"),
        (("choices", 0, "message", "tool_calls"), [{}]),
        (("choices", 0, "message", "function_call"), {"name": "f"}),
        (("choices", 0, "message", "content"), ""),
        (("choices", 0, "finish_reason"), "content_filter"),
        (("model",), None),
    ],
)
def test_the_fast_reader_rejects_lines_with_unexpected_values(
    path: tuple[str | int, ...], value: dict[str, Any] | str | list[dict[str, Any]] | None
) -> None:
    body = copy.deepcopy(CHAT_BODY)
    holder: Any = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert read_fast(json.dumps(line_of(body)).encode(), CHAT, None) is None


#: values that reveal readers which accept the wrong type
unexpected_values = st.sampled_from(
    [
        *[None, True, False, 0, 1, -1, 7, 7.0, 200.0, 2**70, "", "stop", "length", "content_filter", "failed", "other"],
        *[FITS, '{"label": 1}', "\ud83d", [], [1], [{}], {}, {"message": "no"}, {"cached_tokens": 9}],
        *[[{"type": "function_call"}], [{"type": "output_text", "text": FITS}], {"content": "x"}, {"text": "x"}],
    ]
).map(copy.deepcopy)  # because drawn values are modified
WORDS = """error code message type status status_code body choices text content refusal tool_calls function_call
finish_reason output incomplete_details custom_id response usage prompt_tokens completion_tokens input_tokens
output_tokens prompt_tokens_details completion_tokens_details input_tokens_details output_tokens_details cached_tokens
cache_write_tokens
reasoning_tokens model"""
names = st.sampled_from(WORDS.split())


def positions(value: Any) -> list[tuple[Any, Any]]:
    """Return every pair of container and key in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [position for key, inner in items for position in [(value, key), *positions(inner)]]


@st.composite
def nearly_ordinary_line(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw an endpoint and a line for it with up to three changes."""
    endpoint = draw(st.sampled_from(list(BODIES)))
    line = line_of(copy.deepcopy(BODIES[endpoint]))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(positions(line)))
        match draw(st.sampled_from(["change", "drop", "add", "repeat"])):
            case "change":
                holder[key] = draw(unexpected_values)
            case "drop":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(names)] = draw(unexpected_values)
            case "repeat" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
    return endpoint, json.dumps(line).encode()


@given(nearly_ordinary_line(), st.sampled_from([None, JUDGE]))
def test_both_readers_give_the_same_answer_for_every_line_that_is_read_fast(
    case: tuple[str, bytes], judge: SchemaJudge | None
) -> None:
    endpoint, line = case
    result = read_fast(line, endpoint, judge)
    if result is not None:
        expected = read_tolerantly(line, endpoint, judge)
        assert expected
        assert result == expected
        assert [type(value) for value in msgspec.structs.astuple(result[1])] == [
            type(value) for value in msgspec.structs.astuple(expected[1])
        ]
