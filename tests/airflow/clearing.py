"""Clear and retry the tasks of one DAG run. The arguments may change in between, as when an author edits the DAG."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from tests.airflow.jobs import DagRunResult, ErrorListener, run_dag, save_dag, submit_arguments


class ClearedJob:
    """A DAG submit -> wait -> land: run it once with `dag.test()`, then clear or retry its tasks in the same run."""

    def __init__(self, conf: dict[str, Any] | None = None) -> None:
        self.dag_id = f"job_{uuid4().hex[:8]}"
        self._conf = conf

    def dag(self, *, wait: dict[str, Any] | None = None, land: dict[str, Any] | None = None, **submit: Any) -> Any:
        """Return the DAG with these arguments; `...` removes a default. See `run_job`."""
        from datetime import timedelta

        from airflow.sdk import DAG

        from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
        from airflow_provider_batch.sensors.batch import BatchSensor

        with DAG(self.dag_id, schedule=None) as dag:
            submit_task = BatchSubmitOperator(**submit_arguments(**submit))
            wait_arguments: dict[str, Any] = {"row_retry_delay": timedelta(0), "poke_interval": 0.1} | (wait or {})
            wait_task = BatchSensor(task_id="wait", job=submit_task.output, **wait_arguments)
            land_arguments: dict[str, Any] = {"table": "answers", "max_failure_rate": 1.0} | (land or {})
            land_task = BatchResultsOperator(task_id="land", job=submit_task.output, **land_arguments)
            submit_task >> wait_task >> land_task
        return dag

    def run(self, **arguments: Any) -> DagRunResult:
        """Run the DAG for the first time."""
        return run_dag(self.dag(**arguments), self._conf)

    def clear(self, *task_ids: str, **arguments: Any) -> DagRunResult:
        """Clear these tasks as Airflow does (without arguments: every task), and run them as `dag.test()` does."""
        return self._rerun(task_ids, arguments, retry=False)

    def retry(self, *task_ids: str, **arguments: Any) -> DagRunResult:
        """Rerun these tasks as Airflow's own retries do: with a higher try_number and the same max_tries."""
        return self._rerun(task_ids, arguments, retry=True)

    def _rerun(self, task_ids: tuple[str, ...], arguments: dict[str, Any], *, retry: bool) -> DagRunResult:
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
                max_tries = [ti.max_tries for ti in tis]
                clear_task_instances(tis, session, dag_run_state=DagRunState.RUNNING)
                if retry:
                    for ti, number in zip(tis, max_tries, strict=True):
                        ti.max_tries = number
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
        """Return the run_id of the run."""
        from airflow.models.dagrun import DagRun
        from airflow.utils.session import create_session
        from sqlalchemy import select

        with create_session() as session:
            return str(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == self.dag_id)).one())
