"""The route that shows the report of a task instance."""

from __future__ import annotations

import html

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from airflow_provider_batch.evals.page import headers
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.access import ReadableJob
from airflow_provider_batch.plugins.lookup import load_report

router = APIRouter()

_NO_REPORT = (
    "No report of this task instance was found. It appears here once the task has written it. If staging is a local "
    "disk that the API server does not share, the report cannot be shown here; the log of the task says where it is."
)


@router.get("/report/{dag_id}/{task_id}/{map_index}")
async def report(key: ReadableJob) -> Response:
    """Return the report that a task instance wrote, unchanged."""
    try:
        page = await budget.STORE.run(lambda: load_report(key))
    except BatchError as error:
        return _explain(f"Cannot read the report. {error}")
    if page is None:
        return _explain(_NO_REPORT, 404)
    return HTMLResponse(page, headers=headers(page))


def _explain(message: str, status: int = 200) -> HTMLResponse:
    """Return a page that contains only a message."""
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Eval report</title></head>'
        f"<body><p>{html.escape(message)}</p></body></html>"
    )
    return HTMLResponse(page, status_code=status, headers=headers(page.encode()))
