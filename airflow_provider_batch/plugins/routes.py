"""The routes that show the page of a job and the report of a task instance as HTML."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.lifecycle.summary import JobSummary
from airflow_provider_batch.evals.page import headers
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.access import ReadableJob
from airflow_provider_batch.plugins.lookup import load_report, load_summary
from airflow_provider_batch.plugins.page import HEADERS, render, render_message

router = APIRouter()

_NO_JOB = (
    "This task instance has no job yet. A job appears here once the submit task has sealed its input. Tasks that do "
    "not belong to a batch job never have one."
)

_NO_REPORT = (
    "No report of this task instance was found. It appears here once the task has written it. If staging is a local "
    "disk that the API server does not share, the report cannot be shown here; the log of the task says where it is."
)


@router.get("/job/{dag_id}/{task_id}/{map_index}")
async def job(key: ReadableJob) -> Response:
    """Return the page of a job, or the report that the task wrote, because both share one tab."""
    try:
        summary, page = await budget.STORE.run(lambda: _load(key))
    except BatchError as error:
        return HTMLResponse(render_message(f"Cannot read the record of this job. {error}"), headers=HEADERS)
    if page is not None:
        return HTMLResponse(page, headers=headers(page))
    if summary is None:
        return HTMLResponse(render_message(_NO_JOB), headers=HEADERS)
    return HTMLResponse(render(summary, key.task_id, key.map_index, datetime.now(UTC)), headers=HEADERS)


@router.get("/report/{dag_id}/{task_id}/{map_index}")
async def report(key: ReadableJob) -> Response:
    """Return the report that a task instance wrote, unchanged."""
    try:
        page = await budget.STORE.run(lambda: load_report(key))
    except BatchError as error:
        return HTMLResponse(render_message(f"Cannot read the report. {error}"), headers=HEADERS)
    if page is None:
        return HTMLResponse(render_message(_NO_REPORT), status_code=404, headers=HEADERS)
    return HTMLResponse(page, headers=headers(page))


def _load(key: JobKey) -> tuple[JobSummary | None, bytes | None]:
    summary = load_summary(key)
    return summary, load_report(key) if summary is None else None
