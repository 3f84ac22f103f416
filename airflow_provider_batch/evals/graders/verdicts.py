"""Graders by a judge: another model, whose verdicts are in another table. This is what the verdicts mean.

| grader | the judge gets | and returns | the answer is right if |
|---|---|---|---|
| `judge` | what a correct answer has to say, or nothing | `verdict`: correct, incorrect | it is correct |
| `llm-rubric` | a rubric | `verdict` | it is correct |
| `llm-rubric:0.7` | a rubric | `score` from 0 to 1 | the score is at least 0.7 |
| `factuality` | the answer of an expert | `verdict`: subset, superset, same, disagree, differ | it does not disagree |
| `factuality:same,superset` | the answer of an expert | `verdict` | it is one of these |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from airflow_provider_batch.evals.graders.limits import parse_share
from airflow_provider_batch.exceptions import InputError

_PASSED = frozenset({"correct", "right", "pass", "passed", "yes", "true", "1"})
_FAILED = frozenset({"incorrect", "wrong", "fail", "failed", "no", "false", "0"})

#: Verdicts of `factuality` by what a reason says of them. They and their letters are those of OpenAI evals, promptfoo
#: and autoevals.
_COMPARISONS = {
    "subset": "a subset of the expected answer",
    "superset": "a superset of the expected answer",
    "same": "the same as the expected answer",
    "disagree": "disagrees with the expected answer",
    "differ": "differs from the expected answer, but not in its facts",
}
_LETTERS = dict(zip("abcde", _COMPARISONS, strict=True))
_DISAGREE = "disagree"


class Opinion(NamedTuple):
    """What one verdict says of an answer."""

    #: from 0 to 1
    score: float
    passed: bool
    #: what the judge said, if `passed` does not tell all
    detail: str = ""


@dataclass(frozen=True)
class JudgedKind:
    """A kind of grader by a judge."""

    #: (text after the colon, verdict, score) -> opinion, or None if the verdict has no meaning for this grader
    read: Callable[[str, Any, float | None], Opinion | None]
    #: raises InputError if the text after the colon is invalid; None if there cannot be one
    check_argument: Callable[[str], object] | None = None
    needs_expected: bool = True


def parse_verdict(text: Any) -> bool | None:
    """Return whether a judge called an answer right, or None if the verdict is neither right nor wrong.

    :param text: the column `verdict` of the judgements: `correct` or `incorrect`, or a synonym such as `pass` or `no`.
    """
    if isinstance(text, bool | int):
        return bool(text)
    word = str(text).strip().casefold()
    return True if word in _PASSED else False if word in _FAILED else None


def kind_of(grader: str) -> str:
    """Return the name of a grader without the text after its colon."""
    return grader.partition(":")[0].strip()


def _read_judge(_: str, verdict: Any, score: float | None) -> Opinion | None:
    passed = parse_verdict(verdict)
    return None if passed is None else Opinion(float(passed), passed)


def _read_rubric(minimum: str, verdict: Any, score: float | None) -> Opinion | None:
    passed = parse_verdict(verdict)
    if score is None or not 0 <= score <= 1:
        # Without a minimum, the verdict is enough.
        return None if minimum or passed is None else Opinion(float(passed), passed)
    if not minimum:
        return None if passed is None else Opinion(score, passed, f"score {score:.3g}")
    return Opinion(score, score >= float(minimum), f"score {score:.3g}, at least {minimum} needed")


def _read_factuality(accepted: str, verdict: Any, score: float | None) -> Opinion | None:
    word = str(verdict).strip().casefold()
    comparison = _LETTERS.get(word, word)
    if comparison not in _COMPARISONS:
        return None
    passed = comparison in _split(accepted) if accepted else comparison != _DISAGREE
    return Opinion(float(passed), passed, _COMPARISONS[comparison])


def _check_minimum(argument: str) -> None:
    if argument:
        parse_share("llm-rubric", argument)


def _check_comparisons(argument: str) -> None:
    unknown = [name for name in _split(argument) if name not in _COMPARISONS] if argument else []
    if unknown:
        raise InputError(
            f"the grader 'factuality' accepts {', '.join(_COMPARISONS)} after its colon, separated by commas, but not "
            f"{unknown[0]!r}"
        )


def _split(argument: str) -> list[str]:
    return [name.strip() for name in argument.split(",")]


#: in the order in which an error message lists them
JUDGED = {
    "judge": JudgedKind(_read_judge, needs_expected=False),
    "llm-rubric": JudgedKind(_read_rubric, check_argument=_check_minimum),
    "factuality": JudgedKind(_read_factuality, check_argument=_check_comparisons),
}
