"""Ranks the values of an enum by how well they fit a text, by counting shared words.

The words of a value are its name and its description in the instructions, such as `billing: invoices, refunds` in a
system prompt or in the description of a schema. A word that belongs to few values weighs more than one that belongs
to many. There is no model and no training. Where the text shares words with the values, the choice is clearly better
than chance; elsewhere it is not.
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
_CATCH_ALL = ("other", "others", "general", "unknown", "none", "misc", "miscellaneous", "unclear")


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "s", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


# a schema with several enums needs the stems of the same text once per enum
@lru_cache(maxsize=8)
def stems(text: str) -> frozenset[str]:
    """Return the words of a text in lower case, without their endings and without stop words."""
    return frozenset(map(_stem, {*_WORD.findall(text.lower())} - _STOP))


def pick(choices: int, *salt: str) -> int:
    """Return a number from 0 to `choices - 1` that depends only on the salt."""
    digest = blake2b("\0".join(salt).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) % choices


@lru_cache(maxsize=256)
def _vocabulary(values: tuple[str, ...], instructions: str) -> tuple[dict[str, float], ...]:
    """Return the words of each value with their weights."""
    name_stems = {value: stems(value) for value in values}
    descriptions: dict[str, frozenset[str]] = {value: frozenset() for value in values}
    by_name = {_normalize(value): value for value in values}
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
        mentions = list(mention.finditer(instructions))
        for match, following in zip_longest(mentions, mentions[1:]):
            end = following.start() if following else len(instructions)
            stop = {"(": r"[)\n]", "[": r"[\]\n]"}.get(match["open"], r"[;\n]")
            # None if the match differs from every value in lower case, as with the Turkish dotted I
            value = by_name.get(_normalize(match[1]))
            if value is not None:
                descriptions[value] |= stems(re.split(stop, instructions[match.end() : end])[0])
    words = {value: name_stems[value] | descriptions[value] for value in values}
    value_counts = Counter(word for value_words in words.values() for word in value_words)
    return tuple({word: math.log(1 + len(values) / value_counts[word]) for word in words[value]} for value in values)


def _normalize(value: str) -> str:
    return " ".join(_WORD.findall(value.lower()))


def rank_by_words(values: Sequence[str], text: str, instructions: str) -> list[str]:
    """Return the values, the best match for the text first.

    If the text shares no word with any value, a value that means "none of the others" comes first. If there is no such
    value, a hash of the text decides which one comes first.
    """
    text_stems = stems(text)
    vocabulary = _vocabulary(tuple(values), instructions)
    scores = [sum(weight for word, weight in words.items() if word in text_stems) for words in vocabulary]
    if max(scores) == 0.0:
        catch_all = next((value for value in values if value.lower() in _CATCH_ALL), None)
        first = catch_all if catch_all is not None else values[pick(len(values), text)]
        return [first, *(value for value in values if value != first)]
    return [value for _, value in sorted(zip(scores, values, strict=True), key=lambda pair: -pair[0])]
