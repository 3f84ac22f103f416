"""Finds the task instances of one job: submit, an approval, wait and land.

Those that have worked on the job have pushed its address. Those that have not started yet follow from the DAG: they
come after submit, with no other submit task between.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.links.batch import LEDGER_KEY
from airflow_provider_batch.plugins.lookup import decode_xcom


class Role(StrEnum):
    """What a task does for a job, in the order in which the tasks run."""

    SUBMIT = "submit"
    APPROVE = "approve"
    WAIT = "wait"
    LAND = "land"


#: roles by the name of the operator's class
_ROLES = {
    "BatchSubmitOperator": Role.SUBMIT,
    "JobApprovalOperator": Role.APPROVE,
    "BatchSensor": Role.WAIT,
    "BatchResultsOperator": Role.LAND,
}

_WORDS = {
    None: "not started",
    "deferred": "waiting",
    "success": "succeeded",
    "upstream_failed": "not started, because a task before it failed",
    "up_for_retry": "failed, and is tried again",
    "up_for_reschedule": "waiting",
    "removed": "removed from the DAG",
}


class JobTask(msgspec.Struct, frozen=True):
    """A task instance of a job."""

    role: Role
    task_id: str
    map_index: int
    #: as Airflow calls it; None if the scheduler has not looked at it yet
    state: str | None
    #: the same in words
    state_text: str
    start: datetime | None
    end: datetime | None
    try_number: int


def find_tasks(key: JobKey, address: str) -> list[JobTask]:
    """Return the task instances of a job, in the order in which they run.

    :param key: the submit task of the job.
    :param address: absolute address of the job's folder.
    """
    with create_session() as session:
        statement = select(XComModel.task_id, XComModel.map_index, XComModel.value).where(
            XComModel.dag_id == key.dag_id, XComModel.run_id == key.run_id, XComModel.key == LEDGER_KEY
        )
        addresses = {(row.task_id, row.map_index): decode_xcom(row.value) for row in session.execute(statement)}
        instances = session.execute(
            select(
                TaskInstance.task_id,
                TaskInstance.map_index,
                TaskInstance.state,
                TaskInstance.operator,
                TaskInstance.start_date,
                TaskInstance.end_date,
                TaskInstance.try_number,
            ).where(TaskInstance.dag_id == key.dag_id, TaskInstance.run_id == key.run_id)
        ).all()
        dag = SerializedDagModel.get_dag(key.dag_id, session=session)
    later = dict(_later_tasks(dag, key.task_id)) if dag is not None else {}
    tasks = []
    for row in instances:
        position = (row.task_id, row.map_index)
        role = Role.SUBMIT if position == (key.task_id, key.map_index) else later.get(row.task_id)
        if addresses.get(position) == address:
            role = role or _ROLES.get(row.operator)
        elif position in addresses or row.map_index not in (-1, key.map_index):
            continue  # it works on another job
        if role is not None:
            tasks.append(_job_task(role, row))
    order = {role: number for number, role in enumerate(Role)}
    return sorted(tasks, key=lambda task: (order[task.role], task.task_id))


def _later_tasks(dag: Any, task_id: str) -> Iterator[tuple[str, Role]]:
    """Yield the tasks that wait for a job, approve or land it, and come after its submit task before the next one."""
    visited, names = {task_id}, [task_id]
    while names:
        name = names.pop()
        if not dag.has_task(name):
            continue
        task = dag.get_task(name)
        role = _ROLES.get(task.task_type)
        if name != task_id:
            if role is Role.SUBMIT:
                continue
            if role is not None:
                yield name, role
        new_names = set(task.downstream_task_ids) - visited
        visited |= new_names
        names += sorted(new_names)


def _job_task(role: Role, row: Any) -> JobTask:
    state = str(row.state) if row.state is not None else None
    text = _WORDS.get(state, state or "")
    return JobTask(role, row.task_id, row.map_index, state, text, row.start_date, row.end_date, row.try_number)
