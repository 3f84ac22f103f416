"""A real MariaDB or MySQL server for tests, if one is available: no wheel contains the server.

The environment variable AIRFLOW_BATCH_TEST_MYSQL can name a server (mysql://user:password@host:port, whose user may
create databases). Otherwise these fixtures start `mariadbd` or `mysqld` on a free loopback port, if it is on the PATH.
On Debian and Ubuntu it comes with the package mariadb-server and lies in /usr/sbin. Without a server, or without
Airflow's MySQL provider, the tests that need one are skipped with a reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.database_server import ServerFolder, temporary_home

#: read at import time, before tests/conftest.py replaces the environment
URL = os.environ.get("AIRFLOW_BATCH_TEST_MYSQL", "")

START_SECONDS = 120


@dataclass(frozen=True)
class MySqlDatabase:
    """An empty database, and the ways to connect to it."""

    host: str
    port: int
    user: str
    password: str
    name: str

    def airflow_connection(self, **extra: object) -> str:
        """Return the value of an `AIRFLOW_CONN_...` variable."""
        return json.dumps(
            {
                "conn_type": "mysql",
                "host": self.host,
                "port": self.port,
                "login": self.user,
                "password": self.password,
                "schema": self.name,
                "extra": extra,
            }
        )

    def connect(self) -> Any:
        import MySQLdb

        return MySQLdb.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=self.name,
            charset="utf8mb4",
        )

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one or several statements and commit. Return the rows of the last statement that has any."""
        with contextlib.closing(self.connect()) as conn:
            cursor = conn.cursor()
            cursor.execute(sql)
            rows = list(cursor.fetchall())
            while cursor.nextset():
                rows = list(cursor.fetchall()) or rows
            conn.commit()
            return rows


@dataclass(frozen=True)
class MySqlServer:
    host: str
    port: int
    user: str
    password: str

    @contextlib.contextmanager
    def database(self) -> Iterator[MySqlDatabase]:
        """Create a database, and drop it afterwards."""
        admin = MySqlDatabase(self.host, self.port, self.user, self.password, "information_schema")
        name = f"test_{uuid.uuid4().hex[:12]}"
        admin.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield MySqlDatabase(self.host, self.port, self.user, self.password, name)
        finally:
            admin.execute(f"DROP DATABASE {name}")


def _program(*names: str) -> str | None:
    # Debian installs servers in folders that are not on an ordinary user's PATH.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return next(filter(None, (shutil.which(name, path=path) for name in names)), None)


@contextlib.contextmanager
def running_mysql(program: str) -> Iterator[MySqlServer]:
    """Start a server on an empty data folder. Stop it and remove everything at the end."""
    with temporary_home("my") as home:
        folder = ServerFolder(home)
        temporary = home / "tmp"
        temporary.mkdir()
        # Two servers that start at the same time in a shared /tmp find each other's temporary tables and abort.
        common = ["--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={temporary}"]
        if os.geteuid() == 0:
            common.append("--user=root")
        install = _program("mariadb-install-db") if "mariadb" in os.path.realpath(program) else None
        if install:
            folder.run([install, *common, "--skip-test-db"], START_SECONDS)
        else:
            folder.run([program, *common, "--initialize-insecure"], START_SECONDS)
        password = secrets.token_hex(16)
        start = home / "start.sql"
        start.write_text(
            f"CREATE USER 'batch'@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON *.* TO 'batch'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        start.chmod(0o600)
        server = MySqlServer("127.0.0.1", _free_port(), "batch", password)
        command = [
            program,
            *common,
            f"--socket={home / 'socket'}",
            f"--pid-file={home / 'pid'}",
            f"--init-file={start}",
            f"--bind-address={server.host}",
            f"--port={server.port}",
            "--skip-name-resolve",
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-buffer-pool-size=64M",
        ]
        with _serving(folder, command, server):
            yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _serving(folder: ServerFolder, command: list[str], server: MySqlServer) -> contextlib.AbstractContextManager[int]:
    import MySQLdb

    database = MySqlDatabase(server.host, server.port, server.user, server.password, "information_schema")
    return folder.serving(
        command, lambda: database.connect().close(), MySQLdb.OperationalError, START_SECONDS, signal.SIGTERM
    )


@pytest.fixture(scope="session")
def mysql_server() -> Iterator[MySqlServer]:
    """One server for the whole test session, started on first use."""
    needs = "apache-airflow-providers-mysql is not installed: pip install 'airflow-provider-batch[mysql]'"
    for module in ("MySQLdb", "mysql.connector", "airflow.providers.mysql.hooks.mysql"):
        pytest.importorskip(module, reason=needs, exc_type=ImportError)
    if URL:
        parts = urlsplit(URL)
        user, password = unquote(parts.username or "root"), unquote(parts.password or "")
        yield MySqlServer(parts.hostname or "127.0.0.1", parts.port or 3306, user, password)
        return
    program = _program("mariadbd", "mysqld")
    if program is None:
        pytest.skip("no MariaDB or MySQL server: put mariadbd or mysqld on the PATH, or set AIRFLOW_BATCH_TEST_MYSQL")
    with running_mysql(program) as server:
        yield server


@pytest.fixture
def mysql_database(mysql_server: MySqlServer) -> Iterator[MySqlDatabase]:
    """An empty database for one test."""
    with mysql_server.database() as database:
        yield database
