"""The routes of the plugin, for the API server.

Airflow does not guard the routes of a plugin. Each one here asks for a logged-in user who may see the task instances
of the DAG; the routes that FastAPI adds for its documentation are switched off.
"""

from __future__ import annotations

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
    "No job is recorded for this task instance (yet). A job appears here when the submit task has sealed its "
    "input; tasks of other operators never have one."
)

_NO_REPORT = (
    "No report of this task instance is found. It appears when the task has written it; where staging is a disk that "
    "the API server does not share, it cannot be shown here, and the task's log says where it lies."
)


@app.get(
    "/job/{dag_id}/{task_id}/{map_index}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))],
)
def job(dag_id: str, task_id: str, map_index: str, run_id: str) -> Response:
    """The page of one job, or of the report that a task wrote: the tab is the same for all tasks.

    The UI leaves `{MAP_INDEX}` in the address of a task that is not mapped.
    """
    try:
        summary = load_summary(dag_id, run_id, task_id, _index(map_index))
        page = load_report(dag_id, run_id, task_id, _index(map_index)) if summary is None else None
    except BatchError as error:
        return HTMLResponse(render_message(f"The job's record cannot be read. {error}"), headers=HEADERS)
    if page is not None:
        return HTMLResponse(page, headers=headers(page))
    if summary is None:
        return HTMLResponse(render_message(_NO_JOB), headers=HEADERS)
    return HTMLResponse(render(summary, task_id, _index(map_index)), headers=HEADERS)


@app.get(
    "/report/{dag_id}/{task_id}/{map_index}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))],
)
def report(dag_id: str, task_id: str, map_index: str, run_id: str) -> Response:
    """The report that a task instance wrote, as it lies in staging."""
    try:
        page = load_report(dag_id, run_id, task_id, _index(map_index))
    except BatchError as error:
        return HTMLResponse(render_message(f"The report cannot be read. {error}"), headers=HEADERS)
    if page is None:
        return HTMLResponse(render_message(_NO_REPORT), status_code=404, headers=HEADERS)
    return HTMLResponse(page, headers=headers(page))


def _index(map_index: str) -> int:
    return int(map_index) if map_index.isdecimal() and map_index.isascii() else -1
