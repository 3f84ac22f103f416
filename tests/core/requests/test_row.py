"""`row` is its columns: found exactly first, else case-insensitively, and never anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.requests.row import Columns, Row, UnknownColumnError, as_dict, lookup
from airflow_provider_batch.exceptions import InputError


def test_a_column_is_found_by_its_exact_name_first() -> None:
    columns = Columns(["ID", "id"])
    assert columns.index("id") == 1
    assert columns.index("ID") == 0


def test_a_column_is_found_in_any_case_when_only_one_fits() -> None:
    assert Columns(["TITLE", "Body"]).index("title") == 0
    assert Columns(["TITLE", "Body"]).index("BODY") == 1


def test_a_name_that_fits_two_columns_only_by_case_is_ambiguous() -> None:
    with pytest.raises(UnknownColumnError, match=r"'Id' is ambiguous: the query returns 'ID', 'id'"):
        Columns(["ID", "id"]).index("Id")


def test_two_columns_of_the_same_name_are_refused() -> None:
    with pytest.raises(InputError, match="returns the column 'id' twice"):
        Columns(["id", "title", "id"])


def test_an_unknown_column_is_answered_with_a_guess_and_the_columns_there_are() -> None:
    with pytest.raises(UnknownColumnError) as caught:
        Columns(["id", "TITLE", "body"]).index("titel")
    assert "no column 'titel'" in str(caught.value)
    assert "Did you mean 'TITLE'?" in str(caught.value)
    assert "id, TITLE, body" in str(caught.value)


def test_a_wide_table_is_not_listed_to_its_end() -> None:
    with pytest.raises(UnknownColumnError, match=r"column_39 and 460 more"):
        Columns([f"column_{number}" for number in range(500)]).index("x")


def test_a_query_without_columns_says_so() -> None:
    with pytest.raises(UnknownColumnError, match="no columns"):
        Columns([]).index("x")


def test_a_column_is_not_found_by_its_position() -> None:
    with pytest.raises(UnknownColumnError, match=r"row\[0\]: a column is found by its name only"):
        Columns(["id"]).index(0)


def test_a_row_has_no_attributes_that_are_not_its_own_two_slots() -> None:
    row = Row(Columns(["items", "get"]), (1, 2))
    assert lookup(row, "items") == 1
    assert as_dict(row) == {"items": 1, "get": 2}
    assert {name for name in dir(row) if not name.startswith("_")} == set()
    assert not hasattr(row, "__dict__")


@given(st.lists(st.text(max_size=8), unique=True, max_size=8))
def test_every_column_is_found_by_its_own_name(names: list[str]) -> None:
    columns = Columns(names)
    assert [columns.index(name) for name in names] == list(range(len(names)))
