"""Samples of answers: sums over their tokens, from which the mean and the spread follow.

Sums can be added, so the samples of batches and of jobs combine without keeping single answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, log

import msgspec


class OutputSample(msgspec.Struct, frozen=True):
    """The output tokens of a number of answers."""

    #: number of answers; a fraction if the sample was weighted
    answers: float = 0
    tokens: float = 0
    #: sum of the squares of the tokens
    squares: float = 0
    #: sum of the natural logarithms of the tokens; an answer without tokens counts like one with a single token
    logs: float = 0

    @classmethod
    def of(cls, tokens: Iterable[int]) -> OutputSample:
        """Return the sample of answers with these output tokens."""
        sizes = list(tokens)
        return cls(
            len(sizes),
            sum(sizes),
            float(sum(size * size for size in sizes)),
            sum(log(max(size, 1)) for size in sizes),
        )

    def __add__(self, other: OutputSample) -> OutputSample:
        """Return the sample of both."""
        return OutputSample(
            self.answers + other.answers,
            self.tokens + other.tokens,
            self.squares + other.squares,
            self.logs + other.logs,
        )

    def limited(self, answers: float) -> OutputSample:
        """Return the sample with the weight of at most this many answers, and the same mean and spread."""
        if self.answers <= answers:
            return self
        share = answers / self.answers
        return OutputSample(answers, self.tokens * share, self.squares * share, self.logs * share)

    @property
    def mean(self) -> float:
        """Mean output tokens of an answer; 0 for an empty sample."""
        return self.tokens / self.answers if self.answers else 0.0

    @property
    def typical(self) -> float:
        """Geometric mean of the output tokens: the size of a typical answer, which few long ones hardly change."""
        return exp(self.logs / self.answers) if self.answers else 0.0

    @property
    def relative_variance(self) -> float:
        """Variance of an answer's tokens divided by the square of their mean; 0 for fewer than two answers."""
        if self.answers <= 1 or not self.tokens:
            return 0.0
        uncorrected = self.squares / self.answers / self.mean**2 - 1
        return max(uncorrected, 0.0) * self.answers / (self.answers - 1)


class InputSample(msgspec.Struct, frozen=True):
    """The input tokens that a number of answers report, and the estimate for the same requests."""

    answers: float = 0
    reported: float = 0
    estimated: float = 0
    #: sum of the square of the reported tokens divided by the estimated ones
    squares: float = 0

    def __add__(self, other: InputSample) -> InputSample:
        """Return the sample of both."""
        return InputSample(
            self.answers + other.answers,
            self.reported + other.reported,
            self.estimated + other.estimated,
            self.squares + other.squares,
        )

    @property
    def relative_variance(self) -> float:
        """Variance of reported divided by estimated tokens, relative to the square of their mean.

        Each request counts by its estimated tokens. The variance is 0 for fewer than two answers.
        """
        if self.answers <= 1 or not self.reported:
            return 0.0
        uncorrected = self.squares * self.estimated / self.reported**2 - 1
        return max(uncorrected, 0.0) * self.answers / (self.answers - 1)
