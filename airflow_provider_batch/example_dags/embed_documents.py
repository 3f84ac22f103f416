"""Keep the vectors of documents up to date: embed new and changed documents, and delete vectors of removed ones.

Each row of `sql/documents.sql` is one text. A text keeps its vector as long as its request has the same hash. So a new
model or a different number of dimensions embeds everything again. The DAG also embeds questions with known answers. Its
last task fails if too few of them have the right document among the three nearest.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import DAG, Asset, Param

from airflow_provider_batch.task_groups import batch_job

with DAG(
    "embed_documents",
    schedule=None,
    doc_md=__doc__,
    # A retry is safe: it continues the job, and sends nothing that was sent before.
    default_args={"retries": 3},
    params={
        "model": Param("text-embedding-3-small", type="string", minLength=1),
        "dimensions": Param(256, type="integer", minimum=1, description="Number of dimensions of each vector"),
    },
    max_active_runs=1,
    tags=["batch", "example"],
) as dag:
    landing = batch_job(
        sql="sql/documents.sql",
        custom_id="{{ row.id }}",
        endpoint="/v1/embeddings",
        model=dag.param("model"),
        prompt="{{ row.text }}",
        body={"dimensions": "{{ params.dimensions }}"},
        carry=["kind", "answer"],
        table="document_vectors",
        outlets=Asset("document_vectors"),
        reuse_from="document_vectors",
        keep_last_success=True,
        on_empty="fail",
        max_cost_usd=5,
        deadline=timedelta(hours=12),
    )
    # A check that fails would fail again, so it is not retried.
    # If somebody deleted more than half of the documents on purpose, mark this task as success.
    half_remains = SQLCheckOperator(
        task_id="half_remains", conn_id="warehouse", sql="sql/document_vectors_half.sql", retry_on_failure=False
    )
    prune = SQLExecuteQueryOperator(task_id="prune", conn_id="warehouse", sql="sql/document_vectors_prune.sql")
    check = SQLCheckOperator(
        task_id="check", conn_id="warehouse", sql="sql/document_vectors_check.sql", retry_on_failure=False
    )
    landing >> half_remains >> prune >> check
