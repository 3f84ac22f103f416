"""How many tokens a text or a request has, estimated without a tokenizer.

The estimate weighs the bytes of each kind of character. The weights are fitted to the counts of tiktoken's
`o200k_base` (GPT-4o and later) and `cl100k_base` (GPT-4, the embedding models) on about 1,000 pieces of 2,000 to 3,000
characters: licences, documentation, manual pages and messages of programs in 25 languages, source code, JSON, CSS,
SQL, logs, tables of numbers. On other pieces of English, German, Spanish, French, Russian, Chinese, Japanese, Arabic,
Hindi and Korean, of code and data, their sum is within 10 % of the true count; a short text alone may be further off.

Beyond that lie: Swedish, Portuguese and Ukrainian (13 to 18 % too few), in `cl100k_base` Italian and Dutch too (16 %);
traditional Chinese and minified JavaScript (15 to 20 % too few), base64 and random letters (30 % too few); Thai in
`cl100k_base` (20 % too many) and whole sentences in capitals (40 % too many). `tiktoken_counter` corrects all of these
where tiktoken is at hand.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple
from zlib import adler32

import msgspec

#: tokens around each message, and around a request of messages
_PER_MESSAGE, _PER_REQUEST = 4, 3
#: tokens of an image, a sound or a file, whose true number depends on model and size
MEDIA_TOKENS = 1_000


class Encoding(StrEnum):
    """A vocabulary of OpenAI's models, by its name in tiktoken."""

    #: GPT-4o, GPT-4.1, GPT-5, the o-series; stands in for models that are not known
    O200K = "o200k_base"
    #: GPT-4, GPT-3.5, the embedding models
    CL100K = "cl100k_base"


#: as in `tiktoken.model`; what is no prefix of a model here is O200K
_CL100K_MODELS = ("gpt-4-", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002")


@lru_cache(maxsize=1024)
def encoding_of(model: str) -> Encoding:
    """The vocabulary of a model, by its name; a fine-tuned one (`ft:…`) has that of its base."""
    base = model.removeprefix("ft:")
    return Encoding.CL100K if base.partition(":")[0] == "gpt-4" or base.startswith(_CL100K_MODELS) else Encoding.O200K


def _between(*ranges: tuple[int, int]) -> bytes:
    return bytes(byte for first, last in ranges for byte in range(first, last + 1))


#: the weight of a digit, and of no other byte: digits are found by it
_DIGIT = 70
#: bytes in UTF-8, hundredths of a token per byte in O200K, and in CL100K. Letters that are common in English alone,
#: or rare in it, tell its words (of few tokens) from those of other languages and from what is no word
_WEIGHTS = (
    (b"abcdefgilmnoprstuvx", 22, 23),
    (b"hwy", 8, 2),
    (b"jkqz", 103, 111),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 32, 34),
    (b" ", 7, 11),
    (b"0123456789", _DIGIT, _DIGIT),  # if there are few; see `_numbers`
    (b".,", 71, 62),
    (b"\"'`!$%&/:;?@\\^|", 54, 55),
    (b"()[]{}<>-_=*#~+\t", 23, 16),
    (_between((0x00, 0x08), (0x0A, 0x1F), (0x7F, 0x7F)), 106, 64),
    # Of a character beyond ASCII only the first byte counts, and tells the script.
    (_between((0x80, 0xC1)), 0, 0),
    (b"\xc2", 140, 140),  # signs, non-breaking space
    (b"\xc3", 55, 80),  # accented letters of Western Europe
    (_between((0xC4, 0xC8)), 68, 97),  # and of the East
    (_between((0xC9, 0xCF)), 42, 109),  # Greek
    (_between((0xD0, 0xD5)), 29, 49),  # Cyrillic, Armenian
    (_between((0xD6, 0xD7)), 46, 120),  # Hebrew
    (_between((0xD8, 0xDF)), 37, 85),  # Arabic
    (b"\xe0", 39, 120),  # the scripts of India, Thai, Lao
    (b"\xe1", 71, 91),  # among others the letters of Vietnamese
    (b"\xe2", 68, 48),  # dashes, quotes, signs
    (b"\xe3", 76, 106),  # kana
    (_between((0xE4, 0xE9)), 79, 114),  # Chinese characters
    (_between((0xEA, 0xED)), 77, 133),  # Hangul
    (_between((0xEE, 0xEF)), 79, 110),  # full-width forms
    (_between((0xF0, 0xF4)), 176, 212),  # emoji
)


def _table(column: int) -> bytes:
    weights = {byte: int(kind[column]) for kind in _WEIGHTS for byte in kind[0]}
    return bytes(weights.get(byte, 0) for byte in range(256))


class _Weights(NamedTuple):
    """Everything in hundredths of a token."""

    table: bytes
    #: a digit alone, and by how much less each pair and each three of digits in a row take
    digit: int
    pair: int
    three: int
    #: by how much more a byte takes in a text with accented letters
    foreign: int


_OF = {
    Encoding.O200K: _Weights(_table(1), 172, 200, 108, 1),
    Encoding.CL100K: _Weights(_table(2), 176, 200, 110, 6),
}
#: so many weights sum up to less than 65,521, where Adler-32 begins at 0 again
_BLOCK = 65_520 // max(max(weights.table) for weights in _OF.values())
_ACCENTED = _between((0xC3, 0xC8))
#: one accented letter says that so many bytes are of its language
_PER_ACCENT = 40


def estimate_tokens(text: str | bytes, encoding: Encoding = Encoding.O200K) -> int:
    """About how many tokens a text (as bytes: UTF-8) has; 0 only for an empty one."""
    whole = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not whole:
        return 0
    weights, size = _OF[encoding], len(whole)
    weighed = whole.translate(weights.table)
    hundredths = 0
    for start in range(0, size, _BLOCK):
        # The lower half of an Adler-32 that starts at 0 is the sum of the bytes: the fastest sum at hand.
        hundredths += adler32(weighed[start : start + _BLOCK], 0) & 0xFFFF
    if not whole.isascii():
        accented = size - len(whole.translate(None, _ACCENTED))
        hundredths += weights.foreign * min(size, _PER_ACCENT * accented)
    digits = weighed.count(_DIGIT)
    if digits * 50 > size:
        hundredths += _numbers(weighed, digits, weights)
    return max(1, (hundredths + 50) // 100)


def _numbers(weighed: bytes, digits: int, weights: _Weights) -> int:
    """What numbers take more than the table says. Up to three digits in a row are one token."""
    pairs, threes = (weighed.count(bytes([_DIGIT] * length)) for length in (2, 3))
    return (weights.digit - _DIGIT) * digits - weights.pair * pairs - weights.three * threes


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
    #: the strings of the prompt, and which part of the estimate is theirs
    texts: tuple[str, ...]
    text_tokens: int
    #: the body's own limit of the output of one choice, None when it has none
    cap: int | None
    #: answers wanted
    choices: int


_decoder = msgspec.json.Decoder(_Body)
_PROMPT_KEYS = ("messages", "instructions", "input", "prompt")
#: keys of a body that are read as they are written; in the others only the texts count
WHOLE_KEYS = frozenset(_Body.__struct_fields__) - frozenset(_PROMPT_KEYS)


def read_ask(body: bytes, encoding: Encoding = Encoding.O200K) -> Ask:
    """Estimate a request from its body (a JSON object of any endpoint).

    Counted are the strings of the prompt, each for itself, not the JSON around them; the schema and the tools as they
    are written.
    """
    parsed = _decoder.decode(body)
    texts: list[str] = []
    tokens = sum(_collect(getattr(parsed, key), texts) for key in _PROMPT_KEYS)
    text_tokens = sum(estimate_tokens(text, encoding) for text in texts)
    tokens += text_tokens
    for raw in (parsed.response_format, parsed.text, parsed.tools):
        if raw:
            tokens += _estimate_repeated(bytes(raw), encoding)
    if parsed.messages:
        tokens += _PER_REQUEST
    caps = (parsed.max_completion_tokens, parsed.max_output_tokens, parsed.max_tokens)
    return Ask(
        input_tokens=tokens,
        texts=tuple(texts),
        text_tokens=text_tokens,
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
