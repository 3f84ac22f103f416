"""Builds the requests of rows by calling the function `request`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import evaluate, evaluate_all
from airflow_provider_batch.core.requests.body_parameters import check_parameters
from airflow_provider_batch.core.requests.check import Arguments
from airflow_provider_batch.core.requests.request import Request
from airflow_provider_batch.core.requests.row_checks import require_model
from airflow_provider_batch.core.requests.template import Leaf, Values, one_by_one
from airflow_provider_batch.core.requests.value import canonical_json, is_blank, to_json_value
from airflow_provider_batch.exceptions import InputError


class FunctionBody:
    """Builds the request of a row by calling the function `request` and adding its result to `body`."""

    def __init__(
        self,
        arguments: Arguments,
        bind: Callable[..., Any],
        names: Sequence[str],
        function: Callable[[dict[str, Any]], Any],
    ) -> None:
        self._endpoint = arguments.endpoint
        self._spec = arguments.spec
        self._names = names
        self._function = function
        self._base = bind(arguments.body, as_text=False)
        self._model = None if arguments.model is None else require_model(bind(arguments.model, as_text=True))
        self._request = Leaf("request", one_by_one(self._build))

    def __call__(self, custom_ids: Sequence[str], rows: Sequence[Values]) -> list[Request]:
        """Return the requests of rows. Raises LeafError, which does not tell for which row."""
        return [
            Request(custom_id, *parts)
            for custom_id, parts in zip(custom_ids, evaluate_all(self._request, rows), strict=True)
        ]

    def _build(self, row: Values) -> tuple[str, bytes, int]:
        result = self._function(dict(zip(self._names, row, strict=True)))
        if not isinstance(result, Mapping):
            raise InputError(f"The function must return the request body as a dict, not {type(result).__name__}.")
        result = to_json_value(result, sort=False)
        base = evaluate(self._base, row)
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
            body["model"] = evaluate(self._model, row)
        if not isinstance(body["model"], str):
            raise InputError(f"The function must return 'model' as a string, not {type(body['model']).__name__}.")
        key = self._endpoint.input_key
        if not endpoints.has_input(self._endpoint, body):
            raise InputError(f"The function returned no {key!r}, so the request has no input.")
        if key in body:
            endpoints.check_input(self._endpoint, body[key])
        return body["model"], canonical_json(body), endpoints.count_inputs(self._endpoint, body.get(key))
