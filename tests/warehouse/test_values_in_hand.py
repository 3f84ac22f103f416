"""Values of `rows=` land in columns of their own types, and none of them changes on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.schema.columns import Column
from airflow_provider_batch.core.sealing.carry import CarriedColumns, from_json
from airflow_provider_batch.sources.open import open_rows
from tests.warehouse.conftest import Warehouse, postgres_warehouse, sqlite_warehouse
from tests.warehouse.landing import COLUMNS, land, row

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-5)), timezone(timedelta(hours=5, minutes=30))])
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
MOMENTS: dict[str, Any] = {"min_value": datetime(1900, 1, 1), "max_value": datetime(2200, 1, 1)}
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(TEXT, parts, max_size=3),
    max_leaves=5,
)

#: by kind of value: values, how SQLite keeps one, and how to read it
KINDS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], Any]]] = {
    "integer": (st.integers(-(2**63), 2**63 - 1), int),
    "large integer": (st.integers(2**63, 2**90), lambda value: Decimal(str(value))),
    "float": (st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False), float),
    "boolean": (st.booleans(), bool),
    "decimal": (st.decimals(allow_nan=False, allow_infinity=False, places=4), lambda value: Decimal(str(value))),
    "text": (TEXT, str),
    "date": (st.dates(), lambda value: value if isinstance(value, date) else date.fromisoformat(value)),
    "zoned": (st.datetimes(**MOMENTS, timezones=ZONES), lambda value: datetime.fromisoformat(str(value))),
    "local": (st.datetimes(**MOMENTS), lambda value: datetime.fromisoformat(str(value))),
    "time": (st.times(), lambda value: time.fromisoformat(str(value))),
    "span": (
        st.timedeltas(timedelta(days=-9999), timedelta(days=9999)),
        lambda value: value if isinstance(value, timedelta) else msgspec.convert(value, timedelta),
    ),
    "uuid": (st.uuids(), lambda value: UUID(str(value))),
    "bytes": (st.binary(max_size=20), bytes),
    "document": (
        st.lists(DOCUMENTS, max_size=3) | st.dictionaries(TEXT, DOCUMENTS, max_size=3),
        lambda value: json.loads(value) if isinstance(value, str) else value,
    ),
}


@pytest.fixture(params=["sqlite", "psycopg"])
def target(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    if request.param == "sqlite":
        return sqlite_warehouse(tmp_path / "warehouse.db", monkeypatch)
    return postgres_warehouse(request.param, request.getfixturevalue("postgres_database"), monkeypatch)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_goes_in_is_what_lands(target: Warehouse, kind: str, data: st.DataObject) -> None:
    strategy, read = KINDS[kind]
    values = data.draw(st.lists(strategy | st.none(), min_size=1, max_size=5).filter(any_value))
    table = f"t{uuid4().hex}"

    with open_rows([{"id": number, "value": value} for number, value in enumerate(values)]) as source:
        carried = CarriedColumns(["value"], [1])
        sealed = list(map(msgspec.json.encode, carried.take(list(source), 1)))
    (column,) = msgspec.json.decode(msgspec.json.encode(carried.columns()), type=list[Column])
    carried_rows = [
        (*row(str(number)), from_json(msgspec.json.decode(line)[0], column)) for number, line in enumerate(sealed)
    ]
    assert land(target, carried_rows, columns=(*COLUMNS, column), table=table) == ()

    landed = dict(target.execute(f"SELECT custom_id, value FROM {table}"))
    assert [None if landed[str(n)] is None else read(landed[str(n)]) for n in range(len(values))] == values


def any_value(values: list[Any]) -> bool:
    return any(value is not None for value in values)
