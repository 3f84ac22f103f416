"""What the columns of an existing table can store, by our column names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from airflow_provider_batch.core.landing.storage_limits import ColumnLimits
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.warehouse.fit import limits_of
from airflow_provider_batch.warehouse.table import TableColumn


def limits_of_columns(
    columns: Iterable[Column], matches: Mapping[str, TableColumn], *, text_bytes: int | None = None
) -> dict[str, ColumnLimits]:
    """Return the limits of the columns of a table that have any.

    :param matches: the table's column for each of ours.
    :param text_bytes: bytes of every text column, or None.
    """
    limits = {}
    for column in columns:
        column_limits = limits_of(column, matches[column.name].stored) if column.name in matches else ColumnLimits()
        if text_bytes is not None and column.type is ColumnType.TEXT:
            column_limits = msgspec.structs.replace(column_limits, bytes=text_bytes)
        if column_limits != ColumnLimits():
            limits[column.name] = column_limits
    return limits
