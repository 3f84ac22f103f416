"""The grader `python:module:function`: a function of your own.

    def is_polite(answer: str, case) -> bool | float | dict: ...

`answer` is the text of the answer, and `case` has `case_id`, `input`, `expected` and `tags`. The function returns

* a bool, whether the answer is right;
* or a number from 0 to 1, the score: from 0.5 on, the answer is right;
* or a dict with `score`, `passed` and `reason`, of which `score` or `passed` is needed.

What it raises is an error of the grading, not a wrong answer: nothing is written. Cases come from a table, so they may
only name functions in the modules that the DAG's author lists in `grader_modules` of the operators.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from airflow_provider_batch.evals.graders.subject import Grade, Subject
from airflow_provider_batch.exceptions import InputError

#: the score from which an answer is right, if the function returns only a score
_PASSING_SCORE = 0.5
_KEYS = frozenset({"score", "passed", "reason"})
#: maximum length of a text from a function or its error, in characters
_MAX_TEXT = 300


def python(argument: str, subject: Subject) -> Grade:
    """Grade by the result of a function.

    :raises InputError: if it raises an exception, or returns something else than a grade.
    """
    function = load_function(argument)
    try:
        result = function(subject.text, subject.case)
    except Exception as error:
        problem = f"raised {type(error).__name__}: {str(error)[:_MAX_TEXT]}"
        raise InputError(_describe(argument, subject, problem)) from error
    grade = _read_result(result)
    if grade is None:
        problem = (
            f"returned {repr(result)[:_MAX_TEXT]}, which is not a bool, a number from 0 to 1, or a dict with score, "
            "passed and reason"
        )
        raise InputError(_describe(argument, subject, problem))
    return grade


def check_name(argument: str) -> None:
    """Raise InputError if the text after the colon does not name a function of a module."""
    module, _, name = argument.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise InputError(f"the grader 'python:{argument}' does not name a function: write python:module:function")


def check_function(argument: str, modules: Sequence[str]) -> None:
    """Check that the function of a grader may be called, and import it.

    :param modules: modules and packages whose functions may be called.
    :raises InputError: if it is in none of them, or cannot be imported.
    """
    module = argument.partition(":")[0]
    if not any(f"{module}.".startswith(f"{allowed}.") for allowed in modules):
        raise InputError(
            f"the function {argument!r} may not be called, because grader_modules of the operator does not list its "
            f"module {module!r}"
        )
    load_function(argument)


@lru_cache(maxsize=256)
def load_function(argument: str) -> Callable[[str, Any], Any]:
    """Import a function.

    :raises InputError: if that fails.
    """
    module, _, name = argument.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise InputError(
            f"the function {argument!r} cannot be imported here: {type(error).__name__}: {str(error)[:_MAX_TEXT]}"
        ) from error
    if not callable(function):
        raise InputError(f"{argument!r} is not a function")
    loaded: Callable[[str, Any], Any] = function
    return loaded


def _describe(argument: str, subject: Subject, problem: str) -> str:
    return (
        f"case {subject.case.case_id!r}: the function {argument!r} {problem}. It graded the answer of "
        f"{subject.answer.variant!r}. Nothing was written. Fix the function, then clear this task."
    )


def _read_result(result: Any) -> Grade | None:
    """Return the grade that a function returned, or None if it is not one."""
    values = result if isinstance(result, Mapping) else {"score": result}
    score, passed = values.get("score"), values.get("passed")
    if not values.keys() <= _KEYS or (score is None and passed is None):
        return None
    if not isinstance(passed, bool | None):
        return None
    if score is None:
        score = bool(passed)
    if not isinstance(score, bool | int | float) or not 0 <= score <= 1:
        return None
    if passed is None:
        passed = score >= _PASSING_SCORE
    reason = values.get("reason") or f"score {float(score):.3g}"
    return Grade(float(score), passed, str(reason)[:_MAX_TEXT])
