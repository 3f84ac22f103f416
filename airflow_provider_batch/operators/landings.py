"""Landings of a job, checked before anything is paid for.

A results table that does not fit would only be found once the answers are there. The tasks that land a job are in its
DAG, so submit prepares their tables first.
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
    """Prepare the table of every task of this DAG that lands what `submit` returns.

    A mapped landing, or one whose table or key comes from another task, is left for its own run.

    :raises ResultsTableError: naming the task, if its table does not fit; SchemaError if its columns do not.
    """
    for task in submit.dag.tasks if submit.has_dag() else []:  # type: ignore[no-untyped-call]
        if not isinstance(task, BatchResultsOperator) or not _lands(task.job, submit.task_id):
            continue
        arguments = (task.warehouse_conn_id, task.table, task.key)
        if _comes_from_a_task(arguments):
            continue
        conn_id, table, key = submit.render_template(arguments, context)
        try:
            task.prepared_sink(manifest, conn_id, table, key)
        except (ResultsTableError, SchemaError) as error:
            raise type(error)(
                f"Task {task.task_id!r} could not land this job: {error} Nothing was uploaded."
            ) from error


def _comes_from_a_task(value: Any) -> bool:
    """Whether a value is known only once another task has run; what the form of the run gave is known."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_comes_from_a_task, value))
    return is_runtime_value(value) and not isinstance(value, DagParam)


def _lands(job: Any, task_id: str) -> bool:
    return is_runtime_value(job) and any(operator.task_id == task_id for operator, _ in job.iter_references())
