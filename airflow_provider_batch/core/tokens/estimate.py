"""Estimating the tokens of a text without a tokenizer.

The estimate is a weighted sum over the bytes of a text, with one weight per class of characters. The weights were
fitted to the counts of tiktoken's `o200k_base` (GPT-4o and later) and `cl100k_base` (GPT-4, the embedding models) on
about 1,000 samples of 2,000 to 3,000 characters: licences, documentation, manual pages and program messages in 25
languages, source code, JSON, CSS, SQL, logs and tables of numbers. For other samples of English, German, Spanish,
French, Russian, Chinese, Japanese, Arabic, Hindi and Korean, of code and of data, the total is within 10 % of the true
count. The estimate of a single short text can be further off.

Known larger errors:

* Swedish, Portuguese and Ukrainian are underestimated by 13 to 18 %, Italian and Dutch in `cl100k_base` by 16 %.
* Traditional Chinese and minified JavaScript are underestimated by 15 to 20 %, base64 and random letters by 30 %.
* Thai in `cl100k_base` is overestimated by 20 %, and whole sentences in capitals by 40 %.

`counter` corrects all of these where the extra `tokens` is installed.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from zlib import adler32


class Encoding(StrEnum):
    """A vocabulary of OpenAI's models, named as in tiktoken."""

    #: GPT-4o, GPT-4.1, GPT-5, the o-series; also used for unknown models
    O200K = "o200k_base"
    #: GPT-4, GPT-3.5, the embedding models
    CL100K = "cl100k_base"


#: prefixes of the models that use CL100K, from `tiktoken.model`; all other models use O200K
_CL100K_PREFIXES = ("gpt-4-", "gpt-3.5", "gpt-35", "text-embedding-", "davinci-002", "babbage-002")


@lru_cache(maxsize=1024)
def encoding_of(model: str) -> Encoding:
    """Return the vocabulary of a model. A fine-tuned model (`ft:…`) uses that of its base model."""
    base = model.removeprefix("ft:")
    return Encoding.CL100K if base.partition(":")[0] == "gpt-4" or base.startswith(_CL100K_PREFIXES) else Encoding.O200K


def _byte_ranges(*ranges: tuple[int, int]) -> bytes:
    return bytes(byte for first, last in ranges for byte in range(first, last + 1))


#: weight of a digit; no other byte has this weight, so that it also identifies the digits
_DIGIT = 70
#: For each class of UTF-8 bytes: its bytes, and its weight in O200K and in CL100K, in hundredths of a token per byte.
#: Letters that are common only in English, or rare in it, have classes of their own: English words take few tokens, and
#: these letters distinguish them from words of other languages and from strings that are not words.
_WEIGHTS = (
    (b"abcdefgilmnoprstuvx", 22, 23),
    (b"hwy", 8, 2),
    (b"jkqz", 103, 111),
    (b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", 32, 34),
    (b" ", 7, 11),
    (b"0123456789", _DIGIT, _DIGIT),  # if the text has few of them; see `_number_tokens`
    (b".,", 71, 62),
    (b"\"'`!$%&/:;?@\\^|", 54, 55),
    (b"()[]{}<>-_=*#~+\t", 23, 16),
    (_byte_ranges((0x00, 0x08), (0x0A, 0x1F), (0x7F, 0x7F)), 106, 64),
    # Only the first byte of a non-ASCII character counts. It identifies the script.
    (_byte_ranges((0x80, 0xC1)), 0, 0),
    (b"\xc2", 140, 140),  # signs, non-breaking space
    (b"\xc3", 55, 80),  # accented letters of Western Europe
    (_byte_ranges((0xC4, 0xC8)), 68, 97),  # accented letters of Eastern Europe
    (_byte_ranges((0xC9, 0xCF)), 42, 109),  # Greek
    (_byte_ranges((0xD0, 0xD5)), 29, 49),  # Cyrillic, Armenian
    (_byte_ranges((0xD6, 0xD7)), 46, 120),  # Hebrew
    (_byte_ranges((0xD8, 0xDF)), 37, 85),  # Arabic
    (b"\xe0", 39, 120),  # the scripts of India, Thai, Lao
    (b"\xe1", 71, 91),  # the letters of Vietnamese, among others
    (b"\xe2", 68, 48),  # dashes, quotes, signs
    (b"\xe3", 76, 106),  # kana
    (_byte_ranges((0xE4, 0xE9)), 79, 114),  # Chinese characters
    (_byte_ranges((0xEA, 0xED)), 77, 133),  # Hangul
    (_byte_ranges((0xEE, 0xEF)), 79, 110),  # full-width forms
    (_byte_ranges((0xF0, 0xF4)), 176, 212),  # emoji
)


def _table(column: int) -> bytes:
    weights = {byte: int(kind[column]) for kind in _WEIGHTS for byte in kind[0]}
    return bytes(weights.get(byte, 0) for byte in range(256))


class _Weights(NamedTuple):
    """Weights of an encoding, in hundredths of a token."""

    #: weight of each byte
    table: bytes
    #: weight of a digit in a text with many digits
    digit: int
    #: reduction for each pair of consecutive digits
    pair: int
    #: reduction for each group of three consecutive digits
    triple: int
    #: additional weight of a byte in a text with accented letters
    accented_text: int


_WEIGHTS_BY_ENCODING = {
    Encoding.O200K: _Weights(_table(1), 172, 200, 108, 1),
    Encoding.CL100K: _Weights(_table(2), 176, 200, 110, 6),
}
#: maximum number of bytes whose weights add up to less than 65,521, the modulus of Adler-32
_BLOCK = 65_520 // max(max(weights.table) for weights in _WEIGHTS_BY_ENCODING.values())
_ACCENTED_BYTES = _byte_ranges((0xC3, 0xC8))
#: number of bytes that an accented letter marks as text of a language with accents
_BYTES_PER_ACCENT = 40


def estimate_tokens(text: str | bytes, encoding: Encoding = Encoding.O200K) -> int:
    """Return the estimated number of tokens of a text (bytes must be UTF-8). Only an empty text has 0."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not data:
        return 0
    weights, size = _WEIGHTS_BY_ENCODING[encoding], len(data)
    byte_weights = data.translate(weights.table)
    hundredths = 0
    for start in range(0, size, _BLOCK):
        # The lower half of an Adler-32 that starts at 0 is the sum of the bytes. No other sum is as fast.
        hundredths += adler32(byte_weights[start : start + _BLOCK], 0) & 0xFFFF
    if not data.isascii():
        accents = size - len(data.translate(None, _ACCENTED_BYTES))
        hundredths += weights.accented_text * min(size, _BYTES_PER_ACCENT * accents)
    digits = byte_weights.count(_DIGIT)
    if digits * 50 > size:
        hundredths += _number_tokens(byte_weights, digits, weights)
    return max(1, (hundredths + 50) // 100)


def _number_tokens(byte_weights: bytes, digits: int, weights: _Weights) -> int:
    """Return what numbers add to the sum of the table, in hundredths of a token.

    Up to three consecutive digits are one token.
    """
    pairs, triples = (byte_weights.count(bytes([_DIGIT] * length)) for length in (2, 3))
    return (weights.digit - _DIGIT) * digits - weights.pair * pairs - weights.triple * triples
