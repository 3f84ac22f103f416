"""The rows that a function returns, which is called only when they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from airflow.providers.common.compat.sdk import XComArg, determine_kwargs
from airflow.sdk.definitions._internal.expandinput import MappedArgument
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions._internal.templater import Templater

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.open import ResolvedRows
from airflow_provider_batch.sources.source import RowSource


class FunctionCall(ResolveMixin):
    """A call of an author's function that returns rows, as a value of `rows` that Airflow resolves at run time.

    :param args: arguments of the function, which may be outputs of other tasks and templates; likewise `kwargs`.
    """

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def __str__(self) -> str:
        return f"the function {self._function.__name__}"

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments as the author wrote them."""
        return (self._args, self._kwargs)

    def iter_references(self) -> Iterable[Any]:
        """Yield the tasks that the arguments come from, so that Airflow runs them before."""
        return XComArg.iter_xcom_references((self._args, dict(self._kwargs)))

    def resolve(self, context: Any) -> ResolvedRows:
        """Resolve and render the arguments, as `@task` does. The function is not called yet."""
        arguments = Templater()
        arguments.template_ext = ()  # the names of files are for the function to read
        env = context["task"].get_template_env()
        args = arguments.render_template(self._args, context, env)
        # a dict of `expand_kwargs` may leave out arguments that have a default or that Airflow fills in
        present = {name: value for name, value in self._kwargs.items() if not _is_absent(value, context)}
        kwargs = arguments.render_template(present, context, env)
        named = determine_kwargs(self._function, args, {**context, **kwargs})
        return _FunctionRows(self._function, args, named)


def _is_absent(value: Any, context: Any) -> bool:
    """Return whether a mapped argument has no value in this job."""
    return isinstance(value, MappedArgument) and value._key not in value._input.resolve(context)[0]


class _FunctionRows(ResolvedRows):
    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(None)
        self._function = function
        self._args = args
        self._kwargs = kwargs

    def __str__(self) -> str:
        return f"the function {self._function.__name__}"

    def open(self) -> RowSource:
        """Call the function and return the source of its rows. Errors of the function are not changed."""
        self.value = self._function(*self._args, **self._kwargs)
        if self.value is None:
            raise InputError(
                f"The function {self._function.__name__} returned None. Return the rows, as a list of dicts, a data "
                "frame or the address of files, or yield one dict per row. Nothing was uploaded."
            )
        return super().open()
