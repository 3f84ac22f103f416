"""Finds the job of a task instance, or the report that it wrote, in the API server.

The tasks of a job push the address of its folder to XCom. A person may have edited that value, so it is never opened.
It is only compared: the address of a job follows from the key of its submit task and from a staging root, and the page
reads only below the roots that the configuration names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.ledger.ledger import Ledger
from airflow_provider_batch.evals.page import is_report, report_folder
from airflow_provider_batch.links.batch import LEDGER_KEY, REPORT_KEY
from airflow_provider_batch.plugins.ledgers import LEDGERS
from airflow_provider_batch.staging.layout import job_folder, page_roots


def find_job(key: JobKey) -> Ledger | None:
    """Return the ledger of the job to which a task instance belongs.

    None if it has no job, if its job is not sealed yet, or if it is not below a staging root from which the page may
    read.

    :param key: the submit task of the job, or another task of it.
    :return: a ledger that other requests read too. To add records, open the ledger of its folder.
    :raises BatchError: if staging cannot be read.
    """
    folder = _find_folder(key)
    ledger = None if folder is None else LEDGERS.open(folder)
    if ledger is None or (ledger.manifest.key.dag_id, ledger.manifest.key.run_id) != (key.dag_id, key.run_id):
        return None
    return ledger


def _find_folder(key: JobKey) -> Folder | None:
    addresses = _addresses(key.dag_id, key.run_id)
    address = addresses.get(key)
    if address is None:
        return None
    tasks_of_job = [key, *(task for task, other in addresses.items() if other == address and task != key)]
    return _folder_at(address, tasks_of_job)


def _folder_at(address: str, keys: Iterable[JobKey]) -> Folder | None:
    """Return the folder with this address if it is the one of a job with one of these keys."""
    roots = page_roots()
    for key in keys:
        for root in roots:
            folder = job_folder(root, key)
            if folder.uri == address:
                return folder
    return None


def load_report(key: JobKey) -> bytes | None:
    """Return the report that a task instance wrote, or None if it wrote none.

    The folder is derived from the task instance alone, so no request and no XCom value can lead out of it.

    :raises BatchError: if staging cannot be read.
    """
    columns = XComModel.map_index == key.map_index, XComModel.task_id == key.task_id
    with create_session() as session:
        value = session.scalar(
            select(XComModel.value).where(
                XComModel.dag_id == key.dag_id, XComModel.run_id == key.run_id, XComModel.key == REPORT_KEY, *columns
            )
        )
    name = decode_xcom(value)
    if not isinstance(name, str) or not is_report(name):
        return None
    return report_folder(key.dag_id, key.run_id, key.task_id, key.map_index).read(name)


def _addresses(dag_id: str, run_id: str) -> dict[JobKey, str]:
    """Return the address of the job's folder that each task instance of a run pushed, by task instance."""
    statement = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
        XComModel.dag_id == dag_id, XComModel.run_id == run_id, XComModel.key == LEDGER_KEY
    )
    with create_session() as session:
        rows = session.execute(statement).all()
    addresses = ((JobKey(dag_id, task_id, run_id, map_index), decode_xcom(value)) for task_id, map_index, value in rows)
    return {key: address for key, address in addresses if isinstance(address, str)}


def decode_xcom(value: Any) -> Any:
    """Return an XCom as it was pushed. A task stores the value itself, and Airflow's UI the JSON text of it.

    Airflow's own decoder can also build objects of any allowed class, which the page needs for none of its values.
    """
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            return json.loads(value)
    return value
