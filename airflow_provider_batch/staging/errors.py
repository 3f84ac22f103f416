"""The error for an operation on staging that failed."""

from __future__ import annotations

from airflow_provider_batch.exceptions import StagingError


def staging_error(verb: str, path: object, error: OSError) -> StagingError:
    """Return the error for an operation on a path that failed."""
    return StagingError(
        f"Staging: cannot {verb} {path}: {error.strerror or error}. What was sealed or collected before is kept. "
        "Check the path and its permissions ([openai_batch] staging or staging=), then clear the task."
    )
