"""The grader `numeric`."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from airflow_provider_batch.evals.graders.subject import Grade, Subject, excerpt, right, wrong
from airflow_provider_batch.evals.graders.texts import MINUS_SIGNS
from airflow_provider_batch.exceptions import InputError

_NUMBER = re.compile(
    r"(?:(?<![\w.])[-+])?"  # a sign, not the hyphen of 10-20 or of A-4
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
)


def numeric(tolerance: str, subject: Subject) -> Grade:
    """Grade whether the number in the answer equals the expected one."""
    answer = subject.text
    numbers = [match[0] for match in _NUMBER.finditer(answer.translate(MINUS_SIGNS))]
    if not numbers:
        return wrong(f"no number: {excerpt(answer)}")
    expected_number = parse_number(subject.expected)
    limit, is_relative = parse_tolerance(tolerance)
    if is_relative:
        limit *= abs(expected_number)
    try:
        is_right = abs(Decimal(numbers[-1].replace(",", "")) - expected_number) <= limit
    except ArithmeticError:  # the exponent is too large for Decimal
        is_right = False
    return (right if is_right else wrong)(f"{'the same' if is_right else 'different'} number: {excerpt(numbers[-1])}")


def parse_tolerance(text: str) -> tuple[Decimal, bool]:
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


def parse_number(text: str) -> Decimal:
    """Return the expected number. Raises InputError if it is not a number."""
    try:
        number = Decimal(text.strip().translate(MINUS_SIGNS))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        raise InputError("`expected` is not a number, but the grader is 'numeric'")
    return number
