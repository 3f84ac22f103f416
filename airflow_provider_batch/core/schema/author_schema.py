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
from airflow_provider_batch.core.schema.keywords import PYDANTIC_KEYWORD
from airflow_provider_batch.core.schema.regex import PATTERN_OPTIONS
from airflow_provider_batch.exceptions import SchemaError


def author_schema(source: Any) -> dict[str, Any]:
    """Return what an author gives as JSON Schema of the draft 2020-12, with the same meaning.

    :param source: JSON Schema as a dict, or anything that pydantic can validate: a model, a dataclass, a TypedDict, a
        type such as `list[Item]` or `Annotated[...]`, or a TypeAdapter. The JSON Schema of a type also says what else
        pydantic accepts; see `pydantic_types`.

    The result is JSON-serializable and shares nothing with the argument. Raises SchemaError.
    """
    if not isinstance(source, dict):
        source = _from_pydantic(source)
    inner = next((key for key in ("json_schema", "schema", "parameters", "input_schema") if key in source), None)
    if source.get("type") == "json_schema" or (inner and "properties" not in source and "$ref" not in source):
        raise SchemaError(
            "output_schema: This is a response format or a function, and not a schema. Give only the schema inside it"
            f"{f', under {inner!r}' if inner else ''}."
        )
    try:
        json_dict = json.loads(json.dumps(source, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"output_schema: The schema cannot be written as JSON: {str(error).rstrip('.')}.") from error
    schema: dict[str, Any] = decimals.mark_exported(to_current_draft(json_dict))
    return schema


def strict_schema(source: Any) -> dict[str, Any]:
    """Return the strict JSON Schema that is sent for what an author gives.

    Every object is closed and requires all its properties; those that the author does not require may be null. Keywords
    that OpenAI refuses are stated in the descriptions. `strict` describes how. The result is JSON-serializable and
    shares nothing with the argument.

    Raises SchemaError naming the location in the output and suggesting a fix.
    """
    try:
        author_root = author_schema(source)
        strict_root = strict.to_strict(decimals.as_numbers(author_root)).schema
        _check_validity(author_root)
        _check_validity(strict_root)
        strict.check_size(strict_root)
    except RecursionError as error:
        raise SchemaError(
            f"output_schema: The schema is nested too deeply. Strict output accepts at most {strict.MAX_LEVELS} levels "
            "of objects. Simplify the schema, or split it across several jobs."
        ) from error
    return strict_root


def schema_changes(author_root: dict[str, Any]) -> list[str]:
    """Return what making a schema strict changes, one text per place in the output, for people."""
    changes = strict.to_strict(decimals.as_numbers(author_root)).changes
    validators = author_root.get(PYDANTIC_KEYWORD, {}).get("validators", [])
    if validators:
        changes.append(f"the author's own validators do not run: {', '.join(validators)}")
    return changes


def _check_validity(schema: dict[str, Any]) -> None:
    try:
        jsonschema_rs.Draft202012Validator(schema, offline=True, pattern_options=PATTERN_OPTIONS)
    except jsonschema_rs.ValidationError as error:
        location = "/".join(str(part) for part in error.instance_path) or "the root"
        raise SchemaError(
            f"output_schema: The JSON Schema is not valid at {location}: {error.message.rstrip('.')}."
        ) from error
    except ValueError as error:  # the validator limits the nesting to 255 levels
        raise RecursionError from error


def _from_pydantic(source: Any) -> dict[str, Any]:
    import pydantic

    from airflow_provider_batch.core.schema import pydantic_types

    if not pydantic_types.is_type(source):
        hint = " Give the class instead of an instance." if hasattr(source, "model_dump") else ""
        raise SchemaError(
            "output_schema: Expected a pydantic model class, another type that pydantic can validate, or a JSON Schema "
            f"as a dict, got a value of type {type(source).__name__}.{hint}"
        )
    try:
        return pydantic_types.type_to_json_schema(source)
    except (pydantic.errors.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        name = getattr(source, "__name__", source)
        raise SchemaError(
            f"output_schema: pydantic cannot create a JSON Schema for {name}: {str(error).splitlines()[0].rstrip('.')}."
        ) from error
