"""What is sent for an author's schema, and how answers are judged by it."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.schema.author_schema import author_schema, schema_changes, strict_schema
from airflow_provider_batch.core.schema.judge import SchemaJudge
from airflow_provider_batch.exceptions import SchemaError

STRING = {"type": "string"}
PERSON = {"type": "object", "properties": {"name": STRING, "nickname": STRING}, "required": ["name"]}


def wrap(schema: Any, *, required: bool = True, **root: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, **({"required": ["a"]} if required else {}), **root}


def judge(schema: Any, answer: Any) -> tuple[Any, str | None]:
    return SchemaJudge(author_schema(schema)).judge(json.dumps(answer))


def is_valid(schema: Any, answer: Any) -> bool:
    return judge(schema, answer)[1] is None


def sent(schema: Any) -> Any:
    """Return what is sent for the property `a`."""
    return strict_schema(schema)["properties"]["a"]


# -- optional properties


def test_an_optional_property_is_sent_as_required_and_nullable_and_its_null_means_absent() -> None:
    strict = strict_schema(PERSON)
    assert strict["properties"]["nickname"] == {"type": ["string", "null"]}
    assert strict["required"] == ["name", "nickname"]
    assert schema_changes(author_schema(PERSON)) == ["nickname: optional, so it may be null"]
    assert judge(PERSON, {"name": "Ada"}) == ({"name": "Ada"}, None)
    assert judge(PERSON, {"name": "Ada", "nickname": None}) == ({"name": "Ada"}, None)
    assert not is_valid(PERSON, {"name": None})
    assert not is_valid(PERSON, {"name": "Ada", "nickname": 5})


DEFINITIONS: dict[str, Any] = {"$defs": {"B": {"type": "object", "properties": {"n": STRING}}}}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (STRING, {"type": ["string", "null"]}),
        ({"type": ["string", "integer"]}, {"type": ["string", "integer", "null"]}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": ["string", "null"]}),
        ({"enum": ["x", "y"]}, {"enum": ["x", "y", None], "type": ["string", "null"]}),
        ({"type": ["string", "null"], "enum": ["x"]}, {"type": ["string", "null"], "enum": ["x", None]}),
        ({"const": 1}, {"anyOf": [{"const": 1, "type": "integer"}, {"type": "null"}]}),
        ({"anyOf": [STRING, {"type": "null"}]}, {"anyOf": [STRING, {"type": "null"}]}),
        ({"anyOf": [STRING, {"type": "integer"}]}, {"anyOf": [STRING, {"type": "integer"}, {"type": "null"}]}),
        ({"$ref": "#/$defs/B"}, {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]}),
        ({"$ref": "#/$defs/B", "nullable": True}, {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]}),
        ({"type": "string", "default": "x"}, {"type": ["string", "null"]}),
    ],
    ids=str,
)
def test_every_way_of_writing_an_optional_property_is_nullable(schema: Any, expected: Any) -> None:
    optional = {**wrap(schema, required=False), **DEFINITIONS}
    assert sent(optional) == expected
    assert is_valid(optional, {})
    assert is_valid(optional, {"a": None})
    assert strict_schema(strict_schema(optional)) == strict_schema(optional)


def test_a_nullable_property_that_is_required_must_be_there() -> None:
    for schema in ({"type": "string", "nullable": True}, {"type": ["string", "null"]}):
        assert is_valid(wrap(schema), {"a": None})
        assert not is_valid(wrap(schema), {})


@pytest.mark.parametrize(
    ("schema", "answer", "value"),
    [
        (wrap(PERSON), {"a": {"name": "x", "nickname": None}}, {"a": {"name": "x"}}),
        (wrap({"type": "array", "items": PERSON}), {"a": [{"name": "x", "nickname": None}]}, {"a": [{"name": "x"}]}),
        (
            {**wrap({"$ref": "#/$defs/P"}), "$defs": {"P": PERSON}},
            {"a": {"name": "x", "nickname": None}},
            {"a": {"name": "x"}},
        ),
        (
            wrap({"type": "array", "prefixItems": [PERSON, STRING]}),
            {"a": [{"name": "x", "nickname": None}, "y"]},
            {"a": [{"name": "x"}, "y"]},
        ),
        (
            {
                "type": "object",
                "properties": {"name": STRING, "next": {"$ref": "#"}},
                "required": ["name"],
            },
            {"name": "x", "next": {"name": "y", "next": None}},
            {"name": "x", "next": {"name": "y"}},
        ),
        (
            # in one option null is absent, in the other it is a value
            wrap(
                {
                    "type": "array",
                    "items": {"anyOf": [PERSON, {**PERSON, "properties": {"nickname": {"type": "null"}},
                                                 "required": ["nickname"], "additionalProperties": False}]},
                }
            ),
            {"a": [{"name": "x", "nickname": None}, {"nickname": None}]},
            {"a": [{"name": "x"}, {"nickname": None}]},
        ),
        (
            wrap({"allOf": [PERSON, {"properties": {"age": {"type": "integer"}}}]}),
            {"a": {"name": "x", "nickname": None, "age": None}},
            {"a": {"name": "x"}},
        ),
    ],
)  # fmt: skip
def test_a_null_means_absent_at_any_depth(schema: Any, answer: Any, value: Any) -> None:
    assert strict_schema(schema)
    assert judge(schema, answer) == (value, None)


def test_other_properties_are_valid_where_the_author_allows_them() -> None:
    assert is_valid(PERSON, {"nickname": "x", "mood": "good", "name": "Ada"})
    assert not is_valid({**PERSON, "additionalProperties": False}, {"name": "Ada", "mood": "good"})


def test_what_depends_on_the_presence_of_a_property_is_judged_without_the_absent_ones() -> None:
    schema = {
        "type": "object",
        "properties": {"card": STRING, "cvv": STRING},
        "dependentRequired": {"card": ["cvv"]},
        "minProperties": 1,
    }
    assert "If card has a value, cvv must have one, too." in strict_schema(schema)["description"]
    assert is_valid(schema, {"card": "1", "cvv": "2"})
    assert is_valid(schema, {"card": None, "cvv": "2"})
    assert not is_valid(schema, {"card": "1", "cvv": None})
    assert not is_valid(schema, {"card": None, "cvv": None})


# -- keywords that OpenAI refuses


@pytest.mark.parametrize("extra", [{}, {"unevaluatedProperties": False}], ids=["open", "closed"])
def test_only_the_branch_of_a_condition_that_applies_takes_null_for_absent(extra: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["x", "y"]}, "count": {"type": ["integer", "null"]}, "note": STRING},
        "required": ["kind", "count"],
        "if": {"properties": {"kind": {"const": "x"}}},
        "then": {"properties": {"count": {"type": "integer"}, "unit": STRING}},
        **extra,
    }
    assert judge(schema, {"kind": "y", "count": None, "note": None})[0] == {"kind": "y", "count": None}
    assert is_valid(schema, {"kind": "y", "count": 1, "note": None, "unit": None})
    assert is_valid(schema, {"kind": "x", "count": 1, "note": None, "unit": None})
    assert not is_valid(schema, {"kind": "x", "count": None, "note": None})


def test_a_value_that_occurs_twice_in_an_enum_is_sent_once() -> None:
    assert sent(wrap({"enum": ["a", "b", "a"]})) == {"enum": ["a", "b"], "type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected", "valid", "invalid"),
    [
        (
            {"type": "string", "pattern": r"^(?!0)\d+$", "description": "An id"},
            {"type": "string", "description": r"An id. Must match the regular expression ^(?!0)\d+$."},
            "12",
            "012",
        ),
        (
            {"type": "string", "pattern": r"^(\w)\1$"},
            {"type": "string", "description": r"Must match the regular expression ^(\w)\1$."},
            "aa",
            "ab",
        ),
        (
            {"type": "string", "format": "uri"},
            {"type": "string", "description": "Format: an absolute URL (URI)."},
            "https://a.b",
            "a b",
        ),
        (
            {"type": "array", "items": STRING, "uniqueItems": True},
            {"type": "array", "items": STRING, "description": "No item may occur twice."},
            ["a", "b"],
            ["a", "a"],
        ),
        (
            {"type": "array", "items": STRING, "contains": {"const": "x"}, "minContains": 2},
            {
                "type": "array",
                "items": STRING,
                "description": 'Of the items, at least 2 must match {"const": "x", "type": "string"}.',
            },
            ["x", "x"],
            ["x", "y"],
        ),
        (
            {"type": "string", "not": {"enum": ["N/A", "none"]}},
            {"type": "string", "description": 'Must not be one of "N/A", "none".'},
            "Ada",
            "N/A",
        ),
        (
            {"type": "array", "items": [STRING, {"type": "integer"}]},
            {
                "type": "array",
                "minItems": 2,
                "maxItems": 2,
                "items": {"anyOf": [STRING, {"type": "integer"}]},
                "description": "The items are, in this order: string, integer.",
            },
            ["a", 1],
            [1, "a"],
        ),
        (
            {"allOf": [{"type": "string", "minLength": 2}, {"pattern": "^a"}, {"pattern": "b$"}]},
            {
                "type": "string",
                "minLength": 2,
                "pattern": "^a",
                "description": "Must match the regular expression b$.",
            },
            "ab",
            "ac",
        ),
        (
            {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            {"type": "integer", "exclusiveMinimum": 0},
            1,
            0,
        ),
        (
            {"type": "string", "examples": ["red", "blue"], "deprecated": True, "readOnly": True, "x-order": 3},
            {"type": "string", "description": 'Examples: "red", "blue".'},
            "green",
            1,
        ),
        (
            {"type": "string", "format": "password", "contentEncoding": "base64"},
            {"type": "string", "description": "Encoded as base64."},
            "aGk=",
            1,
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_openai_refuses_is_stated_in_the_description_and_checked_by_the_judge(
    schema: Any, expected: Any, valid: Any, invalid: Any
) -> None:
    assert sent(wrap(schema)) == expected
    assert is_valid(wrap(schema), {"a": valid})
    assert not is_valid(wrap(schema), {"a": invalid})
    assert strict_schema(strict_schema(wrap(schema))) == strict_schema(wrap(schema))


def test_a_change_that_the_judge_checks_is_listed() -> None:
    schema = wrap({"type": "string", "pattern": r"^(?!0)\d+$"}, required=False)
    assert schema_changes(author_schema(schema)) == [
        r"a: optional, so it may be null; pattern ^(?!0)\d+$ is checked after the answer arrives"
    ]


@pytest.mark.parametrize("keyword", ["minLength", "maxLength", "minimum", "multipleOf", "minItems", "pattern"])
def test_what_openai_accepts_is_sent(keyword: str) -> None:
    schema = {"type": "string", keyword: "^a" if keyword == "pattern" else 3}
    assert sent(wrap(schema)) == schema


def test_a_union_becomes_any_of_and_its_discriminator_is_removed() -> None:
    cat, dog = (
        {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in ("cat", "dog")
    )
    pet = {"oneOf": [cat, dog], "discriminator": {"propertyName": "kind"}}
    assert sent(wrap(pet)).keys() == {"anyOf"}
    assert is_valid(wrap(pet), {"a": {"kind": "dog"}})
    assert not is_valid(wrap(pet), {"a": {"kind": "cow"}})
    plain = {"oneOf": [{"type": "integer"}, {"type": "number"}]}
    assert sent(wrap(plain))["description"] == "Must match exactly one of the options."
    assert not is_valid(wrap(plain), {"a": 1})


def test_the_tag_of_a_model_is_never_null() -> None:
    tag = {"const": "cat", "type": "string", "default": "cat"}
    assert sent(wrap(tag, required=False)) == {"const": "cat", "type": "string"}
    definitions = {
        "Cat": {"type": "object", "properties": {"kind": tag}},
        "Dog": {"type": "object", "properties": {"kind": {"enum": ["dog", "wolf"], "default": "dog"}}},
    }
    options = [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]
    pets = {"type": "array", "items": {"oneOf": options, "discriminator": {"propertyName": "kind"}}}
    for schema in ({**wrap(pets), "$defs": definitions}, {**pets, "$defs": definitions}):
        assert strict_schema(schema)["$defs"]["Dog"]["properties"]["kind"] == {
            "type": "string",
            "enum": ["dog", "wolf"],
        }
        assert not any("kind" in change for change in schema_changes(author_schema(schema)))


def test_a_reference_may_have_percent_encoded_characters() -> None:
    schema = {**wrap({"$ref": "#/$defs/My%20Type"}), "$defs": {"My Type": STRING}}
    assert strict_schema(schema) == {**schema, "additionalProperties": False}
    assert is_valid(schema, {"a": "x"})


@pytest.mark.parametrize(
    ("format", "expected", "valid", "invalid"),
    [
        (
            "uuid4",
            {"format": "uuid", "description": "Format: a UUID of version 4."},
            "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f",
            "6f2b1c9e-0b7e-1d6e-9d3a-0a5f0c1e2d3f",
        ),
        ("ipvanyaddress", {"description": "Format: an IP address."}, "::1", "1.2.3"),
        ("ipv4network", {"description": "Format: an IPv4 network."}, "10.0.0.0/8", "10.0.0.1/8"),
    ],
)
def test_the_formats_of_pydantic_are_checked(format: str, expected: Any, valid: str, invalid: str) -> None:
    schema = wrap({"type": "string", "format": format})
    assert sent(schema) == {"type": "string", **expected}
    assert schema_changes(author_schema(schema)) == [f"a: format {format} is checked after the answer arrives"]
    assert is_valid(schema, {"a": valid})
    assert not is_valid(schema, {"a": invalid})


def test_a_local_date_and_time_is_sent_as_a_pattern_without_a_time_zone() -> None:
    schema = wrap({"type": "string", "format": "date-time-local"})
    pattern = sent(schema)["pattern"]
    assert re.search(pattern, "2026-11-29T10:00:00")
    assert not re.search(pattern, "2026-11-29T10:00:00Z")
    assert is_valid(schema, {"a": "2026-11-29 10:00"})  # the author's schema says nothing about the pattern


def test_a_format_that_nobody_defines_is_stated_and_not_checked() -> None:
    schema = wrap({"type": "string", "format": "phone"})
    assert sent(schema) == {"type": "string", "description": "Format: phone."}
    assert schema_changes(author_schema(schema)) == ["a: format phone is stated in the description and not checked"]
    assert is_valid(schema, {"a": "no phone"})


def test_conditions_are_stated_and_their_properties_are_named() -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["card", "cash"]}},
        "required": ["kind"],
        "allOf": [
            {
                "if": {"properties": {"kind": {"const": "card"}}},
                "then": {"properties": {"number": STRING}, "required": ["number"]},
            }
        ],
    }
    strict = strict_schema(schema)
    assert strict["properties"]["number"] == {"type": ["string", "null"]}
    assert strict["description"].startswith("If it matches the JSON Schema")
    assert is_valid(schema, {"kind": "cash", "number": None})
    assert is_valid(schema, {"kind": "card", "number": "1"})
    assert not is_valid(schema, {"kind": "card", "number": None})


def test_a_choice_of_required_properties_is_stated_and_checked() -> None:
    schema = {
        "type": "object",
        "properties": {"email": STRING, "phone": STRING},
        "anyOf": [{"required": ["email"]}, {"required": ["phone"]}],
    }
    assert "anyOf" not in strict_schema(schema)
    assert is_valid(schema, {"email": None, "phone": "1"})
    assert not is_valid(schema, {"email": None, "phone": None})


def test_a_reference_into_the_middle_of_the_schema_becomes_a_definition() -> None:
    schema = {
        "type": "object",
        "properties": {"home": PERSON, "work": {"$ref": "#/properties/home"}},
        "required": ["home", "work"],
    }
    strict = strict_schema(schema)
    assert strict["properties"]["work"] == {"$ref": "#/$defs/home"}
    assert strict["$defs"]["home"] == strict["properties"]["home"]
    spaced = {"type": "object", "properties": {"a b": PERSON, "c": {"$ref": "#/properties/a%20b"}}, "required": ["c"]}
    assert strict_schema(spaced)["properties"]["c"] == {"$ref": "#/$defs/a_b"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": STRING},
        wrap({"type": "object", "additionalProperties": True, "properties": {"b": STRING}}),
        wrap({}),
        wrap({"type": "object"}),
        wrap({"type": "object", "patternProperties": {"^x": STRING}, "properties": {}}),
        wrap({"enum": []}),
        wrap({"type": "string", "enum": []}),
        {**PERSON, "required": ["nmae"]},
    ],
    ids=str,
)
def test_what_strict_output_cannot_express_is_refused_with_a_way_out(schema: Any) -> None:
    way_out = r"Name every property|Name its properties|Give it a type|List its values|Did you mean 'name'"
    with pytest.raises(SchemaError, match=way_out):
        strict_schema(schema)


def test_schemas_that_contradict_each_other_are_refused() -> None:
    closed = {"type": "object", "properties": {"b": STRING}, "additionalProperties": False}
    with pytest.raises(SchemaError, match="'name' is required"):
        strict_schema(wrap({"allOf": [closed, PERSON]}))


# -- a root that is not an object


@pytest.mark.parametrize(
    ("schema", "key", "value"),
    [
        ({"type": "array", "items": PERSON}, "items", [{"name": "x"}]),
        ({"$ref": "#/$defs/L", "$defs": {"L": {"type": "array", "items": STRING}}}, "items", ["x"]),
        ({"type": "string"}, "value", "x"),
        ({"anyOf": [PERSON, wrap(STRING)]}, "value", {"a": "x"}),
        ({"type": "array", "items": {"anyOf": [STRING, {"$ref": "#"}]}}, "items", ["a", ["b"]]),
    ],
)
def test_a_root_that_is_not_an_object_is_sent_inside_an_object(schema: Any, key: str, value: Any) -> None:
    strict = strict_schema(schema)
    assert list(strict["properties"]) == strict["required"] == [key]
    assert judge(schema, {key: value}) == (value, None)
    assert judge(schema, value) == (value, None)
    assert f"sent inside an object, as its property '{key}'" in schema_changes(author_schema(schema))[0]


def test_an_authors_own_property_named_items_is_not_unwrapped() -> None:
    schema = {"type": "object", "properties": {"items": {"type": "array", "items": STRING}}, "required": ["items"]}
    assert judge(schema, {"items": ["x"]}) == ({"items": ["x"]}, None)


def test_the_error_of_a_wrapped_answer_is_about_what_is_inside() -> None:
    assert "at 0" in str(judge({"type": "array", "items": STRING}, {"items": [1]})[1])


# -- regular expressions


def test_a_pattern_that_backtracks_without_end_makes_the_answer_invalid() -> None:
    schema = wrap({"type": "string", "pattern": "^(a+)+(?!b)$"})
    start = time.perf_counter()
    assert not is_valid(schema, {"a": "a" * 200 + "c"})
    assert time.perf_counter() - start < 5


def test_a_python_pattern_is_understood() -> None:
    assert sent(wrap({"type": "string", "pattern": r"\A\d+\Z"}))["pattern"] == r"^\d+$"
    assert is_valid(wrap({"type": "string", "pattern": r"(?P<x>a)(?P=x)"}), {"a": "aa"})
    assert not is_valid(wrap({"type": "string", "pattern": r"^(?P<x>a|b)(?P=x)$"}), {"a": "ab"})


# -- a law

keywords = st.sampled_from(
    [
        STRING,
        {"type": "integer"},
        {"type": ["integer", "null"]},
        {"enum": ["x", 1]},
        {"const": "x"},
        {"type": "array", "items": STRING},
        {"anyOf": [STRING, {"type": "null"}]},
        {"$ref": "#/$defs/B"},
    ]
)
schemas = st.recursive(
    keywords,
    lambda inner: st.one_of(
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
            },
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
            st.sets(st.sampled_from("abc")),
        ),
        inner.map(lambda item: {"type": "array", "items": item}),
        st.lists(inner, min_size=2, max_size=2).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=6,
)


@st.composite
def schemas_and_answers(draw: st.DrawFn) -> tuple[dict[str, Any], Any]:
    schema = {**wrap(draw(schemas), required=draw(st.booleans())), **DEFINITIONS}
    return schema, _answer(draw, strict_schema(schema), strict_schema(schema))


def _answer(draw: st.DrawFn, root: dict[str, Any], node: dict[str, Any]) -> Any:
    """Draw an answer that a server enforcing the strict schema could give."""
    if "$ref" in node:
        return _answer(draw, root, root["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    if "anyOf" in node:
        return _answer(draw, root, draw(st.sampled_from(node["anyOf"])))
    if "enum" in node:
        return draw(st.sampled_from(node["enum"]))
    if "const" in node:
        return node["const"]
    kind = draw(st.sampled_from(node["type"] if isinstance(node["type"], list) else [node["type"]]))
    if kind == "object":
        return {name: _answer(draw, root, value) for name, value in node["properties"].items()}
    if kind == "array":
        return [_answer(draw, root, node["items"]) for _ in range(draw(st.integers(0, 2)))]
    return {"null": None, "string": "s", "integer": 7}[kind]


@given(schemas_and_answers())
def test_every_answer_to_the_strict_schema_is_valid_for_its_author(case: tuple[dict[str, Any], Any]) -> None:
    schema, answer = case
    assert judge(schema, answer)[1] is None
