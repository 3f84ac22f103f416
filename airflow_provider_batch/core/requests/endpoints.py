"""What a request to each endpoint looks like: which keys of the body the row arguments fill.

From the request schemas of the OpenAI API specification: chat completions, responses, embeddings, completions
and moderations. Other keys are the caller's: they pass through `body` as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.value import is_blank
from airflow_provider_batch.exceptions import InputError


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint."""

    #: as in the batch's `endpoint` and each line's `url`
    path: str
    #: the key that holds what is asked; every request needs it
    input_key: str
    #: a key that may stand for `input_key`
    input_alternative: str | None = None
    #: the key that `system` fills; None where there is no such thing
    system_key: str | None = None
    #: the key that `output_schema` fills, wholly or in part
    schema_key: str | None = None
    #: the keys that limit the output; `max_output_tokens` fills the first
    cap_keys: tuple[str, ...] = ()
    #: `prompt` may be a list of content parts (objects)
    takes_parts: bool = False
    #: `prompt` may be a list of texts
    takes_texts: bool = False
    #: a list is so many inputs, each counted against the limit of a batch; elsewhere a request is one input
    counts_inputs: bool = False
    #: added unless the body says otherwise
    defaults: dict[str, Any] = {}
    #: keys of other endpoints, often mistaken -> what does the same here; None if nothing does
    instead: dict[str, str | None] = {}


CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"

_NO_TEXT_COMES_BACK = dict.fromkeys(
    ("response_format", "text", "max_tokens", "max_completion_tokens", "max_output_tokens")
)

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.path: endpoint
    for endpoint in (
        Endpoint(
            path=CHAT,
            input_key="messages",
            system_key="messages",
            schema_key="response_format",
            cap_keys=("max_completion_tokens", "max_tokens"),
            takes_parts=True,
            instead={
                "input": "messages",
                "instructions": "messages",
                "max_output_tokens": "max_completion_tokens",
                "text": "response_format",
            },
        ),
        Endpoint(
            path=RESPONSES,
            input_key="input",
            input_alternative="prompt",
            system_key="instructions",
            schema_key="text",
            cap_keys=("max_output_tokens",),
            takes_parts=True,
            instead={
                "messages": "input",
                "response_format": "text.format",
                "max_completion_tokens": "max_output_tokens",
                "max_tokens": "max_output_tokens",
            },
        ),
        Endpoint(
            path=EMBEDDINGS,
            input_key="input",
            takes_texts=True,
            counts_inputs=True,
            # A third of the bytes of decimal numbers, and many times faster to read.
            defaults={"encoding_format": "base64"},
            instead={"prompt": "input", "messages": "input", **_NO_TEXT_COMES_BACK},
        ),
        Endpoint(
            path="/v1/completions",
            input_key="prompt",
            cap_keys=("max_tokens",),
            instead={
                "messages": "prompt",
                "input": "prompt",
                "max_completion_tokens": "max_tokens",
                "max_output_tokens": "max_tokens",
            },
        ),
        Endpoint(
            path=MODERATIONS,
            input_key="input",
            takes_parts=True,
            takes_texts=True,
            instead={"prompt": "input", "messages": "input", **_NO_TEXT_COMES_BACK},
        ),
    )
}


def find(path: str) -> Endpoint:
    """The endpoint of a path. Raises InputError that lists the known ones."""
    try:
        return ENDPOINTS[path]
    except (KeyError, TypeError):
        raise InputError(f"endpoint: {path!r} is unknown. One of: {', '.join(ENDPOINTS)}.") from None


def checked(endpoint: Endpoint, body: dict[str, Any], spec: RequestSpec) -> dict[str, Any]:
    """The body, unless it has keys of another endpoint, streams, or says what an argument says too.

    Raises InputError.
    """
    for foreign, right in endpoint.instead.items():
        if foreign in body:
            way_out = "leave it out" if right is None else f"there it is {right!r}"
            raise InputError(f"{endpoint.path} has no {foreign!r} in its body; {way_out}.")
    if body.get("stream"):
        raise InputError("'stream' must be left out of the body: one streaming request fails a whole batch.")
    said: tuple[tuple[str, Any, tuple[str | None, ...]], ...] = (
        ("prompt", spec.prompt, (endpoint.input_key, endpoint.input_alternative)),
        ("system", spec.system, (endpoint.system_key,)),
        ("output_schema", spec.output_schema, (endpoint.schema_key,)),
        ("max_output_tokens", spec.max_output_tokens, endpoint.cap_keys),
    )
    for argument, value, keys in said:
        for key in keys:
            if value is None or key not in body or (key == "text" and _has_room_for_format(body[key])):
                continue
            raise InputError(f"{key!r} in the body and the argument {argument} say the same. Give one of them.")
    return body


def _has_room_for_format(text: Any) -> bool:
    """`text` of responses holds the verbosity too, which goes well with an output schema."""
    return isinstance(text, dict) and "format" not in text


def filled(
    endpoint: Endpoint, body: dict[str, Any], spec: RequestSpec, *, system: Any = None, prompt: Any = None
) -> dict[str, Any]:
    """A new body with everything in its place.

    `system` and `prompt` may be values, or stand for the value of each row: they are only placed.
    """
    result = {**endpoint.defaults, **body}
    if prompt is not None:
        message = {"role": "user", "content": prompt}
        if endpoint.path == CHAT:
            told = [] if system is None else [{"role": "system", "content": system}]
            result["messages"] = [*told, message]
        elif endpoint.path == RESPONSES and isinstance(prompt, list):
            result["input"] = [message]
        else:
            result[endpoint.input_key] = prompt
    if system is not None and endpoint.system_key == "instructions":
        result["instructions"] = system
    if spec.output_schema is not None:
        named = {"name": schema_name(spec.output_schema), "strict": True, "schema": spec.output_schema}
        if endpoint.path == CHAT:
            result["response_format"] = {"type": "json_schema", "json_schema": named}
        else:
            result["text"] = {**result.get("text", {}), "format": {"type": "json_schema", **named}}
    if spec.max_output_tokens is not None:
        result[endpoint.cap_keys[0]] = spec.max_output_tokens
    return result


def has_input(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    """Something is asked, whatever it is."""
    return endpoint.input_key in body or endpoint.input_alternative in body


def checked_input(endpoint: Endpoint, value: Any, columns: Sequence[str] = ()) -> Any:
    """What is asked, unless it is nothing, or nothing that the endpoint could read. Raises InputError.

    `columns` are those that it is made of, for the way out.
    """
    if is_blank(value):
        raise empty_input(columns)
    if endpoint.path == CHAT:
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            raise InputError("'messages' must be a list of objects, each with its role and content.")
        if any(message.get("role") == "user" and is_blank(message.get("content")) for message in value):
            raise empty_input(columns)
    elif not isinstance(value, (str, list)):
        raise InputError(f"{endpoint.input_key!r} must be text or a list, not {type(value).__name__}.")
    elif endpoint.counts_inputs and isinstance(value, list) and any(is_blank(item) for item in value):
        raise empty_input(columns)
    return value


def empty_input(columns: Sequence[str]) -> InputError:
    """The error of a row that asks nothing, with the way to leave such rows out."""
    names = list(dict.fromkeys(columns)) or ["body"]
    condition = " OR ".join(f"{name} <> ''" for name in names)
    return InputError(f"is empty: nothing would be asked. Leave such rows out in the SQL: add `WHERE {condition}`.")


def schema_name(schema: Mapping[str, Any]) -> str:
    """The schema's title in the letters that a schema name may have, at most 64 of them; else `output`."""
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title)[:64].strip("_") if isinstance(title, str) else ""
    return name or "output"


def count_inputs(endpoint: Endpoint, value: Any) -> int:
    """How many inputs a request has: several only for a list of texts or of lists of tokens."""
    if not endpoint.counts_inputs or not isinstance(value, list):
        return 1
    return 1 if all(isinstance(item, int) for item in value) else len(value)
