"""The schema that an author gives, as a pydantic model or as JSON Schema, prepared for sending.

A schema that strict output cannot express is rejected here, when the DAG is parsed, rather than by the provider after
the upload.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from airflow_provider_batch.core.schema import strict
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
