"""The code blocks of docs/warehouses.md run, and its tables and numbers agree with the code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.operators.batch import BatchSubmitOperator
from airflow_provider_batch.staging.local import LocalFolder
from airflow_provider_batch.warehouse import read, rows
from airflow_provider_batch.warehouse.dialects import generic
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.registry import DIALECTS
from airflow_provider_batch.warehouse.dialects.sqlite import SQLITE
from airflow_provider_batch.warehouse.drivers import duckdb as duckdb_driver
from airflow_provider_batch.warehouse.landed_file import write_landed_file
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, START, row

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "warehouses.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_code_block_of_the_page_is_tested() -> None:
    assert {word: len(blocks(word)) for word in re.findall(r"^```(\w+)$", PAGE, flags=re.MULTILINE)} == {
        "console": 2,
        "python": 2,
        "sql": 1,
        "json": 1,
    }


def test_the_dag_of_the_page_parses() -> None:
    namespace: dict[str, Any] = {}
    exec(blocks("python")[0], namespace)
    dag = namespace["dag"]
    assert isinstance(dag, DAG)
    tasks = dag.topological_sort()  # type: ignore[no-untyped-call]  # Airflow has no types here
    assert [task.task_id for task in tasks] == ["submit", "wait", "land", "load"]
    submit, load = dag.get_task("submit"), dag.get_task("load")
    assert isinstance(submit, BatchSubmitOperator)
    assert isinstance(load, SQLExecuteQueryOperator)
    # COPY INTO takes the part of the file's address after the staging folder.
    assert ".partition('/staging/')[2]" in load.sql
    assert (submit.staging or "").endswith("/staging")


def test_the_sink_of_the_page_lands_rows(sqlite: Warehouse) -> None:
    namespace: dict[str, Any] = {}
    exec(blocks("python")[1], namespace)
    sqlite.execute(f"CREATE TABLE results ({', '.join(column.name for column in COLUMNS)})")
    for _ in range(2):
        sink = open_sink(sqlite.hook, "results", COLUMNS, factory=namespace["AppendSink"])
        sink.prepare()
        assert sink.write([row("a"), row("b")]) == 2
    assert sqlite.execute("SELECT custom_id FROM results") == [("a",), ("b",), ("a",), ("b",)]


def landed_file(folder: LocalFolder, columns: tuple[Column, ...], landing: list[tuple[Any, ...]]) -> Path:
    received_rows: list[tuple[Any, ...]] = []

    def land(rows: Iterator[tuple[Any, ...]]) -> None:
        received_rows.extend(rows)

    address = write_landed_file(folder, "landed/x.jsonl", columns, landing, land)
    assert received_rows == landing
    assert address == f"{folder.uri}/landed/x.jsonl"
    return folder.path / "landed/x.jsonl"


def test_the_statement_of_the_page_merges_a_landed_file(duckdb: Warehouse, tmp_path: Path) -> None:
    duckdb.execute("CREATE TABLE labels (custom_id TEXT PRIMARY KEY, outcome TEXT, output TEXT, sealed_at TIMESTAMPTZ)")
    duckdb.execute(f"INSERT INTO labels VALUES ('a', 'refused', 'old', '{START}'), ('c', 'pending', NULL, '{START}')")
    earlier, later = START - timedelta(days=1), START + timedelta(days=1)
    columns = tuple(column for column in COLUMNS if column.name != "job_uid")
    landing = [
        ("a", "failed", None, later),
        ("b", "succeeded", "new", earlier),
        ("c", "succeeded", "new", earlier),
        ("a", "succeeded", "new", later),
    ]
    file = landed_file(LocalFolder(tmp_path / "job"), columns, landing)
    (merge,) = blocks("sql")
    duckdb.execute(merge.replace("'landed.jsonl'", f"'{file}'"))
    assert duckdb.execute("SELECT custom_id, outcome, output FROM labels ORDER BY custom_id") == [
        (name, "succeeded", "new") for name in "abc"
    ]
    older = [("a", "succeeded", "older", earlier), ("b", "pending", None, later)]
    duckdb.execute(merge.replace("'landed.jsonl'", f"'{landed_file(LocalFolder(tmp_path / 'two'), columns, older)}'"))
    assert duckdb.execute("SELECT DISTINCT output FROM labels") == [("new",)]


def test_a_landed_file_keeps_every_type(tmp_path: Path) -> None:
    samples: dict[ColumnType, Any] = {
        ColumnType.TEXT: 'ü"\n\ud83d\ude00',
        ColumnType.INTEGER: 2**53 + 1,
        ColumnType.FLOAT: float("nan"),
        ColumnType.NUMERIC: Decimal("0.000000000000000001234567"),
        ColumnType.BOOLEAN: True,
        ColumnType.DATE: START.date(),
        ColumnType.TIMESTAMP: datetime(2026, 11, 20, 12, tzinfo=UTC),
        ColumnType.LOCAL_TIMESTAMP: datetime(2026, 3, 29, 2, 30),
        ColumnType.TIME: time(23, 59, 59, 7),
        ColumnType.INTERVAL: timedelta(days=1, hours=1),
        ColumnType.UUID: UUID("6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
        ColumnType.JSON: {"a": [1, None]},
        ColumnType.BYTES: b"\0\xff",
        ColumnType.VECTOR: [0.5, 1.0],
    }
    columns = (Column("id", ColumnType.TEXT, key=True), *(Column(type_.value, type_) for type_ in ColumnType))
    file = landed_file(LocalFolder(tmp_path), columns, [("a", *samples.values()), ("b", *[None] * len(samples))])
    full_row, empty_row = (json.loads(line, parse_float=Decimal) for line in file.read_text().splitlines())
    assert full_row == {
        "id": "a",
        "text": 'ü"\n😀',
        "integer": 2**53 + 1,
        "float": None,
        "numeric": samples[ColumnType.NUMERIC],
        "boolean": True,
        "date": "2026-11-20",
        "timestamp": "2026-11-20T12:00:00.000000+00:00",
        "local_timestamp": "2026-03-29T02:30:00.000000",
        "time": "23:59:59.000007",
        "interval": "P1DT3600S",
        "uuid": "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f",
        "json": {"a": [1, None]},
        "bytes": "AP8=",
        "vector": [Decimal("0.5"), Decimal("1.0")],
    }
    assert empty_row == {"id": "b", **dict.fromkeys(map(str, ColumnType))}


#: the databases with a bulk path, under the names the page uses
BULK = {"PostgreSQL": POSTGRES, "SQLite": SQLITE, "DuckDB": DUCKDB, "MariaDB, MySQL": MYSQL}


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """Return a table in the Markdown that the page uses."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, *lines)).replace(
        "|\n", f"|\n|{'---|' * len(head)}\n", 1
    )


def test_the_page_lists_the_types_of_created_columns() -> None:
    def types(type_: ColumnType) -> Iterator[str]:
        return (f"`{dialect.types[type_]}`" if dialect.types[type_] else "none" for dialect in BULK.values())

    assert table(("values", *BULK), ((type_.value, *types(type_)) for type_ in ColumnType)) in PAGE


def test_the_page_lists_the_limits_of_the_dialects() -> None:
    def limits(name: str, dialect: Dialect) -> tuple[str, ...]:
        dialect_limits = dialect.limits
        names = "any that the database takes"
        if dialect_limits.name_bytes is not None:
            names = f"at most {dialect_limits.name_bytes} bytes"
        elif dialect_limits.name_code_point < 0x10FFFF:
            names = f"no character beyond U+{dialect_limits.name_code_point:04X}"
        return (
            name,
            names,
            "no limit" if dialect_limits.key_bytes is None else f"{dialect_limits.key_bytes:,} bytes",
            "all digits" if dialect_limits.numeric_scale is None else f"{dialect_limits.numeric_scale} digits",
            "kept" if dialect_limits.text_has_nul else "removed",
            "kept" if dialect_limits.float_has_nan else "NULL",
        )

    dialects = {**BULK, "Redshift": generic.REDSHIFT, "others": generic.GENERIC}
    head = (
        "database",
        "names",
        "maximum key size",
        "digits after the decimal point",
        "NUL in text",
        "NaN and infinity in a float",
    )
    assert table(head, (limits(name, dialect) for name, dialect in dialects.items())) in PAGE


def test_the_page_states_the_numbers_and_databases_of_the_code() -> None:
    assert f"At most {read.CHUNK_ROWS:,} rows are held" in PAGE
    assert f"per {rows.CHUNK_ROWS:,} rows" in PAGE
    assert f"waits {duckdb_driver.LOCK_WAIT_SECONDS:.0f} seconds" in PAGE
    generic_dialects = {dialect.name: dialect for dialect in DIALECTS if dialect.sink == generic.GENERIC.sink}
    documented_dialects = dict(re.findall(r"^\| ([\w ]+) \| [^|]+ \| (yes|no) \|", PAGE, flags=re.MULTILINE))
    # BigQuery's cursor has no transactions either, but nothing is written through it.
    assert documented_dialects.pop("BigQuery") == "no"
    assert not generic_dialects.pop("BigQuery").writable
    assert documented_dialects == {
        name: "yes" if dialect.transactions else "no" for name, dialect in generic_dialects.items()
    }


def test_the_extras_of_the_page_exist() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = set(re.findall(r"\| `([a-z]+)` \|$", PAGE, flags=re.MULTILINE)) | set(re.findall(r"-batch\[(\w+)\]", PAGE))
    assert extras == {"postgres", "sqlite", "duckdb", "mysql"}
    assert extras | {"tokens"} <= set(project["optional-dependencies"])


def test_the_lifecycle_rule_of_the_page_is_one_rule_for_all_objects() -> None:
    (rule,) = json.loads(blocks("json")[0])["Rules"]
    assert (rule["Status"], rule["Filter"]) == ("Enabled", {"Prefix": ""})
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] > 0


def test_the_commands_of_the_page_are_valid() -> None:
    from airflow.cli.cli_parser import get_parser

    pools, bucket = (block.strip() for block in blocks("console"))
    arguments = get_parser().parse_args(["pools", "set", "duckdb", "1", pools.partition('"')[2].rstrip('"')])
    assert (arguments.pool, arguments.slots) == ("duckdb", 1)
    assert pools.startswith("airflow pools set duckdb 1 ")
    assert bucket.startswith("aws s3api put-bucket-lifecycle-configuration --bucket ")


def test_the_links_of_the_page_have_targets() -> None:
    headings = {
        re.sub(r"[^\w -]", "", line[3:]).lower().replace(" ", "-")
        for line in PAGE.splitlines()
        if line.startswith("## ")
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings
