"""Names of arguments that an operator does not have, with what to write instead."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable
from functools import cache

from airflow_provider_batch.core.requests.body_parameters import PARAMETERS
from airflow_provider_batch.exceptions import InputError

#: our arguments, with the names that other operators and libraries have for them
_NAMES_ELSEWHERE = {
    "system": ("system_prompt", "system_message", "system_instruction", "instructions"),
    "prompt": (
        *("user_prompt", "prompt_template", "user_message", "prompts", "input_text", "input", "messages", "contents"),
        *("question", "human_prompt"),
    ),
    "output_schema": (
        *("output_type", "output_format", "response_model", "response_schema", "schema", "result_type", "text_format"),
        *("output_model", "output_cls", "json_schema"),
    ),
    "openai_conn_id": ("llm_conn_id", "conn_id", "openai_connection_id", "anthropic_conn_id", "pydanticai_conn_id"),
    "warehouse_conn_id": (
        *("sql_conn_id", "input_conn_id", "db_conn_id", "database_conn_id", "source_conn_id", "postgres_conn_id"),
        *("snowflake_conn_id", "gcp_conn_id", "mysql_conn_id", "sqlite_conn_id", "duckdb_conn_id", "output_conn_id"),
    ),
    "rows": ("data", "records", "input_rows", "input_data", "dataframe", "df", "items", "input_path", "input_file"),
    "sql": ("input_sql", "query", "statement", "select", "sql_query"),
    "parameters": ("sql_params", "query_params"),
    "model": ("model_id", "model_name", "llm_model", "engine", "deployment", "deployment_name"),
    "max_output_tokens": ("max_tokens", "max_completion_tokens", "max_new_tokens", "max_tokens_to_sample"),
    "body": (
        *("extra_body", "response_kwargs", "embedding_kwargs", "model_kwargs", "model_params", "model_settings"),
        *("generation_config", "inference_params", "agent_params", "llm_kwargs", "request_body", "openai_kwargs"),
    ),
    "request": ("requests", "request_builder", "build_request"),
    "custom_id": ("id_column", "key_column", "row_id", "id", "id_col", "primary_key"),
    "carry": ("carry_columns", "passthrough_columns", "keep_columns"),
    "table": (
        *("output_table", "results_table", "result_table", "target_table", "destination_table", "table_name"),
        *("destination", "into"),
    ),
    "limits": ("batch_size", "chunk_size", "max_batch_size", "max_requests_per_batch", "requests_per_batch"),
    "deadline": ("timeout", "wait_timeout", "max_wait_time", "timeout_seconds", "completion_timeout"),
    "poke_interval": ("poll_interval", "wait_seconds", "polling_interval", "poll_seconds", "check_interval"),
    "max_attempts": ("max_retries", "row_retries", "num_retries", "attempts"),
    "max_cost_usd": ("budget", "budget_usd", "cost_limit", "max_budget", "max_cost", "budget_limit"),
    "approve_above_usd": ("require_approval", "needs_approval", "approval_required"),
    "max_failure_rate": ("fail_on_partial_error", "max_error_rate", "failure_threshold", "allowed_failures"),
    "cancel_on_kill": ("cancel_on_failure", "stop_on_kill"),
    "staging": ("staging_path", "staging_dir", "result_path", "storage_path"),
    "canary": ("sample_size", "dry_run_rows"),
    "preview": ("dry_run",),
    "max_rows": ("limit", "row_limit", "num_rows", "max_requests"),
}

#: names that no argument stands for, with what to do instead
_ADVICE = {
    **dict.fromkeys(
        ("file_id", "input_file_id", "input_file", "jsonl_path", "file_path", "input_path", "src_file"),
        "The operator builds and uploads the input files itself, from the rows of the job.",
    ),
    **dict.fromkeys(
        ("wait_for_completion", "wait_until_complete", "stop_after_submit"),
        "BatchSubmitOperator does not wait: add BatchSensor(task_id='wait', job=submit.output) after it, or use "
        "batch_job, which does both.",
    ),
    **dict.fromkeys(
        ("api_key", "openai_api_key", "base_url", "api_base", "organization", "openai_api_base", "gemini_api_key"),
        "The API key and the address of the server belong in the Airflow connection that openai_conn_id names.",
    ),
    "batch_id": "Pass job=submit.output, the output of BatchSubmitOperator, to wait for a job or to land it.",
}

#: the arguments of each operator of ours, by the name of its class, and those that only `batch_job` has
_OPERATORS: dict[str, frozenset[str]] = {}


def register(operator: str, arguments: Collection[str]) -> None:
    """Remember the arguments of an operator, so that an error can say which operator takes an argument."""
    _OPERATORS[operator] = frozenset(arguments)


def refuse_unknown(kind: type, names: Iterable[str]) -> None:
    """Check the names of the arguments that are passed to an operator of ours.

    :raises InputError: if the operator has no such argument. Airflow's own error would be a TypeError without advice.
    """
    for name in names:
        if not name.startswith("_") and not any(name in _arguments(base) for base in kind.__mro__):
            raise InputError(f"{kind.__name__} has no argument {name!r}. {advise(name, _own_arguments(kind))}")


@cache
def _arguments(kind: type) -> frozenset[str]:
    """Return the names of the arguments that a class takes, without those of its base classes."""
    return parameter_names(kind.__init__)  # type: ignore[misc]


def parameter_names(function: Callable[..., object]) -> frozenset[str]:
    """Return the names of the parameters of a function or method, without `self` and those with stars."""
    parameters = inspect.signature(function).parameters.values()
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return frozenset(parameter.name for parameter in parameters if parameter.kind in kinds) - {"self"}


def _own_arguments(kind: type) -> frozenset[str]:
    """Return the arguments that distinguish an operator of ours, or a subclass of one, from every Airflow task."""
    return _arguments(kind).union(*(_arguments(base) for base in kind.__mro__ if base.__name__ in _OPERATORS))


def advise(name: str, arguments: Collection[str]) -> str:
    """Return a sentence that says what to write instead of an unknown argument.

    :param arguments: the arguments that exist.
    """
    if name in _ADVICE:
        return _ADVICE[name]
    names_here = [argument for argument, others in _NAMES_ELSEWHERE.items() if name in others]
    for argument in names_here:
        if argument in arguments:
            return f"Did you mean {argument!r}?"
    if operator := _operator_with(name):
        return f"It is an argument of {operator}."
    is_parameter = any(name in parameters for parameters in PARAMETERS.values())
    if is_parameter and "body" in arguments:
        return f'A parameter of the request belongs in the body: body={{"{name}": …}}.'
    for argument in names_here:
        if operator := _operator_with(argument):
            return f"Did you mean {argument!r}, which is an argument of {operator}?"
    if is_parameter:
        return f'A parameter of the request belongs in the body of BatchSubmitOperator: body={{"{name}": …}}.'
    similar_names = difflib.get_close_matches(name, arguments, n=1, cutoff=0.7)
    if similar_names:
        return f"Did you mean {similar_names[0]!r}?"
    return f"Its arguments are {', '.join(sorted(arguments))}, and those of every Airflow task."


def _operator_with(argument: str) -> str | None:
    # where an operator of evals has the argument, too, that of a job is meant
    operators = sorted(_OPERATORS.items(), key=lambda item: item[0].startswith("Eval"))
    return next((operator for operator, names in operators if argument in names), None)
