from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, Optional

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, ConfigDict, Field, RootModel

from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.judge import SchemaJudge, column_type, convert, strict_schema, value_at
from airflow_provider_batch.exceptions import SchemaError


class Urgency(Enum):
    LOW = "low"
    HIGH = "high"


def without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class Address(BaseModel):
    """Where somebody lives."""

    city: str
    number: int | None = None


class Ticket(BaseModel):
    label: Literal["bug", "question"]
    urgency: Urgency = Field(description="how soon")
    score: float
    count: int
    tags: list[str]
    home: Address = Field(description="where it came from")
    others: list[Address]
    maybe: Optional[Address] = None  # noqa: UP045 - the older spelling is the same schema
    due: date
    seen: datetime
    open: bool
    kind: Literal["ticket"] = Field(default="ticket", exclude=True, json_schema_extra=without_default)


class Node(BaseModel):
    name: str
    children: list[Node]


class Wrapped(BaseModel):
    node: Node = Field(description="the first")
    either: int | str | Address


class Empty(BaseModel):
    pass


class OneAllOf(BaseModel):
    home: Address = Field(json_schema_extra=lambda s: s.update({"allOf": [{"$ref": s.pop("$ref")}]}))


MODELS = [Address, Ticket, Node, Wrapped, Empty, OneAllOf]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_model_becomes_what_the_openai_sdk_makes_of_it_down_to_the_order_of_keys(model: type[BaseModel]) -> None:
    assert json.dumps(strict_schema(model)) == json.dumps(to_strict_json_schema(model))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_a_strict_schema_is_its_own_strict_schema_and_the_argument_is_left_alone(model: type[BaseModel]) -> None:
    strict = strict_schema(model)
    before = json.dumps(strict)
    assert strict_schema(strict) == strict
    assert json.dumps(strict) == before


def test_every_default_is_dropped_because_every_property_is_required() -> None:
    class Defaults(BaseModel):
        a: str = "x"
        b: Urgency = Urgency.LOW

    strict = strict_schema(Defaults)
    assert "default" not in json.dumps(strict)
    assert strict["required"] == ["a", "b"]
    assert strict["properties"]["b"] == {"$ref": "#/$defs/Urgency"}


def test_optional_properties_of_a_dict_schema_become_required_and_its_meta_keywords_go() -> None:
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


def test_a_type_that_enum_or_const_imply_is_written_out() -> None:
    class Mixed(BaseModel):
        a: Literal["x", 1, None]

    assert strict_schema(Mixed)["properties"]["a"]["type"] == ["string", "integer", "null"]
    assert strict_schema(wrap({"const": True}))["properties"]["a"]["type"] == "boolean"
    assert strict_schema(wrap({"properties": {}}))["properties"]["a"]["type"] == "object"


def test_a_property_may_bear_the_name_of_a_keyword() -> None:
    names = ["oneOf", "not", "allOf", "$ref", "default", "properties"]
    schema = {"type": "object", "properties": {name: {"type": "string"} for name in names}}
    assert list(strict_schema(schema)["properties"]) == names


def wrap(schema: Any, **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **root}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = wrap(schema)
    return schema


STRING = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "array", "items": STRING}, ["the root", "array", "into a property"]),
        ({"type": ["object", "null"], "properties": {}}, ["the root", "must be an object"]),
        ({"anyOf": [wrap(STRING), wrap(STRING)]}, ["the root", "anyOf", "into a property"]),
        ({}, ["the root may be anything"]),
        ({"type": "object"}, ["the root", "without properties"]),
        (wrap(STRING, additionalProperties=True), ["the root", "does not name", "{name, value}"]),
        (
            wrap({"type": "object", "additionalProperties": STRING}),
            ["a allows properties", "{name, value}"],
        ),
        (wrap(wrap({})), ["a.a may be anything", "give it a type"]),
        (wrap(True), ["a may be anything"]),
        (wrap({"type": "array"}), ["each item of a may be anything"]),
        (wrap({"title": "A", "minLength": 1}), ["a has no type"]),
        (wrap({"allOf": [wrap(STRING), wrap(STRING)]}), ["a combines schemas by allOf"]),
        (
            wrap({**wrap(STRING), "allOf": [wrap({"type": "integer"})]}),
            ["a and its allOf both give properties"],
        ),
        (wrap({"allOf": [{"oneOf": [STRING]}]}), ["a uses oneOf"]),
        (wrap({"type": "array", "items": {"oneOf": [STRING]}}), ["each item of a uses oneOf", "anyOf"]),
        (wrap({"anyOf": [STRING, {"not": STRING}]}), ["a (option 2 of anyOf) uses not"]),
        (wrap({"type": "array", "items": [STRING, STRING]}), ["a lists its items", "tuple"]),
        (wrap({"type": "array", "prefixItems": [STRING]}), ["a uses prefixItems", "tuple"]),
        *[
            (wrap({"type": "object", "properties": {}, keyword: {}}), [f"a uses {keyword}"])
            for keyword in (
                "if",
                "then",
                "else",
                "patternProperties",
                "propertyNames",
                "dependentRequired",
                "unevaluatedProperties",
            )
        ],
        (wrap({"$ref": "https://example.com/x"}), ["a refers to 'https://example.com/x'", "$defs"]),
        (
            wrap({"$ref": "#/$defs/Adress"}, **{"$defs": {"Address": STRING}}),
            ["#/$defs/Adress", "not there", "did you mean '#/$defs/Address'"],
        ),
        (
            wrap({"$ref": "#/properties/a", "description": "me"}),
            ["a refers to itself", "leave the $ref alone"],
        ),
        (wrap({"type": "strnig"}), ["no valid JSON Schema", "properties/a/type"]),
        (wrap({"type": "string", "pattern": "("}), ["no valid JSON Schema", "pattern"]),
        (wrap({"type": "string", "enum": 3}), ["no valid JSON Schema", "enum"]),
        ({"type": "object", "properties": 3}, ["the root", "without properties"]),
        (wrap({"type": "string", "enum": ["x", object()]}), ["cannot be written as JSON"]),
        (wrap({"type": "number", "maximum": float("inf")}), ["cannot be written as JSON"]),
        ({"type": "json_schema", "json_schema": wrap(STRING)}, ["whole response format", "inside it"]),
        (nested(11), ["11 levels", "takes 10"]),
        (
            {"type": "object", "properties": {str(n): STRING for n in range(5_001)}},
            ["5,001 properties", "takes 5,000"],
        ),
        (wrap({"type": "integer", "enum": list(range(1_001))}), ["1,001 enum values", "takes 1,000"]),
        (
            wrap({"type": "string", "enum": [f"{n:060}" for n in range(251)]}),
            ["251 values", "15,060 characters", "15,000"],
        ),
        ({"type": "object", "properties": {"n" * 120_001: STRING}}, ["120,001 characters", "120,000"]),
        ("label", ["not a str"]),
        (None, ["not a NoneType"]),
        (int, ["not int"]),
        (Address(city="x"), ["not a Address", "the class, not an instance"]),
        (RootModel[list[str]], ["RootModel", "has it as a field"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_strict_output_cannot_express_is_refused_with_the_place_and_the_way_out(
    schema: Any, words: list[str]
) -> None:
    with pytest.raises(SchemaError) as raised:
        strict_schema(schema)
    for word in words:
        assert word in str(raised.value)


def test_models_that_strict_output_cannot_express_are_refused_too() -> None:
    class Extra(BaseModel):
        model_config = ConfigDict(extra="allow")
        a: str

    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    class Inner(BaseModel):
        pet: Cat | Dog = Field(discriminator="kind")

    class Discriminated(BaseModel):
        inner: Inner

    class Loose(BaseModel):
        what: Any

    class Mapped(BaseModel):
        scores: dict[str, float]

    class Pair(BaseModel):
        pair: tuple[int, str]

    for model, words in [
        (Extra, "does not name"),
        (Discriminated, "pet uses oneOf"),
        (Loose, "what may be anything"),
        (Mapped, "scores allows properties"),
        (Pair, "pair uses prefixItems"),
    ]:
        with pytest.raises(SchemaError, match=words):
            strict_schema(model)

    class NoSchema(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        thing: SchemaJudge

    with pytest.raises(SchemaError, match="pydantic has no JSON Schema for NoSchema"):
        strict_schema(NoSchema)


def test_recursion_and_ten_levels_are_allowed() -> None:
    assert strict_schema(nested(10))
    mutual = {
        "$defs": {
            "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}},
            "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A", "description": "back"}}},
        },
        "$ref": "#/$defs/A",
    }
    strict = strict_schema(mutual)
    assert strict["properties"] == {"b": {"$ref": "#/$defs/B"}}
    assert strict["$defs"]["B"]["properties"]["a"]["additionalProperties"] is False
    assert strict_schema(wrap({"anyOf": [{"$ref": "#"}, {"type": "null"}]}))


def chain(levels: int, last: dict[str, Any]) -> dict[str, Any]:
    """A schema so many objects deep, each level a definition; the last holds `last`."""
    steps = {f"L{n}": wrap({"$ref": f"#/$defs/L{n + 1}"}) for n in range(2, levels)}
    return wrap({"$ref": "#/$defs/L2"}, **{"$defs": {**steps, f"L{levels}": wrap(last)}})


def test_levels_are_counted_through_references_and_a_way_back_adds_none() -> None:
    assert strict_schema(chain(10, STRING))
    assert strict_schema(chain(10, {"anyOf": [{"$ref": "#/$defs/L2"}, {"type": "null"}]}))
    with pytest.raises(SchemaError, match="11 levels"):
        strict_schema(chain(11, STRING))


@pytest.mark.parametrize("title", [{}, {"title": "A"}])
def test_references_in_a_circle_are_refused(title: dict[str, str]) -> None:
    circle = {"A": {"$ref": "#/$defs/B", **title}, "B": {"$ref": "#/$defs/A", **title}}
    with pytest.raises(SchemaError, match=r"refers (to itself|by #/\$defs/[AB] to nothing but itself)"):
        strict_schema(wrap({"$ref": "#/$defs/A", **title}, **{"$defs": circle}))


# -- the judge

ANSWER = {
    "label": "bug",
    "urgency": "low",
    "score": 1,
    "count": 2,
    "tags": ["a"],
    "home": {"city": "Ulm", "number": None},
    "others": [],
    "maybe": None,
    "due": "2026-11-20",
    "seen": "2026-11-20T10:00:00+02:00",
    "open": True,
    "kind": "ticket",
}


def test_the_judge_gives_the_parsed_value_of_an_answer_that_fits() -> None:
    judge = SchemaJudge(strict_schema(Ticket))
    assert judge.judge(json.dumps(ANSWER)) == (ANSWER, None)
    assert judge.judge(json.dumps(ANSWER).encode()) == (ANSWER, None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": "chat"}, ["label", "chat"]),
        ({"home": {"city": "Ulm"}}, ["home", "number"]),
        ({"extra": 1}, ["the answer", "extra"]),
        ({"due": "next week"}, ["due", "next week"]),
        ({"seen": "noon"}, ["seen", "noon"]),
        ({"tags": ["a", 1]}, ["tags.1"]),
        ({"tags": "x" * 10_000}, ["tags"]),
    ],
    ids=str,
)
def test_the_judge_says_briefly_what_does_not_fit_and_where(change: dict[str, Any], words: list[str]) -> None:
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
def test_what_is_no_json_is_judged_and_not_raised(text: str | bytes) -> None:
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


@pytest.mark.parametrize("model", [Address, Node, Wrapped], ids=lambda model: model.__name__)
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
        ("others.12.number", ColumnType.INTEGER),
        ("maybe.city", ColumnType.TEXT),
        ("maybe", ColumnType.JSON),
        ("due", ColumnType.DATE),
        ("seen", ColumnType.TIMESTAMP),
        ("open", ColumnType.BOOLEAN),
    ],
)
def test_a_column_has_the_type_that_the_schema_gives_its_path(path: str, type: ColumnType) -> None:
    assert column_type(strict_schema(Ticket), path) is type


def test_unions_have_the_type_that_holds_all_of_them() -> None:
    def of(*options: dict[str, Any]) -> ColumnType:
        return column_type(strict_schema(wrap({"anyOf": list(options)})), "a")

    null, integer, number = {"type": "null"}, {"type": "integer"}, {"type": "number"}
    day = {"type": "string", "format": "date"}
    assert of(integer, number, null) is ColumnType.FLOAT
    assert of(day, null) is ColumnType.DATE
    assert of(day, STRING) is ColumnType.TEXT
    assert of(STRING, integer) is ColumnType.JSON
    assert of(null) is ColumnType.TEXT
    assert column_type(strict_schema(wrap({"type": ["integer", "null"]})), "a") is ColumnType.INTEGER
    assert column_type(strict_schema(Node), "children.0.children.3.name") is ColumnType.TEXT
    assert column_type(strict_schema(Wrapped), "either.city") is ColumnType.TEXT


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("lable", ["'lable'", "did you mean 'label'?"]),
        ("zzz", ["no 'zzz'", "there is: label, urgency"]),
        ("home.citty", ["'home'", "did you mean 'city'?"]),
        ("label.x", ["'label'", "no 'x'"]),
        ("tags.first", ["'tags'", "is a list", "must be a number"]),
        ("", ["no ''"]),
    ],
)
def test_a_path_that_the_schema_does_not_have_is_an_error_naming_what_there_is(path: str, words: list[str]) -> None:
    with pytest.raises(SchemaError) as raised:
        column_type(strict_schema(Ticket), path)
    for word in words:
        assert word in str(raised.value)


def test_a_value_is_found_by_its_path_and_none_when_absent() -> None:
    value = {"a": {"b": [{"c": 1}, {"c": None}]}, "0": "zero"}
    assert value_at(value, "a.b.0.c") == 1
    assert value_at(value, "0") == "zero"
    for absent in ("a.b.1.c", "a.b.2.c", "a.b.-1", "a.x", "a.b.c", "a.b.0.c.d", "b", ""):
        assert value_at(value, absent) is None
    assert value_at(None, "a") is None


@pytest.mark.parametrize(
    ("value", "type", "converted"),
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
        ({"a": [1]}, ColumnType.JSON, {"a": [1]}),
        ("AP8=", ColumnType.BYTES, b"\x00\xff"),
        ([1, 0.5], ColumnType.VECTOR, [1.0, 0.5]),
        ([], ColumnType.VECTOR, []),
        (None, ColumnType.INTEGER, None),
    ],
)
def test_a_value_becomes_what_its_column_holds(value: Any, type: ColumnType, converted: Any) -> None:
    found = convert(value, type)
    assert found == converted
    assert found.__class__ is converted.__class__


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
        ("no base64!", ColumnType.BYTES),
        ([1, "2"], ColumnType.VECTOR),
        ([1, None], ColumnType.VECTOR),
    ],
    ids=repr,
)
def test_a_value_that_does_not_fit_its_column_is_a_value_error(value: Any, type: ColumnType) -> None:
    with pytest.raises(ValueError, match="is no "):
        convert(value, type)


texts = st.text(max_size=5) | st.dates().map(str) | st.datetimes(timezones=st.timezones()).map(datetime.isoformat)


@given(
    answer=st.fixed_dictionaries(
        {
            "due": texts,
            "seen": texts,
            "count": st.integers(-(2**63), 2**63 - 1) | st.floats(-1e18, 1e18) | st.booleans(),
            "score": st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.none(),
        }
    )
)
def test_what_the_judge_lets_through_fits_its_column(answer: dict[str, Any]) -> None:
    schema = strict_schema(Ticket)
    value, error = SchemaJudge(schema).judge(json.dumps({**ANSWER, **answer}))
    if error is None:
        for path in answer:
            convert(value_at(value, path), column_type(schema, path))
