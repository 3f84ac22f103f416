"""The JSON Schema of a pydantic type, in which every type can be recognized.

Pydantic's own JSON Schema says the same for different types. A `Decimal` looks like `float | str`, and a
`NaiveDatetime` like a `datetime`. Here each has a `format` of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from airflow_provider_batch.core.schema import decimals
from airflow_provider_batch.core.schema.convert import LOCAL_DATE_TIME

if TYPE_CHECKING:
    from pydantic_core import core_schema

_DECIMAL_LIMITS = ("max_digits", "decimal_places", "multiple_of", "ge", "gt", "le", "lt")


class AuthorSchema(GenerateJsonSchema):
    """Generates JSON Schema with a distinct format for every type of value."""

    def generate(self, schema: Any, mode: Any = "validation") -> JsonSchemaValue:
        """Return the JSON Schema of a core schema."""
        result: JsonSchemaValue = decimals.keep_unmarked(super().generate(schema, mode))
        return result

    def decimal_schema(self, schema: core_schema.DecimalSchema) -> JsonSchemaValue:
        """Return a marked decimal with its limits."""
        number, _text = super().decimal_schema(schema)["anyOf"]
        limits = {limit: schema[limit] for limit in _DECIMAL_LIMITS if limit in schema}  # type: ignore[literal-required]
        plain = {limit: value if isinstance(value, int) else str(value) for limit, value in limits.items()}
        marked = {**number, "type": ["number", "string"], "format": decimals.FORMAT}
        return {**marked, decimals.LIMITS: plain} if plain else marked

    def bytes_schema(self, schema: core_schema.BytesSchema) -> JsonSchemaValue:
        """Return a text, with the encoding from which validation decodes it."""
        formats = {"base64": "base64url", "hex": "hex"}
        return {**super().bytes_schema(schema), "format": formats.get(self._config.val_json_bytes, "binary")}

    def datetime_schema(self, schema: core_schema.DatetimeSchema) -> JsonSchemaValue:
        """Return a date and time, with a format of its own if it must have no time zone."""
        result = super().datetime_schema(schema)
        if schema.get("tz_constraint") == "naive" and result.get("type") == "string":
            return {**result, "format": LOCAL_DATE_TIME}
        return result
