"""The companies, whose names are there to break things, and their seeding."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.demo import companies

ALL = companies.load()


def test_ids_are_unique_and_every_company_has_the_newest_quarter() -> None:
    assert len({one.id for one in ALL}) == len(ALL) == 12
    assert {one.quarters[-1].quarter for one in ALL} == {"2026-Q3"}
    assert any(len(one.quarters) < 3 for one in ALL)


@pytest.mark.parametrize("odd", ["../", "/", '"', "<b>", "; DROP TABLE", "{{", "ü", "株", "ح"], ids=ascii)
def test_what_leads_file_names_astray_is_there(odd: str) -> None:
    assert any(odd in one.name for one in ALL)


def test_seeding_again_gives_the_same(tmp_path: Path) -> None:
    warehouse = tmp_path / "warehouse.sqlite"
    assert companies.seed(warehouse) == companies.seed(warehouse) == len(ALL)
    with closing(sqlite3.connect(warehouse)) as connection:
        assert connection.execute("SELECT * FROM companies ORDER BY id").fetchall() == [
            (one.id, one.name, one.country) for one in ALL
        ]
        (count,) = connection.execute("SELECT count(*) FROM company_metrics").fetchone()
    assert count == sum(len(one.quarters) for one in ALL)
