"""The schema that an author gives, as a pydantic type or as JSON Schema, and what is sent of it.

`author_schema` keeps what the author means, and answers are judged by it. `strict_schema` makes from it what the
provider accepts. A schema that strict output cannot express is rejected here, when the DAG is parsed, rather than by
the provider after the upload.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs

from airflow_provider_batch.core.schema import decimals, strict
from airflow_provider_batch.core.schema.drafts import to_current_draft
from airflow_provider_batch.exceptions import SchemaError


def author_schema(source: Any) -> dict[str, Any]:
    """Return what an author gives as JSON Schema of the draft 2020-12, with the same meaning.

    The result is JSON-serializable and shares nothing with the argument. Raises SchemaError.
    """
    if isinstance(source, type) and hasattr(source, "model_json_schema"):
        source = _from_pydantic(source)
    if not isinstance(source, dict):
        description = (
            f"the class {source.__name__}" if isinstance(source, type) else f"a value of type {type(source).__name__}"
        )
        hint = " Give the class instead of an instance." if hasattr(source, "model_dump") else ""
        raise SchemaError(
            f"output_schema: Expected a pydantic model class or a JSON Schema as a dict, got {description}.{hint}"
        )
    if source.get("type") == "json_schema":
        raise SchemaError("output_schema: This is a complete response format. Give only the schema inside it.")
    try:
        json_dict = json.loads(json.dumps(source, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"output_schema: The schema cannot be written as JSON: {str(error).rstrip('.')}.") from error
    schema: dict[str, Any] = decimals.mark_exported(to_current_draft(json_dict))
    return schema


def strict_schema(source: Any) -> dict[str, Any]:
    """Return the strict JSON Schema that is sent for what an author gives.

    Every object is closed and requires all its properties. A `$ref` with sibling keywords is merged into its parent, as
    the OpenAI SDK does in `lib/_pydantic.py`. Unlike the SDK, which removes only null defaults, this function removes
    every `default`. The result is JSON-serializable and shares nothing with the argument.

    Raises SchemaError naming the location in the output and suggesting a fix.
    """
    author_root = author_schema(source)
    strict_root = strict.to_strict(decimals.as_numbers(author_root))
    _check_validity(author_root)
    _check_validity(strict_root)
    strict.check_size(strict_root)
    return strict_root


def _check_validity(schema: dict[str, Any]) -> None:
    try:
        jsonschema_rs.Draft202012Validator(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        location = "/".join(str(part) for part in error.instance_path) or "the root"
        raise SchemaError(
            f"output_schema: The JSON Schema is not valid at {location}: {error.message.rstrip('.')}."
        ) from error


def _from_pydantic(model: Any) -> Any:
    import pydantic

    from airflow_provider_batch.core.schema.schema_generator import AuthorSchema

    if issubclass(model, pydantic.RootModel):
        raise SchemaError(
            f"output_schema: {model.__name__} is a RootModel, but the root of the output must be an object. "
            "Use a BaseModel with this type as a field."
        )
    try:
        return model.model_json_schema(schema_generator=AuthorSchema)
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise SchemaError(
            f"output_schema: pydantic cannot create a JSON Schema for {model.__name__}: {str(error).rstrip('.')}."
        ) from error
