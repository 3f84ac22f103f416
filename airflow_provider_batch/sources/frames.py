"""Rows from data frames and Arrow tables, a few thousand at a time.

pandas and polars are read by their own means, because not every one of their columns has a type in Arrow. Everything
else that offers the Arrow C stream (DuckDB relations, Ibis, Arrow's tables and readers) or the data frame interchange
protocol is read with pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.arrow import CHUNK_ROWS, rows_of_batches
from airflow_provider_batch.sources.nanoseconds import (
    duration_from_nanoseconds,
    time_from_nanoseconds,
    timestamp_from_nanoseconds,
)
from airflow_provider_batch.sources.plain import missing_if_nan, plain_value
from airflow_provider_batch.sources.source import Source, check_columns

_FRAMES = ("DataFrame", "LazyFrame")


def is_frame(value: Any) -> bool:
    """Return whether a value is a data frame, or an Arrow table or stream."""
    kind = type(value)
    if _library(value) in ("pandas", "polars"):
        return kind.__name__ in _FRAMES
    return hasattr(kind, "__arrow_c_stream__") or hasattr(kind, "__dataframe__")


def open_frame(frame: Any, place: str = "the data frame") -> Source:
    """Return the source of the rows of a data frame.

    :param place: names the frame in errors.
    """
    match _library(frame):
        case "pandas":
            return PandasRows(frame, place)
        case "polars":
            return PolarsRows(frame, place)
    return ArrowRows(frame, place)


def _library(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


class _FrameRows(Source):
    def __init__(self, frame: Any, place: str) -> None:
        super().__init__()
        self._frame, self._place = frame, place


class PandasRows(_FrameRows):
    """Rows of a `pandas.DataFrame`. A named index is a column, and a missing value (NaN, NaT, NA) is None."""

    def __enter__(self) -> PandasRows:
        first_rows = self._with_index(self._frame.iloc[:0])
        self.columns = check_columns(list(first_rows.columns), self._place)
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        for start in range(0, len(self._frame), CHUNK_ROWS):
            chunk = self._with_index(self._frame.iloc[start : start + CHUNK_ROWS])
            columns = [
                [missing_if_nan(plain_value(value)) for value in chunk.iloc[:, position].array.astype(object)]
                for position in range(len(self.columns))
            ]
            yield from zip(*columns, strict=True)

    def _with_index(self, frame: Any) -> Any:
        names = frame.index.names
        is_column = all(name is not None and name not in frame.columns for name in names)
        return frame.reset_index() if is_column else frame


class PolarsRows(_FrameRows):
    """Rows of a `polars.DataFrame`, or of a `LazyFrame`, which is computed in batches."""

    def __enter__(self) -> PolarsRows:
        names = self._frame.collect_schema().names()
        self.columns = check_columns(names, self._place)
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        frame = self._frame
        is_lazy = type(frame).__name__ == "LazyFrame"
        for frame_part in frame.collect_batches(chunk_size=CHUNK_ROWS) if is_lazy else [frame]:
            for chunk in frame_part.iter_slices(CHUNK_ROWS):
                yield from zip(*map(_polars_values, chunk.iter_columns()), strict=True)


def _polars_values(series: Any) -> list[Any]:
    import polars as pl

    type_ = series.dtype
    if type_ == pl.Time:
        return [None if value is None else time_from_nanoseconds(value) for value in series.cast(pl.Int64).to_list()]
    if isinstance(type_, pl.Duration) and type_.time_unit == "ns":
        return [
            None if value is None else duration_from_nanoseconds(value) for value in series.cast(pl.Int64).to_list()
        ]
    if isinstance(type_, pl.Datetime) and type_.time_unit == "ns":
        from zoneinfo import ZoneInfo

        zone = ZoneInfo(type_.time_zone) if type_.time_zone else None
        return [
            None if value is None else timestamp_from_nanoseconds(value, zone)
            for value in series.cast(pl.Int64).to_list()
        ]
    return [plain_value(value) for value in series.to_list()]


class ArrowRows(_FrameRows):
    """Rows of an Arrow table, record batch or reader, or of anything else that offers one. Needs pyarrow."""

    def __enter__(self) -> ArrowRows:
        try:
            import pyarrow as pa
        except ImportError:
            raise InputError(
                f"rows: A {type(self._frame).__name__} of {_library(self._frame)} is read with pyarrow, which is not "
                "installed here: pip install 'airflow-provider-batch[parquet]'. Nothing was uploaded."
            ) from None
        try:
            if hasattr(type(self._frame), "__arrow_c_stream__"):
                self._reader = pa.RecordBatchReader.from_stream(self._frame)
            else:
                from pyarrow.interchange import from_dataframe

                self._reader = from_dataframe(self._frame).to_reader()
        except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as error:
            raise InputError(
                f"rows: Cannot read {self._place}, a {type(self._frame).__name__} of {_library(self._frame)}, as an "
                f"Arrow table: {error}. Nothing was uploaded."
            ) from error
        self.columns = check_columns(self._reader.schema.names, self._place)
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return rows_of_batches(self._reader, self._place)
