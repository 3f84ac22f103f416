"""A fast reader for ordinary result lines: HTTP 200, complete, from a chat or responses endpoint.

Nearly all lines of a result file are like that. The fast reader decodes only the fields that make up an answer. If any
of them is missing or has another type, it returns None, and `outcome.read_line`, which tolerates everything, reads the
line instead. So only `read_line` decides what an unusual line means, and for every line that the fast reader accepts,
both give the same answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec

from airflow_provider_batch.core.answers.outcome import MAX_NAME, MAX_TOKENS, Answer, Outcome, read_line
from airflow_provider_batch.core.answers.structured import read_structured
from airflow_provider_batch.core.pricing.prices import Usage
from airflow_provider_batch.core.schema.judge import SchemaJudge

#: returns the custom_id and the answer of a line, or None if it cannot read the line
LineReader = Callable[[bytes], tuple[str, Answer] | None]

_Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
#: at least 1, because for 0 `read_line` also looks for the name that the other endpoint uses
_Tokens = Annotated[int, msgspec.Meta(ge=1, le=MAX_TOKENS)]
_Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
_EmptyList = Annotated[list[Any], msgspec.Meta(max_length=0)]


class _Cached(msgspec.Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None


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
    tool_calls: _EmptyList | None = None
    function_call: None = None
    refusal: None = None


class _Choice(msgspec.Struct, gc=False):
    message: _ChatMessage
    finish_reason: Literal["stop"]


class _ChatBody(msgspec.Struct, gc=False):
    model: _Name
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _ChatUsage
    service_tier: _Name | None = None
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
    model: _Name
    output: list[_Item]
    status: Literal["completed"]
    usage: _ResponseUsage
    service_tier: _Name | None = None
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
    """Return a reader for any line.

    :param bodies: whether every answer needs its body; if not, the answers of ordinary lines have none.
    """
    fast = None if bodies else fast_reader(endpoint, judge)
    if fast is None:
        return lambda line: read_line(line, endpoint, judge)
    return lambda line: fast(line) or read_line(line, endpoint, judge)


def fast_reader(endpoint: str, judge: SchemaJudge | None) -> LineReader | None:
    """Return a reader for ordinary lines, which leaves out their body, or None if the endpoint has no fast reader."""
    kind = _LINES.get(endpoint.removeprefix("/v1"))
    if kind is None:
        return None
    decode = msgspec.json.Decoder(kind).decode

    def read(line: bytes) -> tuple[str, Answer] | None:
        try:
            if not line.isascii():
                line.decode()  # raises if a field that is not decoded below is not UTF-8
            result = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        body = result.response.body
        texts = body.texts()
        if judge is None:
            text = value = "".join(texts)
        elif len(texts) == 1:
            text = texts[0]
            value, complaint = read_structured(text, judge)
            if complaint is not None:
                return None
        else:
            return None
        if not text:
            return None
        return result.custom_id, Answer(
            Outcome.SUCCEEDED,
            value=value,
            text=text,
            finish_reason=body.reason,
            model=body.model,
            service_tier=body.service_tier,
            usage=body.usage.read(),
        )

    return read


def _usage(input_tokens: int, cached: _Cached | None, output_tokens: int, reasoning: _Reasoning | None) -> Usage:
    return Usage(
        input_tokens,
        (cached.cached_tokens or 0) if cached is not None else 0,
        (reasoning.reasoning_tokens or 0) if reasoning is not None else 0,
        output_tokens,
        (cached.cache_write_tokens or 0) if cached is not None else 0,
    )
