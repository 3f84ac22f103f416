"""The routes of the plugin, for the API server.

Airflow does not guard the routes of a plugin. Each one here asks for a logged-in user who may see the task instances
of the DAG; the routes that FastAPI adds for its documentation are switched off.
"""

from __future__ import annotations

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse

from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins.lookup import load_job_view
from airflow_provider_batch.plugins.page import HEADERS, render, render_message

app = FastAPI(title="Batch jobs", openapi_url=None, docs_url=None, redoc_url=None)

_NO_JOB = (
    "No job is recorded for this task instance (yet). A job appears here when the submit task has sealed its "
    "input; tasks of other operators never have one."
)


@app.get(
    "/job/{dag_id}/{task_id}/{map_index}",
    dependencies=[Depends(requires_access_dag("GET", DagAccessEntity.TASK_INSTANCE))],
)
def job(dag_id: str, task_id: str, map_index: str, run_id: str) -> HTMLResponse:
    """The page of one job. The UI leaves `{MAP_INDEX}` in the address of a task that is not mapped."""
    index = int(map_index) if map_index.isdecimal() and map_index.isascii() else -1
    try:
        view = load_job_view(dag_id, run_id, task_id, index)
    except BatchError as error:
        return HTMLResponse(render_message(f"The job's record cannot be read. {error}"), headers=HEADERS)
    return HTMLResponse(render_message(_NO_JOB) if view is None else render(view), headers=HEADERS)
