"""Rows of Airflow's own tables, as if DAGs with batch jobs had run: runs, task instances and XComs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import uuid4

BUNDLE = "dags-folder"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Task(NamedTuple):
    """A task instance and the XComs that it pushed."""

    task_id: str
    operator: str = "BatchSubmitOperator"
    state: str | None = "success"
    xcoms: dict[str, Any] = {}  # noqa: RUF012 - never changed
    map_index: int = -1
    start: datetime | None = NOON
    end: datetime | None = NOON


class Run(NamedTuple):
    """A run of a DAG."""

    dag_id: str
    run_id: str
    tasks: list[Task]
    run_after: datetime = NOON


def add_runs(runs: Iterable[Run]) -> None:
    """Insert runs with their DAGs, task instances and XComs. They must be new, but their DAGs may exist."""
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import func, insert, select

    runs = list(runs)
    with create_session() as session:
        if session.get(DagBundleModel, BUNDLE) is None:
            session.add(DagBundleModel(name=BUNDLE))
            session.flush()
        existing_dags = set(session.scalars(select(DagModel.dag_id)))
        new_dags = dict.fromkeys(run.dag_id for run in runs if run.dag_id not in existing_dags)
        limits = {"max_active_tasks": 16, "max_consecutive_failed_dag_runs": 0, "has_task_concurrency_limits": False}
        if new_dags:
            session.execute(
                insert(DagModel), [{"dag_id": dag_id, "bundle_name": BUNDLE, **limits} for dag_id in new_dags]
            )
        first_id = (session.scalar(select(func.max(DagRun.id))) or 0) + 1
        dag_runs, task_instances, xcoms = [], [], []
        for dag_run_id, run in enumerate(runs, first_id):
            key = {"dag_id": run.dag_id, "run_id": run.run_id}
            dag_runs.append({**key, "id": dag_run_id, "run_type": "manual", "run_after": run.run_after})
            for task in run.tasks:
                ti_key = {**key, "task_id": task.task_id, "map_index": task.map_index}
                state = {"state": task.state, "start_date": task.start, "end_date": task.end}
                pool = {
                    "pool": "default_pool",
                    "operator": task.operator,
                    "try_number": 1,
                    "span_status": "not_started",
                }
                task_instances.append({**ti_key, **state, **pool, "id": uuid4()})
                xcoms += [
                    {**ti_key, "dag_run_id": dag_run_id, "key": name, "value": value, "timestamp": task.end or NOON}
                    for name, value in task.xcoms.items()
                ]
        for table, rows in ((DagRun, dag_runs), (TaskInstance, task_instances), (XComModel, xcoms)):
            if rows:
                session.execute(insert(table.__table__), rows)
