"""The replies of servers to an upload."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.provider.uploaded_file import read_file_id

FILE = {"id": "file-1", "object": "file", "bytes": 3, "filename": "s0001.jsonl", "purpose": "batch"}


@pytest.mark.parametrize(
    ("answer", "file_id"),
    [
        (FILE, "file-1"),
        ({"code": 20000, "message": "Ok", "status": True, "data": FILE}, "file-1"),
        ({"id": "req-1", "data": FILE}, "file-1"),
        ({"file": FILE}, "file-1"),
        ({"file_id": "file-1"}, "file-1"),
        ({"data": {"file_id": "file-1"}}, "file-1"),
        ({"id": None, "file_id": "file-1"}, "file-1"),
        ({"id": 17}, "17"),
        ({"data": {"id": 17}}, "17"),
        ({"id": "files/abc-123"}, "files/abc-123"),
        ({"id": "file-1", "data": None}, "file-1"),
        ({"id": "file-1", "error": None}, "file-1"),
    ],
)
def test_the_id_of_a_file_is_read_wherever_it_is(answer: Any, file_id: str) -> None:
    assert read_file_id(answer) == file_id


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "file-1",
        ["file-1"],
        {},
        {"id": ""},
        {"id": None},
        {"id": True},
        {"id": 0},
        {"id": -1},
        {"id": 1.5},
        {"id": {"id": "file-1"}},
        {"id": "two words"},
        {"id": "line\nbreak"},
        {"data": []},
        {"code": 50001, "message": "The quota is used up.", "data": None},
        {"id": "req-1", "error": {"message": "The quota is used up."}},
    ],
)
def test_what_is_not_a_file_has_no_id(answer: Any) -> None:
    assert read_file_id(answer) == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.sampled_from(["id", "file_id", "data", "file", "x"]), values),
)


@given(json_values)
def test_any_json_has_an_id_without_spaces_or_none(answer: Any) -> None:
    file_id = read_file_id(answer)
    assert file_id.split() == ([file_id] if file_id else [])
