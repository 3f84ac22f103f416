"""Send a mail when a job has landed, when a budget withheld rows of it, or when it failed.

The mail goes through the connection `smtp_default`. Without that connection the job runs, but no mail is sent.
"""

from __future__ import annotations

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Asset, Param

from airflow_provider_batch.presets import summarize
from airflow_provider_batch.task_groups import batch_job

with DAG(
    "mail_when_done",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={"to": Param("team@example.com", type="string", format="email", description="Who gets the mail")},
    tags=["batch", "example"],
) as dag:
    batch_job(
        sql="SELECT id, title, body FROM documents ORDER BY id",
        custom_id="{{ row.id }}",
        table="document_summaries",
        outlets=Asset("document_summaries"),
        max_cost_usd=1,
        notify=SmtpNotifier(to="{{ params.to }}"),
        **summarize("{{ row.title }}\n\n{{ row.body }}", max_words=30),
    )
