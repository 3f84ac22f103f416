"""Estimating the tokens of a text without a tokenizer.

The estimate is a weighted sum over the bytes of a text, and over a few pairs of neighbouring characters. The weights in
`weights.json` were fitted to the counts of `o200k_base` (GPT-4o and later) and `cl100k_base` (GPT-4, the embedding
models) by `benchmarks.fit_tokens`, on about 400 kinds of text: prose, messages and manual pages in 80 languages, source
code, markup, logs, tables, identifiers, encoded and random data. `make bench` shows the error for 185 of these kinds.
About 87 % of them are within 10 % of the true count. Of the others, most are overestimated, because too few tokens are
worse. Texts in natural languages from sources that were not part of the fit are within 10 % in 80 % of the cases, and
the estimate of a single short text can be 20 % too low or 40 % too high.

Known larger errors:

* Random letters are underestimated by 25 %, passwords and Welsh by 15 to 30 %.
* Languages with Latin or Cyrillic letters of their own, such as many in Africa, are underestimated by up to 50 %.
* Vietnamese is overestimated by 20 to 30 %, English sentences of very common words by 15 to 25 %.

`counter` corrects all of these where the extra `tokens` is installed, and the answers of a job correct the rest of it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from zlib import adler32

import msgspec


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


#: units of the weights per token
UNITS = 200
#: The classes of ASCII characters: lower case, upper case, digit, space, punctuation. All other bytes are in none.
CLASSES = bytes(
    ord(
        "L" if "a" <= character <= "z"
        else "U" if "A" <= character <= "Z"
        else "D" if "0" <= character <= "9"
        else "S" if character == " "
        else "P" if "!" <= character <= "~"
        else "-"
    )
    for character in map(chr, range(256))
)  # fmt: skip
#: Neighbouring characters that are counted, by their classes. Up to three digits are one token. A capital or a digit
#: after a letter begins a token, as does punctuation after a space.
PAIRS = (b"DD", b"DDD", b"SD", b"LD", b"LU", b"SP")
#: first bytes of the accented letters of European languages
_ACCENTED_BYTES = bytes(range(0xC3, 0xC9))
#: number of bytes that an accented letter marks as text of a language with accents
_BYTES_PER_ACCENT = 40
#: Characters of scripts that the vocabularies hardly contain, so that most of their bytes are tokens of their own:
#: Syriac, Thaana, NKo; Canadian syllabics, Cherokee, Mongolian, Balinese and others; Tifinagh; Yi, Vai, Javanese and
#: others; historic scripts and Adlam
_RARE_CHARACTERS = re.compile(
    rb"[\xdc-\xdf][\x80-\xbf]|\xe1[\x8e-\x9b\xa0-\xb3].|\xe2[\xb4-\xb7].|\xea[\x80-\xaf].|"
    rb"\xf0[\x90-\x92\x9e]..",
    re.DOTALL,
)
#: characters of Tibetan and Ethiopic, where about every second byte is a token
_SCARCE_CHARACTERS = re.compile(rb"\xe0[\xbc-\xbf].|\xe1[\x88-\x8d].", re.DOTALL)
#: what such characters add to the weights of their bytes, in tokens per byte
_RARE_BYTE, _SCARCE_BYTE = 0.8, 0.35
#: A text without any of these has no such characters. Searching for them is much faster than the expressions.
_RARE_PREFIXES = (
    b"\xdc",
    b"\xde",
    b"\xdf",
    b"\xe0\xbd",
    b"\xe1",
    b"\xe2\xb5",
    b"\xea",
    b"\xf0\x90",
    b"\xf0\x91",
    b"\xf0\x9e",
)
#: bytes with which none of these begins
_COMMON_BYTES = bytes(set(range(256)) - {prefix[0] for prefix in _RARE_PREFIXES})


class Weights(msgspec.Struct, frozen=True):
    """Weights of an encoding, in units."""

    #: weight of each byte
    bytes: list[int]
    #: weight of each of `PAIRS`
    pairs: list[int]
    #: additional weight of a byte in a text with accented letters, whose words are longer in tokens than English ones
    accented_text: float


_WEIGHTS = msgspec.json.decode(Path(__file__).with_name("weights.json").read_bytes(), type=dict[Encoding, Weights])
_BYTE_WEIGHTS = {encoding: bytes(weights.bytes) for encoding, weights in _WEIGHTS.items()}
#: maximum number of bytes whose weights add up to less than 65,521, the modulus of Adler-32
_BLOCK = 65_520 // 255


def estimate_tokens(text: str | bytes, encoding: Encoding = Encoding.O200K) -> int:
    """Return the estimated number of tokens of a text (bytes must be UTF-8). Only an empty text has 0."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if not data:
        return 0
    weights = _WEIGHTS[encoding]
    byte_weights = data.translate(_BYTE_WEIGHTS[encoding])
    units = 0.0
    for start in range(0, len(data), _BLOCK):
        # The lower half of an Adler-32 that starts at 0 is the sum of the bytes. No other sum is as fast.
        units += adler32(byte_weights[start : start + _BLOCK], 0) & 0xFFFF
    classes = data.translate(CLASSES)
    has_digits = b"D" in classes
    for pair, weight in zip(PAIRS, weights.pairs, strict=True):
        if has_digits or b"D" not in pair:
            units += weight * classes.count(pair)
    units += weights.accented_text * accented_bytes(data)
    return max(1, round(units / UNITS + _rare_tokens(data)))


def _rare_tokens(data: bytes) -> float:
    """Return the tokens that the bytes of rare scripts add."""
    if data.isascii() or not data.translate(None, _COMMON_BYTES):
        return 0.0
    if not any(prefix in data for prefix in _RARE_PREFIXES):
        return 0.0
    rare_bytes = sum(map(len, _RARE_CHARACTERS.findall(data)))
    scarce_bytes = sum(map(len, _SCARCE_CHARACTERS.findall(data)))
    return _RARE_BYTE * rare_bytes + _SCARCE_BYTE * scarce_bytes


def accented_bytes(data: bytes) -> int:
    """Return the number of bytes that belong to text of a language with accents."""
    if data.isascii():
        return 0
    accents = len(data) - len(data.translate(None, _ACCENTED_BYTES))
    return min(len(data), _BYTES_PER_ACCENT * accents)
