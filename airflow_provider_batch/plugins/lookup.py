"""Finding the job of a task instance, or the report that it wrote, on the API server."""

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
    """What is recorded of the job of a task instance, None when there is no record.

    The ledger is found by the address that the task left in XCom, and shown only if it is of a job of this very run: so
    nobody who may see one DAG is shown a job of another.

    `map_index` is -1 for a task that is not mapped. Raises BatchError when there is a record that cannot be read.
    """
    address = _left(LEDGER_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(address, str):
        return None
    ledger = open_ledger(open_folder(address))
    if ledger is None or (ledger.manifest.key.dag_id, ledger.manifest.key.run_id) != (dag_id, run_id):
        return None
    return summarize(ledger)


def load_report(dag_id: str, run_id: str, task_id: str, map_index: int) -> bytes | None:
    """The report that a task instance wrote, None when there is none.

    Its folder follows from the task instance alone, so nothing that a request or XCom says leads out of it.

    Raises BatchError if staging cannot be read.
    """
    name = _left(REPORT_KEY, dag_id, run_id, task_id, map_index)
    if not isinstance(name, str) or not is_report(name):
        return None
    return report_folder(dag_id, run_id, task_id, map_index).read(name)


def _left(key: str, dag_id: str, run_id: str, task_id: str, map_index: int) -> Any:
    """What a task instance left in XCom under a key."""
    with create_session() as session:
        statement = XComModel.get_many(
            run_id=run_id, key=key, task_ids=task_id, dag_ids=dag_id, map_indexes=map_index, limit=1
        )
        found = session.scalars(statement).first()
        return XComModel.deserialize_value(found) if found is not None else None
