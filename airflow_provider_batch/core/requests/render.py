"""Render rows into requests.

`check` validates the row arguments without rows, for example when a DAG is parsed. `compile_renderer` binds them to the
columns of a query and returns a Renderer, which turns each row into a Request and keeps nothing in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import msgspec
from jinja2 import UndefinedError

from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import Form, LeafError, evaluate, leaves, replace_nodes
from airflow_provider_batch.core.requests.body_parameters import check_parameters, keys_with_problems
from airflow_provider_batch.core.requests.check import Arguments, FileArgument
from airflow_provider_batch.core.requests.endpoints import Endpoint
from airflow_provider_batch.core.requests.file_parts import (
    MAX_FILE_BYTES,
    ReadFile,
    check_size,
    file_part,
    text_part,
)
from airflow_provider_batch.core.requests.file_paths import Location, UnusableFileError, locate
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.row import Columns, UnknownColumnError
from airflow_provider_batch.core.requests.row_use import check_placeholders, check_row_use
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.template import Leaf, RowTemplate, Values
from airflow_provider_batch.core.requests.value import (
    UnusableValueError,
    canonical_json,
    has_lone_surrogate,
    is_blank,
    to_json_value,
    to_text,
)
from airflow_provider_batch.exceptions import CustomIdError, FileStoreError, InputError, TemplateError

__all__ = [
    "Problem",
    "Renderer",
    "Request",
    "RequestSpec",
    "check",
    "compile_renderer",
    "request_hashes",
    "request_lines",
]


class Problem(NamedTuple):
    """Why a row cannot be sent, although its neighbours can."""

    code: str
    #: a full sentence for a person
    message: str


class Request(msgspec.Struct, frozen=True):
    """One request. The endpoint is not part of it, since all requests of a job share it."""

    custom_id: str
    model: str
    #: canonical JSON in UTF-8, without a line end
    body: bytes
    #: number of inputs that count against the limit of a batch; more than 1 only for embeddings
    inputs: int
    #: outline that measures the request without parsing the body; None if there is none
    outline: Outline | None = None
    #: values that the row inserted into the body, for the outline
    leaf_values: Sequence[Any] = ()
    #: addresses of the files in the body
    files: tuple[str, ...] = ()
    #: why the row cannot be sent; its body then only identifies it
    problem: Problem | None = None


#: maximum number of files of a request
_MAX_FILES = 500
#: bytes of a line around the body: the custom_id, the method and the URL
_LINE_ENVELOPE = 1_000


def request_lines(custom_ids: Sequence[str], endpoint: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Return requests as lines of a batch input file, including the line ends."""
    before_body = _before_body(endpoint)
    lines = [
        b'{"custom_id":%b%b%b}\n' % (canonical_json(custom_id), before_body, body)
        for custom_id, body in zip(custom_ids, bodies, strict=True)
    ]
    return [line if line.isascii() else escape_line_separators(line) for line in lines]


def escape_line_separators(line: bytes) -> bytes:
    r"""Return a line of an input file with U+2028, U+2029 and U+0085 written as \u escapes.

    They are legal in JSON, but a server that splits the file at every Unicode line end would lose the request. JSON
    escapes all other characters at which such a server splits, because they are control characters. The request hash
    is computed from the body without these escapes, so it does not depend on them.
    """
    for first_byte, last_byte, character, escape in _LINE_SEPARATORS:
        # looking for a single byte is many times faster than looking for the character
        if first_byte in line and last_byte in line:
            line = line.replace(character, escape)
    return line


#: first and last byte in UTF-8, all bytes, and the JSON escape
_LINE_SEPARATORS = tuple(
    (encoded[0], encoded[-1], encoded, b"\\u%04x" % ord(character))
    for character in "\x85\u2028\u2029"
    for encoded in [character.encode()]
)


@cache
def _before_body(endpoint: str) -> bytes:
    return b',"method":"POST","url":%b,"body":' % canonical_json(endpoint)


def request_hashes(endpoint: str, bodies: Iterable[bytes]) -> list[str]:
    """Return the request hashes in hexadecimal. They cover the endpoint and the body, but not the custom_id."""
    hash_before_body = _hash_before_body(endpoint)
    hashes = []
    for body in bodies:
        digest = hash_before_body.copy()
        digest.update(body)
        hashes.append(digest.hexdigest())
    return hashes


@cache
def _hash_before_body(endpoint: str) -> hashlib._Hash:
    return hashlib.sha256(endpoint.encode() + b"\n")


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


class _Parts(NamedTuple):
    """The fields of a Request with the same names."""

    model: str
    body: bytes
    inputs: int
    outline: Outline | None = None
    leaf_values: Sequence[Any] = ()
    files: tuple[str, ...] = ()
    problem: Problem | None = None


class Renderer:
    """Renders each row into a Request."""

    def __init__(
        self,
        arguments: Arguments,
        columns: Columns,
        context: Mapping[str, Any],
        read_file: Callable[[Location], bytes] | None,
        max_bytes: int | None,
    ) -> None:
        self._columns = columns
        bind = _Binder(columns, context)
        self._files = [_bind_file(file, bind) for file in arguments.files]
        custom_id = bind(arguments.custom_id, as_text=False)
        self._custom_id = Leaf("custom_id", lambda values: _to_custom_id(evaluate(custom_id, values)))
        function = arguments.load_function()
        self._body: Callable[[Values], _Parts] = (
            _TemplateBody(arguments, bind, _FileParts(arguments, self._files, read_file, max_bytes))
            if function is None
            else _FunctionBody(arguments, bind, columns.names, function)
        )

    def __call__(self, row: Values, number: int) -> Request:
        """Return the request of a row. `number` counts the rows of the query from 1 and is used in errors.

        Raises InputError (TemplateError, CustomIdError) naming the row, and FileStoreError if its files cannot be read.
        """
        custom_id: str | None = None
        try:
            custom_id = evaluate(self._custom_id, row)
            parts = self._body(row)
        except LeafError as error:
            if isinstance(error.__cause__, FileStoreError):
                raise error.__cause__ from error.__cause__.__cause__
            raise self._row_error(error, row, number, custom_id) from error.__cause__
        return Request(custom_id, *parts)

    def locations(self, row: Values) -> list[Location]:
        """Return the files that a row names, as far as they can be determined, so that they can be read in advance."""
        try:
            return [location for file in self._files for location in file.locations(row)]
        except (LeafError, UnusableFileError, UnusableValueError):
            return []  # the row itself raises the error

    def _row_error(self, error: LeafError, row: Values, number: int, custom_id: str | None) -> InputError:
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

    def __call__(self, tree: Any, *, as_text: bool) -> Any:
        return replace_nodes(
            tree,
            RowTemplate,
            lambda template: template.bind(self._columns, self._context, as_text=as_text),
        )


class _TemplateBody:
    """Builds the body of a row from the templates in the arguments."""

    def __init__(self, arguments: Arguments, bind: _Binder, file_parts: _FileParts) -> None:
        self._endpoint = arguments.endpoint
        self._file_parts = file_parts
        key = self._endpoint.input_key
        body = _check_row_parameters(self._endpoint, bind(arguments.body, as_text=False))
        self._model = body["model"] = _require_model(
            body["model"] if arguments.model is None else bind(arguments.model, as_text=True)
        )
        prompt: Any = None
        self._input: Any
        if arguments.prompt is not None:
            self._input = prompt = _require_prompt(bind(arguments.prompt, as_text=True))
            if file_parts:
                prompt = file_parts.added_to(prompt)
        elif leaves(body.get(key)):
            self._input = body[key] = _require_input(self._endpoint, body[key])
        else:
            self._input = body.get(key)
        #: number of inputs of every row; None if it depends on the row
        self._inputs = (
            None
            if self._endpoint.counts_inputs and prompt is None and isinstance(self._input, Leaf)
            else endpoints.count_inputs(self._endpoint, self._input)
        )

        def create_form(system: Any) -> tuple[Form, Outline]:
            form = Form(endpoints.build_body(self._endpoint, body, arguments.spec, system=system, prompt=prompt))
            return form, Outline(self._endpoint.path, form)

        self._system = None if arguments.system is None else bind(arguments.system, as_text=True)
        self._with_system = create_form(self._system)
        self._without_system = create_form(None)

    def __call__(self, values: Values) -> _Parts:
        model = evaluate(self._model, values)
        system = evaluate(self._system, values)
        form, outline = self._without_system if is_blank(system) else self._with_system
        inputs = self._inputs
        if inputs is None:
            inputs = endpoints.count_inputs(self._endpoint, evaluate(self._input, values))
        if not self._file_parts:
            body, leaf_values = form.fill(values)
            return _Parts(model, body, inputs, outline, leaf_values)
        try:
            body, leaf_values = form.fill(values)
            self._file_parts.check_request_size(body)
        except (LeafError, UnusableFileError) as error:
            cause = error.__cause__ if isinstance(error, LeafError) else error
            if not isinstance(cause, UnusableFileError):
                raise
            problem = Problem(cause.code, cause.message)
            return _Parts(model, canonical_json({"model": model, "problem": list(problem)}), inputs, problem=problem)
        return _Parts(model, body, inputs, outline, leaf_values, self._file_parts.addresses)


class _BoundFile(NamedTuple):
    """A file argument, bound to the columns of a query."""

    argument: str
    path: Any
    root: Location
    detail: str | None

    def locations(self, values: Values) -> list[Location]:
        """Return the files that a row names. Raises UnusableFileError for one that is not below the root."""
        locations = []
        for path in _paths(evaluate(self.path, values)):
            location = locate(self.root, path)
            if location is not None:
                locations.append(location)
        return locations


def _bind_file(file: FileArgument, bind: _Binder) -> _BoundFile:
    argument = file.path.argument if isinstance(file.path, RowTemplate) else "files"
    return _BoundFile(argument, bind(file.path, as_text=False), file.root, file.detail)


def _paths(value: Any) -> list[str]:
    """Return the paths in the value of a template: one text, a list of texts, or the JSON of such a list."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with suppress(msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            value = msgspec.json.decode(value)
    if isinstance(value, (list, tuple)):
        paths = [to_text(item) for item in value]
        if len(paths) > _MAX_FILES:
            raise UnusableFileError(
                "file_path", f"The row names {len(paths):,} files, but a request may have at most {_MAX_FILES:,}."
            )
        return paths
    return [to_text(value)]


class _FileParts:
    """Adds the files of a row to its user message."""

    def __init__(
        self,
        arguments: Arguments,
        files: Sequence[_BoundFile],
        read_file: Callable[[Location], bytes] | None,
        max_bytes: int | None,
    ) -> None:
        self._endpoint = arguments.endpoint.path
        self._files = files
        self._read_file = read_file
        self._max_bytes = max_bytes
        #: addresses of the files of the last row
        self.addresses: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self._files)

    def added_to(self, prompt: Any) -> Leaf:
        """Return the content of the user message: the parts of the prompt, then the files of the row."""

        def content(values: Values) -> list[Any]:
            message = evaluate(prompt, values)
            parts = message if isinstance(message, list) else [text_part(self._endpoint, message)]
            return [*parts, *self._parts(values)]

        return Leaf("files", content, tuple(column for leaf in leaves(prompt) for column in leaf.columns))

    def check_request_size(self, body: bytes) -> None:
        """Raise UnusableFileError if the files make a request too large for any input file."""
        size = len(body) + _LINE_ENVELOPE
        if self.addresses and self._max_bytes is not None and size > self._max_bytes:
            raise UnusableFileError(
                "file_too_large",
                f"With {format_count(len(self.addresses), 'file')} ({', '.join(self.addresses)[:1_000]}), the request "
                f"has {size:,} bytes, but an input file may have at most {self._max_bytes:,}.",
            )

    def _parts(self, values: Values) -> list[dict[str, Any]]:
        assert self._read_file is not None
        locations = [(location, file.detail) for file in self._files for location in file.locations(values)]
        self.addresses = tuple(str(location) for location, _ in locations)
        parts, size = [], 0
        for location, detail in locations:
            content = self._read_file(location)
            size += len(content)
            if size > MAX_FILE_BYTES:
                check_size(location, len(content))
                raise UnusableFileError(
                    "file_too_large",
                    f"The {len(locations):,} files of the row ({', '.join(self.addresses)[:1_000]}) have more than "
                    f"{MAX_FILE_BYTES:,} bytes together, which the API does not take.",
                )
            parts.append(file_part(ReadFile(location, content), self._endpoint, detail))
        return parts


class _FunctionBody:
    """Builds the body of a row by calling the function `request` and adding its result to `body`."""

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
        self._model = None if arguments.model is None else _require_model(bind(arguments.model, as_text=True))
        self._request = Leaf("request", self._build)

    def __call__(self, values: Values) -> _Parts:
        model, body, inputs = evaluate(self._request, values)
        return _Parts(model, body, inputs)

    def _build(self, values: Values) -> tuple[str, bytes, int]:
        result = self._function(dict(zip(self._names, values, strict=True)))
        if not isinstance(result, Mapping):
            raise InputError(f"The function must return the request body as a dict, not {type(result).__name__}.")
        result = to_json_value(result, sort=False)
        base = evaluate(self._base, values)
        for key in result:
            if key in base:
                raise InputError(f"The function returned {key!r}, and the body sets it too. Give only one of them.")
        check_parameters(self._endpoint.path, {**base, **result})
        body = endpoints.build_body(
            self._endpoint, endpoints.check_body(self._endpoint, {**base, **result}, self._spec), self._spec
        )
        if is_blank(body.get("model")):
            if self._model is None:
                raise InputError("The function returned no 'model', and the argument `model` is not set.")
            body["model"] = evaluate(self._model, values)
        if not isinstance(body["model"], str):
            raise InputError(f"The function must return 'model' as a string, not {type(body['model']).__name__}.")
        key = self._endpoint.input_key
        if not endpoints.has_input(self._endpoint, body):
            raise InputError(f"The function returned no {key!r}, so the request has no input.")
        if key in body:
            endpoints.check_input(self._endpoint, body[key])
        return body["model"], canonical_json(body), endpoints.count_inputs(self._endpoint, body.get(key))


def _to_custom_id(value: Any) -> str:
    if isinstance(value, bool):
        raise CustomIdError(f"The value is the boolean {value}, which cannot identify a row. Use another column.")
    custom_id = to_text(value)
    if is_blank(custom_id):
        description = "NULL" if value is None else repr(custom_id)
        raise CustomIdError(
            f"The value is {description}, but every row needs its own id. Exclude such rows in the SQL, or use "
            "another column."
        )
    if has_lone_surrogate(custom_id):
        canonical_json(custom_id)  # raises the error that explains the problem
    return custom_id


def _require_model(model: Any) -> Any:
    """Return the model, or a leaf with the same value that raises InputError if it is blank."""
    if not isinstance(model, Leaf):
        return model

    def value(values: Values) -> str:
        name = to_text(model.value(values))
        if is_blank(name):
            raise InputError(
                "The model is empty, but every row needs one. Use COALESCE in the SQL or `| default` in the template."
            )
        return name

    return Leaf(model.argument, value, model.columns)


def _require_prompt(prompt: Any) -> Any:
    """Return the prompt with leaves that raise InputError for a row whose prompt is empty.

    In a list of content parts, a text may be blank as long as another part from a template is not: a second text, or an
    image. The URL of an image must never be blank.
    """
    texts = [leaf for leaf in leaves(prompt) if leaf.argument.endswith(".text")]
    has_other_leaves = len(leaves(prompt)) > len(texts)

    def require(leaf: Leaf) -> Leaf:
        group = texts if leaf in texts else [leaf]
        if group is texts and (has_other_leaves or leaf is not texts[0]):
            return leaf

        def value(values: Values) -> Any:
            leaf_value = leaf.value(values)
            if is_blank(leaf_value) and all(is_blank(member.value(values)) for member in group):
                raise endpoints.empty_input_error([column for member in group for column in member.columns])
            return leaf_value

        return Leaf(leaf.argument, value, leaf.columns)

    return replace_nodes(prompt, Leaf, require)


def _check_row_parameters(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with leaves that raise InputError if a parameter of a row asks for something that cannot land."""

    def require(key: str, tree: Any) -> Leaf:
        def value(values: Values) -> Any:
            parameter = evaluate(tree, values)
            check_parameters(endpoint.path, {key: parameter})
            return parameter

        return Leaf(f"body.{key}", value, tuple(column for leaf in leaves(tree) for column in leaf.columns))

    checked_keys = keys_with_problems(endpoint.path)
    return {key: require(key, tree) if key in checked_keys and leaves(tree) else tree for key, tree in body.items()}


def _require_input(endpoint: Endpoint, tree: Any) -> Leaf:
    """Return the input in `body` as a single leaf that checks the whole input of a row."""
    columns = [column for leaf in leaves(tree) for column in leaf.columns]

    def value(values: Values) -> Any:
        return endpoints.check_input(endpoint, evaluate(tree, values), columns)

    return Leaf(f"body.{endpoint.input_key}", value)
