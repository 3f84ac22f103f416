"""Run one job with the three operators, as a process of its own.

    python -m tests.foreign.job FOLDER

The folder has `job.json`, a `Job`. The process writes `result.json`, a `Result`, into it. A second process for the same
folder continues the job, as a retry of its tasks would.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

#: the warehouse's table of answers
TABLE = "answers"


class Job(msgspec.Struct):
    """What one job sends."""

    name: str
    model: str
    shard_requests: int
    #: seconds until the sensor stops waiting
    deadline: int


class Result(msgspec.Struct):
    """How the DAG run ended."""

    state: str
    #: error of each failed task, by task_id
    errors: dict[str, str]
    #: return value of the results task
    summary: dict[str, Any] | None


def run(job: Job) -> Result:
    """Run submit -> wait -> land with `dag.test()`."""
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
    from airflow_provider_batch.sensors.batch import BatchSensor
    from tests.airflow.in_process_api import await_in_process_api_server
    from tests.airflow.jobs import run_dag

    await_in_process_api_server()
    with DAG(job.name, schedule=None) as dag:
        submit = BatchSubmitOperator(
            task_id="submit",
            warehouse_conn_id="warehouse",
            sql="SELECT id, title, body FROM tickets ORDER BY id",
            custom_id="{{ row.id }}",
            model=job.model,
            prompt="{{ row.id }} {{ row.title }}: {{ row.body }}",
            limits={"requests": job.shard_requests},
        )
        wait = BatchSensor(task_id="wait", job=submit.output, deadline=timedelta(seconds=job.deadline))
        land = BatchResultsOperator(task_id="land", job=submit.output, table=TABLE, max_failure_rate=1.0)
        submit >> wait >> land
    # Runs with the same logical date are the same DAG run.
    result = run_dag(dag, logical_date=datetime(2026, 1, 1, tzinfo=UTC))
    errors = {task_id: f"{type(error).__name__}: {error}" for task_id, error in result.errors.items()}
    return Result(result.state, errors, result.return_values.get("land"))


def main() -> None:
    """Run the job of the folder on the command line."""
    folder = Path(sys.argv[1])
    job = msgspec.json.decode((folder / "job.json").read_bytes(), type=Job)
    (folder / "result.json").write_bytes(msgspec.json.encode(run(job), enc_hook=str))


if __name__ == "__main__":
    main()
