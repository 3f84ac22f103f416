"""Which value of an enum fits a text, by plain word overlap.

The words of a value are its own name and what the instructions say of it: `billing: invoices, refunds` in a
system prompt or in a schema's description. A word that speaks for few values weighs more than one that speaks
for many. No model, no training: visibly better than chance where the words meet, and no better elsewhere.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import zip_longest

_WORD = re.compile(r"[^\W_]+")
_STOP = frozenset(
    _WORD.findall(
        """a about all an and any are as at be been but by can do does for from had has have how i if in
        into is it its me my no nor not of on or our so such that the their them then there these they
        this to up us was we were what when which who will with would you your one else anything
        something e g etc label labels ticket value"""
    )
)
#: values that mean "none of the others"
_REST = ("other", "others", "general", "unknown", "none", "misc", "miscellaneous", "unclear")


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


# A schema with several enums asks for the words of the same text once for each.
@lru_cache(maxsize=8)
def stems(text: str) -> frozenset[str]:
    """The words of a text, lower case, without endings and without words that say nothing."""
    return frozenset(map(_stem, {*_WORD.findall(text.lower())} - _STOP))


def pick(choices: int, *salt: str) -> int:
    """A number below `choices` that depends on the salt alone."""
    digest = blake2b("\0".join(salt).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % choices


@lru_cache(maxsize=256)
def _vocabulary(values: tuple[str, ...], instructions: str) -> tuple[dict[str, float], ...]:
    """Per value its words and their weights."""
    named = {value: stems(value) for value in values}
    said: dict[str, frozenset[str]] = {value: frozenset() for value in values}
    by_name = {_plain(value): value for value in values}
    names = "|".join(
        r"[\s_-]+".join(map(re.escape, _WORD.findall(value)))
        for value in sorted(values, key=len, reverse=True)
        if _WORD.findall(value)
    )
    if names:
        mention = re.compile(
            rf"(?<![\w-])({names})[\"'`*]*\s*(?P<open>[:=(\[]|[–—-](?=\s)|\b(?:means|if|when|for)\b)",
            re.IGNORECASE,
        )
        found = list(mention.finditer(instructions))
        for match, following in zip_longest(found, found[1:]):
            end = following.start() if following else len(instructions)
            stop = {"(": r"[)\n]", "[": r"[\]\n]"}.get(match["open"], r"[;\n]")
            # A few letters match here without being equal in lower case (the Turkish dotted I); they name nothing.
            value = by_name.get(_plain(match[1]))
            if value is not None:
                said[value] |= stems(re.split(stop, instructions[match.end() : end])[0])
    words = {value: named[value] | said[value] for value in values}
    spread = Counter(word for each in words.values() for word in each)
    return tuple({word: math.log(1 + len(values) / spread[word]) for word in words[value]} for value in values)


def _plain(value: str) -> str:
    return " ".join(_WORD.findall(value.lower()))


def rank(values: Sequence[str], text: str, instructions: str) -> list[str]:
    """The values, the best for this text first.

    If no word of the text speaks for any value, one that means "none of the others" comes first, or one that
    depends on the text alone.
    """
    asked = stems(text)
    vocabulary = _vocabulary(tuple(values), instructions)
    scores = [sum(weight for word, weight in words.items() if word in asked) for words in vocabulary]
    if max(scores) == 0.0:
        rest = next((value for value in values if value.lower() in _REST), None)
        first = rest if rest is not None else values[pick(len(values), text)]
        return [first, *(value for value in values if value != first)]
    return [value for _, value in sorted(zip(scores, values, strict=True), key=lambda pair: -pair[0])]
