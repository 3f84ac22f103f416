"""Makes up a value that fits a JSON schema. The value is derived from a text; no model is involved.

The caller's function, by default that of `classify`, chooses the values of enums. Everything else depends only on the
text, so the same request always gets the same answer. The module supports what structured output uses: objects, arrays,
enums, const, anyOf, oneOf, allOf, null, `$ref` within the document, bounds on numbers, lengths and counts, and common
formats. A real validator checks every value. A schema that this module cannot fill (because of a `pattern`, for
example) raises an error; it never gets an answer that does not fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jsonschema_rs
import msgspec

from airflow_provider_batch.local.answers.classify import pick, rank_by_words, stems

#: beyond this depth arrays are empty and optional values are null or omitted, so that recursive schemas terminate
_MINIMAL_DEPTH = 6
#: a schema that still recurses at this depth cannot be filled
_MAX_DEPTH = 40
#: maximum number of values in one document, and of characters in one string
_MAX_SIZE = 100_000
#: characters of the text that a string value quotes
_SNIPPET_LENGTH = 80
#: JSON Schema format -> example value
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


#: how a description asks for what strict output has no format for -> example value
_FORMATS_IN_WORDS = {
    "Format: an absolute URL": "https://example.com/",
    "Format: a date and time without a time zone": "2026-01-01T00:00:00",
    "Format: an IP address": "127.0.0.1",
    "Format: an IP network": "127.0.0.0/8",
    "Format: base64": "b2ZmbGluZQ==",
    "Encoded as base64": "b2ZmbGluZQ==",
}

#: ranks the values of an enum, the best first, for a text and the instructions that describe the values
Rank = Callable[[Sequence[str], str, str], list[str]]


class UnfillableSchemaError(Exception):
    """Raised when a schema is invalid, or when the offline responder cannot make up a value for it."""


@lru_cache(maxsize=256)
def _validator(schema: bytes) -> jsonschema_rs.Validator:
    try:
        # offline: never fetch a `$ref` that is a URL
        return jsonschema_rs.validator_for(msgspec.json.decode(schema), offline=True)
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        raise UnfillableSchemaError(f"the schema is not a valid JSON Schema: {error}") from error


def fill(schema: Mapping[str, Any], *, text: str, instructions: str, rank: Rank = rank_by_words) -> Any:
    """Return a value that is valid against the schema. Equal arguments give equal values.

    :raises UnfillableSchemaError: the schema is not a valid JSON Schema, or uses something that is not supported here.
    """
    validator = _validator(msgspec.json.encode(schema))
    value = _Filler(schema, text, rank).value(schema, path="$", instructions=instructions, depth=0)
    problem = next(iter(validator.iter_errors(value)), None)
    if problem is not None:
        path = "/".join(map(str, problem.instance_path)) or "the root"
        raise UnfillableSchemaError(f"could not make up a valid value for {path}: {problem.message}")
    return value


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    """Return whether a value is valid against the schema.

    :raises UnfillableSchemaError: the schema is not a valid JSON Schema.
    """
    return _validator(msgspec.json.encode(schema)).is_valid(value)


class _Filler:
    """Fills one document. The path of a field is part of the salt of its value, so that fields get different values."""

    def __init__(self, root: Mapping[str, Any], text: str, rank: Rank) -> None:
        self._root = root
        self._text = text
        self._rank = rank
        self._words = " ".join(text.split())
        self._value_count = 0

    def value(self, schema: Any, *, path: str, instructions: str, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise UnfillableSchemaError("the schema refers to itself endlessly")
        self._value_count += 1
        if self._value_count > _MAX_SIZE:
            raise UnfillableSchemaError(f"the schema asks for more than {_MAX_SIZE:,} values")
        schema = self._resolve(schema)
        description = schema.get("description")
        if isinstance(description, str):
            instructions = f"{instructions}\n{description}"
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._enum(schema["enum"], path, instructions)[0]
        for keyword in ("anyOf", "oneOf"):
            if schema.get(keyword):
                return self._branch(schema[keyword], path, instructions, depth)
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
                return bool(stems(f"{name} {description or ''}") & stems(self._text))
            case _:
                return None

    def _resolve(self, schema: Any) -> Mapping[str, Any]:
        """Return the schema with `$ref` followed and `allOf` merged. Outer keywords take precedence over inner ones."""
        if not isinstance(schema, Mapping):
            return {}
        result = dict(schema)
        for _ in range(_MAX_DEPTH):
            reference = result.pop("$ref", None)
            parts = result.pop("allOf", [])
            if reference is not None:
                parts = [self._follow(reference), *parts]
            if not parts:
                return result
            for part in parts:
                for keyword, inner in (part if isinstance(part, Mapping) else {}).items():
                    if keyword in ("properties", "$defs") and isinstance(result.get(keyword), Mapping):
                        result[keyword] = {**inner, **result[keyword]}
                    else:
                        result.setdefault(keyword, inner)
        raise UnfillableSchemaError("the schema refers to itself endlessly")

    def _follow(self, reference: str) -> Any:
        if not reference.startswith("#"):
            raise UnfillableSchemaError(f"the reference {reference!r} points outside the schema")
        node: Any = self._root
        for part in reference[1:].split("/")[1:]:
            node = node.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(node, Mapping) else None
        if node is None:
            raise UnfillableSchemaError(f"the reference {reference!r} points to nothing in the schema")
        return node

    @staticmethod
    def _type(schema: Mapping[str, Any], depth: int) -> str | None:
        kind = schema.get("type")
        if isinstance(kind, list):
            if depth > _MINIMAL_DEPTH and "null" in kind:
                return "null"
            return next((name for name in kind if name != "null"), "null")
        if kind is None:
            if "properties" in schema:
                return "object"
            return "array" if "items" in schema else "string"
        return str(kind)

    def _branch(self, branches: list[Any], path: str, instructions: str, depth: int) -> Any:
        schemas = [self._resolve(branch) for branch in branches]
        null_schemas = [schema for schema in schemas if schema.get("type") == "null"]
        value_schemas = [schema for schema in schemas if schema.get("type") != "null"]
        prefer_null = depth > _MINIMAL_DEPTH or not value_schemas
        schema = null_schemas[0] if null_schemas and prefer_null else value_schemas[0]
        return self.value(schema, path=path, instructions=instructions, depth=depth + 1)

    def _enum(self, values: list[Any], path: str, instructions: str) -> list[Any]:
        if not values:
            raise UnfillableSchemaError("an enum without values cannot be filled")
        strings = [value for value in values if isinstance(value, str)]
        if strings:
            return list(self._rank(strings, self._text, instructions))
        first = pick(len(values), self._text, path)
        return [*values[first:], *values[:first]]

    def _object(self, schema: Mapping[str, Any], path: str, instructions: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if name in required or depth <= _MINIMAL_DEPTH]
        return {
            name: self.value(properties[name], path=f"{path}.{name}", instructions=instructions, depth=depth + 1)
            for name in names
        }

    def _array(self, schema: Mapping[str, Any], path: str, instructions: str, depth: int) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        count = max(schema.get("minItems", 0), len(prefix), 0 if depth > _MINIMAL_DEPTH else 1)
        count = min(count, schema.get("maxItems", count))
        if count > _MAX_SIZE:
            raise UnfillableSchemaError(f"the schema asks for more than {_MAX_SIZE:,} values")
        items = schema.get("items", {})
        item_schema = self._resolve(items)
        if "enum" in item_schema and not prefix:
            values = self._enum(item_schema["enum"], path, f"{instructions}\n{item_schema.get('description', '')}")
            return [values[index % len(values)] for index in range(count)]
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
        example = _FORMATS.get(schema.get("format", ""))
        description = str(schema.get("description", ""))
        examples = (text for words, text in _FORMATS_IN_WORDS.items() if words in description)
        example = example or next(examples, None)
        if example is not None:
            return example
        if schema.get("minLength", 0) > _MAX_SIZE:
            raise UnfillableSchemaError(f"the schema asks for more than {_MAX_SIZE:,} characters")
        name = path.rsplit(".", 1)[-1]
        text = f"offline: {self._words[:_SNIPPET_LENGTH]}" + (f" ({name})" if name.isdigit() else "")
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
    """Return the range of a number. A range with an open end is `default` wide."""
    lows = [schema[keyword] for keyword in ("minimum", "exclusiveMinimum") if keyword in schema]
    highs = [schema[keyword] for keyword in ("maximum", "exclusiveMaximum") if keyword in schema]
    if lows:
        low = max(lows)
        return low, min(highs) if highs else low + default
    if highs:
        return min(0, min(highs) - default), min(highs)
    return 0, default
