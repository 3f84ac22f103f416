"""What the check of a statement refuses, its errors, and the page about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.warehouse.connect import sql_hook
from airflow_provider_batch.warehouse.dialects import generic
from airflow_provider_batch.warehouse.dialects.base import Dialect
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES
from airflow_provider_batch.warehouse.dialects.registry import DIALECTS
from airflow_provider_batch.warehouse.read import read_rows
from tests.mysql import MySqlDatabase
from tests.postgres import Database
from tests.warehouse.conftest import MYSQL_DRIVERS, OtherHook, Warehouse, duckdb_warehouse, mysql_warehouse

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "sql.md").read_text(encoding="utf-8")
POSTGRES_GRANTS, MYSQL_GRANTS = re.findall(r"^```sql\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def read(warehouse: Warehouse, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with read_rows(warehouse.hook, sql, parameters) as rows:
        return list(rows)


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("UPDATE t SET a = 1", "begins with UPDATE (line 1)"),
        ("-- a\n/* b\n*/ 'x'", "begins with \"'x'\" (line 3)"),
        ("WITH x AS (\n  DELETE FROM t RETURNING a\n)\nSELECT a FROM x", "contains DELETE (line 2)"),
        ("SELECT 1\nINTO t", "contains INTO (line 2)"),
        ("SELECT 1\n\nFROM t FOR  UPDATE", "contains FOR UPDATE (line 3)"),
        ("SELECT\n  pg_catalog.pg_notify('a', 'b')", "contains the function pg_notify"),
        ("SELECT 1;\n\nSELECT 2", "the second begins in line 3"),
        ("SELECT 1 -- a\rx", "carriage return within a comment in line 1"),
        ("SELECT\n'a", "quotation mark ' that is never closed in line 2"),
        ("SELECT\u00a01", "the invisible character U+00A0 in line 1"),
        ("SELECT 1\n\x00", "a control character in line 2"),
    ],
)
def test_the_error_names_what_was_found_and_where(sql: str, problem: str) -> None:
    with pytest.raises(InputError, match=re.escape(problem)) as exc_info:
        POSTGRES.reading.check(sql)
    assert str(exc_info.value).endswith("Nothing was run, and nothing was uploaded.")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '%s' AS a",
        "SELECT 'x %(name)s' AS a",
        "SELECT 1 AS a -- %s\n",
        'SELECT 1 AS "a%sb"',
        "SELECT $$%s$$ AS a",
        "SELECT 1 /* %s */ AS a",
    ],
)
def test_a_placeholder_in_quotation_marks_is_refused(postgres: Warehouse, sql: str) -> None:
    # psycopg2 would end the string with the value and run the rest of it as SQL
    postgres.execute("CREATE TABLE t AS SELECT 1 AS n")
    with pytest.raises(InputError, match="inside quotation marks or in a comment"):
        read(postgres, sql, ["'; COMMIT; DELETE FROM t; --"])
    assert postgres.execute("SELECT n FROM t") == [(1,)]
    assert read(postgres, "SELECT '%%s' AS a, %s::text AS b, 7 %% 4 AS c", ["'; --"]) == [("%s", "'; --", 3)]


def test_percent_signs_and_placeholders_are_read_as_the_drivers_read_them(mysql: Warehouse) -> None:
    sql = "SELECT %(a)s AS a FROM dual WHERE %(n)s LIMIT 1"
    assert read(mysql, sql, {"a": "it's; --", "n": 1}) == [("it's; --",)]
    if mysql.dialect == "mysqlclient":  # mysql-connector-python does not replace %%
        assert read(mysql, "SELECT %s AS a, 'x %%' AS b, 7 %% 4 AS c", [1]) == [(1, "x %", 3)]
    with pytest.raises(InputError, match="inside quotation marks or in a comment"):
        read(mysql, "SELECT '%s' AS a", ["x"])


@pytest.mark.parametrize("mode", ["NO_BACKSLASH_ESCAPES", "ANSI_QUOTES"])
def test_a_backslash_that_the_session_reads_differently_is_refused(mysql: Warehouse, mode: str) -> None:
    mysql.execute(f"SET GLOBAL sql_mode = '{mode}'")
    try:
        mysql.execute("CREATE TABLE t (n integer)")
        for sql in ("SELECT 'a\\'; DELETE FROM t; -- '", 'SELECT "a\\"; DELETE FROM t; -- "'):
            with pytest.raises(InputError, match=f"sql_mode of this connection contains {mode}"):
                read(mysql, sql)
        assert read(mysql, "SELECT 'it''s' AS a, 'C:\\\\dir' AS b")
    finally:
        mysql.execute("SET GLOBAL sql_mode = DEFAULT")


def test_a_connection_with_autocommit_changes_nothing(postgres: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = postgres.hook.get_conn

    def with_autocommit() -> Any:
        conn = connect()
        conn.autocommit = True
        return conn

    postgres.execute("CREATE SEQUENCE numbers; CREATE TABLE t (n integer)")
    postgres.execute(
        "CREATE FUNCTION draw() RETURNS bigint LANGUAGE sql AS "
        "$$ INSERT INTO t VALUES (1); SELECT nextval('numbers') $$"
    )
    monkeypatch.setattr(postgres.hook, "get_conn", with_autocommit)
    with pytest.raises(WarehouseError, match="read-only transaction"):
        read(postgres, "SELECT draw()")
    assert postgres.execute("SELECT is_called, (SELECT count(*) FROM t) FROM numbers") == [(False, 0)]


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        (generic.SNOWFLAKE, "SELECT v:a.b::string AS x FROM t QUALIFY row_number() OVER (ORDER BY x) = 1"),
        (generic.SNOWFLAKE, "SELECT f.value FROM t, LATERAL FLATTEN(input => t.v) f WHERE a ILIKE ANY ('x%', 'y;')"),
        (generic.SNOWFLAKE, "SELECT $$;$$ AS a, 'it\\'s;' AS b FROM TABLE(RESULT_SCAN('x'))"),
        (
            generic.BIGQUERY,
            "SELECT * EXCEPT (a), r'\\';' AS b FROM `p.d.t`, UNNEST(items) AS i WHERE x IN UNNEST([1, 2])",
        ),
        (generic.BIGQUERY, 'SELECT """it\'s; "x" """ AS a, STRUCT(1 AS n) AS s FROM t FOR SYSTEM_TIME AS OF now'),
        (generic.DATABRICKS, "SELECT a.b[0] AS x, explode(c) AS y FROM t VERSION AS OF 3 LATERAL VIEW explode(d) AS z"),
        (generic.TRINO, "SELECT x FROM t CROSS JOIN UNNEST(a) WITH ORDINALITY AS u (x, n) WHERE regexp_like(x, ';')"),
        (generic.ORACLE, "SELECT q'[it's; ]' AS a, dbms_lob.substr(c, 10, 1) AS b FROM t WHERE ROWNUM < 5"),
        (generic.ORACLE, "SELECT id FROM t START WITH p IS NULL CONNECT BY PRIOR id = p FETCH FIRST 5 ROWS ONLY"),
        (
            generic.SQL_SERVER,
            "SELECT TOP (5) [a;b], N'x;' AS c FROM dbo.t WITH (NOLOCK) CROSS APPLY STRING_SPLIT(d, ';')",
        ),
        (generic.REDSHIFT, "SELECT DATEADD(day, 1, d) AS d, LISTAGG(a, ';') WITHIN GROUP (ORDER BY a) AS l FROM t"),
        (generic.GENERIC, "WITH a AS (SELECT ';' AS x) SELECT x FROM a WHERE x IN (SELECT y FROM t) -- ;"),
    ],
)
def test_databases_without_lexical_rules_of_our_own_run_what_sqlglot_parses(dialect: Any, sql: str) -> None:
    assert dialect.reading.check(sql) == sql
    assert dialect.reading.check(f"{sql}\n;") == f"{sql}\n"


@pytest.mark.parametrize(
    ("dialect", "sql"),
    [
        (generic.SNOWFLAKE, "SELECT seq.nextval"),
        (generic.SNOWFLAKE, "SELECT SYSTEM$CANCEL_QUERY('x')"),
        (generic.SNOWFLAKE, "EXECUTE IMMEDIATE $$ DELETE FROM t $$"),
        (generic.SNOWFLAKE, "COPY INTO t FROM @stage"),
        (generic.SNOWFLAKE, "WITH x AS PROCEDURE () RETURNS int LANGUAGE SQL AS 'DELETE FROM t' CALL x()"),
        (generic.BIGQUERY, "SELECT 1; DROP TABLE t"),
        (generic.BIGQUERY, "EXPORT DATA OPTIONS (uri = 'x') AS SELECT 1"),
        (generic.DATABRICKS, "SELECT java_method('java.lang.Runtime', 'exec')"),
        (generic.DATABRICKS, "INSERT OVERWRITE t SELECT 1"),
        (generic.DATABRICKS, "FROM t INSERT INTO u SELECT a"),
        (generic.TRINO, "SELECT * FROM TABLE(pg.system.query(query => 'DELETE FROM t'))"),
        (generic.TRINO, "CALL system.runtime.kill_query('x')"),
        (generic.ORACLE, "SELECT utl_http.request('http://x') FROM dual"),
        (generic.ORACLE, "SELECT sys.dbms_xmlgen.getxml('x') FROM dual"),
        (generic.ORACLE, "SELECT s.NEXTVAL FROM dual"),
        (generic.ORACLE, "WITH FUNCTION f RETURN NUMBER IS BEGIN DELETE FROM t; RETURN 1; END; SELECT f FROM dual"),
        (generic.ORACLE, "BEGIN DELETE FROM t; END;"),
        (generic.SQL_SERVER, "SELECT NEXT VALUE FOR s"),
        (generic.SQL_SERVER, "SELECT * FROM OPENROWSET('x', 'y', 'DELETE FROM t')"),
        (generic.SQL_SERVER, "SELECT 1 DELETE FROM t"),
        (generic.SQL_SERVER, "SELECT a INTO b FROM t"),
        (generic.SQL_SERVER, "SELECT 1 EXEC xp_cmdshell 'x'"),
        (generic.SQL_SERVER, "SELECT a FROM t\nDELETE FROM t"),
        (generic.SQL_SERVER, "SELECT a FROM t UPDATE t SET a = 1"),
        (generic.SQL_SERVER, "SELECT a FROM t x DROP TABLE t"),
        (generic.SQL_SERVER, "SELECT a FROM t x EXEC sp_who"),
        (generic.SQL_SERVER, "SELECT a FROM t x TRUNCATE TABLE t"),
        (generic.REDSHIFT, "UNLOAD ('SELECT 1') TO 's3://x'"),
        (generic.REDSHIFT, "SELECT pg_terminate_backend(1)"),
        (generic.GENERIC, "SELECT 1; DELETE FROM t"),
        (generic.GENERIC, "SELECT 1 DELETE FROM t"),
        (generic.GENERIC, "SELECT 1 EXEC('DELETE FROM t')"),
        (generic.GENERIC, "WITH x AS (DELETE FROM t RETURNING a) SELECT a FROM x"),
        (generic.GENERIC, "SELECT a FROM t this is not SQL"),
    ],
)
def test_databases_without_lexical_rules_of_our_own_run_nothing_else(dialect: Any, sql: str) -> None:
    with pytest.raises(InputError, match="Nothing was run, and nothing was uploaded"):
        dialect.reading.check(sql)


@pytest.mark.parametrize(("marks", "sql"), [("`", "SELECT `a;` FROM `t`"), ("[]", "SELECT [a;] FROM [t]")])
def test_the_quotation_marks_of_an_unknown_database_are_read(
    sqlite: Warehouse, monkeypatch: pytest.MonkeyPatch, marks: str, sql: str
) -> None:
    sqlite.execute("CREATE TABLE t AS SELECT 1 AS [a;]")
    extra = {"escape_word_format": f"{marks[0]}{{}}{marks[-1]}"}
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "other", "host": str(sqlite.path), "extra": extra})
    )
    assert read(Warehouse("generic", OtherHook("warehouse")), sql) == [(1,)]


@pytest.mark.parametrize("dialect", [*DIALECTS, generic.GENERIC], ids=lambda dialect: dialect.name)
def test_the_queries_that_we_write_ourselves_pass_in_every_dialect(dialect: Dialect) -> None:
    placeholder = dialect.placeholder or "?"
    for name in ("results", 'odd "name"; `x`', "größe"):
        table = dialect.quote_table(["schema", name]) if dialect.marks else '"schema"."t"'
        assert dialect.reading.check(dialect.probe(table))
        if dialect.marks and dialect.placeholder:
            sql = dialect.select("results", ["a", name], ["b", "c d"])
            assert dialect.reading.check(sql, placeholder=placeholder) == sql


def test_a_long_and_deep_statement_is_checked() -> None:
    values = ", ".join(f"({n}, 'text; {n}')" for n in range(5000))
    sql = f"SELECT * FROM (VALUES {values}) AS v(n, t)"
    assert POSTGRES.reading.check(sql) == sql
    deep = f"SELECT {'(' * 3000}1{')' * 3000}"
    assert MYSQL.reading.check(deep) == deep
    with pytest.raises(InputError, match="cannot be checked"):
        generic.GENERIC.reading.check(deep)


def test_the_role_of_the_page_can_read_in_postgres(postgres: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    database = postgres.database
    assert isinstance(database, Database)
    postgres.execute("CREATE TABLE t AS SELECT 1 AS n")
    postgres.execute(POSTGRES_GRANTS)
    try:
        postgres.execute("CREATE TABLE later AS SELECT 2 AS n")
        connection = json.loads(database.airflow_connection()) | {"login": "batch_reader", "password": "change me"}
        monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(connection))
        reader = Warehouse(postgres.dialect, sql_hook("warehouse"))
        assert read(reader, "SELECT n FROM t UNION SELECT n FROM later ORDER BY n") == [(1,), (2,)]
        with (
            psycopg.connect(database.dsn.replace("user=postgres", "user=batch_reader")) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute("SET TRANSACTION READ WRITE; DELETE FROM t")
    finally:
        postgres.execute("DROP OWNED BY batch_reader; DROP ROLE batch_reader")


@pytest.mark.parametrize("dialect", MYSQL_DRIVERS)
def test_the_user_of_the_page_can_read_in_mysql(
    dialect: str, mysql_database: MySqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_database.execute("CREATE TABLE t SELECT 1 AS n")
    for statement in MYSQL_GRANTS.replace("warehouse.*", f"{mysql_database.name}.*").split(";\n")[:-1]:
        mysql_database.execute(statement)
    try:
        reader = MySqlDatabase(
            mysql_database.host, mysql_database.port, "batch_reader", "change me", mysql_database.name
        )
        assert read(mysql_warehouse(dialect, reader, monkeypatch), "SELECT n FROM t") == [(1,)]
        with pytest.raises(Exception, match="DELETE command denied"):
            reader.execute("DELETE FROM t")
    finally:
        mysql_database.execute("DROP USER batch_reader")


def test_the_setting_of_the_page_keeps_duckdb_from_reading_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings,) = re.findall(r"`(\{\"settings\".*?\}\})`", PAGE)
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    path = tmp_path / "warehouse.duckdb"
    warehouse = duckdb_warehouse(path, monkeypatch)
    assert read(warehouse, f"FROM '{file}'") == [(1,)]
    locked = duckdb_warehouse(path, monkeypatch, **json.loads(settings))
    for sql in (f"FROM '{file}'", f"SELECT content FROM read_text('{file}')"):
        with pytest.raises(WarehouseError, match="file system operations are disabled"):
            read(locked, sql)
    assert read(locked, "SELECT 1 AS n") == [(1,)]
