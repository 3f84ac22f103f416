"""The completion windows that other providers accept."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple


class Windows(NamedTuple):
    """The completion windows that one provider accepts."""

    #: accepted windows, in hours
    hours: Collection[int]
    #: the windows that an error message lists
    supported: tuple[str, ...]
    #: hours that every batch gets, regardless of the request; None keeps the requested window
    fixed_hours: int | None = None


#: OpenAI's only window
OPENAI = Windows((24,), ("24h",))
#: switch -> its windows
WINDOWS = {
    # Groq
    "windows-24h-to-7d": Windows(range(24, 7 * 24 + 1), ("24h", "7d")),
    # SiliconFlow; DashScope, which also accepts days
    "windows-24h-to-14d": Windows(range(24, 14 * 24 + 1), ("24h", "336h")),
    # Doubleword
    "windows-1h-or-24h": Windows((1, 24), ("1h", "24h")),
    # Novita: "fixed … and cannot be modified"
    "window-48h": Windows(range(1, 49), ("48h",), fixed_hours=48),
}

_DURATION = re.compile(r"([1-9]\d{0,3})([hd])")


def hours_of(window: str) -> int | None:
    """Return the hours of a window such as `24h` or `7d`, or None if the text has another form."""
    duration = _DURATION.fullmatch(window)
    return None if duration is None else int(duration[1]) * (24 if duration[2] == "d" else 1)
