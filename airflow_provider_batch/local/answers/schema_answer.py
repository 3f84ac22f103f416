"""An object that fits a JSON schema, made up from a text without a model.

Enums are chosen by `classify`; everything else depends on the text alone, so the same request gives the
same answer. Covered is what structured output uses: objects, arrays, enums, const, anyOf, oneOf, allOf,
null, `$ref` inside the document, bounds on numbers, lengths and counts, the common formats. What comes out
is checked with a real validator; a schema that cannot be filled (a `pattern`, say) is an error that says
so, never a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from airflow_provider_batch.local.answers.classify import pick, rank, stems

#: below this depth arrays stay empty and optional things null, so that recursive schemas end
_DEEP = 6
#: a schema that still recurses here cannot be filled
_TOO_DEEP = 40
#: values in one document, and characters in one string, beyond which a schema is not filled
_TOO_MUCH = 100_000
_SNIPPET = 80
_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "offline@example.com",
    "hostname": "example.com",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class UnfillableSchemaError(Exception):
    """The schema is not valid, or the offline responder cannot make up an object for it."""


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> jsonschema_rs.Validator:
    try:
        # offline: a `$ref` to an address is never fetched
        return jsonschema_rs.validator_for(msgspec.json.decode(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise UnfillableSchemaError(f"the schema is not a valid JSON Schema: {error}") from error


def fill(schema: Mapping[str, Any], *, text: str, instructions: str) -> Any:
    """A value that is valid against the schema; the same for the same arguments.

    :raises UnfillableSchemaError: it is no JSON Schema, or uses what this module does not cover.
    """
    validator = _validator(msgspec.json.encode(schema))
    value = _Filler(schema, text).value(schema, path="$", instructions=instructions, depth=0)
    problem = next(iter(validator.iter_errors(value)), None)
    if problem is not None:
        where = "/".join(map(str, problem.instance_path)) or "the root"
        raise UnfillableSchemaError(f"no value could be made up that fits at {where}: {problem.message}")
    return value


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Whether a value is valid against the schema.

    :raises UnfillableSchemaError: it is no JSON Schema.
    """
    return _validator(msgspec.json.encode(schema)).is_valid(value)


class _Filler:
    """One document being filled. `path` salts what depends on the text, so that fields differ."""

    def __init__(self, root: Mapping[str, Any], text: str) -> None:
        self._root = root
        self._text = text
        self._words = " ".join(text.split())
        self._made = 0

    def value(self, schema: Any, *, path: str, instructions: str, depth: int) -> Any:
        if depth > _TOO_DEEP:
            raise UnfillableSchemaError("the schema refers to itself without an end")
        self._made += 1
        if self._made > _TOO_MUCH:
            raise UnfillableSchemaError(f"the schema asks for more than {_TOO_MUCH:,} values")
        schema = self._resolved(schema)
        said = schema.get("description")
        if isinstance(said, str):
            instructions = f"{instructions}\n{said}"
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enum(schema["enum"], path, instructions)[0]
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._branch(schema[word], path, instructions, depth)
        match self._type(schema, depth):
            case "object":
                return self._object(schema, path, instructions, depth)
            case "array":
                return self._array(schema, path, instructions, depth)
            case "string":
                return self._string(schema, path)
            case "integer":
                return self._integer(schema, path)
            case "number":
                return self._number(schema, path)
            case "boolean":
                name = path.rsplit(".", 1)[-1].replace("_", " ")
                return bool(stems(f"{name} {said or ''}") & stems(self._text))
            case _:
                return None

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """The schema with `$ref` followed and `allOf` merged, outer words winning."""
        if not isinstance(schema, Mapping):
            return {}
        merged = dict(schema)
        for _ in range(_TOO_DEEP):
            reference = merged.pop("$ref", None)
            parts = merged.pop("allOf", [])
            if reference is not None:
                parts = [self._target(reference), *parts]
            if not parts:
                return merged
            for part in parts:
                for word, inner in (part if isinstance(part, Mapping) else {}).items():
                    if word in ("properties", "$defs") and isinstance(merged.get(word), Mapping):
                        merged[word] = {**inner, **merged[word]}
                    else:
                        merged.setdefault(word, inner)
        raise UnfillableSchemaError("the schema refers to itself without an end")

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise UnfillableSchemaError(f"only references inside the schema are followed, not {reference!r}")
        node: Any = self._root
        for part in reference[1:].split("/")[1:]:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
        if node is None:
            raise UnfillableSchemaError(f"the schema has nothing at {reference!r}")
        return node

    @staticmethod
    def _type(schema: Mapping[str, Any], depth: int) -> str | None:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth > _DEEP and "null" in kind:
                return "null"
            return next((one for one in kind if one != "null"), "null")
        if kind is None:
            if "properties" in schema:
                return "object"
            return "array" if "items" in schema else "string"
        return str(kind)

    def _branch(self, branches: list[Any], path: str, instructions: str, depth: int) -> Any:
        resolved = [self._resolved(branch) for branch in branches]
        nulls = [branch for branch in resolved if branch.get("type") == "null"]
        others = [branch for branch in resolved if branch.get("type") != "null"]
        chosen = nulls[0] if nulls and (depth > _DEEP or not others) else others[0]
        return self.value(chosen, path=path, instructions=instructions, depth=depth + 1)

    def _enum(self, values: list[Any], path: str, instructions: str) -> list[Any]:
        if not values:
            raise UnfillableSchemaError("no value fits an enum without values")
        words = [value for value in values if isinstance(value, str)]
        if words:
            return list(rank(words, self._text, instructions))
        first = pick(len(values), self._text, path)
        return [*values[first:], *values[:first]]

    def _object(self, schema: Mapping[str, Any], path: str, instructions: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if name in required or depth <= _DEEP]
        return {
            name: self.value(properties[name], path=f"{path}.{name}", instructions=instructions, depth=depth + 1)
            for name in names
        }

    def _array(self, schema: Mapping[str, Any], path: str, instructions: str, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        count = max(schema.get("minItems", 0), len(prefix), 0 if depth > _DEEP else 1)
        count = min(count, schema.get("maxItems", count))
        if count > _TOO_MUCH:
            raise UnfillableSchemaError(f"the schema asks for more than {_TOO_MUCH:,} values")
        items = schema.get("items", {})
        resolved = self._resolved(items)
        if "enum" in resolved and not prefix:
            ranked = self._enum(resolved["enum"], path, f"{instructions}\n{resolved.get('description', '')}")
            return [ranked[index % len(ranked)] for index in range(count)]
        return [
            self.value(
                prefix[index] if index < len(prefix) else items,
                path=f"{path}.{index}",
                instructions=instructions,
                depth=depth + 1,
            )
            for index in range(count)
        ]

    def _string(self, schema: Mapping[str, Any], path: str) -> str:
        form = _FORMATS.get(schema.get("format", ""))
        if form is not None:
            return form
        if schema.get("minLength", 0) > _TOO_MUCH:
            raise UnfillableSchemaError(f"the schema asks for more than {_TOO_MUCH:,} characters")
        last = path.rsplit(".", 1)[-1]
        text = f"offline: {self._words[:_SNIPPET]}" + (f" ({last})" if last.isdigit() else "")
        return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]

    def _integer(self, schema: Mapping[str, Any], path: str) -> int:
        step = schema.get("multipleOf", 1)
        low, high = _bounds(schema, default=10)
        first, last = math.ceil(low / step), math.floor(high / step)
        first += first * step == schema.get("exclusiveMinimum")
        last -= last * step == schema.get("exclusiveMaximum")
        return int((first + pick(max(last - first, 0) + 1, self._text, path)) * step)

    def _number(self, schema: Mapping[str, Any], path: str) -> float:
        if "multipleOf" in schema:
            return self._integer(schema, path)
        low, high = _bounds(schema, default=1)
        if low == high:
            return float(low)
        return round(low + (high - low) * (1 + pick(98, self._text, path)) / 100, 6)


def _bounds(schema: Mapping[str, Any], *, default: int) -> tuple[float, float]:
    """The range of a number; one that is open on a side is `default` wide."""
    lows = [schema[word] for word in ("minimum", "exclusiveMinimum") if word in schema]
    highs = [schema[word] for word in ("maximum", "exclusiveMaximum") if word in schema]
    if lows:
        low = max(lows)
        return low, min(highs) if highs else low + default
    if highs:
        return min(0, min(highs) - default), min(highs)
    return 0, default
