"""`batch_job`: submit, wait and land as one call."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, task_group
from airflow.sdk.definitions.taskgroup import MappedTaskGroup, TaskGroup
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_batch.core.requests.arguments import is_runtime_value
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.operators.batch import BatchResultsOperator, BatchSubmitOperator
from airflow_provider_batch.sensors.batch import BatchSensor

__all__ = ["batch_job"]

#: the tasks, and whose arguments each takes
_TASKS: Mapping[str, type[BaseOperator]] = {
    "submit": BatchSubmitOperator,
    "wait": BatchSensor,
    "land": BatchResultsOperator,
}

#: what tells the rows of one mapped job from those of another, in the table that all of them land in
_TELLS_APART = ("sql", "parameters", "custom_id", "results_conn_id", "table", "key")


class _Landed(PlainXComArg):
    """The account that `land` returns. As a dependency it begins where the job begins.

    Airflow takes what a task group returns for the whole group, so that in `prepare >> batch_job(...)` a plain XComArg
    would let `submit` start before `prepare` has ended.
    """

    @property
    def roots(self) -> list[Any]:
        """The first task of the job: what follows on something else."""
        group = self.operator.task_group
        return [] if group is None else list(group.get_roots())

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        """Let the job begin after these tasks."""
        for root in self.roots:
            root.set_upstream(task_or_task_list, edge_modifier)


@task_group(group_id="batch_job")
def batch_job(**arguments: Any) -> Any:
    """Ask every row of a query through the batch API and land the answers: submit -> wait -> land.

    Takes every argument of `BatchSubmitOperator`, `BatchSensor` and `BatchResultsOperator` of their own, by its name;
    `warehouse_conn_id` is where the rows are read and, unless `results_conn_id` is given, where the answers land.
    Arguments that every Airflow task has go to all three with
    `batch_job.override(group_id="ask", default_args={"retries": 2})(...)`; `outlets` are the landing's.

    Returns the account of the landing (see `BatchResultsOperator`) for later tasks; what it depends on comes before
    submit. `batch_job.partial(...).expand(model=[...])`, or a call within a task group that is expanded, makes one job
    of each value; what can be mapped is what the operators know as template fields.

    :raises InputError: while the DAG is parsed, for an argument that nobody takes, one that cannot be mapped, and
        mapped jobs that would land over each other's rows.
    """
    _refuse_unknown(arguments)
    _refuse_late(arguments)
    given: dict[str, dict[str, Any]] = {
        name: {key: arguments[key] for key in arguments if key in _own(operator)} for name, operator in _TASKS.items()
    }
    if "results_conn_id" in arguments:
        given["land"]["warehouse_conn_id"] = arguments["results_conn_id"]
    if "outlets" in arguments:
        given["land"]["outlets"] = arguments["outlets"]
    submit = BatchSubmitOperator(task_id="submit", **given["submit"])
    wait = BatchSensor(task_id="wait", job=submit.output, **given["wait"])
    land = BatchResultsOperator(task_id="land", job=submit.output, **given["land"])
    _refuse_overwriting(land.task_group, arguments)
    submit >> wait >> land
    return _Landed(operator=land)


def _own(operator: type) -> set[str]:
    """The arguments that an operator has beside those of every task; the job is what joins them."""
    return {name for name, one in inspect.signature(operator).parameters.items() if one.kind is one.KEYWORD_ONLY} - {
        "job"
    }


def _refuse_unknown(arguments: Mapping[str, Any]) -> None:
    known = {"results_conn_id", "outlets"}.union(*(_own(operator) for operator in _TASKS.values()))
    for name in arguments:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        if name in inspect.signature(BaseOperator).parameters:
            hint = "What every Airflow task has is given with batch_job.override(default_args={...})."
        else:
            hint = (
                f"Did you mean {near[0]!r}?"
                if near
                else "Look at BatchSubmitOperator, BatchSensor and BatchResultsOperator."
            )
        raise InputError(f"batch_job has no argument {name!r}. {hint}")


def _refuse_late(arguments: Mapping[str, Any]) -> None:
    """What is no template field would be used as it stands, and it is only known when the task runs."""
    resolved = {"results_conn_id"}.union(*(operator.template_fields for operator in _TASKS.values()))
    for name, value in arguments.items():
        if name not in resolved and name != "outlets" and is_runtime_value(value):
            raise InputError(
                f"batch_job: {name!r} has to be known when the DAG is parsed, so it cannot be mapped or come from "
                "another task."
            )


def _refuse_overwriting(group: TaskGroup | None, arguments: Mapping[str, Any]) -> None:
    """Of mapped jobs that ask the same custom_ids, in one table only the last answers would stay."""
    while group is not None and not isinstance(group, MappedTaskGroup):
        group = group.parent_group
    if group is None or arguments.get("history") or arguments.get("table") is None:
        return
    if not any(
        is_runtime_value(arguments.get(name)) or "map_index" in str(arguments.get(name)) for name in _TELLS_APART
    ):
        raise InputError(
            "batch_job is mapped, and every one of its jobs would land the same custom_ids in one table, each over the "
            "rows of the one before. Tell them apart: with key={'variant': ...} of what is mapped, or "
            "key={'variant': '{{ ti.map_index }}'}, or a table of their own."
        )
