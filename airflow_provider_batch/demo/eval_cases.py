"""The data of the DAG nightly_eval: 400 eval cases. eval_cases.md describes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec

#: The regression that the local server plants (its option `--forget`): from the second run of `nightly_eval` on, this
#: model does not answer the cases with this tag, which need the skill `moves`. The gate should find it.
PLANTED_MODEL, PLANTED_SKILL, PLANTED_TAG = "gpt-5-mini", "moves", "state"


class EvalCase(msgspec.Struct, frozen=True):
    """A row of the table `eval_cases`."""

    #: name of the set that it comes from, and a number
    case_id: str
    input: str
    expected: str
    #: `airflow_provider_batch.evals.graders` describes the graders
    grader: str
    #: separated by commas
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
    """Return the cases."""
    data = files("airflow_provider_batch.demo").joinpath("eval_cases.jsonl").read_bytes()
    return msgspec.json.Decoder(EvalCase).decode_lines(data)


def seed(warehouse: Path) -> int:
    """Replace the content of the table `eval_cases`. Return the number of cases."""
    rows = [msgspec.structs.astuple(case) for case in load()]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(_CREATE)
        connection.execute("DELETE FROM eval_cases")
        connection.executemany("INSERT INTO eval_cases VALUES (?, ?, ?, ?, ?)", rows)
    return len(rows)
