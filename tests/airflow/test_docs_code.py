"""Each DAG that a page about a task, or about moving from another operator, shows runs and lands its rows."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from airflow_provider_batch.evals.cases import read_cases
from tests.airflow.jobs import query, run_dag
from tests.postgres import Database

DOCS = Path(__file__).parents[2] / "docs"
#: pages whose DAGs need other tables, and have tests of their own
TESTED_ELSEWHERE = {"presets", "rows", "taskflow", "testing", "writing-a-job"}
#: (page, code) of each DAG
DAGS = [
    (f"{page.parent.name}/{page.stem}", source)
    for folder in ("how-to", "moving")
    for page in sorted((DOCS / folder).glob("*.md"))
    if page.stem not in TESTED_ELSEWHERE
    for source in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    if "with DAG(" in source
]
#: the tables that the pages read
TABLES = """
CREATE TABLE tickets (id INTEGER PRIMARY KEY, body TEXT);
INSERT INTO tickets VALUES (1, 'My card was charged twice this month.'), (2, 'The code never comes.');
CREATE TABLE documents (id INTEGER PRIMARY KEY, text TEXT);
INSERT INTO documents VALUES (1, 'How to water a fern.'), (2, 'How to repot a cactus.');
CREATE TABLE claims (id INTEGER PRIMARY KEY, photo TEXT);
INSERT INTO claims VALUES (1, 'dent.png'), (2, 'scratch.png');
CREATE TABLE earlier_summaries (custom_id TEXT, outcome TEXT);
INSERT INTO earlier_summaries VALUES ('1', 'failed'), ('3', 'succeeded');
"""
#: the smallest PNG: one transparent pixel
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("page", "source"), DAGS, ids=[page for page, _ in DAGS])
def test_the_dag_lands_every_row(tmp_path: Path, connect: Callable[..., None], page: str, source: str) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (tmp_path / "dags").mkdir()
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("dent.png", "scratch.png"):
        (photos / name).write_bytes(PNG)
    source = source.replace("/data/photos", str(photos))
    (tmp_path / "dags" / "page.py").write_text(source, encoding="utf-8")
    warehouse = tmp_path / "warehouse.sqlite"
    with closing(sqlite3.connect(warehouse)) as connection, connection:
        connection.executescript(TABLES)
    connect("warehouse", conn_type="sqlite", host=str(warehouse))
    bag = DagBag(str(tmp_path / "dags"))
    assert bag.import_errors == {}
    (dag,) = bag.dags.values()

    assert run_dag(dag).state == "success"

    (table,) = re.findall(r'table="(\w+)"', source)
    outcomes = query(warehouse, f"SELECT DISTINCT custom_id, outcome FROM {table} ORDER BY 1")
    assert outcomes == [("1", "succeeded"), ("2", "succeeded")]


@pytest.mark.usefixtures("offline")
def test_the_vectors_of_the_page_can_be_searched_with_pgvector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, postgres_database: Database
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    page = (DOCS / "how-to" / "embeddings.md").read_text("utf-8")
    (source,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.M)
    preparation, search = re.findall(r"^```sql\n(.*?)^```$", page, re.DOTALL | re.M)
    (tmp_path / "page.py").write_text(source, encoding="utf-8")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", postgres_database.airflow_connection())
    postgres_database.execute(TABLES)
    (dag,) = DagBag(str(tmp_path)).dags.values()
    assert run_dag(dag).state == "success"
    postgres_database.execute(preparation)
    postgres_database.execute("INSERT INTO documents VALUES (3, 'How to water a cactus.')")

    assert run_dag(dag).state == "success"

    nearest = postgres_database.execute(search)
    assert {key for key, _ in nearest} == {"2", "3"}
    assert all(0 < float(str(distance)) < 1 for _, distance in nearest)
    assert postgres_database.execute("SELECT custom_id FROM document_vectors WHERE attempt = 1 ORDER BY 1")[-1] == (
        "3",
    )


@pytest.mark.usefixtures("airflow_home")
def test_the_dag_that_cleans_up_staging_parses(tmp_path: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    (source,) = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / "operations" / "staging.md").read_text("utf-8"), re.DOTALL | re.M
    )
    (tmp_path / "page.py").write_text(source, encoding="utf-8")

    bag = DagBag(str(tmp_path))

    assert bag.import_errors == {}
    assert list(bag.dags) == ["clean_batch_staging"]


def test_the_cases_of_the_first_eval_can_be_graded() -> None:
    (script,) = re.findall(
        r"^```sql\n(.*?)^```$", (DOCS / "start" / "first-eval.md").read_text("utf-8"), re.DOTALL | re.M
    )
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(script)
        cursor = connection.execute("SELECT * FROM eval_cases")
        cases = read_cases([name for name, *_ in cursor.description], cursor.fetchall())

    assert {case.case_id for case in cases} == {"refund-01", "total-01", "order-01"}
