"""Row -> request.

`check` says everything that can be said before there are rows. `compile_renderer` binds the arguments to the
columns of a query; the Renderer it gives makes one Request of every row, and keeps nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeAlias

import msgspec
from jinja2 import UndefinedError

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import Form, LeafError, leaves, replaced, value_of
from airflow_provider_batch.core.requests.check import Arguments
from airflow_provider_batch.core.requests.endpoints import Endpoint
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.row import Columns, UnknownColumnError
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.template import Leaf, RowTemplate, Values
from airflow_provider_batch.core.requests.value import UnusableError, as_json, canonical, is_blank, is_broken, text
from airflow_provider_batch.exceptions import CustomIdError, InputError, TemplateError

__all__ = [
    "Renderer",
    "Request",
    "RequestSpec",
    "check",
    "compile_renderer",
    "request_line",
    "request_sha256",
]


class Request(msgspec.Struct, frozen=True):
    """One request, apart from the endpoint that the whole job shares."""

    custom_id: str
    model: str
    #: canonical JSON in UTF-8, without a line end
    body: bytes
    #: what counts against the limit of inputs of a batch: 1, or as many as an embeddings request has
    inputs: int
    #: what is known of it without reading the body, and the values that its row filled in; None: nothing is
    outline: Outline | None = None
    leaf_values: Sequence[Any] = ()


def request_line(custom_id: str, endpoint: str, body: bytes) -> bytes:
    """The request as a line of a batch input file, with its line end."""
    return b"".join((b'{"custom_id":', canonical(custom_id), _before_body(endpoint), body, b"}\n"))


@cache
def _before_body(endpoint: str) -> bytes:
    return b',"method":"POST","url":%b,"body":' % canonical(endpoint)


def request_sha256(endpoint: str, body: bytes) -> str:
    """The request hash, in hex: what is asked, without who asks."""
    digest = _hash_before_body(endpoint).copy()
    digest.update(body)
    return digest.hexdigest()


@cache
def _hash_before_body(endpoint: str) -> hashlib._Hash:
    return hashlib.sha256(endpoint.encode() + b"\n")


def check(spec: RequestSpec) -> None:
    """Find everything that is wrong with the arguments themselves, without rows.

    Raises InputError (TemplateError for a template's syntax) naming the argument.
    """
    Arguments(spec)


def compile_renderer(spec: RequestSpec, columns: Sequence[str], context: Mapping[str, Any]) -> Renderer:
    """A renderer for rows of a query with these columns.

    `context` is what templates may name beside `row`: plain values only. Raises like `check`, and for columns
    and names that a template uses and that are not there, even if the query will return no row.
    """
    for name, value in context.items():
        try:
            as_json(value, sort=False)
        except UnusableError as error:
            raise InputError(f"{name}: row templates are given plain values only: {error}") from error
    return Renderer(Arguments(spec), Columns(columns), context)


#: of a request: model, body, inputs, outline, given
_Asked: TypeAlias = tuple[str, bytes, int, Outline | None, Sequence[Any]]


class Renderer:
    """Makes one Request of every row."""

    def __init__(self, arguments: Arguments, columns: Columns, context: Mapping[str, Any]) -> None:
        self._columns = columns
        bind = _Binder(columns, context)
        given = bind(arguments.custom_id, as_text=False)
        self._custom_id = Leaf("custom_id", lambda values: _custom_id(value_of(given, values)))
        function = arguments.function()
        self._body: Callable[[Values], _Asked] = (
            _TemplateBody(arguments, bind)
            if function is None
            else _FunctionBody(arguments, bind, columns.names, function)
        )

    def __call__(self, row: Values, number: int) -> Request:
        """Raises InputError (TemplateError, CustomIdError) naming the row by its number, counted from 1."""
        custom_id: str | None = None
        try:
            custom_id = value_of(self._custom_id, row)
            model, body, inputs, outline, given = self._body(row)
        except LeafError as error:
            raise self._explained(error, row, number, custom_id) from error.__cause__
        return Request(custom_id, model, body, inputs, outline, given)

    def _explained(self, error: LeafError, row: Values, number: int, custom_id: str | None) -> InputError:
        cause, argument = error.__cause__, error.leaf.argument
        kind: type[InputError] = CustomIdError if argument == "custom_id" else TemplateError
        said = f"{type(cause).__name__}: {cause}"
        if isinstance(cause, InputError):
            kind, said = type(cause), str(cause)
        elif isinstance(cause, UnusableError):
            said = f"{self._culprit(cause, row)}{cause}"
        elif isinstance(cause, (UnknownColumnError, UndefinedError)):
            said = str(cause)
        who = f"row {number}" if custom_id is None else f"row {number} (custom_id {custom_id!r})"
        return kind(f"{who}: {argument}: {said}")

    def _culprit(self, error: UnusableError, row: Values) -> str:
        broken = is_broken(error.value)
        for column, value in zip(self._columns.names, row, strict=True):
            if value is error.value or (broken and is_broken(value)):
                return f"column {column!r}: "
        return ""


class _Binder:
    """Turns the templates of a tree into leaves of one query."""

    def __init__(self, columns: Columns, context: Mapping[str, Any]) -> None:
        self._columns = columns
        self._context = context

    def __call__(self, tree: Any, *, as_text: bool) -> Any:
        return replaced(
            tree,
            RowTemplate,
            lambda template: template.bind(self._columns, self._context, as_text=as_text),
        )


class _TemplateBody:
    """What a row asks, from templates."""

    def __init__(self, arguments: Arguments, bind: _Binder) -> None:
        self._endpoint = arguments.endpoint
        key = self._endpoint.input_key
        body = bind(arguments.body, as_text=False)
        self._model = body["model"] = _required_model(
            body["model"] if arguments.model is None else bind(arguments.model, as_text=True)
        )
        prompt: Any = None
        self._asked: Any
        if arguments.prompt is not None:
            self._asked = prompt = _required_prompt(bind(arguments.prompt, as_text=True))
        elif leaves(body.get(key)):
            self._asked = body[key] = _required_input(self._endpoint, body[key])
        else:
            self._asked = body.get(key)
        #: how many inputs every row has; None if that differs
        self._inputs = (
            None
            if self._endpoint.counts_inputs and prompt is None and isinstance(self._asked, Leaf)
            else endpoints.count_inputs(self._endpoint, self._asked)
        )

        def form(system: Any) -> tuple[Form, Outline]:
            made = Form(endpoints.filled(self._endpoint, body, arguments.spec, system=system, prompt=prompt))
            return made, Outline(self._endpoint.path, made)

        self._system = None if arguments.system is None else bind(arguments.system, as_text=True)
        self._with_system = form(self._system)
        self._without_system = form(None)

    def __call__(self, values: Values) -> _Asked:
        model = value_of(self._model, values)
        system = value_of(self._system, values)
        form, outline = self._without_system if is_blank(system) else self._with_system
        inputs = self._inputs
        if inputs is None:
            inputs = endpoints.count_inputs(self._endpoint, value_of(self._asked, values))
        body, given = form.fill(values)
        return model, body, inputs, outline, given


class _FunctionBody:
    """What a row asks, from the function `request` on top of `body`."""

    def __init__(
        self,
        arguments: Arguments,
        bind: _Binder,
        names: Sequence[str],
        function: Callable[[dict[str, Any]], Any],
    ) -> None:
        self._endpoint = arguments.endpoint
        self._spec = arguments.spec
        self._names = names
        self._function = function
        self._base = bind(arguments.body, as_text=False)
        self._model = None if arguments.model is None else _required_model(bind(arguments.model, as_text=True))
        self._request = Leaf("request", self._build)

    def __call__(self, values: Values) -> _Asked:
        model, body, inputs = value_of(self._request, values)
        return model, body, inputs, None, ()

    def _build(self, values: Values) -> tuple[str, bytes, int]:
        made = self._function(dict(zip(self._names, values, strict=True)))
        if not isinstance(made, Mapping):
            raise InputError(f"it returned {type(made).__name__}; it must return the body, a dict.")
        made = as_json(made, sort=False)
        base = value_of(self._base, values)
        for key in made:
            if key in base:
                raise InputError(f"it returned {key!r}, which body has too. Give only one of them.")
        body = endpoints.filled(
            self._endpoint, endpoints.checked(self._endpoint, {**base, **made}, self._spec), self._spec
        )
        if is_blank(body.get("model")):
            if self._model is None:
                raise InputError("it returned no 'model', and the argument model is not given.")
            body["model"] = value_of(self._model, values)
        if not isinstance(body["model"], str):
            raise InputError(f"its 'model' is a {type(body['model']).__name__}, not text.")
        key = self._endpoint.input_key
        if not endpoints.has_input(self._endpoint, body):
            raise InputError(f"it returned no {key!r}: nothing would be asked.")
        asked = body.get(key)
        if key in body:
            endpoints.checked_input(self._endpoint, asked)
        return body["model"], canonical(body), endpoints.count_inputs(self._endpoint, asked)


def _custom_id(value: Any) -> str:
    if isinstance(value, bool):
        raise CustomIdError(f"is the boolean {value}, which cannot tell rows apart.")
    custom_id = text(value)
    if is_blank(custom_id):
        found = "NULL" if value is None else repr(custom_id)
        raise CustomIdError(
            f"is {found}. Every row needs its own: leave such rows out in the SQL, or name another column."
        )
    if is_broken(custom_id):
        canonical(custom_id)
    return custom_id


def _required_model(model: Any) -> Any:
    """A model, or the leaf of one, that is never blank."""
    if not isinstance(model, Leaf):
        return model

    def value(values: Values) -> str:
        name = text(model.value(values))
        if is_blank(name):
            raise InputError("is empty. Every row needs one: use COALESCE in the SQL, or `| default`.")
        return name

    return Leaf(model.argument, value, model.columns)


def _required_prompt(prompt: Any) -> Any:
    """A prompt that is an error when there is nothing in it.

    In a list of content parts a text may be blank as long as not all texts from templates are; an image's
    address may not.
    """
    texts = [leaf for leaf in leaves(prompt) if leaf.argument.endswith(".text")]
    others = len(leaves(prompt)) > len(texts)

    def required(leaf: Leaf) -> Leaf:
        group = texts if leaf in texts else [leaf]
        if group is texts and (others or leaf is not texts[0]):
            return leaf

        def value(values: Values) -> Any:
            given = leaf.value(values)
            if is_blank(given) and all(is_blank(member.value(values)) for member in group):
                raise endpoints.empty_input([column for member in group for column in member.columns])
            return given

        return Leaf(leaf.argument, value, leaf.columns)

    return replaced(prompt, Leaf, required)


def _required_input(endpoint: Endpoint, given: Any) -> Leaf:
    """What `body` asks, as one leaf, so that it can be looked at as a whole."""
    columns = [column for leaf in leaves(given) for column in leaf.columns]

    def value(values: Values) -> Any:
        return endpoints.checked_input(endpoint, value_of(given, values), columns)

    return Leaf(f"body.{endpoint.input_key}", value)
