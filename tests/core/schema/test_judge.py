"""Strict schemas, the judge of answers, and the columns extracted from them."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Optional
from uuid import UUID

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_batch.core.schema.author_schema import strict_schema
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.convert import convert
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.core.schema.paths import column_type, extractor
from airflow_provider_batch.exceptions import SchemaError


class Urgency(Enum):
    LOW = "low"
    HIGH = "high"


class Address(BaseModel):
    """A postal address."""

    city: str
    number: int | None = None


class Ticket(BaseModel):
    label: Literal["bug", "question"]
    urgency: Urgency = Field(description="how soon")
    score: float
    count: int
    tags: list[str]
    home: Address = Field(description="where it came from")
    neighbours: list[Address]
    maybe: Optional[Address] = None  # noqa: UP045 - the older spelling is the same schema
    due: date
    observed_at: datetime
    open: bool
    kind: Literal["ticket"]


class Node(BaseModel):
    name: str
    children: list[Node]


class NodeHolder(BaseModel):
    node: Node = Field(description="the first")
    either: int | str | Address


class NoProperties(BaseModel):
    pass


class OneAllOf(BaseModel):
    home: Address = Field(json_schema_extra=lambda s: s.update({"allOf": [{"$ref": s.pop("$ref")}]}))


MODELS = [Address, Ticket, Node, NodeHolder, NoProperties, OneAllOf]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_the_strict_schema_of_a_model_equals_that_of_the_openai_sdk_including_the_order_of_keys(
    model: type[BaseModel],
) -> None:
    assert json.dumps(strict_schema(model)) == json.dumps(to_strict_json_schema(model))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_strict_schema_stays_the_same_and_the_argument_is_not_changed(model: type[BaseModel]) -> None:
    strict = strict_schema(model)
    text = json.dumps(strict)
    assert strict_schema(strict) == strict
    assert json.dumps(strict) == text


def test_defaults_are_removed_because_every_property_is_sent_as_required() -> None:
    class Defaults(BaseModel):
        a: str = "x"
        b: Urgency = Urgency.LOW

    strict = strict_schema(Defaults)
    assert "default" not in json.dumps(strict)
    assert strict["required"] == ["a", "b"]
    assert strict["properties"]["a"] == {"title": "A", "type": ["string", "null"]}
    assert strict["properties"]["b"] == {"anyOf": [{"$ref": "#/$defs/Urgency"}, {"type": "null"}]}


def test_optional_properties_become_required_and_nullable_and_meta_keywords_are_removed() -> None:
    strict = strict_schema(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$id": "https://example.com/ticket",
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": ["object", "null"], "properties": {}}},
            "required": ["a"],
        }
    )
    assert strict == {
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {
                "type": ["object", "null"],
                "properties": {},
                "additionalProperties": False,
                "required": [],
            },
        },
        "required": ["a", "b"],
        "additionalProperties": False,
    }


def test_a_type_implied_by_enum_or_const_is_made_explicit() -> None:
    class MixedLiteral(BaseModel):
        a: Literal["x", 1, None]

    assert strict_schema(MixedLiteral)["properties"]["a"]["type"] == ["string", "integer", "null"]
    assert strict_schema(wrap({"const": True}))["properties"]["a"]["type"] == "boolean"
    assert strict_schema(wrap({"properties": {}}))["properties"]["a"]["type"] == "object"


def test_a_property_may_be_named_like_a_keyword() -> None:
    names = ["oneOf", "not", "allOf", "$ref", "default", "properties"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    assert list(strict_schema(schema)["properties"]) == names


def wrap(schema: Any, **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], **root}


def nest(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, ["at the root: This may be any value"]),
        ({"type": "object"}, ["the root", "without properties"]),
        (wrap(STRING, additionalProperties=True), ["the root", "does not name", "{name, value}"]),
        (
            wrap({"type": "object", "additionalProperties": STRING}),
            ["at a: This allows properties", "{name, value}"],
        ),
        (wrap(wrap({})), ["at a.a: This may be any value", "Give it a type"]),
        (wrap(True), ["at a: This may be any value"]),
        (wrap({"type": "array"}), ["at each item of a: This may be any value"]),
        (wrap({"title": "A", "minLength": 1}), ["at a: This has no type"]),
        (
            wrap({**wrap(STRING), "allOf": [wrap({"type": "integer"})]}),
            ["at a.a: This combines schemas with allOf that cannot be merged", "no answer would be valid"],
        ),
        (wrap({"anyOf": [STRING, {"not": STRING}]}), ["at a (option 2 of anyOf): This has no type"]),
        (wrap({"type": "object", "properties": {}, "patternProperties": {}}), ["at a: This uses patternProperties"]),
        (wrap({"type": "object", "properties": {}, "unevaluatedProperties": STRING}), ["at a: This allows properties"]),
        (wrap({"$ref": "https://example.com/x"}), ["at a: This refers to 'https://example.com/x'", "$defs"]),
        (
            wrap({"$ref": "#/$defs/Adress"}, **{"$defs": {"Address": STRING}}),
            ["#/$defs/Adress", "does not exist", "Did you mean '#/$defs/Address'"],
        ),
        (
            wrap({"$ref": "#/properties/a", "description": "me"}),
            ["at a: This refers to itself", "Remove the other keywords"],
        ),
        (wrap({"type": "strnig"}), ["JSON Schema is not valid", "properties/a/type"]),
        (wrap({"type": "string", "pattern": "("}), ["JSON Schema is not valid", "pattern"]),
        (wrap({"type": "string", "enum": 3}), ["JSON Schema is not valid", "enum"]),
        ({"type": "object", "properties": 3}, ["the root", "without properties"]),
        (wrap({"type": "string", "enum": ["x", object()]}), ["cannot be written as JSON"]),
        (wrap({"type": "number", "maximum": float("inf")}), ["cannot be written as JSON"]),
        ({"type": "json_schema", "json_schema": wrap(STRING)}, ["response format", "under 'json_schema'"]),
        ({"name": "ticket", "strict": True, "schema": wrap(STRING)}, ["response format", "under 'schema'"]),
        ({"name": "ticket", "parameters": wrap(STRING)}, ["a function", "under 'parameters'"]),
        (nest(11), ["11 levels", "at most 10"]),
        (nest(200), ["nested too deeply", "at most 10"]),
        (nest(400), ["nested too deeply", "at most 10"]),
        (
            {"type": "object", "properties": {str(n): STRING for n in range(5_001)}},
            ["5,001 properties", "at most 5,000"],
        ),
        (wrap({"type": "integer", "enum": list(range(1_001))}), ["1,001 enum values", "at most 1,000"]),
        (
            wrap({"type": "string", "enum": [f"{n:060}" for n in range(251)]}),
            ["251 values", "15,060 characters", "15,000"],
        ),
        ({"type": "object", "properties": {"n" * 120_001: STRING}}, ["120,001 characters", "120,000"]),
        ("label", ["got a value of type str"]),
        (None, ["got a value of type NoneType"]),
        (Address(city="x"), ["got a value of type Address", "the class instead of an instance"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_the_error_for_an_unsupported_schema_names_the_location_and_suggests_a_fix(
    schema: Any, words: list[str]
) -> None:
    with pytest.raises(SchemaError) as error_info:
        strict_schema(schema)
    for word in words:
        assert word in str(error_info.value)


def test_models_that_strict_output_cannot_express_are_rejected() -> None:
    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: str

    class Loose(BaseModel):
        anything: Any

    class OpenMapping(BaseModel):
        scores: dict[str, float]

    for model, words in [
        (Extra, "does not name"),
        (Loose, "anything: This may be any value"),
        (OpenMapping, "scores: This allows properties"),
    ]:
        with pytest.raises(SchemaError, match=words):
            strict_schema(model)

    class NoSchema(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: SchemaJudge

    with pytest.raises(SchemaError, match="pydantic cannot create a JSON Schema for NoSchema"):
        strict_schema(NoSchema)


def test_recursion_and_ten_levels_are_allowed() -> None:
    assert strict_schema(nest(10))
    mutual = {
        "$defs": {
            "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}, "required": ["b"]},
            "B": {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/A", "description": "back"}},
                "required": ["a"],
            },
        },
        "$ref": "#/$defs/A",
    }
    strict = strict_schema(mutual)
    assert strict["properties"] == {"b": {"$ref": "#/$defs/B"}}
    assert strict["$defs"]["B"]["properties"]["a"]["additionalProperties"] is False
    assert strict_schema(wrap({"anyOf": [{"$ref": "#"}, {"type": "null"}]}))


def chain(levels: int, last: dict[str, Any]) -> dict[str, Any]:
    """Return a schema with this many levels of objects, one definition per level. The deepest contains `last`."""
    steps = {f"L{n}": wrap({"$ref": f"#/$defs/L{n + 1}"}) for n in range(2, levels)}
    return wrap({"$ref": "#/$defs/L2"}, **{"$defs": {**steps, f"L{levels}": wrap(last)}})


def test_levels_are_counted_through_references_but_recursion_adds_none() -> None:
    assert strict_schema(chain(10, STRING))
    assert strict_schema(chain(10, {"anyOf": [{"$ref": "#/$defs/L2"}, {"type": "null"}]}))
    with pytest.raises(SchemaError, match="11 levels"):
        strict_schema(chain(11, STRING))


@pytest.mark.parametrize("title", [{}, {"title": "A"}])
def test_circular_references_are_rejected(title: dict[str, str]) -> None:
    circle = {"A": {"$ref": "#/$defs/B", **title}, "B": {"$ref": "#/$defs/A", **title}}
    with pytest.raises(SchemaError, match=r"refers (to itself through|only to itself, through #/\$defs/[AB])"):
        strict_schema(wrap({"$ref": "#/$defs/A", **title}, **{"$defs": circle}))


# -- the judge

ANSWER = {
    "label": "bug",
    "urgency": "low",
    "score": 1,
    "count": 2,
    "tags": ["a"],
    "home": {"city": "Ulm", "number": None},
    "neighbours": [],
    "maybe": None,
    "due": "2026-11-20",
    "observed_at": "2026-11-20T10:00:00+02:00",
    "open": True,
    "kind": "ticket",
}


def test_the_judge_returns_the_parsed_value_of_a_valid_answer() -> None:
    judge = SchemaJudge(strict_schema(Ticket))
    assert judge.judge(json.dumps(ANSWER)) == (ANSWER, None)
    assert judge.judge(json.dumps(ANSWER).encode()) == (ANSWER, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "chat"}, ["label", "chat"]),
        ({"home": {"city": "Ulm"}}, ["home", "number"]),
        ({"extra": 1}, ["at the root", "extra"]),
        ({"due": "next week"}, ["due", "next week"]),
        ({"observed_at": "noon"}, ["observed_at", "noon"]),
        ({"tags": ["a", 1]}, ["tags.1"]),
        ({"tags": "x" * 10_000}, ["tags"]),
    ],
    ids=str,
)
def test_the_judge_reports_the_problem_and_its_location_briefly(change: dict[str, Any], words: list[str]) -> None:
    value, error = SchemaJudge(strict_schema(Ticket)).judge(json.dumps({**ANSWER, **change}))
    assert value is None
    assert error is not None
    assert len(error) < 350
    for word in words:
        assert word in error


@pytest.mark.parametrize(
    "text",
    ["", "Sure! {}", '{"label": "bu', "NaN", b"\xff", "[" * 5_000 + "]" * 5_000, '"\ud800"', "1e999"],
    ids=repr,
)
def test_invalid_json_is_reported_rather_than_raised(text: str | bytes) -> None:
    value, error = SchemaJudge(strict_schema(Address)).judge(text)
    assert value is None
    assert error


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "bug", "low", "ticket", "Ulm"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["city", "number", "name", "children", "node", "either"]), inner, max_size=4)
    ),
    max_leaves=12,
)
addresses = st.fixed_dictionaries({"city": st.text(max_size=3), "number": st.none() | st.integers()})
nodes = st.recursive(
    st.fixed_dictionaries({"name": st.just("n"), "children": st.just([])}),
    lambda node: st.fixed_dictionaries({"name": st.just("n"), "children": st.lists(node, max_size=2)}),
)
likely = json_values | addresses | nodes | st.fixed_dictionaries({"node": nodes, "either": json_values | addresses})


@pytest.mark.parametrize("model", [Address, Node, NodeHolder], ids=lambda model: model.__name__)
@given(value=likely)
def test_the_judge_agrees_with_the_jsonschema_package(
    model: type[BaseModel], value: dict[str, Any] | int | list[Any] | None
) -> None:
    schema = strict_schema(model)
    verdict = SchemaJudge(schema).judge(json.dumps(value))[1] is None
    assert verdict == jsonschema.Draft202012Validator(schema).is_valid(value)


# -- columns


@pytest.mark.parametrize(
    ("path", "type"),
    [
        ("label", ColumnType.TEXT),
        ("urgency", ColumnType.TEXT),
        ("score", ColumnType.FLOAT),
        ("count", ColumnType.INTEGER),
        ("tags", ColumnType.JSON),
        ("tags.0", ColumnType.TEXT),
        ("home", ColumnType.JSON),
        ("home.city", ColumnType.TEXT),
        ("home.number", ColumnType.INTEGER),
        ("neighbours.12.number", ColumnType.INTEGER),
        ("maybe.city", ColumnType.TEXT),
        ("maybe", ColumnType.JSON),
        ("due", ColumnType.DATE),
        ("observed_at", ColumnType.TIMESTAMP),
        ("open", ColumnType.BOOLEAN),
    ],
)
def test_a_column_has_the_type_of_its_path_in_the_schema(path: str, type: ColumnType) -> None:
    assert column_type(strict_schema(Ticket), path) is type


def test_the_type_of_a_union_can_hold_all_its_options() -> None:
    def type_of_union(*options: dict[str, Any]) -> ColumnType:
        return column_type(strict_schema(wrap({"anyOf": list(options)})), "a")

    null, integer, number = {"type": "null"}, {"type": "integer"}, {"type": "number"}
    day = {"type": "string", "format": "date"}
    assert type_of_union(integer, number, null) is ColumnType.FLOAT
    assert type_of_union(day, null) is ColumnType.DATE
    assert type_of_union(day, STRING) is ColumnType.TEXT
    assert type_of_union(STRING, integer) is ColumnType.JSON
    assert type_of_union(null) is ColumnType.TEXT
    assert column_type(strict_schema(wrap({"type": ["integer", "null"]})), "a") is ColumnType.INTEGER
    assert column_type(strict_schema(Node), "children.0.children.3.name") is ColumnType.TEXT
    assert column_type(strict_schema(NodeHolder), "either.city") is ColumnType.TEXT


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("lable", ["'lable'", "Did you mean 'label'?"]),
        ("zzz", ["no 'zzz'", "It has label, urgency"]),
        ("home.citty", ["'home'", "Did you mean 'city'?"]),
        ("label.x", ["'label'", "no 'x'"]),
        ("tags.first", ["'tags'", "is a list", "must be a number"]),
        ("", ["no ''"]),
    ],
)
def test_the_error_for_an_unknown_path_names_what_the_schema_has(path: str, words: list[str]) -> None:
    with pytest.raises(SchemaError) as error_info:
        column_type(strict_schema(Ticket), path)
    for word in words:
        assert word in str(error_info.value)


@pytest.mark.parametrize(
    ("value", "type", "expected"),
    [
        ("x", ColumnType.TEXT, "x"),
        ("", ColumnType.TEXT, ""),
        (1.0, ColumnType.INTEGER, 1),
        (0, ColumnType.INTEGER, 0),
        (2, ColumnType.FLOAT, 2.0),
        (0.1, ColumnType.NUMERIC, Decimal("0.1")),
        (False, ColumnType.BOOLEAN, False),
        ("2026-11-20", ColumnType.DATE, date(2026, 11, 20)),
        ("2026-11-20T10:00:00+02:00", ColumnType.TIMESTAMP, datetime(2026, 11, 20, 8, tzinfo=UTC)),
        ("2026-11-20T10:00:00Z", ColumnType.TIMESTAMP, datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00", ColumnType.TIMESTAMP, datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00.5", ColumnType.LOCAL_TIMESTAMP, datetime(2026, 11, 20, 10, 0, 0, 500_000)),
        ("10:30", ColumnType.TIME, time(10, 30)),
        ("P1DT2H", ColumnType.INTERVAL, timedelta(days=1, hours=2)),
        ("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f", ColumnType.UUID, UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f")),
        ({"a": [1]}, ColumnType.JSON, {"a": [1]}),
        ("AP8=", ColumnType.BYTES, b"\x00\xff"),
        ([1, 0.5], ColumnType.VECTOR, [1.0, 0.5]),
        ([], ColumnType.VECTOR, []),
        (None, ColumnType.INTEGER, None),
    ],
)
def test_a_value_is_converted_to_the_type_of_its_column(value: Any, type: ColumnType, expected: Any) -> None:
    result = convert(value, type)
    assert result == expected
    assert result.__class__ is expected.__class__


@pytest.mark.parametrize(
    ("value", "type"),
    [
        (1, ColumnType.TEXT),
        ({"a": 1}, ColumnType.TEXT),
        (True, ColumnType.INTEGER),
        (1.5, ColumnType.INTEGER),
        (2**63, ColumnType.INTEGER),
        (float("inf"), ColumnType.INTEGER),
        (True, ColumnType.FLOAT),
        (10**400, ColumnType.FLOAT),
        ("1", ColumnType.FLOAT),
        (1, ColumnType.BOOLEAN),
        ("tomorrow", ColumnType.DATE),
        ("2026-11-20T25:00:00", ColumnType.TIMESTAMP),
        ("0001-01-01T00:00:00+14:00", ColumnType.TIMESTAMP),
        ("2026-11-20T10:00:00Z", ColumnType.LOCAL_TIMESTAMP),
        ("10:30+01:00", ColumnType.TIME),
        ("25:00", ColumnType.TIME),
        ("soon", ColumnType.INTERVAL),
        ("NaN", ColumnType.NUMERIC),
        ("-Infinity", ColumnType.NUMERIC),
        ("1,234.50 EUR", ColumnType.NUMERIC),
        ("", ColumnType.NUMERIC),
        ("1e200000", ColumnType.NUMERIC),
        (Decimal("1e-20000"), ColumnType.NUMERIC),
        (Decimal("1e400"), ColumnType.FLOAT),
        ("6f2b", ColumnType.UUID),
        ("no base64!", ColumnType.BYTES),
        ([1, "2"], ColumnType.VECTOR),
        ([1, None], ColumnType.VECTOR),
    ],
    ids=repr,
)
def test_a_value_that_does_not_fit_its_column_is_a_value_error(value: Any, type: ColumnType) -> None:
    with pytest.raises(ValueError, match="is not of type "):
        convert(value, type)


texts = st.text(max_size=5) | st.dates().map(str) | st.datetimes(timezones=st.timezones()).map(datetime.isoformat)


@given(
    answer=st.fixed_dictionaries(
        {
            "due": texts,
            "observed_at": texts,
            "count": st.integers(-(2**63), 2**63 - 1) | st.floats(-1e18, 1e18) | st.booleans(),
            "score": st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        }
    )
)
def test_any_answer_that_the_judge_accepts_fits_its_columns(answer: dict[str, Any]) -> None:
    schema = strict_schema(Ticket)
    value, error = SchemaJudge(schema).judge(json.dumps({**ANSWER, **answer}))
    if error is None:
        for path in answer:
            extractor(schema, path)(value)
