"""The routes of the plugin, served by Airflow's API server.

Airflow does not protect the routes of a plugin. Each route here requires a logged-in user who may read the task
instances of the DAG, and the documentation routes that FastAPI adds by default are switched off.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, Response

from airflow_provider_batch.evals.page import headers
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins.lookup import load_report, load_summary
from airflow_provider_batch.plugins.page import HEADERS, render, render_message

app = FastAPI(title="LLM batch", openapi_url=None, docs_url=None, redoc_url=None)

_NO_JOB = (
    "This task instance has no job yet. A job appears here once the submit task has sealed its input. Tasks that do "
    "not belong to a batch job never have one."
)

_NO_REPORT = (
    "No report of this task instance was found. It appears here once the task has written it. If staging is a local "
    "disk that the API server does not share, the report cannot be shown here; the log of the task says where it is."
)


@app.get(
    "/job/{dag_id}/{task_id}/{map_index}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))],
)
def job(dag_id: str, task_id: str, map_index: str, run_id: str) -> Response:
    """Return the page of a job, or the report that the task wrote, because both share one tab.

    If the task is not mapped, the UI leaves `{MAP_INDEX}` in the URL as it is.
    """
    try:
        summary = load_summary(dag_id, run_id, task_id, _parse_map_index(map_index))
        page = load_report(dag_id, run_id, task_id, _parse_map_index(map_index)) if summary is None else None
    except BatchError as error:
        return HTMLResponse(render_message(f"Cannot read the record of this job. {error}"), headers=HEADERS)
    if page is not None:
        return HTMLResponse(page, headers=headers(page))
    if summary is None:
        return HTMLResponse(render_message(_NO_JOB), headers=HEADERS)
    return HTMLResponse(render(summary, task_id, _parse_map_index(map_index), datetime.now(UTC)), headers=HEADERS)


@app.get(
    "/report/{dag_id}/{task_id}/{map_index}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))],
)
def report(dag_id: str, task_id: str, map_index: str, run_id: str) -> Response:
    """Return the report that a task instance wrote, unchanged."""
    try:
        page = load_report(dag_id, run_id, task_id, _parse_map_index(map_index))
    except BatchError as error:
        return HTMLResponse(render_message(f"Cannot read the report. {error}"), headers=HEADERS)
    if page is None:
        return HTMLResponse(render_message(_NO_REPORT), status_code=404, headers=HEADERS)
    return HTMLResponse(page, headers=headers(page))


def _parse_map_index(map_index: str) -> int:
    return int(map_index) if map_index.isdecimal() and map_index.isascii() else -1
