"""Graders: an answer and what was expected -> right or wrong, and a short reason.

A grader is written as text in the column `grader` of the cases:

| grader | right if the answer |
|---|---|
| `exact` | is the expected text, apart from white space around it |
| `normalised` | is it but for case, punctuation, white space and ways to write one character in Unicode |
| `regex` | has a part that matches the expected regular expression (Python's; anchors and `(?i)` are yours to write) |
| `json:path.to.field` | is JSON with the expected value there; `json` is the whole document, numbers count in lists |
| `numeric:0.01` | gives the expected number, at most this far off; `numeric` alone: the same number |
| `numeric:1%` | the same, at most this share of the expected number off |
| `judge` | was called right by another model, whose verdict lies in a table of its own (`expected`: what it is told) |

They always grade the same answer the same way. `numeric` takes the last number of a text that has several: models tend
to end with their result. Numbers are written with a decimal point; commas between thousands are left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.exceptions import InputError

#: how much of an answer a reason shows
_SHOWN = 60

_NUMBER = re.compile(
    r"(?:(?<![\w.])[-+])?"  # a sign, not the hyphen of 10-20 or of A-4
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)

#: minus and dashes that stand for it, as models write them
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})

_APOSTROPHES = frozenset("'’‘`´ʼ")

#: punctuation to Unicode, yet C# is not C and 5 % are not 5
_TELLING = "%#&@"

_PASSED = frozenset({"correct", "right", "pass", "passed", "yes", "true", "1"})
_FAILED = frozenset({"incorrect", "wrong", "fail", "failed", "no", "false", "0"})


class Grade(NamedTuple):
    """What one answer is worth."""

    #: 1 right, 0 wrong
    score: int
    #: why, for a person
    reason: str


class Grader(msgspec.Struct, frozen=True):
    """A grader as it was written, and its parts."""

    #: exact, normalised, regex, json, numeric or judge
    kind: str
    #: what stands after the colon
    argument: str

    @property
    def text(self) -> str:
        """The grader as the cases name it."""
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    @property
    def is_judge(self) -> bool:
        """Whether the verdict comes from another model."""
        return self.kind == "judge"

    def check(self, expected: str | None) -> None:
        """Raises InputError if this expected value is none that the grader can compare with."""
        if self.is_judge:
            return
        if expected is None:
            raise InputError(f"the grader {self.text!r} needs an expected value, and it is NULL")
        if self.kind == "regex":
            try:
                re.compile(expected)
            except re.error as error:
                raise InputError(f"expected is no regular expression: {error}") from None
        if self.kind == "numeric":
            _decimal(expected)

    def grade(self, expected: str | None, answer: str) -> Grade:
        """Compare. Not for `judge`, whose verdicts come from elsewhere: see `verdict`."""
        return _GRADERS[self.kind](self.argument, expected or "", answer)


def parse_grader(text: str) -> Grader:
    """The grader of a case. Raises InputError that says what there is."""
    kind, colon, argument = (part.strip() for part in text.strip().partition(":"))
    if kind not in _KINDS:
        raise InputError(f"there is no grader {text!r}; there are {', '.join(_KINDS)}")
    if colon and not argument:
        raise InputError(f"the grader {text!r} has nothing after its colon")
    if argument and kind not in ("json", "numeric"):
        raise InputError(f"the grader {kind!r} takes nothing after a colon, but it is {text!r}")
    if kind == "numeric":
        _tolerance(argument)
    if kind == "json" and not all(argument.split(".")) and argument:
        raise InputError(f"the grader {text!r} has an empty part in its path")
    return Grader(kind, argument)


def verdict(text: Any) -> bool | None:
    """A judge's verdict as it landed; None if it is neither of the two."""
    if isinstance(text, bool | int):
        return bool(text)
    word = str(text).strip().casefold()
    return True if word in _PASSED else False if word in _FAILED else None


def normalised(text: str) -> str:
    """Text for comparing: compatible forms of characters as one, no case, no punctuation, single spaces.

    Punctuation goes, except where it is part of a number: 3.5 is not 35, and -5 is not 5.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_MINUS)).casefold())
    kept: list[str] = []
    for place, character in enumerate(folded):
        if character in _APOSTROPHES:
            continue
        before = folded[place - 1] if place else " "
        after = folded[place + 1] if place + 1 < len(folded) else " "
        if unicodedata.category(character).startswith("P"):
            in_number = after.isdigit() and (before.isdigit() or (character in "-." and not before.isalnum()))
            kept.append(character if in_number or character in _TELLING else " ")
        else:
            kept.append(character)
    return " ".join("".join(kept).split())


def _shown(answer: str) -> str:
    text = " ".join(answer.split())
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def _exact(_: str, expected: str, answer: str) -> Grade:
    if answer.strip() == expected.strip():
        return Grade(1, "the same text")
    return Grade(0, f"another text: {_shown(answer)}")


def _normalised(_: str, expected: str, answer: str) -> Grade:
    if normalised(answer) == normalised(expected):
        return Grade(1, "the same text")
    return Grade(0, f"another text: {_shown(answer)}")


def _regex(_: str, expected: str, answer: str) -> Grade:
    found = re.search(expected, answer)
    if found:
        return Grade(1, f"matches: {_shown(found[0])}")
    return Grade(0, f"does not match: {_shown(answer)}")


def _json(path: str, expected: str, answer: str) -> Grade:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return Grade(0, f"no JSON: {_shown(answer)}")
    for part in path.split(".") if path else ():
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return Grade(0, f"there is no {part!r} in the JSON")
    if isinstance(value, str) and value == expected:
        return Grade(1, "the same value")
    try:
        wanted = json.loads(expected)
    except (ValueError, RecursionError):
        wanted = expected
    if _same_json(value, wanted):
        return Grade(1, "the same value")
    return Grade(0, f"another value: {_shown(json.dumps(value, ensure_ascii=False))}")


def _same_json(one: Any, other: Any) -> bool:
    """As JSON compares: true is not 1, but 1 and 1.0 are one number, and fields have no order."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same_json(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same_json, one, other))
    return bool(one == other)


def _numeric(tolerance: str, expected: str, answer: str) -> Grade:
    found = [match[0] for match in _NUMBER.finditer(answer.translate(_MINUS))]
    if not found:
        return Grade(0, f"no number: {_shown(answer)}")
    wanted = _decimal(expected)
    allowed, relative = _tolerance(tolerance)
    if relative:
        allowed *= abs(wanted)
    try:
        right = abs(Decimal(found[-1].replace(",", "")) - wanted) <= allowed
    except ArithmeticError:  # an exponent out of all bounds
        right = False
    return Grade(int(right), f"{'the' if right else 'another'} number: {_shown(found[-1])}")


def _tolerance(text: str) -> tuple[Decimal, bool]:
    """How far off is right, and whether that is a share. Raises InputError."""
    relative = text.endswith("%")
    try:
        number = Decimal(text.removesuffix("%").strip() or "0")
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0:
        raise InputError(
            f"the grader 'numeric:{text}' needs a number or a percentage after its colon, as in 0.01 or 1%"
        )
    return (number / 100 if relative else number), relative


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text.strip().translate(_MINUS))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InputError("expected is no number, and the grader is 'numeric'")
    return number


_GRADERS: dict[str, Callable[[str, str, str], Grade]] = {
    "exact": _exact,
    "normalised": _normalised,
    "regex": _regex,
    "json": _json,
    "numeric": _numeric,
}
_KINDS = (*_GRADERS, "judge")
