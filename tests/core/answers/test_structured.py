"""Finding the JSON in answers that wrap it, and refusing to guess."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.answers.embedded_json import json_texts
from airflow_provider_batch.core.answers.structured import read_structured
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: one object that the schema accepts, and one more
BUG, BILLING = '{"label": "bug"}', '{"label": "billing"}'
JUDGE = SchemaJudge(
    {
        "title": "Ticket",
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": ["bug", "billing"]},
            "note": {"type": ["string", "null"]},
            "urgent": {"type": "boolean"},
        },
        "required": ["label"],
        "additionalProperties": False,
    }
)
CALL = {"name": "Ticket", "arguments": {"label": "bug"}}
FUNCTION = {"id": "1", "type": "function", "function": {"name": "Ticket", "arguments": BUG}}

WRAPPED = {
    "fence": f"```json\n{BUG}\n```",
    "fence without a language": f"```\n{BUG}\n```",
    "fence that does not end": f"```json\n{BUG}",
    "fence in a text": f"Here it is:\n\n```JSON\n{BUG}\n```\n\nDo you need more?",
    "several fences": f'```json\n{BUG}\n```\nBased on:\n```python\nlabel = "bug"\n```',
    "text before and after": f"Sure! {BUG} Let me know.",
    "one line before": f"json\n{BUG}",
    "byte order mark": f"\ufeff{BUG}",
    "think": f"<think>Either {BILLING} or {{...}}.</think>\n\n{BUG}",
    "think without a start": f"It may be {BILLING}.</think>{BUG}",
    "think with broken JSON": f'<think>{{"label": ...</think>{BUG}',
    "think twice": f"<think>{BILLING}</think>Hm.<think>{BILLING}</think>{BUG}",
    "think after the answer": f"{BUG}<think>{BILLING}</think>",
    "think that does not end around enforced JSON": f"<think>\n{BUG}\n",
    "reasoning": f"<reasoning>{BILLING}</reasoning><answer>{BUG}</answer>",
    "Mistral": f"[THINK]{BILLING}[/THINK]{BUG}",
    "Kimi": f"◁think▷{BILLING}◁/think▷{BUG}",
    "gpt-oss": f"<|channel|>analysis<|message|>{BILLING}<|end|><|start|>assistant<|channel|>final<|message|>{BUG}",
    "gpt-oss, constrained": (
        f"<|channel|>analysis<|message|>{BILLING}<|end|><|start|>assistant"
        f"<|channel|>final <|constrain|>json<|message|>{BUG}<|return|>"
    ),
    "gpt-oss, tool call": (
        f"<|channel|>analysis<|message|>{BILLING}<|end|><|start|>assistant"
        f"<|channel|>commentary to=functions.Ticket <|constrain|>json<|message|>{BUG}<|call|>"
    ),
    "gpt-oss without special tokens": f"analysisWe could say {BILLING}.assistantfinal{BUG}",
    "a JSON string": json.dumps(BUG),
    "a JSON string in a JSON string": json.dumps(json.dumps(BUG)),
    "a JSON string in a fence": f"```json\n{json.dumps(BUG)}\n```",
    "escaped": BUG.replace('"', '\\"'),
    "escaped, with line breaks": '{\\n  \\"label\\": \\"bug\\"\\n}',
    "a list of one": f"[{BUG}]",
    "answer": json.dumps({"answer": {"label": "bug"}}),
    "final_answer": json.dumps({"final_answer": {"label": "bug"}}),
    "the title": json.dumps({"ticket": {"label": "bug"}}),
    "an answer as text": json.dumps({"response": BUG}),
    "an answer with reasons": json.dumps({"reasoning": "It crashes.", "answer": {"label": "bug"}}),
    "the schema": json.dumps({"type": "object", "properties": {"label": "bug"}}),
    "the schema, then the answer": json.dumps({"type": "object", "properties": {"label": {"type": "string"}}}) + BUG,
    "a tool call": json.dumps(CALL),
    "a tool call with parameters": json.dumps({"name": "Ticket", "parameters": {"label": "bug"}}),
    "a tool call with text": json.dumps({"name": "Ticket", "arguments": BUG}),
    "Hermes": f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>",
    "Mistral's tool call": f"[TOOL_CALLS][{json.dumps(CALL)}]",
    "OpenAI's tool calls": json.dumps({"tool_calls": [FUNCTION]}),
    "boxed": f"\\boxed{{{BUG}}}",
    "a placeholder before": f'Format: {{"label": <label>}}\nAnswer: {BUG}',
    "the same twice": f'{BUG}\n{{"label":"bug"}}',
    "other JSON after": f'{BUG}\n{{"confidence": 0.9}}',
    "other JSON before": f"Input: [1, 2, {{}}]. {BUG}",
    "a comma at the end": '{"label": "bug",}',
    "single quotes": "{'label': 'bug'}",
    "comments": '{\n  // the kind\n  "label": "bug" /* really */\n}',
    "names without quotes": '{label: "bug"}',
}


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_the_json_inside_a_known_wrapping_is_the_answer(text: str) -> None:
    assert read_structured(text, JUDGE) == ({"label": "bug"}, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'label': 'bug', 'urgent': True, 'note': None}", {"label": "bug", "urgent": True, "note": None}),
        ('{"label": "bug", "note": "two\nlines"}', {"label": "bug", "note": "two\nlines"}),
        ("{'label': 'bug', 'note': 'it\\'s \"odd\", {really}'}", {"label": "bug", "note": 'it\'s "odd", {really}'}),
        ('{"label": "bug", "note": "// no comment, }",}', {"label": "bug", "note": "// no comment, }"}),
        ('x {"label": "bug", "note": "True, </think> and {"}', {"label": "bug", "note": "True, </think> and {"}),
        ('{"label": "bug", "note": "a\u2028\\u00e9\\n",}', {"label": "bug", "note": "a\u2028é\n"}),
    ],
)
def test_a_repair_changes_no_text(text: str, value: Any) -> None:
    assert read_structured(text, JUDGE) == (value, None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bug",
        '"bug"',
        "null",
        f"{BUG} or {BILLING}",
        f"[{BUG}, {BILLING}]",
        f"[{BUG}, {BUG}]",
        f"{BUG}\n{BILLING}\n{BUG}",
        f'For example {BILLING}. The answer: {{"label": "unknown"}}',
        f'For example {BILLING}. The answer: {{"label": bug}}',
        f'For example {BILLING}. The answer: {{"label": "bu',
        f'{{"items": [{BUG}',
        f'{{"items": [{BUG}]}}',
        f"[{BUG}, ",
        f"<think>{BUG}</think>",
        f"<think>I say {BUG}",
        f"<|channel|>analysis<|message|>{BUG}",
        f'{{"error": {BUG}}}',
        f'{{"note": {BUG}}}',
        f'{{"answer": {BUG}, "label": "x"}}',
        f'{{"answer": {BUG}, "result": {BILLING}}}',
        '{"label": "bug" "note": "x"}',
        '{"label": "bug", "note": "x" "y"}',
        '{"label": "bug", "urgent": 1 2}',
        '{"label": "bug", "urgent": maybe}',
        '{"label": bug}',
        '{"label": "bug", "note": "a\\\nb"}',
        "{'label': 'b\\x75g'}",
        '{"label": "bug"',
        '{"label": "bug", "note": "',
        '{"type": "object", "properties": {"label": {"type": "string"}}}',
        '{"labels": "bug"}',
        '{"n": {\\"a\\": {"label": "bug"}',
    ],
)
def test_nothing_is_guessed(text: str) -> None:
    value, complaint = read_structured(text, JUDGE)
    assert value is None
    assert complaint


def test_names_of_the_schema_are_not_wrappers() -> None:
    person = {"properties": {"name": {"type": "string"}, "data": {"$ref": "#"}}, "required": ["name"], "type": "object"}

    assert read_structured('{"data": {"name": "Ada"}}', SchemaJudge(person))[0] is None
    assert read_structured('{"answer": {"name": "Ada"}}', SchemaJudge(person))[0] == {"name": "Ada"}


OPTIONAL = SchemaJudge({"type": "object", "properties": {"label": {"type": ["string", "null"]}}})
NUMBERS = SchemaJudge({"type": "array", "items": {"type": "integer"}})


@pytest.mark.parametrize("text", ["function() {}", "I used {} here", "x [] y", "{{}}", 'Config: {"debug": true}'])
def test_an_object_without_a_property_of_the_schema_is_not_an_answer_even_if_the_schema_accepts_it(text: str) -> None:
    assert read_structured(text, OPTIONAL)[0] is None
    assert read_structured(text, NUMBERS)[0] is None


def test_a_fence_around_the_whole_answer_changes_nothing() -> None:
    assert read_structured("```json\n{}\n```", OPTIONAL) == ({}, None)
    assert read_structured("```\n[1, 2]\n```", NUMBERS) == ([1, 2], None)
    assert read_structured("\ufeff[1, 2]", NUMBERS) == ([1, 2], None)


@pytest.mark.parametrize("text", ["<think>[]</think>ITEMS", "Here: ITEMS", '{"data": ITEMS}'])
def test_the_object_in_which_a_list_is_sent_is_found_like_any_answer(text: str) -> None:
    people = SchemaJudge({"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}})
    assert read_structured(text.replace("ITEMS", '{"items": [{"name": "Ada"}]}'), people) == ([{"name": "Ada"}], None)


def test_the_complaint_about_a_string_without_json_is_about_the_string() -> None:
    choice = SchemaJudge({"type": "string", "enum": ["yes", "no"]})
    assert read_structured('"yes"', choice) == ("yes", None)
    assert "does not match the schema" in str(read_structured('"maybe"', choice)[1])


def test_a_complaint_is_about_the_only_json_in_the_text() -> None:
    complaint = read_structured('Sure: {"label": "other"}', JUDGE)[1] or ""
    assert complaint.startswith("The answer does not match the schema at label")
    assert "2 different JSON values" in (read_structured(BUG + BILLING, JUDGE)[1] or "")


def test_a_text_that_is_valid_counts_as_it_is() -> None:
    anything = SchemaJudge({"type": "object"})
    assert read_structured('{"answer": {"label": "bug"}}', anything)[0] == {"answer": {"label": "bug"}}


LONG = 200_000
HOSTILE = [
    "{",
    "[",
    '{"',
    '{"a":',
    "{}",
    "[]",
    '{"</think>',
    '{"a"}',
    '"\\"',
    "<think>",
    "</think>",
    "{'",
    "{/*",
    "{a:",
    "{ ",
    '{"a":1}</think>',
    "<|channel|>",
    '{"a":"\\',
    "[{},",
    "`",
    BUG,
    "{'a'}",
    "\\",
    '{"a":[',
    "analysis",
]


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_hostile_text_takes_time_proportional_to_its_length(piece: str) -> None:
    def measure(length: int) -> float:
        text = piece * (length // len(piece)) + "</think>" + piece
        start = time.process_time()
        read_structured(text, JUDGE)
        return time.process_time() - start

    measure(LONG)
    assert min(measure(4 * LONG) for _ in range(2)) < 8 * min(measure(LONG) for _ in range(3)) + 0.2


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_objects = st.dictionaries(st.text(min_size=1), _json, min_size=1, max_size=4)
_prose = st.text(st.characters(exclude_characters="{}[]<>\"'\\◁|/`", codec="utf-8"))


@given(_objects, _prose, _prose)
def test_json_between_prose_is_found_unchanged(value: dict[str, Any], before: str, after: str) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert json_texts(f"{before} {text} {after}") == [text]


@given(_objects)
def test_python_literals_are_read_like_json(value: dict[str, Any]) -> None:
    expected = json.loads(json.dumps(value))
    texts = json_texts(f"answer: {value!r}")
    # the escapes of Python that JSON does not have are not read, so the text stays broken or has no end
    assert "\\" in repr(value) or [json.loads(text) for text in texts] == [expected]


@given(st.text(alphabet="{}[]\"'\\,: a1</think>\n", max_size=60))
def test_any_text_gives_objects_and_lists_or_broken_ones(text: str) -> None:
    for candidate in json_texts(text):
        assert candidate[0] in "{["
    value, complaint = read_structured(text, JUDGE)
    assert (value is None) == (complaint is not None)
