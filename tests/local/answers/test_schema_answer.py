"""Values that are made up for a schema are valid, for every schema that uses only supported keywords."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.local.answers.schema_answer import UnfillableSchemaError, fill

_numbers = st.integers(-1000, 1000)


@st.composite
def _integers(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    low = draw(st.none() | _numbers)
    if low is not None:
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        high = (low if low is not None else draw(_numbers)) + draw(st.integers(20, 100))
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = high
    if draw(st.booleans()):
        schema["multipleOf"] = draw(st.integers(1, 9))
    return schema


@st.composite
def _floats(draw: st.DrawFn) -> dict[str, Any]:
    low = draw(_numbers)
    schema: dict[str, Any] = {"type": "number"}
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(1, 100))
    return schema


@st.composite
def _strings(draw: st.DrawFn) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if draw(st.booleans()):
        schema["minLength"] = draw(st.integers(0, 200))
    if draw(st.booleans()):
        schema["maxLength"] = schema.get("minLength", 0) + draw(st.integers(0, 50))
    return schema


_leaves = st.one_of(
    _integers(),
    _floats(),
    _strings(),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": ["string", "null"]}),
    st.sampled_from(["date", "date-time", "email", "uuid", "uri"]).map(lambda form: {"type": "string", "format": form}),
    st.lists(st.text() | _numbers | st.none(), min_size=1, unique_by=repr).map(lambda v: {"enum": v}),
    (st.text() | _numbers).map(lambda value: {"const": value}),
)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _grow(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    counts = st.tuples(st.integers(0, 3), st.integers(0, 3))
    return st.one_of(
        st.dictionaries(st.text(max_size=8), inner, max_size=4).map(_object),
        st.tuples(inner, counts).map(
            lambda pair: {
                "type": "array",
                "items": pair[0],
                "minItems": pair[1][0],
                "maxItems": sum(pair[1]),
            }
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        inner.map(lambda branch: {"anyOf": [{"type": "null"}, branch]}),
    )


@given(st.recursive(_leaves, _grow, max_leaves=12), st.text(max_size=200), st.text(max_size=200))
def test_a_filled_value_is_valid_and_deterministic(schema: dict[str, Any], text: str, instructions: str) -> None:
    value = fill(schema, text=text, instructions=instructions)

    jsonschema.Draft202012Validator(schema).validate(value)
    assert fill(schema, text=text, instructions=instructions) == value


def test_references_are_followed_and_recursion_terminates() -> None:
    schema = {
        "$ref": "#/$defs/Node",
        "$defs": {
            "Node": _object(
                {
                    "name": {"type": "string"},
                    "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                }
            )
        },
    }
    value = fill(schema, text="a tree", instructions="")

    jsonschema.Draft202012Validator(schema).validate(value)
    assert value["next"]["name"].startswith("offline: a tree")


def test_all_of_is_merged() -> None:
    schema = {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"properties": {"b": {"const": "x"}}},
        ]
    }
    value = fill(schema, text="t", instructions="")

    jsonschema.Draft202012Validator(schema).validate(value)
    assert value["b"] == "x"


def test_an_array_of_labels_takes_the_best_ones_without_repetition() -> None:
    labels = {"enum": ["billing", "login", "shipping"], "description": "login: password\nshipping: parcel"}
    schema = {"type": "array", "items": labels, "minItems": 2, "uniqueItems": True}
    value = fill(schema, text="my parcel and my password", instructions="")

    assert set(value) == {"login", "shipping"}


def test_a_description_in_the_schema_influences_the_choice() -> None:
    schema = _object(
        {
            "team": {
                "type": "string",
                "enum": ["red", "blue"],
                "description": "red (fires, smoke), blue (floods, water)",
            }
        }
    )

    assert fill(schema, text="water in the cellar", instructions="") == {"team": "blue"}
    assert fill(schema, text="smoke in the cellar", instructions="") == {"team": "red"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^[A-Z]{3}$"},
        {"$ref": "#/$defs/missing"},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "#"},
        {"$ref": "#/$defs/A", "$defs": {"A": _object({"a": {"$ref": "#/$defs/A"}})}},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"type": 7},
        {"enum": []},
        {"type": "array", "items": {"enum": []}},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "items": {"type": "string"}, "minItems": 10**9},
        {"type": "array", "minItems": 999, "items": {"type": "array", "minItems": 999, "items": {"type": "null"}}},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_a_schema_that_cannot_be_filled_raises(schema: dict[str, Any]) -> None:
    with pytest.raises(UnfillableSchemaError):
        fill(schema, text="t", instructions="")
