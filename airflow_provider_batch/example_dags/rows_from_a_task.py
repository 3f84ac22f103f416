"""Send rows that are in no warehouse: another task returns them. The translations land in the table `translations`."""

from __future__ import annotations

from airflow.sdk import DAG, Asset, task

from airflow_provider_batch.presets import translate
from airflow_provider_batch.task_groups import batch_job


@task
def load() -> list[dict[str, str]]:
    """Return the rows, one dict per request: from an API, from a file, or from anywhere else."""
    return [
        {"id": "greeting", "text": "Welcome back!"},
        {"id": "empty", "text": "Your basket is empty."},
        {"id": "sent", "text": "Your parcel is on its way."},
    ]


with DAG(
    "rows_from_a_task",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    tags=["batch", "example"],
) as dag:
    batch_job(
        rows=load(),
        custom_id="{{ row.id }}",
        table="translations",
        outlets=Asset("translations"),
        max_cost_usd=1,
        **translate("{{ row.text }}", to="German"),
    )
