"""Rows from NDJSON, CSV and Parquet files, on disks and in object stores."""

from __future__ import annotations

import bz2
import gzip
import lzma
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_batch.exceptions import FileStoreError, InputError
from airflow_provider_batch.sources.open import open_rows
from tests.sources.test_values import ARROW_ROW, arrow_table, read

Write = Callable[[str, bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file and returns its path."""

    def write_file(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return write_file


def test_ndjson_has_the_columns_of_all_its_lines_and_exact_numbers(write: Write) -> None:
    content = b'\xef\xbb\xbf{"id": 1, "x": 0.1}\r\n\n{"id": 123456789012345678901234567890, "y": [NaN, null]}\n'
    expected = (("id", "x", "y"), [(1, 0.1, None), (123456789012345678901234567890, None, None)])

    columns, rows = read(write("a.jsonl", content))
    assert (columns, [row[:2] for row in rows]) == (expected[0], [row[:2] for row in expected[1]])
    assert read(str(write("a.ndjson.gz", gzip.compress(content))))[0] == columns


def test_values_of_a_csv_file_stay_text(write: Write) -> None:
    content = b'\xef\xbb\xbfid,body\r\n007,"a ""quoted""\nline"\r\n1e5,\r\n'

    assert read(write("a.csv", content)) == (("id", "body"), [("007", 'a "quoted"\nline'), ("1e5", "")])
    assert read(write("b.csv", b"id;body\n1;2,5\n")) == (("id", "body"), [("1", "2,5")])
    assert read(write("c.tsv", b"id\tb,c\n1\t2\n")) == (("id", "b,c"), [("1", "2")])
    assert read(write("d.tsv.bz2", bz2.compress(b"id\tb,c\n1\t2\n"))) == (("id", "b,c"), [("1", "2")])
    assert read(write("d.csv.gz", gzip.compress(content)))[1][0][0] == "007"


@pytest.fixture
def _no_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)


def test_parquet_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(arrow_table(), path)

    assert read(path) == (tuple(arrow_table().column_names), [ARROW_ROW, (None,) * len(ARROW_ROW)])


@pytest.mark.usefixtures("_no_pyarrow")
def test_duckdb_reads_parquet_where_pyarrow_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "it's [a].parquet"
    pq.write_table(arrow_table().drop(["decimal", "zoned", "struct", "map"]), path)
    with_arrow = [*ARROW_ROW]
    for position in (8, 7, 5, 1):
        del with_arrow[position]

    _, (first, second) = read(path)
    assert first == tuple(str(v).replace("T", " ") if i == 3 else v for i, v in enumerate(with_arrow))
    assert second == (None,) * len(first)


@pytest.mark.usefixtures("_no_pyarrow")
@pytest.mark.parametrize("column", ["decimal", "zoned"])
def test_duckdb_refuses_a_column_of_which_it_would_lose_something(tmp_path: Path, column: str) -> None:
    pq.write_table(arrow_table().select([column]), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=f"cannot read column '{column}' of .* without a loss. Install pyarrow"):
        read(tmp_path / "a.parquet")


def test_without_pyarrow_and_duckdb_the_error_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("pyarrow.parquet", "duckdb"):
        monkeypatch.setitem(sys.modules, module, None)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")

    with pytest.raises(InputError, match=r"pip install 'airflow-provider-batch\[parquet\]'"):
        read(tmp_path / "a.parquet")


def test_files_of_a_folder_or_pattern_are_read_in_the_order_of_their_names(write: Write, tmp_path: Path) -> None:
    write("in/_SUCCESS", b"")
    write("in/.hidden.csv", b"other\n1\n")
    write("in/b.csv", b"id,body\n2,x\n")
    write("in/a.csv", b"body,id\ny,1\n")
    write("in/day=1/c.csv", b"id,body\n3,z\n")
    top = (("body", "id"), [("y", "1"), ("x", "2")])

    assert read(tmp_path / "in/*.csv") == top
    assert read(f"{(tmp_path / 'in').as_uri()}/*.csv") == top
    assert read(tmp_path / "in") == (top[0], [*top[1], ("z", "3")])
    assert read([tmp_path / "in/b.csv", tmp_path / "in/a.csv"]) == (("id", "body"), [("2", "x"), ("1", "y")])


def test_a_name_with_wildcard_characters_is_a_file_if_it_exists(write: Write) -> None:
    assert read(write("[1]*.csv", b"id\n1\n")) == (("id",), [("1",)])


def test_keys_may_differ_between_ndjson_files(write: Write, tmp_path: Path) -> None:
    write("1.jsonl", b'{"a": 1}\n')
    write("2.jsonl", b'{"b": 2}\n')

    assert read(tmp_path / "*.jsonl") == (("a", "b"), [(1, None), (None, 2)])


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.jsonl", b""), ("a.jsonl", b"\n"), ("a.csv", b""), ("a.csv", b"\n"), ("a.csv", b"id,body\n")],
)
def test_a_file_without_rows_is_a_source_without_rows(write: Write, name: str, content: bytes) -> None:
    assert read(write(name, content))[1] == []


def test_parquet_without_rows_has_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": pa.array([], pa.int64())}), tmp_path / "a.parquet")

    assert read(tmp_path / "a.parquet") == (("id",), [])


@pytest.mark.parametrize("engine", ["pyarrow", "duckdb"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_files_in_an_object_store_are_read_through_their_connection(
    kind: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach

    if engine == "duckdb":
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    filesystem = MemoryFileSystem()
    conn_id = f"c{uuid4().hex[:8]}"
    attach("memory", conn_id=conn_id, fs=filesystem)
    pq.write_table(pa.table({"id": ["1"]}), tmp_path / "a.parquet")
    contents = {"jsonl": b'{"id": "1"}\n', "csv": b"id\n1\n", "parquet": (tmp_path / "a.parquet").read_bytes()}
    filesystem.pipe(f"/bucket/{conn_id}/a.{kind}", contents[kind])

    for address in (f"memory://{conn_id}@bucket/{conn_id}/a.{kind}", f"memory://{conn_id}@bucket/{conn_id}/*"):
        assert read(address) == (("id",), [("1",)])
        assert read(ObjectStoragePath(address)) == (("id",), [("1",)])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"id": 1}\n{"id":\n', "Line 2 of {} is not JSON: Expecting value"),
        ("a.json", b'[{"id": 1}]', "Line 1 of {} is not an object. If the whole file is one JSON document, convert it"),
        ("a.json", b'{\n"id": 1}', "Line 1 of {} is not an object. If the whole file is one JSON document, convert it"),
        ("a.jsonl", b'{"id": "\xff"}', "Line 1 of {} is not UTF-8"),
        ("a.jsonl", b'{"id": 1}\n{}\n', "Line 2 of {} is empty"),
        ("a.jsonl", b'{"id": 1, "ID": 2}\n', "more than once in {} (names are compared without case): id"),
        ("a.csv", b"id,body\n1\n", "Line 2 of {} has 1 values, but the first line names 2 columns"),
        ("a.csv", b'id,body\n1,"open\n', "{} is not valid CSV near line 2"),
        ("a.csv", b"id,ID\n1,2\n", "more than once in {}"),
        ("a.csv", b"id,\n1,2\n", "A column of {} has no name"),
        ("a.csv", "id\nä\n".encode("latin-1"), "{} is not UTF-8"),
        ("a.csv", "id\nä\n".encode("utf-16"), "{} is not UTF-8"),
        ("a.csv", b"\nid,body\n1,a\n", "The first line of {} is empty, but must name the columns"),
        ("a.csv", b",\nid,body\n1,a\n", "The first line of {} is empty, but must name the columns"),
        ("a.csv.zip", b"PK", "{} is a ZIP archive, which may contain several files"),
        ("a.parquet", b"PAR1", "{} cannot be read as Parquet"),
        ("a.txt", b"", "{} is neither NDJSON (.jsonl, .ndjson, .json), CSV (.csv, .tsv) nor Parquet"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_that_names_it(
    write: Write, name: str, content: bytes, message: str
) -> None:
    path = write(name, content)

    with pytest.raises(InputError) as error_info:
        read(path)

    assert message.format(path) in str(error_info.value)
    assert "Nothing was uploaded." in str(error_info.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/nowhere/a.csv", "There is no file /nowhere/a.csv"),
        ("/nowhere/*.csv", "No file matches /nowhere/*.csv"),
        ("/nowhere/", "There is no file in /nowhere/"),
        ("s3://bucket/a.csv", "This Airflow installation cannot open 's3://bucket/a.csv'"),
        ("a.csv", "Text must be the address of files"),
    ],
)
def test_an_address_without_a_file_is_an_error(address: str, message: str) -> None:
    with pytest.raises(InputError) as error_info:
        read(address)

    assert message in str(error_info.value)


def test_files_of_several_formats_or_columns_are_an_error(write: Write, tmp_path: Path) -> None:
    write("a.csv", b"id\n1\n")
    write("b.jsonl", b'{"id": 1}\n')
    with pytest.raises(InputError, match=r"b\.jsonl is NDJSON, but .*a\.csv is CSV"):
        read(tmp_path)
    write("b.csv", b"other\n1\n")
    with pytest.raises(InputError, match=r"b\.csv has no column 'id', but .*a\.csv has"):
        read(tmp_path / "*.csv")


@pytest.mark.parametrize(
    ("ending", "content"),
    [
        ("gz", b'{"id": 1}\n'),
        ("gz", gzip.compress(b'{"id": 1}\n' * 1000)[:40]),
        ("bz2", b'{"id": 1}\n'),
        ("xz", b'{"id": 1}\n'),
        ("xz", lzma.compress(b'{"id": 1}\n' * 1000)[:60]),
    ],
    ids=["gz", "gz, cut off", "bz2", "xz", "xz, cut off"],  # data compressed by gzip contains the time
)
def test_a_file_that_is_damaged_can_be_read_again_by_a_retry(write: Write, ending: str, content: bytes) -> None:
    with pytest.raises(FileStoreError, match=rf"Cannot read .*a\.jsonl\.{ending}"):
        read(write(f"a.jsonl.{ending}", content))


@pytest.mark.parametrize("error", [ConnectionError("reset by peer"), PermissionError("forbidden"), Exception("odd")])
@pytest.mark.parametrize("name", ["a.csv", "*.csv", ""])
def test_an_error_of_the_store_can_be_retried(name: str, error: Exception) -> None:
    from airflow.sdk.io import attach

    class Unavailable(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            raise error

    conn_id = f"c{uuid4().hex[:8]}"
    attach("memory", conn_id=conn_id, fs=Unavailable())
    address = f"memory://{conn_id}@bucket/{name}"

    with pytest.raises(FileStoreError, match=f"{type(error).__name__}: {error}"), open_rows(address):
        pass


def test_a_source_that_is_left_early_closes_its_file(write: Write) -> None:
    path = write("a.csv", b"id\n" + b"1\n" * 100_000)
    for kind in (path, write("a.jsonl", b'{"id": 1}\n' * 100_000)):
        with open_rows(kind) as source:
            rows: Any = iter(source)
            next(rows)
            rows.close()


def test_a_connection_that_does_not_exist_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.exceptions import AirflowNotFoundException

    def open_store(path: ObjectStoragePath) -> object:
        # the filesystems that look up a connection come from providers that are not installed here
        raise AirflowNotFoundException("The conn_id `absent` isn't defined")

    monkeypatch.setattr(ObjectStoragePath, "fs", property(open_store))

    with pytest.raises(InputError, match=r"rows: Cannot open 'memory://absent@bucket/a\.csv': The conn_id `absent`"):
        read("memory://absent@bucket/a.csv")
