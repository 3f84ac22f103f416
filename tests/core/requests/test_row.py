"""Columns are found by exact name or case-insensitively, and `row` has nothing but columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.row import Columns, Row, UnknownColumnError, lookup, row_to_dict
from airflow_provider_batch.exceptions import InputError


def test_an_exact_name_takes_precedence() -> None:
    columns = Columns(["ID", "id"])
    assert columns.index("id") == 1
    assert columns.index("ID") == 0


def test_a_column_is_found_case_insensitively_if_only_one_matches() -> None:
    assert Columns(["TITLE", "Body"]).index("title") == 0
    assert Columns(["TITLE", "Body"]).index("BODY") == 1


def test_a_name_that_matches_two_columns_case_insensitively_is_ambiguous() -> None:
    with pytest.raises(UnknownColumnError, match=r"'Id' is ambiguous: the columns include 'ID', 'id'"):
        Columns(["ID", "id"]).index("Id")


def test_two_columns_of_the_same_name_are_rejected() -> None:
    with pytest.raises(InputError, match="two columns named 'id'"):
        Columns(["id", "title", "id"])


def test_the_error_for_an_unknown_column_suggests_one_and_lists_the_columns() -> None:
    with pytest.raises(UnknownColumnError) as error_info:
        Columns(["id", "TITLE", "body"]).index("titel")
    assert "no column 'titel'" in str(error_info.value)
    assert "Did you mean 'TITLE'?" in str(error_info.value)
    assert "id, TITLE, body" in str(error_info.value)


def test_a_long_list_of_columns_is_shortened() -> None:
    with pytest.raises(UnknownColumnError, match=r"column_39 and 460 more"):
        Columns([f"column_{number}" for number in range(500)]).index("x")


def test_the_error_for_a_query_without_columns_says_so() -> None:
    with pytest.raises(UnknownColumnError, match="no columns"):
        Columns([]).index("x")


def test_a_column_is_not_found_by_its_position() -> None:
    with pytest.raises(UnknownColumnError, match=r"row\[0\] is not a column: columns can only be accessed by name"):
        Columns(["id"]).index(0)


def test_a_row_has_no_public_attributes() -> None:
    row = Row(Columns(["items", "get"]), (1, 2))
    assert lookup(row, "items") == 1
    assert row_to_dict(row) == {"items": 1, "get": 2}
    assert {name for name in dir(row) if not name.startswith("_")} == set()
    assert not hasattr(row, "__dict__")


@given(st.lists(st.text(max_size=8), unique=True, max_size=8))
def test_every_column_is_found_by_its_own_name(names: list[str]) -> None:
    columns = Columns(names)
    assert [columns.index(name) for name in names] == list(range(len(names)))
