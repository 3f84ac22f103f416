"""Warehouse values in text and in JSON."""

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
    UnusableValueError,
    canonical_json,
    has_lone_surrogate,
    is_blank,
    to_json_text,
    to_json_value,
    to_text,
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
def test_a_value_is_written_as_text(value: Any, expected: str) -> None:
    assert to_text(value) == expected


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
def test_a_value_is_written_as_json(value: Any, expected: bytes) -> None:
    assert canonical_json(value) == expected


@pytest.mark.parametrize("value", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_are_rejected_everywhere_and_at_any_depth(value: bytes | bytearray | memoryview) -> None:
    for container in (value, [value], {"a": [value]}):
        for convert in (to_text, canonical_json, to_json_text):
            with pytest.raises(UnusableValueError, match="binary") as error_info:
                convert(container)
            assert error_info.value.value is value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")])
def test_numbers_that_json_cannot_express_are_rejected(value: float | Decimal) -> None:
    with pytest.raises(UnusableValueError, match="JSON cannot represent the number"):
        canonical_json({"a": [value]})


@pytest.mark.parametrize("value", [timedelta(1), {1, 2}, object(), 1j])
def test_the_error_for_a_value_that_json_cannot_express_names_its_type(value: Any) -> None:
    with pytest.raises(UnusableValueError, match=type(value).__name__):
        canonical_json([value])


def test_keys_that_are_not_strings_are_rejected() -> None:
    with pytest.raises(UnusableValueError, match="key 1"):
        canonical_json({1: "x"})


def test_a_forgotten_call_is_not_sent_as_the_name_of_a_method() -> None:
    with pytest.raises(UnusableValueError, match="forget to call it"):
        to_text("x".upper)


def test_a_generator_is_not_sent_as_its_repr() -> None:
    with pytest.raises(UnusableValueError, match="list"):
        to_text(character for character in "x")


@pytest.mark.parametrize("value", ["\ud800", ["a\udfff"], {"\ud800": 1}])
def test_half_of_a_surrogate_pair_is_rejected(value: str | list[str] | dict[str, int]) -> None:
    with pytest.raises(UnusableValueError, match="surrogate"):
        canonical_json(value)


def test_a_lone_surrogate_is_detected() -> None:
    assert has_lone_surrogate("a\ud800")
    assert not has_lone_surrogate("a😀")
    assert not has_lone_surrogate(None)


@pytest.mark.parametrize(
    ("value", "blank"),
    [(None, True), ("", True), (" \n\u2003", True), ([], True), ({}, True), (0, False), (False, False), ("x", False)],
)
def test_empty_values_and_whitespace_are_blank(value: Any, blank: bool) -> None:
    assert is_blank(value) is blank


def test_the_order_of_keys_inside_a_schema_is_kept() -> None:
    schema = {"type": "object", "properties": {"reasons": {}, "label": {}}}
    assert canonical_json({"schema": schema, "a": 1}) == (
        b'{"a":1,"schema":{"type":"object","properties":{"reasons":{},"label":{}}}}'
    )
    assert canonical_json({"parameters": schema}).index(b"reasons") < canonical_json({"parameters": schema}).index(
        b"label"
    )


def _with_reversed_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_reversed_keys(value[key]) for key in reversed(value)}
    return [_with_reversed_keys(item) for item in value] if isinstance(value, list) else value


def _without_schema_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return not value.keys() & {"schema", "parameters"} and all(map(_without_schema_keys, value.values()))
    return not isinstance(value, list) or all(map(_without_schema_keys, value))


@given(JSON_VALUES.filter(_without_schema_keys))
def test_the_order_of_keys_makes_no_difference_outside_schemas(value: Any) -> None:
    assert canonical_json(value) == canonical_json(_with_reversed_keys(value))


@given(JSON_VALUES)
def test_canonical_json_parses_to_the_same_value(value: list[Any] | dict[str, Any] | str | None) -> None:
    assert json.loads(canonical_json(value)) == value
    assert b"\n" not in canonical_json(value)


@given(JSON_VALUES)
def test_without_sorting_the_order_of_keys_is_kept(value: Any) -> None:
    assert json.dumps(to_json_value(value, sort=False)) == json.dumps(value)
