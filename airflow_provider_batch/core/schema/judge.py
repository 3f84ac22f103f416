"""Validation of structured output against its schema."""

from __future__ import annotations

from functools import partial
from typing import Any

import jsonschema_rs
import msgspec

from airflow_provider_batch.core.schema import decimals
from airflow_provider_batch.core.schema.convert import FORMAT_TYPES, is_format, parse_json, truncate


class SchemaJudge:
    """Decides whether a text is JSON that the schema allows. All structured output is judged here.

    Formats are validated too. Those with a column type of their own are validated with `convert`, so that a valid
    answer fits its column. Numbers keep all their digits.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self._validator = jsonschema_rs.Draft202012Validator(
            schema,
            offline=True,
            validate_formats=True,
            formats={name: partial(is_format, format=name) for name in FORMAT_TYPES},
            keywords={decimals.LIMITS: decimals.Limits},
        )

    def judge(self, text: str | bytes) -> tuple[Any, str | None]:
        """Return (the parsed value, None), or (None, a description of the problem of at most about 300 characters)."""
        try:
            value = parse_json(text)
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
            return None, f"The answer cannot be checked against the schema: {truncate(str(error).rstrip('.'), 240)}."
        location = truncate(".".join(str(part) for part in problem.instance_path) or "the root", 120)
        return None, f"The answer does not match the schema at {location}: {truncate(problem.message, 240)}."
