"""The author's own results table: what fits is stored or cast, and what would lose something is refused with a remedy.

Every remedy is run as it is written in the error. After that the table is accepted.
"""

from __future__ import annotations

import re
import sqlite3
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.exceptions import ResultsTableError
from airflow_provider_batch.warehouse.fit import STORES
from airflow_provider_batch.warehouse.sinks.base import TableSink
from airflow_provider_batch.warehouse.sinks.open import open_sink
from airflow_provider_batch.warehouse.stored_types import Kind, duckdb_type, mysql_type, postgres_type
from tests.warehouse.conftest import KNOWS_KEYS, Warehouse
from tests.warehouse.landing import COLUMNS, START, land, row

T = ColumnType
knows_types = pytest.mark.parametrize("warehouse", KNOWS_KEYS, indirect=True)


def family(warehouse: Warehouse) -> str:
    if warehouse.is_postgres:
        return "postgres"
    return "mysql" if warehouse.is_mysql else warehouse.dialect


def create(warehouse: Warehouse, columns: str, *, table: str = "results", key: str = "PRIMARY KEY (custom_id)") -> None:
    """Create a results table with these columns besides the ones that every results table has."""
    warehouse.execute(
        f"CREATE TABLE {table} (custom_id {warehouse.text_key_type} NOT NULL, outcome text, output text, "
        f"job_uid text, sealed_at {warehouse.timestamp_type}, {columns}, {key})"
    )


def refusal(warehouse: Warehouse, columns: tuple[Column, ...], table: str = "results") -> str:
    with pytest.raises(ResultsTableError) as exc_info:
        open_sink(warehouse.hook, table, columns).prepare()
    return str(exc_info.value)


def remedies(text: str) -> list[str]:
    """Return the statements in an error message."""
    return re.findall(r"^(?:ALTER|CREATE) .*?;$", text, flags=re.DOTALL | re.MULTILINE)


def run_remedies(warehouse: Warehouse, text: str) -> None:
    statements = remedies(text)
    assert statements, text
    for statement in statements:
        warehouse.execute(statement)


#: by database: the type of a column, our type, a value, and what the column stores
STORED: dict[str, list[tuple[str, ColumnType, Any, Any]]] = {
    "postgres": [
        ("numeric(12,2)", T.NUMERIC, Decimal("1234.50"), Decimal("1234.50")),
        ("numeric(12,2)", T.FLOAT, 0.87, Decimal("0.87")),
        ("numeric", T.FLOAT, 0.1234567890123456, Decimal("0.1234567890123456")),
        ("double precision", T.NUMERIC, Decimal("0.87"), 0.87),
        ("integer", T.INTEGER, 7, 7),
        ("numeric(5)", T.INTEGER, 7, Decimal(7)),
        ("smallint", T.BOOLEAN, True, 1),
        ("varchar(5)", T.BOOLEAN, False, "false"),
        ("uuid", T.TEXT, "6F2B1C9E-0b7e-4d6e-9d3a-0a5f0c1e2d3f", "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
        ("mood", T.TEXT, "so so", "so so"),
        ("cidr", T.TEXT, "10.0.0.0/8", "10.0.0.0/8"),
        ("inet", T.TEXT, "10.0.0.1", "10.0.0.1/32"),
        ("macaddr", T.TEXT, "08:00:2b:01:02:03", "08:00:2b:01:02:03"),
        ("date", T.TEXT, "2026-02-01", "2026-02-01"),
        ("time", T.TEXT, "23:59", "23:59:00"),
        ("timestamptz", T.TEXT, "2026-02-01T01:00:00+02:00", datetime(2026, 1, 31, 23, tzinfo=UTC)),
        ("timestamp", T.TEXT, "2026-02-01T01:00:00", "2026-02-01 01:00:00"),
        ("short_text", T.TEXT, "ab", "ab"),
        ("known_uuid", T.TEXT, "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f", "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
        ("text[]", T.JSON, ["a", None, 'b"\\,{}'], ["a", None, 'b"\\,{}']),
        ("int[]", T.JSON, [1, 2], [1, 2]),
        ("int[]", T.JSON, [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("int[]", T.JSON, [], []),
        ("numeric(5,2)[]", T.JSON, [1.25], [Decimal("1.25")]),
        ("double precision[]", T.JSON, [0.1, 2], [0.1, 2.0]),
        ("date[]", T.JSON, ["2026-02-01"], "{2026-02-01}"),
        ("mood[]", T.JSON, ["so so"], '{"so so"}'),
        ("varchar(3)[]", T.JSON, ["abc"], ["abc"]),
        ("pair", T.JSON, {"name": "x, y", "size": 3}, '("x, y",3)'),
        ("jsonb", T.JSON, {"a": [1]}, {"a": [1]}),
        ("real[]", T.VECTOR, [0.5, 1.0], [0.5, 1.0]),
        ("numeric[]", T.VECTOR, [0.5, 1.0], [Decimal("0.5"), Decimal(1)]),
        ("date", T.DATE, date(2026, 2, 1), "2026-02-01"),
        ("text", T.DATE, date(2026, 2, 1), "2026-02-01"),
        ("timestamp", T.TIMESTAMP, START, "2026-11-20 12:00:00"),
        ("timestamp", T.LOCAL_TIMESTAMP, datetime(2026, 3, 29, 2, 30), "2026-03-29 02:30:00"),
    ],
    "duckdb": [
        ("DECIMAL(12,2)", T.NUMERIC, Decimal("1234.50"), Decimal("1234.50")),
        ("DECIMAL(12,2)", T.FLOAT, 0.87, Decimal("0.87")),
        ("DECIMAL(18,16)", T.FLOAT, 0.1234567890123456, Decimal("0.1234567890123456")),
        ("DOUBLE", T.NUMERIC, Decimal("0.87"), 0.87),
        ("SMALLINT", T.BOOLEAN, True, 1),
        ("UUID", T.TEXT, "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f", "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
        ("ENUM('so so', 'it''s')", T.TEXT, "it's", "it's"),
        ("DATE", T.TEXT, "2026-02-01", "2026-02-01"),
        ("VARCHAR[]", T.JSON, ["a", None, "b'"], ["a", None, "b'"]),
        ("INTEGER[]", T.JSON, [1, 2], [1, 2]),
        ("INTEGER[][]", T.JSON, [[1, 2], [3]], [[1, 2], [3]]),
        ("DECIMAL(5,2)[]", T.JSON, [1.25], [Decimal("1.25")]),
        ("STRUCT(name VARCHAR, size INTEGER)", T.JSON, {"name": "x", "size": 3}, {"name": "x", "size": 3}),
        ("FLOAT[2]", T.VECTOR, [0.5, 1.0], (0.5, 1.0)),
        ("FLOAT[]", T.VECTOR, [0.5, 1.0], [0.5, 1.0]),
        ("TIMESTAMP", T.TIMESTAMP, START, "2026-11-20 12:00:00"),
    ],
    "mysql": [
        ("decimal(12,2)", T.NUMERIC, Decimal("1234.50"), Decimal("1234.50")),
        ("decimal(12,2)", T.FLOAT, 0.87, Decimal("0.87")),
        ("decimal(20,16)", T.FLOAT, 0.1234567890123456, Decimal("0.1234567890123456")),
        ("double", T.NUMERIC, Decimal("0.87"), 0.87),
        ("tinyint(1)", T.BOOLEAN, True, 1),
        ("char(1)", T.BOOLEAN, True, "1"),
        ("uuid", T.TEXT, "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f", "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"),
        ("inet6", T.TEXT, "2001:db8::1", "2001:db8::1"),
        ("enum('so so','it''s')", T.TEXT, "it's", "it's"),
        ("set('a','b')", T.TEXT, "a,b", "a,b"),
        ("date", T.TEXT, "2026-02-01", "2026-02-01"),
        ("datetime", T.TEXT, "2026-02-01T01:00:00", "2026-02-01 01:00:00"),
        ("json", T.JSON, {"a": [1]}, '{"a":[1]}'),
        ("datetime(6)", T.LOCAL_TIMESTAMP, datetime(2026, 3, 29, 2, 30), "2026-03-29 02:30:00"),
    ],
    "sqlite": [
        ("NUMERIC(12,2)", T.NUMERIC, Decimal("1234.50"), 1234.5),
        ("INTEGER", T.FLOAT, 0.87, 0.87),
        ("TEXT", T.FLOAT, 0.1 + 0.2, "0.30000000000000004"),
        ("TEXT", T.NUMERIC, Decimal("0.1234567890123456"), "0.1234567890123456"),
        ("DATE", T.DATE, date(2026, 2, 1), "2026-02-01"),
        ("BOOLEAN", T.BOOLEAN, True, 1),
        ("CHAR(1)", T.BOOLEAN, True, "1"),
    ],
}


def prepare_types(warehouse: Warehouse) -> None:
    """Create the types that the tables of these tests use."""
    if warehouse.is_postgres:
        warehouse.execute(
            "CREATE TYPE mood AS ENUM ('so so', 'it''s'); CREATE DOMAIN short_text AS varchar(3); "
            "CREATE DOMAIN known_uuid AS uuid; CREATE TYPE pair AS (name text, size int)"
        )


def shown(value: Any, like: Any) -> Any:
    """Return a value of the database, as text if the test compares texts."""
    return str(value) if isinstance(like, str) and not isinstance(value, str) else value


@knows_types
def test_what_fits_is_stored_and_what_fits_with_a_cast_is_cast(warehouse: Warehouse) -> None:
    prepare_types(warehouse)
    cases = STORED[family(warehouse)]
    create(warehouse, ", ".join(f"x{index} {type_}" for index, (type_, *_) in enumerate(cases)))
    columns = (*COLUMNS, *(Column(f"x{index}", type_) for index, (_, type_, *_) in enumerate(cases)))
    values = tuple(value for _, _, value, _ in cases)
    nulls = (None,) * len(cases)
    for minute in (0, 1):  # inserted, then updated
        land(warehouse, [(*row("a", minute=minute), *values), (*row("b"), *nulls)], columns=columns)
    for index, (type_, _, _, expected) in enumerate(cases):
        is_text = isinstance(expected, str) and not warehouse.is_mysql
        expression = f"CAST(x{index} AS text)" if is_text and warehouse.dialect != "sqlite" else f"x{index}"
        sql = f"SELECT {expression} FROM results ORDER BY custom_id"
        first, second = warehouse.execute(sql)
        assert shown(first[0], expected) == expected, type_
        assert second == (None,), type_


#: by database: the type of a column that is refused, our type, and why
REFUSED: dict[str, list[tuple[str, ColumnType, str]]] = {
    "postgres": [
        ("integer", T.FLOAT, "rounded"),
        ("bigint", T.FLOAT, "rounded"),
        ("smallint NOT NULL", T.NUMERIC, "rounded"),
        ("numeric(10)", T.FLOAT, "rounded"),
        ("numeric(10,0)", T.NUMERIC, "rounded"),
        ("real", T.FLOAT, "7 digits"),
        ("money", T.NUMERIC, "does not store"),
        ("time", T.TIMESTAMP, "date would be lost"),
        ("date", T.TIMESTAMP, "time of day would be lost"),
        ("date", T.LOCAL_TIMESTAMP, "time of day would be lost"),
        ("timestamptz", T.LOCAL_TIMESTAMP, "no time zone"),
        ("char(1)", T.BOOLEAN, "need 5 characters"),
        ("varchar(3)", T.BOOLEAN, "need 5 characters"),
        ("integer", T.TEXT, "does not store"),
        ("integer NOT NULL", T.TEXT, "does not store"),
        ("boolean", T.INTEGER, "does not store"),
        ("jsonb", T.TEXT, "does not store"),
        ("int[]", T.VECTOR, "rounded"),
        ("integer", T.JSON, "does not store"),
        ("whole", T.FLOAT, "rounded"),
        ("int GENERATED ALWAYS AS (1) STORED", T.INTEGER, "computes"),
        ("char(10)", T.UUID, "need 36 characters"),
        ("point", T.TEXT, "does not store"),
        ("text", T.BYTES, "does not store"),
    ],
    "duckdb": [
        ("INTEGER", T.FLOAT, "rounded"),
        ("BIGINT", T.FLOAT, "rounded"),
        ("INTEGER NOT NULL", T.NUMERIC, "rounded"),
        ("FLOAT", T.FLOAT, "7 digits"),
        ("DECIMAL(10,0)", T.NUMERIC, "rounded"),
        ("TIME", T.TIMESTAMP, "date would be lost"),
        ("DATE", T.TIMESTAMP, "time of day would be lost"),
        ("INTEGER", T.TEXT, "does not store"),
        ("INTEGER[]", T.VECTOR, "rounded"),
        ("BOOLEAN", T.INTEGER, "does not store"),
        ("TIMESTAMPTZ", T.LOCAL_TIMESTAMP, "no time zone"),
    ],
    "mysql": [
        ("int", T.FLOAT, "rounded"),
        ("bigint", T.FLOAT, "rounded"),
        ("int NOT NULL", T.NUMERIC, "rounded"),
        ("float", T.FLOAT, "7 digits"),
        ("decimal(10)", T.NUMERIC, "rounded"),
        ("time", T.TIMESTAMP, "date would be lost"),
        ("date", T.TIMESTAMP, "time of day would be lost"),
        ("int", T.TEXT, "does not store"),
        ("year", T.INTEGER, "does not store"),
        ("datetime", T.INTEGER, "does not store"),
        ("timestamp NULL", T.LOCAL_TIMESTAMP, "no time zone"),
        ("int GENERATED ALWAYS AS (1) VIRTUAL", T.INTEGER, "computes"),
        ("char(10)", T.UUID, "need 36 characters"),
    ],
    "sqlite": [
        ("INTEGER", T.TEXT, "does not store"),
        ("STRING", T.TEXT, "does not store"),
        ("INT GENERATED ALWAYS AS (1)", T.INTEGER, "computes"),
    ],
}


@knows_types
def test_what_would_lose_something_is_refused_with_statements_that_keep_what_is_stored(warehouse: Warehouse) -> None:
    prepare_types(warehouse)
    if warehouse.is_postgres:
        warehouse.execute("CREATE DOMAIN whole AS integer")
    cases = REFUSED[family(warehouse)]
    create(warehouse, ", ".join(f"x{index} {type_}" for index, (type_, *_) in enumerate(cases)))
    required = [f"x{index}" for index, (type_, *_) in enumerate(cases) if "NOT NULL" in type_]
    names, zeros = "".join(f", {name}" for name in required), ", 7" * len(required)
    warehouse.execute(f"INSERT INTO results (custom_id{names}) VALUES ('old'{zeros})")
    columns = (*COLUMNS, *(Column(f"x{index}", type_, may_be_null=True) for index, (_, type_, _) in enumerate(cases)))
    text = refusal(warehouse, columns)
    for index, (type_, kind, reason) in enumerate(cases):
        line = next(line for line in text.splitlines() if f"'x{index}'" in line)
        assert reason in line, type_
        if "GENERATED" not in type_:
            assert f"gets {kind} values" in line, type_
    run_remedies(warehouse, text)
    land(warehouse, [(*row("a"), *(None,) * len(cases))], columns=columns)
    assert warehouse.execute("SELECT custom_id FROM results ORDER BY custom_id") == [("a",), ("old",)]


def table_of_docs(header: str) -> list[list[str]]:
    """Return the cells of the table in docs/reference/warehouses.md whose header begins with this text."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "warehouses.md").read_text(encoding="utf-8")
    lines = page[page.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_the_kinds_of_columns_that_store_each_type() -> None:
    cells = table_of_docs("| values | kinds of columns")
    assert {ColumnType(type_): frozenset(map(Kind, kinds.split(", "))) for type_, kinds in cells} == STORES


def test_the_page_lists_the_types_of_each_kind() -> None:
    rows = table_of_docs("| kind | PostgreSQL")
    assert {Kind(kind) for kind, *_ in rows} == set(Kind) - {Kind.ANY, Kind.NUMBER_AFFINITY, Kind.OTHER}
    for kind, *cells in rows:
        names = [re.findall("`([^`]+)`", cell) for cell in cells]
        types = [
            *(postgres_type(name, "b", None) for name in names[0]),
            *(mysql_type(name) for name in names[1]),
            *(duckdb_type(name) for name in names[2]),
        ]
        assert {stored.kind for stored in types} == {Kind(kind)}


def key_of_remedy(text: str) -> list[str]:
    """Return the names of the columns that the error tells to pass as key=."""
    match = re.search(r"Pass key=\{(.*?)\} to BatchResultsOperator", text)
    assert match, text
    return re.findall(r'"(.*?)": \.\.\.', match[1])


def land_with_day(warehouse: Warehouse, text: str) -> None:
    """Follow the error: run its statements, and land with its key."""
    assert key_of_remedy(text) == ["day"]
    for statement in remedies(text):
        warehouse.execute(statement)
    columns = (Column("day", T.TEXT, key=True), *COLUMNS)
    land(warehouse, [("2026-02-01", *row("a", "1"))], [("2026-02-01", *row("a", "2", minute=1))], columns=columns)
    land(warehouse, [("2026-02-02", *row("a", "3"))], columns=columns)
    days = warehouse.execute("SELECT day, output FROM results ORDER BY day")
    assert [(str(day), output) for day, output in days] == [("2026-02-01", "2"), ("2026-02-02", "3")]


@pytest.mark.parametrize("key", ["PRIMARY KEY (custom_id, day)", "UNIQUE (day, custom_id)", ""])
def test_a_table_partitioned_by_another_column_needs_it_in_the_key(postgres: Warehouse, key: str) -> None:
    create(postgres, "day date NOT NULL", key=f"{key or 'CHECK (true)'}) PARTITION BY LIST (day")
    postgres.execute("CREATE TABLE p PARTITION OF results DEFAULT")
    land_with_day(postgres, refusal(postgres, COLUMNS))


@pytest.mark.parametrize(
    "partitions", ["LIST ((day + 1))", "RANGE (sealed_at)", "RANGE (date_trunc('day', sealed_at AT TIME ZONE 'UTC'))"]
)
def test_a_table_that_can_have_no_key_of_ours_is_replaced(postgres: Warehouse, partitions: str) -> None:
    create(postgres, "day date NOT NULL", key=f"CHECK (true)) PARTITION BY {partitions.removesuffix(')')}")
    text = refusal(postgres, COLUMNS)
    assert "partitioned by" in text
    run_remedies(postgres, text)
    land(postgres, [row("a")])
    assert postgres.execute("SELECT custom_id FROM results") == [("a",)]


@pytest.mark.parametrize("key", ["PRIMARY KEY (custom_id, day)", "UNIQUE (day, custom_id)"])
@pytest.mark.parametrize(
    "partitions", ["RANGE (to_days(day)) (PARTITION p VALUES LESS THAN MAXVALUE", "HASH (day(day)) PARTITIONS 2 --"]
)
def test_a_partitioned_table_of_mysql_needs_the_columns_of_its_partitions(
    mysql: Warehouse, key: str, partitions: str
) -> None:
    mysql.execute(
        f"CREATE TABLE results (custom_id {mysql.text_key_type} NOT NULL, outcome text, output text, job_uid text, "
        f"sealed_at datetime(6), day date NOT NULL, {key}) PARTITION BY {partitions.removesuffix(' --')}"
        + ("" if partitions.endswith("--") else ")")
    )
    land_with_day(mysql, refusal(mysql, COLUMNS))


@knows_types
def test_a_primary_key_with_one_more_column_is_extended_by_it(warehouse: Warehouse) -> None:
    create(warehouse, "day date NOT NULL", key="PRIMARY KEY (custom_id, day)")
    land_with_day(warehouse, refusal(warehouse, COLUMNS))


ODD_NAMES = ["we\"ird`%s;\n{x} 'q'", "100% sure"]


@knows_types
@pytest.mark.parametrize("name", ODD_NAMES)
def test_remedies_quote_names(warehouse: Warehouse, name: str) -> None:
    quote = warehouse.quote
    warehouse.execute(
        f"CREATE TABLE {quote(name)} (custom_id {warehouse.text_key_type} NOT NULL, outcome text, output text, "
        f"sealed_at {warehouse.timestamp_type}, {quote(name)} integer, {quote(name + '2')} integer NOT NULL, "
        f"{quote(name + '_old')} integer)"
    )
    columns = (*COLUMNS, Column(name, T.BYTES if warehouse.dialect != "sqlite" else T.INTEGER))
    text = refusal(warehouse, columns, table=name)
    for statement in re.split(r"(?<=[;:])\n(?=ALTER|CREATE)|\n(?=- has|Nothing was|This table)", text):
        if statement.startswith(("ALTER", "CREATE")):
            warehouse.execute(statement)
    land(warehouse, [(*row("a"), None)], columns=columns, table=name)


@knows_types
def test_a_column_that_is_not_null_is_refused_if_rows_without_an_answer_have_no_value(warehouse: Warehouse) -> None:
    create(warehouse, "total numeric DEFAULT 0 NOT NULL, kept numeric DEFAULT 0 NOT NULL")
    columns = (
        *COLUMNS,
        Column("total", T.NUMERIC if warehouse.is_postgres else T.INTEGER, may_be_null=True),
        Column("kept", T.INTEGER),
    )
    text = refusal(warehouse, columns)
    assert "'total' as NOT NULL" in text
    assert "'kept'" not in text
    run_remedies(warehouse, text)
    land(warehouse, [(*row("a"), None, 1)], columns=columns)


def test_the_key_of_a_table_in_an_sqlite_database_is_created_there(sqlite: Warehouse) -> None:
    create(sqlite, "x int", key="CHECK (1)")
    text = refusal(sqlite, COLUMNS, table="main.results")
    run_remedies(sqlite, text)
    land(sqlite, [row("a")], table="main.results")


def test_a_strict_table_of_sqlite_has_types(sqlite: Warehouse) -> None:
    if sqlite3.sqlite_version_info < (3, 37):
        pytest.skip("this SQLite has no STRICT tables")
    sqlite.execute(
        "CREATE TABLE results (custom_id text PRIMARY KEY, outcome text, output text, job_uid text, sealed_at text, "
        "a integer, b real, c any, d blob) STRICT"
    )
    columns = (*COLUMNS, Column("a", T.FLOAT), Column("b", T.FLOAT), Column("c", T.JSON), Column("d", T.TEXT))
    text = refusal(sqlite, columns)
    assert "'a' as INTEGER" in text
    assert "'d' as BLOB" in text
    assert "'b'" not in text
    assert "'c'" not in text
    run_remedies(sqlite, text)
    land(sqlite, [(*row("a"), 0.87, 0.87, [1], "x")], columns=columns)
    assert sqlite.execute("SELECT a, b, c, d FROM results") == [(0.87, 0.87, "[1]", "x")]


@pytest.mark.parametrize(
    ("statement", "phrase"),
    [
        ("CREATE MATERIALIZED VIEW results AS SELECT 1 AS custom_id", "a materialized view"),
        (
            "CREATE FOREIGN DATA WRAPPER f; CREATE SERVER s FOREIGN DATA WRAPPER f; "
            "CREATE FOREIGN TABLE results (custom_id text) SERVER s",
            "a foreign table",
        ),
        ("CREATE SEQUENCE results", "a sequence"),
    ],
)
def test_what_is_not_a_table_is_named(postgres: Warehouse, statement: str, phrase: str) -> None:
    postgres.execute(statement)
    assert phrase in refusal(postgres, COLUMNS)


def test_an_identity_column_can_be_made_writable(postgres: Warehouse) -> None:
    create(postgres, "n bigint GENERATED ALWAYS AS IDENTITY")
    columns = (*COLUMNS, Column("n", T.INTEGER))
    run_remedies(postgres, refusal(postgres, columns))
    land(postgres, [(*row("a"), 7)], columns=columns)
    assert postgres.execute("SELECT n FROM results") == [(7,)]


def test_keys_of_other_types_are_compared_as_the_table_compares_them(postgres: Warehouse) -> None:
    postgres.execute(
        "CREATE TABLE results (custom_id uuid PRIMARY KEY, outcome text, output text, job_uid text, "
        "sealed_at timestamptz)"
    )
    id_ = "6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"
    land(postgres, [row(id_, "1"), row(id_.upper(), "2", minute=1)])
    assert postgres.execute("SELECT CAST(custom_id AS text), output FROM results") == [(id_, "2")]


@knows_types
def test_a_custom_id_may_be_an_integer(warehouse: Warehouse) -> None:
    warehouse.execute(
        f"CREATE TABLE results (custom_id bigint PRIMARY KEY, outcome text, output text, job_uid text, "
        f"sealed_at {warehouse.timestamp_type})"
    )
    land(warehouse, [row("10", "1"), row("9", "1")], [row("10", "2", minute=1)])
    assert warehouse.execute("SELECT custom_id, output FROM results ORDER BY 1") == [(9, "1"), (10, "2")]


@pytest.mark.parametrize("type_", ["vector(1536)", "halfvec(1536)"])
def test_a_column_for_shorter_vectors_is_refused(postgres: Warehouse, type_: str) -> None:
    postgres.execute("CREATE EXTENSION vector")
    create(postgres, f"embedding {type_}")
    vector = "[" + ",".join(["0.5"] * 1536) + "]"
    postgres.execute(f"INSERT INTO results (custom_id, embedding) VALUES ('old', '{vector}')")
    columns = (*COLUMNS, Column("embedding", T.VECTOR, elements=3072))
    text = refusal(postgres, columns)
    assert f"'embedding' as {type_}, but it gets vector values, with 3,072 elements" in text
    assert 'body={"dimensions": 1536}' in text
    run_remedies(postgres, text)
    land(postgres, [(*row("a"), [0.5] * 3072)], columns=columns)
    fitting = (*COLUMNS, Column("embedding_old", T.VECTOR, elements=1536), Column("embedding", T.VECTOR))
    land(postgres, [(*row("b"), [0.5] * 1536, None)], columns=fitting)


def test_an_array_of_duckdb_for_shorter_vectors_is_refused(duckdb: Warehouse) -> None:
    create(duckdb, "embedding FLOAT[2]")
    columns = (*COLUMNS, Column("embedding", T.VECTOR, elements=3))
    text = refusal(duckdb, columns)
    assert "with 3 elements" in text
    run_remedies(duckdb, text)
    land(duckdb, [(*row("a"), [0.5, 1.0, 2.0])], columns=columns)


@pytest.mark.parametrize(("native_type", "type_"), [("DATETIME(6)", "datetime"), ("TIME(6)", "time(3)")])
def test_a_fraction_of_a_second_that_a_column_of_mysql_would_lose_has_a_limit(
    mysql: Warehouse, native_type: str, type_: str
) -> None:
    create(mysql, f"x {type_}")
    kind = T.TIME if native_type.startswith("TIME") else T.LOCAL_TIMESTAMP
    column = Column("x", kind, native_type=native_type, database="MySQL")
    sink = open_sink(mysql.hook, "results", (*COLUMNS, column))
    sink.prepare()
    assert isinstance(sink, TableSink)
    assert sink.limits.columns["x"].fraction_digits == (3 if "(3)" in type_ else 0)
