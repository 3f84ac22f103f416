"""Graders that compare the text of an answer with expected texts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from airflow_provider_batch.evals.graders.subject import Grade, Subject, UndecidableError, excerpt, right, wrong
from airflow_provider_batch.exceptions import InputError

#: characters that models write for a minus sign
MINUS_SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})

_APOSTROPHES = frozenset("'’‘`´ʼ")

#: maximum length of an answer that is normalised, in characters
_MAX_NORMALISED = 100_000

_NOT_WORD = re.compile(r"[^\w\s]|[_ʼ]")

#: many combining marks, among other characters, and the character with which Unicode's Stream-Safe format splits them
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{100}")
_JOINER = "\u034f"

#: Unicode counts these as punctuation, but they carry meaning: C# is not C, and 5 % is not 5.
_MEANINGFUL_PUNCTUATION = "%#&@"

#: the argument of `one-of` for a comparison like that of `normalised`
NORMALISED = "normalised"


def exact(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is the expected text, ignoring white space at both ends."""
    return _same_text(subject.text.strip() == subject.expected.strip(), subject)


def normalised(_: str, subject: Subject) -> Grade:
    """Grade whether the answer is the expected text after `normalise`.

    :raises UndecidableError: if the answer is too long.
    """
    return _same_text(normalise_answer(subject) == normalise(subject.expected), subject)


def one_of(argument: str, subject: Subject) -> Grade:
    """Grade whether the answer is one of the expected texts.

    :raises UndecidableError: if it is too long to be normalised.
    """
    prepare: Callable[[str], str] = normalise if argument == NORMALISED else str.strip
    answer = normalise_answer(subject) if argument == NORMALISED else subject.text.strip()
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
    folded = _nfkc(_nfkc(text.translate(MINUS_SIGNS)).casefold())
    return " ".join(_NOT_WORD.sub(_plain_punctuation, folded).split())


def normalise_answer(subject: Subject) -> str:
    """Return the answer in the form that `normalise` gives.

    :raises UndecidableError: if it has more than 100,000 characters, because that may take seconds.
    """
    if len(subject.text) > _MAX_NORMALISED:
        raise UndecidableError(f"too long to be compared: {len(subject.text):,} characters")
    return normalise(subject.text)


def _nfkc(text: str) -> str:
    """Return the NFKC form. Long runs of combining marks are split, because sorting them takes quadratic time."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _MARKS.sub(rf"\g<0>{_JOINER}", text)).replace(_JOINER, "")


def _plain_punctuation(match: re.Match[str]) -> str:
    """Return a character that is not a letter or a digit, a space in place of punctuation, or nothing."""
    character, text, position = match[0], match.string, match.start()
    if character in _APOSTROPHES:
        return ""
    if character in _MEANINGFUL_PUNCTUATION or not unicodedata.category(character).startswith("P"):
        return character
    previous, following = text[position - 1 : position], text[position + 1 : position + 2]
    is_in_number = following.isdigit() and (previous.isdigit() or (character in "-." and not previous.isalnum()))
    return character if is_in_number else " "


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
