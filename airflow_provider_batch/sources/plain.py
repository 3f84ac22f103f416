"""Values of NumPy, pandas, Pendulum and others as plain Python values that lose nothing."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from airflow_provider_batch.sources.nanoseconds import duration_from_nanoseconds, timestamp_from_nanoseconds
from airflow_provider_batch.warehouse.values import timestamp_or_text

#: types of NumPy with nanoseconds
_NANOSECONDS: Mapping[str, Callable[[int], Any]] = {
    "datetime64[ns]": lambda value: timestamp_from_nanoseconds(value, None),
    "timedelta64[ns]": duration_from_nanoseconds,
}
#: types whose values stay as they are
_PLAIN = frozenset({str, int, float, bool, type(None), Decimal, datetime, date, time, timedelta, UUID, bytes})


def plain_value(value: Any) -> Any:
    """Return a value as a plain Python value.

    Missing values of pandas are None. Timestamps with nanoseconds, which Python does not have, are text. A value of an
    unknown type is returned unchanged.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {key: plain_value(member) for key, member in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return [plain_value(member) for member in value]
    if isinstance(value, Enum):
        return plain_value(value.value)
    if kind.__name__ in ("NaTType", "NAType"):
        return None
    if kind.__module__.partition(".")[0] == "numpy":
        return _from_numpy(value)
    return _from_subclass(value)


def missing_if_nan(value: Any) -> Any:
    """Return None for NaN, which is how pandas writes a missing value, also into dicts and JSON."""
    return None if type(value) is float and math.isnan(value) else value


def _from_numpy(value: Any) -> Any:
    name = type(value).__name__
    if name == "ndarray":
        return [plain_value(member) for member in (value if value.ndim else [value[()]])]
    if str(value) == "NaT":
        return None
    if value.dtype.name in _NANOSECONDS:
        return _NANOSECONDS[value.dtype.name](value.astype("int64").item())
    if name in ("datetime64", "timedelta64"):
        moment = value.item()  # a number if Python has no such date or unit
        return str(value) if isinstance(moment, int) else moment
    item = value.item()
    return item if type(item) in _PLAIN else float(item) if name.startswith("longdouble") else value


def _from_subclass(value: Any) -> Any:
    """Return the value of a subclass of a plain type, or of an object with fields. Others are returned unchanged."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, datetime):
        # a pandas.Timestamp may have nanoseconds, and a pendulum.DateTime has a time zone of its own
        return timestamp_or_text(value.isoformat())
    if isinstance(value, timedelta):
        nanoseconds = getattr(value, "nanoseconds", 0)
        if nanoseconds:  # a pandas.Timedelta
            return str(value.isoformat())  # type: ignore[attr-defined]
        return timedelta(days=value.days, seconds=value.seconds, microseconds=value.microseconds)
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, os.PathLike):
        return str(value)
    record = as_mapping(value)
    return value if record is None else {key: plain_value(member) for key, member in record.items()}


def as_mapping(value: Any) -> Mapping[Any, Any] | None:
    """Return the fields of a dict, dataclass, named tuple, or model of pydantic or msgspec; None for anything else."""
    if isinstance(value, Mapping):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    for method in ("_asdict", "model_dump"):  # named tuples; models of pydantic
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            record: Mapping[Any, Any] = convert()
            return record
    return None
