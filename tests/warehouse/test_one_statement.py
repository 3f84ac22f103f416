"""The end of a statement is found by the lexical rules of the database."""

from __future__ import annotations

import pytest

from airflow_provider_batch.exceptions import InputError
from airflow_provider_batch.warehouse.dialects.mysql import MYSQL
from airflow_provider_batch.warehouse.dialects.postgres import POSTGRES


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT ';'",
        "SELECT 'it''s; here'",
        r"SELECT 'C:\', ';'",  # a backslash is a plain character in a standard string
        r"SELECT E'it\'s; here'",
        r"SELECT e'\\', 'x;'",
        r"SELECT date'\', ';'",  # the e before the quotation mark belongs to the word `date`
        'SELECT ";"',
        'SELECT "a"";"',
        "SELECT $$;$$",
        "SELECT $tag$ $$;$$ ; $tag$",
        "SELECT $größe$;$größe$",
        "SELECT a$b$c, ';' FROM t",
        "SELECT $1, ';'",
        "SELECT 1 -- ; not here",
        "SELECT /* ; /* ; */ ; */ 1",
    ],
)
def test_a_statement_without_a_semicolon_is_unchanged(sql: str) -> None:
    assert POSTGRES.reading.check(sql) == sql


def test_an_unterminated_comment_is_left_to_the_database() -> None:
    assert POSTGRES.reading.check("SELECT 1 /* ; SELECT 2;") == "SELECT 1 /* ; SELECT 2;"


@pytest.mark.parametrize("end", [";", " ;", ";;", "; -- done", "; /* done; /* nested; */ */ ;\n", ";\n-- done; too"])
def test_comments_after_a_semicolon_are_removed(end: str) -> None:
    assert POSTGRES.reading.check(f"SELECT ';', 1{end}").rstrip() == "SELECT ';', 1"


@pytest.mark.parametrize(
    "second_statement",
    ["SELECT 2", "-- done\nDELETE FROM t", "/* done */ 'x'", "; ; $$x$$", '"x"', "x -- y", "(SELECT 1);"],
)
def test_a_second_statement_is_refused(second_statement: str) -> None:
    with pytest.raises(InputError, match="more than one statement"):
        POSTGRES.reading.check(f"SELECT ';' ; {second_statement}")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ';' ; -- one", "SELECT ';' "),
        ("SELECT 'it\\'s;' # a; b", "SELECT 'it\\'s;' # a; b"),
        ('SELECT `a;``b`, "c;""d" /* e; */;', 'SELECT `a;``b`, "c;""d" /* e; */'),
        ("SELECT 1--1;", "SELECT 1--1"),
    ],
)
def test_a_single_statement_of_mysql_is_kept(sql: str, expected: str) -> None:
    assert MYSQL.reading.check(sql) == expected


@pytest.mark.parametrize("sql", ["SELECT 1; DELETE FROM t", "SELECT 1;--DELETE FROM t", "SELECT 1; 'x'"])
def test_a_second_statement_is_refused_by_the_rules_of_mysql(sql: str) -> None:
    with pytest.raises(InputError, match="more than one statement"):
        MYSQL.reading.check(sql)
