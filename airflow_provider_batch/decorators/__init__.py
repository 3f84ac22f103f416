"""`@task.openai_batch`: a function that returns rows becomes a job.

@task.openai_batch(custom_id="{{ row.id }}", table="ticket_labels", **classify("{{ row.body }}", labels=LABELS))
def label_tickets(market):
    for page in tickets_of(market):
        yield from page

label_tickets.expand(market=["DE", "FR", "US"])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import update_wrapper, wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from airflow.sdk import BaseOperator, TaskGroup, task_group
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from airflow_provider_batch.core.arguments import parse_mapping, shorten
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.function import FunctionCall
from airflow_provider_batch.task_groups import JOB_ARGUMENTS, create_job

if TYPE_CHECKING:
    from airflow.sdk.bases.decorator import Task

__all__ = ["openai_batch_task"]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

#: how errors name the decorator
_NAME = "@task.openai_batch"
_GROUP_OPTIONS = frozenset(inspect.signature(TaskGroup).parameters)
_TASK_OPTIONS = frozenset(inspect.signature(BaseOperator).parameters) - JOB_ARGUMENTS - _GROUP_OPTIONS - {"task_group"}
#: arguments that the decorator does not have, with the reason
_REFUSED = {
    **dict.fromkeys(("sql", "rows", "parameters"), "The function returns the rows"),
    "multiple_outputs": "The landing returns a single summary",
    "do_xcom_push": "The tasks pass the job to each other as an XCom",
}


def openai_batch_task(
    python_callable: None = None, /, **options: Any
) -> Callable[[Callable[_Parameters, _Result]], Task[_Parameters, _Result]]:
    """Turn a function that returns rows into a job: one request per row, and one row in the results table for each.

    In a DAG, write `@task.openai_batch(...)`. Calling the function creates a task group submit >> wait >> land, as
    `batch_job` does, and returns the summary of the landing.

    **The function** runs in submit and returns what `rows` of `BatchSubmitOperator` may be: a list of dicts, a data
    frame, or the address of files. A generator that yields dicts is read in bounded memory. The rows go straight into
    the sealed files, never through XCom, and are never rendered as templates. The arguments of the function may be
    outputs of other tasks and templates, and parameters such as `ds`, `params` and `logical_date` get their values from
    Airflow, as in `@task`.

    **Running it again.** A retry after the rows were sealed does not call the function again. If the task is cleared,
    the function runs again, and only new and changed rows are sent. If the function raises an error, nothing is sealed
    or sent, and Airflow retries the task as usual.

    **Mapping.** `label.expand(market=[...])` and `label.partial(...).expand(...)` map the arguments of the function.
    Each value has a job of its own, whose tasks are named by it.

    :param options: the arguments of `batch_job`, except `sql`, `rows` and `parameters`; arguments of every Airflow
        task, such as `retries` or `pool`, which apply to all tasks of the group; `task_id`, or `group_id`, which names
        the group (default: the name of the function); and arguments of a task group.
        `label.override(task_id="other", max_cost_usd=5)` changes them for one call.
    :raises InputError: while the DAG is parsed, if an argument is wrong or the function is asynchronous.
    """
    if python_callable is not None:
        raise InputError(f"{_NAME} takes no positional arguments. Write @task.openai_batch(custom_id=…, prompt=…, …).")

    def decorate(function: Callable[_Parameters, _Result]) -> Task[_Parameters, _Result]:
        return cast("Task[_Parameters, _Result]", _BatchTask(function, options))

    return decorate


class _BatchTask:
    """A decorated function. Calling it adds a job to the DAG."""

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        if not inspect.isroutine(function):
            raise InputError(f"{_NAME} expects a function that returns rows, got {shorten(function)}.")
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            raise InputError(f"{_NAME}: The function {function.__name__} is asynchronous. Use a plain function.")
        #: the function of the author
        self.function = function
        self._options = dict(options)
        update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Add a job to the DAG, and return the summary of its landing."""
        return self._group()(*args, **kwargs)

    def partial(self, **kwargs: Any) -> Any:
        """Set arguments of the function that have the same value in all mapped jobs."""
        return self._group().partial(**kwargs)

    def expand(self, **kwargs: Any) -> Any:
        """Add one job per value."""
        return self._group().expand(**kwargs)

    def expand_kwargs(self, kwargs: Any) -> Any:
        """Add one job per dict of arguments."""
        for arguments in kwargs if isinstance(kwargs, (list, tuple)) else ():
            if isinstance(arguments, Mapping):
                _check_call(self.function, (), arguments)
        return self._group().expand_kwargs(kwargs)

    def override(self, **options: Any) -> _BatchTask:
        """Return the same function with other options."""
        return _BatchTask(self.function, self._options | options)

    def _group(self) -> Any:
        """Return the task group, as `@task_group` creates it from a function."""
        options = dict(self._options)
        for name, reason in _REFUSED.items():
            if name in options:
                raise InputError(f"{_NAME}: {reason}, so there is no argument {name!r}.")
        group_id = options.pop("group_id", None)
        group_id = options.pop("task_id", None) or group_id or self.function.__name__
        if group_id == "<lambda>":
            raise InputError(f"{_NAME}: A lambda has no name. Give the job one with task_id.")
        default_args = parse_mapping("default_args", options.pop("default_args", None))
        default_args |= {name: options.pop(name) for name in _TASK_OPTIONS & set(options)}
        group_options = {name: options.pop(name) for name in _GROUP_OPTIONS & set(options)}

        @wraps(self.function)
        def create(*args: Any, **kwargs: Any) -> Any:
            _check_call(self.function, args, kwargs)
            return create_job(_NAME, {**options, "rows": FunctionCall(self.function, args, kwargs)})

        return task_group(group_id=group_id, default_args=default_args, **group_options)(create)


def _check_call(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Check while the DAG is parsed that the function can be called with these arguments."""
    signature = inspect.signature(function)
    try:
        bound = signature.bind_partial(*args, **kwargs)
    except TypeError as error:
        raise InputError(f"{_NAME}: {function.__name__}{signature} was called with wrong arguments: {error}.") from None
    required = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and name not in KNOWN_CONTEXT_KEYS
    ]
    missing = [name for name in required if name not in bound.arguments]
    if missing:
        raise InputError(f"{_NAME}: {function.__name__}{signature} was called without {', '.join(missing)}.")
