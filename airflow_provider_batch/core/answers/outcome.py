"""Reads one line of a result file as an `Answer` with its `Outcome`.

A line counts as succeeded only if the request succeeded *and* the answer is complete. This needs care:

* An error line may have its error inside `response.body` while `error` is null.
* A 200 may be cut off, refused, empty, or invalid against the schema.
* Batches that reported no failure have contained lines with status 0.

A complete answer was paid for, so it counts in whatever form it is written: as JSON text, without a status, or next to
an error. An answer with HTTP 200 that cannot be used is retried only if a retry may change it.

OpenAI documents the shapes at https://platform.openai.com/docs/guides/batch. Compatible servers differ from them: some
write `error` as a string, some the completion itself as `response`.
"""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.structured import read_structured
from airflow_provider_batch.core.answers.tolerant_json import LEFT_OUT, MAX_DEPTH, parse
from airflow_provider_batch.core.pricing.prices import UNKNOWN_USAGE, Usage
from airflow_provider_batch.core.provider.http_status import is_transient
from airflow_provider_batch.core.provider.lane import SERVICE_TIER
from airflow_provider_batch.core.schema.judge import SchemaJudge


class Outcome(StrEnum):
    """The result of one request. Members are ordered from the best to the worst."""

    SUCCEEDED = "succeeded"  # HTTP 200, complete, and valid against the schema if there is one
    INCOMPLETE = "incomplete"  # HTTP 200, but cut off or empty
    REFUSED = "refused"  # refused by the model or a content filter
    INVALID_OUTPUT = "invalid_output"  # HTTP 200, but not valid against the schema
    FAILED = "failed"  # an HTTP error
    EXPIRED = "expired"  # not answered in time: the completion window ended, or the flex tier did not take it
    CANCELLED = "cancelled"  # never ran: its batch was cancelled
    MISSING = "missing"  # its batch is settled, but the result files have no readable line for it
    INVALID_INPUT = "invalid_input"  # never sent: a file of the row is missing or cannot be used
    WITHHELD = "withheld"  # held back by the budget
    PENDING = "pending"  # not settled yet

    @property
    def rank(self) -> int:
        """From 1 for the worst to 11 for the best. A job never replaces an answer with one of a lower rank."""
        return _RANKS[self]


_WITHOUT_ANSWER = frozenset({Outcome.FAILED, Outcome.EXPIRED})

_RANKS = {outcome: rank for rank, outcome in enumerate(reversed(Outcome), start=1)}


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The answer to one request."""

    outcome: Outcome
    #: the text; with a schema, the parsed JSON; for an embedding, a list of floats; None if there is no answer
    value: Any = None
    #: the text as the model wrote it
    text: str | None = None
    finish_reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    #: the model that answered, and the service tier that processed the request, as the response names them
    model: str | None = None
    service_tier: str | None = None
    usage: Usage = Usage()
    #: for `failed`: whether a retry may succeed
    transient: bool = False
    #: for `failed`: the HTTP status; 0 if there was no response
    status: int = 0
    #: body of the response; None if the caller did not need it
    body: Any = None

    @property
    def is_lost(self) -> bool:
        """Whether there is no answer, although the request may have been billed."""
        return self.outcome in _WITHOUT_ANSWER and self.usage == UNKNOWN_USAGE


#: error code of a request that the flex tier did not take. It was not billed, and is not an attempt
FLEX_UNAVAILABLE = "flex_unavailable"

#: error code of an answer with a value that the results table does not take
STORAGE = "storage"

#: the field of a line that says that its request may have been billed although there is no answer
MAY_BE_BILLED = "may_be_billed"

MISSING = Answer(
    Outcome.MISSING,
    error_code="no_result_line",
    error_message="The batch has ended, but its result files have no readable line for this request.",
)
PENDING = Answer(Outcome.PENDING)
WITHHELD = Answer(
    Outcome.WITHHELD,
    error_code="max_cost_usd",
    error_message="The budget did not cover this request, so it was not sent. Raise max_cost_usd and clear submit to "
    "continue.",
)


def withheld_by(shared_budget: str) -> Answer:
    """Return the answer to a request that was withheld.

    :param shared_budget: description of the shared budget that did not cover it; empty if the job's own did not.
    """
    if not shared_budget:
        return WITHHELD
    message = f"The request was not sent. {shared_budget} Clear submit to continue once more of that budget is free."
    return Answer(Outcome.WITHHELD, error_code="shared_budget", error_message=message)


def read_line(line: bytes, endpoint: str, judge: SchemaJudge | None) -> tuple[str, Answer] | None:
    """Return the custom_id and the answer of one line of a result file, or None if the line is not readable."""
    data = parse(line)
    if not isinstance(data, dict):
        return None
    custom_id = data.get("custom_id")
    if isinstance(custom_id, int) and not isinstance(custom_id, bool):
        custom_id = str(custom_id)
    if not isinstance(custom_id, str):
        return None
    answer = _read_answer(data, endpoint, judge)
    if data.get(MAY_BE_BILLED) is True and answer.outcome in _WITHOUT_ANSWER:
        answer = msgspec.structs.replace(answer, usage=UNKNOWN_USAGE)
    return custom_id, _limit_texts(_reject_gaps(answer))


#: maximum number of characters of a model name, a finish reason and an error code, and of an error message
MAX_NAME = 250
MAX_MESSAGE = 10_000


def _limit_texts(answer: Answer) -> Answer:
    """Return the answer with everything that the provider wrote around it cut to a length that any table can store."""
    if (
        len(answer.model or "") <= MAX_NAME
        and len(answer.service_tier or "") <= MAX_NAME
        and len(answer.finish_reason or "") <= MAX_NAME
        and len(answer.error_code or "") <= MAX_NAME
        and len(answer.error_message or "") <= MAX_MESSAGE
    ):
        return answer
    return msgspec.structs.replace(
        answer,
        model=_cut(answer.model, MAX_NAME),
        service_tier=_cut(answer.service_tier, MAX_NAME),
        finish_reason=_cut(answer.finish_reason, MAX_NAME),
        error_code=_cut(answer.error_code, MAX_NAME),
        error_message=_cut(answer.error_message, MAX_MESSAGE),
    )


def _cut(text: str | None, characters: int) -> str | None:
    return text if text is None or len(text) <= characters else text[: characters - 1] + "…"


def _reject_gaps(answer: Answer) -> Answer:
    """Return the answer, as an invalid output if a part of it was left out because it is nested too deeply."""
    if answer.text is None or LEFT_OUT not in answer.text:
        return answer
    answer = msgspec.structs.replace(answer, value=None, text=None)
    return _with_outcome(
        answer,
        Outcome.INVALID_OUTPUT,
        "nesting",
        f"The answer is nested more than {MAX_DEPTH} levels deep, so it cannot be read.",
    )


def _unwrap(value: Any) -> Any:
    """Return the object or list that a server wrote as JSON text, as Llama Stack does, or else the value itself."""
    unwrapped = value
    for _ in range(2):
        if isinstance(unwrapped, str) and unwrapped.lstrip().startswith(("{", "[", '"')):
            unwrapped = parse(unwrapped)
    return unwrapped if isinstance(unwrapped, dict | list) else value


def _read_answer(data: dict[str, Any], endpoint: str, judge: SchemaJudge | None) -> Answer:
    response, error = _unwrap(data.get("response")), data.get("error")
    if not isinstance(response, dict) or not response:
        return _read_unexecuted(error)
    if "body" in response:
        body, status = _unwrap(response["body"]), _status(response.get("status_code"))
    else:
        body, status = response, _status(response.get("status_code", 200))
    if isinstance(body, list) and len(body) == 1:
        body = body[0]
    has_error = any(_code_and_message(error))
    # Without a status, or with status 0, only a complete answer shows that the request ran.
    if isinstance(body, dict) and (status == 0 or 200 <= status < 300):
        answer = _read_body(body, endpoint, judge)
        if answer.outcome is Outcome.SUCCEEDED or (status and not has_error):
            return answer
    elif 200 <= status < 300 and not has_error:
        return _unreadable_answer(body)
    detail = body.get("error") if isinstance(body, dict) and body.get("error") else error
    code, message = _code_and_message(detail)
    return Answer(
        Outcome.FAILED,
        error_code=code or f"http_{status}",
        error_message=message or f"HTTP status {status} without a message.",
        transient=is_transient(status) or status < 100 or 200 <= status < 300,
        status=status,
        body=body,
    )


def _status(value: Any) -> int:
    """Return an HTTP status, which some servers write as text, or 0 if there is none."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == 3:
        return int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1000 else 0


def _unreadable_answer(body: Any) -> Answer:
    """Return the answer for HTTP 200 with a body that is not an object. It may be billed, so it is not retried."""
    if body in (None, ""):
        return Answer(
            Outcome.INCOMPLETE,
            error_code="empty",
            error_message="The answer is empty.",
            usage=UNKNOWN_USAGE,
            body=body,
        )
    kind = "text" if isinstance(body, str) else "a list" if isinstance(body, list) else "a single value"
    return Answer(
        Outcome.FAILED,
        error_code="unreadable_body",
        error_message=f"The provider answered with HTTP 200, but the body is {kind} instead of an object. The request "
        "may have been billed, so it is not retried. With store_response=True, the body lands in the response column.",
        usage=UNKNOWN_USAGE,
        body=body,
    )


def _read_unexecuted(error: Any) -> Answer:
    code, message = _code_and_message(error)
    outcome = {
        "batch_expired": Outcome.EXPIRED,
        "request_timeout": Outcome.EXPIRED,
        "batch_cancelled": Outcome.CANCELLED,
        FLEX_UNAVAILABLE: Outcome.EXPIRED,
    }.get(code or "", Outcome.FAILED)
    return Answer(
        outcome,
        error_code=code or "no_response",
        error_message=message or "The line has neither a response nor an error.",
        transient=outcome is Outcome.FAILED,
    )


def _code_and_message(error: Any) -> tuple[str | None, str | None]:
    if isinstance(error, Mapping) and isinstance(error.get("error"), Mapping):
        error = error["error"]  # vLLM's ErrorResponse
    if isinstance(error, Mapping):
        code = error.get("code") or error.get("type")
        message = error.get("message")
        return (str(code) if code is not None else None), (str(message) if message is not None else None)
    return None, (str(error) if error else None)


def _read_body(body: dict[str, Any], endpoint: str, judge: SchemaJudge | None) -> Answer:
    tier = body.get(SERVICE_TIER)
    answer = Answer(
        Outcome.SUCCEEDED,
        model=_model_name(body),
        service_tier=tier if isinstance(tier, str) else None,
        usage=_usage(body, endpoint),
        body=body,
    )
    if body.get("error"):
        return _failed_response(answer, *_code_and_message(body["error"]))
    match endpoint.removeprefix("/v1"):
        case "/embeddings":
            return _embedding_answer(answer, body)
        case "/responses":
            # some gateways answer one endpoint in the shape of the other
            read = _read_choice if body.get("choices") and not body.get("output") else _read_response
            return _judge_answer(answer, judge, **read(body))
        case "/chat/completions" | "/completions":
            read = _read_response if body.get("output") and not body.get("choices") else _read_choice
            return _judge_answer(answer, judge, **read(body))
    value = body.get("results", body)
    if not value:
        return _with_outcome(answer, Outcome.INCOMPLETE, "empty", "The answer has no result.")
    return msgspec.structs.replace(answer, value=value)


#: how error codes begin that describe the request or its content, and not a passing state of the server
_PERMANENT_CODES = ("invalid", "image_", "unsupported_", "empty_image", "failed_to_download_image", "content_policy")


def _may_succeed_later(code: str | None) -> bool:
    """Return whether the same request may succeed later, after an error inside an answer with HTTP 200."""
    if code is not None and code.isascii() and code.isdigit():
        return is_transient(int(code[:4]))
    return not (code or "").startswith(_PERMANENT_CODES)


def _with_outcome(answer: Answer, outcome: Outcome, code: str, message: str, *, transient: bool = False) -> Answer:
    return msgspec.structs.replace(answer, outcome=outcome, error_code=code, error_message=message, transient=transient)


def _failed_response(answer: Answer, code: str | None = None, message: str | None = None) -> Answer:
    """Return the answer as failed. Unless it reports a usage, it costs nothing, like an HTTP error."""
    if answer.body.get("usage") is None:
        answer = msgspec.structs.replace(answer, usage=Usage())
    return _with_outcome(
        msgspec.structs.replace(answer, status=200),
        Outcome.FAILED,
        code or "response_failed",
        message or "The response failed.",
        transient=_may_succeed_later(code),
    )


def _read_choice(body: dict[str, Any]) -> dict[str, Any]:
    choice = next(iter(_dicts(body.get("choices"))), {})
    message = choice.get("message")
    message = message if isinstance(message, dict) else {"content": message or choice.get("text")}
    text = _message_text(message.get("content"))
    return {
        "texts": [text] if text else [],
        "calls": message.get("tool_calls") or message.get("function_call"),
        "refusal": message.get("refusal"),
        "reason": choice.get("finish_reason"),
        "substitutes": [
            msgspec.json.encode(value).decode() if isinstance(value, dict | list) else value
            for value in map(message.get, ("parsed", "reasoning_content", "reasoning"))
            if value and isinstance(value, dict | list | str)
        ],
    }


def _message_text(content: Any) -> str:
    """Return the text of a message: a string, parts with text, or JSON that the server already parsed."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part for part in _dicts(content) if part.get("type") not in ("reasoning", "thinking")]
        return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    return "" if content is None else msgspec.json.encode(content).decode()


#: types of output items with a call that the caller must make. The provider already made calls of other types.
_CALLER_CALLS = frozenset(
    {"function_call", "custom_tool_call", "computer_call", "local_shell_call", "shell_call", "apply_patch_call"}
)


def _read_response(body: dict[str, Any]) -> dict[str, Any]:
    texts, refusals, calls, provider_calls = [], [], [], []
    for item in _dicts(body.get("output")):
        kind = str(item.get("type", "message"))
        if kind == "message":
            if isinstance(item.get("content"), str) and item["content"]:
                texts.append(item["content"])
            for part in _dicts(item.get("content")):
                if part.get("type") == "refusal":
                    refusals.append(str(part.get("refusal", "")))
                elif part.get("text"):
                    texts.append(str(part["text"]))
        elif kind in _CALLER_CALLS:
            calls.append(item)
        elif kind.endswith("_call"):
            provider_calls.append(item)
    if not (texts or refusals or calls):
        # the SDK's shortcut, which some servers send instead of the items
        texts = [text for text in (body.get("output_text"), body.get("output")) if isinstance(text, str) and text][:1]
    details = body.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return {
        "texts": texts,
        "calls": calls or (None if texts else provider_calls),
        "refusal": "\n".join(refusals) or None,
        "reason": reason or body.get("status"),
    }


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


#: finish reasons of answers that were cut off at the output cap (`AT_CAP`), and of all answers that were cut off
AT_CAP = frozenset({"length", "max_output_tokens", "max_tokens"})
_CUT_OFF = AT_CAP | {"incomplete", "in_progress", "queued", "cancelled"}


def _judge_answer(
    answer: Answer,
    judge: SchemaJudge | None,
    *,
    texts: list[str],
    calls: Any,
    refusal: Any,
    reason: Any,
    substitutes: Sequence[str] = (),
) -> Answer:
    """Return the answer with its outcome.

    :param substitutes: texts that some servers send in place of the text. They need a schema that accepts them as they
        are.
    """
    text, value, complaint = _choose_text(texts, judge, calls, substitutes)
    reason = str(reason) if reason else None
    answer = msgspec.structs.replace(answer, value=value, text=text, finish_reason=reason)
    if reason == "failed":
        return _failed_response(answer)
    if refusal:
        return _with_outcome(answer, Outcome.REFUSED, "refusal", str(refusal))
    if reason == "content_filter":
        return _with_outcome(
            answer, Outcome.REFUSED, "content_filter", "The provider's content filter stopped the answer."
        )
    if reason in _CUT_OFF:
        return _with_outcome(
            answer, Outcome.INCOMPLETE, reason, "The answer was cut off. Raise the output cap to get a complete one."
        )
    if calls and judge is None:
        return msgspec.structs.replace(answer, value=calls, text=msgspec.json.encode(calls).decode())
    if not text:
        return _with_outcome(answer, Outcome.INCOMPLETE, "empty", "The answer is empty.")
    if complaint:
        return _with_outcome(answer, Outcome.INVALID_OUTPUT, "schema", complaint)
    return answer


def _choose_text(
    texts: list[str], judge: SchemaJudge | None, calls: Any, substitutes: Sequence[str]
) -> tuple[str | None, Any, str | None]:
    """Return the text that counts, its value, and the judge's complaint.

    A response may have several texts, for example cut-off JSON followed by complete JSON. With a schema, the last valid
    text counts, and a text that is valid as it is counts before one that contains valid JSON. Without one, all texts
    are joined. If no text is valid, the arguments of the only tool call may be.
    """
    if judge is None:
        text = "".join(texts)
        return text or None, text or None, None
    for text in [*reversed(texts), *substitutes]:
        value, complaint = judge.judge(text)
        if complaint is None:
            return text, value, None
    complaint = None
    for text in reversed(texts):
        value, complaint = read_structured(text, judge)
        if complaint is None:
            return text, value, None
    if not calls:
        return texts[-1] if texts else None, None, complaint
    call_text, arguments = msgspec.json.encode(calls).decode(), _arguments(calls)
    if len(arguments) != 1:
        return call_text, None, f"The model called {len(arguments)} tools and did not write an answer."
    value, complaint = read_structured(arguments[0], judge)
    if complaint is None:
        return arguments[0], value, None
    return call_text, None, f"The model called a tool and did not write an answer. {complaint}"


def _arguments(calls: Any) -> list[str]:
    """Return the arguments of each tool call, as JSON text."""
    entries = _dicts(calls if isinstance(calls, list) else [calls])
    functions = [next(iter(_dicts([entry.get("function")])), entry) for entry in entries]
    values = [function.get("arguments", function.get("input")) for function in functions]
    return [value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in values]


def _embedding_answer(answer: Answer, body: dict[str, Any]) -> Answer:
    entries = sorted(_dicts(body.get("data")), key=lambda entry: _number(entry.get("index")))
    vectors = [_vector(entry.get("embedding")) for entry in entries]
    if not vectors or any(not vector for vector in vectors):
        return _with_outcome(answer, Outcome.INCOMPLETE, "empty", "The answer has no vector.")
    if not all(_is_vector(vector) for vector in vectors):
        return _with_outcome(
            answer,
            Outcome.INVALID_OUTPUT,
            "vector",
            "A vector of the answer has an element that is not a finite 32-bit number.",
        )
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


def _is_vector(vector: Any) -> bool:
    """Return whether every element is a number that vector columns can store."""
    if not set(map(type, vector)) <= {int, float}:
        return False
    try:
        return math.isfinite(sum(array("f", vector)))  # a number beyond 32 bits becomes an infinity
    except OverflowError:
        return False


def _model_name(body: dict[str, Any]) -> str | None:
    model = body.get("model")
    return model if isinstance(model, str) else None


#: The largest believable number of tokens. It fits a 32-bit integer column, and sums of many rows fit 64 bits.
MAX_TOKENS = 2**31 - 1


def _usage(body: dict[str, Any], endpoint: str) -> Usage:
    """Return the tokens that the body reports. A number that is absent or not believable is unknown, not 0.

    Only the details may be absent: few servers report cached and reasoning tokens, so without a report there are none.
    The same applies to the output of an embedding, which has no output tokens.
    """
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return UNKNOWN_USAGE

    def detail(chat_key: str, responses_key: str, name: str) -> int | None:
        details = usage.get(chat_key) or usage.get(responses_key) or {}
        if not isinstance(details, dict):
            return None
        return 0 if details.get(name) is None else _token_count(details[name])

    output_tokens = _first_count(usage, "completion_tokens", "output_tokens")
    if output_tokens is None and endpoint.endswith("/embeddings") and usage.get("completion_tokens") is None:
        output_tokens = 0
    return Usage(
        input_tokens=_first_count(usage, "prompt_tokens", "input_tokens"),
        cached_tokens=detail("prompt_tokens_details", "input_tokens_details", "cached_tokens"),
        reasoning_tokens=detail("completion_tokens_details", "output_tokens_details", "reasoning_tokens"),
        output_tokens=output_tokens,
        cache_write_tokens=detail("prompt_tokens_details", "input_tokens_details", "cache_write_tokens"),
    )


def _first_count(usage: dict[str, Any], chat_key: str, responses_key: str) -> int | None:
    """Return the number under the first key, or that under the second one if the first is 0 or not a number."""
    first = _token_count(usage.get(chat_key))
    if first:
        return first
    second = _token_count(usage.get(responses_key))
    return first if second is None else second


def _token_count(value: Any) -> int | None:
    """Return a number of tokens, which some servers write as a float or as text, or None if it is not believable."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdecimal() and len(value) < 20 else None
    elif isinstance(value, float):
        value = int(value) if value.is_integer() else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
