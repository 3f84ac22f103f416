"""The scorers of inspect_ai as graders.

| scorer | an answer is right if | our grader |
|---|---|---|
| `match` | it ends with a target; or begins with it, contains it, equals it, without punctuation | `regex` |
| `match` with `numeric` | its last number is the target | `numeric` |
| `includes` | it contains a target | `icontains`, `icontains-any`; or `contains`, `contains-any` |
| `exact` | it equals a target without case, punctuation and articles | `normalised`, `one-of:normalised` |
| `f1` | the words of answer and target overlap | `token-f1` |
| `answer` | its line `ANSWER:` has a target | `regex` |
| `choice` | its line `ANSWER:` has the letter of a choice | `regex` |
| `model_graded_qa` | a model says that it meets the target | `llm-rubric` |
| `model_graded_fact` | a model says that it contains the facts of the target | `factuality:same,superset` |
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from airflow_provider_batch.evals.imports.messages import NotImportableError
from airflow_provider_batch.evals.imports.sources import NOTHING_IMPORTED
from airflow_provider_batch.evals.imports.values import is_true
from airflow_provider_batch.exceptions import InputError

Grading = Callable[[Sequence[str], Sequence[str]], tuple[str | None, str]]


class Scorer(NamedTuple):
    """A scorer with its arguments."""

    #: (targets, choices) -> the columns `expected` and `grader`
    grade: Grading
    #: how its grades may differ from those of inspect_ai
    notes: tuple[str, ...] = ()
    #: whether the question lists the choices
    uses_choices: bool = False


#: white space and punctuation that `match` ignores around an answer
_EDGE = r"[\s\x0b\pZ[:punct:]]*"
_MAX_CHOICES = 26

_ANSWER_NOTE = (
    "The answer has to end with its line `ANSWER: …`. inspect_ai takes the last such line, even if more text follows."
)
_EXACT_NOTE = (
    "`normalised` keeps articles (a, an, the) and decimal zeros, which the scorer exact of inspect_ai removes."
)
_NUMERIC_NOTE = "The number in an answer is found by the rules of our grader `numeric`."
_JUDGE_NOTE = "The judge of your DAG decides, with its own prompt. Only the target was imported."

#: Multiple-choice prompt of inspect_ai (SINGLE_ANSWER_TEMPLATE of its solver multiple_choice, MIT licence).
_CHOICES_TEMPLATE = (
    "Answer the following multiple choice question. The entire content of your response should be of the following "
    "format: 'ANSWER: $LETTER' (without quotes) where LETTER is one of {letters}.\n\n{question}\n\n{choices}"
)


def scorer_of(name: str, options: Mapping[str, str]) -> Scorer:
    """Return a scorer with these arguments.

    :raises InputError: if it does not take one of them.
    """
    allowed, make = SCORERS[name]
    for option in options:
        if option not in allowed:
            raise InputError(
                f"scorer option: The scorer {name} has no option {option!r} that can be imported. It has "
                f"{', '.join(allowed) or 'none'}. {NOTHING_IMPORTED}"
            )
    return make(options)


def write_choices(question: str, choices: Sequence[str]) -> str:
    """Return the prompt that inspect_ai sends for a multiple-choice question."""
    if not 1 < len(choices) <= _MAX_CHOICES:
        raise NotImportableError(f"it has {len(choices)} choices, and a question needs 2 to {_MAX_CHOICES}")
    letters = string.ascii_uppercase[: len(choices)]
    lines = "\n".join(f"{letter}) {choice}" for letter, choice in zip(letters, choices, strict=True))
    return _CHOICES_TEMPLATE.format(letters=",".join(letters), question=question, choices=lines)


def _match(options: Mapping[str, str]) -> Scorer:
    location = options.get("location", "end")
    if location not in ("begin", "end", "any", "exact"):
        raise InputError(f"scorer option: location is begin, end, any or exact, not {location!r}. {NOTHING_IMPORTED}")
    flags = "(?i)" if is_true(options.get("ignore_case", "true")) else ""
    is_numeric = is_true(options.get("numeric", "false"))
    before = "" if location in ("end", "any") else rf"\A{_EDGE}"
    after = "" if location in ("begin", "any") else rf"{_EDGE}\z"

    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        numbers = [_number(target) for target in targets] if is_numeric else []
        if any(numbers):
            if location != "end" or len(targets) > 1:
                raise NotImportableError("only `match` at the end with one number has a counterpart")
            return numbers[0], "numeric"
        stripped = [target.strip(string.whitespace + string.punctuation) for target in targets]
        if not all(stripped):
            raise NotImportableError("its target has nothing but punctuation, so every answer would be right")
        if flags:
            # (?i) folds single letters, but ß is also ss
            stripped += [folded for target in stripped if (folded := target.casefold()) != target.lower()]
        return f"{flags}{before}(?:{_alternatives(stripped)}){after}", "regex"

    return Scorer(grade, (_NUMERIC_NOTE,) if is_numeric else ())


def _includes(options: Mapping[str, str]) -> Scorer:
    letter = "i" if is_true(options.get("ignore_case", "true")) else ""

    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        _require(targets)
        if len(targets) == 1:
            return targets[0], f"{letter}contains"
        return json.dumps(targets, ensure_ascii=False), f"{letter}contains-any"

    return Scorer(grade)


def _exact(_: Mapping[str, str]) -> Scorer:
    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        _require(targets)
        if len(targets) == 1:
            return targets[0], "normalised"
        return json.dumps(targets, ensure_ascii=False), "one-of:normalised"

    return Scorer(grade, (_EXACT_NOTE,))


def _f1(options: Mapping[str, str]) -> Scorer:
    threshold = options.get("threshold", "0.5")

    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        _require(targets)
        if len(targets) > 1:
            raise NotImportableError("the grader token-f1 compares with one target")
        return targets[0], f"token-f1:{threshold}"

    return Scorer(grade, (f"f1 has no right and wrong in inspect_ai. Here an answer is right from {threshold} on.",))


def _answer(options: Mapping[str, str]) -> Scorer:
    kind = options.get("pattern", "")
    if kind not in ("letter", "word", "line"):
        raise InputError(
            f"scorer option: The scorer answer needs the pattern letter, word or line, as in pattern=letter. "
            f"{NOTHING_IMPORTED}"
        )
    end = {"letter": r"[\s\x0b[:punct:]]*\z", "word": r"[.,;:!?]?\s*\z", "line": r"\s*\z"}[kind]

    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        _require(targets)
        return rf"(?i)ANSWER\s*:\s*(?:{_alternatives(targets)}){end}", "regex"

    return Scorer(grade, (_ANSWER_NOTE,))


def _choice(_: Mapping[str, str]) -> Scorer:
    def grade(targets: Sequence[str], choices: Sequence[str]) -> tuple[str | None, str]:
        letters = string.ascii_uppercase[: len(choices)]
        target = targets[0].strip().upper() if len(targets) == 1 else ""
        if len(target) != 1 or target not in letters:
            raise NotImportableError(f"its target is not the letter of one of its {len(choices)} choices: {targets}")
        return rf"(?i)ANSWER\s*:\s*[$*(\s]*{target}[\s\x0b[:punct:]]*\z", "regex"

    return Scorer(grade, (_ANSWER_NOTE,), uses_choices=True)


def _model_graded(grader: str) -> Scorer:
    def grade(targets: Sequence[str], _: Sequence[str]) -> tuple[str | None, str]:
        _require(targets)
        if len(targets) > 1:
            raise NotImportableError("a judge compares with one target")
        return targets[0], grader

    return Scorer(grade, (_JUDGE_NOTE,))


def _require(targets: Sequence[str]) -> None:
    if not targets or not all(target.strip() for target in targets):
        raise NotImportableError("its target is empty")


def _alternatives(texts: Sequence[str]) -> str:
    return "|".join(re.escape(text) for text in texts)


def _number(target: str) -> str:
    """Return the number that a target is, without signs of currency and thousands, or nothing."""
    text = re.sub(r"[$£€,*_]", "", target).strip()
    try:
        return text if Decimal(text).is_finite() else ""
    except InvalidOperation:
        return ""


#: by name: the options that can be imported, and the function that makes the scorer
SCORERS: Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, str]], Scorer]]] = {
    "match": (("location", "ignore_case", "numeric"), _match),
    "includes": (("ignore_case",), _includes),
    "exact": ((), _exact),
    "f1": (("threshold",), _f1),
    "answer": (("pattern",), _answer),
    "choice": ((), _choice),
    "model_graded_qa": ((), lambda _: _model_graded("llm-rubric")),
    "model_graded_fact": ((), lambda _: _model_graded("factuality:same,superset")),
}
