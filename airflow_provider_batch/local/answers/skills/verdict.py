"""Judges an answer by comparing it with the expected one, as the prompt of `nightly_eval`'s judge states both."""

from __future__ import annotations

import re

_EXPECTED_AND_ANSWER = re.compile(r"^# What a correct answer has to say\n(.*)^# Answer\b(.*)", re.DOTALL | re.MULTILINE)
_WORD = re.compile(r"\w+")


def judge(text: str) -> str | None:
    """Return `correct` if both have the same words in the same order, else `incorrect`; None if there is no answer.

    This is stricter than a model: an answer in other words is `incorrect`.
    """
    match = _EXPECTED_AND_ANSWER.search(text)
    if match is None:
        return None
    expected, answer = (_WORD.findall(part.lower()) for part in match.groups())
    return "correct" if expected == answer else "incorrect"
