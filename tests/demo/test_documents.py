"""The help pages and questions of the demo, and their seeding."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from airflow_provider_batch.demo import documents

DOCUMENTS, QUESTIONS = documents.load()


def test_ids_are_unique_and_every_question_names_an_existing_page() -> None:
    ids = [document.id for document in DOCUMENTS] + [question.id for question in QUESTIONS]
    assert len(set(ids)) == len(ids) == 40
    assert {question.document for question in QUESTIONS} <= {document.id for document in DOCUMENTS}
    assert all(document.title and document.body for document in DOCUMENTS)


def test_seeding_twice_writes_the_same_rows_and_leaves_other_tables_alone(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert documents.seed(warehouse) == len(DOCUMENTS)
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("CREATE TABLE document_vectors (custom_id TEXT)")
        connection.execute("UPDATE documents SET title = 'changed'")
    documents.seed(warehouse)
    with closing(sqlite3.connect(warehouse)) as connection:
        assert [documents.Document(*row) for row in connection.execute("SELECT * FROM documents ORDER BY id")] == (
            DOCUMENTS
        )
        rows = connection.execute("SELECT * FROM document_questions ORDER BY id")
        assert [documents.Question(*row) for row in rows] == QUESTIONS
        assert connection.execute("SELECT count(*) FROM document_vectors").fetchone() == (0,)
