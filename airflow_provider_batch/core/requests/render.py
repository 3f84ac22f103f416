"""Render rows into requests.

`check` validates the row arguments without rows, for example when a DAG is parsed. `compile_renderer` binds them to the
columns of a query and returns a Renderer, which turns rows into Requests and keeps nothing in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import UndefinedError

from airflow_provider_batch.core.requests.body_form import LeafError, evaluate_all, replace_nodes
from airflow_provider_batch.core.requests.check import Arguments
from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError
from airflow_provider_batch.core.requests.function_body import FunctionBody
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.requests.row import Columns, UnknownColumnError
from airflow_provider_batch.core.requests.row_checks import custom_id_leaf
from airflow_provider_batch.core.requests.row_files import FileParts, bind_file
from airflow_provider_batch.core.requests.row_use import check_placeholders, check_row_use
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.template import Leaf, RowTemplate, Values
from airflow_provider_batch.core.requests.template_body import TemplateBody
from airflow_provider_batch.core.requests.value import UnusableValueError, has_lone_surrogate, to_json_value
from airflow_provider_batch.exceptions import CustomIdError, FileStoreError, InputError, TemplateError

__all__ = ["Renderer", "RequestSpec", "check", "compile_renderer"]


def check(spec: RequestSpec, *, deduplicate: bool = True) -> None:
    """Raise InputError, naming the argument, if an argument is invalid regardless of the rows.

    The error is a TemplateError if the syntax of a template is wrong, or if it uses a name that no run defines.

    :param deduplicate: whether a request that is the same for every row would be sent only once.
    """
    check_row_use(Arguments(spec), deduplicate=deduplicate)


def compile_renderer(
    spec: RequestSpec,
    columns: Sequence[str],
    context: Mapping[str, Any],
    read_file: Callable[[Location], bytes] | None = None,
    max_bytes: int | None = None,
) -> Renderer:
    """Return a renderer for the rows of a query with these columns.

    `context` holds the names that templates can use besides `row`; their values must be plain. `read_file` returns the
    content of a file that a row names, and raises UnusableFileError if the file costs its row. A request with files of
    more than `max_bytes` costs its row too.

    Raises the same errors as `check`, and TemplateError for unknown columns and names in a template, even if the query
    returns no rows.
    """
    for name, value in context.items():
        try:
            to_json_value(value, sort=False)
        except UnusableValueError as error:
            raise InputError(f"{name}: Row templates can only use plain values. {error}") from error
    arguments = Arguments(spec)
    check_placeholders(arguments, columns)
    return Renderer(arguments, Columns(columns), context, read_file, max_bytes)


class Renderer:
    """Renders rows into Requests."""

    def __init__(
        self,
        arguments: Arguments,
        columns: Columns,
        context: Mapping[str, Any],
        read_file: Callable[[Location], bytes] | None,
        max_bytes: int | None,
    ) -> None:
        self._columns = columns
        bind, bind_custom_id = _Binder(columns, context), _Binder(columns, context)
        self._files = [bind_file(file, bind) for file in arguments.files]
        self._custom_id = custom_id_leaf(bind_custom_id(arguments.custom_id, as_text=False))
        function = arguments.load_function()
        self._requests: Callable[[Sequence[str], Sequence[Values]], list[Request]] = (
            TemplateBody(arguments, bind, FileParts(arguments.endpoint.path, self._files, read_file, max_bytes))
            if function is None
            else FunctionBody(arguments, bind, columns.names, function)
        )
        #: columns of the rows in the custom_id, and in the rest of the requests; a function sees all of them
        self.custom_id_columns = bind_custom_id.used_columns
        self.request_columns = bind.used_columns if function is None else list(columns.names)

    def __call__(self, rows: Sequence[Values], first: int) -> list[Request]:
        """Return the requests of rows. `first` is the number of the first row in the query, from 1.

        If there is only one row, raises InputError (TemplateError, CustomIdError) naming it, and FileStoreError if its
        files cannot be read. If there are several, raises LeafError: render them one by one to learn which is invalid.
        """
        custom_ids: list[str] = []
        try:
            custom_ids = evaluate_all(self._custom_id, rows)
            return self._requests(custom_ids, rows)
        except LeafError as error:
            if len(rows) > 1:
                raise
            if isinstance(error.__cause__, FileStoreError):
                raise error.__cause__ from error.__cause__.__cause__
            raise self._row_error(error, rows[0], first, *custom_ids) from error.__cause__

    def locations(self, row: Values) -> list[Location]:
        """Return the files that a row names, as far as they can be determined, so that they can be read in advance."""
        try:
            return [location for file in self._files for location in file.locations(row)]
        except (LeafError, UnusableFileError, UnusableValueError):
            return []  # the row itself raises the error

    def _row_error(self, error: LeafError, row: Values, number: int, custom_id: str | None = None) -> InputError:
        cause, argument = error.__cause__, error.leaf.argument
        location = f"Row {number:,}" if custom_id is None else f"Row {number:,} (custom_id {custom_id!r})"
        location += f", {argument}"
        kind: type[InputError] = CustomIdError if argument == "custom_id" else TemplateError
        message = str(cause)
        if isinstance(cause, InputError):
            kind = type(cause)
        elif isinstance(cause, UnusableValueError):
            location += self._describe_column(cause, row)
        elif isinstance(cause, UndefinedError):
            message = f"The template uses an undefined value: {message.rstrip('.')}."
        elif not isinstance(cause, UnknownColumnError):
            source = "function" if argument == "request" else "template"
            message = f"The {source} raised {type(cause).__name__}: {message.rstrip('.')}."
        return kind(f"{location}: {message}")

    def _describe_column(self, error: UnusableValueError, row: Values) -> str:
        """Return ", column '…'" for the column that holds the unusable value, or "" if no column holds it."""
        is_broken_text = has_lone_surrogate(error.value)
        for column, value in zip(self._columns.names, row, strict=True):
            if _holds(value, error.value) or (is_broken_text and has_lone_surrogate(value)):
                return f", column {column!r}"
        return ""


def _holds(value: Any, part: Any) -> bool:
    """Return whether a value of the row is this object, or contains it at any depth."""
    if value is part:
        return True
    members = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(_holds(member, part) for member in members)


class _Binder:
    """Replaces the templates of a tree with leaves for the columns of a query."""

    def __init__(self, columns: Columns, context: Mapping[str, Any]) -> None:
        self._columns = columns
        self._context = context
        self._used_columns: set[str] = set()

    def __call__(self, tree: Any, *, as_text: bool) -> Any:
        return replace_nodes(tree, RowTemplate, lambda template: self._bind(template, as_text=as_text))

    @property
    def used_columns(self) -> list[str]:
        """Columns that the templates so far use, in the order of the query."""
        return [name for name in self._columns.names if name in self._used_columns]

    def _bind(self, template: RowTemplate, *, as_text: bool) -> Leaf:
        leaf = template.bind(self._columns, self._context, as_text=as_text)
        # a template that names no column, such as `{{ row | tojson }}`, may use all of them
        is_dynamic = template.uses_row and not leaf.columns
        self._used_columns.update(self._columns.names if is_dynamic else leaf.columns)
        return leaf
