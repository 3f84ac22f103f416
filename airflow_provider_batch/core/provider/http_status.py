"""Which HTTP statuses are worth a retry."""

from __future__ import annotations


def is_transient(status: int) -> bool:
    """Return whether the same request may succeed later: for 408, 409, 429, 5xx, and 0 (no answer at all)."""
    return status in (0, 408, 409, 429) or status >= 500
