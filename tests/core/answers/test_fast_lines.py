"""Usual result lines are read faster, and never to another answer."""

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
from airflow_provider_batch.core.schema.judge import SchemaJudge, strict_schema
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
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens_details": {"reasoning_tokens": 3},
    },
}
BODIES = {CHAT: CHAT_BODY, RESPONSES: RESPONSE_BODY}


def line_of(body: Any) -> dict[str, Any]:
    """A result line as OpenAI writes it."""
    response = {"status_code": 200, "request_id": "r", "body": body}
    return {"id": "batch_req_1", "custom_id": "row-1", "response": response, "error": None}


def usual(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    read = fast_reader(endpoint, judge)
    assert read is not None
    return read(line)


def tolerant(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    found = read_line(line, endpoint, judge)
    return None if found is None else (found[0], msgspec.structs.replace(found[1], body=None))


@pytest.mark.parametrize("judge", [None, JUDGE])
@pytest.mark.parametrize("endpoint", BODIES)
def test_a_line_as_openai_writes_it_is_usual_and_has_the_same_answer(endpoint: str, judge: SchemaJudge | None) -> None:
    line = json.dumps(line_of(BODIES[endpoint])).encode()
    found = usual(line, endpoint, judge)
    assert found is not None
    assert found == tolerant(line, endpoint, judge)
    assert found[1].outcome is Outcome.SUCCEEDED
    assert (found[1].usage.cached_tokens, found[1].usage.reasoning_tokens) == (4, 3)


def test_endpoints_without_usual_lines_have_no_reader_of_them() -> None:
    assert fast_reader(EMBEDDINGS, None) is None


def test_answers_hold_their_body_where_it_is_asked_for() -> None:
    line = json.dumps(line_of(CHAT_BODY)).encode()
    found = line_reader(CHAT, None, bodies=True)(line)
    assert found is not None
    assert found[1].body == CHAT_BODY


def test_a_line_that_is_not_usual_is_read_all_the_same() -> None:
    cut = copy.deepcopy(CHAT_BODY)
    cut["choices"][0]["finish_reason"] = "length"
    line = json.dumps(line_of(cut)).encode()
    found = line_reader(CHAT, None, bodies=False)(line)
    assert found is not None
    assert found[1].outcome is Outcome.INCOMPLETE


@pytest.mark.parametrize("place", [b"chatcmpl-1", b"assistant", b"finish_reason"])
def test_a_line_that_is_no_utf_8_is_not_usual_wherever_it_is_broken(place: bytes) -> None:
    line = json.dumps(line_of(CHAT_BODY)).encode().replace(place, b"\xff", 1)
    assert usual(line, CHAT, None) is None


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
def test_a_line_with_anything_odd_in_it_is_not_usual(
    path: tuple[str | int, ...], value: dict[str, Any] | str | list[dict[str, Any]] | None
) -> None:
    body = copy.deepcopy(CHAT_BODY)
    holder: Any = body
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert usual(json.dumps(line_of(body)).encode(), CHAT, None) is None


#: values that tell readers apart which take one type for another
odd = st.sampled_from(
    [
        *[None, True, False, 0, 1, -1, 7, 7.0, 200.0, 2**70, "", "stop", "length", "content_filter", "failed", "other"],
        *[FITS, '{"label": 1}', "\ud83d", [], [1], [{}], {}, {"message": "no"}, {"cached_tokens": 9}],
        *[[{"type": "function_call"}], [{"type": "output_text", "text": FITS}], {"content": "x"}, {"text": "x"}],
    ]
).map(copy.deepcopy)  # what is drawn is changed
WORDS = """error code message type status status_code body choices text content refusal tool_calls function_call
finish_reason output incomplete_details custom_id response usage prompt_tokens completion_tokens input_tokens
output_tokens prompt_tokens_details completion_tokens_details input_tokens_details output_tokens_details cached_tokens
reasoning_tokens model"""
names = st.sampled_from(WORDS.split())


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in items for place in [(value, key), *places(inner)]]


@st.composite
def nearly_usual(draw: st.DrawFn) -> tuple[str, bytes]:
    """An endpoint, and a line of it that was changed in a few places or in none."""
    endpoint = draw(st.sampled_from(list(BODIES)))
    line = line_of(copy.deepcopy(BODIES[endpoint]))
    for _ in range(draw(st.integers(0, 3))):
        holder, key = draw(st.sampled_from(places(line)))
        match draw(st.sampled_from(["change", "drop", "add", "twice"])):
            case "change":
                holder[key] = draw(odd)
            case "drop":
                del holder[key]
            case "add" if isinstance(holder, dict):
                holder[draw(names)] = draw(odd)
            case "twice" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
    return endpoint, json.dumps(line).encode()


@given(nearly_usual(), st.sampled_from([None, JUDGE]))
def test_both_readers_say_the_same_of_every_line_that_is_taken_for_usual(
    case: tuple[str, bytes], judge: SchemaJudge | None
) -> None:
    endpoint, line = case
    found = usual(line, endpoint, judge)
    if found is not None:
        other = tolerant(line, endpoint, judge)
        assert other
        assert found == other
        assert [type(one) for one in msgspec.structs.astuple(found[1])] == [
            type(one) for one in msgspec.structs.astuple(other[1])
        ]
