"""Parses JSON as servers and models write it, where a strict parser would reject the whole line for one odd value.

The result is plain: its nesting is bounded, and every text in it can be encoded as UTF-8. So it can be written as JSON
again, and no later step has to expect anything else.
"""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

import msgspec

#: The deepest nesting that is read. It is far below the recursion limits of Python and of the schema validator.
MAX_DEPTH = 200
#: what is read in place of a value that is nested more deeply
LEFT_OUT = f"(left out: nested more than {MAX_DEPTH} levels deep)"

_LEFT_OUT_JSON = msgspec.json.encode(LEFT_OUT)
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKENS = re.compile(_STRING + rb"|[][{}]", re.DOTALL)
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_STEPS))


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text, or None if it is not JSON.

    NaN, infinities and numbers that no float can hold become such floats, half a surrogate pair and bytes that are not
    UTF-8 become U+FFFD, and a value that is nested more than `MAX_DEPTH` levels deep becomes `LEFT_OUT`.
    """
    encoded = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if depth(encoded, MAX_DEPTH) > MAX_DEPTH:
        encoded = _without_deep_values(encoded)
    try:
        return msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        value = json.loads(encoded.decode("utf-8-sig", errors="replace"), parse_int=_parse_integer)
    except (ValueError, RecursionError):
        return None
    return _without_surrogates(value)


def depth(text: bytes, limit: int) -> int:
    """Return the depth of the nesting. If it cannot exceed `limit`, any number up to `limit` may be returned."""
    count = text.count(b"[") + text.count(b"{")
    if count <= limit:
        return count
    brackets = _STRINGS.sub(b"", text).translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _without_deep_values(text: bytes) -> bytes:
    parts: list[bytes] = []
    level = end = 0
    for token in _TOKENS.finditer(text):
        step = _STEPS.get(text[token.start()], 0)
        if step > 0 and level == MAX_DEPTH:
            parts += (text[end : token.start()], _LEFT_OUT_JSON)
        elif step < 0 and level == MAX_DEPTH + 1:
            end = token.end()
        level += step
    return b"".join([*parts, text[end:]]) if level <= MAX_DEPTH else b""


def _parse_integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # Python limits the digits of an integer
        return float(digits)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(member) for key, member in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list) else value
