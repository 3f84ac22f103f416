"""Paths of Airflow's own pages about a task instance."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from airflow.providers.common.compat.sdk import conf


def approval_path(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the path of the page on which a person approves or rejects, below the base URL of Airflow.

    :param task_id: the task that waits for the person.
    :param map_index: -1 if the task is not mapped.
    """
    return _task_path(dag_id, run_id, task_id, map_index, "required_actions")


def xcoms_page(dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """Return the path of the page with the XComs of a task instance, as a browser reaches it.

    :param map_index: -1 if the task is not mapped.
    """
    prefix: str = urlsplit(conf.get("api", "base_url", fallback="/")).path.rstrip("/")
    return prefix + _task_path(dag_id, run_id, task_id, map_index, "xcom")


def _task_path(dag_id: str, run_id: str, task_id: str, map_index: int, page: str) -> str:
    dag, run, task = (quote(part, safe="") for part in (dag_id, run_id, task_id))
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"/dags/{dag}/runs/{run}/tasks/{task}{mapped}/{page}"
