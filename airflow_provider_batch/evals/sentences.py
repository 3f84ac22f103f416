"""Sentences about a comparison that the log, the gate and the report share."""

from __future__ import annotations

from airflow_provider_batch.core.formatting import format_count


def format_edited(cases: int) -> str:
    """Return the start of a sentence about edited cases, such as "3 cases that were wrong were"."""
    return f"{format_count(cases, 'case')} that {'was wrong was' if cases == 1 else 'were wrong were'}"


def format_smallest_drop(smallest_drop: float | None) -> str:
    """Return which drops in accuracy go unnoticed."""
    if smallest_drop is None:
        return "There are too few comparable cases to notice any drop in accuracy."
    return f"A drop in accuracy below {100 * smallest_drop:.1f} points may go unnoticed."
