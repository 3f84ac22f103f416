"""Label tickets with two models in one job: a cheap model for short texts, and a better one for long texts.

Every tenth ticket is sent to both models. For each model, the last task adds a row to the table `label_summary`: the
cost, the accuracy against the gold labels, and how often the two models agree. It also returns these rows.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG, AssetAlias, Param
from pydantic import BaseModel

from airflow_provider_batch.task_groups import batch_job


class Label(BaseModel):
    """The answer of a model for one ticket."""

    category: Literal["billing", "login", "bug", "shipping", "feature_request", "cancellation", "other"]
    urgency: Literal["low", "normal", "high"]


with DAG(
    "classify_at_scale",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "small": Param("gpt-5-nano", type="string", minLength=1, description="Model for short texts"),
        "large": Param("gpt-5-mini", type="string", minLength=1, description="Model for long texts"),
        "long_text": Param(250, type="integer", minimum=0, description="Texts with more characters count as long"),
        "check_every": Param(10, type="integer", minimum=1, description="Send every n-th ticket to both models"),
        "table": Param(
            "ticket_categories", pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}$", description="Table for the answers"
        ),
    },
    tags=["batch", "example"],
) as dag:
    landing = batch_job(
        sql="sql/classify.sql",
        custom_id="{{ row.ticket }}/{{ row.opinion }}",
        model="{{ params.large if row.size == 'large' else params.small }}",
        system="prompts/tickets.md",
        prompt="{{ row.title }}\n\n{{ row.body }}",
        output_schema=Label,
        columns=["category", "urgency"],
        carry=["ticket", "opinion", "size", "gold_category"],
        table="{{ params.table }}",
        # The event is that of the asset with the name of the table, whatever the form says.
        outlets=AssetAlias("labelled tickets"),
        max_cost_usd=25,
        deadline=timedelta(hours=30),
    )
    summary = SQLExecuteQueryOperator(
        task_id="summary", conn_id="warehouse", sql="sql/label_summary.sql", split_statements=True
    )
    landing >> summary
