"""Embed documents: what is new or has changed is asked, what is as it was keeps its vector, what is gone loses it.

Each row of `sql/documents.sql` is one text. Which of them have a vector is told by the hash of the whole request, so
another model or other dimensions embed everything anew. Questions whose answer is known are embedded too; the check
fails if too few of them have their document among the three nearest.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator
from airflow.sdk import DAG, Param

from airflow_provider_batch.task_groups import batch_job

with DAG(
    "embed_documents",
    schedule=None,
    doc_md=__doc__,
    params={
        "model": Param("text-embedding-3-small", type="string", minLength=1),
        "dimensions": Param(256, type="integer", minimum=1, description="Numbers in each vector"),
    },
    max_active_runs=1,
    tags=["batch", "example"],
) as dag:
    landed = batch_job(
        sql="sql/documents.sql",
        custom_id="{{ row.id }}",
        endpoint="/v1/embeddings",
        model=dag.param("model"),
        prompt="{{ row.text }}",
        body={"dimensions": "{{ params.dimensions }}"},
        carry=["kind", "answer"],
        table="document_vectors",
        reuse_from="document_vectors",
        keep_last_success=True,
        on_empty="fail",
        max_cost_usd=5,
        deadline=timedelta(hours=12),
    )
    # marked as success by whoever did delete more than half of the documents
    half = SQLCheckOperator(task_id="half_is_left", conn_id="warehouse", sql="sql/document_vectors_half.sql")
    prune = SQLExecuteQueryOperator(task_id="prune", conn_id="warehouse", sql="sql/document_vectors_prune.sql")
    check = SQLCheckOperator(task_id="check", conn_id="warehouse", sql="sql/document_vectors_check.sql")
    landed >> half >> prune >> check
