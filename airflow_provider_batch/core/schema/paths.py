"""Paths into structured output: the type of the column that a path fills, and the value at a path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from airflow_provider_batch.core.schema import strict
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.convert import convert
from airflow_provider_batch.exceptions import SchemaError


def column_type(schema: dict[str, Any], path: str) -> ColumnType:
    """Return the column type for the values at `path` ('label', 'address.city', 'items.0.name') in the output.

    A union with null has the type of the rest, since every column may be NULL. Objects, arrays and unions of different
    types are JSON. Raises SchemaError if the schema has nothing at `path`; the message lists what it has.
    """
    nodes = list(_alternatives(schema, schema, set()))
    resolved_parts: list[str] = []
    for part in path.split("."):
        children: list[dict[str, Any]] = []
        for node in nodes:
            if part in node.get("properties", {}):
                children += _alternatives(schema, node["properties"][part], set())
            elif part.isdecimal() and "items" in node:
                children += _alternatives(schema, node["items"], set())
        if not children:
            raise SchemaError(f"column path {path!r}: {_describe_missing_part(part, resolved_parts, nodes)}")
        nodes = children
        resolved_parts.append(part)
    kinds = {kind for node in nodes for kind in _column_types(node)}
    if len(kinds) == 1:
        return kinds.pop()
    if kinds == {ColumnType.INTEGER, ColumnType.FLOAT}:
        return ColumnType.FLOAT
    if kinds <= {ColumnType.TEXT, ColumnType.DATE, ColumnType.TIMESTAMP}:
        return ColumnType.TEXT
    return ColumnType.JSON


def _describe_missing_part(part: str, parents: list[str], nodes: list[dict[str, Any]]) -> str:
    location = f"In the output schema, {'.'.join(parents)!r}" if parents else "The output schema"
    names = [name for node in nodes for name in node.get("properties", {})]
    if not names and any("items" in node for node in nodes):
        return f"{location} is a list, so the next part of the path must be a number, not {part!r}."
    return f"{location} has no {part!r}.{strict.suggest(part, names)}"


def _alternatives(root: dict[str, Any], node: dict[str, Any], visited_refs: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the schemas that a value of this node may match, with `$ref` and `anyOf` resolved."""
    ref = node.get("$ref")
    if ref is not None:
        if ref not in visited_refs:
            visited_refs.add(ref)
            yield from _alternatives(root, strict.follow(root, ref) or {}, visited_refs)
    elif "anyOf" in node:
        for option in node["anyOf"]:
            yield from _alternatives(root, option, visited_refs)
    else:
        yield node


def _column_types(node: dict[str, Any]) -> Iterator[ColumnType]:
    scalars = {"integer": ColumnType.INTEGER, "number": ColumnType.FLOAT, "boolean": ColumnType.BOOLEAN}
    formats = {"date": ColumnType.DATE, "date-time": ColumnType.TIMESTAMP}
    for name in strict.types(node):
        if name == "string":
            yield formats.get(node.get("format", ""), ColumnType.TEXT)
        elif name != "null":
            yield scalars.get(name, ColumnType.JSON)


def extractor(path: str, type: ColumnType) -> Callable[[Any], Any]:
    """Return a function that extracts the value at `path` from a parsed answer.

    The function returns None if the value is absent or null. It converts the value with `convert` and raises the same
    errors.
    """
    parts, unchanged_type = path.split("."), _UNCHANGED_TYPES.get(type)

    def extract(value: Any) -> Any:
        item = _walk(value, parts)
        return item if item.__class__ is unchanged_type else convert(item, type)

    return extract


#: for some column types, the Python type whose values `convert` returns unchanged
_UNCHANGED_TYPES: dict[ColumnType, Any] = {ColumnType.TEXT: str, ColumnType.BOOLEAN: bool, ColumnType.FLOAT: float}


def _walk(value: Any, parts: list[str]) -> Any:
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value
