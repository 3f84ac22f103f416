"""Rejects request bodies that OpenAI would reject, with the same 400.

The checks are deliberately few and cover common mistakes: a missing model or prompt, wrong types, a prompt that exceeds
the context window, a schema that strict structured output does not support.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_batch.local.answers.embedding import dimensions_of
from airflow_provider_batch.local.answers.moderation import has_images
from airflow_provider_batch.local.answers.prompt import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    MODERATIONS,
    embedding_inputs,
    input_tokens,
    model_of,
    moderation_inputs,
    output_format,
    prompts,
    tokens_of_input,
)
from airflow_provider_batch.local.api.errors import ApiError, invalid_value, missing_parameter, out_of_range, wrong_type

#: context window of every model that generates text, in estimated tokens
CONTEXT_WINDOW = 128_000
#: maximum of one embedding input, in estimated tokens
EMBEDDING_WINDOW = 8_192
#: keywords and formats of structured output, as OpenAI's guide and its replies name them
_REFUSED_KEYWORDS = (
    *("oneOf", "allOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties"),
    *("uniqueItems", "contains", "minContains", "maxContains", "minProperties", "maxProperties", "propertyNames"),
    *("prefixItems", "unevaluatedItems", "unevaluatedProperties", "default"),
)
_FORMATS = ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def check_body(endpoint: str, body: Mapping[str, Any]) -> None:
    """Raise the ApiError with which OpenAI would reject this body, if it would."""
    model = model_of(endpoint, body)
    if not isinstance(model, str) or not model:
        raise ApiError(400, "you must provide a model parameter")
    if body.get("stream"):
        raise ApiError(400, "The local batch server does not support streaming.", param="stream")
    if endpoint == EMBEDDINGS:
        _check_embeddings(body)
    elif endpoint == MODERATIONS:
        _check_moderation(model, body)
    else:
        _check_generation(endpoint, body)


def _check_generation(endpoint: str, body: Mapping[str, Any]) -> None:
    _check_number(body, "temperature", 0, 2)
    _check_number(body, "top_p", 0, 1)
    for name in ("response_format", "text"):
        if not isinstance(body.get(name), dict | None):
            raise wrong_type(name, "an object", body[name])
    if endpoint == CHAT:
        _check_integer(body, "n", 1, 128)
        _check_integer(body, "max_completion_tokens", 1)
        _check_integer(body, "max_tokens", 1)
        _check_messages(body)
    elif endpoint == COMPLETIONS:
        _check_completion(body)
    else:
        _check_integer(body, "max_output_tokens", 16)
        _check_input(body)
    _check_schema(endpoint, body)
    tokens = input_tokens(endpoint, body)
    if tokens > CONTEXT_WINDOW and endpoint == COMPLETIONS:
        raise _context_exceeded(CONTEXT_WINDOW, tokens)
    if tokens > CONTEXT_WINDOW and endpoint == CHAT:
        raise ApiError(
            400,
            f"This model's maximum context length is {CONTEXT_WINDOW} tokens. However, your messages"
            f" resulted in {tokens} tokens. Please reduce the length of the messages.",
            param="messages",
            code="context_length_exceeded",
        )
    if tokens > CONTEXT_WINDOW:
        raise ApiError(
            400,
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            param="input",
            code="context_length_exceeded",
        )


def _context_exceeded(window: int, tokens: int) -> ApiError:
    return ApiError(
        400,
        f"This model's maximum context length is {window} tokens, however you requested {tokens} tokens"
        f" ({tokens} in your prompt; 0 for the completion). Please reduce your prompt; or completion length.",
    )


def _check_number(body: Mapping[str, Any], name: str, low: int, high: int) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(name, "a decimal", value)
    if error := out_of_range(name, "decimal", value, low, high):
        raise error


def _check_integer(body: Mapping[str, Any], name: str, low: int, high: int | None = None) -> None:
    value = body.get(name)
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type(name, "an integer", value)
    if error := out_of_range(name, "integer", value, low, high):
        raise error


def _check_messages(body: Mapping[str, Any]) -> None:
    messages = body.get("messages")
    if messages is None:
        raise missing_parameter("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise _empty_array("messages")
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        if not isinstance(message, dict):
            raise wrong_type(name, "an object", message)
        if message.get("role") not in _ROLES:
            raise ApiError(
                400,
                f"Invalid value: '{message.get('role')}'. Supported values are: 'system', 'assistant',"
                " 'user',"
                " 'function', 'tool', and 'developer'.",
                param=f"{name}.role",
                code="invalid_value",
            )
        content = message.get("content")
        if content is None and message["role"] == "assistant":
            continue
        if not isinstance(content, str | list):
            raise wrong_type(f"{name}.content", "one of a string or array of objects", content)


def _empty_array(name: str) -> ApiError:
    return ApiError(
        400,
        f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty array instead.",
        param=name,
        code="empty_array",
    )


def _check_input(body: Mapping[str, Any]) -> None:
    value = body.get("input")
    for name in ("previous_response_id", "prompt", "conversation"):
        if body.get(name) is not None:
            message = (
                "The local batch server does not store responses, prompts or conversations."
                f" Send the request without '{name}'."
            )
            raise ApiError(400, message, param=name)
    if value in (None, "", []):
        raise ApiError(
            400,
            "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be provided.",
            code="missing_required_parameter",
        )
    if not isinstance(value, str | list):
        raise wrong_type("input", "one of a string or array of objects", value)


def _check_completion(body: Mapping[str, Any]) -> None:
    # OpenAI's API description requires `prompt` but allows null
    if "prompt" not in body:
        raise missing_parameter("prompt")
    inputs = prompts(body)
    if not inputs or not all(isinstance(item, str) or _is_token_ids(item) for item in inputs):
        raise wrong_type(
            "prompt",
            "one of a string, array of strings, array of integers, or array of integer arrays",
            body["prompt"],
        )
    _check_integer(body, "n", 1, 128)
    _check_integer(body, "best_of", 1, 20)
    _check_integer(body, "max_tokens", 0)
    _check_integer(body, "logprobs", 0, 5)
    if body.get("best_of") is not None and body["best_of"] < (body.get("n") or 1):
        raise ApiError(400, "You requested that the server return more choices than it will generate.", param="best_of")
    if not isinstance(body.get("echo"), bool | None):
        raise wrong_type("echo", "a boolean", body["echo"])


def _check_moderation(model: str, body: Mapping[str, Any]) -> None:
    value = body.get("input")
    if value is None:
        raise missing_parameter("input")
    inputs = moderation_inputs(body)
    expected = "one of a string, array of strings, or array of objects"
    if not isinstance(value, str | list):
        raise wrong_type("input", expected, value)
    if not inputs or inputs == [[]]:
        raise _empty_array("input")
    if all(isinstance(part, str) for parts in inputs for part in parts):
        return
    for index, part in enumerate(inputs[0]):
        if not isinstance(part, dict):
            raise wrong_type(f"input[{index}]", "an object", part)
        kind = part.get("type")
        if kind not in ("text", "image_url"):
            raise invalid_value(f"input[{index}].type", kind, ["text", "image_url"])
        if not isinstance(part.get(kind), str if kind == "text" else dict):
            raise missing_parameter(f"input[{index}].{kind}")
    if has_images(inputs) and not model.startswith("omni-"):
        raise ApiError(400, f"The model '{model}' does not support images.", param="input")


def _check_embeddings(body: Mapping[str, Any]) -> None:
    inputs = embedding_inputs(body)
    if not inputs or not all((isinstance(item, str) and item) or _is_token_ids(item) for item in inputs):
        raise ApiError(
            400,
            "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
        )
    longest = max(map(tokens_of_input, inputs))
    if longest > EMBEDDING_WINDOW:
        raise _context_exceeded(EMBEDDING_WINDOW, longest)
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise ApiError(
            400,
            f"Invalid value: '{body['encoding_format']}'. Supported values are: 'float' and 'base64'.",
            param="encoding_format",
            code="invalid_value",
        )
    _check_integer(body, "dimensions", 1)
    max_dimensions = dimensions_of(body["model"])
    if (body.get("dimensions") or 0) > max_dimensions:
        raise ApiError(
            400,
            f"Invalid value for 'dimensions' = {body['dimensions']}. Must be less than or equal to {max_dimensions}.",
            param="dimensions",
        )


def _is_token_ids(item: object) -> bool:
    """Return whether the item is a non-empty list of token ids."""
    return (
        isinstance(item, list)
        and bool(item)
        and all(isinstance(token, int) and not isinstance(token, bool) for token in item)
    )


def _check_schema(endpoint: str, body: Mapping[str, Any]) -> None:
    requested_format = output_format(endpoint, body)
    if requested_format is None:
        return
    path = "response_format.json_schema" if endpoint == CHAT else "text.format"
    for name, kind in (("name", str), ("schema", dict)):
        if not isinstance(requested_format.get(name), kind):
            raise missing_parameter(f"{path}.{name}")
    is_strict = requested_format.get("strict")
    if is_strict and _has_lookaround(requested_format["schema"]):
        # OpenAI does not say more (pydantic-ai issue 5508)
        raise ApiError(
            500, "The server had an error while processing your request. Sorry about that!", type="server_error"
        )
    problem = _strict_problem(requested_format["schema"], ()) if is_strict else None
    if problem is not None:
        raise ApiError(
            400,
            f"Invalid schema for response_format '{requested_format['name']}': {problem}",
            param="response_format" if endpoint == CHAT else "text.format.schema",
            code=None if endpoint == CHAT else "invalid_json_schema",
        )


def _has_lookaround(node: object) -> bool:
    if isinstance(node, list):
        return any(map(_has_lookaround, node))
    if not isinstance(node, dict):
        return False
    pattern = node.get("pattern")
    if isinstance(pattern, str) and any(token in pattern for token in ("(?=", "(?!", "(?<=", "(?<!")):
        return True
    return any(map(_has_lookaround, node.values()))


def _strict_problem(node: object, path: tuple[str, ...]) -> str | None:
    """Return why strict structured output rejects a schema, or None.

    The root must be an object. Every object must require all its properties and must not allow additional ones.
    """
    if isinstance(node, list):
        return next(
            (problem for i, item in enumerate(node) if (problem := _strict_problem(item, (*path, str(i))))), None
        )
    if not isinstance(node, dict):
        return None
    refused = next((keyword for keyword in _REFUSED_KEYWORDS if keyword in node), None)
    if refused is not None:
        return f"In context={path!r}, '{refused}' is not permitted."
    if node.get("format") not in (None, *_FORMATS):
        return f"In context={path!r}, '{node['format']}' is not a valid format."
    if not path and node.get("type") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{node.get('type')}\"'."
    if node.get("type") == "object" or "properties" in node:
        context = f"In context={path!r}"
        if node.get("additionalProperties") is not False:
            return f"{context}, 'additionalProperties' is required to be supplied and to be false."
        missing = [name for name in node.get("properties", {}) if name not in node.get("required", [])]
        if missing:
            return (
                f"{context}, 'required' is required to be supplied and to be an array including every key in"
                f" properties. Missing '{missing[0]}'."
            )
    for keyword in ("properties", "$defs", "definitions"):
        if isinstance(node.get(keyword), dict):
            for name, inner in node[keyword].items():
                if problem := _strict_problem(inner, (*path, keyword, name)):
                    return problem
    for keyword in ("items", "anyOf"):
        if problem := _strict_problem(node.get(keyword), (*path, keyword)):
            return problem
    return None
