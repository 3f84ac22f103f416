"""Label support tickets with one request per ticket. Each answer lands beside the gold labels of its ticket."""

from __future__ import annotations

from typing import Literal

from airflow.sdk import DAG, Asset, Param
from pydantic import BaseModel

from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor


class Ticket(BaseModel):
    """The answer of the model for one ticket."""

    reason: str
    category: Literal["billing", "login", "bug", "shipping", "feature_request", "cancellation", "other"]
    urgency: Literal["low", "normal", "high"]


with DAG(
    "label_tickets",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "day": Param("all", pattern=r"^(all|\d{4}-\d{2}-\d{2})$", description="A day such as 2026-11-02, or all"),
        "model": Param("gpt-5-mini", type="string", minLength=1),
        "limit": Param(1000, type="integer", minimum=0, description="Maximum number of tickets"),
    },
    tags=["batch", "example"],
) as dag:
    submit = BatchSubmitOperator(
        task_id="submit",
        warehouse_conn_id="warehouse",
        sql="sql/tickets.sql",
        custom_id="{{ row.id }}",
        model=dag.param("model"),
        system="prompts/tickets.md",
        prompt="{{ row.title }}\n\n{{ row.body }}",
        output_schema=Ticket,
        carry=["gold_category", "gold_urgency"],
        max_cost_usd=5,
    )
    wait = BatchSensor(task_id="wait", job=submit.output)
    land = BatchResultsOperator(
        task_id="land",
        job=submit.output,
        warehouse_conn_id="warehouse",
        table="ticket_labels",
        outlets=[Asset("ticket_labels")],
        columns=["category", "urgency", "reason"],
    )
    submit >> wait >> land
