"""Estimates of whole requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.tokens.estimate import estimate_tokens
from airflow_provider_batch.core.tokens.request import estimate_request
from airflow_provider_batch.core.tokens.schemas import render_format, render_tools

_KEYS = (
    *("type", "function", "name", "description", "parameters", "properties", "items", "enum", "anyOf", "required"),
    *("default", "schema", "json_schema", "format", "image_url", "url", "detail", "file", "file_data", "file_id"),
    *("filename", "input_audio", "data", "role", "content", "text"),
)
_VALUES = (
    *("function", "object", "array", "string", "low", "a.pdf", "data:image/png;base64,iVBORw0KGgo", "file-1"),
    *("data:application/pdf;base64,JVBERi0xLjc=", "data:,", "data:image/jpeg;base64,/9j/", "UklGRg=="),
)
#: JSON values with the keys and values that are read
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(_VALUES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=5),
    max_leaves=12,
)


def estimate(**body: Any) -> Any:
    return estimate_request(json.dumps(body).encode())


TEXT = "The printer on the second floor is on fire again, please send somebody. " * 10


def test_the_prompt_is_estimated_at_every_endpoint_without_the_json_around_it() -> None:
    tokens = estimate_tokens(TEXT)
    message = {"role": "user", "content": TEXT}
    parts = {"role": "user", "content": [{"type": "text", "text": TEXT}]}
    bodies: list[tuple[dict[str, Any], int]] = [
        ({"input": TEXT}, 0),
        ({"input": [TEXT]}, 0),
        ({"prompt": TEXT}, 0),
        ({"instructions": TEXT}, 0),
        ({"messages": [message]}, 7),
        ({"messages": [parts]}, 7),
        ({"input": [message]}, 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": TEXT}]}]}, 4),
        ({"input": TEXT, "model": TEXT, "user": TEXT, "metadata": {"a": TEXT}, "stop": [TEXT]}, 0),
    ]
    for body, overhead in bodies:
        assert estimate(**body).input_tokens == tokens + overhead, body
    escaped = json.dumps({"input": "\u00e9\n" * 100}).encode()
    assert estimate_request(escaped).input_tokens == estimate_tokens("é\n" * 100)


def test_a_token_id_is_one_token() -> None:
    assert estimate(input=[1, 2, 3]).input_tokens == 3
    assert estimate(input=[[1, 2, 3], [4]]).input_tokens == 4


def test_schema_and_tools_are_part_of_the_input() -> None:
    schema = {"type": "json_schema", "name": "label", "schema": {"properties": {"label": {"type": "string"}}}}
    tool = {"type": "function", "name": "label", "parameters": {"properties": {"label": {"type": "string"}}}}
    base = estimate(input=TEXT).input_tokens
    for body, text in (
        ({"response_format": {"json_schema": schema}}, render_format({"json_schema": schema})),
        ({"text": {"format": schema}}, render_format({"format": schema})),
        ({"tools": [tool]}, render_tools([tool])),
        ({"tools": [{"type": "function", "function": tool}]}, render_tools([tool])),
        ({"functions": [tool]}, render_tools([tool])),
    ):
        assert estimate(input=TEXT, **body).input_tokens == base + estimate_tokens(text)
        assert "label" in text


@pytest.mark.parametrize("key", ["response_format", "text", "tools", "functions"])
@given(JSON)
def test_any_json_in_the_place_of_a_schema_or_of_tools_has_an_estimate(key: str, value: Any) -> None:
    assert estimate(input="x", **{key: value}).input_tokens >= 1


@given(JSON)
def test_any_json_in_the_place_of_a_prompt_has_an_estimate(value: Any) -> None:
    for model in ("gpt-5-mini", "gpt-4o"):
        assert estimate_request(json.dumps({"messages": value, "input": value}).encode(), model).input_tokens >= 0


def test_the_cap_and_the_number_of_choices_are_read_from_the_body() -> None:
    assert (estimate(input="x").cap, estimate(input="x").choices) == (None, 1)
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        assert estimate(input="x", **{key: 7}).cap == 7
    assert estimate(prompt="x", n=3).choices == 3
    assert estimate(prompt="x", n="three", max_tokens="many").cap is None
