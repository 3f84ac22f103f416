"""Every request body is answered or rejected; none of them crashes the responder."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import BadRequestError, OpenAI

from airflow_provider_batch.local.answers.offline import OfflineResponder
from airflow_provider_batch.local.answers.prompt import CHAT, COMPLETIONS, EMBEDDINGS, ENDPOINTS, MODERATIONS, RESPONSES
from airflow_provider_batch.local.answers.replies import tokens_of
from airflow_provider_batch.local.answers.responder import ModelRequest
from airflow_provider_batch.local.answers.schema_answer import UnfillableSchemaError, fill
from tests.local.driving import chat, failures, problems, run
from tests.local.schemas import assert_fits

MARKERS = ("[[refuse]]", "[[filter]]", "[[cutoff:once]]", "[[fail:503]]", "[[flag:hate]]", "[[separators]]")
text = st.one_of(st.text(max_size=8), st.sampled_from(MARKERS))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text)
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)


def usually(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate the value, and occasionally something else."""
    return st.integers(0, 15).flatmap(lambda drawn: value if drawn else junk)


def object_of(*required: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Generate an object with the required fields and some of the others; most of their values are valid."""
    optional_fields = {name: usually(value) for name, value in fields.items()}
    required_fields = {name: optional_fields.pop(name) for name in required}
    return usually(st.fixed_dictionaries(required_fields, optional=optional_fields))


number = st.integers(0, 20)
parts = st.lists(
    st.one_of(
        object_of("type", "text", type=st.just("text"), text=text),
        object_of("type", "image_url", type=st.just("image_url"), image_url=object_of("url", url=text)),
    ),
    min_size=1,
    max_size=2,
)
message = object_of(
    "role", "content", role=st.sampled_from(["system", "user", "assistant"]), content=st.one_of(text, parts)
)
messages = st.lists(message, min_size=1, max_size=2)
bounds = {"minimum": number, "maximum": number, "multipleOf": number}
lengths = {"minLength": number, "maxLength": number, "pattern": text, "format": st.sampled_from(["date", "email"])}
schema: st.SearchStrategy[Any] = st.deferred(
    lambda: st.one_of(
        object_of("type", type=st.sampled_from(["string", ["string", "null"]]), **lengths),
        object_of("type", type=st.sampled_from(["integer", "number"]), **bounds),
        object_of("type", type=st.sampled_from(["boolean", "null"])),
        object_of("enum", enum=st.lists(scalars, max_size=3)),
        object_of("anyOf", anyOf=st.lists(schema, max_size=2)),
        object_of("type", type=st.just("array"), items=schema, minItems=number, maxItems=number),
        object_of("$ref", **{"$ref": st.sampled_from(["#", "#/properties/a", "#/nothing", "http://127.0.0.1:9/x"])}),
        root,
    )
)
root: st.SearchStrategy[Any] = object_of(
    "type",
    "properties",
    "required",
    type=st.just("object"),
    properties=st.dictionaries(st.sampled_from("ab"), schema, max_size=2),
    required=st.lists(st.sampled_from("abc"), max_size=2),
    additionalProperties=st.booleans(),
)
form = object_of(
    "name", "schema", "type", type=st.just("json_schema"), name=st.just("answer"), schema=root, strict=st.booleans()
)
tokens = st.lists(st.integers(0, 9), min_size=1, max_size=3)
words = st.lists(text, min_size=1, max_size=2)
inputs = st.one_of(text, words, tokens, st.lists(tokens, min_size=1, max_size=2))
#: endpoint -> a body with the parameters that it requires, and others that it accepts
BODIES = {
    CHAT: object_of(
        "model",
        "messages",
        model=st.just("gpt-5-mini"),
        messages=messages,
        n=number,
        max_tokens=number,
        max_completion_tokens=number,
        temperature=st.integers(0, 2),
        response_format=st.one_of(
            st.just({"type": "json_object"}),
            object_of("type", "json_schema", type=st.just("json_schema"), json_schema=form),
        ),
    ),
    RESPONSES: object_of(
        "model",
        "input",
        model=st.just("gpt-5-mini"),
        input=st.one_of(text, messages),
        instructions=text,
        max_output_tokens=st.integers(16, 40),
        text=object_of("format", format=form),
        metadata=junk,
    ),
    EMBEDDINGS: object_of(
        "model",
        "input",
        model=st.just("text-embedding-3-small"),
        input=inputs,
        dimensions=number,
        encoding_format=st.sampled_from(["float", "base64"]),
    ),
    COMPLETIONS: object_of(
        "model",
        "prompt",
        model=st.just("gpt-3.5-turbo-instruct"),
        prompt=inputs,
        n=number,
        max_tokens=number,
        best_of=number,
        echo=st.booleans(),
    ),
    MODERATIONS: object_of("input", input=st.one_of(text, words, parts), model=st.just("omni-moderation-latest")),
}
endpoints_and_bodies = st.sampled_from(ENDPOINTS).flatmap(
    lambda endpoint: st.tuples(st.just(endpoint), BODIES[endpoint].filter(lambda body: isinstance(body, dict)))
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(endpoints_and_bodies)
def test_any_body_is_answered_or_rejected_in_openais_format(endpoint_and_body: tuple[str, dict[str, Any]]) -> None:
    endpoint, body = endpoint_and_body
    reply = asyncio.run(OfflineResponder(lambda _: True).answer(ModelRequest(endpoint, body, "row")))

    assert isinstance(msgspec.json.decode(msgspec.json.encode(reply.body)), dict), "the reply can be encoded"
    tokens_of(endpoint, reply.body)
    if reply.status == 200:
        assert reply.body["model"].startswith("offline-responder/")
    elif reply.status != 0:
        assert_fits(reply.body, "ErrorResponse")
        assert 400 <= reply.status < 500 or reply.status == 503, reply.body


@settings(max_examples=200, deadline=None, derandomize=True)
@given(root.filter(lambda schema: isinstance(schema, dict)), text)
def test_any_schema_is_filled_or_reported_as_unfillable(schema: dict[str, Any], prompt: str) -> None:
    with suppress(UnfillableSchemaError):
        jsonschema.validate(fill(schema, text=prompt, instructions=prompt), schema)


@pytest.mark.parametrize("levels", [100, 400, 460, 480, 490, 2_000, 200_000])
def test_a_body_that_is_nested_too_deeply_is_rejected(client: OpenAI, levels: int) -> None:
    opening = '{"type":"object","additionalProperties":false,"required":["a"],"properties":{"a":'
    schema = opening * levels + "{}" + "}}" * levels
    form = f'{{"type":"json_schema","json_schema":{{"name":"deep","strict":true,"schema":{schema}}}}}'
    messages_json = '"messages":[{"role":"user","content":"x"}]'
    body = f'{{"model":"gpt-5-mini",{messages_json},"response_format":{form}}}'

    options: Any = {"headers": {"Content-Type": "application/json"}}
    with pytest.raises(BadRequestError):
        client.post("/chat/completions", cast_to=object, content=body.encode(), options=options)
    line = f'{{"custom_id":"deep","method":"POST","url":"{CHAT}","body":{body}}}'
    batch = run(client, [chat("good", "x"), line])
    if batch.status == "failed":
        assert problems(batch) == [("invalid_json_line", None, 2)]
    else:
        assert failures(client, batch)["deep"]["response"]["status_code"] == 400
