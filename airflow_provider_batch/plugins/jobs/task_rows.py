"""Reads the task instances of all jobs from Airflow's metadata database."""

from __future__ import annotations

import msgspec
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from airflow.utils.session import create_session
from sqlalchemy import Text, and_, cast, select
from sqlalchemy.orm import aliased

from airflow_provider_batch.links.batch import LEDGER_KEY

#: maximum number of task instances that are read; a job has three
MAX_TASKS = 100_000


class TaskRow(msgspec.Struct, frozen=True, gc=False):
    """A task instance that worked on a job."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    #: ISO text; UTC unless it has an offset. Airflow's own type for times would take longer than all the rest.
    start: str | None
    end: str | None
    #: name of the operator's class
    operator: str | None
    #: JSON of the address of the job's folder, and of the value that the task returned. A person may have edited both.
    address: str
    result: str | None


def read_task_rows(limit: int = MAX_TASKS) -> list[TaskRow]:
    """Return the task instances of the jobs of all DAGs, in any order.

    :param limit: maximum number of task instances. If there are more, those of the oldest runs are left out.
    """
    address, result = XComModel, aliased(XComModel)
    statement = (
        select(
            address.dag_id,
            address.run_id,
            address.task_id,
            address.map_index,
            TaskInstance.state,
            cast(TaskInstance.start_date, Text).label("start"),
            cast(TaskInstance.end_date, Text).label("end"),
            TaskInstance.operator,
            cast(address.value, Text).label("address"),
            cast(result.value, Text).label("result"),
        )
        .join(
            TaskInstance,
            and_(
                TaskInstance.dag_id == address.dag_id,
                TaskInstance.task_id == address.task_id,
                TaskInstance.run_id == address.run_id,
                TaskInstance.map_index == address.map_index,
            ),
        )
        .outerjoin(
            result,
            and_(
                result.dag_run_id == address.dag_run_id,
                result.task_id == address.task_id,
                result.map_index == address.map_index,
                result.key == XCOM_RETURN_KEY,
            ),
        )
        .where(address.key == LEDGER_KEY)
    )
    # Sorting the rows themselves, with the values in them, would take longer than reading them.
    runs = select(XComModel.dag_run_id).where(XComModel.key == LEDGER_KEY).order_by(XComModel.dag_run_id.desc())
    with create_session() as session:
        left_out = session.scalar(runs.offset(limit).limit(1))
        if left_out is not None:
            statement = statement.where(address.dag_run_id > left_out)
        # in parts, so that Python's garbage collector does not look at all rows of the database again and again
        rows = session.execute(statement, execution_options={"yield_per": 1000})
        return [TaskRow(*tuple(row)) for row in rows]
