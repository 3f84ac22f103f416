"""The data set, and the warehouse that it is seeded into. See the README beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
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


#: Tickets that only the offline run gets. The markers make the local server's responder fail on purpose, so that
#: more outcomes than `succeeded` are seen; a real model would take them for text.
PLANTED = (
    Ticket("X-0001", "2026-11-08", "US", "Planted: refused", "The model refuses this one. [[refuse]]", None, None),
    Ticket("X-0002", "2026-11-08", "US", "Planted: cut off", "This answer is cut off halfway. [[cutoff]]", None, None),
    Ticket("X-0003", "2026-11-08", "US", "Planted: an error", "The API answers HTTP 400. [[fail:400]]", None, None),
    Ticket("X-0004", "2026-11-08", "US", "Planted: at first an error", "Asked twice. [[fail:500:once]]", None, None),
)

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
