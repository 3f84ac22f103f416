"""Checks the results tables of a job before anything is paid for.

Without this check, a results table that does not fit would only fail the landing, after the answers were paid for. The
landing tasks are in the same DAG as submit, so submit can prepare their tables first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.sdk.definitions.param import DagParam

from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.core.requests.arguments import is_runtime_value
from airflow_provider_batch.exceptions import ResultsTableError, SchemaError
from airflow_provider_batch.operators.results import BatchResultsOperator


def check_landings(submit: BaseOperator, context: Any, manifest: Manifest) -> None:
    """Prepare the results table of every task in the DAG that lands the job of `submit`.

    Mapped tasks are skipped, and so are tasks whose connection, table or key comes from another task. They check their
    table when they run.

    :raises ResultsTableError: if a table does not fit the job. The message names the task.
    :raises SchemaError: if the job cannot fill the columns of a task. The message names the task.
    """
    for task in submit.dag.tasks if submit.has_dag() else []:  # type: ignore[no-untyped-call]
        if not isinstance(task, BatchResultsOperator) or not _lands(task.job, submit.task_id):
            continue
        arguments = (task.warehouse_conn_id, task.table, task.key)
        if _comes_from_a_task(arguments):
            continue
        conn_id, table, key = submit.render_template(arguments, context)
        try:
            task.prepare_sink(manifest, conn_id, table, key)
        except (ResultsTableError, SchemaError) as error:
            raise type(error)(f"Task {task.task_id!r} cannot land this job: {error} Nothing was uploaded.") from error


def _comes_from_a_task(value: Any) -> bool:
    """Return True if the value depends on another task. Values from the run's form are already known."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_comes_from_a_task, value))
    return is_runtime_value(value) and not isinstance(value, DagParam)


def _lands(job: Any, task_id: str) -> bool:
    return is_runtime_value(job) and any(operator.task_id == task_id for operator, _ in job.iter_references())
