"""The data of the DAG write_reports: companies with their quarterly metrics. README.md describes it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import msgspec


class Quarter(msgspec.Struct, frozen=True):
    """The metrics of one company in one quarter."""

    #: such as 2026-Q3
    quarter: str
    revenue_usd: int
    #: sensors in use at the end of the quarter
    sensors: int
    #: number of support tickets
    tickets: int
    #: number of users who cancelled
    cancelled: int


class Company(msgspec.Struct, frozen=True):
    """A company. New companies have fewer quarters."""

    id: str
    name: str
    #: ISO 3166 code
    country: str
    quarters: list[Quarter]


_CREATE = (
    "CREATE TABLE IF NOT EXISTS companies (id TEXT PRIMARY KEY, name TEXT NOT NULL, country TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS company_metrics (company_id TEXT NOT NULL, quarter TEXT NOT NULL, "
    "revenue_usd INTEGER NOT NULL, sensors INTEGER NOT NULL, tickets INTEGER NOT NULL, cancelled INTEGER NOT NULL, "
    "PRIMARY KEY (company_id, quarter))",
)


def load() -> list[Company]:
    """Return the companies, sorted by id."""
    data = files("airflow_provider_batch.demo").joinpath("companies.jsonl").read_bytes()
    return msgspec.json.Decoder(Company).decode_lines(data)


def seed(warehouse: Path) -> int:
    """Replace the content of the tables `companies` and `company_metrics`. Return the number of companies."""
    companies = load()
    metrics = [(company.id, *msgspec.structs.astuple(quarter)) for company in companies for quarter in company.quarters]
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        for statement in _CREATE:
            connection.execute(statement)
        connection.execute("DELETE FROM companies")
        connection.execute("DELETE FROM company_metrics")
        connection.executemany(
            "INSERT INTO companies VALUES (?, ?, ?)",
            [(company.id, company.name, company.country) for company in companies],
        )
        connection.executemany("INSERT INTO company_metrics VALUES (?, ?, ?, ?, ?, ?)", metrics)
    return len(companies)
