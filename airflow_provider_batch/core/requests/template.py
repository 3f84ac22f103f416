"""One row template: text with Jinja in it, compiled once, rendered for every row.

Templates come from the author of a DAG or from a trigger form; row values are data and are never looked at as
templates. Three shapes, from fast to slow, all with the same meaning:

* text without Jinja: sent as it is;
* text with plain columns in it (`{{ row.title }}`, `{{ row['Title'] }}`): joined, without Jinja;
* anything else: Jinja, in an immutable sandbox, where an unknown name is an error.

A template that is exactly one expression gives the value of that expression with its type; spaces and line
ends around it do not count. Every other template gives text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec
from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, meta, nodes
from jinja2.environment import TemplateExpression
from jinja2.sandbox import ImmutableSandboxedEnvironment

from airflow_provider_batch.core.requests.row import Columns, Row, UnknownColumnError, lookup
from airflow_provider_batch.core.requests.value import json_text, not_binary, text
from airflow_provider_batch.exceptions import TemplateError

#: the values of one row, in the order of the columns
Values: TypeAlias = tuple[Any, ...]


class Leaf(msgspec.Struct, frozen=True):
    """One place of a request that every row fills."""

    #: which argument it stands in, as `prompt` or `body.metadata.team`
    argument: str
    #: row -> value
    value: Callable[[Values], Any]
    #: the columns that it names; more may be reached dynamically
    columns: tuple[str, ...] = ()


class _Environment(ImmutableSandboxedEnvironment):
    """`row.x` and `row['x']` are columns, whatever their names; other objects follow the sandbox's rules."""

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _column(obj, attribute) if type(obj) is Row else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _column(obj, argument) if type(obj) is Row else super().getitem(obj, argument)


def _column(row: Row, name: Any) -> Any:
    # Refused before a filter can turn it into "b'...'".
    return not_binary(lookup(row, name))


def _defined(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError that says what is missing
    return value


def _to_text(value: Any) -> str:
    return text(_defined(value))


def _to_json(value: Any, indent: int | None = None) -> str:
    """The filter `tojson`, for a model to read: Jinja's own turns `<` and quotes into escapes for HTML."""
    encoded = json_text(_defined(value))
    return encoded if indent is None else msgspec.json.format(encoded, indent=indent)


def _from_json(value: Any) -> Any:
    """The filter `fromjson`, for warehouses that hand out JSON as text."""
    return msgspec.json.decode(text(_defined(value)))


def _environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined, finalize=_to_text, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["tojson"] = _to_json
    environment.filters["fromjson"] = _from_json
    environment.filters["text"] = _to_text
    # A row that is rendered again must give the same request, or its answer is paid for twice.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


_ENVIRONMENT = _environment()

#: filters that make text of what they are given; ours goes first, so that None becomes '' and not 'None'
_TEXT_FILTERS = {
    *("capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "replace", "string"),
    *("striptags", "title", "trim", "truncate", "upper", "wordcount", "wordwrap"),
}
_NEEDS_A_LOADER = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def is_template(source: str) -> bool:
    """Has Jinja in it; else it is the same text for every row."""
    return any(mark in source for mark in ("{{", "{%", "{#"))


class RowTemplate:
    """A template whose syntax is known to be right. Which columns there are is `bind`'s business."""

    def __init__(self, argument: str, source: str) -> None:
        """Raises TemplateError naming the argument and the line."""
        self.argument = argument
        try:
            self._tree = _ENVIRONMENT.parse(source)
            self._check(self._tree)
            _prefer_our_text(self._tree)
            self._names = meta.find_undeclared_variables(self._tree)
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"{argument}, line {error.lineno}: {error.message} "
                "(Braces that are no template belong between {% raw %} and {% endraw %}.)"
            ) from error

    def bind(self, columns: Columns, context: Mapping[str, Any], *, as_text: bool) -> Leaf:
        """Compile for a query with these columns; `context` holds what else a template may name.

        With `as_text` the value is always str; without it, a lone expression keeps its type.
        Raises TemplateError for columns and names that are not there, even if no row will ever come.
        """
        named = self._check_columns(self._tree, columns)
        self._check_names(self._tree, context)
        value = self._compile(self._tree, columns, context)
        if as_text and _single_expression(self._tree) is not None:
            return Leaf(self.argument, lambda values: _to_text(value(values)), named)
        return Leaf(self.argument, value, named)

    def _check(self, tree: nodes.Template) -> None:
        def where(node: nodes.Node) -> str:
            return f"{self.argument}, line {node.lineno}"

        for node in tree.find_all(_NEEDS_A_LOADER):
            raise TemplateError(f"{where(node)}: a row template cannot include, import or extend another.")
        for name in tree.find_all(nodes.Name):
            if name.name == "row" and name.ctx != "load":
                raise TemplateError(f"{where(name)}: `row` is taken; name your variable otherwise.")
        for kind, known in ((nodes.Filter, _ENVIRONMENT.filters), (nodes.Test, _ENVIRONMENT.tests)):
            for used in tree.find_all(kind):
                if used.name not in known:
                    raise TemplateError(f"{where(used)}: there is no {kind.__name__.lower()} {used.name!r}.")

    def _check_columns(self, tree: nodes.Template, columns: Columns) -> tuple[str, ...]:
        named: dict[str, None] = {}
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            if _is_static_column(node):
                try:
                    named[columns.names[columns.index(_static_column(node))]] = None
                except UnknownColumnError as error:
                    raise TemplateError(f"{self.argument}, line {node.lineno}: {error}") from error
        return tuple(named)

    def _check_names(self, tree: nodes.Template, context: Mapping[str, Any]) -> None:
        known = {"row", *context, *_ENVIRONMENT.globals}
        for name in sorted(self._names - known - _asked_for(tree)):
            there = ", ".join(["row", *sorted(context)])
            raise TemplateError(
                f"{self.argument}: the name {name!r} is unknown. A row template knows {there}. "
                f"A column is written row.{name}; a name that not every run has, {name} | default('')."
            )

    @staticmethod
    def _compile(tree: nodes.Template, columns: Columns, context: Mapping[str, Any]) -> Callable[[Values], Any]:
        expression = _single_expression(tree)
        if expression is not None:
            if _is_static_column(expression):
                return itemgetter(columns.index(_static_column(expression)))
            return _jinja_value(expression, columns, context)
        parts = _plain_parts(tree)
        if parts is not None:
            return _joined([part if isinstance(part, str) else columns.index(_static_column(part)) for part in parts])
        return _jinja_text(tree, columns, context)


def _jinja_value(expression: nodes.Expr, columns: Columns, context: Mapping[str, Any]) -> Callable[[Values], Any]:
    # What Environment.compile_expression does, from a tree instead of text.
    assignment = nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)
    tree = nodes.Template([assignment], lineno=1)
    tree.set_environment(_ENVIRONMENT)
    compiled = TemplateExpression(_ENVIRONMENT.from_string(tree, globals=dict(context)), undefined_to_none=False)
    return lambda values: _defined(compiled(row=Row(columns, values)))


def _jinja_text(tree: nodes.Template, columns: Columns, context: Mapping[str, Any]) -> Callable[[Values], str]:
    render = _ENVIRONMENT.from_string(tree, globals=dict(context)).render
    return lambda values: render(row=Row(columns, values))


def _joined(parts: list[str | int]) -> Callable[[Values], str]:
    """Text with holes: a str stands for itself, an int for that column."""
    pattern = ["" if isinstance(part, int) else part for part in parts]
    holes = [(slot, part) for slot, part in enumerate(parts) if isinstance(part, int)]

    def render(values: Values) -> str:
        filled = pattern.copy()
        for slot, column in holes:
            value = values[column]
            filled[slot] = value if type(value) is str else text(value)
        return "".join(filled)

    return render


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    inner = [
        node for node in tree.body[0].nodes if not (isinstance(node, nodes.TemplateData) and not node.data.strip())
    ]
    return inner[0] if len(inner) == 1 and not isinstance(inner[0], nodes.TemplateData) else None


def _plain_parts(tree: nodes.Template) -> list[str | nodes.Expr] | None:
    """The literal texts and columns of a template that has nothing else in it."""
    parts: list[str | nodes.Expr] = []
    for output in tree.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                parts.append(node.data)
            elif _is_static_column(node):
                parts.append(node)
            else:
                return None
    return parts


def _is_static_column(node: nodes.Node) -> bool:
    return (
        isinstance(node, (nodes.Getattr, nodes.Getitem))
        and isinstance(node.node, nodes.Name)
        and node.node.name == "row"
        and (isinstance(node, nodes.Getattr) or isinstance(node.arg, nodes.Const))
    )


def _static_column(node: nodes.Node) -> Any:
    if isinstance(node, nodes.Getattr):
        return node.attr
    assert isinstance(node, nodes.Getitem)
    assert isinstance(node.arg, nodes.Const)
    return node.arg.value


def _asked_for(tree: nodes.Template) -> set[str]:
    """Names that the template asks about (`is defined`, `default`): their absence is no error."""
    asked = set()
    for node in tree.find_all((nodes.Test, nodes.Filter)):
        if node.name in ("defined", "undefined", "default", "d") and isinstance(node.node, nodes.Name):
            asked.add(node.node.name)
    return asked


def _prefer_our_text(tree: nodes.Template) -> None:
    """Let None be '' and JSON be JSON also where Jinja would call `str`: in `~` and in text filters."""

    def ours(node: nodes.Expr) -> nodes.Expr:
        wrapped = nodes.Filter(node, "text", [], [], None, None, lineno=node.lineno)
        wrapped.set_environment(_ENVIRONMENT)
        return wrapped

    for concat in tree.find_all(nodes.Concat):
        concat.nodes = [ours(node) for node in concat.nodes]
    for used in tree.find_all(nodes.Filter):
        if used.name in _TEXT_FILTERS and used.node is not None:
            used.node = ours(used.node)
