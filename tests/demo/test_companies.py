"""The companies of the demo have difficult names, and seeding writes them to the warehouse."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.demo import companies

COMPANIES = companies.load()


def test_ids_are_unique_and_every_company_has_the_newest_quarter() -> None:
    assert len({company.id for company in COMPANIES}) == len(COMPANIES) == 12
    assert {company.quarters[-1].quarter for company in COMPANIES} == {"2026-Q3"}
    assert any(len(company.quarters) < 3 for company in COMPANIES)


@pytest.mark.parametrize("fragment", ["../", "/", '"', "<b>", "; DROP TABLE", "{{", "ü", "株", "ح"], ids=ascii)
def test_some_name_contains_what_breaks_file_names(fragment: str) -> None:
    assert any(fragment in company.name for company in COMPANIES)


def test_seeding_twice_writes_the_same_rows(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert companies.seed(warehouse) == companies.seed(warehouse) == len(COMPANIES)
    with closing(sqlite3.connect(warehouse)) as connection:
        assert connection.execute("SELECT * FROM companies ORDER BY id").fetchall() == [
            (company.id, company.name, company.country) for company in COMPANIES
        ]
        (count,) = connection.execute("SELECT count(*) FROM company_metrics").fetchone()
    assert count == sum(len(company.quarters) for company in COMPANIES)
