"""The argument `rows`: what it may be, and the source of rows that it stands for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sized
from datetime import date, time
from decimal import Decimal
from functools import partial
from itertools import chain, count, islice
from numbers import Integral
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from airflow.providers.common.compat.sdk import ObjectStoragePath

from airflow_provider_batch.core.arguments import argument_error, is_final, is_runtime_value, require_text
from airflow_provider_batch.core.formatting import format_count
from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.sources.files import Files, check_address
from airflow_provider_batch.sources.frames import is_frame, open_frame
from airflow_provider_batch.sources.parts import Part, Parts
from airflow_provider_batch.sources.plain import as_mapping
from airflow_provider_batch.sources.records import Records, as_record
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

    @property
    def addresses(self) -> list[str]:
        """The addresses of files that the value consists of. Empty if it is anything else."""
        value = self.value
        return [str(address) for address in ([value] if is_address(value) else value)] if has_templates(value) else []

    def __str__(self) -> str:
        value = self.value
        if self.addresses:
            return ", ".join(self.addresses)
        kind = type(value).__name__
        return f"{kind} of {format_count(len(value), 'item')}" if isinstance(value, Sized) else kind

    def open(self) -> RowSource:
        """Return the source of the rows. Raises InputError if the value is none of the things that hold rows."""
        return open_rows(self.value)


def is_address(value: Any) -> bool:
    """Return whether a value is the address of files."""
    return isinstance(value, str | os.PathLike | ObjectStoragePath)


def has_templates(value: Any) -> bool:
    """Return whether Airflow should render a value of `rows`: the author's addresses, but never the rows themselves."""
    return is_address(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_address, value)))


def check_rows(value: Any) -> None:
    """Check a value of `rows` while the DAG is parsed, as far as it is known.

    :raises InputError: if it cannot hold rows, or could be read only once.
    """
    if is_runtime_value(value):
        return
    if has_templates(value):
        for address in [value] if is_address(value) else value:
            if is_final(address):
                open_rows(address)
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

    :param value: dicts or similar objects in a list or any other iterable, such as a generator; a data frame or Arrow
        table; the address of files; or an iterable of lists, frames or addresses.
    :raises InputError: if the value is none of these. The source raises it for a row that is not usable.
    """
    if is_address(value):
        check_address(require_text("rows", str(value)))
        return Files([value])
    if is_frame(value):
        return open_frame(value)
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
    """Rows from an iterable of rows, or of lists, frames or addresses, as the instances of a mapped task return."""

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
        is_list = isinstance(self._values, list | tuple)
        remaining_values = iter(self._values)
        first_values = list(islice(remaining_values, 1))
        values = self._values if is_list else chain(first_values, remaining_values)
        if not first_values:
            return Source()
        if is_address(first_values[0]):
            return Files(list(_require_addresses(values)))
        if is_frame(first_values[0]):
            return Parts(map(_frame_part, values, count(1)))
        if _is_list(first_values[0]):
            values = list(_flatten(values)) if is_list else _flatten(values)
        return Records(values)


def _require_addresses(values: Iterable[Any]) -> Iterator[Any]:
    for number, value in enumerate(values, start=1):
        if not is_address(value):
            raise _mixed_error(number, value, "the address of files")
        check_address(require_text("rows", str(value)))
        yield value


def _frame_part(frame: Any, number: int) -> Part:
    if not is_frame(frame):
        raise _mixed_error(number, frame, "a data frame")
    name = f"data frame {number}"
    return name, partial(open_frame, frame, name)


def _mixed_error(number: int, value: Any, first: str) -> InputError:
    return InputError(
        f"rows: Item {number} is of the type {type(value).__name__}, but the first is {first}. All must be of the same "
        "kind. Nothing was uploaded."
    )


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and as_mapping(value) is None


def _flatten(values: Iterable[Any]) -> Iterator[Any]:
    for number, value in enumerate(values, start=1):
        if not _is_list(value):
            raise _mixed_error(number, value, "a list of rows")
        if value and _is_value(value[0]):
            as_record(value, number)  # raises: this is a row without the names of its columns
        yield from value


def _is_value(item: Any) -> bool:
    """Return whether an item of a list is a value of a column rather than a row."""
    return item is None or isinstance(item, str | bytes | float | Integral | Decimal | date | time | UUID)
