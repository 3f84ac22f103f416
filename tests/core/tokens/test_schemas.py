"""Tools and schemas as the text that a model sees."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_batch.core.tokens.estimate import Encoding, estimate_tokens
from airflow_provider_batch.core.tokens.schemas import render_format, render_tools

WEATHER = {
    "name": "get_current_weather",
    "description": "Get the current weather in a given location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "The city and state, e.g. San Francisco, CA"},
            "unit": {
                "type": "string",
                "description": "The unit of temperature to return",
                "enum": ["celsius", "fahrenheit"],
            },
        },
        "required": ["location"],
    },
}


@pytest.mark.parametrize(("encoding", "tokens"), [(Encoding.O200K, 69), (Encoding.CL100K, 72)])
def test_the_estimate_of_a_tool_is_close_to_what_the_api_reports(encoding: Encoding, tokens: int) -> None:
    # The notebook "How to count tokens with tiktoken" of OpenAI's cookbook shows that the API reports 101 tokens for
    # this tool with gpt-4o, and 105 with gpt-4. Of these, 32 and 33 are the messages.
    estimate = estimate_tokens(render_tools([{"type": "function", "function": WEATHER}]), encoding)
    assert estimate == pytest.approx(tokens, rel=0.15)
    assert estimate_tokens(json.dumps([WEATHER]), encoding) > 1.3 * tokens


def test_a_tool_is_a_declaration_in_typescript() -> None:
    address = {"type": "object", "properties": {"city": {"type": ["string", "null"]}}, "required": ["city"]}
    parameters = {
        "type": "object",
        "properties": {
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "address": address,
            "value": {"anyOf": [{"type": "number"}, {"type": "boolean"}]},
            "limit": {"type": "integer", "default": 5},
            "node": {"$ref": "#/$defs/Node"},
        },
    }
    tools = [{"type": "function", "name": "search", "parameters": parameters}, {"name": "ping", "description": "a\nb"}]
    assert render_tools(tools).splitlines()[6:] == [
        "type search = (_: {",
        "sizes?: number[],",
        "address?: {",
        "city: string | null,",
        "},",
        "value?: number | boolean,",
        "limit?: number, // default: 5",
        'node?: {"$ref":"#/$defs/Node"},',
        "}) => any;",
        "",
        "// a",
        "// b",
        "type ping = () => any;",
        "",
        "} // namespace functions",
    ]


def test_a_tool_that_is_not_a_function_is_shown_as_json() -> None:
    tool = {"type": "custom", "name": "code", "description": "Runs code."}
    assert render_tools([tool, {"type": "web_search"}]) == json.dumps(tool, separators=(",", ":")) + (
        '\n{"type":"web_search"}'
    )


@pytest.mark.parametrize("wrap", [lambda schema: {"json_schema": schema}, lambda schema: {"format": schema}])
def test_the_schema_of_an_answer_is_json_after_a_heading(wrap: Any) -> None:
    schema = {"name": "label", "strict": True, "description": "A label.", "schema": {"type": "object"}}
    assert render_format(wrap(schema)) == '# Response Formats\n\n## label\n\n// A label.\n{"type":"object"}'


@pytest.mark.parametrize("value", [None, [], {"type": "json_object"}, {"format": {"type": "text"}, "verbosity": "low"}])
def test_a_format_without_a_schema_adds_nothing(value: Any) -> None:
    assert render_format(value) == ""
