"""The DAGs of the README and of writing-a-job.md run unchanged, and the README's commands and links work."""

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


#: address of the documentation site, whose pages are built from docs/
SITE = "https://airflow-provider-batch.readthedocs.io/en/latest/"
FILES_OF_THE_REPOSITORY = "https://github.com/airflow-provider-batch/airflow-provider-batch/blob/main/"


def code_blocks(language: str, text: str = README) -> list[str]:
    """Return the code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("page", "dag_id", "columns", "ids"),
    [
        ("README.md", "label_tickets", "label", ["1", "2", "3"]),
        ("docs/how-to/writing-a-job.md", "label_tickets_of_a_day", "category", ["1", "2"]),
    ],
)
def test_the_dag_of_a_page_labels_the_tickets(
    tmp_path: Path, connect: Callable[..., None], page: str, dag_id: str, columns: str, ids: list[str]
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (source,) = code_blocks("python", (ROOT / page).read_text(encoding="utf-8"))
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "page.py").write_text(source, encoding="utf-8")
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

    dag_run = run_dag(bag.dags[dag_id])

    assert dag_run.state == "success"
    rows = query(warehouse, f"SELECT custom_id, outcome, {columns} IS NOT NULL FROM ticket_labels ORDER BY 1")
    assert rows == [(custom_id, "succeeded", 1) for custom_id in ids]


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = [line for block in code_blocks("console") for line in block.splitlines()]
    check = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert commands == ["make demo", "make test"]
    assert all(
        re.search(rf'check "[^"]+" (with_second_try )?{re.escape(command)}( |$)', check, re.MULTILINE)
        for command in commands
    )


def test_the_pages_and_files_that_the_readme_links_to_exist() -> None:
    """All links are absolute, because PyPI shows the README, too."""
    links = re.findall(r"\]\(([^)]+)\)", README)

    assert links
    assert [link for link in links if not _source_of(link).is_file()] == []


def _source_of(link: str) -> Path:
    """Return the file of the repository that an address shows."""
    if link.startswith(FILES_OF_THE_REPOSITORY):
        return ROOT / link.removeprefix(FILES_OF_THE_REPOSITORY)
    assert link.startswith(SITE), link
    page = link.removeprefix(SITE) or "index.html"
    return ROOT / "docs" / page.replace("_images/", "images/").replace(".html", ".md")
