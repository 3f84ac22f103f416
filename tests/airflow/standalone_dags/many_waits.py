"""The DAG of `test_many_waits.py`: many mapped jobs of three batches each, each with its own wait."""

from __future__ import annotations

import os

from airflow.sdk import DAG

from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor

with DAG("many_waits", schedule=None) as many_waits:
    submit = BatchSubmitOperator.partial(
        task_id="submit",
        warehouse_conn_id="warehouse",
        sql="SELECT id, title FROM tickets WHERE job = :job",
        custom_id="{{ row.id }}",
        model="gpt-5-mini",
        prompt="{{ row.title }}",
        limits={"requests": 2},
        # The test needs every row in a batch.
        canary=0,
    ).expand(parameters=[{"job": job} for job in range(int(os.environ.get("BATCH_TEST_WAITS", "20")))])
    wait = BatchSensor.partial(task_id="wait").expand(job=submit.output)
    land = BatchResultsOperator.partial(task_id="land", table="many_answers").expand(job=submit.output)
    wait >> land
