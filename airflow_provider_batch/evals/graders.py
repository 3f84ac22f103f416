r"""Graders compare an answer with the expected value and return right or wrong, with a short reason.

The column `grader` of the cases names the grader of each case:

| grader | the answer is right if |
|---|---|
| `exact` | it equals the expected text, ignoring white space at both ends |
| `normalised` | it equals the expected text, ignoring case, punctuation, white space and Unicode variants |
| `regex` | the expected regular expression (RE2 syntax) matches anywhere in it; add anchors or `(?i)` yourself |
| `json:path.to.field` | it is JSON with the expected value at that path; a number in the path is a list index |
| `json:["v1.0", "score"]` | the same for a path whose names are taken literally |
| `json` | it is JSON and equals the expected document |
| `numeric` | its number equals the expected one |
| `numeric:0.01` | its number differs from the expected one by at most this much |
| `numeric:1%` | its number differs from the expected one by at most this share of the expected number |
| `judge` | another model called it right; its verdicts are in another table, and `expected` is a hint for the judge |

Graders are deterministic. If an answer has several numbers, `numeric` takes the last, because models tend to end with
their result. Numbers have a decimal point, and commas between thousands are ignored.

Regular expressions are matched by RE2, whose time grows only linearly with the answer: `(a+)+$` cannot hang a task. RE2
has no lookaround and no backreferences. Its `\w`, `\d`, `\s` and `\b` know only ASCII: write `[\pL\pN_]` for letters
and digits of every language. A line end at the end of the answer is ignored. RE2 comes with the extra `evals`. It is
imported on first use, so that Airflow can parse DAG files without it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import reduce
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.schema.paths import members, possible_parts
from airflow_provider_batch.exceptions import InputError

#: maximum length of the excerpt of an answer in a reason, in characters
_EXCERPT = 60

_NUMBER = re.compile(
    r"(?:(?<![\w.])[-+])?"  # a sign, not the hyphen of 10-20 or of A-4
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)

#: characters that models write for a minus sign
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\ufe63": "-", "\uff0d": "-"})

#: \b or \B next to a letter that is not ASCII. In RE2 it would not mean what it means in Python.
_ASCII_BOUNDARY = re.compile(r"\\[bB](?![\x00-\x7f])\w|(?![\x00-\x7f])\w\\[bB]")

_ESCAPE = re.compile(r"\\[Z\\]")

_APOSTROPHES = frozenset("'’‘`´ʼ")

#: Unicode counts these as punctuation, but they carry meaning: C# is not C, and 5 % is not 5.
_MEANINGFUL_PUNCTUATION = "%#&@"

_PASSED = frozenset({"correct", "right", "pass", "passed", "yes", "true", "1"})
_FAILED = frozenset({"incorrect", "wrong", "fail", "failed", "no", "false", "0"})


class Grade(NamedTuple):
    """The result of grading one answer."""

    #: 1 right, 0 wrong
    score: int
    #: explanation for a person
    reason: str


class Grader(msgspec.Struct, frozen=True):
    """A parsed grader."""

    #: exact, normalised, regex, json, numeric or judge
    kind: str
    #: the text after the colon
    argument: str

    @property
    def text(self) -> str:
        """The grader as it is written in the column `grader`."""
        return f"{self.kind}:{self.argument}" if self.argument else self.kind

    @property
    def is_judge(self) -> bool:
        """Whether the verdict comes from another model."""
        return self.kind == "judge"

    def check(self, expected: str | None) -> None:
        """Raise InputError if the grader cannot compare with this expected value."""
        if self.is_judge:
            return
        if expected is None:
            raise InputError(f"the grader {self.text!r} needs an expected value, but `expected` is NULL")
        if self.kind == "regex":
            _compile(expected)
        if self.kind == "numeric":
            _decimal(expected)

    def grade(self, expected: str | None, answer: str) -> Grade:
        """Grade an answer. Not for `judge`, whose verdicts come from a table: see `parse_verdict`."""
        try:
            return _GRADERS[self.kind](self.argument, expected or "", answer)
        except RecursionError:
            return Grade(0, f"nested too deeply: {_excerpt(answer[: 2 * _EXCERPT])}")


def parse_grader(text: str) -> Grader:
    """Parse the grader of a case.

    :raises InputError: if there is no such grader, or its argument is invalid. The message lists the graders.
    """
    kind, colon, argument = (part.strip() for part in text.strip().partition(":"))
    if kind not in _KINDS:
        raise InputError(f"there is no grader {text!r}; the graders are {', '.join(_KINDS)}")
    if colon and not argument:
        raise InputError(f"the grader {text!r} has nothing after its colon")
    if argument and kind not in ("json", "numeric"):
        raise InputError(f"the grader {kind!r} takes no argument after a colon, but `grader` is {text!r}")
    if kind == "numeric":
        _tolerance(argument)
    if kind == "json":
        _json_path(argument)
    return Grader(kind, argument)


def parse_verdict(text: Any) -> bool | None:
    """Return whether a judge called an answer right, or None if the verdict is neither right nor wrong.

    :param text: the column `verdict` of the judgements: `correct` or `incorrect`, or a synonym such as `pass` or `no`.
    """
    if isinstance(text, bool | int):
        return bool(text)
    word = str(text).strip().casefold()
    return True if word in _PASSED else False if word in _FAILED else None


def normalise(text: str) -> str:
    """Return the text for a comparison: NFKC form, lower case, without punctuation, with single spaces.

    Punctuation stays where it is part of a number: 3.5 is not 35, and -5 is not 5.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_MINUS)).casefold())
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


def _excerpt(answer: str) -> str:
    text = " ".join(answer.split())
    return repr(text if len(text) <= _EXCERPT else text[: _EXCERPT - 1] + "…")


def _exact(_: str, expected: str, answer: str) -> Grade:
    if answer.strip() == expected.strip():
        return Grade(1, "the same text")
    return Grade(0, f"different text: {_excerpt(answer)}")


def _normalised(_: str, expected: str, answer: str) -> Grade:
    if normalise(answer) == normalise(expected):
        return Grade(1, "the same text")
    return Grade(0, f"different text: {_excerpt(answer)}")


def _regex(_: str, expected: str, answer: str) -> Grade:
    pattern = _compile(expected)
    # in RE2, `$` does not match before a line end at the end of the text, which models often write
    match = pattern.search(answer) or pattern.search(answer.removesuffix("\n"))
    if match:
        return Grade(1, f"matches: {_excerpt(match[0])}")
    return Grade(0, f"does not match: {_excerpt(answer)}")


def _compile(expression: str) -> Any:
    """Return the compiled regular expression. RE2 caches it.

    :raises InputError: if it is invalid, or RE2 does not support it.
    """
    try:
        import re2
    except ImportError:
        raise InputError(
            "The grader 'regex' needs google-re2, which is not installed here. Install it on every worker with "
            "`pip install 'airflow-provider-batch[evals]'`. Nothing was graded."
        ) from None
    options = re2.Options()
    options.log_errors = False
    try:
        # the end of the text is \Z in Python and \z in RE2
        pattern = re2.compile(_ESCAPE.sub(lambda match: match[0].replace("Z", "z"), expression), options)
    except re2.error as error:
        message = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise InputError(f"`expected` is not a valid regular expression: {message}.{_advice(expression)}") from None
    neighbour = _ASCII_BOUNDARY.search(expression)
    if neighbour:
        raise InputError(
            f"`expected` has {neighbour[0]!r}, but \\b and \\B know only ASCII letters. Use (?:^|[^\\pL]) or "
            "(?:[^\\pL]|$) there."
        )
    return pattern


def _advice(expression: str) -> str:
    """Return what to write instead, as a sentence with a leading space, if only Python's `re` takes the expression."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError):
        return ""
    return (
        " It is matched by RE2, which has no lookaround, no backreferences, no atomic groups, no \\u "
        "escapes (use \\x{...}), and repeats at most 1,000 times. Rewrite it, or use another grader."
    )


def _json_path(argument: str) -> str | tuple[str | int, ...]:
    """Return the path of a `json` grader: a text whose dots separate names, or a list of names and indexes."""
    if not argument.startswith("["):
        return argument
    try:
        parts = json.loads(argument)
    except (ValueError, RecursionError):
        parts = None
    if not parts or any(type(part) not in (str, int) for part in parts):
        raise InputError(f"the path of the grader 'json:{argument}' is not a JSON list of names and list indexes")
    return tuple(parts)


def _json(argument: str, expected: str, answer: str) -> Grade:
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return Grade(0, f"not JSON: {_excerpt(answer)}")
    path = _json_path(argument)
    candidates = list(possible_parts([value], path, members)) if isinstance(path, str) and path else [path or ()]
    if len(candidates) > 1:
        lists = " or ".join(json.dumps(parts, ensure_ascii=False) for parts in candidates)
        return Grade(0, f"names in the JSON contain dots, so the path could be {lists}; write it as a list")
    values = reduce(members, candidates[0], [value]) if candidates else []
    if not values:
        return Grade(0, f"the JSON has no {argument!r}")
    (value,) = values
    if isinstance(value, str) and value == expected:
        return Grade(1, "the same value")
    try:
        expected_value = json.loads(expected)
    except (ValueError, RecursionError):
        expected_value = expected
    if _equal_json(value, expected_value):
        return Grade(1, "the same value")
    return Grade(0, f"different value: {_excerpt(json.dumps(value, ensure_ascii=False))}")


def _equal_json(left: Any, right: Any) -> bool:
    """Compare by the rules of JSON, where true is not 1. In Python they are equal."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal_json(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal_json, left, right))
    return bool(left == right)


def _numeric(tolerance: str, expected: str, answer: str) -> Grade:
    numbers = [match[0] for match in _NUMBER.finditer(answer.translate(_MINUS))]
    if not numbers:
        return Grade(0, f"no number: {_excerpt(answer)}")
    expected_number = _decimal(expected)
    limit, is_relative = _tolerance(tolerance)
    if is_relative:
        limit *= abs(expected_number)
    try:
        is_right = abs(Decimal(numbers[-1].replace(",", "")) - expected_number) <= limit
    except ArithmeticError:  # the exponent is too large for Decimal
        is_right = False
    return Grade(int(is_right), f"{'the same' if is_right else 'different'} number: {_excerpt(numbers[-1])}")


def _tolerance(text: str) -> tuple[Decimal, bool]:
    """Return the tolerance, and whether it is a share of the expected number."""
    is_relative = text.endswith("%")
    try:
        number = Decimal(text.removesuffix("%").strip() or "0")
    except InvalidOperation:
        number = Decimal(-1)
    if not number.is_finite() or number < 0:
        raise InputError(
            f"the grader 'numeric:{text}' needs a number or a percentage after its colon, such as 0.01 or 1%"
        )
    return (number / 100 if is_relative else number), is_relative


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text.strip().translate(_MINUS))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InputError("`expected` is not a number, but the grader is 'numeric'")
    return number


_GRADERS: dict[str, Callable[[str, str, str], Grade]] = {
    "exact": _exact,
    "normalised": _normalised,
    "regex": _regex,
    "json": _json,
    "numeric": _numeric,
}
_KINDS = (*_GRADERS, "judge")
