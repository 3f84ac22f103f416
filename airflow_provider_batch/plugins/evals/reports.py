"""Finds the reports of evals in Airflow's XComs, and reads the answers next to them in staging."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi import HTTPException
from sqlalchemy import select

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.evals.matrix import Matrix, decode
from airflow_provider_batch.evals.page import is_report, matrix_name, report_folder
from airflow_provider_batch.links.batch import REPORT_KEY
from airflow_provider_batch.plugins.lookup import decode_xcom

#: maximum number of reports of a DAG, and of those read to find the DAGs that have any
MAX_REPORTS = 100
MAX_READ = 5_000
#: number of matrices that stay in memory; most have less than 1 MB
_CACHED = 4

#: the same for no such report, one that is not written yet, and one that staging does not have
NO_REPORT = "This task has no eval report here. It appears once the task has written it."


class ReportFile(NamedTuple):
    """A report that a task instance wrote."""

    key: JobKey
    name: str
    written_at: datetime


def find_reports(dag_ids: Collection[str]) -> list[ReportFile]:
    """Return the reports of these DAGs, the newest run first.

    A report that was written again after a clear keeps its place.
    """
    statement = (
        select(
            XComModel.dag_id,
            XComModel.run_id,
            XComModel.task_id,
            XComModel.map_index,
            XComModel.value,
            XComModel.timestamp,
        )
        .join(DagRun, DagRun.id == XComModel.dag_run_id)
        .where(XComModel.key == REPORT_KEY)
        .order_by(DagRun.run_after.desc(), XComModel.timestamp.desc())
        .limit(MAX_READ)
    )
    with create_session() as session:
        rows = session.execute(statement).all()
    reports = []
    for dag_id, run_id, task_id, map_index, value, timestamp in rows:
        name = decode_xcom(value)
        if dag_id in dag_ids and isinstance(name, str) and is_report(name):
            key = JobKey(dag_id=dag_id, task_id=task_id, run_id=run_id, map_index=map_index)
            reports.append(ReportFile(key, name, timestamp))
    return reports


def find_report(key: JobKey) -> ReportFile:
    """Return the report of a task instance.

    :raises HTTPException: 404 if it has none.
    """
    statement = select(XComModel.value, XComModel.timestamp).where(
        XComModel.dag_id == key.dag_id,
        XComModel.run_id == key.run_id,
        XComModel.task_id == key.task_id,
        XComModel.map_index == key.map_index,
        XComModel.key == REPORT_KEY,
    )
    with create_session() as session:
        row = session.execute(statement).first()
    name = None if row is None else decode_xcom(row.value)
    if row is None or not isinstance(name, str) or not is_report(name):
        raise HTTPException(404, NO_REPORT)
    return ReportFile(key, name, row.timestamp)


def read_matrix_of(report: ReportFile) -> Matrix:
    """Return the answers next to a report. Its folder follows from the task instance, so no XCom can lead out of it.

    :raises HTTPException: 404 if staging does not have them.
    :raises StagingError: if staging cannot be read, or the file is damaged.
    """
    return _read(report.key, report.name)


@lru_cache(_CACHED)
def _read(key: JobKey, name: str) -> Matrix:
    # The name depends on the content, so what was read once stays valid.
    content = report_folder(key.dag_id, key.run_id, key.task_id, key.map_index).read(matrix_name(name))
    if content is None:
        raise HTTPException(404, NO_REPORT)
    return decode(content)
