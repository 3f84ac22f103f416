"""Tables and files for the benchmarks of the data path. They are the same in every run and on every machine.

A row is a support ticket of about 1 KB. A generator with a fixed seed combines texts of the demo's tickets, in their
original languages. Each title contains the row's number, so no two rows have the same request.
"""

from __future__ import annotations

import json
import random
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import psycopg
from pydantic import BaseModel

from airflow_provider_batch.core.ledger.job import JobKey
from airflow_provider_batch.core.provider.limits import Limits
from airflow_provider_batch.core.requests.spec import RequestSpec
from airflow_provider_batch.core.schema.author_schema import author_schema, strict_schema
from airflow_provider_batch.demo import tickets as demo
from tests.postgres import Database

if TYPE_CHECKING:
    from airflow_provider_batch.warehouse.read import Rows
    from airflow_provider_batch.worker.build import Plan

CHAT = "/v1/chat/completions"
MODEL = "gpt-5-mini"
SYSTEM = "You label support tickets of a shop for indoor plants. Answer with the category and the urgency."
PROMPT = "{{ row.title }}\n\n{{ row.body }}"
CUSTOM_ID = "ticket-{{ row.id }}"
SQL = "SELECT id, title, body, label FROM tickets ORDER BY id"
#: query for a few rows, with which each case warms up, so that no measurement contains imports and caches
WARM_UP_SQL = f"{SQL} LIMIT 100"

#: approximate size of title and body together, in bytes
ROW_BYTES = 1_000

_COLUMNS = "id, day, country, title, body, label"
_TABLE = """
CREATE TABLE tickets (
    id BIGINT PRIMARY KEY, day TEXT NOT NULL, country TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL, label TEXT
)"""


class Ticket(BaseModel):
    """The model's answer for one ticket."""

    category: Literal["billing", "login", "bug", "shipping", "feature_request", "cancellation", "other"]
    urgency: Literal["low", "normal", "high"]
    reason: str


#: result column -> path in the answer
COLUMNS = {"category": "category", "urgency": "urgency", "reason": "reason"}


def tickets(count: int) -> Iterator[tuple[int, str, str, str, str, str | None]]:
    """Yield `count` rows: id (counted from 0), day, country, title, body, label."""
    rng = random.Random(4)
    demo_tickets = demo.load()
    for number in range(count):
        first = rng.choice(demo_tickets)
        title = f"{first.title} (order {number:08})"
        body, size = [first.body], len(title.encode()) + len(first.body.encode())
        while size < ROW_BYTES - 100:
            paragraph = rng.choice(demo_tickets).body
            body.append(paragraph)
            size += len(paragraph.encode()) + 2
        yield number, first.day, first.country, title, "\n\n".join(body), first.category


def fill_sqlite(path: Path, count: int) -> None:
    """Create a SQLite file with the table `tickets`."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(_TABLE)
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?, ?, ?)", tickets(count))


def fill_postgres(database: Database, count: int) -> None:
    """Create the table `tickets` in a PostgreSQL database."""
    with psycopg.connect(database.dsn) as connection:
        connection.execute(_TABLE.encode())
        with connection.cursor().copy(f"COPY tickets ({_COLUMNS}) FROM STDIN".encode()) as copy:
            for row in tickets(count):
                copy.write_row(row)
    database.execute("ANALYZE tickets")


def fill_duckdb(path: Path, count: int) -> None:
    """Create a DuckDB file with the table `tickets`."""
    import duckdb

    rows_file, names = path.with_suffix(".jsonl"), _COLUMNS.split(", ")
    with open(rows_file, "wb") as file:
        for row in tickets(count):
            file.write(msgspec.json.encode(dict(zip(names, row, strict=True))) + b"\n")
    with closing(duckdb.connect(str(path))) as connection:
        connection.execute(_TABLE)
        connection.execute(f"COPY tickets FROM '{rows_file}' (FORMAT json)")
    rows_file.unlink()


def read_tickets(sql: str = SQL) -> Rows:
    """Return the rows of a query on the connection `warehouse`."""
    # This imports Airflow, too.
    from airflow_provider_batch.warehouse.connect import sql_hook
    from airflow_provider_batch.warehouse.read import read_rows

    return read_rows(sql_hook("warehouse"), sql, exact=True)


def make_plan() -> Plan:
    """Return a job like the README's: a system prompt, a prompt from two columns, a schema and a carried column."""
    # This imports Airflow, which reads AIRFLOW_HOME, so it must only run once a temporary home is set.
    from airflow_provider_batch.worker.build import Plan

    # As if it were not installed: it belongs to the extra `tokens`, and its time depends on the texts only.
    sys.modules["bpe_openai"] = None  # type: ignore[assignment]
    return Plan(
        key=JobKey("benchmark", "submit", "manual__1"),
        spec=RequestSpec(
            endpoint=CHAT,
            custom_id=CUSTOM_ID,
            model=MODEL,
            system=SYSTEM,
            prompt=PROMPT,
            output_schema=strict_schema(Ticket),
            author_schema=author_schema(Ticket),
        ),
        carry=["label"],
        context={"params": {}, "run_id": "manual__1"},
        openai_conn_id="openai_default",
        limits=Limits(),
        prices={},
        max_cost_usd=1_000_000,
        completion_window="24h",
        metadata={},
        logical_date=None,
    )


def result_line(custom_id: str, number: int) -> bytes:
    """Return the line that OpenAI would write for a successful request, including the line end."""
    answer = {
        "category": ("billing", "login", "bug", "other")[number % 4],
        "urgency": ("low", "normal", "high")[number % 3],
        "reason": f"The customer of order {number:08} writes that the delivery is late and asks for a date. " * 2,
    }
    body: dict[str, Any] = {
        "id": f"chatcmpl-{number:020x}",
        "object": "chat.completion",
        "created": 1795176000,
        "model": "gpt-5-mini-2025-08-07",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": json.dumps(answer),
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 310 + number % 50,
            "completion_tokens": 40 + number % 20,
            "total_tokens": 350 + number % 50 + number % 20,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": None,
    }
    response = {"status_code": 200, "request_id": f"{number:032x}", "body": body}
    line = {"id": f"batch_req_{number:024x}", "custom_id": custom_id, "response": response, "error": None}
    return msgspec.json.encode(line) + b"\n"
