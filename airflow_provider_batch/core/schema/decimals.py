"""Decimal numbers in schemas: how they are marked, sent and judged.

`"format": "decimal"` marks a decimal, on a number, on a text, or on both as pydantic accepts them. `decimalLimits`
holds the limits that pydantic knows and JSON Schema does not, or not for texts. A decimal that may be a number is sent
as a number: the digits of a JSON number are exact, and a model cannot write "1,234.50 EUR" in its place.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any

from airflow_provider_batch.core.schema.drafts import map_subschemas, types

FORMAT = "decimal"
#: keyword with the limits of a decimal, by the name of the argument of `pydantic.Field`
LIMITS = "decimalLimits"

_NUMBER_KEYWORDS = frozenset({"type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
#: how the patterns begin that pydantic exports for a decimal
_PATTERN_START = "^(?!^[-+.]*$)[+-]?0*"


def mark_exported(schema: Any) -> Any:
    """Return a schema with a mark on every decimal that pydantic exported without one.

    That is a union of a number and a text, in this order, or a text with pydantic's pattern for decimals.
    """
    return _mark(schema, {"format": FORMAT})


def keep_unmarked(schema: Any) -> Any:
    """Return a schema of ours in which no union of a number and a text looks like a decimal exported by pydantic."""
    return _mark(schema, {})


def _mark(schema: Any, mark: dict[str, str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    node = map_subschemas(schema, lambda child: _mark(child, mark))
    if node.get("type") == "string" and "format" not in node and _has_pattern(node):
        return {**node, **mark}
    options = node.get("anyOf")
    if not isinstance(options, list):
        return node
    for position, (number, text) in enumerate(pairwise(options)):
        if _is_plain_number(number) and _is_plain_text(text):
            decimal = {**text, **number, "type": ["number", "string"], **mark}
            options = [*options[:position], decimal, *options[position + 2 :]]
            break
    if len(options) != 1 or not isinstance(options[0], dict):
        return {**node, "anyOf": options}
    return {**options[0], **{key: value for key, value in node.items() if key != "anyOf"}}


def _is_plain_number(node: Any) -> bool:
    return isinstance(node, dict) and node.get("type") == "number" and node.keys() <= _NUMBER_KEYWORDS


def _is_plain_text(node: Any) -> bool:
    return isinstance(node, dict) and node.get("type") == "string" and (len(node) == 1 or _has_pattern(node))


def _has_pattern(node: dict[str, Any]) -> bool:
    return str(node.get("pattern", "")).startswith(_PATTERN_START)


def as_numbers(schema: Any) -> Any:
    """Return the schema that is sent: a decimal that may be a number is nothing else."""
    if not isinstance(schema, dict):
        return schema
    node = map_subschemas(schema, as_numbers)
    if node.get("format") != FORMAT:
        return node
    node.pop(LIMITS, None)
    names = [name for name in types(node) if name != "string"]
    if not {"number", "integer"} & set(names):
        return node
    node["type"] = names if len(names) > 1 else names[0]
    return {key: value for key, value in node.items() if key not in ("format", "pattern")}


class Limits:
    """The keyword `decimalLimits`. Pydantic decides whether a number or a text is within the limits."""

    def __init__(self, _parent: dict[str, Any], limits: dict[str, Any], _path: list[Any]) -> None:
        from pydantic import Field, TypeAdapter

        self._adapter = TypeAdapter(Annotated[Decimal, Field(**limits)])

    def validate(self, instance: Any) -> None:
        """Raise ValueError for a number or a text that is not a decimal within the limits."""
        if isinstance(instance, bool) or not isinstance(instance, int | float | Decimal | str):
            return
        from pydantic import ValidationError

        try:
            self._adapter.validate_python(instance)
        except ValidationError as error:
            raise ValueError(f"{instance!s:.80}: {error.errors()[0]['msg']}") from None
