"""Answers are judged as the author's pydantic type judges them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, NamedTuple, NotRequired, cast
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    IPvAnyNetwork,
    RootModel,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
)
from typing_extensions import TypedDict

from airflow_provider_batch.core.schema.author_schema import author_schema, schema_changes, strict_schema
from airflow_provider_batch.core.schema.judge import SchemaJudge


def judge(type_: Any, answer: Any) -> tuple[Any, str | None]:
    """Judge by what a manifest keeps of the type."""
    kept = json.loads(json.dumps(author_schema(type_)))
    return SchemaJudge(kept).judge(json.dumps(answer))


class Size(IntEnum):
    SMALL = 1
    LARGE = 2


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Person(TypedDict):
    name: str
    age: NotRequired[int]


@dataclass
class Address:
    city: str
    zip: str | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    name: str


class Node(BaseModel):
    name: str
    children: list[Node] = []


FIELD_TYPES: list[Any] = [
    int,
    float,
    bool,
    str,
    Decimal,
    date,
    datetime,
    time_of_day,
    timedelta,
    UUID,
    HttpUrl,
    bytes,
    Size,
    Colour,
    Point,
    Person,
    Address,
    Cat,
    Node,
    Literal["a", 1, None],
    int | str,
    float | None,
    list[int],
    set[int],
    frozenset[str],
    tuple[int, str],
    tuple[int, ...],
    dict[str, int],
    Any,
    Annotated[Cat | Dog, Field(discriminator="kind")],
    Cat | Dog,
    Annotated[int, Field(ge=0, lt=10, multiple_of=2)],
    Annotated[Decimal, Field(ge=0, max_digits=5, decimal_places=2)],
    Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]+$")],
    Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1)],
    Annotated[list[int], Field(min_length=1, max_length=2)],
    Annotated[set[int], Field(min_length=2)],
    Annotated[int, Field(strict=True)],
    Annotated[datetime, Field(ge=datetime(2026, 1, 1))],
]
leaves: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2, 4, 1.0, 1.5, 1e300, 10**30, "", "a", "abc", " A ", "5", " 5 ", "1.0", "true"),
        *("yes", "red", "1234.50", "1,234.50 EUR", "2026-11-29", "2026-11-29T10:00:00", "2026-11-29 10:00:00Z"),
        *("10:30", "P1D", "1 day", 1700000000, "1700000000", 86400, "00000000-0000-4000-8000-000000000000"),
        *("https://example.com/a b", "HTTPS://EXÄMPLE.com", "ftp://x", "NaN", "cat", "dog"),
    ]
)
answers = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "lives", "name", "age", "city", "zip", "x", "y", "children", "value", "v1.0"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=6,
)
shaped = st.one_of(
    answers,
    st.fixed_dictionaries({"kind": st.sampled_from(["cat", "dog"])}, optional={"lives": leaves, "name": leaves}),
    st.fixed_dictionaries({"name": st.just("n")}, optional={"children": st.just([{"name": "m"}]), "age": leaves}),
    st.fixed_dictionaries({"city": leaves}, optional={"zip": leaves}),
    st.fixed_dictionaries({"x": leaves, "y": leaves}),
)
configs = st.fixed_dictionaries(
    {},
    optional={
        "extra": st.sampled_from(["ignore", "forbid", "allow"]),
        "str_strip_whitespace": st.booleans(),
        "coerce_numbers_to_str": st.booleans(),
        "populate_by_name": st.booleans(),
        "strict": st.booleans(),
    },
)


@given(
    type_=st.sampled_from(FIELD_TYPES),
    value=shaped,
    name=st.sampled_from(["field", "value", "v1.0", "second", "other"]),
    config=configs,
    has_default=st.booleans(),
)
@example(type_=set[int], value=[1, 1], name="field", config={}, has_default=False)
@example(type_=Annotated[set[int], Field(min_length=2)], value=[1, "1"], name="field", config={}, has_default=False)
@example(type_=Size, value="1", name="value", config={}, has_default=False)
def test_the_judge_accepts_what_the_model_accepts_and_nothing_else_but_nulls(
    type_: Any, value: Any, name: str, config: Any, has_default: bool
) -> None:
    default: Any = {"default": None} if has_default else {}
    field = Field(validation_alias=AliasChoices("v1.0", "second", AliasPath("other", 0)), **default)
    model = create_model("Model", __config__=cast(ConfigDict, config), field=(type_, field))
    answer = {name: [value] if name == "other" else value}
    text = json.dumps(answer)
    try:
        model.model_validate_json(text)
        is_accepted = True
    except ValidationError:
        is_accepted = False
    judged, problem = judge(model, answer)
    if problem is None:
        assert is_accepted or "null" in text  # which means absent where it is not allowed
        assert msgspec.json.encode(judged)
    else:
        assert not is_accepted, problem


@pytest.mark.parametrize(
    ("type_", "answer", "value"),
    [
        (create_model("A", a=(int, Field(strict=True))), {"a": 1.0}, None),
        (create_model("B", a=(str, Field(default="x"))), {}, {"a": "x"}),
        (create_model("C", a=(int | None, Field(None, validation_alias=AliasChoices("a", "b")))), {"b": 1}, {"a": 1}),
        (create_model("D", a=(Annotated[str, StringConstraints(to_lower=True)], ...)), {"a": "X"}, {"a": "x"}),
        (create_model("E", __config__=ConfigDict(str_to_upper=True), a=(str, ...)), {"a": "x"}, {"a": "X"}),
        (create_model("F", a=(list[set[int]], ...)), {"a": [[1, 2]]}, {"a": [[1, 2]]}),
        (
            create_model("G", a=(list[Address], ...)),
            {"a": [{"city": "x", "mood": "y"}]},
            {"a": [{"city": "x", "zip": None}]},
        ),
        (create_model("H", a=(create_model("I", b=(int, ...)), ...)), {"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}),
    ],
)
def test_what_pydantic_changes_is_changed_even_if_the_json_schema_allows_it(
    type_: Any, answer: Any, value: Any
) -> None:
    assert judge(type_, answer)[0] == value


class Invoice(BaseModel):
    total: Decimal
    currency: str = "EUR"
    note: str | None = "none"
    paid: Annotated[bool, Field(alias="is paid")]


def test_coercions_and_defaults_are_in_the_value() -> None:
    assert judge(Invoice, {"is paid": "true", "total": "1234.50", "currency": None, "note": None, "extra": 1}) == (
        {"total": Decimal("1234.50"), "currency": "EUR", "note": None, "is paid": True},
        None,
    )
    assert judge(Invoice, {"is paid": True, "total": 1234.5})[0]["total"] == Decimal("1234.5")
    assert "total" in str(judge(Invoice, {"is paid": True, "total": "1,234.50 EUR"})[1])


class Contact(BaseModel):
    address: IPv4Address
    network: IPvAnyNetwork | None = None
    since: datetime | None = None
    point: Point | None = None
    code: Annotated[str, Field(pattern=re.compile(r"^(?=a)abc$", re.IGNORECASE))] = "abc"
    tags: list[str] = Field(default_factory=list)
    kinds: set[str] = Field(default_factory=set)


@pytest.mark.parametrize(
    ("answer", "is_valid"),
    [
        ({"since": "2026-11-29T10:00:00"}, True),
        ({"point": {"x": 1, "y": 2}}, True),
        ({"address": "10.0.0.1", "network": "::/0"}, True),
        ({"address": "10.0.0"}, False),
        ({"address": "::1"}, False),
        ({"network": "10.0.0.1/8"}, False),
        ({"code": "ABC"}, True),
        ({"code": "xabc"}, False),
    ],
    ids=str,
)
def test_formats_and_compiled_patterns_are_checked_without_refusing_other_fields(answer: Any, is_valid: bool) -> None:
    value, problem = judge(Contact, {"address": "10.0.0.2", **answer})
    assert (problem is None) == is_valid
    if value is not None:
        assert {name: value[name] for name in answer} == answer


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    size: float


class Square(BaseModel):
    kind: Literal["square"] = "square"
    size: float


def test_a_tag_that_is_null_stands_for_no_model() -> None:
    model = create_model("Drawing", shape=(Circle | Square, ...))
    assert judge(model, {"shape": {"kind": "square", "size": 1.5}})[0] == {"shape": {"kind": "square", "size": 1.5}}
    assert judge(model, {"shape": {"kind": None, "size": 1.5}})[0] is None


def test_an_email_address_is_checked() -> None:
    pytest.importorskip("email_validator")
    from pydantic import EmailStr

    model = create_model("Contact", mail=(EmailStr, ...), since=(datetime | None, None))
    assert judge(model, {"mail": "ada@example.com", "since": "2026-11-29T10:00:00"})[1] is None
    assert "mail" in str(judge(model, {"mail": "nobody"})[1])


def test_fields_that_are_absent_or_null_have_the_empty_value_of_their_default_factory() -> None:
    for answer in ({}, {"tags": None, "kinds": None}):
        value, _ = judge(Contact, {"address": "10.0.0.2", **answer})
        assert (value["tags"], value["kinds"], value["code"]) == ([], [], "abc")


class Page(BaseModel):
    url: HttpUrl
    tags: set[str]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


def test_urls_sets_and_discriminated_unions_are_sent_in_words_that_openai_takes() -> None:
    text = json.dumps(strict_schema(Page))
    for keyword in ("uri", "uniqueItems", "oneOf", "discriminator", "x-pydantic"):
        assert f'"{keyword}"' not in text
    answer = {"url": "https://example.com", "tags": ["b", "a", "b"], "pet": {"kind": "dog", "name": "Rex"}}
    assert judge(Page, answer)[0]["tags"] == ["b", "a"]


@pytest.mark.parametrize(
    ("type_", "key", "value"),
    [
        (list[Cat], "items", [{"kind": "cat", "lives": 9}]),
        (RootModel[list[int]], "items", [1]),
        (TypeAdapter(tuple[int, ...]), "items", [1]),
        (Annotated[int, Field(ge=3)], "value", 5),
        (Annotated[Cat | Dog, Field(discriminator="kind")], "value", {"kind": "dog", "name": "x"}),
        (Colour, "value", "red"),
    ],
    ids=str,
)
def test_any_type_can_be_the_root(type_: Any, key: str, value: Any) -> None:
    assert list(strict_schema(type_)["properties"]) == [key]
    assert judge(type_, {key: value}) == (value, None)
    assert judge(type_, value) == (value, None)


def test_dataclasses_and_typed_dicts_are_objects() -> None:
    assert judge(Address, {"city": "Ulm"}) == ({"city": "Ulm"}, None)
    assert judge(Person, {"name": "Ada", "age": None}) == ({"name": "Ada", "age": None}, None)
    assert strict_schema(Person)["properties"]["age"]["type"] == ["integer", "null"]


def test_the_schema_of_a_type_is_the_same_in_every_process() -> None:
    def create() -> type[BaseModel]:
        class Recursive(BaseModel):
            children: list[Recursive] = []
            cat: Cat | None = None

        return Recursive

    assert author_schema(create()) == author_schema(create())


def test_the_authors_own_validators_do_not_run_and_are_named() -> None:
    def must_be_even(value: int) -> int:
        raise AssertionError("must not run")

    class Even(BaseModel):
        number: Annotated[int, AfterValidator(must_be_even)]

    assert judge(Even, {"number": 3}) == ({"number": 3}, None)
    changes = schema_changes(author_schema(Even))
    assert any("validators do not run" in change and "must_be_even" in change for change in changes)


def test_a_schema_of_another_version_of_pydantic_is_judged_as_json_schema() -> None:
    schema = {**author_schema(Cat), "x-pydantic": {"schema": {"type": "from the future"}, "validators": []}}
    assert SchemaJudge(schema).judge('{"kind": "cat", "lives": null}') == ({"kind": "cat"}, None)
    assert SchemaJudge(schema).judge('{"kind": "cow"}')[1]
