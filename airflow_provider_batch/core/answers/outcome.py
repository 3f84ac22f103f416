"""One result line -> one outcome.

A line counts as succeeded only when its HTTP status is 200 *and* the answer is whole: an error line may carry its
error inside `response.body` with a null `error`, a 200 may be cut off, refused, empty, or not fit the schema, and a
status of 0 was seen in batches that reported no failure. Shapes: https://platform.openai.com/docs/guides/batch,
and the look-alikes' (an `error` that is a string, a `response` that is the completion itself).
"""

from __future__ import annotations

import base64
import json
from array import array
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from airflow_provider_batch.core.pricing.prices import Usage
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.core.schema.judge import SchemaJudge


class Outcome(StrEnum):
    """What became of one request; ordered from the best to the worst."""

    SUCCEEDED = "succeeded"  # HTTP 200, whole, valid against the schema if one was given
    INCOMPLETE = "incomplete"  # 200, but cut off or empty
    REFUSED = "refused"  # the model refused, or a content filter did
    INVALID_OUTPUT = "invalid_output"  # 200, but not valid against the schema
    FAILED = "failed"  # an HTTP error
    EXPIRED = "expired"  # never ran: the batch's window ended
    CANCELLED = "cancelled"  # never ran: its batch was cancelled
    MISSING = "missing"  # its batch is settled, but no readable line came back
    WITHHELD = "withheld"  # held back by the budget
    PENDING = "pending"  # not settled yet

    @property
    def rank(self) -> int:
        """1 for the worst, 10 for the best: within a job a better answer is never replaced by a worse one."""
        return _RANKS[self]


_RANKS = {outcome: rank for rank, outcome in enumerate(reversed(Outcome), start=1)}


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came back for one request."""

    outcome: Outcome
    #: text of the answer; parsed JSON with a schema; list of floats for an embedding; None if there is none
    value: Any = None
    #: text of the answer as the model gave it
    text: str | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    #: the model that answered, as it names itself
    model: str | None = None
    usage: Usage = Usage()
    #: for `failed`: asking again may help
    transient: bool = False
    #: body of the answer; None where it was not asked for
    body: Any = None


MISSING = Answer(
    Outcome.MISSING,
    error_code="no_result_line",
    error_message="The batch is settled, but its files hold no readable line for this request.",
)
PENDING = Answer(Outcome.PENDING)
WITHHELD = Answer(
    Outcome.WITHHELD,
    error_code="max_cost_usd",
    error_message="Not asked, as the budget did not reach. Raise max_cost_usd and clear submit to go on.",
)


def read_line(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    """The custom_id and answer of one line of a result file; None if the line is not readable as one."""
    try:
        data = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = _leniently(line)
    if not isinstance(data, dict) or not isinstance(data.get("custom_id"), str):
        return None
    return data["custom_id"], _answer(data, endpoint, judge)


def _leniently(line: bytes) -> Any:
    """A line with NaN or half a surrogate pair in it, which Python's own parser takes; None if it is no JSON at all."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _answer(data: dict[str, Any], endpoint: str, judge: SchemaJudge | None) -> Answer:
    response, error = data.get("response"), data.get("error")
    if not isinstance(response, dict) or not response:
        return _never_ran(error)
    if "status_code" not in response and "body" not in response:
        response = {"status_code": 200, "body": response}
    status, body = response.get("status_code"), response.get("body")
    if status == 200 and isinstance(body, dict) and not any(_error(error)):
        return _body(body, endpoint, judge)
    code = status if isinstance(status, int) else 0
    detail = body.get("error") if isinstance(body, dict) and body.get("error") else error
    name, message = _error(detail)
    return Answer(
        Outcome.FAILED,
        error_code=name or f"http_{code}",
        error_message=message or f"HTTP status {code} without a message",
        transient=is_transient(code) or code < 100 or code == 200,
        body=body,
    )


def _never_ran(error: Any) -> Answer:
    code, message = _error(error)
    outcome = {
        "batch_expired": Outcome.EXPIRED,
        "request_timeout": Outcome.EXPIRED,
        "batch_cancelled": Outcome.CANCELLED,
    }.get(code or "", Outcome.FAILED)
    return Answer(
        outcome,
        error_code=code or "no_response",
        error_message=message or "The line holds neither a response nor a reason.",
        transient=outcome is Outcome.FAILED,
    )


def _error(error: Any) -> tuple[str | None, str | None]:
    if isinstance(error, Mapping) and isinstance(error.get("error"), Mapping):
        error = error["error"]  # vLLM's ErrorResponse
    if isinstance(error, Mapping):
        code = error.get("code") or error.get("type")
        message = error.get("message")
        return (str(code) if code is not None else None), (str(message) if message is not None else None)
    return None, (str(error) if error else None)


def _body(body: dict[str, Any], endpoint: str, judge: SchemaJudge | None) -> Answer:
    answer = Answer(Outcome.SUCCEEDED, model=_name(body), usage=_usage(body), body=body)
    if body.get("error"):
        code, message = _error(body["error"])
        return _turned(
            answer, Outcome.FAILED, code or "response_failed", message or "The response failed.", transient=True
        )
    match endpoint.removeprefix("/v1"):
        case "/embeddings":
            return _embedding(answer, body)
        case "/responses":
            return _judged(answer, judge, **_read_response(body))
        case "/chat/completions" | "/completions":
            return _judged(answer, judge, **_read_choice(body))
    value = body.get("results", body)
    if not value:
        return _turned(answer, Outcome.INCOMPLETE, "empty", "The answer holds no result.")
    return msgspec.structs.replace(answer, value=value)


def _turned(answer: Answer, outcome: Outcome, code: str, message: str, *, transient: bool = False) -> Answer:
    return msgspec.structs.replace(answer, outcome=outcome, error_code=code, error_message=message, transient=transient)


def _read_choice(body: dict[str, Any]) -> dict[str, Any]:
    choice = next(iter(_dicts(body.get("choices"))), {})
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": choice.get("text")}
    text = _content(message.get("content"))
    return {
        "texts": [text] if text else [],
        "calls": message.get("tool_calls") or message.get("function_call"),
        "refusal": message.get("refusal"),
        "reason": choice.get("finish_reason"),
    }


def _content(content: Any) -> str:
    """Text, or parts with text; where a server gives the answer's JSON parsed, it is made text again."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in _dicts(content) if isinstance(part.get("text"), str))
    return "" if content is None else msgspec.json.encode(content).decode()


#: output items that ask the caller to do something; other calls were done by the provider on the way to the answer
_CALLS_FOR_US = frozenset(
    {"function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"}
)


def _read_response(body: dict[str, Any]) -> dict[str, Any]:
    texts, refusals, calls, done = [], [], [], []
    for item in _dicts(body.get("output")):
        kind = str(item.get("type", ""))
        if kind == "message":
            for part in _dicts(item.get("content")):
                if part.get("type") == "refusal":
                    refusals.append(str(part.get("refusal", "")))
                elif part.get("text"):
                    texts.append(str(part["text"]))
        elif kind in _CALLS_FOR_US:
            calls.append(item)
        elif kind.endswith("_call"):
            done.append(item)
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return {
        "texts": texts,
        "calls": calls or (None if texts else done),
        "refusal": "\n".join(refusals) or None,
        "reason": reason or body.get("status"),
    }


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


#: reasons to stop that mean: cut off, at the output cap or otherwise
AT_CAP = frozenset({"length", "max_output_tokens", "max_tokens"})
_CUT_OFF = AT_CAP | {"incomplete", "in_progress", "queued", "cancelled"}


def _judged(
    answer: Answer, judge: SchemaJudge | None, *, texts: list[str], calls: Any, refusal: Any, reason: Any
) -> Answer:
    text, value, complaint = _pick(texts, judge if not calls else None)
    reason = str(reason) if reason else None
    answer = msgspec.structs.replace(answer, value=value, text=text, finish_reason=reason)
    if reason == "failed":
        return _turned(answer, Outcome.FAILED, "response_failed", "The response failed.", transient=True)
    if refusal:
        return _turned(answer, Outcome.REFUSED, "refusal", str(refusal))
    if reason == "content_filter":
        return _turned(answer, Outcome.REFUSED, "content_filter", "The provider's content filter stopped the answer.")
    if reason in _CUT_OFF:
        return _turned(
            answer, Outcome.INCOMPLETE, reason, "The answer was cut off; raise the output cap to get it whole."
        )
    if calls:
        return msgspec.structs.replace(answer, value=calls, text=msgspec.json.encode(calls).decode())
    if not text:
        return _turned(answer, Outcome.INCOMPLETE, "empty", "The answer is empty.")
    if complaint:
        return _turned(answer, Outcome.INVALID_OUTPUT, "schema", complaint)
    return answer


def _pick(texts: list[str], judge: SchemaJudge | None) -> tuple[str | None, Any, str | None]:
    """The text that counts, its value, and the judge's complaint.

    A response may hold several texts of which the first is cut-off JSON and a later one whole; so with a schema the
    last text that is valid counts.
    """
    if not texts:
        return None, None, None
    if judge is None:
        text = "".join(texts)
        return text, text, None
    complaint = None
    for text in reversed(texts):
        value, complaint = judge.judge(text)
        if complaint is None:
            return text, value, None
    return texts[-1], None, complaint


def _embedding(answer: Answer, body: dict[str, Any]) -> Answer:
    entries = sorted(_dicts(body.get("data")), key=lambda entry: _number(entry.get("index")))
    vectors = [_vector(entry.get("embedding")) for entry in entries]
    if not vectors or any(not vector for vector in vectors):
        return _turned(answer, Outcome.INCOMPLETE, "empty", "The answer holds no vector.")
    return msgspec.structs.replace(answer, value=vectors[0] if len(vectors) == 1 else vectors)


def _vector(embedding: Any) -> list[float] | None:
    if isinstance(embedding, str):
        floats = array("f")
        try:
            floats.frombytes(base64.b64decode(embedding))
        except ValueError:
            return None
        return floats.tolist()
    return embedding if isinstance(embedding, list) else None


def _name(body: dict[str, Any]) -> str | None:
    model = body.get("model")
    return model if isinstance(model, str) else None


def _usage(body: dict[str, Any]) -> Usage:
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return Usage()

    def detail(holder: str, other: str, name: str) -> int:
        inner = usage.get(holder) or usage.get(other)
        return _number(inner.get(name)) if isinstance(inner, dict) else 0

    return Usage(
        input_tokens=_number(usage.get("prompt_tokens") or usage.get("input_tokens")),
        cached_tokens=detail("prompt_tokens_details", "input_tokens_details", "cached_tokens"),
        reasoning_tokens=detail("completion_tokens_details", "output_tokens_details", "reasoning_tokens"),
        output_tokens=_number(usage.get("completion_tokens") or usage.get("output_tokens")),
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
