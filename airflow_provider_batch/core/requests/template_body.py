"""Builds the requests of rows from the templates in the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import Form, LeafError, evaluate_all, leaves
from airflow_provider_batch.core.requests.check import Arguments
from airflow_provider_batch.core.requests.file_paths import UnusableFileError
from airflow_provider_batch.core.requests.outline import Outline
from airflow_provider_batch.core.requests.request import Problem, Request
from airflow_provider_batch.core.requests.row_checks import (
    check_row_parameters,
    require_input,
    require_model,
    require_prompt,
)
from airflow_provider_batch.core.requests.row_files import FileParts
from airflow_provider_batch.core.requests.template import Leaf, Values
from airflow_provider_batch.core.requests.value import canonical_json, is_blank


class TemplateBody:
    """Builds the requests of rows from the templates in the arguments."""

    def __init__(self, arguments: Arguments, bind: Callable[..., Any], file_parts: FileParts) -> None:
        self._endpoint = arguments.endpoint
        self._file_parts = file_parts
        key = self._endpoint.input_key
        body = check_row_parameters(self._endpoint, bind(arguments.body, as_text=False))
        self._model = body["model"] = require_model(
            body["model"] if arguments.model is None else bind(arguments.model, as_text=True)
        )
        prompt: Any = None
        self._input: Any
        if arguments.prompt is not None:
            self._input = prompt = require_prompt(bind(arguments.prompt, as_text=True))
            if file_parts:
                prompt = file_parts.added_to(prompt)
        elif leaves(body.get(key)):
            self._input = body[key] = require_input(self._endpoint, body[key])
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

    def __call__(self, custom_ids: Sequence[str], rows: Sequence[Values]) -> list[Request]:
        """Return the requests of rows. Raises LeafError, which does not tell for which row."""
        models = evaluate_all(self._model, rows)
        blank_systems = set(map(is_blank, set(evaluate_all(self._system, rows))))
        if len(rows) > 1 and (self._file_parts or len(blank_systems) > 1):
            return [self([custom_id], [row])[0] for custom_id, row in zip(custom_ids, rows, strict=True)]
        form, outline = self._without_system if True in blank_systems else self._with_system
        if self._inputs is None:
            inputs = [endpoints.count_inputs(self._endpoint, value) for value in evaluate_all(self._input, rows)]
        else:
            inputs = [self._inputs] * len(rows)
        if self._file_parts:
            return [self._with_files(custom_ids[0], models[0], inputs[0], form, outline, rows[0])]
        bodies, leaf_values = form.fill(rows)
        return list(map(Request, custom_ids, models, bodies, inputs, repeat(outline), leaf_values))

    def _with_files(
        self, custom_id: str, model: str, inputs: int, form: Form, outline: Outline, row: Values
    ) -> Request:
        """Return the request of a row with files, or the problem of a row whose files cannot be used."""
        try:
            (body,), (leaf_values,) = form.fill([row])
            self._file_parts.check_request_size(body)
        except (LeafError, UnusableFileError) as error:
            cause = error.__cause__ if isinstance(error, LeafError) else error
            if not isinstance(cause, UnusableFileError):
                raise
            problem = Problem(cause.code, cause.message)
            body = canonical_json({"model": model, "problem": list(problem)})
            return Request(custom_id, model, body, inputs, problem=problem)
        return Request(custom_id, model, body, inputs, outline, leaf_values, self._file_parts.addresses)
