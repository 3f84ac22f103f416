"""The data of the DAG embed_documents: help pages, and questions that they answer. README.md describes it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec


class Document(msgspec.Struct, frozen=True):
    """A help page."""

    id: str
    title: str
    body: str


class Question(msgspec.Struct, frozen=True):
    """A question, and the id of the page that answers it."""

    id: str
    question: str
    document: str


_CREATE = (
    "CREATE TABLE IF NOT EXISTS documents (id TEXT PRIMARY KEY, title TEXT NOT NULL, body TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS document_questions "
    "(id TEXT PRIMARY KEY, question TEXT NOT NULL, document TEXT NOT NULL)",
)


def load() -> tuple[list[Document], list[Question]]:
    """Return the pages and the questions, both sorted by id."""
    demo = files("airflow_provider_batch.demo")
    return (
        msgspec.json.Decoder(Document).decode_lines(demo.joinpath("documents.jsonl").read_bytes()),
        msgspec.json.Decoder(Question).decode_lines(demo.joinpath("document_questions.jsonl").read_bytes()),
    )


def seed(warehouse: Path) -> int:
    """Replace the content of the tables `documents` and `document_questions`. Return the number of pages."""
    documents, questions = load()
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("DELETE FROM documents")
        connection.execute("DELETE FROM document_questions")
        connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", map(msgspec.structs.astuple, documents))
        connection.executemany(
            "INSERT INTO document_questions VALUES (?, ?, ?)", map(msgspec.structs.astuple, questions)
        )
    return len(documents)
