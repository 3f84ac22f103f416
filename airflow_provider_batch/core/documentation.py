"""The addresses of the documentation's pages, for logs and errors."""

from __future__ import annotations

SITE = "https://airflow-provider-batch.readthedocs.io/en/latest/"


def docs_page(path: str) -> str:
    """Return the address of a page, such as "operations/jobs" for `docs/operations/jobs.md`."""
    return f"{SITE}{path}.html"
