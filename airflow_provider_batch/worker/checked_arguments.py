"""Checks of an operator's arguments while the DAG is parsed, whether the operator is mapped or not.

Airflow constructs a mapped operator only when its tasks run, so an error in its constructor would come after other
tasks were paid for. `CheckedMapping` constructs it once for every value that the DAG file contains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from airflow.sdk.definitions._internal.expandinput import DictOfListsExpandInput, MappedArgument
from airflow.sdk.definitions.mappedoperator import OperatorPartial

from airflow_provider_batch.core.arguments import is_runtime_value, shorten
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.worker.airflow_arguments import check_mapped_job
from airflow_provider_batch.worker.argument_names import parameter_names, refuse_unknown, register

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import MappedOperator

P = ParamSpec("P")


def check_arguments(init: Callable[P, None]) -> Callable[P, None]:
    """Decorate the constructor of an operator, so that its errors name the task and unknown arguments are refused.

    In a mapped task group, the constructor also runs once for every value that the DAG file contains.
    """
    register(init.__qualname__.split(".")[-2], parameter_names(init))

    @wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        operator: Any = args[0]
        with naming_task(kwargs):
            refuse_unknown(type(operator), kwargs)
            if "task_id" not in kwargs:
                raise InputError(f"{type(operator).__name__} needs a task_id, such as task_id='answers'.")
            init(*args, **kwargs)
            # a mapped operator that Airflow resolved, or that was made below
            if not getattr(operator, "_BaseOperator__from_mapped", False):
                for name, value in kwargs.items():
                    _check_mapped_group(name, value)
                    for item in _mapped_items(value):
                        type(operator)(**{**kwargs, name: item}, _airflow_from_mapped=True)

    return checked


@contextmanager
def naming_task(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Name the task in the message of an InputError that the block raises, unless the message does."""
    try:
        yield
    except InputError as error:
        group, task_id = arguments.get("task_group"), arguments.get("task_id")
        if task_id is not None and not str(error).startswith("Task "):
            full_id = task_id if group is None or "." in str(task_id) else group.child_id(task_id)
            error.args = (f"Task {full_id!r}: {error}", *error.args[1:])
        raise


def _check_mapped_group(name: str, value: Any) -> None:
    """Check that a mapped `batch_job` maps an argument over a list.

    A group with parameters of its own has other names. Airflow refuses a text there, and a dict may be meant: the
    parameter then gets pairs of a key and a value.
    """
    if isinstance(value, MappedArgument) and isinstance(value._input, DictOfListsExpandInput) and value._key == name:
        _check_list(name, value._input.value[name])


def _check_list(name: str, values: Any) -> None:
    """Check that an argument is mapped over a list: Airflow would also map it over the letters of a text."""
    if isinstance(values, (str, bytes, Mapping)):
        parts = "entry of the dict" if isinstance(values, Mapping) else "letter of the text"
        raise InputError(
            f"{name}: expand({name}={shorten(values)}) makes one task for each {parts}. Give a list, also of a single "
            f"value: expand({name}=[{shorten(values)}])."
        )


def _mapped_items(value: Any) -> list[Any]:
    """Return the values that a mapped task group maps an argument to, as far as the DAG file contains them."""
    if not isinstance(value, MappedArgument):
        return []
    mapped: Any = value._input.value
    if isinstance(value._input, DictOfListsExpandInput):
        return _literal_items(mapped[value._key])
    kwargs = [] if is_runtime_value(mapped) else [item for item in mapped if isinstance(item, Mapping)]
    return [item[value._key] for item in kwargs if value._key in item and not is_runtime_value(item[value._key])]


def _literal_items(values: Any) -> list[Any]:
    """Return what Airflow maps an argument to, without values that it resolves only at run time."""
    if isinstance(values, Mapping):
        return list(values.items())
    return [item for item in values if not is_runtime_value(item)] if isinstance(values, (list, tuple)) else []


class CheckedMapping:
    """Makes an operator check the arguments of `.partial(…).expand(…)` while the DAG is parsed."""

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Return a partial operator to be mapped. Raises InputError for an argument that the operator does not have."""
        with naming_task(kwargs):
            refuse_unknown(cls, kwargs)
        airflows: OperatorPartial = super().partial(**kwargs)  # type: ignore[misc]
        airflows._expand_called = True  # otherwise it warns that it was never expanded
        return _CheckedPartial(operator_class=airflows.operator_class, kwargs=airflows.kwargs, params=airflows.params)

    @classmethod
    def check_dag(cls, mapped: MappedOperator) -> None:
        """Check the mapped operator once its DAG is complete. Raises InputError."""


class _CheckedPartial(OperatorPartial):
    """A partial operator that checks the arguments of the mapped operator that it becomes."""

    def expand(self, **mapped_kwargs: Any) -> MappedOperator:
        self._expand_called = True  # otherwise an error below would be followed by a warning
        with naming_task(self.kwargs):
            refuse_unknown(self.operator_class, mapped_kwargs)
            for name, values in mapped_kwargs.items():
                _check_list(name, values)
        return super().expand(**mapped_kwargs)

    def _expand(self, expand_input: Any, *, strict: bool) -> MappedOperator:
        mapped = super()._expand(expand_input, strict=strict)
        with naming_task({"task_id": mapped.task_id}):
            for arguments in _combinations(mapped, expand_input):
                refuse_unknown(self.operator_class, arguments)
                mapped.unmap(arguments)
        # Airflow calls this, once the DAG is complete, for each task that has it.
        check_dag = self.operator_class.check_dag  # type: ignore[attr-defined]
        mapped.resolve_template_files = partial(check_dag, mapped)  # type: ignore[method-assign]
        return mapped


def _combinations(mapped: MappedOperator, expand_input: Any) -> Iterator[dict[str, Any]]:
    """Yield arguments to construct a mapped operator with, so that each value in the DAG file is in one of them.

    An argument whose values are known only at run time is replaced by what stands for it in a mapped task group.
    """

    def at_run_time(name: str) -> dict[str, Any]:
        # the constructor sees only the resolved values of arguments that are not template fields
        return {name: MappedArgument(input=expand_input, key=name)} if name in mapped.template_fields else {}

    if not isinstance(expand_input, DictOfListsExpandInput):
        # without the dicts, it is unknown which arguments they contain
        dicts = () if is_runtime_value(expand_input.value) else expand_input.value
        yield from (dict(item) for item in dicts if isinstance(item, Mapping))
        return
    base: dict[str, Any] = {}
    for name, values in expand_input.value.items():
        items = _literal_items(values)
        if name == "job":
            check_mapped_job(name, values)
        base |= {name: items[0]} if items else at_run_time(name)
    yield base
    for name, values in expand_input.value.items():
        for item in _literal_items(values)[1:]:
            yield {**base, name: item}
