"""The argument `rows`: what it may be, and the source of rows that it stands for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from itertools import chain, islice
from types import TracebackType
from typing import Any, Self

from airflow_provider_batch.core.arguments import argument_error, is_runtime_value, require_text
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.plain import as_mapping
from airflow_provider_batch.sources.records import Records
from airflow_provider_batch.sources.source import RowSource, Source

_EXPECTED = (
    "a list of dicts, the output of a task, a data frame, or the address of files, such as 's3://bucket/folder/*.jsonl'"
)


class ResolvedRows:
    """The value of `rows`, once Airflow has resolved it.

    Its text, which Airflow shows as the rendered argument, names the value and contains none of its rows.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        value = self.value
        if is_address(value):
            return str(value)
        if isinstance(value, list | tuple) and value and all(map(is_address, value)):
            return ", ".join(map(str, value))
        kind = type(value).__name__
        return f"{kind} of {format_count(len(value), 'item')}" if isinstance(value, Sized) else kind

    def open(self) -> RowSource:
        """Return the source of the rows. Raises InputError if the value is none of the things that hold rows."""
        return open_rows(self.value)


def is_address(value: Any) -> bool:
    """Return whether a value is the address of files."""
    return isinstance(value, str | os.PathLike)


def has_templates(value: Any) -> bool:
    """Return whether Airflow should render a value of `rows`: the author's addresses, but never the rows themselves."""
    return is_address(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_address, value)))


def check_rows(value: Any) -> None:
    """Check a value of `rows` while the DAG is parsed, as far as it is known.

    :raises InputError: if it cannot hold rows, or could be read only once.
    """
    if is_runtime_value(value) or has_templates(value):
        return
    if isinstance(value, Iterator):
        raise InputError(
            f"rows: A {type(value).__name__} can be read only once, but Airflow parses the DAG many times. Return the "
            "rows from a task, and pass its output, as in rows=load(). Or write them to a file, and pass its address."
        )
    with open_rows(value):
        pass


def open_rows(value: Any) -> RowSource:
    """Return the source of the rows that a value stands for. Nothing is read before the source is entered.

    :param value: dicts or similar objects in a list or any other iterable, such as a generator.
    :raises InputError: if the value is none of these. The source raises it for a row that is not usable.
    """
    if is_address(value):
        require_text("rows", str(value))
    if isinstance(value, Mapping) or as_mapping(value) is not None:
        raise InputError(
            f"rows: Expected a list of dicts, one for each row, but got a single {type(value).__name__}. Put it into a "
            "list. If this task is mapped over rows, each of its jobs gets one row: pass all rows with "
            "partial(rows=…) instead of expand(rows=…). Nothing was uploaded."
        )
    if isinstance(value, bytes | bytearray | memoryview | set | frozenset) or not isinstance(value, Iterable):
        raise argument_error("rows", _EXPECTED, value)
    return Values(value)


class Values(Source):
    """Rows from an iterable of rows, or of lists of rows, such as the outputs of the instances of a mapped task."""

    def __init__(self, values: Iterable[Any]) -> None:
        super().__init__()
        self._values = values
        self._source: RowSource = Source()

    def __enter__(self) -> Self:
        self._source = self._choose_source()
        self._source.__enter__()
        self.columns = self._source.columns
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._source)

    def _choose_source(self) -> RowSource:
        if isinstance(self._values, list | tuple):
            is_nested = bool(self._values) and _is_list(self._values[0])
            return Records(list(_flatten(self._values)) if is_nested else self._values)
        values = iter(self._values)
        first_values = list(islice(values, 1))
        is_nested = bool(first_values) and _is_list(first_values[0])
        all_values = chain(first_values, values)
        return Records(_flatten(all_values) if is_nested else all_values)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and as_mapping(value) is None


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for number, value in enumerate(values, start=1):
        if not _is_list(value):
            raise InputError(
                f"rows: Part {number} is a {type(value).__name__}, but the first is a list of rows. All must be lists. "
                "Nothing was uploaded."
            )
        yield from value
