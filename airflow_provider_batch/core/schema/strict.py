"""The subset of JSON Schema that strict structured output accepts: converting a schema to it, and its size limits.

The subset and the limits come from OpenAI's guide "Structured model outputs", section "Supported schemas". Keywords
that the guide does not mention are kept: rejecting a schema that the provider accepts is worse than letting the
provider reject it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from airflow_provider_batch.core.schema.drafts import json_type, types
from airflow_provider_batch.exceptions import SchemaError

MAX_LEVELS = 10
MAX_PROPERTIES = 5_000
MAX_ENUM_VALUES = 1_000
#: maximum total length of all property names, definition names, enum values and const values
MAX_NAME_CHARACTERS = 120_000
#: maximum total length of the values of an enum with more than `LARGE_ENUM` values
MAX_LARGE_ENUM_CHARACTERS = 15_000
LARGE_ENUM = 250

_ROOT = "the root"
_DEFINITIONS = ("$defs", "definitions")
_TUPLE_ADVICE = "Strict output cannot express tuples. Use an object with a named property for each position."
_CASES_ADVICE = "Use anyOf with one object per case."
_NAMES_ADVICE = "Name every property, or use a list of {name, value} objects."

#: keywords that strict output does not support, with advice on what to use instead
_UNSUPPORTED_KEYWORDS = {
    "oneOf": "Use anyOf. In pydantic, use a plain union without a discriminator.",
    "not": "Remove it and state the restriction in the prompt.",
    "if": _CASES_ADVICE,
    "then": _CASES_ADVICE,
    "else": _CASES_ADVICE,
    "dependentRequired": _CASES_ADVICE,
    "dependentSchemas": _CASES_ADVICE,
    "dependencies": _CASES_ADVICE,
    "patternProperties": _NAMES_ADVICE,
    "propertyNames": _NAMES_ADVICE,
    "unevaluatedProperties": "Remove it. Strict output never allows other properties.",
    "prefixItems": _TUPLE_ADVICE,
    "additionalItems": _TUPLE_ADVICE,
    "$dynamicRef": "Use $ref.",
    "$recursiveRef": "Use $ref.",
}
#: keywords without effect on the output, which are removed; among them `default`, because every property is required
#: and Azure rejects the keyword (openai-agents-python issue 4390)
_REMOVED_KEYWORDS = ("$schema", "$id", "$comment", "default")


def to_strict(root: dict[str, Any]) -> dict[str, Any]:
    """Return a strict copy of a JSON Schema whose root is an object.

    Raises SchemaError for anything that a strict schema cannot express, with the location in the output and a suggested
    fix. Whether the result is valid JSON Schema is left to the validator.
    """
    strict = _StrictConverter(root).convert(root, _ROOT, ())
    if "anyOf" in strict:
        raise _schema_error(_ROOT, "is an anyOf, but it must be a single object. Move the union into a property.")
    if strict.get("type") != "object":
        actual = f"not {' or '.join(types(strict))}" if "type" in strict else "but it has no type"
        raise _schema_error(_ROOT, f"must be an object, {actual}. Move it into a property.")
    return strict


def _schema_error(location: str, problem: str) -> SchemaError:
    """Return the error for a schema that strict structured output cannot express.

    `problem` completes a sentence that begins with "This", optionally followed by advice.
    """
    return SchemaError(f"output_schema, at {location}: This {problem}")


class _StrictConverter:
    """Converts the nodes of a schema. `location` describes a node by its place in the output, for errors."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root

    def convert(self, schema: Any, location: str, merged_refs: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(schema, dict) or not (schema.keys() - {"title", "description", *_REMOVED_KEYWORDS}):
            raise _schema_error(location, "may be any value, which strict output cannot express. Give it a type.")
        node = {key: value for key, value in schema.items() if key not in _REMOVED_KEYWORDS}
        node = _merge_all_of(node, location)
        for keyword, advice in _UNSUPPORTED_KEYWORDS.items():
            if keyword in node:
                raise _schema_error(location, f"uses {keyword}, which strict output does not support. {advice}")
        if "$ref" in node:
            return self._convert_ref(node, location, merged_refs)
        for word in _DEFINITIONS:
            if isinstance(node.get(word), dict):
                node[word] = {name: self.convert(value, f"{word} {name}", ()) for name, value in node[word].items()}
        if isinstance(node.get("anyOf"), list):
            node["anyOf"] = [
                self.convert(option, f"{location} (option {number} of anyOf)", merged_refs)
                for number, option in enumerate(node["anyOf"], 1)
            ]
        elif "type" not in node:
            node["type"] = _implied_type(node, location)
        if "object" in types(node):
            self._convert_object(node, location, merged_refs)
        if "array" in types(node):
            if isinstance(node.get("items"), list):
                raise _schema_error(location, f"has a list of schemas as its items. {_TUPLE_ADVICE}")
            node["items"] = self.convert(node.get("items"), f"each item of {location}", merged_refs)
        return node

    def _convert_ref(self, node: dict[str, Any], location: str, merged_refs: tuple[str, ...]) -> dict[str, Any]:
        """Keep a `$ref` that stands alone. Replace one with sibling keywords, which strict output rejects."""
        ref = node["$ref"]
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _schema_error(location, f"refers to {ref!r}, which is outside the schema. Move it into $defs.")
        target = follow(self._root, ref)
        if target is None:
            refs = [f"#/{word}/{name}" for word in _DEFINITIONS for name in self._root.get(word, {})]
            raise _schema_error(location, f"refers to {ref}, which does not exist.{suggest(ref, refs)}")
        if len(node) == 1:
            if self._is_circular(ref):
                raise _schema_error(location, f"refers only to itself, through {ref}. Give it a type.")
            return node
        if ref in merged_refs:
            raise _schema_error(
                location, f"refers to itself through {ref} next to other keywords. Remove the other keywords."
            )
        siblings = {key: value for key, value in node.items() if key != "$ref"}
        target = {key: value for key, value in target.items() if key not in _DEFINITIONS}
        return self.convert({**siblings, **target, **siblings}, location, (*merged_refs, ref))

    def _is_circular(self, ref: str) -> bool:
        visited_refs: set[str] = set()
        next_ref: Any = ref
        while isinstance(next_ref, str) and next_ref not in visited_refs:
            visited_refs.add(next_ref)
            next_ref = (follow(self._root, next_ref) or {}).get("$ref")
        return next_ref is not None

    def _convert_object(self, node: dict[str, Any], location: str, merged_refs: tuple[str, ...]) -> None:
        if node.get("additionalProperties", False) is not False:
            raise _schema_error(
                location,
                "allows properties that the schema does not name (additionalProperties, dict[str, ...], "
                f"extra='allow'), which strict output cannot express. {_NAMES_ADVICE}",
            )
        properties = node.get("properties")
        if not isinstance(properties, dict):
            raise _schema_error(location, "is an object without properties. Name its properties.")
        node["additionalProperties"] = False
        node["properties"] = {
            name: self.convert(value, name if location == _ROOT else f"{location}.{name}", merged_refs)
            for name, value in properties.items()
        }
        node["required"] = list(properties)


def _merge_all_of(node: dict[str, Any], location: str) -> dict[str, Any]:
    if "allOf" not in node:
        return node
    parts = node.pop("allOf")
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        raise _schema_error(
            location,
            "combines several schemas with allOf, which strict output does not support. Write a single object.",
        )
    part = {key: value for key, value in parts[0].items() if key not in _REMOVED_KEYWORDS}
    conflicts = [key for key in part.keys() & node.keys() - {"title", "description"} if part[key] != node[key]]
    if conflicts:
        raise _schema_error(
            location, f"and its allOf have different values for {', '.join(sorted(conflicts))}. Merge them by hand."
        )
    return _merge_all_of({**node, **part}, location)


def _implied_type(node: dict[str, Any], location: str) -> str | list[str]:
    values = node.get("enum") or ([node["const"]] if "const" in node else None)
    if isinstance(values, list):
        names = list(dict.fromkeys(json_type(value) for value in values))
        return names[0] if len(names) == 1 else names
    if "properties" in node:
        return "object"
    raise _schema_error(location, "has no type, which strict output requires. Give it a type.")


def follow(root: dict[str, Any], ref: str) -> dict[str, Any] | None:
    """Return the schema that a reference within `root` points to, or None if it does not exist."""
    node: Any = root
    for part in ref.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            return None
    return node if isinstance(node, dict) else None


def suggest(name: str, names: list[str]) -> str:
    """Return the end of an error message about an unknown name: a similar name, or the list of all names."""
    similar = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if similar:
        return f" Did you mean {similar[0]!r}?"
    return f" It has {', '.join(names[:20])}." if names else ""


def similarity(name: str, names: list[str]) -> float:
    """Return how much a name is like the most similar of `names`, from 0 to 1."""
    return max((difflib.SequenceMatcher(None, name, other).ratio() for other in names), default=0.0)


def check_size(strict: dict[str, Any]) -> None:
    """Raise SchemaError if a strict, valid schema exceeds one of the limits of this module."""
    properties = enum_values = characters = 0
    for node in _nodes(strict):
        values = node.get("enum", [])
        length = sum(len(value) for value in values if isinstance(value, str))
        if len(values) > LARGE_ENUM and length > MAX_LARGE_ENUM_CHARACTERS:
            raise SchemaError(
                f"output_schema: An enum has {len(values):,} values with {length:,} characters. Strict output accepts "
                f"at most {MAX_LARGE_ENUM_CHARACTERS:,} characters if there are more than {LARGE_ENUM} values. "
                "Use short codes as values."
            )
        const = node.get("const")
        properties += len(node.get("properties", {}))
        enum_values += len(values)
        characters += length + (len(const) if isinstance(const, str) else 0)
        characters += sum(len(name) for word in ("properties", *_DEFINITIONS) for name in node.get(word, {}))
    for unit, count, limit in (
        ("levels of nested objects", _levels(strict, strict, {}), MAX_LEVELS),
        ("properties", properties, MAX_PROPERTIES),
        ("enum values", enum_values, MAX_ENUM_VALUES),
        ("characters of names, enum values and const values", characters, MAX_NAME_CHARACTERS),
    ):
        if count > limit:
            raise SchemaError(
                f"output_schema: The schema has {count:,} {unit}. Strict output accepts at most {limit:,}. "
                "Simplify the schema, or split it across several jobs."
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


def _levels(root: dict[str, Any], node: dict[str, Any], ref_levels: dict[str, int]) -> int:
    """Return the deepest nesting of objects. Recursion is allowed: a recursive reference ends the count."""
    ref = node.get("$ref")
    if ref is not None:
        if ref not in ref_levels:
            ref_levels[ref] = 0
            ref_levels[ref] = _levels(root, follow(root, ref) or {}, ref_levels)
        return ref_levels[ref]
    child_levels = max((_levels(root, child, ref_levels) for child in _children(node)), default=0)
    return child_levels + ("object" in types(node))
