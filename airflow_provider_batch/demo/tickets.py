"""The data set, and the warehouse that it is seeded into. See the README beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from importlib.resources import files
from pathlib import Path

import msgspec


class Ticket(msgspec.Struct, frozen=True):
    """One support ticket with its gold labels."""

    id: str
    #: ISO date
    day: str
    country: str
    title: str
    body: str
    #: None where there is nothing to label
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
    """The data set, in the order of its ids."""
    data = files("airflow_provider_batch.demo").joinpath("tickets.jsonl").read_bytes()
    return msgspec.json.Decoder(Ticket).decode_lines(data)


def seed(warehouse: Path, tickets: Iterable[Ticket]) -> int:
    """Make the table `tickets` hold exactly these; other tables are left alone. Returns how many there are."""
    rows = [msgspec.structs.astuple(ticket) for ticket in tickets]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute(_CREATE)
        connection.execute("DELETE FROM tickets")
        connection.executemany("INSERT INTO tickets VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    return len(rows)


def planted(now: datetime) -> list[Ticket]:
    """Tickets that only the offline run gets.

    The markers make the local server's responder fail on purpose, so that more outcomes than `succeeded` are seen; a
    real model would take them for text. A marker with `once` works once per text, so its ticket names the time.
    """
    return [
        _planted(1, "refused", "The model refuses this one. [[refuse]]"),
        _planted(2, "cut off", "This answer is cut off halfway. [[cutoff]]"),
        _planted(3, "an error", "The API answers HTTP 400. [[fail:400]]"),
        _planted(4, "an error at first", f"Planted at {now:%H:%M:%S.%f}, and asked twice. [[fail:500:once]]"),
    ]


def _planted(number: int, title: str, body: str) -> Ticket:
    return Ticket(f"X-{number:04}", "2026-11-08", "US", f"Planted: {title}", body, None, None)
