"""Validation of structured output against its author's schema.

The author's schema decides, and not the strict one that was sent, because servers that do not enforce schemas answer
what the author's prompt asks for. Two things in an answer belong to the sending and not to the author: a null for an
optional property, which means that the property is absent, and the object around a root that is not an object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jsonschema_rs
import msgspec

from airflow_provider_batch.core.schema import decimals, strict
from airflow_provider_batch.core.schema.absent import ROOT_URI, without_absent
from airflow_provider_batch.core.schema.convert import FORMAT_TYPES, IP_FORMATS, is_format, parse_json, truncate
from airflow_provider_batch.core.schema.drafts import map_subschemas
from airflow_provider_batch.core.schema.keywords import PYDANTIC_KEYWORD
from airflow_provider_batch.core.schema.regex import PATTERN_OPTIONS


class SchemaJudge:
    """Decides whether a text is JSON that the author's schema allows. All structured output is judged here.

    A schema that comes from a pydantic type is judged as pydantic does; see `pydantic_types`. In other schemas formats
    are validated too. Those with a column type of their own are validated with `convert`, so that a valid answer fits
    its column. Numbers keep all their digits.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        #: name of the property in which a root that is not an object is sent, or None
        self.wrapper = strict.wrapper(schema)
        self._check = _pydantic_check(schema) or _json_schema_check(schema)

    def judge(self, text: str | bytes) -> tuple[Any, str | None]:
        """Return (the value, None), or (None, a description of the problem of at most about 300 characters).

        Properties that are absent are left out of the value, or have the default of their pydantic field.
        """
        try:
            value = parse_json(text)
        except (msgspec.DecodeError, ValueError) as error:
            return None, f"The answer is not JSON: {str(error).rstrip('.')}."
        except RecursionError:
            return None, "The answer is nested too deeply to be parsed."
        if self.wrapper is not None and isinstance(value, dict) and value.keys() == {self.wrapper}:
            content = value[self.wrapper]
            result = self._check(content, msgspec.json.encode(content))
            # the author's own schema may have a property of that name
            return result if result[1] is None else min(result, self._check(value, text), key=_is_invalid)
        return self._check(value, text)


#: takes an answer as a value and as its text, and returns what `judge` returns
_Check = Callable[[Any, str | bytes], tuple[Any, str | None]]


def _pydantic_check(schema: dict[str, Any]) -> _Check | None:
    """Return the check for a schema that comes from a pydantic type, None for any other schema."""
    if PYDANTIC_KEYWORD not in schema:
        return None
    from pydantic_core import PydanticSerializationError, SchemaError, ValidationError

    from airflow_provider_batch.core.schema.pydantic_types import AnswerValidator, is_plain

    try:
        reduced = schema[PYDANTIC_KEYWORD]["schema"]
        validate, is_fast = AnswerValidator(reduced).validate, is_plain(reduced)
    except (SchemaError, KeyError, TypeError):
        # sealed with another version of pydantic: its JSON Schema still decides
        return None

    is_valid = jsonschema_rs.Draft202012Validator(
        _closed(schema),
        offline=True,
        validate_formats=True,
        pattern_options=PATTERN_OPTIONS,
        formats={name: partial(is_format, format=name) for name in IP_FORMATS},
    ).is_valid

    def check(value: Any, text: str | bytes) -> tuple[Any, str | None]:
        try:
            if is_fast and is_valid(value):
                return value, None
            return validate(_with_exact_numbers(value, text)), None
        except ValidationError as error:
            problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return None, _mismatch(problem["loc"], problem["msg"])
        except (PydanticSerializationError, ValueError, RecursionError) as error:
            return None, _uncheckable(error)

    return check


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no other properties, because pydantic drops these from the value."""
    if not isinstance(schema, dict):
        return schema
    node = map_subschemas(schema, _closed)
    return {"additionalProperties": False, **node} if "properties" in node else node


#: numbers that a float may round
_LONG_NUMBER = re.compile(r"[\d.]{17}|\d[eE]")


def _with_exact_numbers(value: Any, text: str | bytes) -> str | bytes:
    """Return the text with the numbers that a float would round as texts, because pydantic reads them as floats."""
    if not _LONG_NUMBER.search(text if isinstance(text, str) else text.decode(errors="replace")):
        return text
    return msgspec.json.encode(value)


def _json_schema_check(schema: dict[str, Any]) -> _Check:
    registry = jsonschema_rs.Registry([(ROOT_URI, schema)])

    def create_validator(subschema: Any) -> jsonschema_rs.Draft202012Validator:
        return jsonschema_rs.Draft202012Validator(
            subschema,
            registry=registry,
            offline=True,
            validate_formats=True,
            pattern_options=PATTERN_OPTIONS,
            formats={name: partial(is_format, format=name) for name in (*FORMAT_TYPES, *IP_FORMATS)},
            keywords={decimals.LIMITS: decimals.Limits},
        )

    validator = create_validator(schema)
    cleaners = without_absent(schema, create_validator)

    def check(value: Any, text: str | bytes) -> tuple[Any, str | None]:
        try:
            if validator.is_valid(value):
                return value, None
            for clean in cleaners:
                cleaned = clean(value)
                if validator.is_valid(cleaned):
                    return cleaned, None
            problem = next(iter(validator.iter_errors(cleaners[0](value) if cleaners else value)))
        except (ValueError, RecursionError) as error:
            # The validator limits the nesting to 255 levels.
            return None, _uncheckable(error)
        return None, _mismatch(problem.instance_path, problem.message)

    return check


def _is_invalid(result: tuple[Any, str | None]) -> bool:
    return result[1] is not None


def _mismatch(location: Any, problem: str) -> str:
    place = truncate(".".join(str(part) for part in location) or "the root", 120)
    return f"The answer does not match the schema at {place}: {truncate(problem, 240)}."


def _uncheckable(error: Exception) -> str:
    return f"The answer cannot be checked against the schema: {truncate(str(error).rstrip('.'), 240)}."
