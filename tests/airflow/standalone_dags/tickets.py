"""The DAGs of `test_standalone.py`: jobs from warehouse to warehouse, mapped jobs, and a task that needs a slot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor

JOB_ARGUMENTS: dict[str, Any] = {
    "warehouse_conn_id": "warehouse",
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.title }}",
    # These tests need every row in a batch.
    "canary": 0,
}


def job(dag_id: str, table: str, *, poke_interval: float | None = None, **submit_arguments: Any) -> DAG:
    """Return the DAG submit -> wait -> land."""
    with DAG(dag_id, schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit", sql="SELECT id, title FROM tickets", **JOB_ARGUMENTS, **submit_arguments
        )
        wait = BatchSensor(task_id="wait", job=submit.output, poke_interval=poke_interval)
        land = BatchResultsOperator(task_id="land", job=submit.output, table=table)
        submit >> wait >> land
    return dag


tickets = job("tickets", "ticket_answers")
#: Its wait is resumed more than once. With this interval, the scheduler always processes the end of the worker that
#: deferred the wait before the wait is resumed.
rerun = job("rerun", "rerun_answers", poke_interval=6)
#: Two input files, and one retry of submit.
two_shards = job(
    "two_shards",
    "two_shards_answers",
    limits={"requests": 6},
    retries=1,
    retry_delay=timedelta(seconds=1),
    poke_interval=6,
)
#: A DAG that a test deletes.
to_be_deleted = job("to_be_deleted", "to_be_deleted_answers")

with DAG("mapped", schedule=None) as mapped_jobs:
    submit_halves = BatchSubmitOperator.partial(
        task_id="submit", sql="SELECT id, title FROM tickets WHERE id % 2 = :half", **JOB_ARGUMENTS
    ).expand(parameters=[{"half": 0}, {"half": 1}])
    BatchSensor.partial(task_id="wait").expand(job=submit_halves.output)

with DAG("other", schedule=None) as other_dag:

    @task
    def work() -> str:
        """Occupy a worker slot briefly."""
        return "done"

    work()
