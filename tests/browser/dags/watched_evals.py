"""Reports of graded runs, whose tables the browser tests write."""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_batch.operators.evals import EvalReportOperator

with DAG("watched_evals", schedule=None, params={"run": Param("", type="string")}):
    EvalReportOperator(task_id="report", run="{{ params.run }}", warehouse_conn_id="eval_warehouse")
