"""Answers questions about determinants, real roots and weights."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import msgspec

_MATRIX = re.compile(r"\bdeterminant\b.*?(\[\s*\[[-\d.,\s\[\]]+\]\s*\])", re.DOTALL)
_POLYNOMIAL = re.compile(r"intersects with the x-axis.*\n\s*(-?\d+\*x\^\(\d\)[-+*x^()\d]*)\s*$", re.DOTALL)
_TERM = re.compile(r"([-+]?\d+)(\*x(?:\^\((\d)\))?)?")
_HEAVIER = re.compile(r"\bIs (\d+) pounds? of .+ heavier than (\d+) pounds? of ")
#: largest number of rows of a matrix
_MAX_ROWS = 12


def answer_arithmetic(question: str) -> str | None:
    """Return the answer to a question about numbers, or None."""
    return _determinant(question) or _count_roots(question) or _compare_weights(question)


def _determinant(question: str) -> str | None:
    match = _MATRIX.search(question)
    if match is None:
        return None
    try:
        matrix = msgspec.json.decode(match[1], type=list[list[int]])
    except msgspec.DecodeError:
        return None
    if len(matrix) > _MAX_ROWS or any(len(row) != len(matrix) for row in matrix):
        return None
    determinant = _eliminate([[Fraction(value) for value in row] for row in matrix])
    return f"{int(determinant)}.00"  # the determinant of whole numbers is one, too


def _eliminate(rows: list[list[Fraction]]) -> Fraction:
    """Return the determinant, by Gaussian elimination. `rows` is changed."""
    result = Fraction(1)
    for column in range(len(rows)):
        pivot = next((row for row in range(column, len(rows)) if rows[row][column]), None)
        if pivot is None:
            return Fraction(0)
        if pivot != column:
            rows[column], rows[pivot] = rows[pivot], rows[column]
            result = -result
        result *= rows[column][column]
        for row in range(column + 1, len(rows)):
            factor = rows[row][column] / rows[column][column]
            rows[row] = [value - factor * above for value, above in zip(rows[row], rows[column], strict=True)]
    return result


def _count_roots(question: str) -> str | None:
    """Return how many different real roots a polynomial has, by Sturm's theorem."""
    match = _POLYNOMIAL.search(question)
    if match is None:
        return None
    by_power: dict[int, Fraction] = {}
    for number, has_x, power in _TERM.findall(match[1]):
        exponent = int(power or 1) if has_x else 0
        by_power[exponent] = by_power.get(exponent, Fraction(0)) + int(number)
    polynomial = _strip([by_power.get(power, Fraction(0)) for power in range(max(by_power), -1, -1)])
    if len(polynomial) < 2:
        return None
    degree = len(polynomial) - 1
    derivative = [value * (degree - index) for index, value in enumerate(polynomial[:-1])]
    chain = [polynomial, derivative]
    while remainder := _remainder(chain[-2], chain[-1]):
        chain.append([-value for value in remainder])
    at_plus = [part[0] for part in chain]
    at_minus = [part[0] * (-1) ** (len(part) - 1) for part in chain]
    return str(_sign_changes(at_minus) - _sign_changes(at_plus))


def _strip(polynomial: list[Fraction]) -> list[Fraction]:
    """Return the coefficients without leading zeros."""
    start = next((index for index, value in enumerate(polynomial) if value), len(polynomial))
    return polynomial[start:]


def _remainder(dividend: list[Fraction], divisor: list[Fraction]) -> list[Fraction]:
    while len(dividend) >= len(divisor):
        factor = dividend[0] / divisor[0]
        padded = divisor + [Fraction(0)] * (len(dividend) - len(divisor))
        dividend = _strip([a - factor * b for a, b in zip(dividend, padded, strict=True)])
    return dividend


def _sign_changes(values: Sequence[Fraction]) -> int:
    return sum((first > 0) != (second > 0) for first, second in pairwise(values))


def _compare_weights(question: str) -> str | None:
    match = _HEAVIER.search(question)
    return None if match is None else ("Yes" if int(match[1]) > int(match[2]) else "No")
