"""Row templates: strings with Jinja in them, compiled once per query and rendered once per row.

Templates are written by the author of a DAG or by the person who fills in a trigger form. Row values are data and are
never interpreted as templates. There are three ways to render a template, from fast to slow, with the same result:

* A string without Jinja is sent unchanged.
* A string that contains only plain columns (`{{ row.title }}`, `{{ row['Title'] }}`) is joined without Jinja.
* Everything else is rendered by Jinja in an immutable sandbox, where an unknown name is an error.

A template that consists of exactly one expression, apart from surrounding whitespace, keeps the type of its value.
Every other template renders to text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from itertools import chain, repeat, takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from jinja2 import (
    Environment,
    StrictUndefined,
    TemplateSyntaxError,
    Undefined,
    filters,
    meta,
    nodes,
    pass_environment,
    pass_eval_context,
)
from jinja2.environment import TemplateExpression
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment

from airflow_provider_batch.core.requests import bounds
from airflow_provider_batch.core.requests.row import Columns, Row, UnknownColumnError, lookup
from airflow_provider_batch.core.requests.value import (
    SCALARS,
    UnusableValueError,
    reject_binary,
    reject_unprintable,
    to_json_text,
    to_text,
)
from airflow_provider_batch.exceptions import TemplateError

if TYPE_CHECKING:
    from jinja2.runtime import Context

#: values of one row, in the order of the columns
Values: TypeAlias = tuple[Any, ...]
#: maps rows to the value of a leaf for each of them
RowsFunction: TypeAlias = Callable[[Sequence[Values]], list[Any]]


class Leaf(msgspec.Struct, frozen=True):
    """A part of a request whose value depends on the row."""

    #: path of the argument that contains it, such as `prompt` or `body.metadata.team`
    argument: str
    #: function that maps rows to the value of the leaf for each of them
    values: RowsFunction
    #: columns that the template names; it may access more of them dynamically
    columns: tuple[str, ...] = ()

    def value(self, row: Values) -> Any:
        """Return the value of the leaf for one row."""
        return self.values([row])[0]


def one_by_one(function: Callable[[Values], Any]) -> RowsFunction:
    """Return a function that calls another one for each row."""
    return lambda rows: [function(row) for row in rows]


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox for row templates. `row.x` and `row['x']` always mean the column x, even if x is named `items`.

    Whatever can produce a large value is charged to the row: see `core.requests.bounds`.
    """

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(bounds.concat)

    def getattr(self, obj: Any, attribute: str) -> Any:
        return _column(obj, attribute) if type(obj) is Row else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        return _column(obj, argument) if type(obj) is Row else super().getitem(obj, argument)

    # Jinja's own names for the arguments would be reserved for the keywords of the call
    def call(__self, __context: Context, __function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        args = bounds.check_method(__function, args, kwargs)
        return bounds.charge_value(super().call(__context, __function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        format_text = super().wrap_str_format(value)
        if format_text is None:
            return None

        @wraps(format_text)
        def format_within_bounds(*args: Any, **kwargs: Any) -> str:
            mappings = (arg.values() for arg in args if isinstance(arg, Mapping))
            bounds.check_brace_format(value.__self__, [*args, *kwargs.values(), *chain.from_iterable(mappings)])
            return format_text(*args, **kwargs)

        return format_within_bounds


def _column(row: Row, name: Any) -> Any:
    # reject binary values here, before a filter can turn them into the text "b'...'"
    return reject_binary(lookup(row, name))


def _require_defined(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises an UndefinedError that names what is missing
    return value


def _text_filter(value: Any) -> str:
    if type(value) is str:
        return value  # takes no further memory until it is joined with other texts
    if type(value) in SCALARS:
        return to_text(value)  # short, and far cheaper than to look whether it is a mapping
    if isinstance(value, (Mapping, list, tuple)):
        bounds.charge_nested(value)
    text = to_text(_require_defined(value))
    if len(text) > _SHORT:
        bounds.charge(len(text))
    return text


def _tojson_filter(value: Any, indent: int | None = None) -> str:
    """Implement `tojson` for text that a model reads. Jinja's own filter escapes `<` and quotes for HTML."""
    bounds.charge_nested(value)
    encoded = to_json_text(_require_defined(value))
    if indent is not None and indent > _MAX_JSON_INDENT:
        raise TemplateError(f"tojson: The indent is {indent:,}, but it may be at most {_MAX_JSON_INDENT}.")
    return encoded if indent is None else msgspec.json.format(encoded, indent=indent)


def _fromjson_filter(value: Any) -> Any:
    """Implement `fromjson`, for warehouses that return JSON columns as text."""
    text = to_text(_require_defined(value))
    try:
        return msgspec.json.decode(text)
    except RecursionError as error:
        raise UnusableValueError(value, "The JSON is nested too deeply to be parsed. Flatten it in the SQL.") from error


@pass_environment
def _join_filter(environment: Environment, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return bounds.join_items(value, str(d))


@pass_environment
def _sum_filter(environment: Environment, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    if attribute is not None:
        iterable = map(make_attrgetter(environment, attribute), iterable)
    return bounds.add_up(iterable, start)


def _format_filter(value: Any, *args: Any, **kwargs: Any) -> str:
    bounds.check_percent_format(str(value), kwargs or args)
    return filters.do_format(value, *args, **kwargs)


def _pprint_filter(value: Any) -> str:
    bounds.charge_nested(value)
    reject_unprintable(value)
    return filters.do_pprint(value)


def _center_filter(value: str, width: int = 80) -> str:
    bounds.charge(width)
    return filters.do_center(value, width)


def _indent_filter(s: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    bounds.charge_indent(s, width)
    return filters.do_indent(s, width, first, blank)


@pass_eval_context
def _replace_filter(eval_context: nodes.EvalContext, s: str, old: str, new: str, count: int | None = None) -> str:
    bounds.charge_replace(s, str(old), str(new))
    return filters.do_replace(eval_context, s, old, new, count)


def _batch_filter(value: Any, linecount: int, fill_with: Any = None) -> Any:
    bounds.charge(linecount)
    return filters.do_batch(value, linecount, fill_with)


def _slice_filter(value: Any, slices: int, fill_with: Any = None) -> Any:
    bounds.charge(bounds.ITERATION_SIZE * slices)
    return filters.sync_do_slice(value, slices, fill_with)


@pass_environment
def _wordwrap_filter(
    environment: Environment,
    s: str,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> str:
    bounds.charge(len(s) * len(wrapstring or ""))
    return filters.do_wordwrap(environment, s, width, break_long_words, wrapstring, break_on_hyphens)


_BOUNDED_FILTERS: dict[str, Callable[..., Any]] = {
    "batch": _batch_filter,
    "center": _center_filter,
    "format": _format_filter,
    "indent": _indent_filter,
    "join": _join_filter,
    "pprint": _pprint_filter,
    "replace": _replace_filter,
    "slice": _slice_filter,
    "sum": _sum_filter,
    "wordwrap": _wordwrap_filter,
}
#: a number or date up to this many characters is charged only as a part of the whole text
_SHORT = 64
#: maximum indent of `tojson`, in spaces
_MAX_JSON_INDENT = 32
#: maximum depth of a template's syntax tree. Python's own parser ends at 200 brackets
MAX_DEPTH = 100
#: depth, and length in characters, up to which every template can be compiled. Others are compiled already when they
#: are parsed, to be sure
_SAFE_DEPTH, _SAFE_LENGTH = 15, 20_000


def _create_environment() -> _Environment:
    environment = _Environment(
        undefined=StrictUndefined,
        finalize=_text_filter,
        keep_trailing_newline=True,
        autoescape=False,
        optimized=False,
    )
    environment.binop_table.update({"+": bounds.add, "*": bounds.multiply, "**": bounds.power, "%": bounds.modulo})
    environment.filters["tojson"] = _tojson_filter
    environment.filters["fromjson"] = _fromjson_filter
    environment.filters.update(_BOUNDED_FILTERS)
    environment.filters.update({name: bounds.charged(function) for name, function in environment.filters.items()})
    environment.filters["text"] = _text_filter
    environment.filters[_LOOP_FILTER] = bounds.charge_loop
    environment.filters[_CONCAT_FILTER] = bounds.concat
    # A row must render to the same request every time. Otherwise its answer would be paid for twice.
    del environment.filters["random"], environment.globals["lipsum"]
    return environment


#: names of filters that no template can write
_LOOP_FILTER, _CONCAT_FILTER = " loop", " concat"
_ENVIRONMENT = _create_environment()

#: filters that convert their input to text; `_convert_with_text_filter` applies our `text` filter first, so that None
#: becomes '' instead of 'None'
_TEXT_FILTERS = {
    *("capitalize", "center", "e", "escape", "forceescape", "indent", "lower", "replace", "string"),
    *("striptags", "title", "trim", "truncate", "upper", "wordcount", "wordwrap"),
}
#: names that other tools, and typing errors, have for `row`
_ROW_ELSEWHERE = frozenset({"row", "rows", "record", "records", "item", "items", "r", "line", "df", "input", "ti"})
_LOADER_NODES = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)


def is_template(source: str) -> bool:
    """Return True if the text contains Jinja, so that it may differ from row to row."""
    return any(opening in source for opening in ("{{", "{%", "{#"))


class RowTemplate:
    """A template whose syntax has been checked. `bind` checks it against the columns of a query."""

    def __init__(self, argument: str, source: str) -> None:
        """Parse `source`. Raises TemplateError naming the argument and the line."""
        self.argument = argument
        try:
            self._tree = _ENVIRONMENT.parse(source)
            depth = _depth(self._tree)
            if depth > MAX_DEPTH:
                raise self._nesting_error()
            self._check(self._tree)
            _convert_with_text_filter(self._tree)
            self._names = _undeclared_names(self._tree)
            if depth > _SAFE_DEPTH or len(source) > _SAFE_LENGTH:
                _ENVIRONMENT.compile(self._tree)
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise self._nesting_error() from error
        except TemplateSyntaxError as error:
            raise TemplateError(
                f"{argument}, line {error.lineno}: The template has a syntax error: "
                f"{(error.message or 'unknown').rstrip('.')}. "
                "If the braces are literal text, put them between {% raw %} and {% endraw %}."
            ) from error

    @property
    def uses_row(self) -> bool:
        """Whether the template mentions the row, so that its value may differ from row to row."""
        return "row" in self._names

    @property
    def literals(self) -> list[str]:
        """The parts of the template that are plain text."""
        return [node.data for node in self._tree.find_all(nodes.TemplateData)]

    @property
    def literal_beginning(self) -> str:
        """The text before the first expression."""
        first = self._tree.body[0] if self._tree.body else None
        texts = first.nodes if isinstance(first, nodes.Output) else []
        data = (node.data if isinstance(node, nodes.TemplateData) else None for node in texts)
        return "".join(takewhile(lambda text: text is not None, data))  # type: ignore[arg-type]

    def check_names(self, context_names: Iterable[str]) -> None:
        """Check the names that the template uses. Raises TemplateError for one that no run of the DAG defines."""
        self._check_names(self._tree, context_names)

    def bind(self, columns: Columns, context: Mapping[str, Any], *, as_text: bool) -> Leaf:
        """Compile the template for a query with these columns. `context` holds the other names it may use.

        With `as_text` the value is always a str. Without it, a single expression keeps its type.
        Raises TemplateError for unknown columns and names, even if the query returns no rows.
        """
        bounds.start_watcher()
        column_names = self._check_columns(self._tree, columns)
        self._check_names(self._tree, context)
        try:
            values = self._compile(self._tree, columns, context)
        except (RecursionError, MemoryError, SyntaxError) as error:
            raise self._nesting_error() from error
        if as_text and _single_expression(self._tree) is not None:
            return Leaf(self.argument, lambda rows: list(map(_text_filter, values(rows))), column_names)
        return Leaf(self.argument, values, column_names)

    def _nesting_error(self) -> TemplateError:
        return TemplateError(
            f"{self.argument}: The template is nested too deeply. It may have at most {MAX_DEPTH} levels of brackets, "
            "operators, filters and blocks, and fewer than 20 loops inside each other. Divide it with {% set %}, or "
            "prepare the text in the SQL."
        )

    def _check(self, tree: nodes.Template) -> None:
        def location(node: nodes.Node) -> str:
            return f"{self.argument}, line {node.lineno}"

        for node in tree.find_all(_LOADER_NODES):
            raise TemplateError(f"{location(node)}: A row template cannot include, import or extend another template.")
        for name in tree.find_all(nodes.Name):
            if name.name == "row" and name.ctx != "load":
                raise TemplateError(f"{location(name)}: The name `row` is reserved. Rename your variable.")
        for kind, registry in ((nodes.Filter, _ENVIRONMENT.filters), (nodes.Test, _ENVIRONMENT.tests)):
            for call in tree.find_all(kind):
                if call.name not in registry:
                    raise TemplateError(f"{location(call)}: Jinja has no {kind.__name__.lower()} {call.name!r}.")

    def _check_columns(self, tree: nodes.Template, columns: Columns) -> tuple[str, ...]:
        names: dict[str, None] = {}
        for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
            if _is_static_column(node):
                try:
                    names[columns.names[columns.index(_static_column(node))]] = None
                except UnknownColumnError as error:
                    raise TemplateError(f"{self.argument}, line {node.lineno}: {error}") from error
        return tuple(names)

    def _check_names(self, tree: nodes.Template, context: Iterable[str]) -> None:
        available = {"row", *context, *_ENVIRONMENT.globals}
        for name in sorted(self._names - available - _optional_names(tree)):
            choices = ", ".join(["row", *sorted(context)])
            advice = (
                f"If {name} is a column, write row.{name}. If only some runs define it, write {name} | default('')."
            )
            if name.lower() in _ROW_ELSEWHERE and _has_attributes(tree, name):
                advice = "Did you mean row, as in '{{ row.id }}'?"
            raise TemplateError(
                f"{self.argument}: The name {name!r} is not defined. A row template can use {choices}. {advice}"
            )

    @staticmethod
    def _compile(tree: nodes.Template, columns: Columns, context: Mapping[str, Any]) -> RowsFunction:
        expression = _single_expression(tree)
        if expression is not None:
            if _is_static_column(expression):
                column = itemgetter(columns.index(_static_column(expression)))
                return lambda rows: list(map(column, rows))
            return one_by_one(_jinja_value(expression, columns, context))
        parts = _plain_parts(tree)
        if parts is not None:
            return _join([part if isinstance(part, str) else columns.index(_static_column(part)) for part in parts])
        return one_by_one(_jinja_text(tree, columns, context))


def _has_attributes(tree: nodes.Template, name: str) -> bool:
    """Return True if a template looks something up in a variable, as in name.column or name['column']."""
    lookups: list[nodes.Getattr | nodes.Getitem] = [*tree.find_all(nodes.Getattr), *tree.find_all(nodes.Getitem)]
    return any(isinstance(lookup.node, nodes.Name) and lookup.node.name == name for lookup in lookups)


def _jinja_value(expression: nodes.Expr, columns: Columns, context: Mapping[str, Any]) -> Callable[[Values], Any]:
    # the same as Environment.compile_expression, which accepts only text, not a tree
    assignment = nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)
    tree = nodes.Template([assignment], lineno=1)
    tree.set_environment(_ENVIRONMENT)
    evaluate = TemplateExpression(_ENVIRONMENT.from_string(tree, globals=dict(context)), undefined_to_none=False)
    return bounds.bounded(lambda values: _require_defined(evaluate(row=Row(columns, values))))


def _jinja_text(tree: nodes.Template, columns: Columns, context: Mapping[str, Any]) -> Callable[[Values], str]:
    render = _ENVIRONMENT.from_string(tree, globals=dict(context)).render
    return bounds.bounded(lambda values: render(row=Row(columns, values)))


def _join(parts: list[str | int]) -> RowsFunction:
    """Return a function that renders the parts for rows: a str is literal text, an int the index of a column."""

    def texts(part: str | int, rows: Sequence[Values]) -> Iterable[str]:
        if isinstance(part, str):
            return repeat(part, len(rows))
        return [value if type(value) is str else to_text(value) for value in map(itemgetter(part), rows)]

    return lambda rows: list(map("".join, zip(*[texts(part, rows) for part in parts], strict=True)))


def _single_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output):
        return None
    children = [
        node for node in tree.body[0].nodes if not (isinstance(node, nodes.TemplateData) and not node.data.strip())
    ]
    return children[0] if len(children) == 1 and not isinstance(children[0], nodes.TemplateData) else None


def _plain_parts(tree: nodes.Template) -> list[str | nodes.Expr] | None:
    """Return the literal texts and columns of a template, or None if it contains anything else."""
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


def _optional_names(tree: nodes.Template) -> set[str]:
    """Return the names that the template handles as possibly undefined (`is defined`, `| default`)."""
    names = set()
    for node in tree.find_all((nodes.Test, nodes.Filter)):
        if node.name in ("defined", "undefined", "default", "d") and isinstance(node.node, nodes.Name):
            names.add(node.node.name)
    return names


def _convert_with_text_filter(tree: nodes.Template) -> None:
    """Apply our `text` filter where Jinja would call `str`, that is in `~` and before text filters.

    None then renders as '' and lists and dicts as JSON, as they do everywhere else.
    """
    for concat in tree.find_all(nodes.Concat):
        texts = nodes.List([_filtered(node, "text") for node in concat.nodes], lineno=concat.lineno)
        # the only node, so that Jinja joins nothing itself
        concat.nodes = [_filtered(texts, _CONCAT_FILTER)]
    for loop in tree.find_all(nodes.For):
        loop.iter = _filtered(loop.iter, _LOOP_FILTER)  # type: ignore[arg-type]
    for filter_node in tree.find_all(nodes.Filter):
        if filter_node.name in _TEXT_FILTERS and filter_node.node is not None:
            filter_node.node = _filtered(filter_node.node, "text")


def _filtered(node: nodes.Expr, name: str) -> nodes.Expr:
    filter_node = nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
    filter_node.set_environment(_ENVIRONMENT)
    return filter_node


def _undeclared_names(tree: nodes.Template) -> set[str]:
    """Return what `meta.find_undeclared_variables` returns.

    That function always optimizes the template, and its time grows with the cube of the depth of an expression.
    """
    generator = meta.TrackingCodeGenerator(_ENVIRONMENT)
    generator.optimizer = None
    generator.visit(tree)
    return generator.undeclared_identifiers


def _depth(tree: nodes.Node) -> int:
    depth = 0
    level = [tree]
    while level:
        depth += 1
        level = [child for node in level for child in node.iter_child_nodes()]
    return depth
