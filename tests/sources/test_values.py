"""Rows from lists, iterators and data frames: the columns and values that a job gets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import duckdb
import msgspec
import numpy as np
import pandas as pd
import pendulum
import polars as pl
import pyarrow as pa
import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.open import open_rows
from airflow_provider_batch.sources.plain import plain_value
from airflow_provider_batch.sources.records import LOOK_AHEAD_ROWS

#: nanoseconds since 1970 of 2026-01-02 03:04:05.123456789
MOMENT = 1767323045123456789
BERLIN = ZoneInfo("Europe/Berlin")


def read(value: Any) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return the columns and rows of a value of `rows`."""
    with open_rows(value) as source:
        return source.columns, list(source)


class Color(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Name(StrEnum):
    ANNA = "anna"


class Point(msgspec.Struct):
    x: int


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(5), 5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (np.array([1, 2]), [1, 2]),
        (np.array(["2026-01-02"], dtype="datetime64[D]"), [date(2026, 1, 2)]),
        (np.datetime64("2026-01-02T03:04:05"), datetime(2026, 1, 2, 3, 4, 5)),
        (np.datetime64(MOMENT, "ns"), "2026-01-02T03:04:05.123456789"),
        (np.datetime64(MOMENT - 789, "ns"), datetime(2026, 1, 2, 3, 4, 5, 123456)),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), timedelta(seconds=1.5)),
        (np.timedelta64(1500, "ns"), "PT0.000001500S"),
        (np.timedelta64("NaT"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (pd.Timestamp(MOMENT), "2026-01-02T03:04:05.123456789"),
        (pd.Timestamp("2026-01-02 03:04", tz="UTC"), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        (pd.Timedelta("1s"), timedelta(seconds=1)),
        (pendulum.datetime(2026, 1, 2, tz="Europe/Berlin"), datetime(2026, 1, 2, tzinfo=BERLIN)),
        (pendulum.date(2026, 1, 2), date(2026, 1, 2)),
        (pendulum.duration(hours=1), timedelta(hours=1)),
        (Color.RED, "red"),
        (Level.HIGH, 3),
        (Name.ANNA, "anna"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Point(1), {"x": 1}),
        ({"a": [np.int8(1), pd.NA]}, {"a": [1, None]}),
        ((1, 2), [1, 2]),
        (2**70, 2**70),
    ],
)
def test_values_of_other_libraries_become_plain_values_that_lose_nothing(value: Any, expected: Any) -> None:
    result = plain_value(value)

    assert result == expected
    assert type(result) is type(expected)


def test_a_list_has_the_columns_of_all_its_rows() -> None:
    assert read([{"a": 1}, {"b": 2, "a": 3}]) == (("a", "b"), [(1, None), (3, 2)])


def test_the_columns_of_an_iterator_are_those_of_its_first_rows() -> None:
    def generate(late_key: str) -> Iterator[dict[str, int]]:
        for number in range(LOOK_AHEAD_ROWS):
            yield {"a": number} if number else {"b": 0}
        yield {late_key: 1}

    columns, rows = read(generate("a"))
    assert (columns, len(rows), rows[-1]) == (("b", "a"), LOOK_AHEAD_ROWS + 1, (None, 1))
    with pytest.raises(InputError, match=r"Row 1001 has the key 'c', which none of the first 1,000 rows has"):
        read(generate("c"))


def test_a_generator_is_not_started_before_its_rows_are_read() -> None:
    started = []

    def generate() -> Iterator[dict[str, int]]:
        started.append(True)
        yield {"id": 1}

    source = open_rows(generate())

    assert started == []
    with source:
        assert started == [True]


def test_nan_in_dicts_is_a_missing_value_as_pandas_writes_it() -> None:
    frame = pd.DataFrame({"a": ["x", None], "b": [1.5, None]})

    assert read(frame.to_dict("records"))[1] == [("x", 1.5), (None, None)]


def test_a_pandas_frame_loses_nothing() -> None:
    frame = pd.DataFrame(
        {
            "integer": pd.array([2**62 + 1, None], dtype="Int64"),
            "float": [0.1, None],
            "text": ["a", None],
            "category": pd.Categorical(["x", None]),
            "moment": pd.to_datetime([MOMENT, None]),
            "zoned": pd.to_datetime([MOMENT - 789, None]).tz_localize("UTC").tz_convert("Europe/Berlin"),
            "span": pd.to_timedelta(["1s", None]),
            "object": [{"a": np.int64(1)}, [2**70]],
            "decimal": [Decimal("1.10"), None],
            "boolean": pd.array([True, None], dtype="boolean"),
            "day": [date(2026, 1, 1), pd.NaT],
            "arrow": pd.array([1, None], dtype="int64[pyarrow]"),
        }
    )
    columns, (first, second) = read(frame)

    assert columns == tuple(frame.columns)
    assert first == (
        *(2**62 + 1, 0.1, "a", "x", "2026-01-02T03:04:05.123456789"),
        *(datetime(2026, 1, 2, 4, 4, 5, 123456, BERLIN), timedelta(seconds=1), {"a": 1}, Decimal("1.10"), True),
        *(date(2026, 1, 1), 1),
    )
    assert second == (*(None,) * 7, [2**70], *(None,) * 4)


def test_a_named_index_of_a_pandas_frame_is_a_column() -> None:
    frame = pd.DataFrame({"a": [1]}, index=pd.Index(["x"], name="id"))

    assert read(frame) == (("id", "a"), [("x", 1)])
    assert read(frame.rename_axis(None)) == (("a",), [(1,)])


def test_a_polars_frame_loses_nothing() -> None:
    frame = pl.DataFrame(
        {
            "integer": pl.Series([2**70, None], dtype=pl.Int128),
            "decimal": [Decimal("1.10"), None],
            "moment": pl.Series([MOMENT, None]).cast(pl.Datetime("ns")),
            "zoned": pl.Series([MOMENT - 789, None]).cast(pl.Datetime("ns", "Europe/Berlin")),
            "span": pl.Series([1500, None]).cast(pl.Duration("ns")),
            "time": [time(1, 2, 3), None],
            "list": [[1], None],
            "struct": [{"a": date(2026, 1, 1)}, None],
            "enum": pl.Series(["a", None], dtype=pl.Enum(["a"])),
            "bytes": [b"x", None],
            "object": pl.Series([UUID(int=1), None], dtype=pl.Object),
        }
    )
    columns, (first, second) = read(frame)

    assert columns == tuple(frame.columns)
    assert first == (
        *(2**70, Decimal("1.10"), "2026-01-02T03:04:05.123456789", datetime(2026, 1, 2, 4, 4, 5, 123456, BERLIN)),
        *("PT0.000001500S", time(1, 2, 3), [1], {"a": date(2026, 1, 1)}, "a", b"x", UUID(int=1)),
    )
    assert second == (None,) * len(columns)
    assert read(frame.drop("object").lazy()) == read(frame.drop("object"))


def arrow_table() -> pa.Table:
    return pa.table(
        {
            "integer": pa.array([2**64 - 1, None], pa.uint64()),
            "decimal": pa.array([Decimal("9" * 50), None], pa.decimal256(60, 2)),
            "text": pa.array(["a", None], pa.large_string()),
            "dictionary": pa.array(["x", None]).dictionary_encode(),
            "moment": pa.array([MOMENT, None], pa.timestamp("ns")),
            "zoned": pa.array([MOMENT - 789, None], pa.timestamp("ns", "Europe/Berlin")),
            "time": pa.array([1001, None], pa.time64("ns")),
            "struct": pa.array([{"a": [1]}, None]),
            "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())),
            "bytes": pa.array([b"x", None]),
            "null": pa.nulls(2),
        }
    )


ARROW_ROW = (
    *(2**64 - 1, Decimal("9" * 50), "a", "x", "2026-01-02T03:04:05.123456789"),
    *(datetime(2026, 1, 2, 4, 4, 5, 123456, BERLIN), "00:00:00.000001001", {"a": [1]}, {"k": 1}, b"x", None),
)


def test_an_arrow_table_or_stream_loses_nothing() -> None:
    table = arrow_table()

    for value in (table, table.to_reader(), table.combine_chunks().to_batches()[0]):
        columns, rows = read(value)
        assert columns == tuple(table.column_names)
        assert rows == [ARROW_ROW, (None,) * len(columns)]


def test_whatever_offers_the_arrow_stream_or_the_interchange_protocol_can_be_read() -> None:
    class Interchange:
        def __dataframe__(self, **options: Any) -> Any:
            return pa.table({"id": [1, 2]}).__dataframe__(**options)

    assert read(duckdb.sql("SELECT 1 AS id, 'x' AS body")) == (("id", "body"), [(1, "x")])
    assert read(Interchange()) == (("id",), [(1,), (2,)])


def test_several_frames_are_read_one_after_another() -> None:
    first, second = pd.DataFrame({"a": [1], "b": [2]}), pl.DataFrame({"b": [4], "a": [3]})

    assert read(iter([first, pd.DataFrame(), second])) == (("a", "b"), [(1, 2), (3, 4)])
    with pytest.raises(InputError, match="data frame 2 has no column 'b', but data frame 1 has"):
        read([first, pd.DataFrame({"a": [1]})])
    with pytest.raises(InputError, match="data frame 2 has the column 'c', but data frame 1 does not"):
        read([first, pd.DataFrame({"a": [1], "b": [2], "c": [3]})])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (pd.DataFrame([[1, 2]]), "The names of columns must be text, but the data frame has the name 0 (int)"),
        (pd.DataFrame([[1, 2]], columns=["a", "A"]), "more than once in the data frame"),
        (pd.Series([1]), "Each row must be a dict"),
        (pl.Series([1]), "Each row must be a dict"),
        (pa.chunked_array([[1]]), "Cannot read the data frame, a ChunkedArray of pyarrow, as an Arrow table"),
        (pa.table({"t": pa.array([2**62], pa.timestamp("s"))}), "Column 't' of the data frame, of the type timestamp"),
        ([{"a": 1}, [{"a": 2}]], "row 2 is of the type list"),
        ([[{"a": 1}], {"a": 2}], "Item 2 is of the type dict, but the first is a list of rows"),
        ([[{"a": 1}], [1, 2]], "row 2 is of the type list: [1, 2]. Add the names of the columns"),
        (["a.csv"], "Text must be the address of files, which is an absolute path such as '/data/tickets.jsonl'"),
        ([pd.DataFrame(), {"a": 2}], "Item 2 is of the type dict, but the first is a data frame"),
        (["/tmp/a.csv", {"a": 2}], "Item 2 is of the type dict, but the first is the address of files"),
    ],
)
def test_what_is_no_row_is_an_error_that_says_where_it_is(value: Any, message: str) -> None:
    with pytest.raises(InputError) as error_info:
        read(value)

    assert message in str(error_info.value)
