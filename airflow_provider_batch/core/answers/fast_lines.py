"""The result lines that nearly all are, read faster: answered with 200, whole, from a chat or responses endpoint.

Only what an answer is made of is taken from such a line; the rest is passed over unread. A line that differs in any
of it, by a field or by a type, is left to `outcome.read_line`, which tolerates everything; so there is one reader that
decides what an odd line means, and this one says the same of the lines it takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from airflow_provider_batch.core.answers.outcome import Answer, Outcome, read_line
from airflow_provider_batch.core.pricing.prices import Usage
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: gives the custom_id of a line and its answer
LineReader = Callable[[bytes], tuple[str, Answer] | None]

_Count = Annotated[int, msgspec.Meta(ge=0)]
#: 0 makes the tolerant reader look under the other endpoint's name
_Tokens = Annotated[int, msgspec.Meta(ge=1)]
_Empty = Annotated[list[Any], msgspec.Meta(max_length=0)]


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None


class _Reasoning(msgspec.Struct, gc=False):
    reasoning_tokens: _Count | None = None


class _ChatUsage(msgspec.Struct, gc=False):
    prompt_tokens: _Tokens
    completion_tokens: _Tokens
    prompt_tokens_details: _Cached | None = None
    completion_tokens_details: _Reasoning | None = None
    input_tokens_details: None = None
    output_tokens_details: None = None

    def read(self) -> Usage:
        return _usage(
            self.prompt_tokens, self.prompt_tokens_details, self.completion_tokens, self.completion_tokens_details
        )


class _ChatMessage(msgspec.Struct, gc=False):
    content: str
    tool_calls: _Empty | None = None
    function_call: None = None
    refusal: None = None


class _Choice(msgspec.Struct, gc=False):
    message: _ChatMessage
    finish_reason: Literal["stop"]


class _ChatBody(msgspec.Struct, gc=False):
    model: str
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _ChatUsage
    error: None = None

    def texts(self) -> list[str]:
        return [self.choices[0].message.content]

    @property
    def reason(self) -> str:
        return self.choices[0].finish_reason


class _ResponseUsage(msgspec.Struct, gc=False):
    input_tokens: _Tokens
    output_tokens: _Tokens
    input_tokens_details: _Cached | None = None
    output_tokens_details: _Reasoning | None = None
    prompt_tokens: None = None
    completion_tokens: None = None
    prompt_tokens_details: None = None
    completion_tokens_details: None = None

    def read(self) -> Usage:
        return _usage(self.input_tokens, self.input_tokens_details, self.output_tokens, self.output_tokens_details)


class _Text(msgspec.Struct, gc=False):
    type: Literal["output_text", "reasoning_text"]
    text: str


class _Item(msgspec.Struct, gc=False):
    type: Literal["message", "reasoning"]
    content: list[_Text] | None = None


class _ResponseBody(msgspec.Struct, gc=False):
    model: str
    output: list[_Item]
    status: Literal["completed"]
    usage: _ResponseUsage
    error: None = None
    incomplete_details: None = None

    def texts(self) -> list[str]:
        return [part.text for item in self.output if item.type == "message" for part in item.content or () if part.text]

    @property
    def reason(self) -> str:
        return self.status


class _ChatResponse(msgspec.Struct, gc=False):
    status_code: Literal[200]
    body: _ChatBody


class _ResponsesResponse(msgspec.Struct, gc=False):
    status_code: Literal[200]
    body: _ResponseBody


class _ChatLine(msgspec.Struct, gc=False):
    custom_id: str
    response: _ChatResponse
    error: None = None


class _ResponsesLine(msgspec.Struct, gc=False):
    custom_id: str
    response: _ResponsesResponse
    error: None = None


_LINES: dict[str, type[_ChatLine] | type[_ResponsesLine]] = {
    "/chat/completions": _ChatLine,
    "/responses": _ResponsesLine,
}


def line_reader(endpoint: str, judge: SchemaJudge | None, *, bodies: bool) -> LineReader:
    """Reads any line; None for one that is not readable as a line.

    :param bodies: whether answers hold their body; else those of usual lines do without.
    """
    usual = None if bodies else fast_reader(endpoint, judge)
    if usual is None:
        return lambda line: read_line(line, endpoint, judge)
    return lambda line: usual(line) or read_line(line, endpoint, judge)


def fast_reader(endpoint: str, judge: SchemaJudge | None) -> LineReader | None:
    """Reads usual lines, without their body; None for every other. None itself for an endpoint without usual lines."""
    kind = _LINES.get(endpoint.removeprefix("/v1"))
    if kind is None:
        return None
    decode = msgspec.json.Decoder(kind).decode

    def read(line: bytes) -> tuple[str, Answer] | None:
        try:
            if not line.isascii():
                line.decode()  # what is passed over is not looked at, but has to be UTF-8 all the same
            found = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        body = found.response.body
        texts = body.texts()
        if judge is None:
            text = value = "".join(texts)
        elif len(texts) == 1:
            text = texts[0]
            value, complaint = judge.judge(text)
            if complaint is not None:
                return None
        else:
            return None
        if not text:
            return None
        return found.custom_id, Answer(
            Outcome.SUCCEEDED,
            value=value,
            text=text,
            finish_reason=body.reason,
            model=body.model,
            usage=body.usage.read(),
        )

    return read


def _usage(read: int, cached: _Cached | None, written: int, reasoning: _Reasoning | None) -> Usage:
    return Usage(
        read,
        (cached.cached_tokens or 0) if cached is not None else 0,
        (reasoning.reasoning_tokens or 0) if reasoning is not None else 0,
        written,
    )
