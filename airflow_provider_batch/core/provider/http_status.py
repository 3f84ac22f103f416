"""What an HTTP status says about sending the same request again."""

from __future__ import annotations


def is_transient(status: int) -> bool:
    """Whether the same request may succeed later: 408, 409, 429, 5xx, or 0 for no answer at all."""
    return status in (0, 408, 409, 429) or status >= 500
