"""Fixtures for tests that run DAGs: an Airflow database, connections, batch servers and a warehouse.

tests/conftest.py sets AIRFLOW_HOME. The database in it is migrated once for each test session.
"""

from __future__ import annotations

import email
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import Message
from email.policy import default
from pathlib import Path
from typing import Any

import openai
import pytest

from airflow_provider_batch.testing import LocalServer
from tests.airflow.in_process_api import await_in_process_api_server
from tests.airflow.jobs import Ticket, call_counter, client_of, make_tickets


@pytest.fixture(scope="session")
def airflow_home() -> Path:
    """Migrate the metadata database and return AIRFLOW_HOME."""
    process = subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    await_in_process_api_server()
    return Path(os.environ["AIRFLOW_HOME"])


@pytest.fixture(scope="session")
def _no_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("no-certificates")


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch, _no_certificates: Path) -> None:
    """Let clients load no certificates. The tests need none, and loading them takes 40 ms of CPU for each client."""
    monkeypatch.setenv("SSL_CERT_DIR", str(_no_certificates))


@pytest.fixture(autouse=True)
def _openai_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the clients that the test created.

    `OpenAIHook` never closes its client. Outside of tests, the end of the task's process does. In a test, the garbage
    collector may collect the client's sockets before the client, which causes a ResourceWarning.
    """
    clients: list[openai.OpenAI] = []
    init = openai.OpenAI.__init__

    def record(client: openai.OpenAI, *args: Any, **options: Any) -> None:
        init(client, *args, **options)
        clients.append(client)

    monkeypatch.setattr(openai.OpenAI, "__init__", record)
    yield
    for client in clients:
        client.close()


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that adds an Airflow connection: `connect("warehouse", conn_type="sqlite", host="…")`."""

    def add(conn_id: str, **fields: object) -> None:
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))

    return add


@pytest.fixture
def offline(airflow_home: Path, offline_batches: LocalServer) -> None:
    """Point `openai_default` to the local batch server of the session, and staging to a folder of the test."""


@pytest.fixture
def client(batch_server: LocalServer) -> openai.OpenAI:
    """Return a client of the local batch server of the session."""
    return client_of(batch_server)


@pytest.fixture
def serve(tmp_path: Path, connect: Callable[..., None], offline: None) -> Iterator[Callable[..., LocalServer]]:
    """Return a function that starts another local batch server and points `openai_default` to it.

    Its first argument is a name, and the others are the server's options: `serve("slow", in_progress=600)`.
    """
    with ExitStack() as servers:

        def start(
            name: str = "server", *, openai_client_kwargs: dict[str, Any] | None = None, **options: Any
        ) -> LocalServer:
            server = servers.enter_context(LocalServer(tmp_path / name, admin=True, **options))
            extra = {"openai_client_kwargs": openai_client_kwargs or {}}
            connect("openai_default", conn_type="openai", password="local", host=server.base_url, extra=extra)
            return server

        yield start


@pytest.fixture
def server(serve: Callable[..., LocalServer]) -> LocalServer:
    """Start a batch server for this test. Its batches take no time."""
    return serve()


@pytest.fixture
def slow_server(serve: Callable[..., LocalServer]) -> LocalServer:
    """Start a batch server that takes ten minutes for each batch; `slow_server.advance(600)` skips this time."""
    return serve("slow", in_progress=600)


@pytest.fixture(scope="module")
def _faulty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    with LocalServer(tmp_path_factory.mktemp("faulty-server"), admin=True) as server:
        yield server


@pytest.fixture
def faulty_server(
    _faulty_server: LocalServer, offline: None, connect_batch_server: Callable[[LocalServer], None]
) -> Iterator[LocalServer]:
    """Point `openai_default` to the module's batch server, which has no faults until the test calls `set_faults`."""
    _faulty_server.set_faults()
    connect_batch_server(_faulty_server)
    yield _faulty_server
    _faulty_server.set_faults()


@pytest.fixture
def count_calls(server: LocalServer) -> Callable[[], dict[str, int]]:
    """Return a function that counts the uploads, creates and synchronous requests at `server` since its last call."""
    return call_counter(server)


@pytest.fixture
def tickets() -> list[Ticket]:
    """Return the rows of the table `tickets`. Modules that need other rows override this fixture."""
    return [(f"T-{n}", f"Ticket {n}", "The invoice is wrong", "billing") for n in range(1, 6)]


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None], offline: None, tickets: list[Ticket]) -> Path:
    """Create a SQLite file with the table `tickets` and point the connection `warehouse` to it. Return its path."""
    path = tmp_path / "warehouse.sqlite"
    make_tickets(path, tickets)
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until a condition is true, for at most 60 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "The condition did not become true within 60 s."
            time.sleep(0.05)

    return wait


class MailHandler(socketserver.StreamRequestHandler):
    """As much of SMTP as a client needs to deliver a mail."""

    def handle(self) -> None:
        self.wfile.write(b"220 test\r\n")
        for line in self.rfile:
            command = line[:4].upper()
            self.wfile.write({b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(command, b"250 ok\r\n"))
            if command == b"DATA":
                text = b"".join(iter(self.rfile.readline, b".\r\n"))
                self.server.mails.append(email.message_from_bytes(text, policy=default))  # type: ignore[attr-defined]
                self.wfile.write(b"250 ok\r\n")
            if command == b"QUIT":
                return


@pytest.fixture
def mails(connect: Callable[..., None]) -> Iterator[list[Message]]:
    """A mail server behind the connection `smtp_default`, as the list of the mails that it got."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailHandler) as server:
        server.mails = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
        port = server.server_address[1]
        connect("smtp_default", conn_type="smtp", host="127.0.0.1", port=port, extra=extra)
        yield server.mails  # type: ignore[attr-defined]
        server.shutdown()
        thread.join()
