"""The tests run against a real PostgreSQL with pgvector, in a separate database for each test."""

from __future__ import annotations

import pytest

from tests.postgres import Database


def test_the_server_is_postgresql_18_with_pgvector(postgres_database: Database) -> None:
    ((version,),) = postgres_database.execute("SHOW server_version")
    assert str(version).startswith("18.")
    postgres_database.execute("CREATE EXTENSION vector")
    assert postgres_database.execute("SELECT '[1,2]'::vector::text") == [("[1,2]",)]


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_has_its_own_empty_database(postgres_database: Database, run: int) -> None:
    postgres_database.execute("CREATE TABLE only_here (n int)")
