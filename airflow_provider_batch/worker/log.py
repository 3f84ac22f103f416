"""The log of a task or a trigger, as everything outside the core writes to it."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """The logger of a task or a trigger, of the standard library or of structlog."""

    def info(self, event: str, *args: Any) -> Any:
        """Something happened."""

    def warning(self, event: str, *args: Any) -> Any:
        """Something that a person may want to look at."""
