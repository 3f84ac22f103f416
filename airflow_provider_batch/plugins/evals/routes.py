"""The routes of the evals: the history, the matrix of cases and models, and two runs side by side."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query, Response

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.evals.matrix import Matrix
from airflow_provider_batch.exceptions import BatchError
from airflow_provider_batch.plugins import budget
from airflow_provider_batch.plugins.access import ReadableDags, ReadableJob, parse_key
from airflow_provider_batch.plugins.evals.reports import (
    MAX_REPORTS,
    ReportFile,
    find_report,
    find_reports,
    read_matrix_of,
)
from airflow_provider_batch.plugins.evals.view import (
    describe_cases,
    describe_comparison,
    describe_eval,
    describe_report,
)
from airflow_provider_batch.plugins.replies import reply

router = APIRouter(prefix="/api")

_Text = Annotated[str, Query(max_length=500)]
_Offset = Annotated[int, Query(ge=0, le=1_000_000)]
_Limit = Annotated[int, Query(ge=1, le=100)]


@router.get("/evals")
async def evals(dags: ReadableDags, dag_id: _Text = "") -> Response:
    """Return the DAGs with evals, the reports of one of them, and the history and the changes of its newest run."""
    reports = await budget.DATABASE.run(lambda: find_reports(dags))
    dag_ids = sorted({report.key.dag_id for report in reports})
    if not dag_id and reports:
        dag_id = reports[0].key.dag_id
    of_dag = [report for report in reports if report.key.dag_id == dag_id][:MAX_REPORTS]
    newest, problem = None, None
    if of_dag:
        try:
            newest = describe_eval(await budget.STORE.run(lambda: read_matrix_of(of_dag[0])))
        except (HTTPException, BatchError) as error:
            # the list of reports stays usable
            problem = str(error.detail if isinstance(error, HTTPException) else error)
    return reply(
        {
            "dags": dag_ids,
            "dag_id": dag_id or None,
            "reports": [describe_report(report) for report in of_dag],
            "eval": newest,
            "problem": problem,
        }
    )


@router.get("/evals/cases")
async def cases(
    key: ReadableJob,
    text: _Text = "",
    model: _Text = "",
    only: Literal["", "wrong", "worse", "better", "unanswered"] = "",
    offset: _Offset = 0,
    limit: _Limit = 20,
) -> Response:
    """Return cases of a run with the answers of all models."""
    matrix = await _read(key)
    content = await budget.STORE.run(
        lambda: describe_cases(matrix, text=text, model=model, only=only, offset=offset, limit=limit)
    )
    return reply(content)


@router.get("/evals/comparison")
async def comparison(
    key: ReadableJob,
    before_run_id: _Text,
    text: _Text = "",
    model: _Text = "",
    only: Literal["", "changed", "worse", "better", "same", "unanswered"] = "changed",
    offset: _Offset = 0,
    limit: _Limit = 20,
) -> Response:
    """Return a run and an earlier one of the same task."""
    earlier_key = parse_key(key.dag_id, before_run_id, key.task_id, str(key.map_index))
    before, now = await _read(earlier_key), await _read(key)
    content = await budget.STORE.run(
        lambda: describe_comparison(before, now, text=text, model=model, only=only, offset=offset, limit=limit)
    )
    return reply(content)


async def _read(key: JobKey) -> Matrix:
    report: ReportFile = await budget.DATABASE.run(lambda: find_report(key))
    return await budget.STORE.run(lambda: read_matrix_of(report))
