"""Leaves that check the values of a row: the custom_id, the model, the prompt, the input and some parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_batch.core.requests import endpoints
from airflow_provider_batch.core.requests.body_form import evaluate, evaluate_all, leaves, replace_nodes
from airflow_provider_batch.core.requests.body_parameters import check_parameters, keys_with_problems
from airflow_provider_batch.core.requests.endpoints import Endpoint
from airflow_provider_batch.core.requests.template import Leaf, Values, one_by_one
from airflow_provider_batch.core.requests.value import canonical_json, has_lone_surrogate, is_blank, to_text
from airflow_provider_batch.exceptions import CustomIdError, InputError


def custom_id_leaf(tree: Any) -> Leaf:
    """Return a leaf with the value of a tree as a custom_id. It raises CustomIdError for what cannot identify a row."""

    def values(rows: Sequence[Values]) -> list[str]:
        custom_ids = evaluate_all(tree, rows)
        are_texts = {str}.issuperset(map(type, custom_ids))
        if are_texts and "".join(custom_ids).isascii() and not any(map(is_blank, custom_ids)):
            return custom_ids
        return list(map(_to_custom_id, custom_ids))

    return Leaf("custom_id", values)


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


def require_model(model: Any) -> Any:
    """Return the model, or a leaf with the same value that raises InputError if it is blank."""
    if not isinstance(model, Leaf):
        return model

    def values(rows: Sequence[Values]) -> list[str]:
        names = list(map(to_text, model.values(rows)))
        if any(map(is_blank, set(names))):
            raise InputError(
                "The model is empty, but every row needs one. Use COALESCE in the SQL or `| default` in the template."
            )
        return names

    return Leaf(model.argument, values, model.columns)


def require_prompt(prompt: Any) -> Any:
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

        def values(rows: Sequence[Values]) -> list[Any]:
            leaf_values = leaf.values(rows)
            blank_rows = [row for row, value in zip(rows, leaf_values, strict=True) if is_blank(value)]
            for row in blank_rows:
                if all(is_blank(member.value(row)) for member in group):
                    raise endpoints.empty_input_error([column for member in group for column in member.columns])
            return leaf_values

        return Leaf(leaf.argument, values, leaf.columns)

    return replace_nodes(prompt, Leaf, require)


def check_row_parameters(endpoint: Endpoint, body: dict[str, Any]) -> dict[str, Any]:
    """Return the body with leaves that raise InputError if a parameter of a row asks for something that cannot land."""

    def require(key: str, tree: Any) -> Leaf:
        def value(row: Values) -> Any:
            parameter = evaluate(tree, row)
            check_parameters(endpoint.path, {key: parameter})
            return parameter

        return Leaf(f"body.{key}", one_by_one(value), tuple(column for leaf in leaves(tree) for column in leaf.columns))

    checked_keys = keys_with_problems(endpoint.path)
    return {key: require(key, tree) if key in checked_keys and leaves(tree) else tree for key, tree in body.items()}


def require_input(endpoint: Endpoint, tree: Any) -> Leaf:
    """Return the input in `body` as a single leaf that checks the whole input of a row."""
    columns = [column for leaf in leaves(tree) for column in leaf.columns]

    def value(row: Values) -> Any:
        return endpoints.check_input(endpoint, evaluate(tree, row), columns)

    return Leaf(f"body.{endpoint.input_key}", one_by_one(value))
