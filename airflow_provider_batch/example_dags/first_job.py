"""The shortest job: choose one of four labels for each ticket. The labels land in the table `ticket_topics`."""

from __future__ import annotations

from airflow.sdk import DAG, Asset

from airflow_provider_batch.presets import classify
from airflow_provider_batch.task_groups import batch_job

with DAG(
    "first_job",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    tags=["batch", "example"],
) as dag:
    batch_job(
        sql="SELECT id, title, body FROM tickets ORDER BY id",
        max_rows=20,
        custom_id="{{ row.id }}",
        table="ticket_topics",
        # Other DAGs can be scheduled on it, and the page Assets shows what each run landed.
        outlets=Asset("ticket_topics"),
        max_cost_usd=1,
        **classify("{{ row.title }}\n\n{{ row.body }}", labels=["billing", "login", "shipping", "other"]),
    )
