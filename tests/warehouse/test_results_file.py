"""Files for results: every value comes back from each format, and a file is replaced as a whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import textwrap
import time as clock
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import duckdb
import msgspec
import pandas
import polars
import pyarrow.parquet
import pytest
from airflow.sdk import ObjectStoragePath
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_batch.core.landing.storage_limits import StoredValue, storage_problems
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import InputError, ResultsTableError, WarehouseError
from airflow_provider_batch.warehouse import parquet
from airflow_provider_batch.warehouse.results_file import ResultsFile, parse_results_file

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
COLUMNS = (
    Column("custom_id", ColumnType.TEXT, key=True),
    Column("outcome", ColumnType.TEXT),
    Column("sealed_at", ColumnType.TIMESTAMP),
    *(Column(f'a {type_} "column"', type_) for type_ in ColumnType),
)

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: value is not None)

VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    ColumnType.TEXT: st.text(),
    ColumnType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    ColumnType.FLOAT: st.floats(),
    ColumnType.NUMERIC: st.decimals(-(10**20) + 1, 10**20 - 1, places=18),
    ColumnType.BOOLEAN: st.booleans(),
    ColumnType.DATE: st.dates(),
    ColumnType.TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    ColumnType.LOCAL_TIMESTAMP: st.datetimes(),
    ColumnType.TIME: st.times(),
    ColumnType.INTERVAL: st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    ColumnType.UUID: st.uuids(),
    ColumnType.JSON: _JSON,
    ColumnType.BYTES: st.binary(),
    ColumnType.VECTOR: st.lists(st.floats(allow_nan=False, allow_infinity=False)),
}
ROWS = st.lists(st.tuples(*(st.none() | VALUES[type_] for type_ in ColumnType)), max_size=4)
#: reads the value of a text from a Parquet file
TEXT_READERS = {
    ColumnType.TIME: time.fromisoformat,
    ColumnType.INTERVAL: lambda text: msgspec.convert(text, timedelta),
    ColumnType.UUID: UUID,
    ColumnType.JSON: json.loads,
}
#: reads the value of a column from a line of JSON
JSON_READERS = TEXT_READERS | {
    ColumnType.DATE: date.fromisoformat,
    ColumnType.TIMESTAMP: datetime.fromisoformat,
    ColumnType.LOCAL_TIMESTAMP: datetime.fromisoformat,
    ColumnType.FLOAT: float,
    ColumnType.NUMERIC: lambda number: Decimal(str(number)),
    ColumnType.JSON: lambda value: value,
    ColumnType.BYTES: lambda text: msgspec.convert(text, bytes),
    ColumnType.VECTOR: lambda numbers: [float(number) for number in numbers],
}


def select(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


def landing_of(values: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return [(f"T-{number}", "succeeded", START, *row) for number, row in enumerate(values)]


def write(path: Path, rows: list[tuple[Any, ...]], columns: tuple[Column, ...] = COLUMNS) -> None:
    file = ResultsFile(str(path), columns)
    file.prepare()
    assert file.write(iter(rows)) == len(rows)


def is_same(value: Any, expected: Any) -> bool:
    if isinstance(expected, float) and isnan(expected):
        return value is None or isnan(value)
    return type(value) is type(expected) and value == expected


def check_values(lines: list[dict[str, Any]], values: list[tuple[Any, ...]], readers: dict[ColumnType, Any]) -> None:
    assert [line["custom_id"] for line in lines] == [f"T-{number}" for number in range(len(values))]
    for line, row in zip(lines, values, strict=True):
        for column, expected in zip(COLUMNS[3:], row, strict=True):
            value = line[column.name]
            if value is not None:
                value = readers.get(column.type, lambda same: same)(value)
            assert is_same(value, expected), column.type


@pytest.fixture(params=["pyarrow", "duckdb"])
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The package that writes Parquet. Without pyarrow, DuckDB does."""
    package: str = request.param
    if package == "duckdb":
        monkeypatch.setattr(parquet, "find_spec", lambda name: None if name == "pyarrow" else name)
    return package


@settings(max_examples=40, deadline=None)
@given(values=ROWS)
@pytest.mark.parametrize("without", ["duckdb", "pyarrow"])
def test_a_parquet_file_keeps_every_value(without: str, values: list[tuple[Any, ...]]) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "find_spec", lambda name: None if name == without else name)
        write(Path(folder) / "rows.parquet", landing_of(values))
        table = pyarrow.parquet.read_table(f"{folder}/rows.parquet")
    lines = table.to_pylist()
    for line in lines:
        moment = line['a timestamp "column"']
        line['a timestamp "column"'] = None if moment is None else moment.astimezone(UTC)
    check_values(lines, values, TEXT_READERS)


@settings(max_examples=40, deadline=None)
@given(values=ROWS)
@pytest.mark.parametrize("ending", [".jsonl", ".ndjson.gz"])
def test_a_file_of_json_lines_keeps_every_value_except_nan_and_infinity(
    ending: str, values: list[tuple[Any, ...]]
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"rows{ending}"
        write(path, landing_of(values))
        data = path.read_bytes()
    text = (gzip.decompress(data) if ending.endswith(".gz") else data).decode()
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    exact_lines = [json.loads(line, parse_float=str) for line in text.split("\n")[:-1]]
    for line, exact_line in zip(lines, exact_lines, strict=True):
        line['a numeric "column"'] = exact_line['a numeric "column"']
    finite = [tuple(None if isinstance(v, float) and v - v != 0 else v for v in row) for row in values]
    check_values(lines, finite, JSON_READERS)


TYPED_ROW = (
    'ü\0"\n\ud83d\ude00',
    -(2**63),
    float("-inf"),
    Decimal("12345678901234567890.000000000000000001"),
    True,
    date(1, 1, 1),
    datetime(2026, 11, 20, 12, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30),
    time(23, 59, 59, 7),
    timedelta(days=1, hours=1),
    UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
    {"a": [1, None]},
    b"\0\xff",
    [0.5, 1e300],
)


def test_every_reader_sees_the_same_types(writer: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, landing_of([TYPED_ROW, (None,) * len(TYPED_ROW)]))

    types = {field.name.split('"')[0].strip()[2:]: str(field.type) for field in pyarrow.parquet.read_schema(path)}
    assert {name: types[name] for name in list(ColumnType)} == {
        **dict.fromkeys(("text", "time", "interval", "uuid", "json"), "string"),
        "integer": "int64",
        "float": "double",
        "numeric": "decimal128(38, 18)",
        "boolean": "bool",
        "date": "date32[day]",
        "timestamp": "timestamp[us, tz=UTC]",
        "local_timestamp": "timestamp[us]",
        "bytes": "binary",
        "vector": types["vector"],
    }
    assert "double" in types["vector"]
    (row, nulls) = select(f"SELECT * FROM '{path}'")
    assert row[3:6] == ('ü\0"\n😀', -(2**63), float("-inf"))
    assert row[6] == TYPED_ROW[3]
    assert (row[-2:], nulls[3:]) == ((b"\0\xff", [0.5, 1e300]), (None,) * 14)
    assert pandas.read_parquet(path)['a numeric "column"'][0] == TYPED_ROW[3]
    frame = polars.read_parquet(path)
    assert frame['a numeric "column"'][0] == TYPED_ROW[3]
    assert frame['a vector "column"'].to_list() == [[0.5, 1e300], None]
    assert frame['a timestamp "column"'].dtype == polars.Datetime("us", "UTC")


def test_the_last_row_of_a_key_is_in_the_file_once_and_rows_are_sorted(writer: str, tmp_path: Path) -> None:
    columns = COLUMNS[:3]
    rows = [("b", "failed", START), ("a", "pending", START), ("b", "succeeded", START)]
    for name in ("rows.parquet", "rows.jsonl"):
        write(tmp_path / name, rows, columns)
    expected = [("a", "pending"), ("b", "succeeded")]
    for name in ("rows.parquet", "rows.jsonl"):
        assert select(f"SELECT custom_id, outcome FROM '{tmp_path / name}'") == expected


def test_a_landing_without_rows_makes_an_empty_file_with_all_columns(writer: str, tmp_path: Path) -> None:
    write(tmp_path / "rows.parquet", [])
    table = pyarrow.parquet.read_table(tmp_path / "rows.parquet")
    assert (table.num_rows, table.column_names) == (0, [column.name for column in COLUMNS])


def test_a_large_row_and_many_row_groups_fit(writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "_GROUP_BYTES", 100_000)
    columns = (*COLUMNS[:3], Column("output", ColumnType.TEXT))
    rows = [(f"T-{n:05}", "succeeded", START, "x" * (40_000_000 if n == 7 else 20)) for n in range(12_000)]
    write(tmp_path / "rows.parquet", rows, columns)
    file = pyarrow.parquet.ParquetFile(tmp_path / "rows.parquet")
    assert file.metadata.num_rows == 12_000
    assert file.read(["custom_id"])["custom_id"].to_pylist() == [row[0] for row in rows]


def test_a_decimal_of_the_source_keeps_its_precision_and_scale(writer: str, tmp_path: Path) -> None:
    columns = (
        *COLUMNS[:3],
        Column("price", ColumnType.NUMERIC, native_type="DECIMAL(10,2)", database="DuckDB"),
        Column("id", ColumnType.NUMERIC, native_type="numeric(38)", database="PostgreSQL"),
        Column("wide", ColumnType.NUMERIC, native_type="DECIMAL(65,30)", database="MySQL"),
    )
    write(tmp_path / "rows.parquet", [("a", "succeeded", START, Decimal("9.5"), Decimal(10**37), Decimal(1))], columns)
    schema = pyarrow.parquet.read_schema(tmp_path / "rows.parquet")
    assert [str(schema.field(name).type) for name in ("price", "id", "wide")] == [
        "decimal128(10, 2)",
        "decimal128(38, 0)",
        "decimal128(38, 18)",
    ]


@pytest.mark.parametrize("value", [Decimal("1e20"), Decimal("1e-19"), Decimal("NaN"), Decimal("Infinity")])
def test_a_number_without_room_in_a_parquet_file_is_known_beforehand(value: Decimal, tmp_path: Path) -> None:
    name = 'a numeric "column"'
    stored = [StoredValue(name, ColumnType.NUMERIC, value)]
    limits = ResultsFile(str(tmp_path / "rows.parquet"), COLUMNS).limits
    assert "does not fit into 20 digits before and 18 digits after" in storage_problems(stored, limits)[name]
    assert storage_problems(stored, ResultsFile(str(tmp_path / "rows.jsonl"), COLUMNS).limits) == {}


@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl"])
def test_a_landing_that_fails_leaves_the_earlier_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path, [("a", "succeeded", START)], COLUMNS[:3])
    content = path.read_bytes()
    for bad_row in [(None, "succeeded", START), ("a", "succeeded", "today"), ("a", 5, START), ("a",)]:
        with pytest.raises(ResultsTableError, match="Row 2 of this landing"):
            ResultsFile(str(path), COLUMNS[:3]).write([("b", "succeeded", START), bad_row])

    def broken_rows() -> Iterator[tuple[Any, ...]]:
        yield ("b", "succeeded", START)
        raise ConnectionError("staging is away")

    with pytest.raises(ConnectionError, match="staging is away"):
        ResultsFile(str(path), COLUMNS[:3]).write(broken_rows())
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == [name]


def test_a_disk_that_refuses_the_file_is_an_error_that_may_be_retried(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(
        WarehouseError, match=r"Cannot write the results file .*A file that was there before is unchang"
    ):
        ResultsFile(str(tmp_path / "taken/rows.jsonl"), COLUMNS[:3]).write([("a", "succeeded", START)])


KILLED = """
    import sys, time
    from datetime import UTC, datetime
    from airflow_provider_batch.core.schema.columns import Column, ColumnType
    from airflow_provider_batch.warehouse.results_file import ResultsFile

    def rows():
        for number in range(20_000):
            yield (f"T-{number}", "succeeded", datetime.now(UTC))
        if sys.argv[2] == "while rows arrive":
            print("ready", flush=True)
            time.sleep(60)

    columns = [
        Column("custom_id", ColumnType.TEXT, key=True),
        Column("outcome", ColumnType.TEXT),
        Column("sealed_at", ColumnType.TIMESTAMP),
    ]
    file = ResultsFile(sys.argv[1], columns)
    if sys.argv[2] == "while it is copied":
        import os
        os.fsync = lambda descriptor: (print("ready", flush=True), time.sleep(60))
    file.write(rows())
"""


@pytest.mark.parametrize("moment", ["while rows arrive", "while it is copied"])
def test_a_worker_that_is_killed_leaves_no_half_file(moment: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write(path, [("a", "succeeded", START)], COLUMNS[:3])
    content = path.read_bytes()
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path), moment]
    # the killed worker leaves its draft in the temporary folder
    (tmp_path / "worker").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "worker")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        finally:
            process.kill()
    assert path.read_bytes() == content
    assert list(tmp_path.glob("*.parquet")) == [path]


def test_a_file_in_an_object_store_is_replaced(tmp_path: Path) -> None:
    attach("memory", fs=MemoryFileSystem())
    address = f"memory://results/{clock.time_ns()}/rows.parquet"
    for custom_id in ("a", "b"):
        file = ResultsFile(address, COLUMNS[:3])
        file.prepare()
        file.write([(custom_id, "succeeded", START)])
    path = ObjectStoragePath(address)
    (tmp_path / "copy.parquet").write_bytes(path.read_bytes())
    assert select(f"SELECT custom_id FROM '{tmp_path / 'copy.parquet'}'") == [("b",)]
    assert [entry.name for entry in path.parent.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize(
    "address",
    [
        "answers.parquet",
        "/data/answers.csv",
        "s3://bucket/answers",
        "s3://bucket/{{ ds }}.xlsx",
        "s3://bucket/answers.parquet/",
        "https://example.org/answers.jsonl",
        "/data/answers.parquet.gz",
        5,
        ["/data/answers.parquet"],
    ],
)
def test_an_address_that_cannot_be_right_is_refused(address: Any) -> None:
    with pytest.raises(InputError, match=r"results_file: Expected (the address of a file|an absolute path|text)"):
        parse_results_file("results_file", address)


@pytest.mark.parametrize(
    "address",
    [
        "/data/answers.parquet",
        "file:///data/answers.jsonl.gz",
        "s3://aws_default@bucket/{{ ds }}.NDJSON",
        "{{ params.file }}",
        "/data/{{ params.name }}parquet",
        Path("/data/answers.jsonl"),
    ],
)
def test_an_address_that_may_be_right_is_accepted(address: Any) -> None:
    assert parse_results_file("results_file", address) == str(address)


def test_a_folder_or_package_that_is_missing_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match=r"folder.jsonl: it is a folder"):
        ResultsFile(str(tmp_path / "folder.jsonl"), COLUMNS).prepare()
    with pytest.raises(InputError, match=r"has no filesystem for it.*Install the provider"):
        ResultsFile("s3://bucket/answers.jsonl", COLUMNS).prepare()
    monkeypatch.setattr(parquet, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"neither is installed. Run pip install 'airflow-provider-batch\[parquet\]'"):
        ResultsFile(str(tmp_path / "rows.parquet"), COLUMNS).prepare()
