"""What an answer looks like that went wrong, in each endpoint's own shape.

Both who ask for it come here: the markers of the offline responder, and the faults of answers, whoever answers.
Where a kind makes no sense (the refusal of an embedding, several texts of a chat) the answer stays as it is.
"""

from __future__ import annotations

import secrets
from copy import deepcopy
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.local.answers.prompt import CHAT, COMPLETIONS, RESPONSES, estimate, output_schema
from airflow_provider_batch.local.answers.responder import ModelRequest, Reply
from airflow_provider_batch.local.answers.schema_answer import fits
from airflow_provider_batch.local.api.errors import ApiError
from airflow_provider_batch.local.faults import Fault, Kind

#: characters that end a line for Python's `str.splitlines` and the SDK's `iter_lines`, but not for JSON
SEPARATORS = "\u2028\u2029\u0085"

_REFUSAL = "I'm sorry, but I can't help with that. (a refusal that was asked for)"
_NO_JSON = "This is no JSON: an answer that fits no schema was asked for."
#: code and message of a request that the model never answered (OpenAI, Batch API reference)
_TIMEOUT = ("request_timeout", "The underlying call to the model timed out.")


def instead(fault: Fault, ask: ModelRequest) -> Reply | None:
    """The reply in place of an answer; None if the fault leaves the request to be answered."""
    if fault.kind is Kind.ERROR:
        error = fault.error()
        return Reply(error.status, error.body())
    if fault.kind is Kind.REQUEST_TIMEOUT:
        code, message = _TIMEOUT
        body = ApiError(408, message, type="server_error", code=code).body()
        return Reply(408, body, {"code": code, "message": message})
    # Over HTTP there is no status 0; it is seen in the result lines of batches alone.
    if fault.kind is Kind.STATUS_0 and ask.custom_id is not None:
        return Reply(0, {})
    return None


def spoilt(kind: Kind, ask: ModelRequest, reply: Reply) -> Reply:
    """A copy of a reply with status 200, gone wrong in this way; any other reply stays as it is."""
    if reply.status != 200:
        return reply
    body = deepcopy(reply.body)
    if ask.endpoint in (CHAT, COMPLETIONS):
        _spoil_choices(kind, ask, body)
    elif ask.endpoint == RESPONSES:
        _spoil_response(kind, ask, body)
    return Reply(reply.status, body)


class _Turn(NamedTuple):
    """What the model says instead; `ended` None leaves the reason why it stopped."""

    text: str
    refusal: str | None = None
    ended: str | None = "stop"


def _turn(kind: Kind, ask: ModelRequest, text: str) -> _Turn | None:
    """What the model says instead of this text; None if this kind cannot be had of it."""
    match kind:
        case Kind.REFUSAL:
            return _Turn("", refusal=_REFUSAL)
        case Kind.CONTENT_FILTER:
            return _Turn("", ended="content_filter")
        case Kind.LENGTH:
            return _Turn(text[: len(text) // 2], ended="length")
        case Kind.EMPTY:
            return _Turn("")
        case Kind.INVALID_JSON:
            return _Turn(_NO_JSON)
        case Kind.SEPARATORS if text:
            return _Turn(_separated(ask, text), ended=None)
    return None


def _separated(ask: ModelRequest, text: str) -> str:
    """The text with the separators raw in it; one that has to fit a schema still does."""
    form = output_schema(ask.endpoint, ask.body)
    schema = form.get("schema") if form else None
    try:
        root = [msgspec.json.decode(text)]
    except msgspec.DecodeError:
        return _split(text)
    for holder, key in _strings(root):
        plain = holder[key]
        holder[key] = _split(plain)
        if schema is not None and not fits(schema, root[0]):
            holder[key] = plain
    return msgspec.json.encode(root[0]).decode()


def _split(text: str) -> str:
    half = len(text) // 2
    return text[:half] + SEPARATORS + text[half:]


def _strings(value: Any) -> list[tuple[Any, Any]]:
    """Where the strings of a JSON value are: each as the object or array that holds it, and its key there."""
    found: list[tuple[Any, Any]] = []
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        if isinstance(inner, str):
            found.append((value, key))
        elif isinstance(inner, dict | list):
            found.extend(_strings(inner))
    return found


# chat and text completions


def _spoil_choices(kind: Kind, ask: ModelRequest, body: dict[str, Any]) -> None:
    output = 0
    for choice in body.get("choices") or []:
        message = choice.get("message") if ask.endpoint == CHAT else None
        text = (choice.get("text") if message is None else message.get("content")) or ""
        turn = _turn(kind, ask, text)
        if turn is None or (turn.refusal is not None and message is None):
            return
        if message is None:
            choice["text"] = turn.text
        else:
            message.update(content=None if turn.refusal is not None else turn.text, refusal=turn.refusal)
            message.pop("tool_calls", None)
        if turn.ended is not None:
            choice["finish_reason"] = turn.ended
        output += estimate(turn.refusal or turn.text)
    _recount(body, "prompt", "completion", output)


def _recount(body: dict[str, Any], came: str, went: str, output: int) -> None:
    """Let the usage say what the model says now; reasoning stays as it was."""
    usage = body.get("usage")
    if usage:
        details = usage.get(f"{went}_tokens_details") or {}
        usage[f"{went}_tokens"] = output + (details.get("reasoning_tokens") or 0)
        usage["total_tokens"] = (usage.get(f"{came}_tokens") or 0) + usage[f"{went}_tokens"]


# responses

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def _spoil_response(kind: Kind, ask: ModelRequest, body: dict[str, Any]) -> None:
    messages = [item for item in body.get("output") or [] if item.get("type") == "message"]
    others = [item for item in body.get("output") or [] if item.get("type") != "message"]
    text = "".join(part.get("text") or "" for message in messages for part in message.get("content") or [])
    if kind is Kind.MULTI_TEXT:
        # The real ones: opentargets/mira pull request 70, 557 of 233,124 lines.
        reasoning = others or [{"id": f"rs_{secrets.token_hex(24)}", "type": "reasoning", "summary": []}]
        half = text[: len(text) // 2]
        body["output"] = [*reasoning, _message(half), _message(text)]
        _recount(body, "input", "output", estimate(half) + estimate(text))
        return
    turn = _turn(kind, ask, text)
    if turn is None:
        return
    if turn.ended is not None:
        reason = _INCOMPLETE.get(turn.ended)
        body["status"] = "completed" if reason is None else "incomplete"
        body["incomplete_details"] = None if reason is None else {"reason": reason}
        if reason is not None:
            body["completed_at"] = None
    said = _message(turn.text, refusal=turn.refusal, status=body.get("status") or "completed")
    body["output"] = others if kind is Kind.EMPTY else [*others, said]
    _recount(body, "input", "output", estimate(turn.refusal or turn.text))


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
