"""Companies and their metrics by quarter, for `write_reports`. See the README beside it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec


class Quarter(msgspec.Struct, frozen=True):
    """What one company did in one quarter."""

    #: such as 2026-Q3
    quarter: str
    revenue_usd: int
    #: sensors in use at its end
    sensors: int
    #: support tickets
    tickets: int
    #: users who left
    cancelled: int


class Company(msgspec.Struct, frozen=True):
    """One company; the newest have fewer quarters."""

    id: str
    name: str
    #: ISO 3166
    country: str
    quarters: list[Quarter]


_CREATE = (
    "CREATE TABLE IF NOT EXISTS companies (id TEXT PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS company_metrics (company_id TEXT NOT NULL, quarter TEXT NOT NULL, "
    "revenue_usd INTEGER NOT NULL, sensors INTEGER NOT NULL, tickets INTEGER NOT NULL, cancelled INTEGER NOT NULL, "
    "PRIMARY KEY (company_id, quarter))",
)


def load() -> list[Company]:
    """The companies, in the order of their ids."""
    data = files("airflow_provider_batch.demo").joinpath("companies.jsonl").read_bytes()
    return msgspec.json.Decoder(Company).decode_lines(data)


def seed(warehouse: Path) -> int:
    """Make the tables `companies` and `company_metrics` hold exactly these. Returns how many companies there are."""
    companies = load()
    metrics = [(one.id, *msgspec.structs.astuple(quarter)) for one in companies for quarter in one.quarters]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("DELETE FROM companies")
        connection.execute("DELETE FROM company_metrics")
        connection.executemany(
            "INSERT INTO companies VALUES (?, ?, ?)", [(one.id, one.name, one.country) for one in companies]
        )
        connection.executemany("INSERT INTO company_metrics VALUES (?, ?, ?, ?, ?, ?)", metrics)
    return len(companies)
