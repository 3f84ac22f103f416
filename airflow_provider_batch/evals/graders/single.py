"""One grader, as it is written in the column `grader` or as an element of the list there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from airflow_provider_batch.core.answers.outcome import Outcome
from airflow_provider_batch.evals.graders.embeddings import Vectors
from airflow_provider_batch.evals.graders.functions import check_function
from airflow_provider_batch.evals.graders.kinds import KINDS, PYTHON
from airflow_provider_batch.evals.graders.subject import (
    EXCERPT,
    Grade,
    GradedCase,
    LandedAnswer,
    Subject,
    UndecidableError,
    excerpt,
    wrong,
)
from airflow_provider_batch.evals.graders.verdicts import JUDGED, Opinion
from airflow_provider_batch.exceptions import InputError

_NOT = "not-"


class SingleGrader(msgspec.Struct, frozen=True):
    """A grader, with the text after its colon."""

    #: a key of `KINDS` or `JUDGED`
    kind: str
    #: the text after the colon
    argument: str = ""
    #: whether the answer is right if the grader says wrong
    is_negated: bool = False

    @property
    def text(self) -> str:
        """The grader as it is written in the column `grader`."""
        name = f"{_NOT}{self.kind}" if self.is_negated else self.kind
        return f"{name}:{self.argument}" if self.argument else name

    @property
    def is_judge(self) -> bool:
        """Whether the verdict comes from another model."""
        return self.kind in JUDGED

    def check(self, expected: str | None, modules: Sequence[str] = ()) -> None:
        """Raise InputError if the grader cannot compare with this expected value.

        :param modules: modules whose functions the grader `python` may call.
        """
        needs_expected = (JUDGED if self.is_judge else KINDS)[self.kind].needs_expected
        if needs_expected and expected is None:
            raise InputError(f"the grader {self.text!r} needs an expected value, but `expected` is NULL")
        if self.is_judge:
            return
        kind = KINDS[self.kind]
        if kind.check_expected is not None:
            kind.check_expected(self.argument, expected or "")
        if self.kind == PYTHON:
            check_function(self.argument, modules)

    def read_verdict(self, verdict: Any, score: float | None) -> Opinion | None:
        """Return what the verdict of a judge means. Only for a grader by a judge.

        :param verdict: the column `verdict` of the judgements.
        :param score: the column `score` of the judgements.
        :returns: None if the verdict has no meaning for this grader.
        """
        return JUDGED[self.kind].read(self.argument, verdict, score)

    def grade(
        self, case: GradedCase, answer: LandedAnswer, expected: str | None, vectors: Vectors | None = None
    ) -> Grade:
        """Grade an answer. Not for a grader by a judge, whose verdicts come from a table.

        An unusable answer, such as one that was cut off, is wrong even for a negated grader, if the grader needs text.

        :param vectors: the embeddings of texts. Needed for `similar` if the answer is usable.
        :raises InputError: if the function of the grader `python` fails.
        """
        kind = KINDS.get(self.kind)
        if kind is None or (kind.needs_text and answer.outcome != Outcome.SUCCEEDED):
            return wrong(answer.outcome)
        try:
            grade = kind.grade(self.argument, Subject(case, answer, expected or "", vectors))
        except UndecidableError as error:
            return wrong(str(error))
        except RecursionError:
            return wrong(f"nested too deeply: {excerpt((answer.output or '')[: 2 * EXCERPT])}")
        return Grade(1 - grade.score, not grade.passed, grade.reason) if self.is_negated else grade


def parse_single(text: str) -> SingleGrader:
    """Parse a single grader.

    :raises InputError: if there is no such grader, or its argument is invalid. The message lists the graders.
    """
    name, colon, argument = (part.strip() for part in text.strip().partition(":"))
    kind = name.removeprefix(_NOT)
    if kind not in KINDS and name not in JUDGED:
        raise InputError(
            f"there is no grader {text!r}; the graders are {', '.join(KINDS)}, all of them also with the prefix "
            f"{_NOT}, and {', '.join(JUDGED)}"
        )
    if colon and not argument:
        raise InputError(f"the grader {text!r} has nothing after its colon")
    check_argument = (JUDGED if kind in JUDGED else KINDS)[kind].check_argument
    if argument and check_argument is None:
        raise InputError(f"the grader {name!r} takes no argument after a colon, but `grader` is {text!r}")
    if check_argument is not None:
        check_argument(argument)
    return SingleGrader(kind, argument, name != kind)
