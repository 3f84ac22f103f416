"""What happens to every parameter of a request body, and the page about it."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types import CompletionCreateParams, EmbeddingCreateParams, ModerationCreateParams
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from airflow_provider_batch.core.requests.body_parameters import (
    PARAMETERS,
    check_keys,
    check_parameters,
    check_spelling,
)
from airflow_provider_batch.core.requests.endpoints import ENDPOINTS
from airflow_provider_batch.core.requests.render import RequestSpec, check, compile_renderer
from airflow_provider_batch.exceptions import InputError
from tests.core.requests.render_docs import PAGE, render

CHAT, RESPONSES, EMBEDDINGS, COMPLETIONS = list(ENDPOINTS)[:4]
SDK: dict[str, Any] = {
    CHAT: completion_create_params.CompletionCreateParams,
    RESPONSES: response_create_params.ResponseCreateParams,
    EMBEDDINGS: EmbeddingCreateParams,
    COMPLETIONS: CompletionCreateParams,
    "/v1/moderations": ModerationCreateParams,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_every_parameter_of_the_sdk_has_an_effect(path: str) -> None:
    kinds = get_args(SDK[path]) or (SDK[path],)
    sdk_keys = {key for kind in kinds for base in kind.__mro__ for key in getattr(base, "__annotations__", {})}
    assert PARAMETERS[path].keys() == sdk_keys


def test_the_page_is_rendered_from_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == render(page), (
        "docs/how-to/body-parameters.md differs from core/requests/body_parameters.py. Run "
        "`python -m tests.core.requests.render_docs` in the repository's root, and commit the page."
    )


REFUSED = [
    (CHAT, "n", 3),
    (CHAT, "n", "3"),
    (CHAT, "stream", True),
    (CHAT, "stream_options", {"include_usage": True}),
    (CHAT, "modalities", ["text", "audio"]),
    (CHAT, "audio", {"voice": "alloy", "format": "wav"}),
    (CHAT, "service_tier", "flex"),
    (RESPONSES, "stream", True),
    (RESPONSES, "stream_options", {}),
    (RESPONSES, "background", True),
    (RESPONSES, "conversation", "conv_1"),
    (RESPONSES, "service_tier", "priority"),
    (EMBEDDINGS, "encoding_format", "int8"),
    (COMPLETIONS, "n", 2),
    (COMPLETIONS, "stream", True),
]
ACCEPTED = [
    (CHAT, "n", 1),
    (CHAT, "n", None),
    (CHAT, "stream", False),
    (CHAT, "stream_options", None),
    (CHAT, "modalities", ["text"]),
    (CHAT, "service_tier", "auto"),
    (CHAT, "logprobs", True),
    (CHAT, "tools", [{"type": "function", "function": {"name": "x"}}]),
    (CHAT, "response_format", {"type": "json_object"}),
    (CHAT, "top_k", 5),
    (RESPONSES, "background", False),
    (RESPONSES, "text", {"format": {"type": "text"}, "verbosity": "low"}),
    (EMBEDDINGS, "encoding_format", "float"),
    (EMBEDDINGS, "dimensions", 256),
    (COMPLETIONS, "best_of", 3),
]


def spec(path: str, body: Any = None, **arguments: Any) -> RequestSpec:
    return RequestSpec(endpoint=path, custom_id="{{ row.id }}", model="m", body=body, **arguments)


def input_of(path: str) -> str:
    return ENDPOINTS[path].input_key


@pytest.mark.parametrize(("path", "key", "value"), REFUSED)
def test_what_could_not_land_is_refused_wherever_it_comes_from(path: str, key: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^body: .*{key}"):
        check(spec(path, {key: value}, prompt="hello"))

    row = ("1", value)
    template = compile_renderer(spec(path, {key: "{{ row.x }}"}, prompt="hello"), ["id", "x"], {})
    with pytest.raises(InputError, match=rf"^Row 1 \(custom_id '1'\), body\.{key}: .*{key}"):
        template([row], 1)

    messages = [{"role": "user", "content": "hello"}] if path == CHAT else "hello"
    function = compile_renderer(
        spec(path, request=lambda row: {input_of(path): messages, key: row["x"]}), ["id", "x"], {}
    )
    with pytest.raises(InputError, match=rf"^Row 1 \(custom_id '1'\), request: .*{key}"):
        function([row], 1)


@pytest.mark.parametrize(("path", "key", "value"), ACCEPTED)
def test_everything_else_passes_through(path: str, key: str, value: Any) -> None:
    check(spec(path, {key: value}, prompt="{{ row.x }}"))
    check_parameters(path, {key: value})


@pytest.mark.parametrize(
    ("path", "body"), [(CHAT, {"response_format": FORMAT}), (RESPONSES, {"text": {"format": {"type": "json_schema"}}})]
)
def test_a_schema_in_the_body_belongs_to_output_schema_unless_it_depends_on_the_row(
    path: str, body: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="as the argument output_schema"):
        check(spec(path, body, prompt="hello"))
    check_parameters(path, body)


def test_a_template_for_a_refused_parameter_passes_for_rows_with_another_value() -> None:
    renderer = compile_renderer(spec(CHAT, {"n": "{{ row.x }}"}, prompt="hello"), ["id", "x"], {})
    assert b'"n":1' in renderer([("1", 1)], 1)[0].body


@pytest.mark.parametrize("key", ["extra_body", "extra_headers", "extra_query", "timeout"])
def test_arguments_of_the_client_are_not_parameters(key: str) -> None:
    with pytest.raises(InputError, match=f"Remove '{key}' from the body"):
        check(spec(CHAT, {key: {}}, prompt="hello"))


def test_two_caps_exclude_each_other() -> None:
    with pytest.raises(InputError, match="both 'max_tokens' and 'max_completion_tokens'"):
        check_keys({"max_tokens": 5, "max_completion_tokens": 5})
    check_keys({"max_tokens": None, "max_completion_tokens": 5})


@pytest.mark.parametrize(
    ("path", "key", "parameter"),
    [
        (CHAT, "temprature", "temperature"),
        (CHAT, "Temperature", "temperature"),
        (CHAT, "maxTokens", "max_tokens"),
        (CHAT, "top-p", "top_p"),
        (CHAT, "reasoning_efort", "reasoning_effort"),
        (RESPONSES, "instruction", "instructions"),
        ("/v1/embeddings", "dimension", "dimensions"),
    ],
)
def test_a_misspelt_parameter_is_refused_with_the_right_name(path: str, key: str, parameter: str) -> None:
    with pytest.raises(InputError) as error_info:
        check(spec(path, {key: 1}, prompt="{{ row.x }}"))
    assert str(error_info.value) == f"body: {path} has no parameter {key!r}. Did you mean {parameter!r}?"


@pytest.mark.parametrize(
    "key",
    [
        *(
            "top_k",
            "top_a",
            "min_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "min_tokens",
            "stop_token_ids",
        ),
        *("max_new_tokens", "prompt_logprobs", "random_seed", "reasoning_format", "models", "images", "thinking"),
        *("chat_template_kwargs", "guided_json", "structured_outputs", "input_type", "truncate", "output_dimension"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, RESPONSES, "/v1/embeddings", "/v1/completions"])
def test_parameters_of_compatible_servers_are_not_taken_for_misspelt_ones(path: str, key: str) -> None:
    check_spelling(path, {key: 1})
