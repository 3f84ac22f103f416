"""Checks of the row arguments that need no rows.

The checked arguments are trees: dicts, lists and plain values, as in JSON, with a RowTemplate in place of every string
that contains Jinja.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, NamedTuple

import msgspec

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import replace_nodes
from airflow_provider_batch.core.requests.body_parameters import check_parameters, check_spelling
from airflow_provider_batch.core.requests.file_parts import DETAILS
from airflow_provider_batch.core.requests.file_paths import Location, parse_root
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.template import RowTemplate, is_template
from airflow_provider_batch.core.requests.value import UnusableValueError, canonical_json, is_blank, to_json_value
from airflow_provider_batch.exceptions import CustomIdError, InputError


class FileArgument(NamedTuple):
    """A file that is added to the user message of each row."""

    path: RowTemplate | str
    #: folder below which the file must be
    root: Location
    #: resolution at which the model sees it; None for the default
    detail: str | None


class Arguments:
    """The arguments of a RequestSpec, checked and parsed into trees."""

    def __init__(self, spec: RequestSpec) -> None:
        """Check the arguments. Raises InputError (TemplateError, CustomIdError) naming the argument."""
        # a trigger form sends "" for a system message that was left empty
        spec = msgspec.structs.replace(spec, system=None) if spec.system == "" else spec
        self.spec = spec
        self.endpoint = endpoints.find(spec.endpoint)
        if spec.custom_id is None:
            raise CustomIdError(
                "custom_id: This argument is required. Give a row template for the column that identifies a row, for "
                "example '{{ row.id }}'."
            )
        self.custom_id = _parse_text("custom_id", spec.custom_id)
        self.model = None if spec.model is None else _parse_text("model", spec.model)
        self.system = None if spec.system is None else _parse_text("system", spec.system)
        self.prompt = None if spec.prompt is None else self._parse_prompt(spec.prompt)
        self.body: dict[str, Any] = {} if spec.body is None else _parse_body(spec.body)
        self.files = [] if spec.files is None else self._parse_files(spec.files, spec.files_root)
        self._check_support()
        self._check_conflicts()
        self._check_presence()

    def load_function(self) -> Callable[[dict[str, Any]], Any] | None:
        """Return the function `request`, imported if it is an import path. Raises InputError."""
        request = self.spec.request
        if not isinstance(request, str):
            return request
        module, attribute = _split_import_path(request)
        try:
            function = reduce(getattr, attribute.split("."), importlib.import_module(module))
        except Exception as error:
            raise InputError(
                f"request: Cannot import {request!r}: {type(error).__name__}: {str(error).rstrip('.')}."
            ) from error
        if not callable(function):
            raise InputError(f"request: {request!r} must be a function, but it is a {type(function).__name__}.")
        return function

    def _parse_prompt(self, prompt: Any) -> Any:
        if isinstance(prompt, str):
            tree = _parse_tree("prompt", prompt)
        elif isinstance(prompt, (list, tuple)):
            texts = self.endpoint.takes_texts and all(isinstance(item, str) for item in prompt)
            parts = self.endpoint.takes_parts and all(isinstance(item, Mapping) for item in prompt)
            if prompt and not texts and not parts:
                kinds = [
                    *(["content parts (dicts)"] if self.endpoint.takes_parts else []),
                    *(["strings"] if self.endpoint.takes_texts else []),
                ]
                expected = f"a string or a list of {' or '.join(kinds)}" if kinds else "a string"
                raise InputError(f"prompt: {self.endpoint.path} expects {expected}.")
            tree = _parse_tree("prompt", prompt)
        else:
            raise InputError(f"prompt: Expected a string or a list, got {type(prompt).__name__}.")
        if is_blank(tree) or (isinstance(tree, list) and any(is_blank(item) for item in tree)):
            raise InputError("prompt: The prompt must not be empty.")
        return tree

    def _parse_files(self, files: Any, files_root: str | None) -> list[FileArgument]:
        if not self.endpoint.takes_files:
            raise InputError(f"files: {self.endpoint.path} does not support this argument. Remove it.")
        if self.spec.request is not None:
            raise InputError(
                "files: This argument cannot be combined with `request`, which builds the whole request. Give only one "
                "of them."
            )
        if self.spec.prompt is None:
            raise InputError(
                "files: The files are added to the user message, so the argument `prompt` is required. It says what to "
                "do with them, for example prompt='Describe the photo.'"
            )
        items = files if isinstance(files, (list, tuple)) else [files]
        if not items:
            raise InputError("files: The list is empty. Give at least one row template, or remove the argument.")
        root = None if files_root is None else parse_root("files_root", _as_folder(files_root))
        names = ["files"] if items is not files else [f"files[{position}]" for position in range(len(items))]
        return [_parse_file(name, item, root) for name, item in zip(names, items, strict=True)]

    def _check_support(self) -> None:
        spec, endpoint = self.spec, self.endpoint
        for name, value, key in (
            ("system", spec.system, endpoint.system_key),
            ("output_schema", spec.output_schema, endpoint.schema_key),
            ("max_output_tokens", spec.max_output_tokens, endpoint.cap_keys),
        ):
            if value is not None and not key:
                raise InputError(f"{name}: {endpoint.path} does not support this argument. Remove it.")
        if spec.output_schema is not None:
            if not isinstance(spec.output_schema, dict):
                raise InputError(
                    f"output_schema: Expected a JSON Schema as a dict, got {type(spec.output_schema).__name__}."
                )
            _parse_constant("output_schema", spec.output_schema)
        cap = spec.max_output_tokens
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
            raise InputError(f"max_output_tokens: Expected a whole number of at least 1, got {cap!r}.")

    def _check_conflicts(self) -> None:
        spec = self.spec
        if spec.request is not None:
            if isinstance(spec.request, str):
                _split_import_path(spec.request)
            elif not callable(spec.request):
                raise InputError(f"request: Expected a function or its import path, got {type(spec.request).__name__}.")
            elif not _takes_a_row(spec.request):
                raise InputError(
                    f"request: Expected a function that takes the row, such as `def build(row): …`, got "
                    f"{shorten(spec.request)}, which takes other arguments."
                )
            for name, value in (("prompt", spec.prompt), ("system", spec.system)):
                if value is not None:
                    raise InputError(
                        f"{name}: This argument cannot be combined with `request`, which builds the whole request. "
                        "Give only one of them."
                    )
        if "model" in self.body and spec.model is not None:
            raise InputError("body: The argument `model` sets the model, and so does the body. Give only one of them.")
        try:
            endpoints.check_body(self.endpoint, self.body, spec)
            check_spelling(self.endpoint.path, self.body)
            constants = {key: tree for key, tree in self.body.items() if is_constant(tree)}
            check_parameters(self.endpoint.path, constants, is_constant=True)
        except InputError as error:
            raise InputError(f"body: {error}") from error

    def _check_presence(self) -> None:
        if self.spec.request is not None:
            return
        if self.model is None and "model" not in self.body:
            raise InputError("model: No model is given. Set the argument `model`, or 'model' in the body.")
        if self.prompt is None and not endpoints.has_input(self.endpoint, self.body):
            raise InputError(
                "prompt: The requests would have no input. "
                f"Set the argument `prompt`, or {self.endpoint.input_key!r} in the body, or the argument `request`."
            )
        key = self.endpoint.input_key
        if key in self.body and is_constant(self.body[key]):
            try:
                endpoints.check_input(self.endpoint, self.body[key], None)
            except InputError as error:
                raise InputError(f"body.{key}: {error}") from error


def _takes_a_row(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    except ValueError:
        return True  # a function in C may have no signature
    return True


def is_constant(tree: Any) -> bool:
    """Return True if the tree contains no templates, so that it is the same for every row."""
    templates: list[RowTemplate] = []
    replace_nodes(tree, RowTemplate, templates.append)
    return not templates


def _parse_file(name: str, item: Any, root: Location | None) -> FileArgument:
    detail = None
    if isinstance(item, Mapping):
        unknown_keys = [key for key in item if key not in ("path", "detail")]
        if unknown_keys or "path" not in item:
            problem = f"has no key {unknown_keys[0]!r}" if unknown_keys else "needs the key 'path'"
            raise InputError(f"{name}: The dict of a file {problem}. Its keys are 'path' and 'detail'.")
        item, detail, name = item["path"], item.get("detail"), f"{name}.path"
        if detail is not None and detail not in DETAILS:
            raise InputError(f"{name}: 'detail' must be one of {', '.join(DETAILS)}, not {shorten(detail)}.")
    path = _parse_text(name, item)
    if isinstance(path, str) and path.endswith("/"):
        raise InputError(
            f"{name}: {shorten(path)} is a folder. Add the name of the file, for example {path + '{{ row.photo }}'!r}."
        )
    if root is None:
        beginning = item if isinstance(path, str) else path.literal_beginning
        if not beginning.strip():
            raise InputError(
                f"{name}: The path comes from the row as a whole, so a row could name any file. Set files_root to the "
                "address of the folder that contains the files, such as files_root='s3://aws_default@bucket/photos/', "
                "or begin the template with it."
            )
        root = parse_root(name, beginning)
    return FileArgument(path, root, detail)


def _as_folder(files_root: Any) -> str:
    if not isinstance(files_root, str) or not files_root.strip():
        raise InputError(f"files_root: Expected the address of a folder, got {shorten(files_root)}.")
    if is_template(files_root) and re.search(r"\brow\b", files_root):
        raise InputError(
            f"files_root: {shorten(files_root)} mentions the row, but the folder is the same for every row. Write the "
            "part that depends on the row into `files`; its paths may be relative to files_root."
        )
    return files_root if files_root.endswith("/") else f"{files_root}/"


def _parse_text(argument: str, source: Any) -> RowTemplate | str:
    if not isinstance(source, str):
        raise InputError(f"{argument}: Expected a string, which may be a row template, got {type(source).__name__}.")
    if is_blank(source):
        kind = CustomIdError if argument == "custom_id" else InputError
        raise kind(f"{argument}: The value must not be empty.")
    tree = _parse_tree(argument, source)
    assert isinstance(tree, (RowTemplate, str))
    return tree


def _parse_body(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise InputError(f"body: Expected a dict, got {type(body).__name__}.")
    tree = _parse_tree("body", body)
    assert isinstance(tree, dict)
    model = tree.get("model", "-")
    if is_blank(model) or not isinstance(model, (str, RowTemplate)):
        raise InputError(f"body.model: Expected the name of a model, got {model!r}.")
    return tree


def _parse_tree(argument: str, value: Any) -> Any:
    if isinstance(value, str):
        constant = _parse_constant(argument, value)
        return RowTemplate(argument, value) if is_template(value) else constant
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{argument}: The key {key!r} is not a string. Keys of JSON objects must be strings.")
        return {key: _parse_tree(f"{argument}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_parse_tree(f"{argument}[{position}]", item) for position, item in enumerate(value)]
    return _parse_constant(argument, value)


def _parse_constant(argument: str, value: Any) -> Any:
    try:
        canonical_json(value)
        return to_json_value(value, sort=False)
    except UnusableValueError as error:
        raise InputError(f"{argument}: {error}") from error


def _split_import_path(path: str) -> tuple[str, str]:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(name.isidentifier() for name in [*module.split("."), *attribute.split(".")]):
        raise InputError(f"request: Expected an import path such as 'package.module:function', got {shorten(path)}.")
    return module, attribute
