r"""The grader `numeric`: which number in an answer is the result, and what it may mean.

The result is, in this order:

1. the last number that is marked as the answer: `\boxed{42}`, `#### 42`, a heading that ends with `answer` above the
   number, or `answer` followed by `is`, `=` or `:` and the number, as in "The final answer is **42**". If a calculation
   follows, as in "the answer is 40 + 2 = 42", its result counts.
2. the last number in bold, as in `**42**` or `**42 km**`;
3. the last number of the answer.

A number may have several readings. It is right if one of them equals the expected number:

* `1,234` and `1.234`: thousands, or a decimal sign. `1,234.5` and `1.234,5` have one reading, and so have `1,234,567`
  and `3,14`. Thousands can also be separated by apostrophes and by no-break and thin spaces.
* `1 234` with an ordinary space: 1234, or the number 234 after another one.
* `50 %`: 50 or 0.5. If the expected number has a percent sign as well, both are compared as percentages. If only the
  expected number has one, as in `50%`, the answers 50 and 0.5 are right.
* `1/2`, `\frac{1}{2}` and `½`: the quotient. `3 1/2` and `3½`: 3.5, or the quotient after another number.
* `1.5e3`, `1.5 × 10^3`, `10³`: the power of ten is applied.

Only the last 100,000 characters of an answer are read. A number of more than 1,000 characters is different from every
expected number.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache

from airflow_provider_batch.evals.graders.subject import Grade, Subject, excerpt, right, wrong
from airflow_provider_batch.evals.graders.texts import MINUS_SIGNS
from airflow_provider_batch.exceptions import InputError

#: only this many characters at the end of an answer are read
_MAX_ANSWER = 100_000
#: A number with more characters, or with a larger exponent, equals no expected number.
_MAX_CHARACTERS = 1_000
_MAX_EXPONENT = 1_000

_SPACES = "\u00a0\u2007\u2009\u202f"
_CURRENCY = "$€£¥₹"
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
#: fractions in one character, and the slash of a fraction
_FRACTIONS = {ord(sign): f" {unicodedata.normalize('NFKC', sign)}".replace("\u2044", "/") for sign in "¼½¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_SPELLINGS = MINUS_SIGNS | _FRACTIONS | {ord("\u2044"): "/"}

#: the digits of a number with everything that may separate them
_DIGITS = rf"\d+(?:[.,]\d+|['’ {_SPACES}]\d{{3}}(?!\d))*|\.\d+"
_POWER = (
    r"[eE][-+]?\d+|\s?(?:[×x*·]|\\times|\\cdot)\s?10(?:\s?(?:\^|\*\*)\s?\{?(?P<power>-?\d+)\}?|(?P<raised>[⁻⁰¹²³⁴-⁹]+))"
)
_NUMBER = re.compile(
    # a sign, not the hyphen of 10-20 or of A-4
    rf"(?P<sign>(?<![\w.)])[-+])?[{_CURRENCY}]?(?:"
    r"\\[dt]?frac\{(?P<numerator>\d{1,15})\}\{(?P<denominator>\d{1,15})\}"
    rf"|(?<![\d/.,])(?:(?P<whole>\d{{1,15}})\s)?(?P<upper>\d{{1,15}})\s?/\s?(?P<lower>\d{{1,15}})(?![\d/]|[.,]\d)"
    r"|(?<![\d.])10(?:\^\{?(?P<ten>-?\d+)\}?|(?P<ten_raised>[⁻⁰¹²³⁴-⁹]+))"
    rf"|(?P<digits>{_DIGITS})(?P<exponent>{_POWER})?"
    r")(?P<percent>\s?\\?%|\s(?:percent|per\scent|pct)\b)?"
)

#: "answer" as a noun: in a phrase such as "the answer", or at the beginning of a line
_ANSWER = r"(?:\b(?:the|final|correct|right|my|our|your|numeric|numerical)\s|^[ \t*_#>{\"']{0,8})answer\b[*_`\"']{0,3}"
#: what it is the answer to, as in "the answer to question 3" and "the answer (in km)"
_TOPIC = r"(?:\s(?:to|for|of|in)\s[^\n.:=]{0,60}?|\s?\([^)\n]{0,40}\))?[*_`]{0,3}"
_MARKED = re.compile(
    r"\\boxed\s?\{|^#{1,6}\s[^\n]{0,40}\banswer\b[*_:]{0,4}[ \t]{0,3}\n|^[ \t]{0,3}####[ \t]|"
    rf"{_ANSWER}{_TOPIC}\s?(?:\b(?:is|was|equals|would\sbe|will\sbe|should\sbe|must\sbe)\b|[:=≈])",
    re.IGNORECASE | re.MULTILINE,
)
#: what may stand between the mark of an answer and its number
_FILLER = re.compile(
    rf"(?:[\s*_`~≈=:(\[{{\"'“{_CURRENCY}]|\\\(|\\\[|\\boxed|\\text|\\mathbf"
    r"|\b(?:about|approximately|approx\.|around|roughly|exactly|simply|just|only|therefore|thus|then)\b){0,40}",
    re.IGNORECASE,
)
#: the continuation of a number that begins a calculation
_OPERATOR = re.compile(rf"[^\S\n]?(?:[-+*/×·÷^=x]|\\times|\\cdot|\\div)[^\S\n]?[\d(.{_CURRENCY}]")
_FIRST_WORD = re.compile(r"\A\S+")
_SENTENCE_END = re.compile(r"[.;?!]\s|\n")
_BOLD = re.compile(r"\*\*([^*\n]{1,80})\*\*")
#: what may follow a number in bold, such as a unit, unless it numbers an item of a list
_UNIT = re.compile(r"(?![.)]\s)[^\d:=]{0,30}")
#: maximum length of a calculation, in characters
_CALCULATION = 200


def numeric(tolerance: str, subject: Subject) -> Grade:
    """Grade whether the result in the answer equals the expected number."""
    answer = _plain(_end_of(subject.text))
    match = _find_result(answer)
    if match is None:
        return wrong(f"no number: {excerpt(subject.text)}")
    number, has_percent = parse_number(subject.expected)
    limit, is_relative = parse_tolerance(tolerance)
    if is_relative:
        limit *= abs(number)
    readings = set(_readings(match))
    if match["percent"] and not has_percent:
        readings |= {reading / 100 for reading in readings}
    if has_percent and not match["percent"]:
        readings |= {reading * 100 for reading in readings}
    if any(abs(reading - number) <= limit for reading in readings):
        return right(f"the same number: {excerpt(match[0])}")
    return wrong(f"different number: {excerpt(match[0])}")


def parse_tolerance(text: str) -> tuple[Fraction, bool]:
    """Return the tolerance, and whether it is a share of the expected number.

    :raises InputError: if it is not a number of at least 0.
    """
    is_relative = text.endswith("%")
    number = _fraction(text.removesuffix("%").strip() or "0")
    if number is None or number < 0:
        raise InputError(
            f"the grader 'numeric:{text}' needs a number or a percentage after its colon, such as 0.01 or 1%"
        )
    return (number / 100 if is_relative else number), is_relative


@lru_cache(maxsize=1024)
def parse_number(text: str) -> tuple[Fraction, bool]:
    """Return the expected number, and whether it is a percentage.

    :raises InputError: if it is neither a number with a decimal point nor a fraction.
    """
    plain = text.strip().translate(MINUS_SIGNS)
    has_percent = plain.endswith("%")
    upper, slash, lower = plain.removesuffix("%").strip().partition("/")
    number, divisor = _fraction(upper), _fraction(lower) if slash else Fraction(1)
    if number is None or not divisor:
        raise InputError(
            "`expected` is not a number, but the grader is 'numeric'. Write it with a decimal point and without "
            "separators of thousands, such as 1234.5, 1.5e3, 50% or 1/3"
        )
    return number / divisor, has_percent


def _end_of(text: str) -> str:
    """Return the last `_MAX_ANSWER` characters of an answer, without the rest of a word at their beginning."""
    return text if len(text) <= _MAX_ANSWER else _FIRST_WORD.sub("", text[-_MAX_ANSWER:])


def _plain(text: str) -> str:
    """Return the text with one spelling of minus signs, fractions, and separators in LaTeX."""
    return text.translate(_SPELLINGS).replace("{,}", ",").replace("\\,", "\u2009")


def _find_result(text: str) -> re.Match[str] | None:
    """Return the number that the answer gives as its result, or None if it has no number."""
    for candidates in (_marked_numbers(text), _bold_numbers(text), _NUMBER.finditer(text)):
        last = deque(candidates, maxlen=1)
        if last:
            return last[0]
    return None


def _marked_numbers(text: str) -> Iterator[re.Match[str]]:
    for mark in _MARKED.finditer(text):
        filler = _FILLER.match(text, mark.end())
        assert filler is not None
        number = _NUMBER.match(text, filler.end()) or _NUMBER.match(text, mark.end())
        if number is None:
            continue
        if not _OPERATOR.match(text, number.end()):
            yield number
            continue
        end = number.end() + _CALCULATION
        sentence_end = _SENTENCE_END.search(text, number.end(), end)
        end = sentence_end.start() if sentence_end else end
        sign = text.rfind("=", number.end(), end)
        result = _NUMBER.search(text, sign, end) if sign >= 0 else None
        if result is not None:
            yield result


def _bold_numbers(text: str) -> Iterator[re.Match[str]]:
    for bold in _BOLD.finditer(text):
        number = _NUMBER.match(text, *bold.span(1))
        if number and _UNIT.fullmatch(text, number.end(), bold.end(1)):
            yield number


def _readings(match: re.Match[str]) -> Iterator[Fraction]:
    """Yield what a number may mean, without regard to a percent sign."""
    sign = -1 if (match["sign"] or "").startswith("-") else 1
    if len(match[0]) > _MAX_CHARACTERS:
        return
    if match["numerator"] or match["upper"]:
        upper, lower = int(match["numerator"] or match["upper"]), int(match["denominator"] or match["lower"])
        if lower:
            yield sign * Fraction(upper, lower)
            yield sign * (int(match["whole"] or 0) + Fraction(upper, lower))
        return
    power = match["power"] or match["ten"] or (match["raised"] or match["ten_raised"] or "").translate(_SUPERSCRIPTS)
    exponent = "" if power or not match["exponent"] else match["exponent"]
    for digits in _plain_digits(match["digits"] or "1"):
        number = _fraction(f"{digits}{f'e{power}' if power else exponent}")
        if number is not None:
            yield sign * number


def _plain_digits(text: str) -> Iterator[str]:
    """Yield the readings of digits and separators, each with a decimal point and without separators of thousands."""
    text = text.replace("’", "'")
    groups, separators = re.split(r"\D", text), re.findall(r"\D", text)
    if not separators or text.startswith("."):
        yield text
        return
    *others, last = separators
    is_whole = set(others) <= {last} and _are_thousands(groups)
    is_decimal = last in ".," and last not in others and len(set(others)) <= 1 and _are_thousands(groups[:-1])
    if is_whole:
        yield "".join(groups)
    if is_decimal:
        yield f"{''.join(groups[:-1])}.{groups[-1]}"
    if not is_whole and not is_decimal:  # a list such as 1,2,3 or a date such as 24.12.2026
        yield groups[-1]
    if " " in separators:
        yield from _plain_digits(text.rpartition(" ")[2])


def _are_thousands(groups: list[str]) -> bool:
    """Return whether these are groups of three digits, or the groups of 12,34,567 as written in India."""
    first, *others = map(len, groups)
    if not others:
        return True
    if first > 3 or others[-1] != 3 or groups[0].startswith("0"):
        return False
    return set(others) == {3} or (first <= 2 and set(others[:-1]) == {2})


def _fraction(text: str) -> Fraction | None:
    """Return the number in a text with a decimal point, or None if there is none, or if it is too long or too large."""
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return Fraction(number) if number.is_finite() and abs(number.adjusted()) <= _MAX_EXPONENT else None
