"""Checks the tasks that wait for a job or land it, before anything is paid for.

Without this check, a results table that does not fit would only fail the landing, after the answers were paid for. The
landing tasks are in the same DAG as submit, so submit can prepare their tables first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.param import DagParam
from jinja2 import TemplateError

from airflow_provider_batch.core.arguments import is_runtime_value, none_if_blank, parse_deadline, parse_mapping
from airflow_provider_batch.core.landing.known_values import known_value_problem
from airflow_provider_batch.core.landing.storage_limits import StorageLimits
from airflow_provider_batch.core.ledger.folder import Folder
from airflow_provider_batch.core.ledger.job import Manifest
from airflow_provider_batch.exceptions import InputError, ResultsTableError
from airflow_provider_batch.operators.results import BatchResultsOperator
from airflow_provider_batch.sensors.batch import COLLECT, BatchSensor

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

#: names of templates that mean something else in each task
_TASK_NAMES = re.compile(r"\b(ti|task|task_instance|task_instance_key_str|inlets|outlets)\b")


def check_landings(submit: BaseOperator, context: Any, folder: Folder, manifest: Manifest) -> list[int]:
    """Prepare the results table of every task in the DAG that lands the job of `submit`.

    Returns the numbers of elements of a vector that the tables take as the output.

    Mapped tasks are skipped, and so are tasks whose connection, table or key comes from another task. They check their
    table when they run.

    :raises ResultsTableError: if a table does not fit the job. The message names the task.
    :raises InputError: if an argument of a task is wrong, or the job cannot fill its columns. The message names it.
    """
    dimensions = set()
    for task in _landings(submit):
        arguments = (task.warehouse_conn_id, task.table, task.key, task.results_file)
        if _comes_from_a_task(arguments):
            continue
        conn_id, table, key, file = submit.render_template(arguments, context)
        try:
            sink = task.prepare_sink(manifest, conn_id, table, key, file)
            limits: StorageLimits = getattr(sink, "limits", None) or StorageLimits()
            problem = known_value_problem(folder, manifest, limits, parse_mapping("key", key))
            if problem:
                raise ResultsTableError(_problem_with(problem, conn_id, table, file))
            if "output" in limits.columns and limits.columns["output"].elements is not None:
                dimensions.add(limits.columns["output"].elements)
        except (ResultsTableError, InputError) as error:
            raise type(error)(f"Task {task.task_id!r} cannot land this job: {error} Nothing was uploaded.") from error
    return sorted(dimensions)


def landing_tables(submit: BaseOperator, context: Any) -> list[str]:
    """Return the tables and files in which the job of `submit` lands, except those that only another task knows."""
    targets = [target for task in _landings(submit) for target in (task.table, task.results_file)]
    return [
        str(submit.render_template(target, context)) for target in targets if target and not _comes_from_a_task(target)
    ]


def results_connection(submit: BaseOperator, context: Any) -> str | None:
    """Return the connection of the results tables of the job of `submit`.

    Returns None if there are no such tables, if they have several connections, or if only another task knows it.
    """
    conn_ids = {task.warehouse_conn_id for task in _landings(submit) if task.table}
    if len(conn_ids) != 1:
        return None
    conn_id = conn_ids.pop()
    return None if _comes_from_a_task(conn_id) else none_if_blank(submit.render_template(conn_id, context))


def _problem_with(problem: str, conn_id: str, table: str | None, file: Any) -> str:
    """Return what cannot be landed, and what to do. `problem` continues the sentence "The results table ..."."""
    if table is None:
        return (
            f"The results file {file} {problem} Convert the column in the SQL or in rows, or let the file's name end "
            "in .jsonl."
        )
    also = "" if file is None else f", or the results file {file},"
    return (
        f"The results table {table!r} (connection {conn_id!r}){also} {problem} Change the type of the column, or land "
        "in another table."
    )


def check_waits(submit: BaseOperator, context: Any, now: datetime | None = None) -> None:
    """Check the deadline of every task in the DAG that waits for the job of `submit`, once it is rendered.

    Mapped tasks are skipped, and so is a deadline that comes from another task, or from the waiting task itself.

    :param now: refuse deadlines before this time, unless the rows are then sent in another way. The wait would cancel
        the job before it is answered.
    :raises InputError: if a deadline is wrong. The message names the task.
    """
    for task in submit.dag.tasks if submit.has_dag() else []:  # type: ignore[no-untyped-call]
        if not isinstance(task, BatchSensor) or not _uses(task.job, submit.task_id):
            continue
        depends_on_the_task = isinstance(task.deadline, str) and _TASK_NAMES.search(task.deadline) is not None
        if depends_on_the_task or _comes_from_a_task(task.deadline):
            continue
        try:
            deadline = parse_deadline("deadline", submit.render_template(task.deadline, context))
            ends_job = task.at_deadline == COLLECT
            if ends_job and now is not None and isinstance(deadline, datetime) and deadline <= now:
                raise InputError(
                    f"deadline: {deadline.isoformat(' ', 'minutes')} has passed, so the wait would cancel the job "
                    "before it is answered. Give a later time, or a duration such as '30h'."
                )
        except (InputError, TemplateError) as error:
            raise InputError(f"Task {task.task_id!r} cannot wait for this job: {error} Nothing was sent.") from error


def _landings(submit: BaseOperator) -> Iterator[BatchResultsOperator]:
    """Yield the tasks of the DAG that land the job of `submit`, without mapped ones."""
    for task in submit.dag.tasks if submit.has_dag() else []:  # type: ignore[no-untyped-call]
        if isinstance(task, BatchResultsOperator) and _uses(task.job, submit.task_id):
            yield task


def _comes_from_a_task(value: Any) -> bool:
    """Return True if the value depends on another task. Values from the run's form are already known."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (list, tuple)):
        return any(map(_comes_from_a_task, value))
    return is_runtime_value(value) and not isinstance(value, DagParam)


def _uses(job: Any, task_id: str) -> bool:
    return is_runtime_value(job) and any(operator.task_id == task_id for operator, _ in job.iter_references())
