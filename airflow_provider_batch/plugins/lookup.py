"""Loads the job of a task instance, or the report that it wrote, in the API server."""

from __future__ import annotations

from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session

from airflow_provider_batch.core.ledger.ledger import open_ledger
from airflow_provider_batch.core.lifecycle.summary import JobSummary, summarize
from airflow_provider_batch.evals.page import is_report, report_folder
from airflow_provider_batch.links.batch import LEDGER_KEY, REPORT_KEY
from airflow_provider_batch.staging.layout import open_folder


def load_summary(dag_id: str, run_id: str, task_id: str, map_index: int) -> JobSummary | None:
    """Return the summary of the job of a task instance, or None if it has no job.

    The task pushes the address of the ledger to XCom. The job is returned only if it belongs to the same DAG run, so
    that nobody can see a job of a DAG that they may not read.

    :param map_index: -1 if the task is not mapped.
    :raises BatchError: if the ledger cannot be read.
    """
    address = _pull_xcom(LEDGER_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(address, str):
        return None
    ledger = open_ledger(open_folder(address))
    if ledger is None or (ledger.manifest.key.dag_id, ledger.manifest.key.run_id) != (dag_id, run_id):
        return None
    return summarize(ledger)


def load_report(dag_id: str, run_id: str, task_id: str, map_index: int) -> bytes | None:
    """Return the report that a task instance wrote, or None if it wrote none.

    The folder is derived from the task instance alone, so no request and no XCom value can lead out of it.

    :param map_index: -1 if the task is not mapped.
    :raises BatchError: if staging cannot be read.
    """
    name = _pull_xcom(REPORT_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(name, str) or not is_report(name):
        return None
    return report_folder(dag_id, run_id, task_id, map_index).read(name)


def _pull_xcom(key: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    with create_session() as session:
        statement = XComModel.get_many(
            run_id=run_id, key=key, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1
        )
        xcom = session.scalars(statement).first()
        return XComModel.deserialize_value(xcom) if xcom is not None else None
