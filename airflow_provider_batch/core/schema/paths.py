"""Paths into structured output: the type of the column that a path fills, and the value at a path.

A path is a text such as `address.city` or `items.0.name`, or a list of names and list indexes, such as
`["address", "city"]`. A list is taken literally. In a text, dots separate names, but names may also contain dots: the
output has to tell which of its dots belong to names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from airflow_provider_batch.core.schema import decimals, strict
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.convert import EXACT, FORMAT_TYPES, convert
from airflow_provider_batch.core.schema.drafts import types
from airflow_provider_batch.exceptions import SchemaError

#: a path as an author writes it
Path = str | Sequence[str | int]
#: a path whose names are known
Parts = tuple[str | int, ...]

_INDEX = re.compile(r"0|[1-9][0-9]*")
_NEGATIVE_INDEX = re.compile(r"-[0-9]+")
_Node = dict[str, Any]


def column_type(schema: dict[str, Any], path: Path) -> ColumnType:
    """Return the column type for the values at `path` in the output.

    A union with null has the type of the rest, since every column may be NULL. Objects, arrays and unions of different
    types are JSON. Raises SchemaError if the schema has nothing at `path`, or several things; the message lists what it
    has.
    """
    return _type_and_format(schema, resolve(schema, path))[0]


def _type_and_format(schema: dict[str, Any], parts: Parts) -> tuple[ColumnType, str]:
    """Return the column type at a path, and the format for `convert`."""
    pairs = {pair for node in _nodes_at(schema, parts) for pair in _column_types(node)}
    if len(pairs) == 1:
        return pairs.pop()
    kinds = {kind for kind, _ in pairs}
    if len(kinds) == 1 and kinds <= {ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.NUMERIC, ColumnType.BOOLEAN}:
        return kinds.pop(), ""
    if kinds == {ColumnType.INTEGER, ColumnType.FLOAT}:
        return ColumnType.FLOAT, EXACT
    if kinds <= {ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.NUMERIC} and kinds:
        return ColumnType.NUMERIC, ""
    return (ColumnType.TEXT if kinds <= _TEXTS else ColumnType.JSON), ""


#: column types of texts, whose union is a text
_TEXTS = {
    ColumnType.TEXT,
    ColumnType.DATE,
    ColumnType.TIMESTAMP,
    ColumnType.LOCAL_TIMESTAMP,
    ColumnType.TIME,
    ColumnType.INTERVAL,
    ColumnType.UUID,
    ColumnType.BYTES,
}


def extractor(schema: dict[str, Any], path: Path) -> Callable[[Any], Any]:
    """Return a function that extracts the value at `path` from a parsed answer.

    The function returns None if the value is absent or null. It converts the value with `convert` and raises the same
    errors. Raises SchemaError like `column_type`.
    """
    parts = resolve(schema, path)
    type_, format_ = _type_and_format(schema, parts)
    unchanged_type = _UNCHANGED_TYPES.get(type_)

    name = parts[0] if len(parts) == 1 else None

    def extract(value: Any) -> Any:
        item = value.get(name) if name is not None and value.__class__ is dict else value_at(value, parts)
        return item if item.__class__ is unchanged_type else convert(item, type_, format_)

    return extract


#: for some column types, the Python type whose values `convert` returns unchanged
_UNCHANGED_TYPES: dict[ColumnType, Any] = {ColumnType.TEXT: str, ColumnType.BOOLEAN: bool, ColumnType.FLOAT: float}


def describe(path: Path) -> str:
    """Return a path as text for messages: names separated by dots, or a list as JSON."""
    return path if isinstance(path, str) else json.dumps(list(path), ensure_ascii=False)


def resolve(schema: dict[str, Any], path: Path) -> Parts:
    """Return the names and indexes that a path consists of. Raises SchemaError like `column_type`."""
    root = _alternatives(schema, schema)
    if not isinstance(path, str):
        return _resolve_list(schema, root, tuple(path))
    candidates = list(possible_parts(root, path, lambda nodes, part: _children(schema, nodes, part)))
    if len(candidates) > 1:
        lists = " or ".join(json.dumps(list(parts), ensure_ascii=False) for parts in candidates)
        raise SchemaError(
            f"column path {path!r}: Names in the output schema contain dots, so this path could be {lists}. "
            "Write one of these lists as the path."
        )
    if not candidates:
        raise _missing_part_error(schema, root, path)
    return candidates[0]


def root_names(schema: dict[str, Any]) -> list[str]:
    """Return the names of the fields at the top of the output, of all cases of a union."""
    return _names(_alternatives(schema, schema))


def _names(nodes: list[_Node]) -> list[str]:
    return list(dict.fromkeys(name for node in nodes for name in _properties(node)))


def _resolve_list(schema: _Node, nodes: list[_Node], parts: Parts) -> Parts:
    if not parts:
        raise SchemaError("column path []: The list is empty. Name the properties that lead to the value.")
    for position, part in enumerate(parts):
        children = _children(schema, nodes, part)
        if not children:
            problem = _describe_missing_part(part, parts[:position], nodes)
            raise SchemaError(f"column path {describe(parts)}: {problem}")
        nodes = children
    return parts


def possible_parts(node: Any, path: str, children: Callable[[Any, str], Any]) -> Iterator[Parts]:
    """Yield the ways to split a path at dots so that each part names something, those with the longest names first.

    If the whole rest of a path is a name, nothing else is tried.

    :param children: returns what a part names below a node; something false if it names nothing.
    """
    *prefixes, whole = _prefixes(path.split("."))
    if children(node, whole):
        yield (whole,)
        return
    for part in reversed(prefixes):
        if below := children(node, part):
            yield from ((part, *parts) for parts in possible_parts(below, path[len(part) + 1 :], children))


def value_at(value: Any, parts: Parts) -> Any:
    """Return the value that the parts lead to in a JSON document, or None if there is none."""
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and (index := list_index(part)) is not None and index < len(value):
            value = value[index]
        else:
            return None
    return value


def members(values: Sequence[Any], part: str | int) -> list[Any]:
    """Return the property or the list item of this name in each of these JSON values, if it has one."""
    children = []
    for value in values:
        if isinstance(value, dict) and part in value:
            children.append(value[part])
        elif isinstance(value, list) and (index := list_index(part)) is not None and index < len(value):
            children.append(value[index])
    return children


def list_index(part: str | int) -> int | None:
    """Return the list index that a part of a path can be, or None."""
    if isinstance(part, int):
        return part if part >= 0 else None
    return int(part) if len(part) < 20 and _INDEX.fullmatch(part) else None


def _properties(node: _Node) -> dict[Any, Any]:
    properties = node.get("properties")
    return properties if isinstance(properties, dict) else {}


def _children(schema: _Node, nodes: list[_Node], part: str | int) -> list[_Node]:
    return [
        alternative
        for node in nodes
        for child in (_properties(node).get(part), _item(node, part))
        if child is not None
        for alternative in _alternatives(schema, child)
    ]


def _is_list(node: _Node) -> bool:
    return "array" in types(node) or "items" in node or "prefixItems" in node


def _item(node: _Node, part: str | int) -> Any:
    """Return the schema of a list item, or None if the node is not a list or has no such item."""
    index = list_index(part)
    if index is None or not _is_list(node) or index >= node.get("maxItems", index + 1):
        return None
    first_items, others = node.get("prefixItems", ()), node.get("items", True)
    if isinstance(others, list):  # a tuple, in the words of older drafts
        first_items, others = others, node.get("additionalItems", True)
    return first_items[index] if index < len(first_items) else others or None


def _nodes_at(schema: _Node, parts: Parts) -> list[_Node]:
    nodes = _alternatives(schema, schema)
    for part in parts:
        nodes = _children(schema, nodes, part)
    return nodes


def _missing_part_error(schema: _Node, nodes: list[_Node], path: str) -> SchemaError:
    """Return the error for a path that leads nowhere. It names the first part that is missing."""
    parents: list[str] = []
    pieces = path.split(".")
    while part := next((part for part in _prefixes(pieces)[:-1] if _children(schema, nodes, part)), None):
        nodes = _children(schema, nodes, part)
        parents.append(part)
        pieces = pieces[part.count(".") + 1 :]
    names = _names(nodes)
    # the end of the path may be several names or one with dots: report what is most like a name of the schema
    missing_part = max(_prefixes(pieces), key=lambda part: strict.similarity(part, names))
    return SchemaError(f"column path {path!r}: {_describe_missing_part(missing_part, parents, nodes)}")


def _prefixes(pieces: Sequence[str]) -> list[str]:
    """Return the names that the first pieces of a path can make up, the shortest first."""
    return [".".join(pieces[:count]) for count in range(1, len(pieces) + 1)]


def _describe_missing_part(part: str | int, parents: Sequence[str | int], nodes: list[_Node]) -> str:
    location = f"In the output schema, {'.'.join(map(str, parents))!r}" if parents else "The output schema"
    names = _names(nodes)
    if any(map(_is_list, nodes)):
        if list_index(part) is not None:
            return f"{location} is a list with fewer items, so it has no item {part}. The first item is 0."
        if _NEGATIVE_INDEX.fullmatch(str(part)):
            return f"{location} is a list, whose items are counted from the start: 0, 1, 2. It has no item {part}."
        if not names:
            return f"{location} is a list, so the next part of the path must be a number, not {part!r}."
    return f"{location} has no {part!r}.{strict.suggest(str(part), names)}"


def _alternatives(root: _Node, node: Any, visited_refs: frozenset[str] = frozenset()) -> list[_Node]:
    """Return the schemas that a value of this node may match, with references, unions and `allOf` resolved.

    Keywords next to a reference or a union hold for each of its options.
    """
    if not isinstance(node, dict):
        return [] if node is False else [{}]
    siblings = {key: value for key, value in node.items() if key not in _COMPOSITIONS}
    alternatives = [siblings]
    ref = node.get("$ref")
    if isinstance(ref, str):
        if ref in visited_refs:
            return []
        target = strict.follow(root, ref) or {}
        alternatives = _combine(alternatives, _alternatives(root, target, visited_refs | {ref}))
    for keyword in ("anyOf", "oneOf"):
        if node.get(keyword):
            options = [
                alternative for option in node[keyword] for alternative in _alternatives(root, option, visited_refs)
            ]
            alternatives = _combine(alternatives, options)
    for part in node.get("allOf", ()):
        alternatives = _combine(alternatives, _alternatives(root, part, visited_refs))
    return alternatives


#: keywords with schemas that the value itself must match
_COMPOSITIONS = frozenset({"$ref", "anyOf", "oneOf", "allOf"})


def _combine(nodes: list[_Node], others: list[_Node]) -> list[_Node]:
    return [
        {**other, **node, "properties": {**_properties(other), **_properties(node)}}
        if _properties(node) or _properties(other)
        else {**other, **node}
        for node in nodes
        for other in others
    ]


def _column_types(node: _Node) -> Iterator[tuple[ColumnType, str]]:
    """Yield the column types of the values that a schema allows, with the format for `convert`; none for null."""
    for name in types(node) or [""]:
        if name == "string":
            yield _text_type(node)
        elif name in ("number", "integer") and _is_numeric(node, name):
            yield ColumnType.NUMERIC, ""
        elif name != "null":
            yield _SCALARS.get(name, ColumnType.JSON), ""


_SCALARS = {"integer": ColumnType.INTEGER, "number": ColumnType.FLOAT, "boolean": ColumnType.BOOLEAN}


def _text_type(node: _Node) -> tuple[ColumnType, str]:
    encoding, format_ = node.get("contentEncoding", ""), node.get("format", "")
    if encoding in ("base64", "base64url"):
        return ColumnType.BYTES, encoding
    if not encoding and node.get("contentMediaType") == "application/json":
        return ColumnType.JSON, "json"
    type_ = FORMAT_TYPES.get(format_, ColumnType.TEXT)
    return type_, format_ if type_ is ColumnType.BYTES else ""


def _is_numeric(node: _Node, type_name: str) -> bool:
    """Return whether a number needs a numeric column: it is marked as a decimal, or it may exceed 64 bits."""
    limits = (node.get(keyword, 0) for keyword in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    return node.get("format") == decimals.FORMAT or (
        type_name == "integer" and any(not -(2**63) <= limit < 2**63 for limit in limits)
    )
