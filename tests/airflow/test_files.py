"""Files named by rows: read from a store, sent in base64, and a missing one costs its row, on real Airflow."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from airflow_provider_batch.core.requests import file_parts
from airflow_provider_batch.local.faults import Call, Fault, Kind
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.clearing import ClearedJob
from tests.airflow.jobs import Ticket, client_of, query, run_job
from tests.files import jpeg, mp3, pdf, png, wav

OUTCOMES = "SELECT custom_id, outcome, error_code, error_message, cost_usd, attempt, batch_id, model FROM answers"


class Store(MemoryFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An object store in memory. Reading a path in `errors` raises the error."""

    cachable = False

    def __init__(self, **files: bytes) -> None:
        super().__init__()
        self.store: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {}

    def put(self, path: str, content: bytes) -> None:
        """Store a file."""
        self.store[f"/{path}"] = MemoryFile(self, f"/{path}", content)

    def _open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        if path in self.errors:
            raise self.errors[path]
        return super()._open(path, *args, **kwargs)


@pytest.fixture
def bucket() -> str:
    """Return the name of a bucket of this test."""
    return f"b{uuid4().hex[:8]}"


@pytest.fixture
def store(bucket: str) -> Store:
    """Attach an object store with three photos."""
    store = Store()
    attach("memory", conn_id=f"conn_{bucket}", fs=store)
    store.put(f"{bucket}/photos/a.png", png(color=b"\x01\x02\x03"))
    store.put(f"{bucket}/photos/b.png", jpeg())
    store.put(f"{bucket}/photos/scan.pdf", pdf(3))
    return store


@pytest.fixture
def tickets() -> list[Ticket]:
    """Tickets whose body is the path of a photo."""
    return [("T-1", "One", "a.png", None), ("T-2", "Two", "b.png", None), ("T-3", "Three", "scan.pdf", None)]


@pytest.fixture
def files(bucket: str, store: Store) -> str:
    """Return the row template for the photos."""
    return f"memory://conn_{bucket}@{bucket}/photos/{{{{ row.body }}}}"


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)


def sent_bodies(server: LocalServer) -> dict[str, Any]:
    """Return the body of each request in the input files at the provider, by custom_id; the newest file wins."""
    client = client_of(server)
    bodies = {}
    for file in sorted(client.files.list(purpose="batch"), key=lambda file: file.created_at):
        for line in client.files.content(file.id).text.splitlines():
            request = json.loads(line)
            bodies[request["custom_id"]] = request["body"]
    return bodies


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/responses"])
def test_the_files_of_the_rows_are_sent_and_answered(
    warehouse: Path, server: LocalServer, files: str, endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    result = run_job(endpoint=endpoint, files=files, prompt="Describe it.", canary=1)

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT DISTINCT outcome FROM answers") == [("succeeded",)]
    parts = {
        custom_id: body["messages" if endpoint.endswith("completions") else "input"][0]["content"]
        for custom_id, body in sent_bodies(server).items()
    }
    types = {custom_id: [part["type"] for part in content] for custom_id, content in parts.items()}
    text, image, document = (
        ("text", "image_url", "file") if "chat" in endpoint else ("input_text", "input_image", "input_file")
    )
    expected = {"T-1": [text, image], "T-2": [text, image], "T-3": [text, document]}
    assert types == {custom_id: expected[custom_id] for custom_id in types}
    assert len(types) == 2  # the canary was sent synchronously
    assert result.return_values["submit"]["estimate"]["input_tokens"] > 3_000
    assert "base64" not in capfd.readouterr().out


def test_a_missing_or_unusable_file_costs_its_row_alone(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    store.put(f"{bucket}/photos/empty.png", b"")
    store.put(f"{bucket}/photos/iphone.jpg", b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    change(
        warehouse,
        "INSERT INTO tickets VALUES ('T-4', 'Four', 'gone.png', 'a'), ('T-5', 'Five', 'empty.png', 'b'), "
        "('T-6', 'Six', 'iphone.jpg', NULL), ('T-7', 'Seven', '../../etc/passwd', NULL), ('T-8', 'Eight', NULL, NULL)",
    )
    result = run_job(files=files, prompt="Describe it.", carry=["label"], land={"columns": None})

    assert result.state == "success", result.errors
    rows = {row[0]: row[1:] for row in query(warehouse, OUTCOMES)}
    assert {custom_id: row[:2] for custom_id, row in rows.items()} == {
        **dict.fromkeys(("T-1", "T-2", "T-3", "T-8"), ("succeeded", None)),
        "T-4": ("invalid_input", "file_missing"),
        "T-5": ("invalid_input", "file_empty"),
        "T-6": ("invalid_input", "file_type"),
        "T-7": ("invalid_input", "file_path"),
    }
    assert rows["T-4"][2:] == (
        f"There is no file 'memory://conn_{bucket}@{bucket}/photos/gone.png'.",
        *(0, 0, None, "gpt-5-mini"),
    )
    assert dict(query(warehouse, "SELECT custom_id, label FROM answers"))["T-5"] == "b"
    summary = result.return_values["land"]
    assert summary["outcomes"] == {"succeeded": 4, "invalid_input": 4}
    assert (summary["requests"], summary["sent"], summary["invalid"]) == (8, 4, 4)
    assert set(sent_bodies(server)) == {"T-1", "T-2", "T-3", "T-8"}
    assert Decimal(summary["cost_usd"]) > 0
    log = capfd.readouterr().out
    assert "4 of 8 rows cannot be sent, because a file that they name is missing or cannot be used" in log
    assert "1 of 8 rows name no file" in log


def test_too_many_invalid_rows_fail_the_landing_and_name_the_reason(
    warehouse: Path, server: LocalServer, files: str
) -> None:
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', '', 'gone.png', ''), ('T-5', '', 'lost.png', '')")
    result = run_job(files=files, prompt="Describe it.", land={"max_failure_rate": 0.0})

    assert result.states["land"] == "failed"
    assert "2 of 5 rows did not succeed" in result.error("land")
    assert "2 rows with file_missing: There is no file" in result.error("land")
    assert "Fix the files, then clear submit" in result.error("land")


def test_a_job_in_which_no_row_has_a_usable_file_fails_before_anything_is_sent(
    warehouse: Path, server: LocalServer, files: str
) -> None:
    result = run_job(files=files.replace("photos/", "pictures/"), prompt="Describe it.")

    assert result.states["submit"] == "failed"
    assert "All 3 rows have a file that is missing or cannot be used, so there is nothing to send" in result.error()
    assert "pictures/a.png" in result.error()
    assert server.calls().get("upload", 0) == 0


@pytest.mark.parametrize(
    "error", [ConnectionError("Connection refused"), PermissionError("Access Denied"), OSError(5, "I/O")]
)
def test_a_store_that_cannot_be_read_fails_the_task_and_no_row(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str, error: Exception
) -> None:
    store.errors[f"/{bucket}/photos/b.png"] = error
    job = ClearedJob()
    result = job.run(files=files, prompt="Describe it.")

    assert result.states["submit"] == "failed"
    assert f"files: Cannot read memory://conn_{bucket}@{bucket}/photos/b.png: {type(error).__name__}" in result.error()
    assert type(result.errors["submit"]).__name__ == "FileStoreError"
    assert server.calls().get("upload", 0) == 0
    store.errors.clear()
    assert job.retry(files=files, prompt="Describe it.").state == "success"


def test_once_a_file_exists_a_clear_sends_its_row_alone(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', 'Four', 'late.png', 'a')")
    job = ClearedJob()
    arguments = {"files": files, "prompt": "Describe it."}
    job.run(**arguments)
    before = {row[0]: row for row in query(warehouse, "SELECT custom_id, outcome, batch_id FROM answers")}
    assert job.clear(**arguments).state == "success"
    assert "4 rows are unchanged; there is nothing new to send" in capfd.readouterr().out
    store.put(f"{bucket}/photos/late.png", png(9, 9))
    assert job.clear(**arguments).state == "success"

    after = {row[0]: row for row in query(warehouse, "SELECT custom_id, outcome, batch_id FROM answers")}
    assert {custom_id: after[custom_id] for custom_id in ("T-1", "T-2", "T-3")} == {
        custom_id: before[custom_id] for custom_id in ("T-1", "T-2", "T-3")
    }
    assert (before["T-4"][1], after["T-4"][1]) == ("invalid_input", "succeeded")
    batches = list(client_of(server).batches.list())
    assert sorted(batch.request_counts.total for batch in batches if batch.request_counts) == [1, 3]


def test_a_file_that_disappeared_no_longer_lands_and_its_row_is_invalid(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str
) -> None:
    job = ClearedJob()
    arguments = {"files": files, "prompt": "Describe it."}
    job.run(**arguments)
    del store.store[f"/{bucket}/photos/a.png"]
    result = job.clear(**arguments)

    assert result.state == "success", result.errors
    assert result.return_values["land"]["outcomes"] == {"succeeded": 2, "invalid_input": 1}
    assert dict(query(warehouse, "SELECT custom_id, outcome FROM answers"))["T-1"] == "invalid_input"


def test_a_retry_does_not_read_the_files_again(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str
) -> None:
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.UPLOAD}), status=400))
    job = ClearedJob()
    assert job.run(files=files, prompt="Describe it.").states["submit"] == "failed"
    store.store.clear()
    server.set_faults()
    result = job.retry(files=files, prompt="Describe it.")

    assert result.state == "success", result.errors
    assert result.return_values["land"]["outcomes"] == {"succeeded": 3}


def test_equal_content_is_sent_once_whatever_its_name(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str
) -> None:
    store.put(f"{bucket}/photos/copy.png", png(color=b"\x01\x02\x03"))
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', 'Four', 'copy.png', 'a')")
    summary = run_job(files=files, prompt="Describe it.").return_values["land"]

    assert (summary["sent"], summary["duplicates"], summary["outcomes"]) == (3, 1, {"succeeded": 4})


def test_answers_of_an_earlier_job_are_reused_by_the_content_of_the_file(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str
) -> None:
    run_job(files=files, prompt="Describe it.")
    store.put(f"{bucket}/photos/b.png", jpeg(9, 9))
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', 'Four', 'gone.png', 'a')")
    result = run_job(files=files, prompt="Describe it.", reuse_from="answers", land={"table": "reused"})

    summary = result.return_values["land"]
    assert (summary["sent"], summary["reused"], summary["invalid"]) == (1, 2, 1)
    assert summary["outcomes"] == {"succeeded": 3, "invalid_input": 1}


def test_two_rows_with_one_custom_id_are_refused_even_if_one_is_invalid(
    warehouse: Path, server: LocalServer, files: str
) -> None:
    change(warehouse, "INSERT INTO tickets VALUES ('T-1', 'Again', 'gone.png', 'a')")
    result = run_job(files=files, prompt="Describe it.")
    assert "'T-1' (rows 1, 2)" in result.error()


def test_the_preview_describes_files_in_a_few_words(
    warehouse: Path, server: LocalServer, files: str, bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(warehouse, "INSERT INTO tickets VALUES ('S-1', 'Gone', 'gone.png', 'a')")
    from airflow.sdk import DAG

    from airflow_provider_batch.operators.batch import BatchSubmitOperator
    from tests.airflow.jobs import run_dag, submit_arguments

    with DAG(f"job_{uuid4().hex[:8]}", schedule=None) as dag:
        BatchSubmitOperator(**submit_arguments(files=files, prompt="Describe it.", preview=True))
    result = run_dag(dag)

    assert result.state == "success", result.errors
    assert result.return_values["submit"]["invalid"] == 1
    log = capfd.readouterr().out
    assert f"<image/png, {len(png())} bytes, memory://conn_{bucket}@{bucket}/photos/a.png>" in log
    assert "base64" not in log


def test_files_on_a_disk_are_read_and_no_symbolic_link_leads_out(
    warehouse: Path, server: LocalServer, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "inside.png").symlink_to(folder / "a.png")
    (tmp_path / "secret.png").write_bytes(png())
    (folder / "leak.png").symlink_to(tmp_path / "secret.png")
    (folder / "folder.png").mkdir()
    change(
        warehouse,
        "DELETE FROM tickets",
        "INSERT INTO tickets VALUES ('T-1', '', 'a.png', ''), ('T-2', '', 'inside.png', ''), "
        "('T-3', '', 'leak.png', ''), ('T-4', '', 'folder.png', ''), ('T-5', '', 'gone.png', '')",
    )
    run_job(files=f"{folder}/{{{{ row.body }}}}", prompt="Describe {{ row.id }}.")

    assert query(warehouse, "SELECT custom_id, outcome, error_code FROM answers ORDER BY 1") == [
        ("T-1", "succeeded", None),
        ("T-2", "succeeded", None),
        ("T-3", "invalid_input", "file_path"),
        ("T-4", "invalid_input", "file_missing"),
        ("T-5", "invalid_input", "file_missing"),
    ]


def test_a_folder_that_is_not_mounted_fails_the_task(warehouse: Path, server: LocalServer, tmp_path: Path) -> None:
    result = run_job(files=f"{tmp_path}/nfs/{{{{ row.body }}}}", prompt="Describe it.")

    assert type(result.errors["submit"]).__name__ == "FileStoreError"
    assert f"Cannot read file://{tmp_path}/nfs/a.png: FileNotFoundError" in result.error()


def test_a_file_or_a_request_that_is_too_large_costs_its_row(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_batch.worker.file_reader.MAX_FILE_BYTES", 10_000)
    monkeypatch.setattr(file_parts, "MAX_FILE_BYTES", 10_000)
    store.put(f"{bucket}/photos/a.png", png() + bytes(20_000))
    store.put(f"{bucket}/photos/b.png", png() + bytes(5_000))
    run_job(files=files, prompt="Describe it.", limits={"bytes": 6_000})

    rows = dict(query(warehouse, "SELECT custom_id, error_message FROM answers"))
    assert "has 20,074 bytes, but the API takes files of at most 10,000" in rows["T-1"]
    assert "an input file may have at most 6,000" in rows["T-2"]
    assert rows["T-3"] is None


@pytest.mark.parametrize("endpoint", ["/v1/responses", "/v1/chat/completions"])
def test_files_can_be_uploaded_once_and_sent_by_id(
    warehouse: Path, server: LocalServer, files: str, store: Store, bucket: str, endpoint: str
) -> None:
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', 'Four', 'a.png', 'a'), ('T-5', 'Five', 'gone.png', 'a')")
    arguments = {"endpoint": endpoint, "files": files, "prompt": "Describe {{ row.id }}.", "canary": 1}
    job = ClearedJob()
    result = job.run(**arguments, files_as="file_id")

    assert result.state == "success", result.errors
    assert result.return_values["land"]["outcomes"] == {"succeeded": 4, "invalid_input": 1}
    uploads = {file.id: file for file in client_of(server).files.list() if file.purpose in ("vision", "user_data")}
    names = sorted(file.filename for file in uploads.values())
    assert names == (["image.jpg", "image.png", "scan.pdf"] if "responses" in endpoint else ["scan.pdf"])
    contents = {file.filename: client_of(server).files.content(file_id).content for file_id, file in uploads.items()}
    assert contents["scan.pdf"] == pdf(3)
    assert "sha256:" not in json.dumps(sent_bodies(server))
    # the way in which the files are sent makes no difference to a clear
    before = server.calls().get("create")
    assert job.clear(**arguments, files_as="base64").state == "success"
    assert server.calls().get("create") == before


def test_a_retry_does_not_upload_a_file_again(warehouse: Path, server: LocalServer, files: str, store: Store) -> None:
    arguments = {"endpoint": "/v1/responses", "files": files, "prompt": "Describe it.", "files_as": "file_id"}
    server.set_faults(Fault(kind=Kind.STATUS, calls=frozenset({Call.CREATE}), status=400, message="Unknown parameter"))
    job = ClearedJob()
    assert job.run(**arguments).states["submit"] == "failed"
    server.set_faults()
    store.store.clear()

    assert job.retry(**arguments).state == "success"
    purposes = sorted(file.purpose for file in client_of(server).files.list())
    assert purposes == ["batch", "batch_output", "user_data", "vision", "vision"]


def test_uploaded_files_are_deleted_once_the_answers_are_there(
    warehouse: Path, server: LocalServer, files: str
) -> None:
    change(warehouse, f"UPDATE tickets SET title = '[[fail:500:once]] {uuid4()}' WHERE id = 'T-2'")
    arguments = {"endpoint": "/v1/responses", "files": files, "prompt": "{{ row.title }}", "files_as": "file_id"}
    job = ClearedJob()
    result = job.run(**arguments, delete_remote_files="after_collect")

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT outcome, attempt FROM answers ORDER BY custom_id") == [
        ("succeeded", 1),
        ("succeeded", 2),
        ("succeeded", 1),
    ]
    assert [file.purpose for file in client_of(server).files.list()] == []
    change(warehouse, "INSERT INTO tickets VALUES ('T-4', 'Four', 'a.png', 'a')")
    again = job.clear(**arguments, delete_remote_files="after_collect", deduplicate=False)
    assert again.return_values["land"]["outcomes"] == {"succeeded": 4}


def test_audio_and_lists_of_files_from_a_root(warehouse: Path, server: LocalServer, store: Store, bucket: str) -> None:
    store.put(f"{bucket}/calls/1.wav", wav())
    store.put(f"{bucket}/calls/2.mp3", mp3())
    paths = json.dumps(["calls/1.wav", f"memory://{bucket}/calls/2.mp3"])
    change(warehouse, "DELETE FROM tickets", f"INSERT INTO tickets VALUES ('T-1', '', '{paths}', '')")
    result = run_job(
        files="{{ row.body }}",
        files_root=f"memory://conn_{bucket}@{bucket}",
        model="gpt-4o-audio-preview",
        prompt="Summarise it.",
        prices={"gpt-4o-audio-preview": {"input": 1, "output": 1}},
    )

    assert result.state == "success", result.errors
    (body,) = sent_bodies(server).values()
    formats = [part["input_audio"]["format"] for part in body["messages"][0]["content"][1:]]
    assert formats == ["wav", "mp3"]


def test_rows_that_come_from_no_query_can_name_files_too(
    warehouse: Path, server: LocalServer, store: Store, bucket: str
) -> None:
    rows = [{"id": "R-1", "photos": ["a.png", "scan.pdf"]}, {"id": "R-2", "photos": ["a.png", "gone.png"]}]
    result = run_job(
        sql=...,
        rows=rows,
        warehouse_conn_id=...,
        files="{{ row.photos }}",
        files_root=f"memory://conn_{bucket}@{bucket}/photos",
        prompt="Describe it.",
        land={"warehouse_conn_id": "warehouse"},
    )

    assert result.state == "success", result.errors
    assert query(warehouse, "SELECT custom_id, outcome, error_code FROM answers ORDER BY 1") == [
        ("R-1", "succeeded", None),
        ("R-2", "invalid_input", "file_missing"),
    ]
