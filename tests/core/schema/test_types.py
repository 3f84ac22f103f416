"""Every type that pydantic users write gets the column that its author expects, or is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_batch.core.schema.author_schema import author_schema, strict_schema
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.convert import parse_json
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.paths import column_type, extractor
from airflow_provider_batch.exceptions import SchemaError
from tests.core.schema.types_table import INVALID, LONG, ROWS, Row, model_of, table

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "structured-output.md"


def landed(schema: dict[str, Any], text: str, path: str = "x") -> Any:
    """Return the value in the column that an answer fills, or INVALID."""
    value, complaint = SchemaJudge(schema).judge(text)
    if complaint is not None:
        return INVALID
    try:
        return extractor(schema, path)(value)
    except ValueError:
        return INVALID


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_type_has_the_column_that_its_author_expects(row: Row) -> None:
    if row.column is None:
        with pytest.raises(SchemaError, match="at x: This"):
            strict_schema(model_of(row))
        return
    schema = author_schema(model_of(row))
    assert column_type(schema, "x") is row.column
    for answer, expected in row.answers:
        result = landed(schema, f'{{"x": {answer}}}')
        assert result == expected, answer
        assert result.__class__ is expected.__class__, answer


def test_the_page_lists_the_types() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


class Invoice(BaseModel):
    total: Decimal
    tax: Decimal | None = Field(default=None, max_digits=12, decimal_places=2)
    lines: list[Decimal] = []


@pytest.mark.parametrize("exported", [False, True])
def test_a_decimal_is_numeric_whether_a_model_or_its_exported_schema_is_given(exported: bool) -> None:
    schema = author_schema(Invoice.model_json_schema() if exported else Invoice)
    assert column_type(schema, "total") is ColumnType.NUMERIC
    assert column_type(schema, "tax") is ColumnType.NUMERIC
    assert column_type(schema, "lines.0") is ColumnType.NUMERIC
    for answer, expected in {
        "1234.5": Decimal("1234.50"),
        '"1234.50"': Decimal("1234.50"),
        '"1,234.50 EUR"': INVALID,
    }.items():
        assert landed(schema, f'{{"total": {answer}}}', "total") == expected
    properties = strict_schema(schema)["properties"]
    assert properties["total"]["type"] == "number"
    assert "string" not in json.dumps(properties)


def test_a_text_with_the_pattern_of_a_decimal_is_numeric() -> None:
    pattern = r"^(?!^[-+.]*$)[+-]?0*(?:\d{0,10}|(?=[\d.]{1,13}0*$)\d{0,10}\.\d{0,2}0*$)"
    for node in (
        {"type": "string", "pattern": pattern},
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": pattern}, {"type": "null"}]},
        {"anyOf": [{"type": "number", "minimum": 0}, {"type": "string"}]},
        {"type": "string", "format": "decimal"},
        {"type": "number", "format": "decimal"},
        {"type": ["number", "null"], "format": "decimal"},
    ):
        schema = author_schema({"type": "object", "properties": {"x": node}, "required": ["x"]})
        assert column_type(schema, "x") is ColumnType.NUMERIC, node


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("utf8", "00ff", b"00ff"),
        ("hex", "00ff", b"\x00\xff"),
        ("base64", "AP8=", b"\x00\xff"),
        ("base64", "-_8", b"\xfb\xff"),
    ],
)
def test_bytes_are_decoded_as_the_model_is_configured(encoding: Any, text: str, expected: bytes) -> None:
    class Attachment(BaseModel):
        model_config = ConfigDict(val_json_bytes=encoding)
        x: bytes

    assert landed(author_schema(Attachment), f'{{"x": "{text}"}}') == expected


@pytest.mark.parametrize(
    ("node", "type"),
    [
        ({"type": ["number", "null"]}, ColumnType.FLOAT),
        ({"type": ["number", "string"]}, ColumnType.JSON),
        ({"type": "number", "multipleOf": 0.01}, ColumnType.FLOAT),
        ({"type": "string", "format": "date"}, ColumnType.DATE),
        ({"type": "string", "format": "date-time"}, ColumnType.TIMESTAMP),
        ({"type": "string", "format": "time"}, ColumnType.TIME),
        ({"type": "string", "format": "duration"}, ColumnType.INTERVAL),
        ({"type": ["string", "null"], "format": "uuid"}, ColumnType.UUID),
        ({"type": "string", "format": "uri"}, ColumnType.TEXT),
        ({"type": "string", "format": "email"}, ColumnType.TEXT),
        ({"type": "string", "contentEncoding": "base64"}, ColumnType.BYTES),
        ({"type": "string", "format": "byte"}, ColumnType.BYTES),
        ({"enum": [1, 2]}, ColumnType.INTEGER),
        ({"enum": [1, 2.5]}, ColumnType.FLOAT),
        ({"enum": ["a", None]}, ColumnType.TEXT),
        ({"const": True}, ColumnType.BOOLEAN),
        ({"type": "integer", "minimum": 0}, ColumnType.INTEGER),
        ({"type": "integer", "exclusiveMaximum": 2**64}, ColumnType.NUMERIC),
        ({"anyOf": [{"type": "integer"}, {"type": "integer", "minimum": 2**64}]}, ColumnType.NUMERIC),
        ({"anyOf": [{"format": "base64", "type": "string"}, {"format": "binary", "type": "string"}]}, ColumnType.TEXT),
        ({"anyOf": [{"type": "string"}, {"type": "string", "format": "uuid"}]}, ColumnType.TEXT),
        ({}, ColumnType.JSON),
        ({"type": "null"}, ColumnType.TEXT),
    ],
    ids=str,
)
def test_plain_json_schema_has_the_column_of_its_type(node: dict[str, Any], type: ColumnType) -> None:
    assert column_type(author_schema({"type": "object", "properties": {"x": node}}), "x") is type


@given(st.decimals(allow_nan=False, allow_infinity=False, places=None), st.booleans())
def test_a_decimal_keeps_its_value_as_a_number_and_as_text(number: Decimal, as_text: bool) -> None:
    text = f'{{"total": "{number}"}}' if as_text else f'{{"total": {number}}}'
    value, complaint = SchemaJudge(author_schema(Invoice)).judge(text)
    assert complaint is None
    try:
        assert extractor(author_schema(Invoice), "total")(value) == number
    except ValueError:
        assert abs(number.adjusted()) > 16_000


@given(st.from_regex(r"\A-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?\Z"))
def test_a_parsed_number_equals_its_digits(text: str) -> None:
    number = parse_json(text)
    assert Decimal(repr(number) if isinstance(number, float) else number) == Decimal(text)


def test_json_columns_keep_every_digit() -> None:
    schema = author_schema(Invoice)
    value = landed(schema, f'{{"total": 1, "lines": [{LONG}, "{LONG}", {10**40}]}}', "lines")
    assert value == [Decimal(LONG), Decimal(LONG), 10**40]


#: answers of the right shape, near it, and of no shape at all
texts = (
    st.sampled_from([text for row in ROWS for text, _ in row.answers])
    | st.dates().map(lambda each: json.dumps(str(each)))
    | st.datetimes(timezones=st.none() | st.timezones()).map(lambda each: json.dumps(each.isoformat()))
    | st.times().map(lambda each: json.dumps(each.isoformat()))
    | st.timedeltas().map(lambda each: json.dumps(f"PT{each.total_seconds():f}S"))
    | st.uuids().map(lambda each: json.dumps(str(each)))
    | st.decimals(allow_nan=True, allow_infinity=True).map(lambda each: json.dumps(str(each)))
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.integers().map(str)
    | st.text(max_size=8).map(json.dumps)
    | st.sampled_from(["null", "true", "[]", "{}", '"\\u0000"', '"\\ud800"', "-0.0", "1e400", "1E-400"])
)
PYTHON_TYPES = {row.column: {type(value) for _, value in row.answers if value is not INVALID} for row in ROWS}


@pytest.mark.parametrize("row", [row for row in ROWS if row.column is not None], ids=lambda row: row.name)
@given(text=texts)
def test_any_answer_that_the_judge_accepts_fits_its_column_or_is_invalid_output(row: Row, text: str) -> None:
    schema = author_schema(model_of(row))
    result = landed(schema, f'{{"x": {text}}}')
    assert row.column is not None
    if row.column is not ColumnType.JSON and result is not INVALID and result is not None:
        allowed = {type(value) for each in ROWS if each.column is row.column for _, value in each.answers}
        assert type(result) in allowed
