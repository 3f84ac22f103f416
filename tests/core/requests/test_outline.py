"""What is known of a request without reading its body is what reading it finds."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.answer_size import expected_bytes
from airflow_provider_batch.core.requests.render import Request, RequestSpec, compile_renderer, request_line
from airflow_provider_batch.core.tokens.estimate import Ask, Encoding, read_ask
from airflow_provider_batch.exceptions import InputError

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
COMPLETIONS, MODERATIONS = "/v1/completions", "/v1/moderations"
SCHEMA = {"title": "Label", "type": "object", "properties": {"label": {"type": "string"}}}
PARTS = [{"type": "text", "text": "{{ row.a }}"}, {"type": "image_url", "image_url": {"url": "{{ row.b }}"}}]
MESSAGES = [
    {"role": "{{ row.a }}", "content": "Label:", "name": "{{ row.b }}"},
    {"role": "user", "content": "{{ row.b }}"},
]


def made(endpoint: str, **arguments: Any) -> RequestSpec:
    return RequestSpec(endpoint=endpoint, custom_id="{{ row.id }}", **{"model": "gpt-4-turbo", **arguments})


#: forms that are read once, and forms of which something has to be read in every body
SPECS = [
    made(CHAT, prompt="{{ row.a }}", system="You label.", output_schema=SCHEMA, max_output_tokens=7),
    made(
        CHAT,
        prompt="{{ row.a }}",
        system="{{ row.b }}",
        body={"n": 2, "logprobs": True, "metadata": {"b": "{{ row.b }}"}},
    ),
    made(CHAT, prompt="Label: {{ row.a }}", body={"n": "{{ row.n }}", "max_tokens": "{{ row.n }}"}),
    made(CHAT, prompt="{{ row.a }}", body={"tools": [{"function": {"description": "{{ row.b }}"}}]}),
    made(CHAT, prompt="{{ row.a }}", body={"top_logprobs": "{{ row.n }}"}),
    made(CHAT, prompt=PARTS),
    made(CHAT, body={"messages": MESSAGES}),
    made(CHAT, body={"messages": [{"role": "user", "content": "{{ row.any }}"}]}),
    made(CHAT, body={"messages": "{{ row.messages }}"}),
    made(RESPONSES, prompt="{{ row.a }}", system="{{ row.b }}", output_schema=SCHEMA),
    made(RESPONSES, prompt="{{ row.a }}", body={"text": {"format": {"name": "{{ row.b }}"}}}),
    made(RESPONSES, prompt="{{ row.a }}", model="{{ row.b }}"),
    made(COMPLETIONS, prompt="{{ row.a }}", body={"n": 3, "max_tokens": 20}),
    made(EMBEDDINGS, prompt="{{ row.a }}"),
    made(EMBEDDINGS, prompt=["{{ row.a }}", "and", "{{ row.b }}"]),
    made(EMBEDDINGS, prompt="{{ row.a }}", body={"dimensions": "{{ row.n }}"}),
    made(EMBEDDINGS, body={"input": "{{ row.texts }}"}),
    made(MODERATIONS, prompt=["{{ row.a }}", "{{ row.b }}"]),
    made(MODERATIONS, body={"input": "{{ row.texts }}"}),
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip) | st.sampled_from(
    ["Größe 1234567 " * 9, "Der Drucker im zweiten Stock brennt. " * 3, "9" * 99, "\0", "0\0", "0", "1"]
)
ROWS = st.fixed_dictionaries(
    {
        "id": st.just(1),
        "a": TEXTS,
        "b": TEXTS,
        "n": st.integers(-1, 20),
        "any": TEXTS
        | st.integers()
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}), min_size=1),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": TEXTS}), min_size=1, max_size=3
        ),
        "texts": TEXTS | st.lists(TEXTS, min_size=1, max_size=3) | st.lists(st.integers(0, 9), min_size=1),
    }
)


def rendered(spec: RequestSpec, *rows: dict[str, Any]) -> list[Request]:
    renderer = compile_renderer(spec, list(rows[0]), {})
    return [renderer(tuple(row.values()), number) for number, row in enumerate(rows, start=1)]


def in_any_order(ask: Ask) -> Ask:
    return msgspec.structs.replace(ask, texts=tuple(sorted(ask.texts)))


@given(st.sampled_from(SPECS), ROWS, ROWS, st.sampled_from(Encoding))
def test_the_numbers_are_those_that_reading_the_body_gives(
    spec: RequestSpec, first: dict[str, Any], second: dict[str, Any], encoding: Encoding
) -> None:
    try:
        requests = rendered(spec, first, second)
    except InputError:
        reject()  # a row whose messages are no messages
    for request in requests:
        assert request.outline is not None
        ask = request.outline.ask(request.leaf_values, encoding)
        if ask is not None:
            assert in_any_order(ask) == in_any_order(read_ask(request.body, encoding))
        line = request_line(request.custom_id, spec.endpoint, request.body)
        assert request.outline.answer_bytes(line, request.inputs) == expected_bytes(spec.endpoint, line, request.inputs)


@pytest.mark.parametrize(
    ("number", "known"), [(0, True), (1, True), (2, False), (3, False), (5, True), (8, False), (13, True)]
)
def test_texts_in_a_prompt_are_known_without_reading_the_body_and_other_things_are_not(
    number: int, known: bool
) -> None:
    row = {"id": 1, "a": "x", "b": "y", "n": 1, "any": 1, "messages": [{"role": "user", "content": "x"}], "texts": [1]}
    (request,) = rendered(SPECS[number], row)
    assert request.outline is not None
    assert (request.outline.ask(request.leaf_values, Encoding.O200K) is not None) == known


def test_of_a_function_nothing_is_known_before_it_is_called() -> None:
    (request,) = rendered(
        made(CHAT, request=lambda row: {"messages": [{"role": "user", "content": row["a"]}]}), {"id": 1, "a": "x"}
    )
    assert request.outline is None
