"""The row arguments of a job, checked as far as that is possible without rows.

A tree here is what JSON is made of, with a RowTemplate wherever a text has Jinja in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import msgspec

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import replaced
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.requests.template import RowTemplate, is_template
from airflow_provider_batch.core.requests.value import UnusableError, as_json, canonical, is_blank
from airflow_provider_batch.exceptions import CustomIdError, InputError


class Arguments:
    """The arguments of a RequestSpec as trees. Raises InputError (TemplateError) naming the argument."""

    def __init__(self, spec: RequestSpec) -> None:
        # A form gives '' for a system message that was not typed in.
        spec = msgspec.structs.replace(spec, system=None) if spec.system == "" else spec
        self.spec = spec
        self.endpoint = endpoints.find(spec.endpoint)
        if spec.custom_id is None:
            raise CustomIdError("custom_id is missing. Name the column that identifies a row, as in '{{ row.id }}'.")
        self.custom_id = _text("custom_id", spec.custom_id)
        self.model = None if spec.model is None else _text("model", spec.model)
        self.system = None if spec.system is None else _text("system", spec.system)
        self.prompt = None if spec.prompt is None else self._prompt(spec.prompt)
        self.body: dict[str, Any] = {} if spec.body is None else _body(spec.body)
        self._check_support()
        self._check_conflicts()
        self._check_presence()

    def function(self) -> Callable[[dict[str, Any]], Any] | None:
        """`request` itself, imported if it is a path. Raises InputError."""
        request = self.spec.request
        if not isinstance(request, str):
            return request
        module, attribute = _import_path(request)
        try:
            found = reduce(getattr, attribute.split("."), importlib.import_module(module))
        except Exception as error:
            raise InputError(f"request: cannot import {request!r}: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise InputError(f"request: {request!r} is a {type(found).__name__}, not a function.")
        return found

    def _prompt(self, prompt: Any) -> Any:
        if isinstance(prompt, str):
            tree = _tree("prompt", prompt)
        elif isinstance(prompt, (list, tuple)):
            texts = self.endpoint.takes_texts and all(isinstance(item, str) for item in prompt)
            parts = self.endpoint.takes_parts and all(isinstance(item, Mapping) for item in prompt)
            if prompt and not texts and not parts:
                kinds = [
                    *(["content parts (objects)"] if self.endpoint.takes_parts else []),
                    *(["texts"] if self.endpoint.takes_texts else []),
                ]
                wanted = f"text or a list of {' or '.join(kinds)}" if kinds else "text"
                raise InputError(f"prompt: {self.endpoint.path} wants {wanted}.")
            tree = _tree("prompt", prompt)
        else:
            raise InputError(f"prompt: must be text or a list, not {type(prompt).__name__}.")
        if is_blank(tree) or (isinstance(tree, list) and any(is_blank(item) for item in tree)):
            raise InputError("prompt: is empty.")
        return tree

    def _check_support(self) -> None:
        spec, endpoint = self.spec, self.endpoint
        for name, value, key in (
            ("system", spec.system, endpoint.system_key),
            ("output_schema", spec.output_schema, endpoint.schema_key),
            ("max_output_tokens", spec.max_output_tokens, endpoint.cap_keys),
        ):
            if value is not None and not key:
                raise InputError(f"{name}: {endpoint.path} has nothing like it. Leave it out.")
        if spec.output_schema is not None:
            if not isinstance(spec.output_schema, dict):
                raise InputError(f"output_schema: must be a JSON Schema here, not {type(spec.output_schema).__name__}.")
            _json("output_schema", spec.output_schema)
        cap = spec.max_output_tokens
        if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
            raise InputError(f"max_output_tokens: must be a whole number of at least 1, not {cap!r}.")

    def _check_conflicts(self) -> None:
        spec = self.spec
        if spec.request is not None:
            if isinstance(spec.request, str):
                _import_path(spec.request)
            elif not callable(spec.request):
                raise InputError(f"request: must be a function or its import path, not {type(spec.request).__name__}.")
            for name, value in (("prompt", spec.prompt), ("system", spec.system)):
                if value is not None:
                    raise InputError(f"{name}: request builds what is asked; give only one of request and {name}.")
        if "model" in self.body and spec.model is not None:
            raise InputError("body: 'model' is also given as the argument model. Give only one of them.")
        try:
            endpoints.checked(self.endpoint, self.body, spec)
        except InputError as error:
            raise InputError(f"body: {error}") from error

    def _check_presence(self) -> None:
        if self.spec.request is not None:
            return
        if self.model is None and "model" not in self.body:
            raise InputError("model: is missing. Give it as the argument model or in body.")
        if self.prompt is None and not endpoints.has_input(self.endpoint, self.body):
            raise InputError(
                f"prompt: nothing is asked. Give prompt, or {self.endpoint.input_key!r} in body, or request."
            )
        key = self.endpoint.input_key
        if key in self.body and is_constant(self.body[key]):
            try:
                endpoints.checked_input(self.endpoint, self.body[key])
            except InputError as error:
                raise InputError(f"body.{key}: {error}") from error


def is_constant(tree: Any) -> bool:
    """Without templates: the same for every row."""
    found: list[RowTemplate] = []
    replaced(tree, RowTemplate, found.append)
    return not found


def _text(argument: str, source: Any) -> RowTemplate | str:
    if not isinstance(source, str):
        raise InputError(f"{argument}: must be text, a row template, not {type(source).__name__}.")
    if is_blank(source):
        raise (CustomIdError if argument == "custom_id" else InputError)(f"{argument}: is empty.")
    tree = _tree(argument, source)
    assert isinstance(tree, (RowTemplate, str))
    return tree


def _body(body: Any) -> dict[str, Any]:
    if not isinstance(body, Mapping):
        raise InputError(f"body: must be a dict, not {type(body).__name__}.")
    tree = _tree("body", body)
    assert isinstance(tree, dict)
    model = tree.get("model", "-")
    if is_blank(model) or not isinstance(model, (str, RowTemplate)):
        raise InputError(f"body.model: must be the name of a model, not {model!r}.")
    return tree


def _tree(argument: str, value: Any) -> Any:
    if isinstance(value, str):
        constant = _json(argument, value)
        return RowTemplate(argument, value) if is_template(value) else constant
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise InputError(f"{argument}: the key {key!r} is no text, as keys of JSON objects are.")
        return {key: _tree(f"{argument}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_tree(f"{argument}[{position}]", item) for position, item in enumerate(value)]
    return _json(argument, value)


def _json(argument: str, value: Any) -> Any:
    try:
        canonical(value)
        return as_json(value, sort=False)
    except UnusableError as error:
        raise InputError(f"{argument}: {error}") from error


def _import_path(path: str) -> tuple[str, str]:
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(name.isidentifier() for name in [*module.split("."), *attribute.split(".")]):
        raise InputError(f"request: {path!r} is no import path like 'package.module:function'.")
    return module, attribute
