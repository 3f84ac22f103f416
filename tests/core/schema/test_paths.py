"""Paths into structured output: every name can be reached, and mistakes are explained."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.arguments import parse_columns
from airflow_provider_batch.core.schema.columns import ColumnType
from airflow_provider_batch.core.schema.paths import Path, column_type, extractor, resolve
from airflow_provider_batch.exceptions import InputError, SchemaError

STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}


def fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def list_of(items: Any, **keywords: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **keywords}


#: a schema whose names are as awkward as models and people make them
AWKWARD = {
    "v1.0": fields(score={"type": "number"}),
    "Metric A": INTEGER,
    "gpt-4.1": STRING,
    "e.g.": STRING,
    'it\'s "so"': STRING,
    "0": INTEGER,
    "12": fields(**{"3": STRING}),
    "": STRING,
    ".": STRING,
    "-1": STRING,
    "ä/~b": STRING,
    "$ref": STRING,
    "properties": fields(items=STRING),
    "items": list_of(fields(**{"a.b": STRING, "0": STRING})),
    "plain": STRING,
}


@pytest.mark.parametrize(
    ("path", "parts", "type"),
    [
        *[((name,), (name,), None) for name in AWKWARD],
        *[(name, (name,), None) for name in AWKWARD],
        ("v1.0.score", ("v1.0", "score"), ColumnType.FLOAT),
        (["v1.0", "score"], ("v1.0", "score"), ColumnType.FLOAT),
        ("12.3", ("12", "3"), ColumnType.TEXT),
        ("items.0.a.b", ("items", "0", "a.b"), ColumnType.TEXT),
        ("items.7.0", ("items", "7", "0"), ColumnType.TEXT),
        (["items", 0, "0"], ("items", 0, "0"), ColumnType.TEXT),
        ("properties.items", ("properties", "items"), ColumnType.TEXT),
    ],
    ids=str,
)
def test_a_path_reaches_every_name(path: Path, parts: tuple[str | int, ...], type: ColumnType | None) -> None:
    schema = fields(**AWKWARD)
    assert resolve(schema, path) == parts
    assert type is None or column_type(schema, path) is type


names = st.text(alphabet='ab.01-" ', max_size=4)
schemas = st.recursive(
    st.just(STRING), lambda inner: st.dictionaries(names, inner, max_size=3).map(lambda each: fields(**each))
)


def leaves(schema: dict[str, Any], parents: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    properties = schema.get("properties", {})
    below = [leaf for name, inner in properties.items() for leaf in leaves(inner, (*parents, name))]
    return [parents, *below] if parents else below


def document(parts: tuple[str, ...]) -> Any:
    return {parts[0]: document(parts[1:])} if parts else "value"


@given(schemas)
def test_a_dotted_path_means_what_it_spells_or_is_ambiguous_and_a_list_is_never_ambiguous(
    schema: dict[str, Any],
) -> None:
    for parts in leaves(schema):
        assert resolve(schema, parts) == parts
        with contextlib.suppress(SchemaError):  # an ambiguous path
            resolved = resolve(schema, ".".join(parts))
            assert ".".join(map(str, resolved)) == ".".join(parts)
            assert resolved in leaves(schema)
        if column_type(schema, parts) is ColumnType.TEXT:
            assert extractor(schema, parts)(document(parts)) == "value"


def test_an_exact_name_comes_before_a_path() -> None:
    schema = fields(**{"a.b": STRING, "a": fields(b=INTEGER), "x": fields(**{"a.b": STRING, "a": fields(b=INTEGER)})})
    assert resolve(schema, "a.b") == ("a.b",)
    assert resolve(schema, "x.a.b") == ("x", "a.b")
    assert column_type(schema, ["a", "b"]) is ColumnType.INTEGER


def test_an_ambiguous_path_is_an_error_that_shows_the_lists_to_write() -> None:
    schema = fields(**{"a.b": fields(c=STRING), "a": fields(**{"b.c": INTEGER})})
    with pytest.raises(SchemaError) as error_info:
        column_type(schema, "a.b.c")
    assert str(error_info.value) == (
        "column path 'a.b.c': Names in the output schema contain dots, so this path could be "
        '["a.b", "c"] or ["a", "b.c"]. Write one of these lists as the path.'
    )
    assert column_type(schema, ["a", "b.c"]) is ColumnType.INTEGER


def test_a_path_goes_through_references_unions_and_lists() -> None:
    schema = {
        **fields(
            node={"$ref": "#/$defs/Node", "description": "the first"},
            pet={
                "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
                "discriminator": {"propertyName": "kind"},
            },
            both={"allOf": [fields(a=STRING), fields(b=INTEGER)]},
            maybe={"anyOf": [list_of(fields(x=STRING)), fields(**{"0": INTEGER, "1": INTEGER}), NULL]},
            pair={"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
            few=list_of(STRING, maxItems=2),
            any_items={"type": "array"},
        ),
        "$defs": {
            "Node": fields(name=STRING, children=list_of({"$ref": "#/$defs/Node"})),
            "Cat": fields(kind={"const": "cat", "type": "string"}, lives=INTEGER),
            "Dog": fields(kind={"const": "dog", "type": "string"}, owner=STRING),
        },
    }
    for path, type_ in {
        "node.children.0.children.12.name": ColumnType.TEXT,
        "pet.kind": ColumnType.TEXT,
        "pet.lives": ColumnType.INTEGER,
        "both.a": ColumnType.TEXT,
        "both.b": ColumnType.INTEGER,
        "maybe.0.x": ColumnType.TEXT,
        "maybe.1": ColumnType.JSON,
        "pair.0": ColumnType.INTEGER,
        "pair.1": ColumnType.TEXT,
        "few.1": ColumnType.TEXT,
    }.items():
        assert column_type(schema, path) is type_, path
    for path, problem in {
        "pair.2": "'pair' is a list with fewer items, so it has no item 2. The first item is 0.",
        "few.2": "'few' is a list with fewer items",
        "few.-1": "'few' is a list, whose items are counted from the start: 0, 1, 2. It has no item -1.",
        "few.01": "the next part of the path must be a number, not '01'",
        "few.first": "the next part of the path must be a number, not 'first'",
        "pet.name": "'pet' has no 'name'. It has kind, lives, owner.",
    }.items():
        with pytest.raises(SchemaError) as error_info:
            column_type(schema, path)
        assert problem in str(error_info.value)


def test_a_path_goes_into_a_list_at_the_root() -> None:
    schema = list_of(fields(name=STRING))
    assert column_type(schema, "0.name") is ColumnType.TEXT
    assert column_type(schema, [3, "name"]) is ColumnType.TEXT
    assert extractor(schema, "1.name")([{"name": "a"}, {"name": "b"}]) == "b"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("v1.1", "The output schema has no 'v1.1'. Did you mean 'v1.0'?"),
        ("v1.0.scor", "In the output schema, 'v1.0' has no 'scor'. Did you mean 'score'?"),
        ("metric A", "Did you mean 'Metric A'?"),
        ("plain.x.y", "In the output schema, 'plain' has no 'x'."),
        ("items.0.c", "In the output schema, 'items.0' has no 'c'. It has a.b, 0."),
        (["v1.0", "scor"], """["v1.0", "scor"]: In the output schema, 'v1.0' has no 'scor'. Did you mean 'score'?"""),
        (["v1", "0"], "The output schema has no 'v1'. Did you mean 'v1.0'?"),
        (["items", -1], "counted from the start"),
        (["Metric A", 0], "In the output schema, 'Metric A' has no 0"),
        ([], "The list is empty"),
    ],
    ids=str,
)
def test_the_error_for_a_wrong_path_suggests_the_right_one(path: Path, words: str) -> None:
    with pytest.raises(SchemaError) as error_info:
        column_type(fields(**AWKWARD), path)
    assert words in str(error_info.value)


def test_a_value_is_extracted_by_its_path_and_is_none_if_absent() -> None:
    part = fields(c={"anyOf": [INTEGER, fields(d=INTEGER), NULL]}, v={"type": "number"})
    schema = fields(a=fields(b=list_of(part)), **{"0": STRING, "v1.0": INTEGER})
    value = {"a": {"b": [{"c": 1}, {"c": None}]}, "0": "zero", "v1.0": 5}
    for path, expected in {"a.b.0.c": 1, "0": "zero", "v1.0": 5}.items():
        assert extractor(schema, path)(value) == expected
        assert extractor(schema, path)(None) is None
        assert extractor(schema, path)([]) is None
    for absent in ("a.b.1.c", "a.b.2.c", "a.b.99999999999999999.c", "a.b.0.v", "a.b.0.c.d"):
        assert extractor(schema, absent)(value) is None


# -- the argument columns=


@pytest.mark.parametrize(
    ("columns", "paths"),
    [
        (None, {}),
        ("", {}),
        ([], {}),
        ({}, {}),
        ("category", {"category": "category"}),
        ("v1.0", {"v1.0": "v1.0"}),
        (["category", "v1.0"], {"category": "category", "v1.0": "v1.0"}),
        (("a", "b"), {"a": "a", "b": "b"}),
        ({"x": "a.b", "y": ["v1.0", 0]}, {"x": "a.b", "y": ("v1.0", 0)}),
        ({"x": ""}, {"x": ""}),
    ],
    ids=str,
)
def test_columns_are_a_mapping_a_list_or_a_name(columns: Any, paths: dict[str, Any]) -> None:
    assert parse_columns(columns) == paths
    assert parse_columns(paths) == paths


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"a"}, "got {"),
        (7, "got 7"),
        (["a", "a"], "'a' is in the list more than once"),
        (["a", {"b": "c"}], "{'b': 'c'} in the list is not a name"),
        (["a", ["b", "c"]], "['b', 'c'] in the list is not a name"),
        ({"x": None}, "None, for column 'x', is not a path"),
        ({"x": {"a": "b"}}, "{'a': 'b'}, for column 'x', is not a path"),
        ({"x": ["a", True]}, "['a', True], for column 'x', is not a path"),
        ({"": "a"}, "'' cannot be the name of a column"),
        ({1: "a"}, "1 cannot be the name of a column"),
        ([""], "'' cannot be the name of a column"),
    ],
    ids=str,
)
def test_other_columns_are_refused(columns: Any, problem: str) -> None:
    with pytest.raises(InputError) as error_info:
        parse_columns(columns)
    assert str(error_info.value).startswith('columns: Expected names of fields, such as ["category", "score"]')
    assert problem in str(error_info.value)
