"""A job whose tasks are cleared: one run of a DAG, whose arguments may change in between as authors change files."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.airflow.jobs import DagRunResult, ErrorListener, run_dag, save_dag, submit_arguments


class ClearedJob:
    """submit -> wait -> land, run with `dag.test()`, then cleared and run again in the same run."""

    def __init__(self, conf: dict[str, Any] | None = None) -> None:
        self.dag_id = f"job_{uuid4().hex[:8]}"
        self._conf = conf

    def dag(self, *, wait: dict[str, Any] | None = None, land: dict[str, Any] | None = None, **submit: Any) -> Any:
        """The DAG with these arguments; `...` leaves a default argument out."""
        from datetime import timedelta

        from airflow.sdk import DAG

        from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
        from airflow_provider_batch.sensors.batch import BatchSensor

        with DAG(self.dag_id, schedule=None) as dag:
            asked = BatchSubmitOperator(**submit_arguments(**submit))
            waiting: dict[str, Any] = {"row_retry_delay": timedelta(0), "poke_interval": 0.1} | (wait or {})
            waited = BatchSensor(task_id="wait", job=asked.output, **waiting)
            landing: dict[str, Any] = {"table": "answers", "max_failure_rate": 1.0} | (land or {})
            landed = BatchResultsOperator(task_id="land", job=asked.output, **landing)
            asked >> waited >> landed
        return dag

    def run(self, **arguments: Any) -> DagRunResult:
        """The first run."""
        return run_dag(self.dag(**arguments), self._conf)

    def clear(self, *task_ids: str, **arguments: Any) -> DagRunResult:
        """Clear tasks of the run (all, unless named), as Airflow does, and run them as `dag.test()` does."""
        return self._again(task_ids, arguments, retry=False)

    def retry(self, *task_ids: str, **arguments: Any) -> DagRunResult:
        """Run tasks again as Airflow retries them: another attempt, of the same life."""
        return self._again(task_ids, arguments, retry=True)

    def _again(self, task_ids: tuple[str, ...], arguments: dict[str, Any], *, retry: bool) -> DagRunResult:
        from airflow.models.dagrun import DagRun
        from airflow.models.taskinstance import clear_task_instances
        from airflow.providers.common.compat.sdk import get_listener_manager
        from airflow.sdk.definitions.dag import _run_task
        from airflow.serialization.serialized_objects import DagSerialization
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState, TaskInstanceState
        from sqlalchemy import select

        dag = self.dag(**arguments)
        save_dag(dag)
        listener = ErrorListener()
        get_listener_manager().add_listener(listener)  # type: ignore[no-untyped-call]  # Airflow has no types here
        try:
            with create_session() as session:
                run = session.scalars(select(DagRun).where(DagRun.dag_id == self.dag_id)).one()
                run.dag = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag))
                tis = [ti for ti in run.get_task_instances(session=session) if not task_ids or ti.task_id in task_ids]
                started_epochs = [ti.max_tries for ti in tis]
                clear_task_instances(tis, session, dag_run_state=DagRunState.RUNNING)
                if retry:
                    for ti, clear_epoch in zip(tis, started_epochs, strict=True):
                        ti.max_tries = clear_epoch
                session.commit()
                while run.state == DagRunState.RUNNING:
                    session.expire_all()
                    ready, _ = run.update_state(session=session)
                    for ti in ready:
                        ti.try_number += 1
                        ti.state = TaskInstanceState.SCHEDULED
                    session.commit()
                    for ti in ready:
                        _run_task(ti=ti, task=dag.task_dict[ti.task_id], run_triggerer=True)
                session.expire_all()
                tis = run.get_task_instances(session=session)
                return_values = {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in tis}
                return DagRunResult(
                    str(run.state), {ti.task_id: str(ti.state) for ti in tis}, listener.errors, return_values
                )
        finally:
            get_listener_manager().pm.unregister(listener)

    def run_id(self) -> str:
        """The run's id."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return str(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == self.dag_id)).one())
