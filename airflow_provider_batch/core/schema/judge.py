"""Structured output: preparing the schema to send, validating answers against it, extracting columns from them.

A schema that strict output cannot express is rejected here, when the DAG is parsed, rather than by the provider after
the upload.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import jsonschema_rs
import msgspec

from airflow_provider_batch.core.schema import strict
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.exceptions import SchemaError


def strict_schema(schema: Any) -> dict[str, Any]:
    """Return the strict JSON Schema of a pydantic model class or of a JSON Schema dict.

    Every object is closed and requires all its properties. A single `allOf` and a `$ref` with sibling keywords are
    merged into their parent, as the OpenAI SDK does in `lib/_pydantic.py`. Unlike the SDK, which removes only null
    defaults, this function removes every `default`. The result is JSON-serializable and shares nothing with the
    argument.

    Raises SchemaError naming the location in the output and suggesting a fix.
    """
    strict_root = strict.to_strict(_to_json_dict(schema))
    try:
        jsonschema_rs.Draft202012Validator(strict_root, offline=True)
    except jsonschema_rs.ValidationError as error:
        location = "/".join(str(part) for part in error.instance_path) or "the root"
        raise SchemaError(
            f"output_schema: The JSON Schema is not valid at {location}: {error.message.rstrip('.')}."
        ) from error
    strict.check_size(strict_root)
    return strict_root


def _to_json_dict(schema: Any) -> dict[str, Any]:
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        schema = _from_pydantic(schema)
    if not isinstance(schema, dict):
        description = (
            f"the class {schema.__name__}" if isinstance(schema, type) else f"a value of type {type(schema).__name__}"
        )
        hint = " Give the class instead of an instance." if hasattr(schema, "model_dump") else ""
        raise SchemaError(
            f"output_schema: Expected a pydantic model class or a JSON Schema as a dict, got {description}.{hint}"
        )
    if schema.get("type") == "json_schema":
        raise SchemaError("output_schema: This is a complete response format. Give only the schema inside it.")
    try:
        json_dict: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"output_schema: The schema cannot be written as JSON: {str(error).rstrip('.')}.") from error
    return json_dict


def _from_pydantic(model: Any) -> Any:
    import pydantic

    if issubclass(model, pydantic.RootModel):
        raise SchemaError(
            f"output_schema: {model.__name__} is a RootModel, but the root of the output must be an object. "
            "Use a BaseModel with this type as a field."
        )
    try:
        return model.model_json_schema()
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise SchemaError(
            f"output_schema: pydantic cannot create a JSON Schema for {model.__name__}: {str(error).rstrip('.')}."
        ) from error


class SchemaJudge:
    """Decides whether a text is JSON that the schema allows. All structured output is judged here.

    Formats are validated too. `date` and `date-time` are validated with `convert`, so that a valid answer always fits
    its column.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            formats={
                "date": _create_format_check(ColumnType.DATE),
                "date-time": _create_format_check(ColumnType.TIMESTAMP),
            },
        )

    def judge(self, text: str | bytes) -> tuple[Any, str | None]:
        """Return (the parsed value, None), or (None, a description of the problem of at most about 300 characters)."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError) as error:
            return None, f"The answer is not JSON: {str(error).rstrip('.')}."
        except RecursionError:
            return None, "The answer is nested too deeply to be parsed."
        try:
            if self._validator.is_valid(value):
                return value, None
            problem = next(iter(self._validator.iter_errors(value)))
        except (ValueError, RecursionError) as error:
            # The validator limits the nesting to 255 levels.
            return None, f"The answer cannot be checked against the schema: {_truncate(str(error).rstrip('.'), 240)}."
        location = _truncate(".".join(str(part) for part in problem.instance_path) or "the root", 120)
        return None, f"The answer does not match the schema at {location}: {_truncate(problem.message, 240)}."


def _create_format_check(type: ColumnType) -> Callable[[str], bool]:
    def is_convertible(value: str) -> bool:
        try:
            convert(value, type)
        except ValueError:
            return False
        return True

    return is_convertible


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


def convert(value: Any, type: ColumnType) -> Any:
    """Return a JSON value as the Python type that `ColumnType` documents. None stays None.

    A timestamp without an offset is interpreted as UTC. Bytes are decoded from base64. Raises ValueError if the value
    does not fit the type.
    """
    if value is None or type is ColumnType.JSON:
        return value
    result: Any = None
    if isinstance(value, bool):
        result = value if type is ColumnType.BOOLEAN else None
    elif isinstance(value, str):
        result = _from_text(value, type)
    elif isinstance(value, int | float):
        result = _from_number(value, type)
    elif isinstance(value, list) and type is ColumnType.VECTOR:
        result = [convert(item, ColumnType.FLOAT) for item in value]
        result = None if None in result else result
    if result is None:
        raise ValueError(f"{_truncate(repr(value), 80)} is not of type {type}")
    return result


def _from_text(value: str, type: ColumnType) -> Any:
    try:
        if type is ColumnType.TEXT:
            return value
        if type is ColumnType.DATE:
            return date.fromisoformat(value)
        if type is ColumnType.TIMESTAMP:
            timestamp = datetime.fromisoformat(value)
            return timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp.astimezone(UTC)
        if type is ColumnType.BYTES:
            return base64.b64decode(value, validate=True)
    except (ValueError, OverflowError):
        return None
    return None


def _from_number(value: int | float, type: ColumnType) -> Any:
    try:
        if type is ColumnType.FLOAT:
            return float(value)
        if type is ColumnType.NUMERIC:
            return Decimal(str(value))
        if type is ColumnType.INTEGER and value == int(value) and -(2**63) <= value < 2**63:
            return int(value)
    except (ValueError, OverflowError):
        return None
    return None


def _truncate(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "…"
