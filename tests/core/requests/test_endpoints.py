"""The request bodies of each endpoint, and what they must not contain."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from openai.types import CompletionCreateParams, EmbeddingCreateParams, ModerationCreateParams
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.endpoints import ENDPOINTS, Endpoint
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.exceptions import InputError

CHAT = ENDPOINTS["/v1/chat/completions"]
RESPONSES = ENDPOINTS["/v1/responses"]
EMBEDDINGS = ENDPOINTS["/v1/embeddings"]
COMPLETIONS = ENDPOINTS["/v1/completions"]
MODERATIONS = ENDPOINTS["/v1/moderations"]

SCHEMA = {"title": "Ticket label", "type": "object", "properties": {"label": {"type": "string"}}}
PARTS = [{"type": "text", "text": "What is this?"}]


@pytest.mark.parametrize(
    ("endpoint", "params"),
    [
        (CHAT, completion_create_params.CompletionCreateParamsNonStreaming),
        (RESPONSES, response_create_params.ResponseCreateParamsNonStreaming),
        (EMBEDDINGS, EmbeddingCreateParams),
        (COMPLETIONS, get_args(CompletionCreateParams)[0]),
        (MODERATIONS, ModerationCreateParams),
    ],
    ids=lambda value: getattr(value, "path", ""),
)
def test_the_openai_sdk_has_every_key_and_none_of_the_mistaken_keys(endpoint: Endpoint, params: type[Any]) -> None:
    sdk_keys = {key for base in params.__mro__ for key in getattr(base, "__annotations__", {})} | set(
        params.__annotations__
    )
    argument_keys = {endpoint.input_key, endpoint.input_alternative, endpoint.system_key, endpoint.schema_key}
    assert {*argument_keys, *endpoint.cap_keys, *endpoint.defaults} - {None} <= sdk_keys
    assert not endpoint.equivalents.keys() & sdk_keys


def test_the_error_for_an_unknown_endpoint_lists_the_supported_paths() -> None:
    with pytest.raises(
        InputError, match=r"'/v1/videos' is not supported\. Use one of /v1/chat/completions, /v1/responses"
    ):
        endpoints.find("/v1/videos")


def test_a_chat_body() -> None:
    spec = RequestSpec(output_schema=SCHEMA, max_output_tokens=9)
    assert endpoints.build_body(CHAT, {"temperature": 0}, spec, system="s", prompt="p") == {
        "temperature": 0,
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "p"}],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "Ticket_label", "strict": True, "schema": SCHEMA},
        },
        "max_completion_tokens": 9,
    }
    assert endpoints.build_body(CHAT, {}, RequestSpec(), prompt=PARTS) == {
        "messages": [{"role": "user", "content": PARTS}]
    }


def test_a_responses_body() -> None:
    spec = RequestSpec(output_schema=SCHEMA, max_output_tokens=9)
    assert endpoints.build_body(RESPONSES, {"text": {"verbosity": "low"}}, spec, system="s", prompt="p") == {
        "instructions": "s",
        "input": "p",
        "text": {
            "verbosity": "low",
            "format": {"type": "json_schema", "name": "Ticket_label", "strict": True, "schema": SCHEMA},
        },
        "max_output_tokens": 9,
    }
    assert endpoints.build_body(RESPONSES, {}, RequestSpec(), prompt=PARTS) == {
        "input": [{"role": "user", "content": PARTS}]
    }


def test_embeddings_are_requested_in_base64_unless_the_body_sets_another_format() -> None:
    assert endpoints.build_body(EMBEDDINGS, {}, RequestSpec(), prompt="p") == {
        "input": "p",
        "encoding_format": "base64",
    }
    assert endpoints.build_body(EMBEDDINGS, {"encoding_format": "float"}, RequestSpec(), prompt=["p", "q"]) == {
        "input": ["p", "q"],
        "encoding_format": "float",
    }


def test_a_completions_body() -> None:
    assert endpoints.build_body(COMPLETIONS, {}, RequestSpec(max_output_tokens=9), prompt="p") == {
        "prompt": "p",
        "max_tokens": 9,
    }


def test_a_moderations_body() -> None:
    assert endpoints.build_body(MODERATIONS, {}, RequestSpec(), prompt=PARTS) == {"input": PARTS}


def test_building_a_body_does_not_change_the_argument() -> None:
    body = {"text": {"verbosity": "low"}}
    endpoints.build_body(RESPONSES, body, RequestSpec(output_schema=SCHEMA), prompt="p")
    assert body == {"text": {"verbosity": "low"}}


@pytest.mark.parametrize(
    ("endpoint", "key", "equivalent"),
    [
        (CHAT, "input", "messages"),
        (CHAT, "max_output_tokens", "max_completion_tokens"),
        (RESPONSES, "messages", "input"),
        (RESPONSES, "response_format", "text.format"),
        (EMBEDDINGS, "messages", "input"),
        (EMBEDDINGS, "response_format", "Remove it"),
        (COMPLETIONS, "messages", "prompt"),
        (MODERATIONS, "prompt", "input"),
    ],
)
def test_the_error_for_a_key_of_another_endpoint_names_the_equivalent_key(
    endpoint: Endpoint, key: str, equivalent: str
) -> None:
    with pytest.raises(InputError, match=rf"{endpoint.path} does not support '{key}' in the body\. .*{equivalent}"):
        endpoints.check_body(endpoint, {key: 1}, RequestSpec())


@pytest.mark.parametrize(
    ("endpoint", "body", "spec", "argument"),
    [
        (CHAT, {"messages": []}, RequestSpec(prompt="p"), "prompt"),
        (CHAT, {"messages": []}, RequestSpec(system="s"), "system"),
        (CHAT, {"response_format": {}}, RequestSpec(output_schema=SCHEMA), "output_schema"),
        (CHAT, {"max_completion_tokens": 1}, RequestSpec(max_output_tokens=9), "max_output_tokens"),
        (CHAT, {"max_tokens": 1}, RequestSpec(max_output_tokens=9), "max_output_tokens"),
        (RESPONSES, {"input": "x"}, RequestSpec(prompt="p"), "prompt"),
        (RESPONSES, {"prompt": {"id": "x"}}, RequestSpec(prompt="p"), "prompt"),
        (RESPONSES, {"instructions": "x"}, RequestSpec(system="s"), "system"),
        (RESPONSES, {"text": {"format": {}}}, RequestSpec(output_schema=SCHEMA), "output_schema"),
        (RESPONSES, {"text": "x"}, RequestSpec(output_schema=SCHEMA), "output_schema"),
        (RESPONSES, {"max_output_tokens": 1}, RequestSpec(max_output_tokens=9), "max_output_tokens"),
        (EMBEDDINGS, {"input": "x"}, RequestSpec(prompt="p"), "prompt"),
        (COMPLETIONS, {"prompt": "x"}, RequestSpec(prompt="p"), "prompt"),
        (COMPLETIONS, {"max_tokens": 1}, RequestSpec(max_output_tokens=9), "max_output_tokens"),
        (MODERATIONS, {"input": "x"}, RequestSpec(prompt="p"), "prompt"),
    ],
)
def test_the_body_must_not_set_a_key_that_an_argument_sets(
    endpoint: Endpoint, body: dict[str, Any], spec: RequestSpec, argument: str
) -> None:
    (key,) = body
    with pytest.raises(InputError, match=f"The argument `{argument}` sets '{key}', and so does the body"):
        endpoints.check_body(endpoint, body, spec)
    assert endpoints.check_body(endpoint, body, RequestSpec()) == body


def test_responses_can_combine_instructions_with_an_input_in_the_body() -> None:
    body = {"input": "x"}
    assert endpoints.check_body(RESPONSES, body, RequestSpec(system="s")) == body
    assert endpoints.build_body(RESPONSES, body, RequestSpec(), system="s") == {"input": "x", "instructions": "s"}


@pytest.mark.parametrize(
    ("endpoint", "value"),
    [
        (CHAT, None),
        (CHAT, []),
        (CHAT, [{"role": "system", "content": "s"}, {"role": "user", "content": " "}]),
        (CHAT, [{"role": "user", "content": None}]),
        (RESPONSES, ""),
        (RESPONSES, []),
        (EMBEDDINGS, " \n"),
        (EMBEDDINGS, ["a", ""]),
        (EMBEDDINGS, ["a", None]),
        (COMPLETIONS, None),
        (MODERATIONS, ""),
    ],
)
def test_an_empty_input_is_an_error_that_suggests_a_where_clause(
    endpoint: Endpoint, value: list[Any] | str | None
) -> None:
    with pytest.raises(InputError, match=r"input is empty.*with `WHERE title <> '' OR body <> ''`"):
        endpoints.check_input(endpoint, value, ["title", "body", "title"])


@pytest.mark.parametrize(
    ("endpoint", "value"),
    [(CHAT, "text"), (CHAT, ["text"]), (RESPONSES, 5), (EMBEDDINGS, 5), (COMPLETIONS, {"a": 1})],
)
def test_an_input_of_the_wrong_type_is_an_error(endpoint: Endpoint, value: Any) -> None:
    with pytest.raises(InputError, match=f"'{endpoint.input_key}' must be"):
        endpoints.check_input(endpoint, value)


@pytest.mark.parametrize(
    ("endpoint", "value"),
    [
        (CHAT, [{"role": "assistant", "content": None, "tool_calls": []}, {"role": "user", "content": "x"}]),
        (RESPONSES, "x"),
        (EMBEDDINGS, [1, 2]),
        (EMBEDDINGS, [[1], [2]]),
        (MODERATIONS, PARTS),
    ],
)
def test_a_valid_input_is_returned_unchanged(endpoint: Endpoint, value: list[Any] | str) -> None:
    assert endpoints.check_input(endpoint, value) is value


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Ticket", "Ticket"),
        ("Ticket label/2", "Ticket_label_2"),
        ("x" * 100, "x" * 64),
        ("Bewertung für Müller", "Bewertung_f_r_M_ller"),
        ("票", "output"),
        ("", "output"),
        (5, "output"),
    ],
)
def test_a_schema_is_named_after_its_title_in_allowed_characters(title: str | int, name: str) -> None:
    assert endpoints.schema_name({"title": title}) == name


def test_a_schema_without_title_is_named_output() -> None:
    assert endpoints.schema_name({}) == "output"


@pytest.mark.parametrize(
    ("endpoint", "value", "count"),
    [
        (EMBEDDINGS, "text", 1),
        (EMBEDDINGS, ["a", "b", "c"], 3),
        (EMBEDDINGS, [1, 2, 3], 1),
        (EMBEDDINGS, [[1, 2], [3]], 2),
        (MODERATIONS, ["a", "b"], 1),
        (CHAT, [{"role": "user", "content": "x"}] * 3, 1),
    ],
)
def test_only_embeddings_count_their_inputs(endpoint: Endpoint, value: str | list[Any], count: int) -> None:
    assert endpoints.count_inputs(endpoint, value) == count
