"""Verdicts of a judge: another model that called an answer right or wrong."""

from __future__ import annotations

from typing import Any

_PASSED = frozenset({"correct", "right", "pass", "passed", "yes", "true", "1"})
_FAILED = frozenset({"incorrect", "wrong", "fail", "failed", "no", "false", "0"})


def parse_verdict(text: Any) -> bool | None:
    """Return whether a judge called an answer right, or None if the verdict is neither right nor wrong.

    :param text: the column `verdict` of the judgements: `correct` or `incorrect`, or a synonym such as `pass` or `no`.
    """
    if isinstance(text, bool | int):
        return bool(text)
    word = str(text).strip().casefold()
    return True if word in _PASSED else False if word in _FAILED else None
