"""Values of every type of every tested database travel from a query through staging to a results table unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_batch.core.ledger.job import RowIndex
from airflow_provider_batch.core.requests.value import UnusableValueError, to_text
from airflow_provider_batch.core.schema.columns import Column, ColumnType
from airflow_provider_batch.core.schema.native import plain
from airflow_provider_batch.core.sealing.carry import CarriedColumns, from_json
from airflow_provider_batch.warehouse.read import read_rows
from airflow_provider_batch.warehouse.sinks.open import open_sink
from tests.warehouse.conftest import KNOWS_KEYS, Warehouse
from tests.warehouse.landing import COLUMNS, row

#: by type of PostgreSQL: values, as literals without their quotation marks
POSTGRES_TYPES: dict[str, list[str]] = {
    "smallint": ["-32768"],
    "integer": ["2147483647"],
    "bigint": ["-9223372036854775808", "9007199254740993"],
    "oid": ["4294967295"],
    "numeric": ["1.500", "NaN", "Infinity", "-Infinity", "1e-400", "123456789012345678901234567890.123456789", "1e50"],
    "numeric(12,2)": ["1234567890.10"],
    "real": ["0.1", "3.4028235e38", "NaN", "-Infinity", "1e-45"],
    "double precision": ["0.1", "NaN", "Infinity", "5e-324", "0.30000000000000004", "-0"],
    "money": ["-1234567.89"],
    "boolean": ["t", "f"],
    "bit(5)": ["10101"],
    "bit varying": ["0011", ""],
    "character(6)": ["ab", "", "  x"],
    "character varying(5)": ["ab ", "üöä"],
    "text": ["it's", "", "tab\tnew\nline\\ \\N \"quoted\" 'x' 🎈", "NULL", "2026-01-01"],
    "name": ["Name"],
    '"char"': ["x"],
    "citext": ["MiXed"],
    "bytea": ["", r"\x00ff5c27"],
    "date": ["2026-03-29", "infinity", "-infinity", "0044-03-15 BC", "12345-01-01", "0001-01-01", "9999-12-31"],
    "timestamp without time zone": [
        *("2026-03-29 03:30:00", "2026-03-29 02:30:00", "2026-10-25 02:30:00.000001", "infinity", "-infinity"),
        *("0044-03-15 12:00:00 BC", "12345-01-01 00:00:00", "9999-12-31 23:59:59.999999"),
    ],
    "timestamp(3) with time zone": ["2026-10-25 02:30:00.123+02"],
    "timestamp with time zone": [
        *("2026-10-25 02:30:00+02", "2026-10-25 02:30:00+01", "infinity", "-infinity", "1800-01-01 00:00:00"),
        *("0044-03-15 12:00:00 BC", "0001-01-01 00:00:00", "9999-12-31 23:59:59.999999-12"),
    ],
    "time without time zone": ["12:30:00", "24:00:00", "00:00:00", "23:59:59.999999"],
    "time with time zone": ["12:30:00+02", "24:00:00+02", "12:00:00.5-05:30"],
    "interval": ["1 month", "30 days", "1 year 2 mons -3 days 04:05:06.789", "-1 day +02:00", "170000000 years", "0"],
    "uuid": ["6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f"],
    "json": ['{"b": 1e400,  "a":1.10, "a":2}', "null", '"text"', "[1, {}]", '"\\u00e4 \\\\"', "12345678901234567890"],
    "jsonb": [
        '{"b": [1.10, null]}',
        '{"b": 1e400, "a": 1.10}',
        "null",
        '"text"',
        "[]",
        "12345678901234567890.123",
        "true",
        '"\\n"',
    ],
    "inet": ["10.0.0.1", "10.0.0.1/24", "::1/64"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "point": ["(0.1,1e300)"],
    "box": ["(3,4),(1,2)"],
    "polygon": ["((0,0),(1,1),(2,0))"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "numrange": ["[1.50,2.5]"],
    "tsrange": ['["2026-03-29 03:30:00",infinity)'],
    "tstzrange": ['["2026-03-29 03:30:00+02",)'],
    "datemultirange": ["{[2026-01-01,2026-02-01),[2026-03-01,)}"],
    "tsvector": ["'fat' 'cat':1A \"rat\":3"],
    "tsquery": ["fat & (cat | rat)"],
    "integer[]": ["{1,NULL,3}", "{{1,2},{3,4}}", "{}", "[0:1]={1,2}"],
    "text[]": ['{a,NULL,"NULL","","it\'s \\"q\\", {x} \\\\","new\nline"}'],
    "boolean[]": ["{t,f,NULL}"],
    "numeric[]": ["{1.50,NaN,1e-30,Infinity}"],
    "real[]": ["{0.1,NaN}"],
    "timestamp without time zone[]": ['{"2026-03-29 03:30:00",infinity,NULL}'],
    "date[]": ['{2026-01-01,"0044-03-15 BC"}'],
    "interval[]": ['{"1 mon","30 days"}'],
    "bytea[]": ['{"\\\\x00ff"}'],
    "jsonb[]": ['{"{\\"a\\": 1}","[1]",NULL,"null"}', '{"1e400"}'],
    "box[]": ["{(3,4),(1,2);(1,1),(0,0)}"],
    "uuid[]": ["{6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f}"],
    "mood": ["sad", "it's"],
    "mood[]": ['{sad,"it\'s"}'],
    "pair": ['(1,"a ""b"", \\\\")', "(,)"],
    "pair[]": ['{"(1,x)",NULL}'],
    "positive": ["5"],
    "hstore": ['"a"=>"1", "b"=>NULL'],
    "vector(3)": ["[1,0.5,-2]"],
    "halfvec": ["[1,0.5]"],
    "ltree": ["a.b.c"],
}

#: by type of DuckDB: values, as expressions
DUCKDB_TYPES: dict[str, list[str]] = {
    "TINYINT": ["-128"],
    "UBIGINT": ["18446744073709551615"],
    "HUGEINT": ["-170141183460469231731687303715884105727"],
    "UHUGEINT": ["340282366920938463463374607431768211455"],
    "BIGNUM": ["'123456789012345678901234567890123456789012345678901234567890'"],
    "DECIMAL(10,2)": ["1.50"],
    "DECIMAL(38,20)": ["0.12345678901234567890", "123456789012345678.5"],
    "FLOAT": ["0.1", "'nan'", "'-infinity'", "3.4028235e38"],
    "DOUBLE": ["0.1", "'nan'", "'infinity'", "5e-324"],
    "BOOLEAN": ["true", "false"],
    "VARCHAR": ["'a'", "''", "'NULL'", "'tab\tnew\nline 🎈'", "'2026-01-01'"],
    "BLOB": [r"'\x00\xFF\x27'", "''"],
    "BIT": ["'10101'"],
    "DATE": ["'2026-03-29'", "'infinity'", "'0044-03-15 (BC)'", "'12345-01-01'"],
    "TIMESTAMP": ["'2026-03-29 03:30:00'", "'2026-03-29 02:30:00.000001'", "'-infinity'", "'0044-03-15 (BC) 12:00:00'"],
    "TIMESTAMP_S": ["'2026-03-29 03:30:00'"],
    "TIMESTAMP_MS": ["'2026-03-29 03:30:00.123'"],
    "TIMESTAMP_NS": ["'2026-03-29 03:30:00.123456789'", "'2026-03-29 03:30:00'"],
    "TIMESTAMP WITH TIME ZONE": ["'2026-10-25 02:30:00+02'", "'2026-10-25 02:30:00+01'", "'infinity'"],
    "TIME": ["'12:30:00'", "'24:00:00'", "'23:59:59.999999'"],
    "TIME_NS": ["'12:00:00.123456789'"],
    "TIME WITH TIME ZONE": ["'12:00:00+05:30'"],
    "INTERVAL": ["'1 month'", "'30 days'", "'1 year 2 months -3 days 04:05:06.789'"],
    "UUID": ["'6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f'"],
    "ENUM('a', 'it''s')": ["'a'", "'it''s'"],
    "JSON": ["""'{"b": 1e400,  "a":1.10, "a":2}'""", "'null'", "'[1]'", """'"text"'""", "'12345678901234567890123'"],
    "INTEGER[]": ["[1, NULL, 3]", "[]"],
    "VARCHAR[]": ["""['a', 'NULL', NULL, '', 'it''s "q", [x] {y} \\']"""],
    "INTEGER[3]": ["[1, 2, 3]"],
    "TIMESTAMP[]": ["[TIMESTAMP '2026-03-29 03:30:00', NULL, 'infinity']"],
    "INTERVAL[]": ["[INTERVAL '1 month', INTERVAL '30 days']"],
    "FLOAT[]": ["[0.1, NULL]", "['nan'::FLOAT]"],
    "BLOB[]": [r"['\x00\xFF'::BLOB, NULL]"],
    "STRUCT(a DATE, b VARCHAR, c DECIMAL(5,2)[])": ["{'a': DATE '2026-01-01', 'b': 'x, y', 'c': [1.50, NULL]}"],
    'STRUCT("x y" STRUCT(z BLOB))': [r"{'x y': {'z': '\x00'::BLOB}}"],
    "MAP(VARCHAR, INTEGER)": ["MAP {'k1': 1, 'k=2': NULL}"],
    "MAP(DATE, INTERVAL)": ["MAP {DATE '2026-01-01': INTERVAL '1 month'}"],
    "UNION(num INTEGER, str VARCHAR)": ["union_value(num := 2)", "union_value(str := '2')"],
    "JSON[]": ["""['{"a":1e400,"a":1}'::JSON, NULL]"""],
    "HUGEINT[]": ["[170141183460469231731687303715884105727]"],
}

#: by type of MariaDB: values, as expressions
MYSQL_TYPES: dict[str, list[str]] = {
    "TINYINT": ["-128"],
    "BIGINT UNSIGNED": ["18446744073709551615", "1"],
    "DECIMAL(65,30)": ["0.123456789012345678901234567890", "12345678901234567890123456789012345.5"],
    "DECIMAL(65,0)": ["12345678901234567890123456789012345"],
    "FLOAT": ["0.1", "-3.5e10"],
    "DOUBLE": ["0.1", "5e-324", "0.30000000000000004"],
    "BIT(1)": ["b'1'", "b'0'"],
    "BIT(64)": ["18446744073709551615"],
    "YEAR": ["2026", "0"],
    "DATE": ["'2026-03-29'", "'0000-00-00'", "'2026-02-00'", "'9999-12-31'"],
    "DATETIME": ["'2026-03-29 03:30:00'", "'0000-00-00 00:00:00'"],
    "DATETIME(6)": ["'2026-03-29 02:30:00.000001'", "'9999-12-31 23:59:59.999999'"],
    "TIMESTAMP(6) NULL": ["'2026-07-01 03:30:00.5'"],
    "TIME": ["'12:30:00'", "'838:59:59'", "'-01:00:00'", "'24:00:00'", "'00:00:00'"],
    "TIME(6)": ["'12:00:00.000001'"],
    "CHAR(5)": ["'ab'", "''"],
    "VARCHAR(20)": ["'ab '", "'🎈'", "'2026-01-01'"],
    "LONGTEXT": ["'tab\\tnew\\nline \\\\ \\'q\\''"],
    "ENUM('a','it''s')": ["'it''s'"],
    "SET('b','a')": ["'b,a'", "''"],
    "BINARY(3)": ["X'00FF00'"],
    "VARBINARY(5)": ["X'5C27'", "''"],
    "LONGBLOB": ["X'00FF'"],
    "JSON": ["""'{"b": 1e400,  "a":1.10, "a":2}'""", "'null'", "'[1]'", "'12345678901234567890123'"],
    "GEOMETRY": ["ST_GeomFromText('POINT(0.1 2)')", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"],
    "INET6": ["'::1'"],
    "UUID": ["'6f2b1c9e-0b7e-4d6e-9d3a-0a5f0c1e2d3f'"],
}

#: by type of SQLite: values, as expressions
SQLITE_TYPES: dict[str, list[str]] = {
    "INTEGER": ["9223372036854775807", "9007199254740993", "-1"],
    "REAL": ["0.1", "5e-324", "9e999", "-9e999", "3.0"],
    "NUMERIC": ["9007199254740993", "3.0"],
    "TEXT": ["'a'", "''", "'007'", "'1.50'", "'tab\tnew\nline 🎈'"],
    "BLOB": ["x'00ff'", "x''"],
    "DATE": ["'2026-03-29'"],
    "TIMESTAMP": ["'2026-03-29 03:30:00'"],
    "BOOLEAN": ["1", "0"],
    "JSON": ["""'{"b": 1e400,  "a":1.10, "a":2}'""", "'null'"],
}

POSTGRES_SETUP = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE EXTENSION vector; CREATE EXTENSION ltree;
CREATE TYPE mood AS ENUM ('sad', 'it''s');
CREATE TYPE pair AS (a integer, "B b" text);
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
"""


def carry(source: Warehouse, target: Warehouse, sql: str) -> tuple[list[tuple[Any, ...]], list[Column]]:
    """Carry all columns of a query but the first, its key, to the table `results`.

    Return the rows as templates see them, and the carried columns.
    """
    with read_rows(source.hook, sql, exact=True) as rows:
        names = list(rows.columns[1:])
        carried = CarriedColumns(names, range(1, len(rows.columns)), rows.native_types[1:], rows.database)
        read = list(rows)
    carried_rows = carried.take(read, 1)
    sealed = [
        msgspec.json.encode(RowIndex(str(r[0]), "", values)) for r, values in zip(read, carried_rows, strict=True)
    ]
    columns = carried.columns()
    # the manifest and the index, as staging keeps them
    columns = msgspec.json.decode(msgspec.json.encode(columns), type=list[Column])
    indexed = [msgspec.json.decode(line, type=RowIndex) for line in sealed]
    landing = [
        (*row(index.custom_id), *[from_json(value, column) for value, column in zip(index.carry, columns, strict=True)])
        for index in indexed
    ]
    for _ in range(2):
        sink = open_sink(target.hook, "results", (*COLUMNS, *columns))
        sink.prepare()
        sink.write(landing)
    return [plain(values) for values in read], columns


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def fill_source(
    warehouse: Warehouse, types: dict[str, list[str]], expression: Callable[[str], str] = str
) -> dict[str, str]:
    """Create the table `source` with one column of each type and one row of NULLs. Return the columns by type."""
    names = {type_: f"c{number}" for number, type_ in enumerate(types)}
    warehouse.execute(f"CREATE TABLE source (id varchar(50), {', '.join(f'{names[t]} {t}' for t in types)})")
    count = max(map(len, types.values()))
    for index in range(count + 1):
        values = [expression(texts[index]) if index < len(texts) else "NULL" for texts in types.values()]
        warehouse.execute(f"INSERT INTO source VALUES ('{index}', {', '.join(values)})")
    return names


def differing_types(warehouse: Warehouse, names: dict[str, str], differs: str) -> list[str]:
    """Return the types with a value that is not equal. `differs` compares the columns `{s}` and `{r}`."""
    return [
        type_
        for type_, name in names.items()
        if warehouse.execute(
            "SELECT count(*) FROM source s JOIN results r ON r.custom_id = s.id "
            f"WHERE {differs.format(s=f's.{name}', r=f'r.{name}')}"
        )
        != [(0,)]
    ]


@pytest.fixture
def postgres_types(postgres: Warehouse) -> Warehouse:
    """A database in Berlin with types of users and extensions."""
    assert postgres.database is not None
    postgres.execute(f"ALTER DATABASE {postgres.database.name} SET timezone = 'Europe/Berlin'")
    postgres.execute(POSTGRES_SETUP)
    return postgres


def test_every_type_of_postgresql_travels_unchanged(postgres_types: Warehouse) -> None:
    names = fill_source(postgres_types, POSTGRES_TYPES, literal)
    carry(postgres_types, postgres_types, "SELECT * FROM source")
    assert differing_types(postgres_types, names, "{s}::text IS DISTINCT FROM {r}::text") == []
    without_equality = ("json", "point", "polygon", "box", "box[]")
    comparable = {type_: name for type_, name in names.items() if type_ not in without_equality}
    assert differing_types(postgres_types, comparable, "{s} IS DISTINCT FROM {r}") == []
    assert postgres_types.execute("SELECT count(*) FROM results") == postgres_types.execute(
        "SELECT count(*) FROM source"
    )


def test_every_type_of_duckdb_travels_unchanged(duckdb: Warehouse) -> None:
    names = fill_source(duckdb, DUCKDB_TYPES)
    carry(duckdb, duckdb, "SELECT * FROM source")
    assert (
        differing_types(duckdb, names, "{s} IS DISTINCT FROM {r} OR {s}::VARCHAR IS DISTINCT FROM {r}::VARCHAR") == []
    )
    assert duckdb.execute("SELECT count(*) FROM results") == duckdb.execute("SELECT count(*) FROM source")


def test_every_type_of_mariadb_travels_unchanged(mysql: Warehouse) -> None:
    assert mysql.mysql is not None
    mysql.execute("SET GLOBAL sql_mode = 'STRICT_ALL_TABLES'")
    names = fill_source(mysql, MYSQL_TYPES)
    carry(mysql, mysql, "SELECT * FROM source")
    assert differing_types(mysql, names, "NOT ({s} <=> {r})") == []
    assert mysql.execute("SELECT count(*) FROM results") == mysql.execute("SELECT count(*) FROM source")


@pytest.mark.parametrize("warehouse", ["sqlite", "generic"], indirect=True)
def test_every_type_of_sqlite_travels_unchanged(warehouse: Warehouse, decimals: None) -> None:
    names = fill_source(warehouse, SQLITE_TYPES)
    carry(warehouse, warehouse, "SELECT * FROM source")
    assert differing_types(warehouse, names, "{s} IS NOT {r}") == []
    assert warehouse.execute("SELECT count(*) FROM results") == warehouse.execute("SELECT count(*) FROM source")


@pytest.mark.parametrize("warehouse", KNOWS_KEYS[1:], indirect=True)
def test_a_timestamp_without_a_time_zone_equals_its_source(warehouse: Warehouse) -> None:
    type_ = "datetime" if warehouse.is_mysql else "timestamp"
    if warehouse.database is not None:
        warehouse.execute(f"ALTER DATABASE {warehouse.database.name} SET timezone = 'Europe/Berlin'")
    warehouse.execute(f"CREATE TABLE source (id varchar(50), created {type_})")
    # in Berlin, the second does not exist, and the third exists twice
    times = ["2026-03-29 03:30:00", "2026-03-29 02:30:00", "2026-10-25 02:30:00"]
    for index, time in enumerate(times):
        warehouse.execute(f"INSERT INTO source VALUES ('{index}', '{time}')")
    rows, (column,) = carry(warehouse, warehouse, "SELECT id, created FROM source ORDER BY id")
    assert [to_text(created) for _, created in rows] == times
    assert column.type is ColumnType.LOCAL_TIMESTAMP
    equal_rows = "SELECT count(*) FROM source s JOIN results r ON r.custom_id = s.id AND r.created = s.created"
    assert warehouse.execute(equal_rows) == [(3,)]


PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "warehouses.md").read_text(encoding="utf-8")
HEAD = "| source | text in a prompt | column created by `carry` | values elsewhere |\n|---|---|---|---|\n"


def documented_types(warehouse: Warehouse, names: dict[str, str]) -> str:
    """Return the table of a database's types, made from the first value of each."""
    rows, columns = carry(warehouse, warehouse, "SELECT * FROM source WHERE id = '0'")
    lines = []
    for (type_, name), column, value in zip(names.items(), columns, rows[0][1:], strict=True):
        text = prompt_text(value)
        if warehouse.is_postgres:
            created = warehouse.execute(
                "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
                f"WHERE attrelid = 'results'::regclass AND attname = '{name}'"
            )
        elif warehouse.is_duckdb:
            created = warehouse.execute(
                f"SELECT data_type FROM duckdb_columns() WHERE table_name = 'results' AND column_name = '{name}'"
            )
        elif warehouse.is_mysql:
            created = warehouse.execute(
                f"SELECT upper(column_type) FROM information_schema.columns WHERE table_schema = database() "
                f"AND table_name = 'results' AND column_name = '{name}'"
            )
        else:
            created = warehouse.execute(f"SELECT type FROM pragma_table_info('results') WHERE name = '{name}'")
        ((created_type,),) = created
        lines.append(f"| `{type_}` | {text} | `{created_type}` | {column.type} |".replace("\n", "\\n"))
    return HEAD + "\n".join(lines).replace("``", "none") + "\n"


def prompt_text(value: Any) -> str:
    try:
        return f"`{to_text(value)}`".replace("\t", "\\t").replace("|", "\\|")
    except UnusableValueError:
        return "refused, binary"


@pytest.mark.parametrize("warehouse", ["psycopg", "duckdb", "mysqlclient", "sqlite"], indirect=True)
def test_the_page_shows_how_the_types_of_each_database_travel(warehouse: Warehouse) -> None:
    types, setup = {
        "psycopg": (POSTGRES_TYPES, POSTGRES_SETUP),
        "duckdb": (DUCKDB_TYPES, ""),
        "mysqlclient": (MYSQL_TYPES, "SET GLOBAL sql_mode = 'STRICT_ALL_TABLES'"),
        "sqlite": (SQLITE_TYPES, ""),
    }[warehouse.dialect]
    if setup:
        warehouse.execute(setup)
    names = fill_source(warehouse, types, literal if warehouse.is_postgres else str)
    table = documented_types(warehouse, names)
    assert table in PAGE
