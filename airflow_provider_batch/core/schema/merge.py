"""Merging of two schemas into one for values that match both, as far as a single schema can say it.

The result is sent. The judge checks answers against the unmerged schema, so what two schemas say differently about a
detail, such as two patterns, may be stated in the description instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_batch.core.schema.drafts import types
from airflow_provider_batch.core.schema.keywords import ANNOTATIONS, GROUPS, add_note, state


class UnmergeableError(Exception):
    """Raised when no single schema that can be sent says what two schemas say together."""


def merge(node: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return a schema for values that match both. Annotations of the first take precedence."""
    result = dict(node)
    _check_closed(node, part)
    for key, value in part.items():
        if key not in node:
            result[key] = value
        elif node[key] == value or key in ANNOTATIONS:
            continue
        elif (text := state(key, part)) is not None:
            add_note(result, text)
        else:
            result[key] = _MERGES.get(key, _refuse(key))(node[key], value)
    for key in node.keys() & {"if", "contains"}:
        # these belong to the condition that the part does not replace
        result = {name: value for name, value in result.items() if name not in GROUPS[key] or name in node}
    return result


def _check_closed(node: dict[str, Any], part: dict[str, Any]) -> None:
    for closed, other in ((node, part), (part, node)):
        names = closed.get("properties", {})
        missing = [name for name in other.get("required", ()) if name not in names]
        if closed.get("additionalProperties") is False and missing:
            raise UnmergeableError(
                f"one of them allows no other properties, but {missing[0]!r} is required. Remove additionalProperties, "
                "or use unevaluatedProperties next to allOf."
            )


def _refuse(key: str) -> Callable[[Any, Any], Any]:
    def refuse(first: Any, second: Any) -> Any:
        raise UnmergeableError(f"they have different values for {key}. Merge them by hand into a single schema.")

    return refuse


def _merge_types(first: Any, second: Any) -> Any:
    names, others = types({"type": first}), types({"type": second})
    common = [name for name in names if name in others or (name == "integer" and "number" in others)]
    common += [name for name in others if name == "integer" and "number" in names and name not in common]
    if not common:
        raise UnmergeableError("no value has both their types, so no answer would be valid. Remove one of the types.")
    return common[0] if len(common) == 1 else common


def _merge_enums(first: list[Any], second: list[Any]) -> list[Any]:
    common = [value for value in first if value in second]
    if not common:
        raise UnmergeableError("their enums have no value in common, so no answer would be valid.")
    return common


def _merge_properties(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    shared = {name: {"allOf": [first[name], second[name]]} for name in first.keys() & second.keys()}
    return {
        **{name: first[name] if first.get(name) == second.get(name, first[name]) else shared[name] for name in first},
        **{name: value for name, value in second.items() if name not in first},
    }


def _union(first: list[Any], second: list[Any]) -> list[Any]:
    return list(dict.fromkeys([*first, *second]))


_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "type": _merge_types,
    "enum": _merge_enums,
    "properties": _merge_properties,
    "required": _union,
    "items": lambda first, second: {"allOf": [first, second]},
    "$defs": lambda first, second: {**second, **first},
    "definitions": lambda first, second: {**second, **first},
    "additionalProperties": lambda first, second: False if False in (first, second) else first,
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
    "uniqueItems": lambda first, second: True,
}
