"""What the shell says to a person: in the log of the task that it works for."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """A task's logger, of the standard library or of structlog."""

    def info(self, event: str, *args: Any) -> Any:
        """Something happened."""

    def warning(self, event: str, *args: Any) -> Any:
        """Something that a person may want to look at."""
