"""400 cases for `nightly_eval`, and the warehouse that they are seeded into. See `eval_cases.md` beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec


class EvalCase(msgspec.Struct, frozen=True):
    """One case, as the columns of `eval_cases` hold it."""

    #: where it comes from, and a number
    case_id: str
    input: str
    expected: str
    #: see `airflow_provider_batch.evals.graders`
    grader: str
    #: with commas between
    tags: str


_CREATE = """
CREATE TABLE IF NOT EXISTS eval_cases (
    case_id TEXT PRIMARY KEY,
    input TEXT NOT NULL,
    expected TEXT,
    grader TEXT NOT NULL,
    tags TEXT NOT NULL
)
"""


def load() -> list[EvalCase]:
    """The data set."""
    data = files("airflow_provider_batch.demo").joinpath("eval_cases.jsonl").read_bytes()
    return msgspec.json.Decoder(EvalCase).decode_lines(data)


def seed(warehouse: Path) -> int:
    """Make the table `eval_cases` hold exactly these; other tables are left alone. Returns how many there are."""
    rows = [msgspec.structs.astuple(case) for case in load()]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(_CREATE)
        connection.execute("DELETE FROM eval_cases")
        connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", rows)
    return len(rows)
