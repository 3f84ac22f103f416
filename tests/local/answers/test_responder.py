"""The answers of the offline responder, over the synchronous endpoints and in batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import openai
import pytest
from openai import OpenAI
from openai.types.responses import Response
from pydantic import BaseModel

from tests.local.driving import answers, chat, failures, run

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion


class Ticket(BaseModel):
    """A label for one support ticket."""

    category: Literal["billing", "login", "shipping", "other"]
    urgent: bool
    score: float


SYSTEM = """You label support tickets.
- billing: invoices, refunds, charges, payment
- login: password, sign in, locked account
- shipping: parcel, delivery, courier
- other: anything else"""


def complete_chat(client: OpenAI, prompt: str, **body: Any) -> ChatCompletion:
    messages: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}]
    answer: ChatCompletion = client.chat.completions.create(**{"model": "gpt-5-mini", "messages": messages, **body})
    return answer


def respond(client: OpenAI, prompt: str, **body: Any) -> Response:
    answer = client.responses.create(**{"model": "gpt-5-mini", "input": prompt, **body})
    assert isinstance(answer, Response)
    return answer


def test_answers_state_that_no_model_was_called(client: OpenAI) -> None:
    answer = complete_chat(client, "hello")

    assert answer.model == "offline-responder/gpt-5-mini"
    assert "no model was called" in (answer.choices[0].message.content or "")
    assert answer.choices[0].message.content == complete_chat(client, "hello").choices[0].message.content
    assert answer.choices[0].message.content != complete_chat(client, "other").choices[0].message.content


@pytest.mark.parametrize(
    ("prompt", "category"),
    [
        ("I was charged twice, please refund my payment", "billing"),
        ("My password does not work and the account is locked", "login"),
        ("The courier lost my parcel", "shipping"),
        ("Zebras hum quietly", "other"),
    ],
)
def test_structured_output_is_parsed_by_the_sdk_and_classified_by_shared_words(
    client: OpenAI, prompt: str, category: str
) -> None:
    completion = client.chat.completions.parse(
        model="gpt-5-mini",
        messages=[{"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}],
        response_format=Ticket,
    )
    response = client.responses.parse(model="gpt-5-mini", instructions=SYSTEM, input=prompt, text_format=Ticket)

    assert completion.choices[0].message.parsed is not None
    assert completion.choices[0].message.parsed.category == category
    assert response.output_parsed == completion.choices[0].message.parsed


def test_an_answer_is_cut_off_at_the_limit_on_output_tokens(client: OpenAI) -> None:
    completion = complete_chat(client, "hello", max_completion_tokens=5)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 5
    assert len(completion.choices[0].message.content or "") == 20

    response = respond(client, "hello", max_output_tokens=16)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 16

    assert complete_chat(client, "hello", max_completion_tokens=500).choices[0].finish_reason == "stop"


def test_a_marker_produces_a_refusal(client: OpenAI) -> None:
    message = complete_chat(client, "hello [[refuse]]").choices[0].message
    assert message.content is None
    assert message.refusal

    (item,) = respond(client, "hello [[refuse]]").output
    assert item.type == "message"
    assert [part.type for part in item.content] == ["refusal"]


def test_a_marker_cuts_the_answer_off(client: OpenAI) -> None:
    assert complete_chat(client, "hello [[cutoff]]").choices[0].finish_reason == "length"
    response = respond(client, "hello [[cutoff]]")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_a_marker_triggers_the_content_filter(client: OpenAI) -> None:
    assert complete_chat(client, "hello [[filter]]").choices[0].finish_reason == "content_filter"
    response = respond(client, "hello [[filter]]")
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "content_filter"


def test_a_marker_produces_an_answer_that_does_not_fit_the_schema(client: OpenAI) -> None:
    form = {"name": "ticket", "schema": Ticket.model_json_schema()}
    answer = complete_chat(
        client, "hello [[invalid-json]]", response_format={"type": "json_schema", "json_schema": form}
    )

    assert answer.choices[0].finish_reason == "stop"
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (504, openai.InternalServerError),
    ],
)
def test_a_marker_produces_an_http_error(client: OpenAI, status: int, kind: type[openai.APIStatusError]) -> None:
    with pytest.raises(kind) as error:
        complete_chat(client, f"hello [[fail:{status}]]")
    assert error.value.status_code == status


def test_a_once_marker_takes_effect_once_per_custom_id_and_text(client: OpenAI) -> None:
    lines = [chat("a", "once [[fail:500:once]]"), chat("b", "once [[fail:500:once]]")]
    first, second = run(client, lines), run(client, lines)
    assert set(failures(client, first)) == {"a", "b"}
    assert set(answers(client, second)) == {"a", "b"}

    changed = run(client, [chat("a", "another text [[fail:500:once]]")])
    assert set(failures(client, changed)) == {"a"}


def test_several_once_markers_take_effect_one_after_the_other(client: OpenAI) -> None:
    line = chat("steps", "[[fail:500:once]] [[fail:429:once]] [[refuse:once]] then fine")

    statuses = [failures(client, run(client, [line]))["steps"]["response"]["status_code"] for _ in range(2)]
    assert statuses == [500, 429]
    assert answers(client, run(client, [line]))["steps"]["choices"][0]["message"]["refusal"]
    assert answers(client, run(client, [line]))["steps"]["choices"][0]["message"]["content"]


def test_a_marker_in_the_system_prompt_has_no_effect(client: OpenAI) -> None:
    line = chat("a", "hello")
    line["body"]["messages"].insert(0, {"role": "system", "content": "[[fail:500]]"})

    assert set(answers(client, run(client, [line]))) == {"a"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"messages": []}, "empty_array"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_type"),
        ({"messages": [{"role": "user", "content": None}]}, "invalid_type"),
        ({"messages": [{"role": "boss", "content": "x"}]}, "invalid_value"),
        ({"messages": "hello"}, "invalid_type"),
        ({"messages": [{"role": "user", "content": "x" * 600_000}]}, "context_length_exceeded"),
        ({"temperature": 3}, "decimal_above_max_value"),
        ({"temperature": "0"}, "invalid_type"),
        ({"max_completion_tokens": 0}, "integer_below_min_value"),
        ({"n": 1000}, "integer_above_max_value"),
        ({"response_format": "json"}, "invalid_type"),
        ({"response_format": {"type": "json_schema"}}, "missing_required_parameter"),
    ],
)
def test_a_request_that_openai_would_reject_fails_alone_with_400(
    client: OpenAI, body: dict[str, Any], code: str
) -> None:
    batch = run(client, [chat("good", "hello"), chat("bad", "hello", **body)])

    assert batch.status == "completed"
    assert set(answers(client, batch)) == {"good"}
    line = failures(client, batch)["bad"]
    assert line["error"] is None
    assert line["response"]["status_code"] == 400
    assert line["response"]["body"]["error"]["code"] == code


def test_a_strict_schema_must_require_all_properties_and_forbid_others(client: OpenAI) -> None:
    inner: dict[str, Any] = {"type": "object", "properties": {"b": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"a": inner},
        "required": ["a"],
        "additionalProperties": False,
    }
    with pytest.raises(openai.BadRequestError, match=r"'properties', 'a'.*'additionalProperties'"):
        _strict(client, schema)
    inner["additionalProperties"] = False
    with pytest.raises(openai.BadRequestError, match="Missing 'b'"):
        _strict(client, schema)
    inner["required"] = ["b"]
    assert _strict(client, schema).choices[0].message.content


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"type": "string", "format": "uri"}, r"'properties', 'a'.*'uri' is not a valid format"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "'uniqueItems' is not permitted"),
        ({"oneOf": [{"type": "string"}, {"type": "null"}]}, "'oneOf' is not permitted"),
    ],
)
def test_a_strict_schema_has_no_keywords_and_formats_that_openai_refuses(
    client: OpenAI, node: dict[str, Any], problem: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=problem):
        _strict(client, _object_of(node))


def test_a_lookaround_in_a_strict_schema_is_answered_with_500(client: OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        _strict(client.with_options(max_retries=0), _object_of({"type": "string", "pattern": r"^(?!0)\d+$"}))


def _object_of(node: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": node}, "required": ["a"], "additionalProperties": False}


def _strict(client: OpenAI, schema: dict[str, Any]) -> ChatCompletion:
    form = {"name": "x", "strict": True, "schema": schema}
    return complete_chat(client, "hello", response_format={"type": "json_schema", "json_schema": form})


def test_a_schema_that_cannot_be_filled_is_rejected(client: OpenAI) -> None:
    for schema in (
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[A-Z]{3}$"}}},
        {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:1/schema"}}},
        {"type": "nonsense"},
    ):
        form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        with pytest.raises(openai.BadRequestError, match="offline responder cannot answer"):
            complete_chat(client, "hello", response_format=form)


def test_several_choices_are_counted_in_the_output_tokens(client: OpenAI) -> None:
    single, triple = complete_chat(client, "hello"), complete_chat(client, "hello", n=3)

    assert [choice.index for choice in triple.choices] == [0, 1, 2]
    assert single.usage is not None
    assert triple.usage is not None
    assert triple.usage.completion_tokens == 3 * single.usage.completion_tokens


def test_an_invalid_response_request_is_rejected(client: OpenAI) -> None:
    invalid_bodies: list[dict[str, Any]] = [
        {"input": ""},
        {"input": []},
        {"max_output_tokens": 1},
        {"input": "x" * 600_000},
    ]
    for body in invalid_bodies:
        with pytest.raises(openai.BadRequestError):
            respond(client, "hello", **body)


def test_embeddings_are_floats_or_base64_of_the_same_numbers(client: OpenAI) -> None:
    floats = client.embeddings.create(model="text-embedding-3-small", input=["red pump"], encoding_format="float")
    base64_reply = client.embeddings.create(
        model="text-embedding-3-small", input=["red pump"], encoding_format="base64"
    )
    default = client.embeddings.create(model="text-embedding-3-small", input="red pump")

    # The SDK's type is a list of floats for every encoding.
    embedding: Any = base64_reply.data[0].embedding
    assert isinstance(embedding, str)
    assert default.data[0].embedding == floats.data[0].embedding


def test_an_invalid_embeddings_request_is_rejected(client: OpenAI) -> None:
    invalid_bodies: list[dict[str, Any]] = [
        {"input": ""},
        {"input": []},
        {"input": ["good", ""]},
        {"input": [1.5]},
        {"input": "word " * 9000},
        {"dimensions": 2000},
        {"dimensions": 0},
        {"encoding_format": "int8"},
    ]
    for body in invalid_bodies:
        request = {"model": "text-embedding-3-small", "input": "x", **body}
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(**request)


def test_the_synchronous_endpoints_reject_streaming(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support streaming"):
        complete_chat(client, "hello", stream=True)
