"""The grader of a case: a single one, or a JSON list of graders with weights."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from airflow_provider_batch.evals.graders.embeddings import Vectors, texts_of
from airflow_provider_batch.evals.graders.kinds import SIMILAR
from airflow_provider_batch.evals.graders.single import SingleGrader, parse_single
from airflow_provider_batch.evals.graders.subject import Grade, GradedCase, LandedAnswer
from airflow_provider_batch.exceptions import InputError

_KEYS = ("grader", "expected", "weight")

#: tolerance for the rounding of a mean in comparison with a threshold
_ROUNDING = 1e-9

#: maximum number of graders whose reasons a grade lists
_MAX_REASONS = 5


class Element(msgspec.Struct, frozen=True):
    """One grader of a case."""

    grader: SingleGrader
    #: None if the grader compares with the expected value of the case
    expected: str | None = None
    weight: float = 1.0


class Grader(msgspec.Struct, frozen=True):
    """What the column `grader` of a case says."""

    #: as it is written in the column; a list without optional white space
    text: str
    elements: tuple[Element, ...]
    #: the score from which the answer is right; None if every grader has to pass
    threshold: float | None = None

    @property
    def judged(self) -> SingleGrader | None:
        """The grader for which another model has to judge the answer, if there is one."""
        return next((element.grader for element in self.elements if element.grader.is_judge), None)

    @property
    def needs_embeddings(self) -> bool:
        """Whether a grader compares embeddings."""
        return any(element.grader.kind == SIMILAR for element in self.elements)

    def texts_to_embed(self, case: GradedCase, answer: LandedAnswer) -> Iterator[str]:
        """Yield the texts whose embeddings are needed to grade an answer."""
        for element in self.elements:
            if element.grader.kind == SIMILAR:
                yield from texts_of(answer.output or "", self._expected(element, case) or "")

    def grade(
        self,
        case: GradedCase,
        answer: LandedAnswer,
        verdict: Grade | None = None,
        vectors: Vectors | None = None,
    ) -> Grade:
        """Grade an answer that the model gave, whether it is usable or not.

        The score is the weighted mean of all graders' scores.

        :param verdict: the grade by a judge. Needed if a grader is `judged` and the answer is usable.
        :param vectors: embeddings, at least those of `texts_to_embed`. Needed if a usable answer `needs_embeddings`.
        """
        grades = [self._grade_element(element, case, answer, verdict, vectors) for element in self.elements]
        if len(grades) == 1 and self.threshold is None:
            return grades[0]
        weights = [element.weight for element in self.elements]
        total = math.fsum(weight * grade.score for weight, grade in zip(weights, grades, strict=True))
        score = min(total / math.fsum(weights), 1.0)
        passed = (
            all(grade.passed for grade in grades) if self.threshold is None else score >= self.threshold - _ROUNDING
        )
        return Grade(score, passed, self._reason(grades, score))

    def _grade_element(
        self,
        element: Element,
        case: GradedCase,
        answer: LandedAnswer,
        verdict: Grade | None,
        vectors: Vectors | None,
    ) -> Grade:
        if element.grader.is_judge and verdict is not None:
            return verdict
        return element.grader.grade(case, answer, self._expected(element, case), vectors)

    @staticmethod
    def _expected(element: Element, case: GradedCase) -> str | None:
        return case.expected if element.expected is None else element.expected

    def _reason(self, grades: Sequence[Grade], score: float) -> str:
        failures = [
            grade.reason if element.grader.is_judge else f"{element.grader.text}: {grade.reason}"
            for element, grade in zip(self.elements, grades, strict=True)
            if not grade.passed
        ]
        if len(failures) > _MAX_REASONS:
            failures[_MAX_REASONS:] = [f"and {len(failures) - _MAX_REASONS} more"]
        count = sum(grade.passed for grade in grades)
        summary = f"{count} of {len(grades)} graders passed"
        if self.threshold is not None:
            summary += f", score {score:.3g} with a threshold of {self.threshold:g}"
        return "; ".join([summary, *failures])


class _Draft:
    """The column `grader` as far as it can be parsed, and the problems with it."""

    def __init__(self, text: str) -> None:
        self.text = text.strip()
        #: by position in the list, counted from 1
        self.elements: dict[int, Element] = {}
        self.thresholds: list[float] = []
        #: position in the list and problem
        self.problems: list[tuple[int, str]] = []
        self.count = 1
        if self.text.startswith("["):
            self._parse_list()
        else:
            self._parse_element(1, self.text)

    def check(self, expected: str | None, modules: Sequence[str]) -> None:
        """Check the expected value of every grader, where `expected` is the one of the case."""
        for position, element in self.elements.items():
            try:
                element.grader.check(expected if element.expected is None else element.expected, modules)
            except InputError as error:
                self.problems.append((position, str(error)))

    def finish(self) -> Grader:
        """Return the grader. Raises InputError with all problems."""
        if self.problems:
            raise InputError("; ".join(self._describe(*problem) for problem in sorted(self.problems)))
        return Grader(self.text, tuple(self.elements.values()), self.thresholds[0] if self.thresholds else None)

    def _describe(self, position: int, problem: str) -> str:
        return f"grader {position} of {self.count}: {problem}" if self.count > 1 else problem

    def _parse_list(self) -> None:
        try:
            items = json.loads(self.text)
        except (ValueError, RecursionError) as error:
            self.problems.append((0, f"`grader` begins like a JSON list, but is not JSON: {error}"))
            return
        self.count = len(items)
        for position, item in enumerate(items, start=1):
            self._parse_element(position, item)
        if not self.elements and not self.problems:
            self.problems.append((1, "the list in `grader` has no grader"))
        if len(self.thresholds) > 1:
            self.problems.append((self.count, "the list in `grader` has more than one threshold"))
        judges = sum(element.grader.is_judge for element in self.elements.values())
        if judges > 1:
            self.problems.append((self.count, "the list in `grader` has more than one grader by a judge"))
        self.text = json.dumps(items, ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    def _parse_element(self, position: int, item: Any) -> None:
        try:
            if isinstance(item, dict) and item.keys() == {"threshold"}:
                self.thresholds.append(_parse_threshold(item["threshold"]))
            else:
                self.elements[position] = _parse_item(item)
        except InputError as error:
            self.problems.append((position, str(error)))


def parse_grader(text: str) -> Grader:
    """Parse the column `grader` of a case.

    :raises InputError: if there is no such grader, or its argument is invalid. The message has every problem.
    """
    return _Draft(text).finish()


def check_grader(text: str, expected: str | None, modules: Sequence[str] = ()) -> Grader:
    """Parse the column `grader` of a case with this expected value.

    :param modules: modules whose functions the grader `python` may call.
    :raises InputError: as `parse_grader`, and if a grader cannot compare with its expected value.
    """
    draft = _Draft(text)
    draft.check(expected, modules)
    return draft.finish()


def _parse_item(item: Any) -> Element:
    if isinstance(item, str):
        return Element(parse_single(item))
    if not isinstance(item, dict):
        raise InputError(f"a grader in a list is a text or an object, not {json.dumps(item)[:60]}")
    unknown = [name for name in item if name not in _KEYS]
    if unknown:
        raise InputError(
            f"the object of a grader has {', '.join(_KEYS)}, and the object of a threshold has only threshold; "
            f"unknown here: {', '.join(map(repr, unknown))}"
        )
    if not isinstance(item.get("grader"), str):
        raise InputError("the object of a grader needs the name of one as text under 'grader'")
    grader = parse_single(item["grader"])
    expected = item.get("expected")
    if grader.is_judge and expected is not None:
        raise InputError(
            f"the grader {grader.text!r} reads the expected value of the case, and cannot have another one in the list"
        )
    if expected is not None and not isinstance(expected, str):
        expected = json.dumps(expected, ensure_ascii=False)
    return Element(grader, expected, _parse_weight(item.get("weight", 1)))


def _parse_weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InputError(f"the weight of a grader is a number above 0, not {json.dumps(value)[:60]}")
    return float(value)


def _parse_threshold(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"a threshold is a number above 0 and up to 1, not {json.dumps(value)[:60]}")
    return float(value)
