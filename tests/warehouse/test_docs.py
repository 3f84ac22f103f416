"""The code blocks of docs/reference/warehouses.md run, and its tables and numbers agree with the code."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator
from airflow.sdk import DAG

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.operators.batch import BatchResultsOperator
from airflow_provider_batch.warehouse import read, rows
from airflow_provider_batch.warehouse.dialects import generic
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.duckdb import DUCKDB
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.registry import DIALECTS
from airflow_provider_batch.warehouse.dialects.sqlite import SQLITE
from airflow_provider_batch.warehouse.drivers import duckdb as duckdb_driver
from airflow_provider_batch.warehouse.results_file import ResultsFile
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import Warehouse
from tests.warehouse.landing import COLUMNS, START, row

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "reference" / "warehouses.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def test_every_code_block_of_the_page_is_tested() -> None:
    assert {word: len(blocks(word)) for word in re.findall(r"^```(\w+)$", PAGE, flags=re.MULTILINE)} == {
        "console": 2,
        "python": 3,
        "sql": 1,
        "json": 1,
    }


def test_the_dag_of_the_page_parses() -> None:
    namespace: dict[str, Any] = {}
    exec(blocks("python")[1], namespace)
    dag = namespace["dag"]
    assert isinstance(dag, DAG)
    tasks = dag.topological_sort()  # type: ignore[no-untyped-call]  # Airflow has no types here
    assert [task.task_id for task in tasks] == ["submit", "wait", "land", "load"]
    load = dag.get_task("load")
    assert isinstance(load, SQLExecuteQueryOperator)
    # COPY INTO takes the part of the file's address after the folder of Snowflake's stage.
    land = dag.get_task("land")
    assert isinstance(land, BatchResultsOperator)
    assert land.results_file == "s3://company-batch/results/labels/{{ ts_nodash }}.parquet"
    assert "@BATCH_RESULTS/labels/{{ ts_nodash }}.parquet" in load.sql


def test_the_sink_of_the_page_lands_rows(sqlite: Warehouse) -> None:
    namespace: dict[str, Any] = {}
    exec(blocks("python")[2], namespace)
    sqlite.execute(f"CREATE TABLE results ({', '.join(column.name for column in COLUMNS)})")
    for _ in range(2):
        sink = open_sink(sqlite.hook, "results", COLUMNS, factory=namespace["AppendSink"])
        sink.prepare()
        assert sink.write([row("a"), row("b")]) == 2
    assert sqlite.execute("SELECT custom_id FROM results") == [("a",), ("b",), ("a",), ("b",)]


def results_file(path: Path, columns: tuple[Column, ...], landing: list[tuple[Any, ...]]) -> Path:
    file = ResultsFile(str(path), columns)
    file.prepare()
    assert file.write(landing) == len(landing)
    return path


def test_the_statement_of_the_page_merges_a_results_file(duckdb: Warehouse, tmp_path: Path) -> None:
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
    file = results_file(tmp_path / "job/one.parquet", columns, landing)
    (merge,) = blocks("sql")
    duckdb.execute(merge.replace("'labels.parquet'", f"'{file}'"))
    assert duckdb.execute("SELECT custom_id, outcome, output FROM labels ORDER BY custom_id") == [
        (name, "succeeded", "new") for name in "abc"
    ]
    older = [("a", "succeeded", "older", earlier), ("b", "pending", None, later)]
    duckdb.execute(merge.replace("'labels.parquet'", f"'{results_file(tmp_path / 'two.parquet', columns, older)}'"))
    assert duckdb.execute("SELECT DISTINCT output FROM labels") == [("new",)]


def table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    """Return a table in the Markdown that the page uses."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, *lines)).replace(
        "|\n", f"|\n|{'---|' * len(head)}\n", 1
    )


#: the databases with a bulk path, under the names the page uses
BULK = {"PostgreSQL": POSTGRES, "SQLite": SQLITE, "DuckDB": DUCKDB, "MariaDB, MySQL": MYSQL}


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
            "kept" if dialect_limits.float_has_infinity else "refused",
        )

    dialects = {**BULK, "Redshift": generic.REDSHIFT, "others": generic.GENERIC}
    head = (
        "database",
        "names",
        "maximum key size",
        "digits after the decimal point",
        "NUL in text",
        "NaN in a float",
        "infinity in a float",
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
    assert extras == {"postgres", "sqlite", "duckdb", "mysql", "parquet"}
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
