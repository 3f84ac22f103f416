"""Replacing one value of a JSON text."""

from __future__ import annotations

import json

import pytest

from airflow_provider_batch.local.api.json_path import replace_value

DOCUMENT = b'{"a":{"b":1},"list":[{"c":1},{"c":2}],"text":"\xe2\x80\xa8"}'


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a.b", "2", {"a": {"b": 2}}),
        ("a", "null", {"a": None}),
        ("a.b", None, {"a": {}}),
        ("a.new", "[]", {"a": {"b": 1, "new": []}}),
        ("list.1.c", "3", {"list": [{"c": 1}, {"c": 3}]}),
        ("list.*.c", "3", {"list": [{"c": 3}, {"c": 3}]}),
        ("a.b.c", "3", {}),
        ("list.2.c", "3", {}),
        ("absent.c", "3", {}),
    ],
)
def test_only_the_value_at_the_path_is_replaced(path: str, text: str | None, expected: dict[str, object]) -> None:
    assert json.loads(replace_value(DOCUMENT, path, text)) == json.loads(DOCUMENT) | expected


@pytest.mark.parametrize("text", ["1e400", '"\\ud83d"', "NaN", "[" * 100_000 + "]" * 100_000])
def test_the_new_value_is_inserted_unchanged(text: str) -> None:
    assert replace_value(b'{"a": 1, "b": "\xc3\xa9"}', "a", text) == b'{"a":%s,"b":"\xc3\xa9"}' % text.encode()
