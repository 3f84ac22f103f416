"""The DAGs of `test_standalone.py`: a job from warehouse to warehouse, a mapped one, and a task that wants a slot."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor

ASK: dict[str, Any] = {
    "warehouse_conn_id": "warehouse",
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.title }}",
    # these tests are about waiting for a batch with all rows in it
    "canary": 0,
}


def job(dag_id: str, table: str, *, poke_interval: float | None = None, **submitted: Any) -> DAG:
    """submit -> wait -> land."""
    with DAG(dag_id, schedule=None) as dag:
        submit = BatchSubmitOperator(task_id="submit", sql="SELECT id, title FROM tickets", **ASK, **submitted)
        wait = BatchSensor(task_id="wait", job=submit.output, poke_interval=poke_interval)
        land = BatchResultsOperator(task_id="land", job=submit.output, table=table)
        submit >> wait >> land
    return dag


tickets = job("tickets", "ticket_answers")
#: its wait is resumed more than once: never before the scheduler has heard of the end of the worker that deferred it
again = job("again", "again_answers", poke_interval=6)
#: two input files, and a second attempt
halves_again = job(
    "halves", "halves_answers", limits={"requests": 6}, retries=1, retry_delay=timedelta(seconds=1), poke_interval=6
)
#: a DAG that a test may delete
doomed = job("doomed", "doomed_answers")

with DAG("mapped", schedule=None) as mapped:
    halves = BatchSubmitOperator.partial(
        task_id="submit", sql="SELECT id, title FROM tickets WHERE id % 2 = :half", **ASK
    ).expand(parameters=[{"half": 0}, {"half": 1}])
    BatchSensor.partial(task_id="wait").expand(job=halves.output)

with DAG("other", schedule=None) as other:

    @task
    def work() -> str:
        """Needs a worker's slot for a moment."""
        return "done"

    work()
