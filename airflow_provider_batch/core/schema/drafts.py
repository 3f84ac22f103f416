"""Older drafts of JSON Schema and the dialect of OpenAPI, brought to the draft 2020-12 without a change of meaning.

Where authors commonly leave something out that everyone reads the same way, it is added: the type that an enum, a const
or `properties` imply, and null among the values of an enum that may be null.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_batch.core.schema.regex import from_python

#: keywords whose value is one schema, a list of schemas, or schemas by name
ONE_SCHEMA = (
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
LIST_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
SCHEMAS_BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")

#: keywords that say how to read the schema, or that are for its readers
_REMOVED_KEYWORDS = ("$schema", "$id", "id", "$comment")


def to_current_draft(schema: Any) -> Any:
    """Return a schema in the words of the draft 2020-12. Anything that is not a schema is returned unchanged."""
    if not isinstance(schema, dict):
        return schema
    node = {key: value for key, value in schema.items() if key not in _REMOVED_KEYWORDS}
    _rename_keywords(node)
    if isinstance(node.get("pattern"), str):
        node["pattern"] = from_python(node["pattern"])
    node = map_subschemas(_merge_single_all_of(node), to_current_draft)
    if "type" not in node:
        node |= _implied_type(node)
    if node.pop("nullable", False) is True:
        node = or_null(node)
    elif "null" in types(node) and isinstance(node.get("enum"), list) and None not in node["enum"]:
        node["enum"] = [*node["enum"], None]
    return node


def map_subschemas(node: dict[str, Any], function: Callable[[Any], Any]) -> dict[str, Any]:
    """Return a copy of a schema with the function applied to the schemas directly inside it."""
    result = dict(node)
    for key, value in node.items():
        if key in ONE_SCHEMA:
            result[key] = function(value)
        elif key in LIST_OF_SCHEMAS and isinstance(value, list):
            result[key] = [function(item) for item in value]
        elif key in SCHEMAS_BY_NAME and isinstance(value, dict):
            result[key] = {name: function(item) for name, item in value.items()}
    return result


def or_null(node: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also allows null."""
    if "null" in types(node) or {"type": "null"} in node.get("anyOf", []):
        return node
    if "type" not in node or "const" in node or {"object", "array"} & set(types(node)):
        notes: dict[str, Any] = {key: node[key] for key in ("title", "description") if key in node}
        option = {key: value for key, value in node.items() if key not in notes}
        if option.keys() == {"anyOf"}:
            return {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
        return {"anyOf": [option, {"type": "null"}], **notes}
    node = {**node, "type": [*types(node), "null"]}
    if isinstance(node.get("enum"), list) and None not in node["enum"]:
        node["enum"] = [*node["enum"], None]
    return node


def types(node: dict[str, Any]) -> list[str]:
    """Return the JSON types that a schema names; an empty list if it names none."""
    names = node.get("type", [])
    return names if isinstance(names, list) else [names]


def json_type(value: Any) -> str:
    """Return the name that JSON Schema uses for the type of a parsed JSON value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number", dict: "object", list: "array"}[type(value)]


def _rename_keywords(node: dict[str, Any]) -> None:
    """Replace the keywords of older drafts and of OpenAPI in place."""
    for limit, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if node.get(exclusive) is True and limit in node:  # draft 4 and OpenAPI 3.0
            node[exclusive] = node.pop(limit)
        elif node.get(exclusive) is False:
            del node[exclusive]
    if isinstance(node.get("items"), list):  # before 2020-12
        node["prefixItems"] = node.pop("items")
        if "additionalItems" in node:
            node["items"] = node.pop("additionalItems")
    node.pop("additionalItems", None)
    for name, dependency in (node.pop("dependencies", None) or {}).items():
        node.setdefault("dependentRequired" if isinstance(dependency, list) else "dependentSchemas", {})[name] = (
            dependency
        )
    if node.get("$recursiveRef") == "#":
        node["$ref"] = node.pop("$recursiveRef")
    if "example" in node:
        node["examples"] = [node.pop("example")]


def _merge_single_all_of(node: dict[str, Any]) -> dict[str, Any]:
    """Merge an `allOf` with one part into its parent if they do not contradict each other."""
    parts = node.get("allOf")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        return node
    outer, part = {key: value for key, value in node.items() if key != "allOf"}, parts[0]
    conflicts = [key for key in part.keys() & outer.keys() - {"title", "description"} if part[key] != outer[key]]
    return node if conflicts else _merge_single_all_of({**part, **outer})


def _implied_type(node: dict[str, Any]) -> dict[str, Any]:
    values = node.get("enum") or ([node["const"]] if "const" in node else None)
    if isinstance(values, list):
        names = list(dict.fromkeys(json_type(value) for value in values))
        return {"type": names[0] if len(names) == 1 else names}
    if node.keys() & {"$ref", "anyOf", "oneOf", "allOf"}:
        return {}
    if "properties" in node:
        return {"type": "object"}
    return {"type": "array"} if node.keys() & {"items", "prefixItems"} else {}
