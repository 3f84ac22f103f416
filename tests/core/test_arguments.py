"""The parsers of arguments take what a DAG, a form or a template may give, and refuse everything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_batch.core.arguments import (
    MAX_DURATION,
    TableRef,
    parse_bool,
    parse_count,
    parse_deadline,
    parse_duration,
    parse_metadata,
    parse_names,
    parse_number,
    parse_table,
)
from airflow_provider_batch.exceptions import InputError

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.timedeltas()
    | st.datetimes(),
    lambda children: st.lists(children) | st.dictionaries(st.text() | st.integers(), children) | st.tuples(children),
    max_leaves=5,
)


@pytest.mark.parametrize(
    "parse", [parse_bool, parse_count, parse_number, parse_duration, parse_deadline, parse_names, parse_metadata]
)
@given(value=ANYTHING)
def test_a_parser_returns_or_raises_an_error_that_names_the_argument(parse: Any, value: Any) -> None:
    try:
        parse("name", value)
    except InputError as error:
        message = str(error)
    else:
        return
    assert message.startswith("name")
    assert len(message) < 1_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in (True, 1, "true", "True", " YES ", "on", "1")),
        *((value, False) for value in (False, 0, "false", "No", "off", "0")),
    ],
)
def test_a_switch_may_be_text(value: Any, expected: bool) -> None:
    assert parse_bool("name", value, default=not expected) is expected


@pytest.mark.parametrize("value", [None, "", "  ", "None"])
def test_a_switch_that_was_left_empty_has_its_default(value: Any) -> None:
    assert parse_bool("name", value, default=True) is True
    assert parse_bool("name", value) is False


@given(st.timedeltas(timedelta(0), MAX_DURATION))
def test_a_duration_is_itself_and_its_seconds(duration: timedelta) -> None:
    assert parse_duration("name", duration) == duration
    seconds = duration // timedelta(seconds=1)
    whole = timedelta(seconds=seconds)
    assert parse_duration("name", seconds) == parse_duration("name", str(seconds)) == whole
    assert parse_duration("name", f"{seconds}s") == whole
    hours, minutes = seconds // 3600, seconds // 60 % 60
    assert parse_duration("name", f"{hours} hours {minutes}min {seconds % 60} sec") == whole


@pytest.mark.parametrize(
    "value",
    ["1x", "h", "1 h ago", "-1h", "1h,30m", "1e3", "01:30:00", "forever", -1, float("nan"), True, [1], {"h": 1}],
)
def test_other_durations_are_refused(value: Any) -> None:
    with pytest.raises(InputError, match="name: Expected a duration of at least 0"):
        parse_duration("name", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30h", timedelta(hours=30)),
        (3600, timedelta(hours=1)),
        ("2026-12-01T07:00:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
        ("2026-12-01 08:00+01:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
        ("2026-12-01", datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 1, 7), datetime(2026, 12, 1, 7, tzinfo=UTC)),
    ],
)
def test_a_deadline_is_a_duration_or_a_point_in_time(value: Any, expected: Any) -> None:
    assert parse_deadline("name", value) == expected


@pytest.mark.parametrize("value", [30, "30", 0, 59.9])
def test_a_plain_number_below_a_minute_is_not_a_deadline(value: Any) -> None:
    with pytest.raises(InputError, match="seconds, at least 60"):
        parse_deadline("name", value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ({}, None),
        ("answers", TableRef(None, "answers")),
        ({"table": "a.b", "conn_id": "w"}, TableRef("w", "a.b")),
        ({"table": "a.b", "conn_id": ""}, TableRef(None, "a.b")),
    ],
)
def test_a_table_is_a_name_or_a_name_and_its_connection(value: Any, expected: Any) -> None:
    assert parse_table("name", value) == expected


def test_numbers_in_metadata_become_text() -> None:
    assert parse_metadata("name", {"team": "north", "week": 48}) == {"team": "north", "week": "48"}
