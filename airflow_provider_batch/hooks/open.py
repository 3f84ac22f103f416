"""Opens the hook of a connection in a task."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_batch.hooks.batch import BatchHook


def open_hook(conn_id: str) -> BatchHook:
    """Return the hook of an OpenAI connection.

    The OpenAI SDK takes half a second to import, and Airflow imports the operators each time it parses a DAG file. The
    hook is therefore imported here, when a task needs it.
    """
    from airflow_provider_batch.hooks.batch import BatchHook

    return BatchHook(conn_id=conn_id)
