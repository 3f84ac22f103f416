"""Graders that compare the text of an answer with expected texts."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from airflow_provider_batch.evals.graders.subject import Grade, Subject, excerpt, right, wrong
from airflow_provider_batch.exceptions import InputError

#: characters that models write for a minus sign
MINUS_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})

_APOSTROPHES = frozenset("'’‘`´ʼ")

#: Unicode counts these as punctuation, but they carry meaning: C# is not C, and 5 % is not 5.
_MEANINGFUL_PUNCTUATION = "%#&@"

#: the argument of `one-of` for a comparison like that of `normalised`
NORMALISED = "normalised"


def exact(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is the expected text, ignoring white space at both ends."""
    return _same_text(subject.text.strip() == subject.expected.strip(), subject)


def normalised(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is the expected text after `normalise`."""
    return _same_text(normalise(subject.text) == normalise(subject.expected), subject)


def one_of(argument: str, subject: Subject) -> Grade:
    """Grade whether the answer is one of the expected texts."""
    prepare: Callable[[str], str] = normalise if argument == NORMALISED else str.strip
    answer = prepare(subject.text)
    for value in values_of(subject.expected):
        if prepare(value) == answer:
            return right(f"the same text as {excerpt(value)}")
    return wrong(f"different text: {excerpt(subject.text)}")


def contains(_: str, subject: Subject) -> Grade:
    """Grade whether the expected text is a part of the answer."""
    return _contains([subject.expected], subject, all_of_them=True)


def contains_any(_: str, subject: Subject) -> Grade:
    """Grade whether at least one expected text is a part of the answer."""
    return _contains(values_of(subject.expected), subject, all_of_them=False)


def contains_all(_: str, subject: Subject) -> Grade:
    """Grade whether every expected text is a part of the answer."""
    return _contains(values_of(subject.expected), subject, all_of_them=True)


def icontains(_: str, subject: Subject) -> Grade:
    """Grade like `contains`, regardless of upper and lower case."""
    return _contains([subject.expected], subject, all_of_them=True, fold=True)


def icontains_any(_: str, subject: Subject) -> Grade:
    """Grade like `contains_any`, regardless of upper and lower case."""
    return _contains(values_of(subject.expected), subject, all_of_them=False, fold=True)


def icontains_all(_: str, subject: Subject) -> Grade:
    """Grade like `contains_all`, regardless of upper and lower case."""
    return _contains(values_of(subject.expected), subject, all_of_them=True, fold=True)


def starts_with(_: str, subject: Subject) -> Grade:
    """Grade whether the answer begins with the expected text, ignoring white space before it."""
    if subject.text.lstrip().startswith(subject.expected.strip()):
        return right(f"begins with {excerpt(subject.expected)}")
    return wrong(f"does not begin with {excerpt(subject.expected)}: {excerpt(subject.text)}")


@lru_cache(maxsize=1024)
def values_of(expected: str) -> tuple[str, ...]:
    """Return the texts in an expected value: those of a JSON list, or the value itself.

    :raises InputError: if the list is empty or contains a list or an object.
    """
    if not expected.lstrip().startswith("["):
        return (expected,)
    try:
        values = json.loads(expected)
    except (ValueError, RecursionError):
        return (expected,)
    if not values:
        raise InputError("`expected` is an empty list")
    if any(isinstance(value, list | dict) for value in values):
        raise InputError("`expected` is a list whose elements are not all texts or numbers")
    return tuple(value if isinstance(value, str) else json.dumps(value) for value in values)


def require_text(_: str, expected: str) -> None:
    """Raise InputError if an expected text is empty, because every answer contains it."""
    if not expected.strip():
        raise InputError("`expected` is empty, and every answer contains an empty text")


def require_texts(argument: str, expected: str) -> None:
    """Raise InputError if one of the expected texts is empty."""
    for value in values_of(expected):
        require_text(argument, value)


def normalise(text: str) -> str:
    """Return the text for a comparison: NFKC form, lower case, without punctuation, with single spaces.

    Punctuation stays where it is part of a number: 3.5 is not 35, and -5 is not 5.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(MINUS_SIGNS)).casefold())
    characters: list[str] = []
    for position, character in enumerate(folded):
        if character in _APOSTROPHES:
            continue
        previous = folded[position - 1] if position else " "
        following = folded[position + 1] if position + 1 < len(folded) else " "
        if unicodedata.category(character).startswith("P"):
            in_number = following.isdigit() and (previous.isdigit() or (character in "-." and not previous.isalnum()))
            characters.append(character if in_number or character in _MEANINGFUL_PUNCTUATION else " ")
        else:
            characters.append(character)
    return " ".join("".join(characters).split())


def _same_text(is_same: bool, subject: Subject) -> Grade:
    return right("the same text") if is_same else wrong(f"different text: {excerpt(subject.text)}")


def _contains(values: tuple[str, ...] | list[str], subject: Subject, *, all_of_them: bool, fold: bool = False) -> Grade:
    text = subject.text.casefold() if fold else subject.text
    present = [value for value in values if (value.casefold() if fold else value) in text]
    if len(present) == len(values) or (present and not all_of_them):
        return right(f"contains {_list(present)}")
    missing = [value for value in values if value not in present]
    return wrong(f"does not contain {_list(missing)}: {excerpt(subject.text)}")


def _list(values: list[str]) -> str:
    """Return up to three texts for a reason."""
    names = ", ".join(excerpt(value) for value in values[:3])
    return names if len(values) <= 3 else f"{names} and {len(values) - 3} more"
