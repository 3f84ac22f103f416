"""What a value of the warehouse becomes in text and in JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.value import (
    UnusableError,
    as_json,
    canonical,
    is_blank,
    is_broken,
    json_text,
    text,
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        ("1e5", "1e5"),
        ("{{ x }}", "{{ x }}"),
        (5, "5"),
        (True, "True"),
        (1.5, "1.5"),
        (Decimal("5.00"), "5.00"),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), "0:01:30"),
        (Colour.RED, "red"),
        ({"b": 1, "a": [None, "é"]}, '{"b":1,"a":[null,"é"]}'),
        ([date(2026, 1, 2)], '["2026-01-02"]'),
        ((1, 2), "[1,2]"),
    ],
)
def test_a_value_in_text(value: Any, expected: str) -> None:
    assert text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("5.00"), b"5.00"),
        (datetime(2026, 1, 2, 3, 4, tzinfo=UTC), b'"2026-01-02T03:04:00+00:00"'),
        (date(2026, 1, 2), b'"2026-01-02"'),
        (time(3, 4), b'"03:04:00"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (10**30, b"1000000000000000000000000000000"),
        (Colour.RED, b'"red"'),
        ("\u2028", '"\u2028"'.encode()),
        ((1, (2,)), b"[1,[2]]"),
    ],
)
def test_a_value_in_json(value: Any, expected: bytes) -> None:
    assert canonical(value) == expected


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_are_refused_everywhere_and_at_any_depth(value: bytes | bytearray | memoryview) -> None:
    for place in (value, [value], {"a": [value]}):
        for use in (text, canonical, json_text):
            with pytest.raises(UnusableError, match="binary") as caught:
                use(place)
            assert caught.value.value is value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")])
def test_numbers_that_json_does_not_have_are_refused(value: float | Decimal) -> None:
    with pytest.raises(UnusableError, match="does not exist in JSON"):
        canonical({"a": [value]})


@pytest.mark.parametrize("value", [timedelta(1), {1, 2}, object(), 1j])
def test_what_is_no_json_is_refused_with_its_type(value: Any) -> None:
    with pytest.raises(UnusableError, match=type(value).__name__):
        canonical([value])


def test_keys_that_are_no_text_are_refused() -> None:
    with pytest.raises(UnusableError, match="key 1"):
        canonical({1: "x"})


def test_a_forgotten_call_is_not_sent_as_the_name_of_a_method() -> None:
    with pytest.raises(UnusableError, match="parentheses"):
        text("x".upper)


def test_a_generator_is_not_sent_as_its_address() -> None:
    with pytest.raises(UnusableError, match="list"):
        text(character for character in "x")


@pytest.mark.parametrize("value", ["\ud800", ["a\udfff"], {"\ud800": 1}])
def test_half_of_a_surrogate_pair_is_refused(value: str | list[str] | dict[str, int]) -> None:
    with pytest.raises(UnusableError, match="surrogate"):
        canonical(value)


def test_broken_text_is_known() -> None:
    assert is_broken("a\ud800")
    assert not is_broken("a😀")
    assert not is_broken(None)


@pytest.mark.parametrize(
    ("value", "blank"),
    [(None, True), ("", True), (" \n\u2003", True), ([], True), ({}, True), (0, False), (False, False), ("x", False)],
)
def test_blank_is_nothing_but_whitespace(value: Any, blank: bool) -> None:
    assert is_blank(value) is blank


def test_the_order_inside_a_schema_is_part_of_the_question() -> None:
    schema = {"type": "object", "properties": {"reasons": {}, "label": {}}}
    assert canonical({"schema": schema, "a": 1}) == (
        b'{"a":1,"schema":{"type":"object","properties":{"reasons":{},"label":{}}}}'
    )
    assert canonical({"parameters": schema}).index(b"reasons") < canonical({"parameters": schema}).index(b"label")


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


def _without_schema_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return not value.keys() & {"schema", "parameters"} and all(map(_without_schema_keys, value.values()))
    return not isinstance(value, list) or all(map(_without_schema_keys, value))


@given(JSON_VALUES.filter(_without_schema_keys))
def test_the_order_of_keys_makes_no_difference_outside_schemas(value: Any) -> None:
    assert canonical(value) == canonical(_turned(value))


@given(JSON_VALUES)
def test_canonical_json_means_the_same_value(value: list[Any] | dict[str, Any] | str | None) -> None:
    assert json.loads(canonical(value)) == value
    assert b"\n" not in canonical(value)


@given(JSON_VALUES)
def test_without_sorting_the_order_stays(value: Any) -> None:
    assert json.dumps(as_json(value, sort=False)) == json.dumps(value)
