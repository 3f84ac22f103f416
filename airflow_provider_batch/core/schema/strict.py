"""The strict subset of JSON Schema that structured output takes: how a schema is brought into it, its limits.

Subset and limits are from OpenAI's guide "Structured model outputs", section "Supported schemas". Keywords on
which the guide is silent are left alone: a needless refusal is worse than one that the provider utters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from airflow_provider_batch.exceptions import SchemaError

MAX_LEVELS = 10
MAX_PROPERTIES = 5_000
MAX_ENUM_VALUES = 1_000
#: characters of all property names, definition names, enum and const values together
MAX_NAME_CHARACTERS = 120_000
#: one enum of more than `LARGE_ENUM` values may hold this many characters
MAX_LARGE_ENUM_CHARACTERS = 15_000
LARGE_ENUM = 250

_ROOT = "the root"
_DEFINITIONS = ("$defs", "definitions")
_TUPLE = "a tuple cannot be expressed: use an object with one named property per place"
_CASES = "use anyOf with one object per case"
_PAIRS = "name every property, or use a list of {name, value} objects"

#: keyword that strict output does not know -> the way out
_UNKNOWN = {
    "oneOf": "use anyOf; in pydantic a plain union without a discriminator",
    "not": "leave it out and say it in the prompt",
    "if": _CASES,
    "then": _CASES,
    "else": _CASES,
    "dependentRequired": _CASES,
    "dependentSchemas": _CASES,
    "dependencies": _CASES,
    "patternProperties": _PAIRS,
    "propertyNames": _PAIRS,
    "unevaluatedProperties": "leave it out, no other property is allowed anyway",
    "prefixItems": _TUPLE,
    "additionalItems": _TUPLE,
    "$dynamicRef": "use $ref",
    "$recursiveRef": "use $ref",
}
#: keywords that say nothing about the output; `default` too, since every property is required, and Azure
#: refuses the word (openai-agents-python issue 4390)
_DROPPED = ("$schema", "$id", "$comment", "default")


def close(root: dict[str, Any]) -> dict[str, Any]:
    """A strict copy of a JSON Schema whose root is an object.

    What a strict schema cannot say raises SchemaError with the place in the output and the way out. Whether
    the result is valid JSON Schema is left to the validator.
    """
    strict = _Closing(root).close(root, _ROOT, ())
    if "anyOf" in strict:
        raise refused(_ROOT, "is an anyOf, but must be one object: put the union into a property")
    if strict.get("type") != "object":
        raise refused(_ROOT, f"must be an object, not {strict.get('type', 'without a type')}: put it into a property")
    return strict


def refused(place: str, why: str) -> SchemaError:
    """Return the error for a schema that strict structured output cannot express."""
    return SchemaError(f"output_schema: {place} {why}")


class _Closing:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def close(self, schema: Any, place: str, inlined: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(schema, dict) or not (schema.keys() - {"title", "description", *_DROPPED}):
            raise refused(place, "may be anything, which strict output cannot express: give it a type")
        node = {key: value for key, value in schema.items() if key not in _DROPPED}
        node = _merge_all_of(node, place)
        for keyword, way_out in _UNKNOWN.items():
            if keyword in node:
                raise refused(place, f"uses {keyword}, which strict output does not know: {way_out}")
        if "$ref" in node:
            return self._close_ref(node, place, inlined)
        for word in _DEFINITIONS:
            if isinstance(node.get(word), dict):
                node[word] = {name: self.close(value, f"{word} {name}", ()) for name, value in node[word].items()}
        if isinstance(node.get("anyOf"), list):
            node["anyOf"] = [
                self.close(option, f"{place} (option {number} of anyOf)", inlined)
                for number, option in enumerate(node["anyOf"], 1)
            ]
        elif "type" not in node:
            node["type"] = _implied_type(node, place)
        if "object" in types(node):
            self._close_object(node, place, inlined)
        if "array" in types(node):
            if isinstance(node.get("items"), list):
                raise refused(place, f"lists its items one by one: {_TUPLE}")
            node["items"] = self.close(node.get("items"), f"each item of {place}", inlined)
        return node

    def _close_ref(self, node: dict[str, Any], place: str, inlined: tuple[str, ...]) -> dict[str, Any]:
        """A $ref alone stays; one with siblings, which strict output refuses, gives way to its target."""
        ref = node["$ref"]
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise refused(place, f"refers to {ref!r}, outside the schema: put it under $defs")
        target = follow(self._root, ref)
        if target is None:
            there = [f"#/{word}/{name}" for word in _DEFINITIONS for name in self._root.get(word, {})]
            raise refused(place, f"refers to {ref}, which is not there{close_match(ref, there)}")
        if len(node) == 1:
            if self._circular(ref):
                raise refused(place, f"refers by {ref} to nothing but itself: give it a type")
            return node
        if ref in inlined:
            raise refused(place, f"refers to itself by {ref}, with other keywords beside: leave the $ref alone")
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        target = {key: value for key, value in target.items() if key not in _DEFINITIONS}
        return self.close({**siblings, **target, **siblings}, place, (*inlined, ref))

    def _circular(self, ref: str) -> bool:
        seen: set[str] = set()
        following: Any = ref
        while isinstance(following, str) and following not in seen:
            seen.add(following)
            following = (follow(self._root, following) or {}).get("$ref")
        return following is not None

    def _close_object(self, node: dict[str, Any], place: str, inlined: tuple[str, ...]) -> None:
        if node.get("additionalProperties", False) is not False:
            raise refused(
                place,
                "allows properties that the schema does not name (additionalProperties, dict[str, ...], "
                f"extra='allow'), which strict output cannot express: {_PAIRS}",
            )
        properties = node.get("properties")
        if not isinstance(properties, dict):
            raise refused(place, "is an object without properties: name them")
        node["additionalProperties"] = False
        node["properties"] = {
            name: self.close(value, name if place == _ROOT else f"{place}.{name}", inlined)
            for name, value in properties.items()
        }
        node["required"] = list(properties)


def _merge_all_of(node: dict[str, Any], place: str) -> dict[str, Any]:
    if "allOf" not in node:
        return node
    parts = node.pop("allOf")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        raise refused(place, "combines schemas by allOf, which strict output does not know: write one object")
    part = {key: value for key, value in parts[0].items() if key not in _DROPPED}
    clash = [key for key in part.keys() & node.keys() - {"title", "description"} if part[key] != node[key]]
    if clash:
        raise refused(place, f"and its allOf both give {', '.join(sorted(clash))}: merge them by hand")
    return _merge_all_of({**node, **part}, place)


def _implied_type(node: dict[str, Any], place: str) -> str | list[str]:
    values = node.get("enum") or ([node["const"]] if "const" in node else None)
    if isinstance(values, list):
        names = list(dict.fromkeys(json_type(value) for value in values))
        return names[0] if len(names) == 1 else names
    if "properties" in node:
        return "object"
    raise refused(place, "has no type, which strict output asks for: give it one")


def follow(root: dict[str, Any], ref: str) -> dict[str, Any] | None:
    """The schema that a reference within `root` points to, None when there is none."""
    found: Any = root
    for part in ref.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            return None
    return found if isinstance(found, dict) else None


def types(node: dict[str, Any]) -> list[str]:
    """The JSON types that a schema names, [] when it names none."""
    named = node.get("type", [])
    return named if isinstance(named, list) else [named]


def json_type(value: Any) -> str:
    """The JSON Schema name of the type of a value that came from JSON."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "integer", float: "number", dict: "object", list: "array"}[type(value)]


def close_match(name: str, there: list[str]) -> str:
    """The end of an error message: the likely slip, or what there is."""
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; there is: {', '.join(there[:20])}" if there else ""


def check_size(strict: dict[str, Any]) -> None:
    """Raise SchemaError when a strict, valid schema is over one of the limits above."""
    properties = enum_values = characters = 0
    for node in _nodes(strict):
        values = node.get("enum", [])
        length = sum(len(value) for value in values if isinstance(value, str))
        if len(values) > LARGE_ENUM and length > MAX_LARGE_ENUM_CHARACTERS:
            raise SchemaError(
                f"output_schema: an enum of {len(values):,} values has {length:,} characters; with more than "
                f"{LARGE_ENUM} values strict output takes {MAX_LARGE_ENUM_CHARACTERS:,}: use short codes"
            )
        const = node.get("const")
        properties += len(node.get("properties", {}))
        enum_values += len(values)
        characters += length + (len(const) if isinstance(const, str) else 0)
        characters += sum(len(name) for word in ("properties", *_DEFINITIONS) for name in node.get(word, {}))
    for what, found, limit in (
        ("levels of nested objects", _levels(strict, strict, {}), MAX_LEVELS),
        ("properties", properties, MAX_PROPERTIES),
        ("enum values", enum_values, MAX_ENUM_VALUES),
        ("characters of names, enum and const values", characters, MAX_NAME_CHARACTERS),
    ):
        if found > limit:
            raise SchemaError(
                f"output_schema has {found:,} {what}; strict output takes {limit:,}: "
                "make it smaller, or ask in several jobs"
            )


def _children(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from node.get("properties", {}).values()
    yield from node.get("anyOf", [])
    if "items" in node:
        yield node["items"]


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in _children(node):
        yield from _nodes(child)
    for word in _DEFINITIONS:
        for child in node.get(word, {}).values():
            yield from _nodes(child)


def _levels(root: dict[str, Any], node: dict[str, Any], known: dict[str, int]) -> int:
    """The deepest nesting of objects. Recursion is allowed: a reference back into itself ends the count."""
    ref = node.get("$ref")
    if ref is not None:
        if ref not in known:
            known[ref] = 0
            known[ref] = _levels(root, follow(root, ref) or {}, known)
        return known[ref]
    below = max((_levels(root, child, known) for child in _children(node)), default=0)
    return below + ("object" in types(node))
