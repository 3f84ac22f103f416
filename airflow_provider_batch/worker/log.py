"""The logger interface that the package uses outside `core`."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """The logger of a task or a trigger, from the standard library or from structlog."""

    def debug(self, event: str, *args: Any, exc_info: BaseException | None = None) -> Any:
        """Log what only a developer needs."""

    def info(self, event: str, *args: Any) -> Any:
        """Log normal progress."""

    def warning(self, event: str, *args: Any) -> Any:
        """Log something that a person may need to look at."""

    def error(self, event: str, *args: Any) -> Any:
        """Log why something failed."""
