"""Checks of arguments that need Airflow's own objects: names that no operator has, and the argument `job`."""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
from airflow.providers.common.compat.sdk import BaseOperator, MappedOperator
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_batch.core.arguments import argument_error, check_syntax, is_final
from airflow_provider_batch.core.ledger.job import Reference
from airflow_provider_batch.core.requests.body_parameters import PARAMETERS
from airflow_provider_batch.exceptions import InputError

#: our arguments, with the names that other operators and libraries have for them
_NAMES_ELSEWHERE = {
    "system": ("system_prompt", "system_message", "instructions"),
    "prompt": ("user_prompt", "prompt_template", "user_message", "prompts"),
    "output_schema": ("output_type", "output_format", "response_model", "response_schema", "schema", "result_type"),
    "openai_conn_id": ("llm_conn_id", "conn_id", "openai_connection_id"),
    "warehouse_conn_id": ("sql_conn_id", "input_conn_id", "db_conn_id", "database_conn_id", "source_conn_id"),
    "sql": ("input_sql", "query", "statement"),
    "model": ("model_id", "model_name", "llm_model"),
    "max_output_tokens": ("max_tokens", "max_completion_tokens", "max_new_tokens"),
    "custom_id": ("id_column", "key_column", "row_id"),
    "table": ("output_table", "results_table", "target_table", "destination_table"),
    "limits": ("batch_size", "chunk_size", "max_batch_size"),
    "deadline": ("wait_timeout", "max_wait_time"),
    "max_attempts": ("max_retries", "row_retries"),
    "max_cost_usd": ("budget", "budget_usd", "cost_limit"),
}

#: what `job` expects, for errors
_JOB = "the output of BatchSubmitOperator, such as job=submit.output"


def refuse_unknown(operator: BaseOperator, names: Iterable[str]) -> None:
    """Check the names of the arguments that an operator of ours passes on to its base class.

    :raises InputError: if the operator has no such argument. Airflow's own error would be a TypeError without advice.
    """
    kind = type(operator)
    for name in names:
        if not name.startswith("_") and not any(name in _arguments(base) for base in kind.__mro__):
            raise InputError(f"{kind.__name__} has no argument {name!r}. {advise(name, _arguments(kind))}")


@cache
def _arguments(kind: type) -> frozenset[str]:
    """Return the names of the arguments that a class takes, without those of its base classes."""
    parameters = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    return frozenset(parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY)


def advise(name: str, arguments: Collection[str]) -> str:
    """Return a sentence that says what to write instead of an unknown argument.

    :param arguments: the arguments that exist.
    """
    for argument, names_elsewhere in _NAMES_ELSEWHERE.items():
        if name in names_elsewhere and argument in arguments:
            return f"Did you mean {argument!r}?"
    if "body" in arguments and any(name in parameters for parameters in PARAMETERS.values()):
        return f'A parameter of the request belongs in the body: body={{"{name}": …}}.'
    similar_names = difflib.get_close_matches(name, arguments, n=1)
    if similar_names:
        return f"Did you mean {similar_names[0]!r}?"
    return f"Its arguments are {', '.join(sorted(arguments))}, and those of every Airflow task."


def parse_job(name: str, job: Any) -> Any:
    """Return the argument `job` of an operator. A submit task stands for its output.

    :raises InputError: if the value cannot become the reference to a job.
    """
    if isinstance(job, (BaseOperator, MappedOperator)) and _submits(job):
        job = job.output
    if isinstance(job, PlainXComArg):
        _check_output(name, job)
    elif is_final(job):
        read_reference(name, job)
    elif isinstance(job, str):
        check_syntax(name, job)
    elif isinstance(job, (dict, list, tuple)):
        raise InputError(f"{name}: Expected {_JOB}, got a {type(job).__name__} that contains such a value.")
    return job


def _check_output(name: str, job: PlainXComArg) -> None:
    task_id = job.operator.task_id
    if not _submits(job.operator):
        raise InputError(
            f"{name}: Expected {_JOB}, got the output of the task {task_id!r}, which is not a BatchSubmitOperator. If "
            "this task really returns the reference to a job, use a template: "
            f"\"{{{{ ti.xcom_pull(task_ids='{task_id}') }}}}\"."
        )
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
