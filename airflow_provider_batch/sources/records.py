"""Rows from dicts and similar objects: a list of them, or an iterator, of which only a few are held in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Self

from airflow_provider_batch.core.arguments import shorten
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.plain import as_mapping, missing_if_nan, plain_value
from airflow_provider_batch.sources.source import Source, check_columns

#: number of rows of an iterator that are read before its columns are decided
LOOK_AHEAD_ROWS = 1000


class Records(Source):
    """Rows from dicts, dataclasses, named tuples, or models of pydantic or msgspec.

    The columns are the keys of all rows of a list, and those of the first `LOOK_AHEAD_ROWS` rows of anything else. A
    row without a key has None there.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        """Store the argument.

        :param records: iterated over once, or twice if it is a list or a tuple.
        """
        super().__init__()
        self._records = records

    def __enter__(self) -> Self:
        if isinstance(self._records, list | tuple):
            first_records: Sequence[Any] = self._records
        else:
            remaining_records = iter(self._records)
            first_records = list(islice(remaining_records, LOOK_AHEAD_ROWS))
            self._records = chain(first_records, remaining_records)
        self.columns = check_columns(_keys_of(first_records), "rows")
        return self

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        columns = self.columns
        for number, value in enumerate(self._records, start=1):
            record = as_record(value, number)
            if tuple(record) == columns:
                yield tuple(map(_cell, record.values()))
                continue
            row = tuple(_cell(record.get(name)) for name in columns)
            if len(record) > sum(name in record for name in columns):
                extra_name = next(name for name in record if name not in columns)
                raise InputError(
                    f"rows: Row {number} has the key {extra_name!r}, which none of the first {LOOK_AHEAD_ROWS:,} rows "
                    "has. The columns are decided by these. Give every row the same keys, with None where there is no "
                    "value. Nothing was uploaded."
                )
            yield row


def as_record(value: Any, number: int) -> Mapping[Any, Any]:
    """Return a row as a mapping. Raises InputError if it is not a dict or similar object.

    :param number: number of the row, from 1.
    """
    record = as_mapping(value)
    if record is None:
        advice = " Add the names of the columns, as in dict(zip(['id', 'body'], row))."
        raise InputError(
            f"rows: Each row must be a dict of column names and values, but row {number} is of the type "
            f"{type(value).__name__}: {shorten(value)}.{advice if isinstance(value, list | tuple) else ''} Nothing was "
            "uploaded."
        )
    if not record:
        raise InputError(f"rows: Row {number} is empty: it has no columns. Nothing was uploaded.")
    return record


def _cell(value: Any) -> Any:
    return missing_if_nan(plain_value(value))


def _keys_of(records: Sequence[Any]) -> list[Any]:
    """Return the keys of all rows, each once, in the order in which they appear."""
    keys: dict[Any, None] = {}
    for number, value in enumerate(records, start=1):
        record = as_record(value, number)
        if not record.keys() <= keys.keys():
            keys.update(dict.fromkeys(record))
    return list(keys)
