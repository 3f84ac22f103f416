"""How many tokens a text or a request has, estimated without a tokenizer.

The estimate counts the bytes of each kind of character (letters, digits, marks, scripts) and weighs them. The
weights are set by eye on `o200k_base`, the tokenizer of GPT-4o and later, whose counts for one sentence in 20
languages OpenAI published with GPT-4o. Expect it within 25 % for text of a paragraph or more. Older models need up
to twice as many tokens for scripts other than Latin; base64 and random letters need about twice the estimate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import msgspec

#: tokens around each message, and around a request of messages
_PER_MESSAGE, _PER_REQUEST = 4, 3
#: tokens of an image, a sound or a file, whose true number depends on model and size
MEDIA_TOKENS = 1_000


def _between(*ranges: tuple[int, int]) -> bytes:
    return bytes(byte for first, last in ranges for byte in range(first, last + 1))


#: (bytes in UTF-8, tokens per byte). Of a character beyond ASCII only the first byte counts, and tells the script
_WEIGHTS = (
    (b"abcdefghijklmnopqrstuvwxyz", 0.24),
    (b" ", 0.0),  # part of the token of the next word
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 0.4),
    (b"0123456789", 0.5),
    (_between((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)), 0.7),
    (_between((0x00, 0x1F)), 0.7),
)
_WEIGHTS_BEYOND_ASCII = (
    (_between((0x80, 0xBF)), 0.0),  # every byte of a character but its first
    (_between((0xC2, 0xC8)), 0.9),  # accented Latin letters
    (_between((0xC9, 0xD6)), 0.31),  # Greek, Cyrillic, Armenian
    (_between((0xD7, 0xDF)), 0.43),  # Hebrew, Arabic
    (b"\xe0", 0.42),  # the scripts of India, Thai, Lao
    (b"\xe1", 0.7),  # among others the letters of Vietnamese
    (b"\xe2", 1.0),  # dashes, quotes, signs
    (_between((0xE3, 0xE9)), 0.7),  # kana, Chinese characters
    (_between((0xEA, 0xED)), 0.58),  # Hangul
    (_between((0xEE, 0xEF)), 0.9),  # full-width forms
    (_between((0xF0, 0xF4)), 2.0),  # emoji
)


def estimate_tokens(text: str | bytes) -> int:
    """About how many tokens a text (as bytes: UTF-8) has; 0 only for an empty one."""
    rest = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not rest:
        return 0
    tokens = 0.0
    if not rest.isascii():
        rest, tokens = _weigh(rest, _WEIGHTS_BEYOND_ASCII)
    return max(1, round(tokens + _weigh(rest, _WEIGHTS)[1]))


def _weigh(rest: bytes, weights: tuple[tuple[bytes, float], ...]) -> tuple[bytes, float]:
    tokens = 0.0
    for kind, weight in weights:
        before = len(rest)
        rest = rest.translate(None, kind)
        tokens += weight * (before - len(rest))
        if not rest:
            break
    return rest, tokens


class _Body(msgspec.Struct):
    """What of a request's body becomes tokens: the prompt, the schema, the tools; and what limits the answer."""

    messages: Any = None
    instructions: Any = None
    input: Any = None
    prompt: Any = None
    response_format: msgspec.Raw = msgspec.Raw()
    text: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    max_tokens: Any = None
    n: Any = None


class Ask(msgspec.Struct, frozen=True):
    """What a request asks for, in tokens."""

    #: estimated
    input_tokens: int
    #: the body's own limit of the output of one choice, None when it has none
    cap: int | None
    #: answers wanted
    choices: int


_decoder = msgspec.json.Decoder(_Body)


def read_ask(body: bytes) -> Ask:
    """Estimate a request from its body (a JSON object of any endpoint).

    Counted are the strings of the prompt, not the JSON around them; the schema and the tools as they are written.
    """
    parsed = _decoder.decode(body)
    texts: list[str] = []
    tokens = sum(_collect(part, texts) for part in (parsed.messages, parsed.instructions, parsed.input, parsed.prompt))
    tokens += estimate_tokens("\n".join(texts))
    for raw in (parsed.response_format, parsed.text, parsed.tools):
        if raw:
            tokens += _estimate_repeated(bytes(raw))
    if parsed.messages:
        tokens += _PER_REQUEST
    caps = (parsed.max_completion_tokens, parsed.max_output_tokens, parsed.max_tokens)
    return Ask(
        input_tokens=tokens,
        cap=next((cap for cap in caps if isinstance(cap, int)), None),
        choices=parsed.n if isinstance(parsed.n, int) and parsed.n > 0 else 1,
    )


#: schema and tools are the same in nearly every request of a job
_estimate_repeated = lru_cache(maxsize=64)(estimate_tokens)

_NO_TEXT = frozenset({"type", "role", "id", "call_id", "status", "detail", "format"})
_MEDIA = frozenset({"image_url", "input_audio", "file", "file_id", "file_data", "file_url"})


def _collect(value: Any, texts: list[str]) -> int:
    """Gather the strings of a part of the prompt; return the tokens of all that is no string."""
    if isinstance(value, str):
        texts.append(value)
        return 0
    if isinstance(value, list):
        return sum(_collect(item, texts) for item in value)
    if isinstance(value, dict):
        tokens = _PER_MESSAGE if "role" in value else 0
        for key, item in value.items():
            if key in _MEDIA:
                tokens += MEDIA_TOKENS
            elif key not in _NO_TEXT:
                tokens += _collect(item, texts)
        return tokens
    # a number stands for itself: embeddings and completions take lists of token numbers
    return 0 if value is None else 1
