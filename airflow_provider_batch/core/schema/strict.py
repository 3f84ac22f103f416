"""Strict structured output: what is sent for an author's schema, and its size limits.

Strict output closes every object and requires all its properties. A property that the author does not require therefore
becomes nullable, and the judge reads its null as absent. The subset and the limits come from OpenAI's guide "Structured
model outputs", section "Supported schemas".

What the subset lacks is handled in one of three ways:

* What the judge can check is not sent but stated in the description, and checked after the answer arrives.
* What has the same meaning in other words is rewritten: `oneOf` as `anyOf`, a tuple as an array, `allOf` as one merged
  schema, a reference into the middle of the schema as a reference to a definition, and a root that is not an object as
  a property of an object.
* Anything else, such as an object whose properties have no names, is rejected with a way out.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from airflow_provider_batch.core.schema.drafts import map_subschemas, or_null, types
from airflow_provider_batch.core.schema.keywords import ANNOTATIONS, SENT_KEYWORDS, add_note, brief, describe_keywords
from airflow_provider_batch.core.schema.merge import UnmergeableError, merge
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
_NAMES_ADVICE = "Name every property, or use a list of {name, value} objects."

#: keywords that strict output cannot express and that have no faithful rewrite, with advice on what to use instead
_UNSUPPORTED_KEYWORDS = {
    "patternProperties": _NAMES_ADVICE,
    "$dynamicRef": "Use $ref.",
    "$recursiveRef": "Use $ref.",
}
#: keywords that give a schema a type, directly or not
_TYPED = frozenset(("type", "$ref", "anyOf", "oneOf", "allOf"))
#: the annotations that are sent
_NOTES = ("title", "description")
#: keywords that do not make a node a schema for values
_WITHOUT_MEANING = ANNOTATIONS | {"$anchor", "discriminator"}


class Strict(NamedTuple):
    """A strict schema, and what differs from the author's, one text per place in the output."""

    schema: dict[str, Any]
    changes: list[str]


def to_strict(root: dict[str, Any]) -> Strict:
    """Return a strict copy of an author's JSON Schema.

    Raises SchemaError for anything that a strict schema cannot express, with the location in the output and a suggested
    fix. Whether the result is valid JSON Schema is left to the validator.
    """
    key = wrapper(root)
    root = _require_tags(root)
    if key is None:
        return _StrictConverter(root).run()
    strict = _StrictConverter(_wrap(root, key)).run()
    return Strict(strict.schema, [f"the answer: sent inside an object, as its property {key!r}", *strict.changes])


def _require_tags(root: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that requires the properties that distinguish the options of discriminated unions.

    Pydantic exports a tag with a default as optional, but accepts no answer without the tag.
    """
    root = copy.deepcopy(root)

    def require(node: Any, tag: str, visited_refs: tuple[str, ...]) -> None:
        if not isinstance(node, dict):
            return
        ref = node.get("$ref")
        if isinstance(ref, str) and ref not in visited_refs:
            require(follow(root, ref), tag, (*visited_refs, ref))
        for option in (*node.get("oneOf", ()), *node.get("anyOf", ())):
            require(option, tag, visited_refs)
        if tag in (node.get("properties") or ()) and tag not in node.get("required", ()):
            node["required"] = [*node.get("required", ()), tag]

    def visit(node: Any) -> Any:
        if isinstance(node, dict):
            map_subschemas(node, visit)
            discriminator = node.get("discriminator")
            tag = discriminator.get("propertyName") if isinstance(discriminator, dict) else None
            if isinstance(tag, str):
                require(node, tag, ())
        return node

    return cast(dict[str, Any], visit(root))


def wrapper(root: dict[str, Any]) -> str | None:
    """Return the property in which a root that is not an object is sent, or None if the root is an object."""
    kinds, node, visited_refs = types(root), root, set()
    while not kinds and isinstance(node.get("$ref"), str) and node["$ref"] not in visited_refs:
        visited_refs.add(node["$ref"])
        node = follow(root, node["$ref"]) or {}
        kinds = types(node)
    is_union = node.keys() & {"anyOf", "oneOf"} and "properties" not in node
    if not is_union and (kinds == ["object"] or not kinds):
        return None
    return "items" if kinds == ["array"] else "value"


def _wrap(root: dict[str, Any], key: str) -> dict[str, Any]:
    def relocate(node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        node = map_subschemas(node, relocate)
        ref = node.get("$ref")
        if isinstance(ref, str) and ref.startswith("#") and ref.split("/")[1:2] not in (["$defs"], ["definitions"]):
            node["$ref"] = f"#/properties/{key}{ref[1:]}"
        return node

    root = relocate(root)
    content = {name: value for name, value in root.items() if name not in _DEFINITIONS}
    definitions = {name: value for name, value in root.items() if name in _DEFINITIONS}
    title = {"title": root["title"]} if "title" in root else {}
    return {"type": "object", "properties": {key: content}, "required": [key], **title, **definitions}


def _place(location: str) -> str:
    return "the answer" if location == _ROOT else location.removeprefix("$defs ").removeprefix("definitions ")


def _schema_error(location: str, problem: str) -> SchemaError:
    """Return the error for a schema that strict structured output cannot express.

    `problem` completes a sentence that begins with "This", optionally followed by advice.
    """
    return SchemaError(f"output_schema, at {location}: This {problem}")


class _StrictConverter:
    """Converts the nodes of a schema. `location` describes a node by its place in the output, for errors."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._changes: dict[str, list[str]] = {}
        #: definitions of what references inside the schema point to, by their name; by the reference, that name
        self._hoisted: dict[str, Any] = {}
        self._hoisted_names: dict[str, str] = {}

    def run(self) -> Strict:
        strict = self.convert(self._root, _ROOT, ())
        if strict.get("type") != "object":
            raise _schema_error(_ROOT, "must be an object. Move it into a property.")
        if self._hoisted:
            strict["$defs"] = {**strict.get("$defs", {}), **self._hoisted}
        changes = [
            f"{_place(location)}: {'; '.join(dict.fromkeys(texts))}" for location, texts in self._changes.items()
        ]
        return Strict(strict, changes)

    def convert(self, schema: Any, location: str, merged_refs: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(schema, dict) or not self._says_something(schema):
            raise _schema_error(location, "may be any value, which strict output cannot express. Give it a type.")
        node = self._flatten(schema, location, merged_refs)
        if isinstance(node.get("unevaluatedProperties"), dict):
            node["additionalProperties"] = node["unevaluatedProperties"]
        for keyword, advice in _UNSUPPORTED_KEYWORDS.items():
            if keyword in node:
                raise _schema_error(location, f"uses {keyword}, which strict output does not support. {advice}")
        if "$ref" in node:
            return self._convert_ref(node, location, merged_refs)
        if "prefixItems" in node:
            self._convert_tuple(node, location)
        self._settle_union(node, location)
        self._describe(node, location)
        for word in _DEFINITIONS:
            if isinstance(node.get(word), dict):
                node[word] = {name: self.convert(value, f"{word} {name}", ()) for name, value in node[word].items()}
        node = {("anyOf" if key == "oneOf" else key): value for key, value in node.items()}
        if isinstance(node.get("anyOf"), list):
            node["anyOf"] = [
                self.convert(option, f"{location} (option {number} of anyOf)", merged_refs)
                for number, option in enumerate(node["anyOf"], 1)
            ]
        elif node.get("enum") == []:
            raise _schema_error(location, "is an enum without values, so no answer would be valid. List its values.")
        elif "type" not in node:
            raise _schema_error(location, "has no type, which strict output requires. Give it a type.")
        if "object" in types(node):
            self._convert_object(node, location, merged_refs)
        if "array" in types(node):
            node["items"] = self.convert(node.get("items"), f"each item of {location}", merged_refs)
        return node

    @staticmethod
    def _says_something(schema: dict[str, Any]) -> bool:
        return any(key not in _WITHOUT_MEANING and not key.startswith("x-") for key in schema)

    def _change(self, location: str, text: str) -> None:
        self._changes.setdefault(location, []).append(text)

    def _flatten(self, schema: dict[str, Any], location: str, merged_refs: tuple[str, ...]) -> dict[str, Any]:
        """Return a copy of the schema with the parts of its `allOf` merged into it."""
        node = dict(schema)
        for part in node.pop("allOf", ()):
            if not isinstance(part, dict):
                raise _schema_error(location, "has an allOf with something other than a schema. Remove it.")
            ref = part.get("$ref")
            if isinstance(ref, str):
                if ref in merged_refs:
                    raise _schema_error(location, f"refers to itself through {ref} in an allOf. Write a single object.")
                part = {**self._target(ref, location), **{key: part[key] for key in part if key != "$ref"}}
                part = self._flatten(part, location, (*merged_refs, ref))
            else:
                part = self._flatten(part, location, merged_refs)
            try:
                node = merge(node, part)
            except UnmergeableError as error:
                raise _schema_error(location, f"combines schemas with allOf that cannot be merged: {error}") from error
            self._change(
                location, "allOf is merged into one schema, and its parts are checked after the answer arrives"
            )
        for part in (schema, *schema.get("allOf", ())):
            _name_conditional_properties(node, part)
        return node

    def _target(self, ref: Any, location: str) -> dict[str, Any]:
        if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
            raise _schema_error(location, f"refers to {ref!r}, which is outside the schema. Move it into $defs.")
        target = follow(self._root, ref)
        if target is None:
            refs = [f"#/{word}/{name}" for word in _DEFINITIONS for name in self._root.get(word, {})]
            raise _schema_error(location, f"refers to {ref}, which does not exist.{suggest(ref, refs)}")
        return {key: value for key, value in target.items() if key not in _DEFINITIONS}

    def _convert_ref(self, node: dict[str, Any], location: str, merged_refs: tuple[str, ...]) -> dict[str, Any]:
        """Keep a `$ref` that stands alone. Replace one with sibling keywords, which strict output rejects."""
        ref = node["$ref"]
        target = self._target(ref, location)
        siblings = {key: value for key, value in node.items() if key in _NOTES or self._says_something({key: value})}
        del siblings["$ref"]
        if not siblings:
            if self._is_circular(ref):
                raise _schema_error(location, f"refers only to itself, through {ref}. Give it a type.")
            return {"$ref": self._definition(ref, target)}
        if ref in merged_refs:
            notes: dict[str, Any] = {key: siblings[key] for key in _NOTES if key in siblings}
            if len(notes) < len(siblings) or self._is_circular(ref):
                raise _schema_error(
                    location, f"refers to itself through {ref} next to other keywords. Remove the other keywords."
                )
            return {"anyOf": [{"$ref": self._definition(ref, target)}], **notes}
        try:
            merged = merge({**siblings, **{key: target[key] for key in target if key not in siblings}}, target)
        except UnmergeableError as error:
            raise _schema_error(location, f"contradicts {ref}: {error}") from error
        return self.convert(merged, location, (*merged_refs, ref))

    def _definition(self, ref: str, target: dict[str, Any]) -> str:
        """Return a reference to the same schema that providers resolve: to the root, or to a definition."""
        parts = ref.split("/")[1:]
        if not parts or (len(parts) == 2 and parts[0] in _DEFINITIONS):
            return ref
        if ref not in self._hoisted_names:
            name = "_".join(part for part in unquote(ref).split("/")[1:] if part not in ("properties", *_DEFINITIONS))
            name = re.sub(r"[^\w.-]+", "_", name)
            while name in self._hoisted or name in self._root.get("$defs", {}):
                name += "_"
            self._hoisted_names[ref] = name
            self._hoisted[name] = {}  # keeps the name while the target, which may refer to itself, is converted
            self._hoisted[name] = self.convert(target, name, ())
        return f"#/$defs/{self._hoisted_names[ref]}"

    def _is_circular(self, ref: str) -> bool:
        visited_refs: set[str] = set()
        next_ref: Any = ref
        while isinstance(next_ref, str) and next_ref not in visited_refs:
            visited_refs.add(next_ref)
            next_ref = (follow(self._root, next_ref) or {}).get("$ref")
        return next_ref is not None

    def _convert_tuple(self, node: dict[str, Any], location: str) -> None:
        positions, other_items = node.pop("prefixItems"), node.get("items")
        options = list(positions)
        if isinstance(other_items, dict):
            options.append(other_items)
        else:
            node.setdefault("maxItems", len(positions))
        node.setdefault("minItems", len(positions))
        unique = [option for number, option in enumerate(options) if option not in options[:number]]
        node["items"] = unique[0] if len(unique) == 1 else {"anyOf": unique}
        if len(unique) > 1:
            order = ", ".join(brief(position) for position in positions)
            add_note(node, f"The items are, in this order: {order}")
            self._change(location, "the order of the items is checked after the answer arrives")

    def _settle_union(self, node: dict[str, Any], location: str) -> None:
        """Keep the union of a node that says nothing else. Next to other keywords, the judge checks it."""
        unions = [key for key in ("anyOf", "oneOf") if isinstance(node.get(key), list)]
        is_alone = not node.keys() & {"properties", "items", "enum", "const"} and len(unions) == 1
        for key in unions:
            if is_alone and all(isinstance(option, dict) and option.keys() & _TYPED for option in node[key]):
                node.pop("type", None)
            elif "type" in node:
                options = node.pop(key)
                count = "at least one" if key == "anyOf" else "exactly one"
                add_note(node, f"Must match {count} of the JSON Schemas {json.dumps(options, ensure_ascii=False)}")
                self._change(location, f"{key} is checked after the answer arrives")

    def _describe(self, node: dict[str, Any], location: str) -> None:
        """Move the keywords that are not sent to the description, if they say anything about the value."""
        for note in describe_keywords(node):
            add_note(node, note.text)
            if note.change:
                self._change(location, note.change)
        if isinstance(node.get("enum"), list):  # OpenAI refuses a value that occurs twice
            node["enum"] = list({json.dumps(value, sort_keys=True): value for value in node["enum"]}.values())
        for key in node.keys() - SENT_KEYWORDS - {"oneOf"}:
            del node[key]

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
        required = node.get("required", [])
        unnamed = next((name for name in required if name not in properties), None)
        if unnamed is not None:
            raise _schema_error(
                location,
                f"requires {unnamed!r}, which is not among its properties, so no answer would be valid."
                f"{suggest(str(unnamed), list(properties))}",
            )
        node["additionalProperties"] = False
        node["properties"] = {
            name: self._convert_property(
                value, name in required, name if location == _ROOT else f"{location}.{name}", merged_refs
            )
            for name, value in properties.items()
        }
        node["required"] = list(properties)

    def _convert_property(
        self, schema: Any, is_required: bool, location: str, merged_refs: tuple[str, ...]
    ) -> dict[str, Any]:
        is_optional = not is_required and not allows_null(self._root, schema) and not _is_fixed(schema)
        if is_optional:
            self._change(location, "optional, so it may be null")
        node = self.convert(schema, location, merged_refs)
        return or_null(node) if is_optional else node


def _is_fixed(schema: Any) -> bool:
    """Return whether a property has the same value if it is absent as if it is present, such as the tag of a model.

    A null would leave open which model of a union is meant.
    """
    return isinstance(schema, dict) and "const" in schema and schema.get("default") == schema["const"]


def _name_conditional_properties(node: dict[str, Any], part: Any) -> None:
    """Add the properties that only a condition names, because a closed object has no others."""
    if not isinstance(part, dict) or not isinstance(node.get("properties"), dict):
        return
    branches = (part.get("then"), part.get("else"), *(part.get("dependentSchemas") or {}).values())
    for branch in (*branches, *part.get("anyOf", ()), *part.get("oneOf", ())):
        if isinstance(branch, dict):
            for name, schema in branch.get("properties", {}).items():
                if isinstance(schema, dict) and schema.keys() & _TYPED:
                    node["properties"] = {**node["properties"], name: node["properties"].get(name, schema)}


def allows_null(root: dict[str, Any], schema: Any, visited_refs: frozenset[str] = frozenset()) -> bool:
    """Return whether null is among the types of a schema, looking into unions and references."""
    if not isinstance(schema, dict):
        return schema is True
    ref = schema.get("$ref")
    if isinstance(ref, str):
        return ref not in visited_refs and allows_null(root, follow(root, ref), visited_refs | {ref})
    for keyword in ("anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            return any(allows_null(root, option, visited_refs) for option in schema[keyword])
    if isinstance(schema.get("allOf"), list) and "type" not in schema:
        return all(allows_null(root, part, visited_refs) for part in schema["allOf"])
    return "null" in types(schema)


def follow(root: dict[str, Any], ref: str) -> dict[str, Any] | None:
    """Return the schema that a reference within `root` points to, or None if it does not exist."""
    node: Any = root
    for part in unquote(ref).split("/")[1:]:
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
