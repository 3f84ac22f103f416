"""Corrupts answers, in the format of each endpoint.

Two callers use it: the markers of the offline responder, and the answer faults of any responder. A kind that does not
apply to an endpoint (the refusal of an embedding, several texts in a chat) leaves the answer unchanged.
"""

from __future__ import annotations

import secrets
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.local.answers.prompt import CHAT, COMPLETIONS, RESPONSES, estimate, output_format
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply
from airflow_provider_batch.local.answers.schema_answer import fits
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Fault, Kind

#: characters that `str.splitlines` and the SDK's `iter_lines` treat as line ends, although JSON allows them in strings
SEPARATORS = "\u2028\u2029\u0085"

_REFUSAL = "I'm sorry, but I can't help with that. (an injected refusal)"
_NOT_JSON = "This is not JSON (an injected answer that does not fit any schema)."
#: code and message of a request that the model did not answer in time (OpenAI, Batch API reference)
_TIMEOUT = ("request_timeout", "The underlying call to the model timed out.")


def replacement_reply(fault: Fault, request: ModelRequest) -> Reply | None:
    """Return the reply that replaces the answer, or None if the fault does not replace it."""
    if fault.kind is Kind.ERROR:
        error = fault.error()
        return Reply(error.status, error.body())
    if fault.kind is Kind.REQUEST_TIMEOUT:
        code, message = _TIMEOUT
        body = ApiError(408, message, type="server_error", code=code).body()
        return Reply(408, body, {"code": code, "message": message})
    # HTTP has no status 0; it appears only in the result lines of batches
    if fault.kind is Kind.STATUS_0 and request.custom_id is not None:
        return Reply(0, {})
    return None


def corrupt_reply(fault: Fault, request: ModelRequest, reply: Reply) -> Reply:
    """Return a corrupted copy of a reply with status 200; any other reply is returned unchanged."""
    if reply.status != 200:
        return reply
    body = deepcopy(reply.body)
    if request.endpoint in (CHAT, COMPLETIONS):
        _corrupt_choices(fault, request, body)
    elif request.endpoint == RESPONSES:
        _corrupt_response(fault, request, body)
    return Reply(reply.status, body)


class _Output(NamedTuple):
    """The corrupted output of the model. A `finish_reason` of None keeps the original one."""

    text: str
    refusal: str | None = None
    finish_reason: str | None = "stop"


def _corrupt_text(fault: Fault, request: ModelRequest, text: str) -> _Output | None:
    """Return the output that replaces this text, or None if the fault does not apply to it."""
    match fault.kind:
        case Kind.REFUSAL:
            return _Output("", refusal=_REFUSAL)
        case Kind.CONTENT_FILTER:
            return _Output("", finish_reason="content_filter")
        case Kind.LENGTH:
            return _Output(text[: len(text) // 2], finish_reason="length")
        case Kind.EMPTY:
            return _Output("")
        case Kind.INVALID_JSON:
            return _Output(_NOT_JSON)
        case Kind.SEPARATORS if text:
            return _Output(_insert(SEPARATORS, request, text), finish_reason=None)
        case Kind.NUL if text:
            return _Output(_insert("\0", request, text), finish_reason=None)
        case Kind.NESTED:
            return _Output('{"a":' * fault.depth + "1" + "}" * fault.depth)
    return None


def _insert(characters: str, request: ModelRequest, text: str) -> str:
    """Return the text with these characters in the middle of it, or of every string in it.

    A text that fits its schema still does afterwards.
    """
    requested_format = output_format(request.endpoint, request.body)
    schema = requested_format.get("schema") if requested_format else None
    try:
        root = [msgspec.json.decode(text)]
    except msgspec.DecodeError:
        return _split(text, characters)
    for container, key in _string_locations(root):
        original = container[key]
        container[key] = _split(original, characters)
        if schema is not None and not fits(schema, root[0]):
            container[key] = original
    return msgspec.json.encode(root[0]).decode()


def _split(text: str, characters: str) -> str:
    middle = len(text) // 2
    return text[:middle] + characters + text[middle:]


def _string_locations(value: Any) -> list[tuple[Any, Any]]:
    """Return the location of every string in a JSON value: the object or array that contains it, and its key there."""
    locations: list[tuple[Any, Any]] = []
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(inner, str):
            locations.append((value, key))
        elif isinstance(inner, dict | list):
            locations.extend(_string_locations(inner))
    return locations


# chat and text completions


def _corrupt_choices(fault: Fault, request: ModelRequest, body: dict[str, Any]) -> None:
    output_tokens = 0
    for choice in body.get("choices") or []:
        message = choice.get("message") if request.endpoint == CHAT else None
        text = (choice.get("text") if message is None else message.get("content")) or ""
        output = _corrupt_text(fault, request, text)
        if output is None or (output.refusal is not None and message is None):
            return
        if message is None:
            choice["text"] = output.text
        else:
            message.update(content=None if output.refusal is not None else output.text, refusal=output.refusal)
            message.pop("tool_calls", None)
        if output.finish_reason is not None:
            choice["finish_reason"] = output.finish_reason
        output_tokens += estimate(output.refusal or output.text)
    _update_usage(body, "prompt", "completion", output_tokens)


def _update_usage(body: dict[str, Any], input_name: str, output_name: str, output_tokens: int) -> None:
    """Make the usage match the corrupted output. Reasoning tokens stay as they were."""
    usage = body.get("usage")
    if usage:
        details = usage.get(f"{output_name}_tokens_details") or {}
        usage[f"{output_name}_tokens"] = output_tokens + (details.get("reasoning_tokens") or 0)
        usage["total_tokens"] = (usage.get(f"{input_name}_tokens") or 0) + usage[f"{output_name}_tokens"]


# responses

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _corrupt_response(fault: Fault, request: ModelRequest, body: dict[str, Any]) -> None:
    messages = [item for item in body.get("output") or [] if item.get("type") == "message"]
    other_items = [item for item in body.get("output") or [] if item.get("type") != "message"]
    text = "".join(part.get("text") or "" for message in messages for part in message.get("content") or [])
    if fault.kind is Kind.MULTI_TEXT:
        # seen in practice in 557 of 233,124 lines (opentargets/mira pull request 70)
        reasoning = other_items or [{"id": f"rs_{secrets.token_hex(24)}", "type": "reasoning", "summary": []}]
        first_half = text[: len(text) // 2]
        body["output"] = [*reasoning, _message(first_half), _message(text)]
        _update_usage(body, "input", "output", estimate(first_half) + estimate(text))
        return
    output = _corrupt_text(fault, request, text)
    if output is None:
        return
    if output.finish_reason is not None:
        reason = _INCOMPLETE.get(output.finish_reason)
        body["status"] = "completed" if reason is None else "incomplete"
        body["incomplete_details"] = None if reason is None else {"reason": reason}
        if reason is not None:
            body["completed_at"] = None
    message = _message(output.text, refusal=output.refusal, status=body.get("status") or "completed")
    body["output"] = other_items if fault.kind is Kind.EMPTY else [*other_items, message]
    _update_usage(body, "input", "output", estimate(output.refusal or output.text))


def _message(text: str, *, refusal: str | None = None, status: str = "completed") -> dict[str, Any]:
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    if refusal is not None:
        part = {"type": "refusal", "refusal": refusal}
    return {
        "id": f"msg_{secrets.token_hex(24)}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [part],
    }
