"""The README's DAG runs unchanged, .ci/run executes its commands, and its links work."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.airflow.jobs import query, run_dag

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks(language: str) -> list[str]:
    """Return the README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("offline")
def test_the_dag_of_the_readme_labels_the_tickets_of_one_day(tmp_path: Path, connect: Callable[..., None]) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (source,) = code_blocks("python")
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "readme.py").write_text(source, encoding="utf-8")
    warehouse = tmp_path / "warehouse.sqlite"
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, day TEXT, title TEXT, body TEXT, label TEXT)")
        connection.executemany(
            "INSERT INTO tickets VALUES (?, ?, ?, ?, ?)",
            [
                (1, "2026-11-20", "Charged twice", "My card was charged twice this month.", "billing"),
                (2, "2026-11-20", "Cannot log in", "The code never comes.", "login"),
                (3, "2026-11-19", "From another day", "Thank you!", "other"),
            ],
        )
    connect("warehouse", conn_type="sqlite", host=str(warehouse))
    bag = DagBag(str(tmp_path / "dags"))
    assert bag.import_errors == {}

    dag_run = run_dag(bag.dags["label_tickets"])

    assert dag_run.state == "success"
    rows = query(warehouse, "SELECT custom_id, outcome, label, category IS NOT NULL FROM ticket_labels ORDER BY 1")
    assert rows == [("1", "succeeded", "billing", 1), ("2", "succeeded", "login", 1)]


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = [line for block in code_blocks("console") for line in block.splitlines()]
    check = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert commands == ["make demo", "make test"]
    assert all(
        re.search(rf'check "[^"]+" (with_second_try )?{re.escape(command)}( |$)', check, re.MULTILINE)
        for command in commands
    )


def test_files_and_headings_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)]+)\)", README)

    assert [link for link in links if not _exists(link)] == []


def _exists(link: str) -> bool:
    name, _, anchor = link.partition("#")
    path = ROOT / name
    if not anchor or not path.exists():
        return path.exists()
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
