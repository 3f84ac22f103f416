"""Estimating the input tokens of a request from its body."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

from airflow_provider_batch.core.tokens.estimate import Encoding, encoding_of, estimate_tokens
from airflow_provider_batch.core.tokens.media import Media, media_tokens, read_media
from airflow_provider_batch.core.tokens.schemas import render_format, render_tools

#: tokens that a chat format adds per message, and per request with messages
_TOKENS_PER_MESSAGE, _TOKENS_PER_REQUEST = 4, 3


class _Body(msgspec.Struct):
    """The parts of a request body that become tokens (prompt, schema, tools) or limit the answer."""

    messages: Any = None
    instructions: Any = None
    input: Any = None
    prompt: Any = None
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens: Any = None
    n: Any = None
    best_of: Any = None


class RequestTokens(msgspec.Struct, frozen=True):
    """The estimated tokens of a request, and the limits of its answer."""

    #: estimated input tokens, including `text_tokens` and the tokens of `media`
    input_tokens: int
    #: strings of the prompt
    texts: tuple[str, ...]
    #: estimated tokens of `texts`
    text_tokens: int
    #: images, sounds and files of the prompt
    media: tuple[Media, ...]
    #: maximum number of output tokens per choice, as the body sets it; None if it sets none
    cap: int | None
    #: number of choices that are generated
    choices: int


_decoder = msgspec.json.Decoder(_Body)
_PROMPT_KEYS = ("messages", "instructions", "input", "prompt")
#: keys that `estimate_request` reads besides the prompt
RAW_KEYS = frozenset(_Body.__struct_fields__) - frozenset(_PROMPT_KEYS)


def estimate_request(body: bytes, model: str = "") -> RequestTokens:
    """Estimate the tokens of a request to a model from its body, a JSON object for any endpoint.

    Each string of the prompt is estimated separately, without the JSON around it.
    """
    request = _decoder.decode(body)
    encoding = encoding_of(model)
    texts: list[str] = []
    parts: list[Media] = []
    tokens = sum(_collect_texts(getattr(request, key), texts, parts) for key in _PROMPT_KEYS)
    text_tokens = sum(estimate_tokens(text, encoding) for text in texts)
    tokens += text_tokens + sum(media_tokens(part, model, encoding) for part in parts)
    for raw in (request.response_format, request.text):
        if raw:
            tokens += _format_tokens(bytes(raw), encoding)
    for raw in (request.tools, request.functions):
        if raw:
            tokens += _tool_tokens(bytes(raw), encoding)
    if request.messages:
        tokens += _TOKENS_PER_REQUEST
    caps = (request.max_completion_tokens, request.max_output_tokens, request.max_tokens)
    return RequestTokens(
        input_tokens=tokens,
        texts=tuple(texts),
        text_tokens=text_tokens,
        media=tuple(parts),
        cap=next((cap for cap in caps if isinstance(cap, int)), None),
        choices=max([1, *(count for count in (request.n, request.best_of) if isinstance(count, int))]),
    )


# Schemas and tools are the same in nearly every request of a job.
@lru_cache(maxsize=64)
def _format_tokens(raw: bytes, encoding: Encoding) -> int:
    return estimate_tokens(render_format(msgspec.json.decode(raw)), encoding)


@lru_cache(maxsize=64)
def _tool_tokens(raw: bytes, encoding: Encoding) -> int:
    return estimate_tokens(render_tools(msgspec.json.decode(raw)), encoding)


_KEYS_WITHOUT_TEXT = frozenset(
    {"type", "role", "id", "call_id", "status", "detail", "format", "annotations", "logprobs"}
)


def _collect_texts(value: Any, texts: list[str], parts: list[Media]) -> int:
    """Append the strings and the media of a part of the prompt to the lists. Return the tokens of everything else."""
    if isinstance(value, str):
        texts.append(value)
        return 0
    if isinstance(value, list):
        return sum(_collect_texts(item, texts, parts) for item in value)
    if isinstance(value, dict):
        part = read_media(value)
        if part is not None:
            parts.append(part)
            return 0
        tokens = _TOKENS_PER_MESSAGE if "role" in value else 0
        for key, item in value.items():
            if key not in _KEYS_WITHOUT_TEXT:
                tokens += _collect_texts(item, texts, parts)
        return tokens
    # a number is a token itself: embeddings and completions accept lists of token ids
    return 0 if value is None else 1
