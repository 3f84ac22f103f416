"""Checks of the argument `job`, which needs Airflow's own objects."""

from __future__ import annotations

import ast
import re
from contextlib import suppress
from typing import Any

import msgspec
from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator
from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg

from airflow_provider_batch.core.arguments import argument_error, check_syntax, is_final
from airflow_provider_batch.core.ledger.job import Reference
from airflow_provider_batch.exceptions import InputError

#: what `job` expects, for errors
_JOB = "the output of BatchSubmitOperator, such as job=submit.output"


def parse_job(name: str, job: Any) -> Any:
    """Return the argument `job` of an operator. A submit task stands for its output.

    :raises InputError: if the value cannot become the reference to a job.
    """
    if _submits(job):
        job = as_output(job)
    if isinstance(job, PlainXComArg):
        _check_output(name, job)
    elif isinstance(job, XComArg):
        raise InputError(f"{name}: Expected {_JOB}, got {type(job).__name__}, which is made from outputs of tasks.")
    elif is_final(job):
        read_reference(name, job)
    elif isinstance(job, str):
        check_syntax(name, job)
    elif isinstance(job, (dict, list, tuple)):
        raise InputError(f"{name}: Expected {_JOB}, got a {type(job).__name__} that contains such a value.")
    return job


def check_mapped_job(name: str, jobs: Any) -> None:
    """Check the jobs that an operator is mapped over with `expand(job=…)`.

    :raises InputError: if they are the output of a task that is known not to return a list of references.
    """
    operator = jobs.operator if isinstance(jobs, PlainXComArg) else None
    if operator is not None and _submits(operator) and not operator.is_mapped:
        raise InputError(
            f"{name}: Expected the output of a mapped task, but the task {operator.task_id!r} is not mapped, so its "
            f"output is one job. Pass it as {name}={operator.task_id}.output without mapping this task."
        )
    if operator is not None and not _submits(operator) and "job" in operator.template_fields:
        raise _not_a_job(name, operator.task_id)


def _not_a_job(name: str, task_id: str) -> InputError:
    return InputError(
        f"{name}: Expected {_JOB}, got the output of the task {task_id!r}, which is not a BatchSubmitOperator. If "
        "this task really returns the reference to a job, use a template: "
        f"\"{{{{ ti.xcom_pull(task_ids='{task_id}') }}}}\"."
    )


def as_output(value: Any) -> Any:
    """Return the output of a task in the place of the task itself, and any other value unchanged."""
    return value.output if isinstance(value, (BaseOperator, MappedOperator)) else value


def _check_output(name: str, job: PlainXComArg) -> None:
    task_id = job.operator.task_id
    if not _submits(job.operator):
        raise _not_a_job(name, task_id)
    if job.key != PlainXComArg(job.operator).key:
        raise InputError(
            f"{name}: Expected {_JOB}, got the item {job.key!r} of the output of the task {task_id!r}. Pass the whole "
            "output."
        )
    if job.operator.is_mapped:
        raise InputError(
            f"{name}: Expected the output of one job, but the task {task_id!r} is mapped, so it has a list of them. "
            f"Map this task too, with .partial(…).expand({name}={task_id}.output)."
        )


def operator_class(operator: Any) -> type:
    """Return the class of an operator that may be mapped."""
    return operator.operator_class if isinstance(operator, MappedOperator) else type(operator)


def argument_of(operator: Any, name: str) -> Any:
    """Return the value of an argument of an operator that may be mapped. An argument that is mapped over is a list."""
    if not isinstance(operator, MappedOperator):
        return getattr(operator, name, None)
    mapped_kwargs: Any = operator.expand_input.value
    is_mapped = isinstance(mapped_kwargs, dict) and name in mapped_kwargs
    return mapped_kwargs[name] if is_mapped else operator.partial_kwargs.get(name)


def submit_task_of(job: Any, dag: Any) -> Any:
    """Return the task of the DAG that submits a job, or None if the value of an argument `job` does not tell."""
    if isinstance(job, str):  # a template
        names = re.findall(r"""["']([\w.-]+)["']""", job)
        submit_tasks = [
            dag.task_dict[name] for name in names if name in dag.task_dict and _submits(dag.task_dict[name])
        ]
        return submit_tasks[0] if submit_tasks else None
    return job.operator if isinstance(job, PlainXComArg) and _submits(job.operator) else None


def _submits(operator: Any) -> bool:
    # the operator itself is in a layer above this module
    return getattr(operator_class(operator), "returns_job", False)


def read_reference(name: str, job: Any) -> Reference:
    """Return the reference to a job from the value of an argument. A template turns a reference into text.

    :raises InputError: if it is not such a reference.
    """
    if isinstance(job, str) and job.lstrip().startswith("{"):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            job = ast.literal_eval(job.strip())
    try:
        return msgspec.convert(job, Reference)
    except ValueError as error:
        raise argument_error(name, _JOB, job) from error
