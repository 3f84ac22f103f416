"""One job that deaths interrupt, the same job with staging on a local disk, and many jobs that share a pool."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_batch.task_groups import batch_job
from tests.cluster.strikes import note_start

#: number of mapped jobs
JOBS = int(os.environ["CLUSTER_JOBS"])
FROM_TICKETS: dict[str, Any] = {
    "custom_id": "{{ row.id }}",
    "model": "gpt-5-mini",
    "prompt": "{{ row.body }}",
    "carry": ["body"],
    "max_cost_usd": 10,
}

settings: dict[str, Any] = {
    "schedule": None,
    "default_args": {
        "retries": 8,
        "retry_delay": timedelta(seconds=1),
        "max_retry_delay": timedelta(seconds=5),
        "on_execute_callback": note_start,
    },
}

with DAG("one_job", params={"table": "answers", "strike": None}, **settings):
    batch_job.override(group_id="job")(
        sql="SELECT id, body FROM tickets ORDER BY id",
        table="{{ params.table }}",
        limits={"requests": 10},
        **FROM_TICKETS,
    )

with DAG("local_staging", **settings):
    batch_job.override(group_id="job", default_args={"retries": 0})(
        sql="SELECT id, body FROM tickets ORDER BY id",
        table="answers_local",
        staging="file:///var/tmp/batch_staging",
        **FROM_TICKETS,
    )

with DAG("fan_out", max_active_tasks=JOBS, **settings):
    batch_job.override(group_id="job", default_args={"pool": "batch"}).partial(
        sql="SELECT id, body FROM tickets_of_jobs WHERE job = %(job)s ORDER BY id",
        table="answers_of_jobs",
        **FROM_TICKETS,
    ).expand(parameters=[{"job": number} for number in range(JOBS)])
