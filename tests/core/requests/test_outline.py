"""Measuring a request by its outline gives the same result as parsing its body."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.answer_size import expected_bytes
from airflow_provider_batch.core.requests.body_form import LeafError
from airflow_provider_batch.core.requests.render import RequestSpec, compile_renderer
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.tokens.request import RequestTokens, estimate_request
from airflow_provider_batch.exceptions import InputError
from tests.core.building import request_line

CHAT, RESPONSES, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/embeddings"
COMPLETIONS, MODERATIONS = "/v1/completions", "/v1/moderations"
SCHEMA = {"title": "Label", "type": "object", "properties": {"label": {"type": "string"}}}
PARTS = [{"type": "text", "text": "{{ row.a }}"}, {"type": "image_url", "image_url": {"url": "{{ row.b }}"}}]
MESSAGES = [
    {"role": "{{ row.a }}", "content": "Label:", "name": "{{ row.b }}"},
    {"role": "user", "content": "{{ row.b }}"},
]


def spec_for(endpoint: str, **arguments: Any) -> RequestSpec:
    return RequestSpec(endpoint=endpoint, custom_id="{{ row.id }}", **{"model": "gpt-4-turbo", **arguments})


#: forms that an outline can measure once, and forms whose bodies have to be parsed one by one
SPECS = [
    spec_for(CHAT, prompt="{{ row.a }}", system="You label.", output_schema=SCHEMA, max_output_tokens=7),
    spec_for(
        CHAT,
        prompt="{{ row.a }}",
        system="{{ row.b }}",
        body={"best_of": 2, "logprobs": True, "metadata": {"b": "{{ row.b }}"}},
    ),
    spec_for(CHAT, prompt="Label: {{ row.a }}", body={"best_of": "{{ row.n }}", "max_tokens": "{{ row.n }}"}),
    spec_for(CHAT, prompt="{{ row.a }}", body={"tools": [{"function": {"description": "{{ row.b }}"}}]}),
    spec_for(CHAT, prompt="{{ row.a }}", body={"top_logprobs": "{{ row.n }}"}),
    spec_for(CHAT, prompt=PARTS),
    spec_for(CHAT, body={"messages": MESSAGES}),
    spec_for(CHAT, body={"messages": [{"role": "user", "content": "{{ row.any }}"}]}),
    spec_for(CHAT, body={"messages": "{{ row.messages }}"}),
    spec_for(RESPONSES, prompt="{{ row.a }}", system="{{ row.b }}", output_schema=SCHEMA),
    spec_for(RESPONSES, prompt="{{ row.a }}", body={"text": {"format": {"name": "{{ row.b }}"}}}),
    spec_for(RESPONSES, prompt="{{ row.a }}", model="{{ row.b }}"),
    spec_for(COMPLETIONS, prompt="{{ row.a }}", body={"best_of": 3, "max_tokens": 20}),
    spec_for(EMBEDDINGS, prompt="{{ row.a }}"),
    spec_for(EMBEDDINGS, prompt=["{{ row.a }}", "and", "{{ row.b }}"]),
    spec_for(EMBEDDINGS, prompt="{{ row.a }}", body={"dimensions": "{{ row.n }}"}),
    spec_for(EMBEDDINGS, body={"input": "{{ row.texts }}"}),
    spec_for(MODERATIONS, prompt=["{{ row.a }}", "{{ row.b }}"]),
    spec_for(MODERATIONS, body={"input": "{{ row.texts }}"}),
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


def render(spec: RequestSpec, *rows: dict[str, Any]) -> list[Request]:
    renderer = compile_renderer(spec, list(rows[0]), {})
    return renderer([tuple(row.values()) for row in rows], 1)


def in_any_order(tokens: RequestTokens) -> RequestTokens:
    return msgspec.structs.replace(
        tokens, texts=tuple(sorted(tokens.texts)), media=tuple(sorted(tokens.media, key=str))
    )


@given(st.sampled_from(SPECS), ROWS, ROWS, st.sampled_from(["gpt-5-mini", "gpt-4-turbo"]))
def test_an_outline_measures_the_same_as_parsing_the_body(
    spec: RequestSpec, first: dict[str, Any], second: dict[str, Any], model: str
) -> None:
    try:
        requests = render(spec, first, second)
    except (InputError, LeafError):
        reject()  # The messages of this row are not valid.
    for request in requests:
        assert request.outline is not None
        tokens = request.outline.estimate(request.leaf_values, model)
        if tokens is not None:
            assert in_any_order(tokens) == in_any_order(estimate_request(request.body, model))
        line = request_line(request.custom_id, spec.endpoint, request.body)
        assert request.outline.answer_bytes(line, request.inputs) == expected_bytes(spec.endpoint, line, request.inputs)


@pytest.mark.parametrize(
    ("number", "is_measured"), [(0, True), (1, True), (2, False), (3, False), (5, True), (8, False), (13, True)]
)
def test_an_outline_measures_texts_in_the_prompt_but_no_other_leaves(number: int, is_measured: bool) -> None:
    row = {"id": 1, "a": "x", "b": "y", "n": 1, "any": 1, "messages": [{"role": "user", "content": "x"}], "texts": [1]}
    (request,) = render(SPECS[number], row)
    assert request.outline is not None
    assert (request.outline.estimate(request.leaf_values, "gpt-5-mini") is not None) == is_measured


def test_a_request_built_by_a_function_has_no_outline() -> None:
    (request,) = render(
        spec_for(CHAT, request=lambda row: {"messages": [{"role": "user", "content": row["a"]}]}), {"id": 1, "a": "x"}
    )
    assert request.outline is None
