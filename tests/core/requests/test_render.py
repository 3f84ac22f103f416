"""Rendering rows into requests, and the errors for rows that cannot be rendered."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.render import RequestSpec, check, compile_renderer
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.requests.value import canonical_json
from airflow_provider_batch.exceptions import CustomIdError, InputError, TemplateError
from tests.core.building import request_line, request_sha256

SCHEMA = {
    "title": "Ticket",
    "type": "object",
    "properties": {"reasons": {"type": "string"}, "label": {"type": "string"}},
    "required": ["reasons", "label"],
    "additionalProperties": False,
}


def spec(**arguments: Any) -> RequestSpec:
    return RequestSpec(**{"custom_id": "{{ row.id }}", "model": "gpt-5-mini", "prompt": "{{ row.body }}", **arguments})


def render(request_spec: RequestSpec, number: int = 1, context: dict[str, Any] | None = None, **row: Any) -> Request:
    return compile_renderer(request_spec, list(row), context or {})([tuple(row.values())], number)[0]


def body_of(request_spec: RequestSpec, **row: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(render(request_spec, **row).body)
    return body


def error_message(request_spec: RequestSpec, kind: type[InputError] = InputError, number: int = 17, **row: Any) -> str:
    with pytest.raises(kind) as error_info:
        render(request_spec, number, **row)
    return str(error_info.value)


# --- the request ---


def test_a_row_becomes_a_request_in_canonical_json() -> None:
    request = render(
        spec(
            system="You label.",
            prompt="{{ row.title }}\n\n{{ row.body }}",
            body={"temperature": 0},
            max_output_tokens=9,
        ),
        id=7,
        title="Größe",
        body='"quoted" \u2028 😀',
    )
    assert request.custom_id == "7"
    assert request.model == "gpt-5-mini"
    assert request.inputs == 1
    assert request.body.decode() == (
        '{"max_completion_tokens":9,"messages":[{"content":"You label.","role":"system"},'
        '{"content":"Größe\\n\\n\\"quoted\\" \u2028 😀","role":"user"}],"model":"gpt-5-mini","temperature":0}'
    )


def test_a_request_is_one_line_of_an_input_file() -> None:
    body = render(spec(), id='a"b', body="x\ny").body
    line = request_line('a"b', "/v1/chat/completions", body)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == {
        "custom_id": 'a"b',
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "x\ny"}]},
    }


def test_the_request_hash_covers_the_endpoint_and_the_body_but_not_the_custom_id() -> None:
    first, second = render(spec(), id=1, body="x"), render(spec(), id=2, body="x")
    assert request_sha256("/v1/responses", first.body) == request_sha256("/v1/responses", second.body)
    assert request_sha256("/v1/responses", first.body) != request_sha256("/v1/chat/completions", first.body)
    assert request_sha256("/v1/x", b"{}") == hashlib.sha256(b"/v1/x\n{}").hexdigest()


@pytest.mark.parametrize(
    ("arguments", "row", "sha256"),
    [
        (
            {
                "system": "You label.",
                "prompt": "{{ row.title }}\n\n{{ row.body }}",
                "body": {"temperature": 0.5, "metadata": {"z": "{{ row.id }}", "a": ["{{ row.price }}"]}},
                "output_schema": SCHEMA,
                "max_output_tokens": 9,
            },
            {"title": "Größe", "body": '"quoted" \u2028 😀\x00\x7f/<', "price": Decimal("1.10")},
            "b9203873b22a5e1bd4bdbb3aec6d243b320f014c3f72eea8a2d951f78f2462da",
        ),
        (
            {
                "endpoint": "/v1/embeddings",
                "model": "text-embedding-3-small",
                "prompt": ["{{ row.title }}", "{{ row.body }}"],
            },
            {"title": "Größe", "body": "x"},
            "5ef25df20f448f0c4f560efe31f5016a6527d6cda6ce1f065913529ad9ae8502",
        ),
    ],
)
def test_the_request_hash_never_changes_so_that_paid_answers_can_be_reused(
    arguments: dict[str, Any], row: dict[str, Any], sha256: str
) -> None:
    request_spec = spec(**arguments)
    assert request_sha256(request_spec.endpoint, render(request_spec, id=7, **row).body) == sha256


def test_the_schema_keeps_the_order_of_its_keys_because_the_model_answers_in_that_order() -> None:
    body = render(spec(output_schema=SCHEMA), id=1, body="x").body
    assert body.index(b'"reasons":{') < body.index(b'"label":{')
    assert json.loads(body)["response_format"]["json_schema"] == {"name": "Ticket", "strict": True, "schema": SCHEMA}


def test_a_schema_is_never_rendered_as_a_template() -> None:
    schema = {"title": "T", "type": "object", "description": "{{ row.nothing }} {% if %}"}
    assert body_of(spec(output_schema=schema), id=1, body="x")["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize(
    ("endpoint", "arguments", "expected"),
    [
        (
            "/v1/responses",
            {"system": "s"},
            {"instructions": "s", "input": "x"},
        ),
        ("/v1/embeddings", {}, {"input": "x", "encoding_format": "base64"}),
        ("/v1/completions", {"max_output_tokens": 3}, {"prompt": "x", "max_tokens": 3}),
        ("/v1/moderations", {}, {"input": "x"}),
    ],
)
def test_each_endpoint_gets_its_own_body(
    endpoint: str, arguments: dict[str, str | int], expected: dict[str, str | int]
) -> None:
    assert body_of(spec(endpoint=endpoint, **arguments), id=1, body="x") == {"model": "gpt-5-mini", **expected}


# --- custom_id ---


@pytest.mark.parametrize(
    ("value", "custom_id"),
    [(7, "7"), (" T 1 ", " T 1 "), (Decimal("7"), "7"), (UUID(int=7), str(UUID(int=7))), ("é" * 600, "é" * 600)],
)
def test_a_custom_id_is_exactly_the_text_of_its_value(value: Any, custom_id: str) -> None:
    assert render(spec(), id=value, body="x").custom_id == custom_id


def test_a_custom_id_may_combine_several_columns() -> None:
    assert render(spec(custom_id="{{ row.shop }}/{{ row.id }}"), id=7, shop="a", body="x").custom_id == "a/7"


@pytest.mark.parametrize(
    ("value", "expected_message"),
    [
        (None, "The value is NULL"),
        ("", "The value is ''"),
        (" \n", r"The value is ' \n'"),
        (True, "boolean True"),
        (b"7", ", column 'id': The value is binary"),
        (memoryview(b"7"), ", column 'id': The value is binary"),
        ("\ud800", ", column 'id': The text contains half of a surrogate pair"),
    ],
)
def test_an_unusable_custom_id_is_an_error_that_names_the_row(value: Any, expected_message: str) -> None:
    message = error_message(spec(), CustomIdError, id=value, body="x")
    assert message.startswith("Row 17, custom_id")
    assert expected_message in message


def test_bytes_inside_a_custom_id_are_reported_for_the_custom_id() -> None:
    assert "column 'id'" in error_message(spec(custom_id="T-{{ row.id }}"), CustomIdError, id=b"7", body="x")


# --- model ---


def test_a_model_may_differ_from_row_to_row() -> None:
    for arguments in ({"model": "{{ row.model }}"}, {"model": None, "body": {"model": " {{ row.model }}\n"}}):
        request = render(spec(**arguments), id=1, body="x", model="gpt-5-nano")
        assert request.model == "gpt-5-nano"
        assert json.loads(request.body)["model"] == "gpt-5-nano"


@pytest.mark.parametrize(
    "arguments", [{"model": "{{ row.model }}"}, {"model": None, "body": {"model": "{{ row.model }}"}}]
)
@pytest.mark.parametrize("value", [None, "", " "])
def test_a_row_without_a_model_is_an_error(arguments: dict[str, Any], value: str | None) -> None:
    message = error_message(spec(**arguments), id="T-99", body="x", model=value)
    assert message.startswith("Row 17 (custom_id 'T-99'), ")
    assert "model: The model is empty" in message


# --- system and prompt ---


def test_a_row_with_a_blank_system_is_sent_without_a_system_message() -> None:
    for endpoint, key in (("/v1/chat/completions", "messages"), ("/v1/responses", "instructions")):
        with_system = spec(endpoint=endpoint, system="{{ row.system }}")
        body_without_system = body_of(spec(endpoint=endpoint), id=1, body="x")
        for blank in (None, "", " \n"):
            assert body_of(with_system, id=1, body="x", system=blank) == body_without_system
        assert body_of(with_system, id=1, body="x", system="s")[key] != body_without_system.get(key)


def test_a_system_that_was_left_empty_in_a_form_is_ignored() -> None:
    assert body_of(spec(system=""), id=1, body="x") == body_of(spec(), id=1, body="x")


def test_a_prompt_is_text_for_any_column_type() -> None:
    for value, content in ((5, "5"), ({"a": [1]}, '{"a":[1]}'), (date(2026, 1, 2), "2026-01-02"), ("1e5", "1e5")):
        assert body_of(spec(), id=1, body=value)["messages"][0]["content"] == content


@pytest.mark.parametrize("value", [None, "", " \n"])
@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions"])
def test_an_empty_prompt_is_an_error_that_suggests_a_where_clause(endpoint: str, value: str | None) -> None:
    message = error_message(spec(endpoint=endpoint), id="T-99", body=value)
    assert message.startswith("Row 17 (custom_id 'T-99'), prompt: The input is empty")
    assert "with `WHERE body <> ''`" in message


def test_a_prompt_of_several_columns_is_empty_only_if_all_of_them_are() -> None:
    two = spec(prompt="{{ row.title }}\n\n{{ row.body }}")
    assert "WHERE title <> '' OR body <> ''" in error_message(two, id=1, title=None, body=None)
    assert body_of(two, id=1, title=None, body="x")["messages"][0]["content"] == "\n\nx"


@pytest.mark.parametrize("argument", ["prompt", "system", "body"])
@pytest.mark.parametrize("source", ["{{ row.photo }}", "see {{ row.photo }}", "{{ row.photo | string }}"])
@pytest.mark.parametrize("value", [b"\x89PNG", bytearray(b"\x89"), memoryview(b"\x89")])
def test_bytes_are_an_error_that_names_argument_column_row_and_custom_id(
    argument: str, source: str, value: bytes | bytearray | memoryview
) -> None:
    value_with_photo = {"metadata": {"photo": source}} if argument == "body" else source
    message = error_message(spec(**{argument: value_with_photo}), TemplateError, id="T-99", body="x", photo=value)
    path = "body.metadata.photo" if argument == "body" else argument
    assert message.startswith(f"Row 17 (custom_id 'T-99'), {path}, column 'photo': The value is binary")


def test_text_with_a_lone_surrogate_is_an_error_that_names_the_column() -> None:
    message = error_message(
        spec(prompt="{{ row.title }}{{ row.body }}"), TemplateError, id="T-99", title="a", body="b\udfff"
    )
    assert message.startswith(
        "Row 17 (custom_id 'T-99'), prompt, column 'body': The text contains half of a surrogate pair"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN")])
def test_numbers_that_json_cannot_express_are_an_error(value: float | Decimal) -> None:
    message = error_message(spec(body={"temperature": "{{ row.t }}"}), TemplateError, id="T-99", body="x", t=value)
    assert message.startswith("Row 17 (custom_id 'T-99'), body.temperature, column 't': ")


def test_an_exception_in_a_template_is_an_error_that_names_the_row() -> None:
    message = error_message(spec(prompt="{{ row.body / 0 }}"), TemplateError, id="T-99", body=1)
    assert message.startswith(
        "Row 17 (custom_id 'T-99'), prompt: The template raised ZeroDivisionError: division by zero."
    )


def test_an_unknown_column_that_another_column_names_is_an_error_that_names_the_row() -> None:
    message = error_message(spec(prompt="{{ row[row.which] }}"), TemplateError, id="T-99", body="x", which="bodi")
    assert message.startswith("Row 17 (custom_id 'T-99'), prompt: There is no column 'bodi'")
    assert "Did you mean 'body'?" in message


# --- prompts that are lists ---

IMAGE = [
    {"type": "text", "text": "What is on {{ row.title }}?"},
    {"type": "image_url", "image_url": {"url": "{{ row.url }}", "detail": "low"}},
]


def test_content_parts_may_contain_templates_at_any_depth() -> None:
    content = [
        {"type": "text", "text": "What is on 7?"},
        {"type": "image_url", "image_url": {"url": "https://example.org/7.png", "detail": "low"}},
    ]
    row = {"id": 1, "title": 7, "url": "https://example.org/7.png"}
    assert body_of(spec(prompt=IMAGE, system="s"), **row)["messages"][1]["content"] == content
    assert body_of(spec(prompt=IMAGE, endpoint="/v1/responses"), **row)["input"] == [
        {"role": "user", "content": content}
    ]
    assert body_of(spec(prompt=IMAGE, endpoint="/v1/moderations"), **row)["input"] == content


def test_a_text_part_is_text_for_any_column_type() -> None:
    parts = [{"type": "text", "text": "{{ row.body }}"}]
    assert body_of(spec(prompt=parts), id=1, body=5)["messages"][0]["content"] == [{"type": "text", "text": "5"}]


def test_an_image_without_a_url_is_an_error() -> None:
    message = error_message(spec(prompt=IMAGE), id="T-99", title="x", url=None)
    assert message.startswith("Row 17 (custom_id 'T-99'), prompt[1].image_url.url: The input is empty")
    assert "WHERE url <> ''" in message


def test_an_image_may_come_without_text() -> None:
    parts = [{"type": "text", "text": "{{ row.title }}"}, IMAGE[1]]
    assert body_of(spec(prompt=parts), id=1, title=None, url="u")["messages"][0]["content"][0]["text"] == ""


def test_some_text_parts_may_be_empty_but_not_all_of_them() -> None:
    parts = [{"type": "text", "text": "Label:"}, *({"type": "text", "text": f"{{{{ row.{x} }}}}"} for x in ("a", "b"))]
    assert body_of(spec(prompt=parts), id=1, a=None, b="x")["messages"][0]["content"][1]["text"] == ""
    assert body_of(spec(prompt=parts), id=1, a="x", b=None)["messages"][0]["content"][2]["text"] == ""
    assert "WHERE a <> '' OR b <> ''" in error_message(spec(prompt=parts), id=1, a=None, b=" ")


def test_each_text_of_an_embeddings_row_is_one_input() -> None:
    several = spec(endpoint="/v1/embeddings", prompt=["{{ row.title }}", "about {{ row.body }}"])
    request = render(several, id=1, title=5, body="x")
    assert request.inputs == 2
    assert json.loads(request.body)["input"] == ["5", "about x"]
    assert "prompt[0]: The input is empty" in error_message(several, id=1, title="", body="x")


@pytest.mark.parametrize("endpoint", ["/v1/embeddings", "/v1/moderations", "/v1/responses", "/v1/chat/completions"])
def test_a_single_text_is_one_input(endpoint: str) -> None:
    assert render(spec(endpoint=endpoint), id=1, body="x").inputs == 1


# --- body ---


def test_a_single_expression_in_the_body_keeps_its_type() -> None:
    body = {
        "seed": "{{ row.seed }}",
        "metadata": {"n": "no. {{ row.seed }}", "tags": ["{{ row.tags }}", 1.5, None, True]},
        "user": "{{ row.user }}",
        "price": "{{ row.price }}",
        "at": "{{ row.at }}",
        "literal": "a { b }",
    }
    row: dict[str, Any] = {
        "seed": 5,
        "tags": ["a"],
        "user": None,
        "price": Decimal("1.50"),
        "at": datetime(2026, 1, 2, tzinfo=UTC),
    }
    request = render(spec(body=body), id=1, body="x", **row)
    assert json.loads(request.body) == {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "x"}],
        "seed": 5,
        "metadata": {"n": "no. 5", "tags": [["a"], 1.5, None, True]},
        "user": None,
        "price": 1.5,
        "at": "2026-01-02T00:00:00+00:00",
        "literal": "a { b }",
    }
    assert b'"price":1.50,' in request.body


def test_the_body_may_contain_the_input() -> None:
    messages = [{"role": "user", "content": "{{ row.body }}"}]
    by_body = spec(prompt=None, body={"messages": messages})
    assert render(by_body, id=1, body="x").body == render(spec(), id=1, body="x").body
    message = error_message(by_body, id="T-99", body=None)
    assert message.startswith("Row 17 (custom_id 'T-99'), body.messages: The input is empty")
    assert "WHERE body <> ''" in message


def test_the_messages_may_come_from_a_column() -> None:
    by_column = spec(prompt=None, body={"messages": "{{ row.chat }}"})
    chat = [{"role": "user", "content": "x"}]
    assert body_of(by_column, id=1, chat=chat)["messages"] == chat
    assert "body.messages: The input is empty" in error_message(by_column, id=1, chat=None)
    assert "must be a list of objects" in error_message(by_column, id=1, chat=json.dumps(chat))
    by_text = spec(prompt=None, body={"messages": "{{ row.chat | fromjson }}"})
    assert body_of(by_text, id=1, chat=json.dumps(chat))["messages"] == chat


def test_the_inputs_of_an_embeddings_body_are_counted_row_by_row() -> None:
    by_body = spec(endpoint="/v1/embeddings", prompt=None, body={"input": "{{ row.chunks }}"})
    assert render(by_body, id=1, chunks=["a", "b", "c"]).inputs == 3
    assert render(by_body, id=1, chunks="a").inputs == 1
    assert render(by_body, id=1, chunks=[1, 2, 3]).inputs == 1
    assert "body.input: The input is empty" in error_message(by_body, id=1, chunks=["a", ""])


def test_a_stored_prompt_of_the_provider_replaces_the_input_of_responses() -> None:
    stored_prompt = spec(
        endpoint="/v1/responses", prompt=None, body={"prompt": {"id": "p", "variables": {"t": "{{ row.body }}"}}}
    )
    assert body_of(stored_prompt, id=1, body="x")["prompt"] == {"id": "p", "variables": {"t": "x"}}


# --- request= ---


def question(row: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": row["body"]}]}


def test_a_function_builds_the_body_of_a_row() -> None:
    by_function = spec(prompt=None, request=question)
    assert render(by_function, id=1, body="x").body == render(spec(), id=1, body="x").body


@pytest.mark.parametrize("path", [f"{__name__}:question", f"{__name__}.question"])
def test_a_function_may_be_given_by_its_import_path(path: str) -> None:
    assert render(spec(prompt=None, request=path), id=1, body="x").body == render(spec(), id=1, body="x").body


def test_schema_cap_and_base_body_are_added_to_what_a_function_returns() -> None:
    arguments = {"output_schema": SCHEMA, "max_output_tokens": 9, "body": {"temperature": 0, "user": "{{ row.id }}"}}
    by_function = spec(prompt=None, request=question, **arguments)
    assert render(by_function, id=1, body="x").body == render(spec(**arguments), id=1, body="x").body


def test_the_model_that_a_function_returns_takes_precedence() -> None:
    by_function = spec(prompt=None, request=lambda row: {**question(row), "model": row["model"]})
    assert render(by_function, id=1, body="x", model="other").model == "other"
    assert render(by_function, id=1, body="x", model=None).model == "gpt-5-mini"


def test_a_function_counts_the_inputs_of_embeddings() -> None:
    by_function = spec(endpoint="/v1/embeddings", prompt=None, request=lambda row: {"input": row["chunks"]})
    request = render(by_function, id=1, chunks=["a", "b"])
    assert request.inputs == 2
    assert json.loads(request.body)["encoding_format"] == "base64"


def test_a_function_gets_its_own_copy_of_the_row() -> None:
    rows = []

    def greedy(row: dict[str, int | bytes]) -> dict[str, list[dict[str, str]]]:
        rows.append(dict(row))
        row.clear()
        return {"messages": [{"role": "user", "content": "x"}]}

    render(spec(prompt=None, request=greedy), id=1, Photo=b"\x00")
    assert rows == [{"id": 1, "Photo": b"\x00"}]


def test_a_function_may_return_tuples_and_read_only_dicts() -> None:
    def frozen(row: dict[str, int | str]) -> Any:
        return MappingProxyType({"messages": (MappingProxyType(question(row)["messages"][0]),)})

    by_function = spec(prompt=None, request=frozen)
    assert render(by_function, id=1, body="x").body == render(spec(), id=1, body="x").body


def fails(row: dict[str, str]) -> None:
    raise ValueError("no such shop")


@pytest.mark.parametrize(
    ("function", "expected_message"),
    [
        (fails, "The function raised ValueError: no such shop."),
        (lambda row: None, "must return the request body as a dict, not NoneType"),
        (lambda row: {}, "The function returned no 'messages'"),
        (lambda row: {"messages": []}, "The input is empty"),
        (lambda row: {"messages": "x"}, "must be a list of objects"),
        (
            lambda row: {**question(row), "temperature": 1},
            "The function returned 'temperature', and the body sets it too",
        ),
        (lambda row: {**question(row), "input": "x"}, "does not support 'input' in the body"),
        (lambda row: {**question(row), "response_format": {}}, "The argument `output_schema` sets 'response_format'"),
        (lambda row: {**question(row), "max_tokens": 1}, "The argument `max_output_tokens` sets 'max_tokens'"),
        (lambda row: {**question(row), "stream": True}, "Remove 'stream' from the body"),
        (lambda row: {**question(row), "model": 5}, "must return 'model' as a string, not int"),
        (lambda row: {**question(row), "user": b"x"}, "The value is binary"),
        (lambda row: {**question(row), "top_p": float("nan")}, "JSON cannot represent the number nan"),
        (lambda row: {**question(row), "user": "\ud800"}, "surrogate"),
        (lambda row: {**question(row), "user": object()}, "A value of type object cannot be written as JSON"),
        (lambda row: question(row) | cast("dict[str, Any]", {5: 1}), "The key 5 is not a string"),
    ],
)
def test_an_invalid_result_of_a_function_is_an_error_that_names_the_row(
    function: Callable[..., Any], expected_message: str
) -> None:
    by_function = spec(
        prompt=None, request=function, output_schema=SCHEMA, max_output_tokens=9, body={"temperature": 0}
    )
    message = error_message(by_function, id="T-99", body="x")
    assert message.startswith("Row 17 (custom_id 'T-99'), request: ")
    assert expected_message in message


def test_a_row_without_any_model_is_an_error() -> None:
    assert "The function returned no 'model'" in error_message(
        spec(prompt=None, model=None, request=question), id=1, body="x"
    )


@pytest.mark.parametrize(
    ("path", "expected_message"),
    [
        ("no_such_package.module:function", "ModuleNotFoundError"),
        (f"{__name__}:nothing", "AttributeError"),
        (f"{__name__}:SCHEMA", "must be a function, but it is a dict"),
    ],
)
def test_an_import_path_that_does_not_resolve_is_an_error(path: str, expected_message: str) -> None:
    with pytest.raises(InputError, match=expected_message):
        compile_renderer(spec(prompt=None, request=path), ["id"], {})


# --- before there are rows ---


@pytest.mark.parametrize(
    ("arguments", "expected_message"),
    [
        ({"endpoint": "/v1/videos"}, "endpoint: '/v1/videos' is not supported"),
        ({"custom_id": None}, "custom_id: This argument is required"),
        ({"custom_id": ""}, "custom_id: The value must not be empty"),
        ({"custom_id": 5}, "custom_id: Expected a string"),
        ({"model": None}, "model: No model is given"),
        ({"model": " "}, "model: The value must not be empty"),
        ({"model": 5}, "model: Expected a string"),
        ({"model": None, "body": {"model": 5}}, "body.model: Expected the name of a model"),
        ({"model": None, "body": {"model": ""}}, "body.model: Expected the name of a model"),
        ({"body": {"model": "x"}}, "body: The argument `model` sets the model, and so does the body"),
        ({"system": 5}, "system: Expected a string"),
        ({"prompt": None}, "prompt: The requests would have no input"),
        ({"prompt": None, "system": "s"}, "prompt: The requests would have no input"),
        ({"prompt": ""}, "prompt: The prompt must not be empty"),
        ({"prompt": []}, "prompt: The prompt must not be empty"),
        ({"prompt": 5}, "prompt: Expected a string or a list"),
        ({"prompt": ["x"]}, "expects a string or a list of content parts"),
        ({"prompt": [{"text": "x"}], "endpoint": "/v1/embeddings"}, "expects a string or a list of strings"),
        ({"prompt": ["x", ""], "endpoint": "/v1/embeddings"}, "prompt: The prompt must not be empty"),
        ({"prompt": ["x", {"text": "x"}], "endpoint": "/v1/moderations"}, "content parts (dicts) or strings"),
        ({"prompt": ["x"], "endpoint": "/v1/completions"}, "expects a string."),
        ({"body": ["x"]}, "body: Expected a dict"),
        ({"body": {"messages": []}}, "body: The argument `prompt` sets 'messages'"),
        ({"prompt": None, "body": {"messages": []}}, "body.messages: The input is empty"),
        ({"prompt": None, "body": {"messages": None}}, "body.messages: The input is empty"),
        ({"body": {"stream": True}}, "body: Remove 'stream' from the body"),
        ({"body": {"n": 3}}, "body: Remove 'n' from the body"),
        ({"body": {"extra_body": {"top_k": 1}}}, "body: Remove 'extra_body' from the body"),
        ({"body": {"input": "x"}}, "does not support 'input' in the body. Use 'messages' instead"),
        ({"body": {"metadata": {"a": [b"x"]}}}, "body.metadata.a[0]: The value is binary"),
        ({"body": {"top_p": float("nan")}}, "body.top_p: JSON cannot represent the number nan"),
        ({"body": {"tools": [object()]}}, "body.tools[0]: A value of type object cannot be written as JSON"),
        ({"body": {"logit_bias": {50256: -100}}}, "body.logit_bias: The key 50256 is not a string"),
        ({"body": {"user": "\ud800"}}, "body.user: The text contains half of a surrogate pair"),
        ({"body": {"response_format": {}}, "output_schema": SCHEMA}, "argument `output_schema` sets 'response_format'"),
        ({"body": {"max_tokens": 1}, "max_output_tokens": 1}, "argument `max_output_tokens` sets 'max_tokens'"),
        ({"max_output_tokens": 0}, "max_output_tokens: Expected a whole number"),
        ({"max_output_tokens": True}, "max_output_tokens: Expected a whole number"),
        ({"max_output_tokens": "9"}, "max_output_tokens: Expected a whole number"),
        ({"output_schema": int}, "output_schema: Expected a JSON Schema"),
        (
            {"output_schema": SCHEMA, "endpoint": "/v1/embeddings"},
            "output_schema: /v1/embeddings does not support this argument",
        ),
        (
            {"max_output_tokens": 1, "endpoint": "/v1/moderations"},
            "max_output_tokens: /v1/moderations does not support",
        ),
        ({"system": "s", "endpoint": "/v1/completions"}, "system: /v1/completions does not support this argument"),
        ({"request": question}, "prompt: This argument cannot be combined with `request`"),
        (
            {"request": question, "prompt": None, "system": "s"},
            "system: This argument cannot be combined with `request`",
        ),
        ({"request": 5, "prompt": None}, "request: Expected a function"),
        ({"request": "question", "prompt": None}, "Expected an import path"),
        ({"request": "a b:c", "prompt": None}, "Expected an import path"),
        ({"prompt": "{{ row.x"}, "prompt, line 1: "),
        ({"body": {"metadata": {"a": ["{{ row.x"]}}}, "body.metadata.a[0], line 1: "),
    ],
)
def test_invalid_arguments_are_rejected_before_there_are_rows(arguments: dict[str, Any], expected_message: str) -> None:
    for validate in (check, lambda request_spec: compile_renderer(request_spec, ["id", "body", "x"], {})):
        with pytest.raises(InputError) as error_info:
            validate(spec(**arguments))
        assert expected_message in str(error_info.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"request": "no_such_package.module:function", "prompt": None, "model": None},
        {"prompt": "{{ row.anything }} {{ params.anything }}"},
        {"body": {"stream": False}},
        {"body": {"text": {"verbosity": "low"}}, "endpoint": "/v1/responses", "output_schema": SCHEMA},
        {"body": {}},
    ],
)
def test_arguments_that_only_rows_can_invalidate_pass_the_check(arguments: dict[str, Any]) -> None:
    check(spec(**arguments))


@pytest.mark.parametrize("argument", ["custom_id", "model", "system", "prompt", "body"])
def test_an_unknown_column_is_found_without_rows(argument: str) -> None:
    value = {"metadata": {"a": ["{{ row.titel }}"]}} if argument == "body" else "{{ row.titel }}"
    with pytest.raises(TemplateError) as error_info:
        compile_renderer(spec(**{argument: value}), ["id", "title", "body"], {})
    assert str(error_info.value).startswith(
        "body.metadata.a[0], line 1" if argument == "body" else f"{argument}, line 1"
    )
    assert "no column 'titel'" in str(error_info.value)
    assert "'title'" in str(error_info.value)
    assert "id, title, body" in str(error_info.value)


def test_a_duplicate_column_is_found_without_rows() -> None:
    with pytest.raises(InputError, match="two columns named 'id'"):
        compile_renderer(spec(), ["id", "id", "body"], {})


def test_the_context_of_templates_must_hold_plain_values() -> None:
    with pytest.raises(InputError, match=r"^conn: Row templates can only use plain values"):
        compile_renderer(spec(), ["id", "body"], {"conn": object()})


def test_templates_may_use_the_params_and_the_dag_run() -> None:
    tone = spec(prompt="{{ params.tone }} {{ dag_run.conf.lang }} {{ run_id }}: {{ row.body }}")
    context = {"params": {"tone": "kind"}, "dag_run": {"conf": {"lang": "de"}}, "run_id": "manual"}
    request = render(tone, context=context, id=1, body="{{ params.tone }}")
    assert json.loads(request.body)["messages"][0]["content"] == "kind de manual: {{ params.tone }}"


# --- properties ---

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("abcdefgh_", min_size=1, max_size=5).map(lambda name: "x_" + name)


def without_jinja(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_jinja(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_jinja(item) for item in value]
    return value.replace("{", "(") if isinstance(value, str) else value


@given(st.dictionaries(NAMES, JSON_VALUES, max_size=4), TEXT.filter(str.strip), JSON_VALUES)
def test_a_body_has_the_value_that_was_written_as_canonical_json(
    extra: dict[str, Any], prompt: str, value: list[Any] | float | dict[str, Any] | None
) -> None:
    extra = without_jinja(extra)
    request = render(spec(body={**extra, "x": {"deep": ["{{ row.value }}"]}}), id=1, body=prompt, value=value)
    expected = {
        **extra,
        "x": {"deep": [value]},
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": prompt}],
    }
    assert json.loads(request.body) == expected
    assert request.body == canonical_json(expected)


@given(st.dictionaries(NAMES, JSON_VALUES, min_size=1, max_size=4), st.randoms())
def test_the_order_of_keys_in_a_body_makes_no_difference(extra: dict[str, Any], random: Any) -> None:
    extra = without_jinja(extra)
    order = list(extra)
    random.shuffle(order)
    reordered = {key: extra[key] for key in order}
    assert render(spec(body=extra), id=1, body="x").body == render(spec(body=reordered), id=1, body="x").body


@given(TEXT.filter(str.strip), TEXT.filter(str.strip))
def test_equivalent_templates_and_functions_produce_the_same_bytes(system: str, prompt: str) -> None:
    def function(row: dict[str, Any]) -> dict[str, Any]:
        return {
            "messages": [{"content": row["system"], "role": "system"}, {"content": row["body"], "role": "user"}],
        }

    by_templates = spec(system="{{ row.system }}", output_schema=SCHEMA, max_output_tokens=5)
    by_function = spec(prompt=None, request=function, output_schema=SCHEMA, max_output_tokens=5)
    row: dict[str, Any] = {"id": 1, "system": system, "body": prompt}
    assert render(by_templates, **row).body == render(by_function, **row).body


@given(TEXT.filter(str.strip), TEXT.filter(str.strip))
def test_a_line_preserves_the_custom_id_and_the_data(custom_id: str, prompt: str) -> None:
    request = render(spec(), id=custom_id, body=prompt)
    line = json.loads(request_line(request.custom_id, "/v1/chat/completions", request.body))
    assert line["custom_id"] == custom_id
    assert line["body"]["messages"][0]["content"] == prompt


def test_a_renderer_keeps_no_row_in_memory() -> None:
    renderer = compile_renderer(spec(prompt="{% if row.body %}{{ row.body | trim }}{% endif %}"), ["id", "body"], {})
    renderer([("warm", "up")], 1)
    tracemalloc.start()
    try:
        for number in range(200):
            renderer([(str(number), f"{number}" + "x" * 100_000)], number)
        traced_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert traced_bytes < 1_000_000
