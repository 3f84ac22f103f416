"""The endpoints and their request bodies: which row argument fills which key of the body.

The keys come from the request schemas of the OpenAI API specification for chat completions, responses, embeddings,
completions and moderations. All other keys belong to the caller: `body` passes them through unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.requests.body_parameters import check_keys
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.value import is_blank
from airflow_provider_batch.exceptions import InputError


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint of the API that accepts batches."""

    #: path, as in the `endpoint` of a batch and the `url` of each line
    path: str
    #: key of the input; every request needs it
    input_key: str
    #: key that may be used instead of `input_key`
    input_alternative: str | None = None
    #: key that `system` fills; None if the endpoint has no system message
    system_key: str | None = None
    #: key that `output_schema` fills, completely or in part; None if the endpoint has no structured output
    schema_key: str | None = None
    #: keys that limit the output; `max_output_tokens` fills the first one
    cap_keys: tuple[str, ...] = ()
    #: True if `prompt` may be a list of content parts (objects)
    takes_parts: bool = False
    #: True if the user message may contain files
    takes_files: bool = False
    #: True if `prompt` may be a list of texts
    takes_texts: bool = False
    #: True if every item of a list counts as one input against the limit of a batch; otherwise a request is one input
    counts_inputs: bool = False
    #: keys and values that are added unless the body sets them
    defaults: dict[str, Any] = {}
    #: keys of other endpoints that are often used here by mistake -> the key to use; None if there is none
    equivalents: dict[str, str | None] = {}


CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"
MODERATIONS = "/v1/moderations"

_TEXT_OUTPUT_KEYS = dict.fromkeys(
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
            takes_files=True,
            equivalents={
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
            takes_files=True,
            equivalents={
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
            # Base64 takes a third of the bytes of decimal numbers and is many times faster to read
            defaults={"encoding_format": "base64"},
            equivalents={"prompt": "input", "messages": "input", **_TEXT_OUTPUT_KEYS},
        ),
        Endpoint(
            path="/v1/completions",
            input_key="prompt",
            cap_keys=("max_tokens",),
            equivalents={
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
            equivalents={"prompt": "input", "messages": "input", **_TEXT_OUTPUT_KEYS},
        ),
    )
}


def find(path: str) -> Endpoint:
    """Return the endpoint with this path. Raises InputError listing the supported paths."""
    try:
        return ENDPOINTS[path]
    except (KeyError, TypeError):
        raise InputError(f"endpoint: {shorten(path)} is not supported. Use one of {', '.join(ENDPOINTS)}.") from None


def check_body(endpoint: Endpoint, body: dict[str, Any], spec: RequestSpec) -> dict[str, Any]:
    """Return the body unchanged.

    Raises InputError if it uses keys of another endpoint or of the client, or sets a key that an argument sets too.
    """
    for key, equivalent in endpoint.equivalents.items():
        if key in body:
            advice = "Remove it" if equivalent is None else f"Use {equivalent!r} instead"
            raise InputError(f"{endpoint.path} does not support {key!r} in the body. {advice}.")
    check_keys(body)
    arguments: tuple[tuple[str, Any, tuple[str | None, ...]], ...] = (
        ("prompt", spec.prompt, (endpoint.input_key, endpoint.input_alternative)),
        ("system", spec.system, (endpoint.system_key,)),
        ("output_schema", spec.output_schema, (endpoint.schema_key,)),
        ("max_output_tokens", spec.max_output_tokens, endpoint.cap_keys),
    )
    for argument, value, keys in arguments:
        for argument_key in keys:
            if value is None or argument_key not in body:
                continue
            if argument_key == "text" and _lacks_format(body[argument_key]):
                continue
            raise InputError(
                f"The argument `{argument}` sets {argument_key!r}, and so does the body. Give only one of them."
            )
    return body


def _lacks_format(text: Any) -> bool:
    """Return True for a `text` of the responses endpoint that has no format (only `verbosity`, for example).

    It can be combined with `output_schema`, which adds the format.
    """
    return isinstance(text, dict) and "format" not in text


def build_body(
    endpoint: Endpoint, body: dict[str, Any], spec: RequestSpec, *, system: Any = None, prompt: Any = None
) -> dict[str, Any]:
    """Return a new body with the row arguments under the keys of the endpoint.

    `system` and `prompt` are values or placeholders for the value of each row. They are inserted without being read.
    """
    result = {**endpoint.defaults, **body}
    if prompt is not None:
        message = {"role": "user", "content": prompt}
        if endpoint.path == CHAT:
            system_messages = [] if system is None else [{"role": "system", "content": system}]
            result["messages"] = [*system_messages, message]
        elif endpoint.path == RESPONSES and (isinstance(prompt, list) or spec.files is not None):
            result["input"] = [message]
        else:
            result[endpoint.input_key] = prompt
    if system is not None and endpoint.system_key == "instructions":
        result["instructions"] = system
    if spec.output_schema is not None:
        named_schema = {"name": schema_name(spec.output_schema), "strict": True, "schema": spec.output_schema}
        if endpoint.path == CHAT:
            result["response_format"] = {"type": "json_schema", "json_schema": named_schema}
        else:
            result["text"] = {**result.get("text", {}), "format": {"type": "json_schema", **named_schema}}
    if spec.max_output_tokens is not None:
        result[endpoint.cap_keys[0]] = spec.max_output_tokens
    return result


def has_input(endpoint: Endpoint, body: dict[str, Any]) -> bool:
    """Return True if the body has an input, even an invalid one."""
    return endpoint.input_key in body or endpoint.input_alternative in body


def check_input(endpoint: Endpoint, value: Any, columns: Sequence[str] | None = ()) -> Any:
    """Return the input of a request unchanged. Raises InputError if it is empty or has the wrong type.

    `columns` are the columns that the input is made of; None if it is the same for every row.
    """
    if is_blank(value):
        raise empty_input_error(columns)
    if endpoint.path == CHAT:
        if not isinstance(value, list) or not all(isinstance(message, dict) for message in value):
            raise InputError("'messages' must be a list of objects, each with a role and a content.")
        if any(message.get("role") == "user" and is_blank(message.get("content")) for message in value):
            raise empty_input_error(columns)
    elif not isinstance(value, (str, list)):
        raise InputError(f"{endpoint.input_key!r} must be a string or a list, not {type(value).__name__}.")
    elif endpoint.counts_inputs and isinstance(value, list) and any(is_blank(item) for item in value):
        raise empty_input_error(columns)
    return value


def empty_input_error(columns: Sequence[str] | None) -> InputError:
    """Return the error for an empty input. If it depends on the row, suggest how to exclude such rows in the SQL.

    `columns` are the columns that the input is made of; None if it is the same for every row.
    """
    if columns is None:
        return InputError("The input is empty, so there is nothing to send.")
    names = list(dict.fromkeys(columns))
    condition = " OR ".join(f"{name} <> ''" for name in names or ["body"])
    example = "" if names else ", for example"
    return InputError(
        "The input is empty, so there is nothing to send. "
        f"Exclude such rows in the SQL{example} with `WHERE {condition}`."
    )


def schema_name(schema: Mapping[str, Any]) -> str:
    """Return the name to send with a schema: its title, reduced to at most 64 allowed characters, or "output"."""
    title = schema.get("title")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", title)[:64].strip("_") if isinstance(title, str) else ""
    return name or "output"


def count_inputs(endpoint: Endpoint, value: Any) -> int:
    """Return the number of inputs in a request: more than 1 only for a list of texts or of token lists."""
    if not endpoint.counts_inputs or not isinstance(value, list):
        return 1
    return 1 if all(isinstance(item, int) for item in value) else len(value)
