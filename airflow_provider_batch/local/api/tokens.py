"""Token counts of an answer, and their sum over a batch."""

from __future__ import annotations

from typing import NamedTuple


class Tokens(NamedTuple):
    """Token counts of one answer, or totals over many. `cached` is part of `input`, `reasoning` of `output`."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """Return the sum of both, field by field."""
        return Tokens(*(left + right for left, right in zip(self, other, strict=True)))
