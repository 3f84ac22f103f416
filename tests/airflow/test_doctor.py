"""`airflow-batch doctor` against good and broken set-ups, each of them real."""

from __future__ import annotations

import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import duckdb
import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_batch.cli import main
from airflow_provider_batch.cli.doctor import command, provider
from airflow_provider_batch.local.process import LocalServer
from tests.bucket import Bucket
from tests.postgres import Database

KEY = "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz"
MODELS = (200, {"object": "list", "data": [{"id": "gpt-5-mini"}, {"id": "gpt-4o-mini"}]})
EMPTY = (200, {"object": "list", "data": []})
PAGE = "<!doctype html><html><body>Welcome to the gateway</body></html>"

Response = tuple[int, Any] | tuple[int, Any, dict[str, str]]


@contextmanager
def serving(responses: Mapping[str, Response]) -> Iterator[str]:
    """Serve these responses by path, and yield the base URL. Any other path is not found."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content, *more = responses.get(
                self.path.partition("?")[0], (404, {"error": {"message": "No path"}})
            )
            headers: dict[str, str] = more[0] if more else {}
            body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response_only(status)
            self.send_header("Date", headers.pop("Date", format_datetime(datetime.now(UTC), usegmt=True)))
            self.send_header("Content-Type", "text/html" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            raise AssertionError("doctor sent something that could be billed")

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()


Doctor = Callable[..., tuple[int, dict[str, list[dict[str, str]]]]]


@pytest.fixture(autouse=True)
def _staging(airflow_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__OPENAI_BATCH__STAGING", (tmp_path / "staging").as_uri())
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Return a function that runs the command and returns its exit code and its checks by name."""

    def run(*arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
        capsys.readouterr()
        code = main.main(["doctor", "--json", *arguments])
        output = capsys.readouterr()
        assert "Traceback" not in output.out + output.err
        assert KEY not in output.out + output.err
        checks: dict[str, list[dict[str, str]]] = {}
        for check in json.loads(output.out):
            checks.setdefault(check["name"], []).append(check)
        return code, checks

    return run


@pytest.fixture
def connect_server(connect: Callable[..., None]) -> Callable[..., None]:
    def point(host: str, **fields: Any) -> None:
        connect("openai_default", **{"conn_type": "openai", "password": KEY, "host": host, **fields})

    return point


def of(checks: dict[str, list[dict[str, str]]], name: str) -> tuple[str, str]:
    """Return the status of the only check with this name, and its message with what to do."""
    (check,) = checks[name]
    return check["status"], f"{check['message']} {check.get('fix', '')}"


# A good set-up


def test_a_good_set_up_has_no_problem_at_the_provider_and_in_staging(
    doctor: Doctor, offline_batches: LocalServer, tmp_path: Path
) -> None:
    _, checks = doctor("--model", "gpt-5-mini")

    for name in ("connection", "server", "batches", "files", "clock", "staging", "exclusive create", "versions"):
        assert [check["status"] for check in checks[name]] == ["ok"], checks[name]
    assert "gpt-5-mini" in of(checks, "prices")[1]
    assert not (tmp_path / "staging").exists()


def test_the_output_has_a_line_for_each_check_and_what_to_do(
    connect: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    connect("openai_default", conn_type="openai", password="sk-...")
    assert main.main(["doctor"]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("problem  connection  ")
    assert "is a placeholder, not a key" in lines[0]
    assert lines[-1].endswith("Nothing was billed.")
    assert any(line.startswith("ok       exclusive create") for line in lines)


def test_the_command_runs_on_its_own_and_says_what_it_cannot_check(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path / "empty home"),
        "AIRFLOW_CONN_OPENAI_DEFAULT": json.dumps({"conn_type": "openai", "password": "sk-..."}),
    }
    environment.pop("_AIRFLOW_PROCESS_CONTEXT", None)
    process = subprocess.run(
        [sys.executable, "-m", "airflow_provider_batch.cli", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 1
    assert "Traceback" not in process.stdout + process.stderr
    assert "unknown  triggerer" in process.stdout
    assert "cannot be checked from here" in process.stdout
    assert not (tmp_path / "empty home" / "airflow.db").exists()


# The provider


def test_a_missing_connection_is_a_problem(doctor: Doctor) -> None:
    code, checks = doctor("--conn-id", "no_such_connection")
    assert code == 1
    assert of(checks, "connection") == (
        "problem",
        "There is no connection 'no_such_connection'. Nothing was uploaded. Create one of type OpenAI, with the API "
        "key as its password (Admin > Connections). ",
    )


def test_a_variable_that_is_no_connection_is_a_problem_of_the_variable(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_CUT_OFF", '{"conn_type": "openai", ')
    code, checks = doctor("--conn-id", "cut_off")
    assert code == 1
    status, text = of(checks, "connection")
    assert status == "problem"
    assert "AIRFLOW_CONN_CUT_OFF is set, but its value cannot be read as a connection" in text
    assert "Correct the variable" in text
    assert "Admin > Connections" not in text


def test_a_wrong_key_is_a_problem(doctor: Doctor, connect_server: Callable[..., None]) -> None:
    error = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}
    with serving({"/v1/models": (401, error)}) as base_url:
        connect_server(base_url)
        code, checks = doctor()

    assert code == 1
    status, text = of(checks, "server")
    assert status == "problem"
    assert "refuses the key: HTTP 401" in text
    assert "Create a new key" in text
    assert "batches" not in checks


def test_a_key_without_the_right_to_use_batches_is_a_problem(
    doctor: Doctor, connect_server: Callable[..., None]
) -> None:
    error = {"error": {"message": "Missing scopes: api.batches.read", "code": "insufficient_permissions"}}
    with serving({"/v1/models": MODELS, "/v1/batches": (403, error), "/v1/files": EMPTY}) as base_url:
        connect_server(base_url)
        code, checks = doctor()

    assert code == 1
    status, text = of(checks, "batches")
    assert status == "problem"
    assert "may not use the Batch API: HTTP 403" in text
    assert "permissions Batches and Files" in text
    assert of(checks, "server")[0] == of(checks, "files")[0] == "ok"


def test_a_server_without_a_batch_api_is_a_problem(doctor: Doctor, connect_server: Callable[..., None]) -> None:
    with serving({"/v1/models": MODELS}) as base_url:
        connect_server(base_url)
        code, checks = doctor()

    assert code == 1
    assert of(checks, "batches")[0] == "problem"
    assert "the server has no Batch API" in of(checks, "batches")[1]
    assert of(checks, "files")[0] == "unknown"


@pytest.mark.parametrize("response", [(200, PAGE), (200, ["a"]), (200, {"data": "x"}), (200, "")])
def test_a_page_instead_of_an_answer_is_a_problem(
    doctor: Doctor, connect_server: Callable[..., None], response: Response
) -> None:
    with serving({"/v1/models": response, "/v1/batches": response, "/v1/files": response}) as base_url:
        connect_server(base_url)
        code, checks = doctor("--model", "gpt-5-mini")

    assert code == 1
    assert of(checks, "server")[0] == "problem"
    assert "other than a list of models" in of(checks, "server")[1]
    assert of(checks, "batches")[0] == "problem"
    assert of(checks, "files")[0] != "ok" or isinstance(response[1], dict)


def test_an_error_page_of_a_gateway_is_not_printed(doctor: Doctor, connect_server: Callable[..., None]) -> None:
    with serving({"/v1/models": (502, PAGE), "/v1/batches": (502, PAGE)}) as base_url:
        connect_server(base_url)
        _, checks = doctor()

    assert of(checks, "server") == (
        "unknown",
        "Listing the models failed: HTTP 502, without an error of an API. Try again later.",
    )


def test_a_redirect_to_another_host_is_a_problem(doctor: Doctor, connect_server: Callable[..., None]) -> None:
    with serving({"/v1/models": (302, "", {"Location": "https://login.example/"})}) as base_url:
        connect_server(base_url)
        code, checks = doctor()

    assert code == 1
    assert of(checks, "server")[0] == "problem"
    assert "https://login.example" in of(checks, "server")[1]


def test_a_server_that_hangs_is_a_problem_and_the_other_checks_still_run(
    doctor: Doctor, connect_server: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "TIMEOUT", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connect_server(f"http://127.0.0.1:{listening.getsockname()[1]}/v1")
        code, checks = doctor()

    assert code == 1
    assert "did not answer" in of(checks, "server")[1]
    assert of(checks, "exclusive create")[0] == "ok"


@pytest.mark.parametrize(
    ("host", "text"),
    [("http://127.0.0.1:9/v1", "whether the server runs"), ("https://no-such-host.invalid/v1", "spelling of Host")],
)
def test_a_server_that_is_not_there_is_a_problem(
    doctor: Doctor, connect_server: Callable[..., None], host: str, text: str
) -> None:
    connect_server(host)
    code, checks = doctor()

    assert code == 1
    assert of(checks, "server")[0] == "problem"
    assert text in of(checks, "server")[1]


def test_a_clock_that_is_wrong_is_a_warning(doctor: Doctor, connect_server: Callable[..., None]) -> None:
    date = format_datetime(datetime.now(UTC) - timedelta(minutes=10), usegmt=True)
    responses: dict[str, Response] = {"/v1/models": (*MODELS, {"Date": date}), "/v1/batches": EMPTY, "/v1/files": EMPTY}
    with serving(responses) as base_url:
        connect_server(base_url)
        _, checks = doctor()

    status, text = of(checks, "clock")
    assert status == "warning"
    assert "seconds ahead of the server's" in text


def test_a_model_that_is_not_listed_is_named_with_a_similar_one(
    doctor: Doctor, connect_server: Callable[..., None]
) -> None:
    with serving({"/v1/models": MODELS, "/v1/batches": EMPTY, "/v1/files": EMPTY}) as base_url:
        connect_server(base_url)
        _, checks = doctor("--model", "gpt-5-min", "--model", "gpt-4o-mini")

    assert [check["status"] for check in checks["model"]] == ["warning", "ok"]
    assert "Did you mean 'gpt-5-mini'?" in checks["model"][0]["fix"]
    assert [check["status"] for check in checks["prices"]] == ["warning", "ok"]


def test_certificates_that_do_not_exist_are_a_problem(
    doctor: Doctor, connect_server: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/no/such/file.pem")
    connect_server("https://127.0.0.1:9/v1")
    code, checks = doctor()

    assert code == 1
    assert of(checks, "certificates")[0] == "problem"
    assert "connection" in checks


# Staging


def test_staging_that_ignores_the_exclusive_mode_is_a_problem(doctor: Doctor, connect: Callable[..., None]) -> None:
    class Replacing(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
        """A store that ignores the exclusive mode."""

        cachable = False

        def _open(self, path: str, mode: str = "rb", *args: Any, **options: Any) -> Any:
            return super()._open(path, mode.replace("x", "w"), *args, **options)

    conn_id = f"c{secrets.token_hex(8)}"
    attach("memory", conn_id=conn_id, fs=Replacing())
    code, checks = doctor("--staging", f"memory://{conn_id}@bucket/staging")

    assert code == 1
    status, text = of(checks, "exclusive create")
    assert status == "problem"
    assert "Jobs could pay twice" in text


def test_an_object_store_passes_and_nothing_stays_in_it(doctor: Doctor) -> None:
    conn_id = f"c{secrets.token_hex(8)}"
    bucket = Bucket()
    attach("memory", conn_id=conn_id, fs=bucket)
    _, checks = doctor("--staging", f"memory://{conn_id}@bucket/staging")

    assert of(checks, "exclusive create")[0] == "ok"
    assert of(checks, "staging")[0] == "ok"
    assert not bucket.store


def test_an_unknown_store_is_a_problem(doctor: Doctor) -> None:
    code, checks = doctor("--staging", "nosuch://bucket/staging")

    assert code == 1
    assert [check["status"] for check in checks["staging"]] == ["ok", "problem"]
    assert "no filesystem" in checks["staging"][1]["message"]


def test_a_relative_path_of_staging_is_a_problem(doctor: Doctor) -> None:
    code, checks = doctor("--staging", "batch_staging")

    assert code == 1
    assert [check["status"] for check in checks["staging"]] == ["problem"]
    assert "not an absolute path" in checks["staging"][0]["message"]


def test_a_folder_that_cannot_be_created_is_a_problem(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    code, checks = doctor("--staging", str(tmp_path / "file" / "staging"))

    assert code == 1
    assert checks["staging"][-1]["status"] == "problem"


def test_a_local_disk_with_an_executor_of_many_machines_is_a_problem(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    code, checks = doctor()

    assert code == 1
    assert of(checks, "staging")[0] == "problem"
    assert "CeleryExecutor may run the next task on another machine" in of(checks, "staging")[1]


# The warehouse


def test_a_path_that_is_not_the_host_of_a_sqlite_connection_is_explained(
    doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", f"sqlite:///{tmp_path}/warehouse.sqlite")

    _, checks = doctor("--warehouse-conn-id", "warehouse")

    assert of(checks, "warehouse")[0] == "problem"
    assert '"host": "/path/to/file.sqlite"' in str(checks)


def test_a_warehouse_that_may_be_written_is_ok_and_unchanged(
    doctor: Doctor, connect: Callable[..., None], postgres_database: Database
) -> None:
    connect("warehouse", **json.loads(postgres_database.airflow_connection()))
    _, checks = doctor("--warehouse-conn-id", "warehouse", "--table", "public.answers")

    assert of(checks, "warehouse")[0] == "ok"
    assert of(checks, "results table")[0] == "ok"
    assert [check["status"] for check in checks["encoding"] if "database" in check["message"]] == ["ok"]
    assert postgres_database.execute("SELECT count(*) FROM pg_class WHERE relname LIKE 'airflow_batch%'") == [(0,)]


def test_a_user_of_postgres_who_may_only_read_is_a_problem(
    doctor: Doctor, connect: Callable[..., None], postgres_database: Database
) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    postgres_database.execute(f"CREATE ROLE {role} LOGIN")
    postgres_database.execute(f"CREATE TABLE answers (id int); GRANT SELECT ON answers TO {role}")
    try:
        connect("warehouse", **{**json.loads(postgres_database.airflow_connection()), "login": role})
        code, checks = doctor("--warehouse-conn-id", "warehouse", "--table", "answers")
        assert code == 1
        assert of(checks, "warehouse")[0] == "ok"
        status, text = of(checks, "results table")
        assert status == "problem"
        assert "may read, but not create a table in the default schema: permission denied" in text
        assert "set results_conn_id" in text

        postgres_database.execute(f"GRANT INSERT ON answers TO {role}")
        _, checks = doctor("--warehouse-conn-id", "warehouse", "--table", "answers")
        assert of(checks, "results table")[0] == "ok"
    finally:
        postgres_database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_an_encoding_that_cannot_hold_every_text_is_a_warning(
    doctor: Doctor, connect: Callable[..., None], postgres_database: Database
) -> None:
    import psycopg

    name = f"latin_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_database.dsn, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".encode())
        connect("warehouse", **{**json.loads(postgres_database.airflow_connection()), "schema": name})
        _, checks = doctor("--warehouse-conn-id", "warehouse")
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    (encoding,) = [check for check in checks["encoding"] if "database" in check["message"]]
    assert encoding["status"] == "warning"
    assert "LATIN1" in encoding["message"]


def test_a_sqlite_file_that_may_only_be_read_is_a_problem(
    doctor: Doctor, connect: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "warehouse.sqlite"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE tickets (id)")
    connect("warehouse", conn_type="sqlite", host=str(path), extra={"mode": "ro"})
    code, checks = doctor("--warehouse-conn-id", "warehouse")

    assert code == 1
    assert of(checks, "warehouse")[0] == "ok"
    assert "readonly database" in of(checks, "results table")[1]


def test_a_file_that_does_not_exist_is_not_created(
    doctor: Doctor, connect: Callable[..., None], tmp_path: Path
) -> None:
    connect("warehouse", conn_type="sqlite", host=str(tmp_path / "typo.sqlite"))
    _, checks = doctor("--warehouse-conn-id", "warehouse")

    assert of(checks, "warehouse")[0] == "warning"
    assert not (tmp_path / "typo.sqlite").exists()


def test_a_duckdb_file_that_another_process_holds_is_a_problem(
    doctor: Doctor, connect: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "warehouse.duckdb"
    duckdb.connect(str(path)).close()
    connect("warehouse", conn_type="duckdb", host=str(path))
    _, checks = doctor("--warehouse-conn-id", "warehouse")
    assert of(checks, "results table")[0] == "ok"

    holder = subprocess.Popen(
        [sys.executable, "-c", f"import duckdb; c = duckdb.connect({str(path)!r}); print('held', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        code, checks = doctor("--warehouse-conn-id", "warehouse")
    finally:
        holder.communicate(b"\n", timeout=60)
    assert code == 1
    assert of(checks, "warehouse")[0] == "problem"
    assert "Another process holds the file" in of(checks, "warehouse")[1]


def test_a_database_that_hangs_is_a_problem(
    doctor: Doctor, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "TIME_LIMIT", 5.0)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        connect("warehouse", conn_type="postgres", host="127.0.0.1", port=listening.getsockname()[1], login="me")
        start = time.monotonic()
        code, checks = doctor("--warehouse-conn-id", "warehouse")
    assert time.monotonic() - start < 60
    assert code == 1
    assert "No answer within 5 seconds" in of(checks, "warehouse")[1]


@pytest.mark.parametrize("conn_type", ["http", "no_such_type"])
def test_a_connection_that_is_no_warehouse_is_a_problem(
    doctor: Doctor, connect: Callable[..., None], conn_type: str
) -> None:
    connect("warehouse", conn_type=conn_type, host="localhost")
    code, checks = doctor("--warehouse-conn-id", "warehouse")

    assert code == 1
    assert of(checks, "warehouse")[0] == "problem"


# Airflow


def test_the_triggerer_is_found_in_the_database_of_airflow(doctor: Doctor) -> None:
    from airflow.jobs.job import Job
    from airflow.utils.session import create_session

    _, checks = doctor()
    assert of(checks, "triggerer")[0] == "problem"
    assert "airflow triggerer" in of(checks, "triggerer")[1]

    with create_session() as session:
        job: Any = Job(job_type="TriggererJob", state="running", latest_heartbeat=datetime.now(UTC))  # type: ignore[no-untyped-call]
        session.add(job)
        session.flush()
        job_id = job.id
    try:
        _, checks = doctor()
        assert of(checks, "triggerer")[0] == "ok"
    finally:
        with create_session() as session:
            session.delete(session.get(Job, job_id))


def test_an_encoding_other_than_utf_8_is_a_warning() -> None:
    program = (
        "from airflow_provider_batch.cli.doctor.installation import check_installation\n"
        "print([check.message for check in check_installation() if check.name == 'encoding'])"
    )
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "latin-1"}
    output = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, timeout=300, check=True
    )
    assert b"the output has iso8859-1" in output.stdout.lower()
