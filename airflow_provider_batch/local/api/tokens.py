"""Counts of tokens, as an answer reports them and a batch adds them up."""

from __future__ import annotations

from typing import NamedTuple


class Tokens(NamedTuple):
    """Tokens of one answer, or of many."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """The sum of both."""
        return Tokens(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))
