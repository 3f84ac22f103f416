"""What the tests of the ready DAGs share: the DAG as it lies there or as an author changed it, and what was billed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_batch.demo.home import dags_folder
from airflow_provider_batch.local.process import LocalServer
from tests.airflow.dags.warehouses import Warehouse, make
from tests.airflow.jobs import Ran, count_billed, run_dag


@pytest.fixture(scope="session")
def counting_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A local batch server that tells which calls it got."""
    with LocalServer(tmp_path_factory.mktemp("counting-server"), admin=True) as server:
        yield server


@pytest.fixture
def billed(counting_server: LocalServer, connect: Callable[..., None], offline: None) -> Callable[[], dict[str, int]]:
    """Counts what was uploaded, created and asked since it was last called. `openai_default` leads to that server."""
    connect("openai_default", conn_type="openai", password="local", host=counting_server.base_url)
    return count_billed(counting_server)


def page(dag_id: str) -> str:
    """The page of a DAG in docs/dags/."""
    return (Path(__file__).parents[3] / "docs" / "dags" / f"{dag_id}.md").read_text(encoding="utf-8")


def blocks(dag_id: str, language: str) -> list[str]:
    """The code blocks of a language on the page of a DAG."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page(dag_id), flags=re.DOTALL | re.MULTILINE)


def check_costs(dag_id: str, *accounts: dict[str, Any]) -> None:
    """The table of costs on the page of a DAG (run, asked, low, high, cost) tells what these runs cost, in this order.

    Prices and the counting of tokens change with the versions of what is installed, so its numbers are about right.
    """
    table = page(dag_id).partition("## What it costs")[2]
    told = [
        [float(cell) for cell in row.split("|")] for row in re.findall(r"^\|[^|]+\|([ \d.|]+)\|$", table, re.MULTILINE)
    ]
    cost = [(one["sent"], one["estimate"]["low_usd"], one["estimate"]["high_usd"], one["cost_usd"]) for one in accounts]
    assert told == [[pytest.approx(float(value), rel=0.2) for value in row] for row in cost]


#: of `billed`, when nothing was asked and nothing was paid
NOTHING = {"upload": 0, "create": 0, "synchronous": 0}


@pytest.fixture
def warehouse_of(
    tmp_path: Path, connect: Callable[..., None], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Warehouse]:
    """Makes the connection `warehouse` lead to a warehouse of a kind, with the tables that `seed` makes."""

    def of(kind: str, seed: Callable[[Path], object]) -> Warehouse:
        made = make(kind, seed, tmp_path, lambda: request.getfixturevalue("postgres_database"))
        if isinstance(made.connection, str):
            monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", made.connection)
        else:
            connect("warehouse", **made.connection)
        return made

    return of


@pytest.fixture
def run_ready(tmp_path: Path, airflow_home: Path) -> Callable[..., Ran]:
    """Runs a DAG of dags/ with `dag.test()`. `changes`: file -> (text, text in its place), as an author would edit."""

    def run(dag_id: str, changes: dict[str, tuple[str, str]] | None = None, **conf: Any) -> Ran:
        from airflow.dag_processing.dagbag import DagBag

        folder = dags_folder()
        if changes:
            folder = shutil.copytree(folder, tmp_path / "changed" / "dags")
        for name, (old, new) in (changes or {}).items():
            text = (folder / name).read_text(encoding="utf-8")
            assert old in text
            (folder / name).write_text(text.replace(old, new), encoding="utf-8")
        bag = DagBag(str(folder / f"{dag_id}.py"))
        assert bag.import_errors == {}
        return run_dag(bag.dags[dag_id], conf=conf)

    return run


@pytest.fixture
def refused(run_ready: Callable[..., Ran], billed: Callable[[], dict[str, int]]) -> Callable[..., str]:
    """Runs a DAG that must fail before anything is paid for; gives what it said."""

    def run(dag_id: str, changes: dict[str, tuple[str, str]] | None = None, **conf: Any) -> str:
        from airflow.sdk.exceptions import ParamValidationError

        billed()
        try:
            ran = run_ready(dag_id, changes, **conf)
        except (ParamValidationError, ValueError) as error:  # ValueError: Airflow 3.2
            said = str(error)
        else:
            assert ran.states["batch_job.land"] == "upstream_failed"
            said = ran.error("batch_job.submit")
        assert billed() == NOTHING
        return said

    return run
