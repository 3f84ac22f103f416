"""What graders look at, and what they return."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from decimal import Decimal
from typing import NamedTuple, Protocol

#: maximum length of the excerpt of an answer in a reason, in characters
EXCERPT = 60


class GradedCase(Protocol):
    """The case that an answer belongs to."""

    @property
    def case_id(self) -> str:
        """Id of the case."""

    @property
    def input(self) -> str:
        """The question that was sent."""

    @property
    def expected(self) -> str | None:
        """The expected value of the case, as the column states it."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the case."""


class LandedAnswer(Protocol):
    """The row of an answer in the results table."""

    @property
    def variant(self) -> str:
        """Name of the model."""

    @property
    def outcome(self) -> str:
        """Outcome of the request, such as `succeeded` or `refused`."""

    @property
    def output(self) -> str | None:
        """The text of the answer."""

    @property
    def cost_usd(self) -> Decimal | None:
        """Cost in US dollars; None if unknown."""

    @property
    def output_tokens(self) -> int | None:
        """Number of output tokens; None if unknown."""


class Subject(NamedTuple):
    """One answer, with what a single grader needs to grade it."""

    case: GradedCase
    answer: LandedAnswer
    #: the expected value of the grader, or else of the case
    expected: str
    #: the embeddings of texts, by their id; None if no grader needs them
    vectors: Mapping[str, array[float]] | None = None

    @property
    def text(self) -> str:
        """The text of the answer."""
        return self.answer.output or ""


class Grade(NamedTuple):
    """The result of grading one answer."""

    #: from 0 to 1
    score: float
    #: whether the answer is right
    passed: bool
    #: explanation for a person
    reason: str


class UndecidableError(Exception):
    """Raised by a grader that cannot decide. The answer is then wrong, also for a negated grader."""


def right(reason: str) -> Grade:
    """Return the grade of an answer that is right."""
    return Grade(1.0, True, reason)


def wrong(reason: str) -> Grade:
    """Return the grade of an answer that is wrong."""
    return Grade(0.0, False, reason)


def excerpt(text: str) -> str:
    """Return the beginning of a text for a reason, in quotation marks."""
    words = " ".join(text[: 100 * EXCERPT].split())
    return repr(words if len(words) <= EXCERPT else words[: EXCERPT - 1] + "…")
