"""The grader `regex`. RE2 matches in time that grows only linearly with the answer."""

from __future__ import annotations

import re
from typing import Any

from airflow_provider_batch.evals.graders.subject import Grade, Subject, excerpt, right, wrong
from airflow_provider_batch.exceptions import InputError

#: \b or \B next to a letter that is not ASCII. In RE2 it would not mean what it means in Python.
_ASCII_BOUNDARY = re.compile(r"\\[bB](?![\x00-\x7f])\w|(?![\x00-\x7f])\w\\[bB]")

_ESCAPE = re.compile(r"\\[Z\\]")


def regex(_: str, subject: Subject) -> Grade:
    """Grade whether the expected regular expression matches anywhere in the answer."""
    pattern = compile_expression(subject.expected)
    # in RE2, `$` does not match before a line end at the end of the text, which models often write
    match = pattern.search(subject.text) or pattern.search(subject.text.removesuffix("\n"))
    if match:
        return right(f"matches: {excerpt(match[0])}")
    return wrong(f"does not match: {excerpt(subject.text)}")


def compile_expression(expression: str) -> Any:
    """Return the compiled regular expression. RE2 caches it.

    :raises InputError: if it is invalid, or RE2 does not support it.
    """
    try:
        import re2
    except ImportError:
        raise InputError(
            "The grader 'regex' needs google-re2, which is not installed here. Install it on every worker with "
            "`pip install 'airflow-provider-batch[evals]'`. Nothing was graded."
        ) from None
    options = re2.Options()
    options.log_errors = False
    try:
        # the end of the text is \Z in Python and \z in RE2
        pattern = re2.compile(_ESCAPE.sub(lambda match: match[0].replace("Z", "z"), expression), options)
    except re2.error as error:
        message = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise InputError(f"`expected` is not a valid regular expression: {message}.{_advice(expression)}") from None
    neighbour = _ASCII_BOUNDARY.search(expression)
    if neighbour:
        raise InputError(
            f"`expected` has {neighbour[0]!r}, but \\b and \\B know only ASCII letters. Use (?:^|[^\\pL]) or "
            "(?:[^\\pL]|$) there."
        )
    return pattern


def _advice(expression: str) -> str:
    """Return what to write instead, as a sentence with a leading space, if only Python's `re` takes the expression."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError):
        return ""
    return (
        " It is matched by RE2, which has no lookaround, no backreferences, no atomic groups, no \\u "
        "escapes (use \\x{...}), and repeats at most 1,000 times. Rewrite it, or use another grader."
    )
