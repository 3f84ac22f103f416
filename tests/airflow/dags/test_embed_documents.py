"""`embed_documents`: asks what is new or changed, forgets what is gone, and finds what it embedded."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from msgspec.structs import astuple

from airflow_provider_batch.demo import documents
from tests.airflow.dags.conftest import NOTHING, blocks, check_costs
from tests.airflow.jobs import Ran, query
from tests.postgres import Database

DOCUMENTS, QUESTIONS = documents.load()
TEXTS = len(DOCUMENTS) + len(QUESTIONS)


@pytest.fixture
def warehouse(tmp_path: Path, connect: Callable[..., None]) -> Path:
    path = tmp_path / "warehouse.sqlite"
    documents.seed(path)
    connect("warehouse", conn_type="sqlite", host=str(path))
    return path


def test_new_and_changed_documents_alone_are_asked_and_those_that_are_gone_lose_their_vector(
    warehouse: Path, run_ready: Callable[..., Ran], billed: Callable[[], dict[str, int]]
) -> None:
    first = run_ready("embed_documents")

    assert first.errors == {}
    account = first.returned["batch_job.land"]
    assert (account["asked"], account["outcomes"]) == (TEXTS, {"succeeded": TEXTS})
    # vectors have no output tokens: the estimate is one number, as good as the counting of tokens
    assert float(account["cost_usd"]) == pytest.approx(account["estimate"]["high_usd"], rel=0.25)
    assert billed() == {"upload": 1, "create": 1, "ask": 2}
    vectors = dict(query(warehouse, "SELECT custom_id, output FROM document_vectors"))
    assert {len(json.loads(vector)) for vector in vectors.values()} == {256}

    second = run_ready("embed_documents")

    assert second.errors == {}
    account = second.returned["batch_job.land"]
    assert (account["asked"], account["known"], account["cost_usd"]) == (0, TEXTS, "0")
    assert billed() == NOTHING
    assert dict(query(warehouse, "SELECT custom_id, output FROM document_vectors")) == vectors

    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")
        connection.execute("DELETE FROM documents WHERE id = 'D-030'")
        connection.execute("UPDATE documents SET title = '', body = '' WHERE id = 'D-029'")
    third = run_ready("embed_documents")

    assert third.errors == {}
    account = third.returned["batch_job.land"]
    assert (account["asked"], account["known"]) == (1, TEXTS - 3)
    assert billed() == {"upload": 0, "create": 0, "ask": 1}
    now = dict(query(warehouse, "SELECT custom_id, output FROM document_vectors"))
    assert vectors.keys() - now.keys() == {"D-029", "D-030"}
    assert [name for name in now if now[name] != vectors[name]] == ["D-003"]
    check_costs("embed_documents", *(ran.returned["batch_job.land"] for ran in (first, second, third)))


def test_it_runs_unchanged_against_postgresql_and_goes_on_when_the_column_becomes_one_of_pgvector(
    postgres_database: Database,
    run_ready: Callable[..., Ran],
    billed: Callable[[], dict[str, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with psycopg.connect(postgres_database.dsn) as connection:
        connection.execute("CREATE TABLE documents (id text PRIMARY KEY, title text, body text)")
        connection.execute("CREATE TABLE document_questions (id text PRIMARY KEY, question text, document text)")
        insert = connection.cursor().executemany
        insert("INSERT INTO documents VALUES (%s, %s, %s)", list(map(astuple, DOCUMENTS)))
        insert("INSERT INTO document_questions VALUES (%s, %s, %s)", list(map(astuple, QUESTIONS)))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres_database.airflow_connection())

    first = run_ready("embed_documents")

    assert first.errors == {}
    assert first.returned["batch_job.land"]["asked"] == TEXTS
    assert postgres_database.execute("SELECT DISTINCT array_length(output, 1) FROM document_vectors") == [(256,)]
    billed()

    # as docs/dags/embed_documents.md has it
    to_pgvector, nearest = blocks("embed_documents", "sql")
    postgres_database.execute(to_pgvector)
    postgres_database.execute("UPDATE documents SET body = body || ' Spare ones are in our shop.' WHERE id = 'D-003'")
    second = run_ready("embed_documents")

    assert second.errors == {}
    assert (second.returned["batch_job.land"]["asked"], billed()) == (1, {**NOTHING, "ask": 1})
    assert postgres_database.execute("SELECT DISTINCT vector_dims(output) FROM document_vectors") == [(256,)]
    found = postgres_database.execute(nearest)
    assert len(found) == 3
    assert found[0][0] == QUESTIONS[0].document


@pytest.mark.usefixtures("warehouse")
@pytest.mark.parametrize(
    ("changes", "conf", "words"),
    [
        ({"sql/documents.sql": ("SELECT id", "DELETE FROM documents; SELECT id")}, {}, "it begins with DELETE"),
        ({"embed_documents.py": ("row.text ", "row.texts ")}, {}, "Did you mean 'text'?"),
        ({}, {"model": "text-embedding-9"}, "no price is known for text-embedding-9"),
        ({}, {"dimensions": 0}, "dimensions"),
    ],
    ids=["SQL that writes", "missing column", "unknown model", "no dimensions"],
)
def test_bad_input_is_told_and_nothing_is_paid(
    changes: dict[str, tuple[str, str]], conf: dict[str, object], words: str, refused: Callable[..., str]
) -> None:
    assert words in refused("embed_documents", changes, **conf)


@pytest.mark.usefixtures("offline")
def test_a_source_that_failed_to_load_loses_no_vector(warehouse: Path, run_ready: Callable[..., Ran]) -> None:
    assert run_ready("embed_documents").state == "success"
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("DELETE FROM documents WHERE id > 'D-014'")

    ran = run_ready("embed_documents")

    assert (ran.states["left"], ran.states["prune"]) == ("failed", "upstream_failed")
    assert "half_is_left" in ran.error("left")
    assert query(warehouse, "SELECT count(*) FROM document_vectors") == [(TEXTS,)]


@pytest.mark.usefixtures("offline")
def test_a_check_that_finds_too_few_documents_fails(warehouse: Path, run_ready: Callable[..., Ran]) -> None:
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("UPDATE document_questions SET document = 'D-017' WHERE id < 'Q-004'")

    ran = run_ready("embed_documents")

    assert ran.states["check"] == "failed"
    assert "questions_find_their_document" in ran.error("check")
