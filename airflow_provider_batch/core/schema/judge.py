"""Structured output: the schema that is sent, the judge of what comes back, and the columns cut from it.

A schema that strict output cannot express is refused here, when the DAG is parsed, not by the provider after
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
    """The plain, strict JSON Schema of a pydantic model class or a JSON Schema dict.

    Every object is closed and requires all its properties, a single `allOf` and a `$ref` with siblings are
    merged in, as the OpenAI SDK's `lib/_pydantic.py` does it; unlike there every `default` goes, not only
    null. The result shares nothing with the argument and goes through `json.dumps` as it is.

    Raises SchemaError naming the place in the output and the way out.
    """
    closed = strict.close(_plain(schema))
    try:
        jsonschema_rs.Draft202012Validator(closed, offline=True)
    except jsonschema_rs.ValidationError as error:
        where = "/".join(str(part) for part in error.instance_path) or "the root"
        raise SchemaError(f"output_schema is no valid JSON Schema: {where}: {error.message}") from error
    strict.check_size(closed)
    return closed


def _plain(schema: Any) -> dict[str, Any]:
    if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
        schema = _from_pydantic(schema)
    if not isinstance(schema, dict):
        found = schema.__name__ if isinstance(schema, type) else f"a {type(schema).__name__}"
        hint = ": give the class, not an instance" if hasattr(schema, "model_dump") else ""
        raise SchemaError(f"output_schema must be a pydantic model class or a JSON Schema dict, not {found}{hint}")
    if schema.get("type") == "json_schema":
        raise SchemaError("output_schema is a whole response format: give only the schema inside it")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"output_schema cannot be written as JSON: {error}") from error
    return plain


def _from_pydantic(model: Any) -> Any:
    import pydantic

    if issubclass(model, pydantic.RootModel):
        raise SchemaError(
            f"output_schema: {model.__name__} is a RootModel, but the root must be an object: "
            "use a BaseModel that has it as a field"
        )
    try:
        return model.model_json_schema()
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise SchemaError(f"output_schema: pydantic has no JSON Schema for {model.__name__}: {error}") from error


class SchemaJudge:
    """The one judge of structured output: whether a text is JSON, and whether the schema allows it.

    Formats are judged too; `date` and `date-time` by `convert`, so that what passes here fits its column.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            formats={"date": _fits(ColumnType.DATE), "date-time": _fits(ColumnType.TIMESTAMP)},
        )

    def judge(self, text: str | bytes) -> tuple[Any, str | None]:
        """(the parsed value, None), or (None, what is wrong and where, in about 300 characters at most)."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError) as error:
            return None, f"not JSON: {error}"
        except RecursionError:
            return None, "nested too deeply to be read"
        if self._validator.is_valid(value):
            return value, None
        wrong = next(iter(self._validator.iter_errors(value)))
        path = ".".join(str(part) for part in wrong.instance_path) or "the answer"
        return None, f"does not fit the schema: {path}: {_short(wrong.message, 240)}"


def _fits(type: ColumnType) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        try:
            convert(value, type)
        except ValueError:
            return False
        return True

    return fits


def column_type(schema: dict[str, Any], path: str) -> ColumnType:
    """The type of a column that holds what lies at `path` ('label', 'address.city', 'items.0.name').

    Null beside another type changes nothing, since every column may be NULL. Objects, arrays and unions of
    unlike types are JSON. Raises SchemaError naming what is there instead.
    """
    nodes = list(_options(schema, schema, set()))
    walked: list[str] = []
    for part in path.split("."):
        below: list[dict[str, Any]] = []
        for node in nodes:
            if part in node.get("properties", {}):
                below += _options(schema, node["properties"][part], set())
            elif part.isdecimal() and "items" in node:
                below += _options(schema, node["items"], set())
        if not below:
            raise SchemaError(f"column path {path!r}: {_no_such(part, walked, nodes)}")
        nodes = below
        walked.append(part)
    found = {kind for node in nodes for kind in _column_types(node)}
    if len(found) == 1:
        return found.pop()
    if found == {ColumnType.INTEGER, ColumnType.FLOAT}:
        return ColumnType.FLOAT
    if found <= {ColumnType.TEXT, ColumnType.DATE, ColumnType.TIMESTAMP}:
        return ColumnType.TEXT
    return ColumnType.JSON


def _no_such(part: str, walked: list[str], nodes: list[dict[str, Any]]) -> str:
    where = f"{'.'.join(walked)!r} in the output schema" if walked else "the output schema"
    names = [name for node in nodes for name in node.get("properties", {})]
    if not names and any("items" in node for node in nodes):
        return f"{where} is a list, so its next part must be a number, not {part!r}"
    return f"{where} has no {part!r}{strict.close_match(part, names)}"


def _options(root: dict[str, Any], node: dict[str, Any], seen: set[str]) -> Iterator[dict[str, Any]]:
    """The schemas, $ref and anyOf resolved, one of which a value here fits."""
    ref = node.get("$ref")
    if ref is not None:
        if ref not in seen:
            seen.add(ref)
            yield from _options(root, strict.follow(root, ref) or {}, seen)
    elif "anyOf" in node:
        for option in node["anyOf"]:
            yield from _options(root, option, seen)
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
    """A function that gives what lies at `path` in a parsed answer, as `convert` does, with its errors."""
    parts, as_it_is = path.split("."), _AS_THEY_ARE.get(type)

    def cut(value: Any) -> Any:
        found = _walk(value, parts)
        return found if found.__class__ is as_it_is else convert(found, type)

    return cut


#: the values that `convert` gives back unchanged for a type
_AS_THEY_ARE: dict[ColumnType, Any] = {ColumnType.TEXT: str, ColumnType.BOOLEAN: bool, ColumnType.FLOAT: float}


def value_at(value: Any, path: str) -> Any:
    """What lies at `path` in a parsed answer; None when it is absent or null."""
    return _walk(value, path.split("."))


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
    """A JSON value as the Python value that `ColumnType` documents; None stays None.

    A timestamp without an offset is taken as UTC; bytes are base64. Raises ValueError when it does not fit.
    """
    if value is None or type is ColumnType.JSON:
        return value
    fitting: Any = None
    if isinstance(value, bool):
        fitting = value if type is ColumnType.BOOLEAN else None
    elif isinstance(value, str):
        fitting = _from_text(value, type)
    elif isinstance(value, int | float):
        fitting = _from_number(value, type)
    elif isinstance(value, list) and type is ColumnType.VECTOR:
        fitting = [convert(item, ColumnType.FLOAT) for item in value]
        fitting = None if None in fitting else fitting
    if fitting is None:
        raise ValueError(f"{_short(repr(value), 80)} is no {type}")
    return fitting


def _from_text(value: str, type: ColumnType) -> Any:
    try:
        if type is ColumnType.TEXT:
            return value
        if type is ColumnType.DATE:
            return date.fromisoformat(value)
        if type is ColumnType.TIMESTAMP:
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
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


def _short(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[:characters] + "…"
