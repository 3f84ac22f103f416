"""Completion windows that others than OpenAI take."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple


class Windows(NamedTuple):
    """The completion windows a provider takes."""

    #: in hours
    hours: Collection[int]
    #: as its error says it
    supported: tuple[str, ...]
    #: hours that every batch gets, whatever was asked
    always: int | None = None


#: OpenAI's only one
OPENAI = Windows((24,), ("24h",))
#: switch -> what it takes
WINDOWS = {
    # Groq
    "windows-24h-to-7d": Windows(range(24, 7 * 24 + 1), ("24h", "7d")),
    # SiliconFlow; DashScope, which also takes days
    "windows-24h-to-14d": Windows(range(24, 14 * 24 + 1), ("24h", "336h")),
    # Doubleword
    "windows-1h-or-24h": Windows((1, 24), ("1h", "24h")),
    # Novita: "fixed … and cannot be modified"
    "window-48h": Windows(range(1, 49), ("48h",), always=48),
}

_SPAN = re.compile(r"([1-9]\d{0,3})([hd])")


def hours_of(window: str) -> int | None:
    """The hours of `24h` or `7d`; None if it is no such span."""
    span = _SPAN.fullmatch(window)
    return None if span is None else int(span[1]) * (24 if span[2] == "d" else 1)
