"""Hundreds of statements per database, all run: what reads returns its rows, and nothing else has any effect.

The statements are in sql_corpus/: `common.toml` for every database, the others for one each.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from airflow_provider_batch.exceptions import InputError, WarehouseError
from airflow_provider_batch.warehouse.read import read_rows
from tests.warehouse import conftest
from tests.warehouse.conftest import MYSQL_DRIVERS, Warehouse

CORPUS = Path(__file__).parent / "sql_corpus"

#: databases and drivers that the corpus runs with, and the file with the statements of that database
FILES = {
    "sqlite": "sqlite",
    "duckdb": "duckdb",
    "psycopg": "postgres",
    "psycopg2": "postgres",
    **dict.fromkeys(MYSQL_DRIVERS, "mysql"),
}


@dataclass(frozen=True)
class Corpus:
    setup: tuple[str, ...]
    legal: tuple[str, ...]
    attacks: tuple[str, ...]


def load(name: str) -> Corpus:
    files = [tomllib.loads((CORPUS / f"{file}.toml").read_text()) for file in ("common", name)]
    return Corpus(
        tuple(sql for file in files for sql in file["setup"]),
        *(
            tuple(sql for file in files for group in file[kind].values() for sql in group)
            for kind in ("legal", "attacks")
        ),
    )


@dataclass(frozen=True)
class Target:
    """A database with the tables of the corpus, and a folder in which an attack might write a file."""

    warehouse: Warehouse
    corpus: Corpus
    folder: Path

    def fill_in(self, sql: str) -> str:
        """Return the statement with the folder and, for PostgreSQL, how to connect to the database."""
        dsn = self.warehouse.database.dsn if self.warehouse.database is not None else ""
        return sql.replace("{folder}", str(self.folder)).replace("{dsn}", dsn)

    def fingerprint(self) -> Any:
        """Return everything that an attack might change."""
        files = {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}
        path = self.warehouse.path
        if path is not None:
            # the bytes of the database itself, and of every file next to it
            return files, {item.name: item.read_bytes() for item in path.parent.iterdir() if item.is_file()}
        with closing(self._connect()) as conn, closing(conn.cursor()) as cursor:
            state = []
            for query in POSTGRES_STATE if self.warehouse.is_postgres else MYSQL_STATE:
                cursor.execute(query)
                state.append(cursor.fetchall())
        return files, state

    def _connect(self) -> Any:
        if self.warehouse.database is not None:
            return psycopg.connect(self.warehouse.database.dsn)
        assert self.warehouse.mysql is not None
        return self.warehouse.mysql.connect()


POSTGRES_STATE = (
    "SELECT * FROM tickets ORDER BY id",
    "SELECT oid, relname, relkind, relnatts FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT oid, proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT last_value, is_called FROM numbers",
    "SELECT slot_name, restart_lsn FROM pg_replication_slots ORDER BY 1",
    "SELECT roname FROM pg_replication_origin ORDER BY 1",
    "SELECT loid, data FROM pg_largeobject ORDER BY 1",
    "SELECT rolname, rolconfig FROM pg_roles ORDER BY 1",
    "SELECT extname FROM pg_extension ORDER BY 1",
    "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    "SELECT name, setting FROM pg_file_settings ORDER BY seqno",
    "SELECT description FROM pg_description WHERE objoid = 'tickets'::regclass",
    "SELECT datname, datconnlimit FROM pg_database ORDER BY 1",
    "SELECT gid FROM pg_prepared_xacts",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
    "SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()",
    "SELECT stats_reset FROM pg_stat_bgwriter",
    "SELECT count(*) FROM pg_collation",
    "SELECT pg_conf_load_time()",
    "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 24)",
)

MYSQL_STATE = (
    "SELECT * FROM tickets ORDER BY id",
    "SELECT * FROM plain ORDER BY id",
    "SELECT table_name, engine, create_time FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 1",
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() ORDER BY 1, 2",
    "SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT LIKE 'test%' ORDER BY 1",
    "SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE() ORDER BY 1",
    "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()",
    "SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE()",
    "SELECT grantee, privilege_type FROM information_schema.user_privileges ORDER BY 1, 2",
    "SELECT plugin_name FROM information_schema.plugins ORDER BY 1",
    "SELECT @@global.max_connections, @@global.read_only, @@global.sql_mode",
    "SELECT IS_FREE_LOCK('a')",
)


@pytest.fixture(params=FILES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    """The tables of the corpus, in each database."""
    name: str = request.param
    monkeypatch = request.getfixturevalue("monkeypatch")
    folder = tmp_path / "files"
    folder.mkdir()
    home = tmp_path / "database"
    home.mkdir()
    (folder / "rows.csv").write_text("id,title\n1,a\n2,b\n")
    if name == "sqlite":
        warehouse = conftest.sqlite_warehouse(home / "warehouse.db", monkeypatch)
    elif name == "duckdb":
        warehouse = conftest.duckdb_warehouse(home / "warehouse.duckdb", monkeypatch)
    elif name in MYSQL_DRIVERS:
        warehouse = conftest.mysql_warehouse(name, request.getfixturevalue("mysql_database"), monkeypatch)
    else:
        warehouse = conftest.postgres_warehouse(name, request.getfixturevalue("postgres_database"), monkeypatch)
    corpus = load(FILES[name])
    for sql in corpus.setup:
        warehouse.execute(sql)
    if warehouse.is_duckdb:
        warehouse.execute("CHECKPOINT")
    slots = warehouse.is_postgres
    if slots:
        warehouse.execute("SELECT pg_create_physical_replication_slot('kept', true)")
    # a server that runs as another user must be able to write here, otherwise an attack fails for the wrong reason
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.geteuid() and str(path) not in ("/", "/tmp"):
            path.chmod(0o777)
    yield Target(warehouse, corpus, folder)
    if slots:
        with suppress(Exception):
            warehouse.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


@pytest.mark.parametrize("name", sorted(set(FILES.values())))
def test_the_corpus_has_hundreds_of_statements_per_database(name: str) -> None:
    corpus = load(name)
    assert len(set(corpus.legal)) == len(corpus.legal) >= 100
    assert len(set(corpus.attacks)) == len(corpus.attacks) >= 100


def test_every_query_of_the_corpus_returns_its_rows(target: Target) -> None:
    problems = []
    for sql in map(target.fill_in, target.corpus.legal):
        try:
            with read_rows(target.warehouse.hook, sql) as rows:
                if not list(rows):
                    problems.append(f"{sql!r}: no rows")
        except (InputError, WarehouseError) as error:
            problems.append(f"{sql!r}: {error}")
    assert not problems, "\n".join(problems)


def test_no_attack_of_the_corpus_has_an_effect(target: Target) -> None:
    problems = []
    before = target.fingerprint()
    for sql in map(target.fill_in, target.corpus.attacks):
        try:
            with read_rows(target.warehouse.hook, sql) as rows:
                list(rows)
            problems.append(f"{sql!r}: ran")
        except (InputError, WarehouseError):
            pass
        after = target.fingerprint()
        if after != before:
            problems.append(f"{sql!r}: changed something")
            before = after
    assert not problems, "\n".join(problems)
