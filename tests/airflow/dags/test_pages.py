"""The docs list each example DAG. The page of a DAG shows all its tasks and names existing files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from airflow_provider_batch.demo.home import dags_folder
from tests.airflow.dags.conftest import page

ROOT = Path(__file__).parents[3]
DAG_IDS = sorted(file.stem for file in dags_folder().glob("[!_]*.py"))
DOCS = ROOT / "docs" / "dags"
PAGES = sorted(file.stem for file in DOCS.glob("*.md") if file.stem != "index")


def test_the_docs_list_each_dag_with_its_page_or_its_code() -> None:
    overview = (DOCS / "index.md").read_text("utf-8")
    links = dict(re.findall(r"^\| `(\w+)` \|.*\| \[\w+\]\(([\w/.#-]+)\) \|$", overview, re.MULTILINE))

    assert sorted(links) == DAG_IDS
    for dag_id, link in links.items():
        assert link == f"#{dag_id}" or (DOCS / link).is_file()
        assert (f"example_dags/{dag_id}.py\n" in overview) == link.startswith("#")
    assert set(PAGES) <= set(DAG_IDS)


@pytest.mark.parametrize("dag_id", PAGES)
def test_the_diagram_shows_every_task_and_the_named_files_exist(dag_id: str, airflow_home: Path) -> None:
    from airflow.dag_processing.dagbag import DagBag

    from airflow_provider_batch.sensors.batch import BatchSensor

    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```$", page(dag_id), flags=re.DOTALL | re.MULTILINE)
    dag = DagBag(str(dags_folder() / f"{dag_id}.py")).dags[dag_id]
    assert {name for task in dag.task_ids for name in task.split(".")} - set(re.findall(r"\w+", diagram)) == set()

    paths = re.findall(r"`(example_dags/[\w/.*]+)`", page(dag_id))
    assert paths
    assert [path for path in paths if not list(dags_folder().parent.glob(path))] == []
    assert dag.doc_md
    waits = [task for task in dag.tasks if task.task_type == "BatchSensor"]
    assert waits
    assert all(isinstance(wait, BatchSensor) and wait.deadline for wait in waits)
